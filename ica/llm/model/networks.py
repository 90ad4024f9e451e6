"""Network and tokenizer out of files that were looked at before: what transformers may do while it reads them, and what not.

It is given a folder that holds nothing but the accepted files, opens no connection, runs no code of the model, and makes no
network that is larger than the weights. Whatever it does not like is an error that names the model.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from unittest import mock

import torch
import transformers
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ica.llm.model.assets import line
from ica.llm.model.folders import ModelError, shown
from ica.llm.model.headers import Sizes

TYPE = re.compile(
    r"\barchitecture|custom code|model type|model_type|[Uu]nrecognized (model|configuration)|(ggml|quantization) type|not supported yet"
)
COMPUTED = re.compile(
    r"rotary|rope|inv_freq|position_ids|attn\.(masked_)?bias$"
)  # what networks compute by themselves
SPARE = Sizes(1000, 1 << 24)  # what a network may have beside what its weights hold


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, advice or panics of libraries, only errors; the bar over a GGUF file heeds no setting."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # the libraries in Rust know no other way
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


@contextmanager
def _no_larger(sizes: Sizes, times: int) -> Iterator[None]:
    """ValueError as soon as networks are laid out that hold more than `times` these sizes."""
    most = Sizes(times * sizes.tensors + SPARE.tensors, times * sizes.numbers + SPARE.numbers)
    tensors = numbers = 0

    def count(module: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
        nonlocal tensors, numbers
        if value is not None and value.is_meta:
            tensors, numbers = tensors + 1, numbers + value.numel()
            if tensors > most.tensors or numbers > most.numbers:
                raise ValueError(
                    f"its configuration asks for more than its {sizes.tensors} tensors of {sizes.numbers} numbers"
                )

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def opened(
    folder: Path, name: str, dtype: torch.dtype, sizes: Sizes, gguf: str = ""
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Network and tokenizer of a folder, or of the GGUF file in it.

    Args:
        folder: holds the files to read, and nothing else.
        name: the model, for messages.
        dtype: of the weights.
        sizes: what its weights hold.
        gguf: the name of the GGUF file, if it is one.

    Raises:
        ModelError: unknown type, damaged or incomplete files, a package that is missing.
    """
    options = {"local_files_only": True, "trust_remote_code": False, **({"gguf_file": gguf} if gguf else {})}
    weights = {"quantization_config": GgufConfig(dequantize=True)} if gguf else {"use_safetensors": True}
    try:
        with (
            quiet(),
            _no_larger(sizes, 4 if gguf else 2),
            mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
        ):
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            network, loading = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **weights, **options
            )
        if missing := sorted(loading["missing_keys"]):  # transformers would go on with random ones
            raise ValueError(f"no weights for {', '.join(missing[:3])}{' and more' * (len(missing) > 3)}")
        unused = sorted(key for key in loading["unexpected_keys"] if not COMPUTED.search(key))
        if unused:  # and go on without these: with fewer layers, say
            raise ValueError(
                f"weights that its network does not use: {', '.join(unused[:3])}{' and more' * (len(unused) > 3)}"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ValueError(f"its tokenizer is a {type(tokenizer).__name__}")
        parts = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
        if getattr(parts, "dropout", None):
            raise ValueError("its tokenizer has a dropout: it would give other tokens each time")
        tokenizer.decode(tokenizer("One, two").input_ids)  # some settings are only looked at here
    except MemoryError as error:
        raise ModelError(
            f"model {shown(name)} does not fit into memory ({line(str(error)) or 'MemoryError'})"
        ) from error
    except Exception as error:
        raise _wrong(folder, name, error) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of the libraries in Rust
            raise _wrong(folder, name, error) from error
        raise
    network.config.name_or_path = tokenizer.name_or_path = name
    return network, tokenizer


def _wrong(folder: Path, name: str, error: BaseException) -> ModelError:
    """What went wrong, in one line."""
    said = str(error).replace(str(folder), name).strip()
    reason = line(said) if said else type(error).__name__
    if TYPE.search(said):
        return ModelError(
            f"model {shown(name)} is of a type that transformers {transformers.__version__} cannot load here "
            f"as a causal language model ({reason})"
        )
    if isinstance(error, ImportError):
        return ModelError(f"model {shown(name)} needs a package that is not installed ({reason})")
    return ModelError(f"model {shown(name)} is damaged or incomplete ({reason})")
