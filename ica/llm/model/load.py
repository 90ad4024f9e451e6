"""Language models by name, file, folder or hub id, each with a hash that says which weights gave a result.

`load("smollm2")` takes a model of the asset table; `load("some.gguf")` a local GGUF file; `load("some/folder")` a Hugging Face
folder with safetensors; `load("owner/name")` a model of the Hugging Face hub, from its local cache or, with a network, from the
hub. Weights are computed in float32 unless asked otherwise. A GGUF file is converted once (half a minute for 135M parameters)
to a safetensors copy in the cache, which loads in about a second. Pickled weights (.bin, .pt) are never opened, and code that
comes with a model is never run.
"""

import hashlib
import io
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ica import checks
from ica.llm.model import assets
from ica.record.provenance import write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
READ = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    RuntimeError,
    AttributeError,
    UnboundLocalError,
    SafetensorError,
    struct.error,
)


ATTENTION = {"full_attention", "sliding_attention", "global"}


class ModelError(ValueError):
    """A model cannot be found, read or used as asked; the message names it, and what is accepted."""


def unfit(network: PreTrainedModel) -> str:
    """Why a network cannot be read as a tree of tokens, as far as its configuration tells; empty if nothing is known."""
    config = network.config.get_text_config()
    kinds = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),
    }
    if getattr(network, "_is_stateful", False):
        return "it keeps a state, not keys and values per token"
    if other := sorted(kinds - ATTENTION):
        return f"it has layers of kind {other[0]}; accepted are those that attend to all tokens or to a sliding window"
    return ""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        name: as it was asked for.
        hash: SHA-256 of the GGUF file, or of all files of the folder that are read (see `folder_hash`).
        network: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
    """

    name: str
    hash: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self):
        if why := unfit(self.network):
            raise ModelError(
                f"model {self.name} of type {self.network.config.model_type} cannot be read here: {why}"
            )

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def longest(self) -> int:
        """Tokens that the model can read at once."""
        return getattr(self.network.config, "max_position_embeddings", None) or 1 << 30

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens at which generation stops: those of the generation settings."""
        ends = self.network.generation_config.eos_token_id
        return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)

    @cached_property
    def _start(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text by itself: nothing is added; names of special tokens in the text become special tokens."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def context_tokens(self, text: str) -> list[int]:
        """Tokens of a text at the beginning of a sequence: `tokens`, after the start token if the model wants one."""
        tokens = self.tokens(text)
        return tokens if tokens[: len(self._start)] == self._start else self._start + tokens

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out. It is whatever the model wrote: escape it where it is shown."""
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The conversation as the model was trained to read it, up to where the assistant's next turn begins.

        Args:
            messages: dictionaries with the keys `role` ("system", "user", "assistant") and `content`.

        Raises:
            ModelError: the model has no chat template, the template refuses the roles, or a message spells a special
                token of the model, with which it could forge a turn; `plain` takes these out.
        """
        if self.tokenizer.chat_template is None:
            raise ModelError(f"model {self.name} has no chat template; it can only be given plain text")
        for message in messages:
            if found := [token for token in self.tokenizer.all_special_tokens if token in message["content"]]:
                raise ModelError(f"a message for {self.name} contains its special token {found[0]!r}")
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(
                f"the chat template of {self.name} refuses the roles {roles} ({error})"
            ) from error

    def plain(self, text: str) -> str:
        """The text without the names of special tokens, as for generated text that goes into a later prompt."""
        names = sorted(self.tokenizer.all_special_tokens, key=len, reverse=True)
        while found := next((name for name in names if name in text), None):
            text = text.replace(found, "")
        return text


def load(source: str | Path, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """A model by name, GGUF file, folder or hub id, as the module says.

    Args:
        source: what to load; a name of the table comes before a path of the same name.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", or a GPU as torch names it.

    Raises:
        AssetError: a model of the table cannot be had, or is not what it should be.
        ModelError: unknown name, no such file, pickled weights, unknown model type, damaged file.
    """
    checks.one_of("dtype", dtype, tuple(DTYPES))
    path, name = _located(str(source)), str(source)
    if path.is_file():
        hash = assets.sha256(path)
        folder = _converted(path, hash)
    else:
        hash, folder = folder_hash(path), path
    network, tokenizer = _open(folder, name, DTYPES[dtype])
    return LanguageModel(name, hash, network.to(device).eval().requires_grad_(False), tokenizer)


def _located(source: str) -> Path:
    """The GGUF file or the folder that `source` means."""
    names = [name for name, asset in assets.table().items() if asset.kind == "model"]
    if source in names:
        return assets.fetch(source)
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.is_file():
        raise ModelError(f"model {source}: a file must be a GGUF file, and its name end with .gguf")
    if HUB_ID.fullmatch(source) and path.suffix != ".gguf":
        return _from_hub(source)
    raise ModelError(
        f"model {source!r} is unknown; accepted are {', '.join(names)}, the path of a .gguf file or of a Hugging Face "
        "folder, and a hub id (owner/name)"
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    found = []
    for local in (True, False):
        try:
            return Path(snapshot_download(name, local_files_only=local, allow_patterns=list(READ)))
        except Exception as error:  # noqa: BLE001  (the client has no common class of errors)
            found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    raise ModelError(
        f"model {name!r} is neither a local path nor in the local hub cache, and the hub did not give it ({found[-1]})"
    )


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and SHA-256s of all files of a folder that are read, in the order of their names.

    Raises:
        ModelError: there are no safetensors, only pickled weights say.
    """
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for end in ("bin", "pt", "pth", "ckpt") for p in folder.glob(f"*.{end}"))
        wrong = f"only pickled weights ({pickled[0]}), which are not opened" if pickled else "no weights"
        raise ModelError(f"model folder {folder} has {wrong}; accepted are .safetensors files")
    files = sorted({path for pattern in READ for path in folder.glob(pattern)})
    lines = "".join(f"{assets.sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice of transformers, only its errors; the bar over a GGUF file heeds no setting."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def _open(
    folder: Path, name: str, dtype: torch.dtype, **gguf: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Network and tokenizer of a folder, or of the GGUF file in it that `gguf_file` names."""
    options = {"local_files_only": True, "trust_remote_code": False, **gguf}
    weights = {} if gguf else {"use_safetensors": True}
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            network, loading = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **weights, **options
            )
        if missing := sorted(loading["missing_keys"]):  # transformers would go on with random ones
            raise ValueError(f"no weights for {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}")
    except DAMAGED as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if re.search(r"architecture|model type|model_type|[Uu]nrecognized (model|configuration)", str(error)):
            raise ModelError(
                f"model {name} is of a type that transformers {transformers.__version__} cannot load here "
                f"as a causal language model ({reason})"
            ) from error
        raise ModelError(f"model {name} is damaged or incomplete ({reason})") from error
    return network, tokenizer


def _converted(file: Path, hash: str) -> Path:
    """The folder with the safetensors copy of a GGUF file, made if it is not there or damaged.

    Its name holds the hash of the GGUF file and the version of transformers, which does the conversion.
    """
    folder = assets.cache_folder() / "models" / f"{hash[:16]}-transformers-{transformers.__version__}"
    if folder.is_dir():
        if _whole(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ModelError(f"model {file} is damaged or incomplete (it does not begin as a GGUF file does)")
    network, tokenizer = _open(file.parent, str(file), torch.float32, gguf_file=file.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(network, tokenizer, temporary)
        os.rename(temporary, folder)
    except OSError as error:  # another process may have been faster
        if not (folder.is_dir() and _whole(folder)):
            raise ModelError(f"the converted copy {folder} could not be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights (tied ones once), configuration, tokenizer, and the hashes of all these files."""
    kept: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in network.state_dict().items():
        kept.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))
    save_file(dict(kept.values()), folder / "model.safetensors", metadata={"format": "pt"})
    del network.config.quantization_config
    network.config.save_pretrained(folder)
    network.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)
    write_json(folder / "SHA256.json", {path.name: assets.sha256(path) for path in sorted(folder.iterdir())})


def _whole(folder: Path) -> bool:
    """Are all files of a converted copy there, as they were written?"""
    try:
        expected = json.loads((folder / "SHA256.json").read_text())
        return all(assets.sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError, AttributeError):
        return False
