"""Language models by name, file, folder or hub id, each with a hash that says which weights gave a result.

`load("smollm2")` takes a model of the asset table; `load("some.gguf")` a local GGUF file; `load("some/folder")` a Hugging Face
folder with safetensors; `load("owner/name")` a model of the Hugging Face hub, from its local cache or, with a network, from the
hub. Weights are computed in float32 unless asked otherwise. A GGUF file is converted once (see `copies`).

Nothing of a model is run or trusted: pickled weights (.bin, .pt) are never opened, code that comes with a model never runs, only
a hub id opens a connection, chat templates run in a process with an end (see `templates`), and what does not fit into memory is
refused before a weight is read.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ica import checks
from ica.llm.model import assets, copies, folders, headers, templates
from ica.llm.model.assets import line
from ica.llm.model.folders import ModelError, folder_hash, shown
from ica.llm.model.networks import opened, quiet

__all__ = ["DTYPES", "LanguageModel", "ModelError", "folder_hash", "load", "unfit"]
WAIT = 5.0  # seconds for an answer of the hub
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Answer = TypeVar("Answer")
ATTENTION = {"full_attention", "sliding_attention", "global"}


def unfit(network: PreTrainedModel) -> str:
    """Why a network cannot be read as a tree of tokens, as far as its configuration tells; empty if nothing is known."""
    config = network.config.get_text_config()
    kinds = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),
    }
    if getattr(network, "_is_stateful", False):
        return "it keeps a state, not keys and values per token"
    if other := sorted(map(str, kinds - ATTENTION)):
        return f"it has layers of kind {other[0]}; accepted are those that attend to all tokens or to a sliding window"
    if "longrope" in str(getattr(config, "rope_parameters", "")):
        return "its positions are read otherwise in long prompts than in short ones (longrope)"
    longest = getattr(network.config, "max_position_embeddings", None)
    if longest is not None and (not isinstance(longest, int) or longest < 1):
        return f"its max_position_embeddings is {longest!r}; accepted is a whole number of at least 1"
    ends = network.generation_config.eos_token_id
    if not all(type(one) is int for one in (ends if isinstance(ends, list) else [ends or 0])):
        return f"its eos_token_id is {ends!r}; accepted are whole numbers"
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
    def _known(self) -> int:
        return self.network.get_input_embeddings().num_embeddings

    @cached_property
    def _start(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text by itself: nothing is added; names of special tokens in the text become special tokens.

        Raises:
            ModelError: the network does not know one of them.
        """
        found = self._tried(lambda: self.tokenizer(text, add_special_tokens=False).input_ids)
        if found and max(found) >= self._known:
            raise ModelError(
                f"the tokenizer of {shown(self.name)} gives token {max(found)}; its network knows {self._known} tokens"
            )
        return found

    def context_tokens(self, text: str) -> list[int]:
        """Tokens of a text at the beginning of a sequence: `tokens`, after the start token if the model wants one."""
        tokens = self.tokens(text)
        return tokens if tokens[: len(self._start)] == self._start else self._start + tokens

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out. It is whatever the model wrote: escape it where it is shown."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return self._tried(lambda: self.tokenizer.decode(list(tokens), **options))

    def _tried(self, call: Callable[[], Answer]) -> Answer:
        """What the tokenizer answers; ModelError where it fails, as its library in Rust does with errors of its own kind."""
        try:
            return call()
        except BaseException as error:
            if isinstance(error, (TypeError, ValueError)) or type(error).__name__ == "PanicException":
                reason = line(f"{type(error).__name__}: {error}")
                raise ModelError(f"the tokenizer of {shown(self.name)} fails ({reason})") from error
            raise

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
            if found := self.forged(message["content"]):
                raise ModelError(f"a message for {self.name} contains its special token {found!r}")
        try:
            template = self.tokenizer.get_chat_template()
            if not isinstance(template, str):
                raise ValueError(f"is {template!r}, and no text")
            return templates.render(template, messages, self.tokenizer.special_tokens_map)
        except ValueError as error:  # TemplateError, or there are several and none is the default
            raise ModelError(f"the chat template of {shown(self.name)} {line(str(error))}") from error

    def plain(self, text: str) -> str:
        """The text without the names of special tokens, as for generated text that goes into a later prompt."""
        while found := next((name for name in self._special if name in text), None):
            text = text.replace(found, "")
        return text

    def forged(self, text: str) -> str:
        """The special token that a text spells, or becomes as the tokenizer reads it; empty if it does not."""
        if found := next((name for name in self._special if name in text), ""):
            return found
        own = set(self.tokens(text)) & self._controls.keys()
        return self._controls[min(own)] if own else ""

    @cached_property
    def _controls(self) -> dict[int, str]:
        """Tokens that are no pieces of text, by number: special by name, or added to the vocabulary and more than spaces."""
        added = {number: str(token) for number, token in self.tokenizer.added_tokens_decoder.items()}
        named = dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=False))
        return {number: name for number, name in (added | named).items() if name.strip()}

    @cached_property
    def _special(self) -> list[str]:
        """Names of special tokens, the longest first."""
        return sorted(set(self._controls.values()), key=len, reverse=True)


def load(source: str | Path, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """A model by name, GGUF file, folder or hub id, as the module says.

    Args:
        source: what to load; a name of the table comes before a path of the same name.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", or a GPU as torch names it.

    Raises:
        AssetError: a model of the table cannot be had, or is not what it should be.
        ModelError: unknown name, no such file, pickled weights, unknown model type, damaged file, too little memory.
        ValueError: an unknown type of numbers or device.
    """
    checks.one_of("dtype", dtype, tuple(DTYPES))
    name = str(source)
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {line(repr(device))} cannot be used ({line(str(error).splitlines()[0])})"
        ) from error
    path, hash = _located(name), ""
    if path.is_file():
        copies.sizes(path, name, dtype)  # what cannot fit is refused before it is read
        with folders.laid_out([path], name):
            hash = folders.hashed(path)
            path = copies.converted(path, hash, name)
    files = folders.files(path)
    weights = [file for file in files if file.suffix == ".safetensors"]
    with folders.laid_out(files, name) as plain:
        sizes = _sizes(name, path, weights)
        headers.afford(name, sizes.numbers, dtype)
        hash = hash or folders.digest(files)
        network, tokenizer = opened(plain, name, DTYPES[dtype], sizes)
    try:
        network = network.to(place).eval().requires_grad_(False)
    except RuntimeError as error:
        raise ModelError(
            f"model {shown(name)} cannot be put on {place} ({line(str(error).splitlines()[0])})"
        ) from error
    return LanguageModel(name, hash, network, tokenizer)


def _sizes(name: str, folder: Path, weights: Sequence[Path]) -> headers.Sizes:
    """What a folder's weights hold; ModelError if they are damaged, or the configuration has more layers than they."""
    try:
        sizes = headers.safetensors_sizes(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"model {shown(name)} is damaged or incomplete ({line(str(error))})") from error
    if (most := folders.layers(folder)) > sizes.tensors:
        raise ModelError(
            f"model {shown(name)} is damaged or incomplete (config.json says {most} layers, the weights hold {sizes.tensors} tensors)"
        )
    return sizes


def _located(source: str) -> Path:
    """The GGUF file or the folder that `source` means, brought here if need be."""
    if (path := folders.find(source)) is not None:
        return path
    return assets.fetch(source) if source in assets.table() else _from_hub(source)


def _from_hub(name: str) -> Path:
    """The folder of a hub id in the local hub cache, brought there if it has none; ModelError if that cannot be done."""
    from huggingface_hub import HfApi, snapshot_download

    patterns = [f"*{Path(one).suffix}" for one in (folders.WEIGHTS, *folders.TEXTS)]
    wanted = {"allow_patterns": patterns, "ignore_patterns": ["*/*"]}
    with suppress(Exception):  # of no common class: it is not there
        return Path(snapshot_download(name, local_files_only=True, **wanted))
    try:
        HfApi().model_info(name, timeout=WAIT)  # does it answer? The client by itself would wait for ever
        with quiet():
            return Path(snapshot_download(name, local_files_only=False, **wanted))
    except Exception as error:
        reason = line(f"{type(error).__name__}: {error}".splitlines()[0])
        raise ModelError(
            f"model {name!r} is neither a local path nor in the local hub cache, and the hub did not give it ({reason})"
        ) from error
