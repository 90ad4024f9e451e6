"""Converted copies of GGUF files: a folder with safetensors, which loads in about a second, sealed when it is whole.

Its name holds the hash of the GGUF file and the version of transformers, which does the conversion (half a minute for 135M
parameters). A copy that is damaged, incomplete or unsealed is made anew; two processes that convert at once leave one.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ica.llm.model import assets, folders, headers
from ica.llm.model.assets import line
from ica.llm.model.folders import ModelError, shown
from ica.llm.model.networks import opened
from ica.record import seals

SEAL = "seal.json"


def converted(file: Path, hash: str, name: str) -> Path:
    """The folder with the copy of a GGUF file; made if it is not there as it was written.

    Args:
        file: the GGUF file.
        hash: its SHA-256.
        name: the model, for messages.

    Raises:
        ModelError: the file is damaged, of an unknown type, or too large; or the copy cannot be written.
    """
    folder = assets.cache_folder() / "models" / f"{hash[:16]}-transformers-{transformers.__version__}"
    if _whole(folder):
        return folder
    found = sizes(file, name)
    headers.afford(name, found.numbers, "float32", headers.CONVERTING, of=())
    try:
        with assets.workshop(folder.parent) as shop:
            with folders.laid_out([file], name) as plain:
                network, tokenizer = opened(plain, name, torch.float32, found, file.name)
            _write(network, tokenizer, shop / "copy", folder)
            _place(shop / "copy", folder, shop / "old")
    except assets.AssetError as error:
        raise ModelError(f"model {shown(name)} cannot be converted: {error}") from error
    return folder


def sizes(file: Path, name: str, dtype: str = "float32") -> headers.Sizes:
    """What a GGUF file holds by its header; ModelError if that is damaged, or too much for the memory that is free."""
    try:
        found = headers.gguf_sizes(file)
    except ValueError as error:
        unknown = "is of a type that cannot be loaded here" if "quantization type" in str(error) else ""
        raise ModelError(
            f"model {shown(name)} {unknown or 'is damaged or incomplete'} ({line(str(error))})"
        ) from error
    headers.afford(name, found.numbers, dtype, of=())
    return found


def _whole(folder: Path) -> bool:
    """Does the copy hold just the files that were written, as they were written? Others would be read with them."""
    if seals.faults(folder / SEAL):
        return False
    return set(folder.iterdir()) == seals.names(folder / SEAL) | {folder / SEAL}


def _place(made: Path, folder: Path, old: Path) -> None:
    """Move a copy to its place, out of which one that is not whole goes first; OSError if that is not possible."""
    with suppress(OSError):  # one is there already
        os.rename(made, folder)
        return
    if not _whole(folder):  # else another process was faster
        os.rename(folder, old)
        os.rename(made, folder)


def _write(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, made: Path, folder: Path) -> None:
    """Weights (tied ones once), configuration and tokenizer, and the seal of these files; ModelError if that fails."""
    kept: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in network.state_dict().items():
        kept.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))
    with suppress(AttributeError):
        del network.config.quantization_config
    try:
        made.mkdir()
        save_file(dict(kept.values()), made / folders.WEIGHTS, metadata={"format": "pt"})
        network.config.save_pretrained(made)
        network.generation_config.save_pretrained(made)
        tokenizer.save_pretrained(made)
        for path in made.iterdir():
            path.chmod(made.stat().st_mode & 0o666)  # what the umask says
        seals.write(made / SEAL, made.iterdir())
    except Exception as error:
        shutil.rmtree(made, ignore_errors=True)
        raise ModelError(
            f"the converted copy {folder} could not be written ({line(str(error))}); {assets.OTHER}"
        ) from error
