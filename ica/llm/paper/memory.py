"""What a run needs of memory, said before anything is loaded, and refused where it does not fit.

Weights: their numbers (from the headers of the files) times the bytes of each. Beside them stand the keys and
values of the tokens that are held at once: with `places` distinct tokens in one pass, up to `HELD` times as
many, as dialogues that begin alike each hold a copy (a trial on a CPU held about seven times). Of a layer a token
takes 2 x key-value heads x head width numbers.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ica.llm.model import folders, headers
from ica.llm.model.folders import ModelError, shown
from ica.llm.model.headers import GIB, MARGIN

PLACES = (8192, 4096, 2048, 1024)
HELD = 8
GROUP = 256  # places for each item that is asked at once


@dataclass(frozen=True)
class Need:
    """Bytes that a run needs, and those that there are."""

    place: str
    weights: int
    held: int
    free: int
    total: int

    @property
    def bytes(self) -> int:
        return self.weights + self.held + MARGIN

    def __str__(self) -> str:
        return (
            f"{self.bytes / GIB:.1f} GiB of memory on {self.place} (weights {self.weights / GIB:.1f}, keys and values up to "
            f"{self.held / GIB:.1f}, {MARGIN / GIB:.1f} to work with); {self.free / GIB:.1f} of {self.total / GIB:.1f} GiB are free"
        )


def width(config: dict) -> int:
    """Numbers that a token's keys and values take over all layers, by a configuration; 0 if it does not
    say."""
    config = config.get("text_config") or config
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    heads = config.get("num_attention_heads") or config.get("n_head")
    hidden = config.get("hidden_size") or config.get("n_embd")
    if not all(type(one) is int and one > 0 for one in (layers, heads, hidden)):
        return 0
    head = config.get("head_dim") or hidden // heads
    return 2 * layers * (config.get("num_key_value_heads") or heads) * head


def memory_of(device: str) -> tuple[int, int]:
    """Bytes that are free and that there are, on a GPU or for the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))
    return headers.available(), psutil.virtual_memory().total


def needed(path: Path, dtype: str, device: str, places: int) -> Need:
    """What a run of the model in this folder needs.

    Raises:
        ModelError: the folder or its weights cannot be read.
    """
    weights = [file for file in folders.files(path) if file.suffix == ".safetensors"]
    try:
        numbers = headers.safetensors_sizes(weights).numbers
    except Exception as error:  # of the library in Rust, of no common class
        raise ModelError(f"model folder {shown(str(path))} is damaged or incomplete ({error})") from error
    size, (free, total) = headers.BYTES[dtype], memory_of(device)
    return Need(
        device, numbers * size, HELD * places * width(folders._json(path / "config.json")) * size, free, total
    )


def planned(path: Path, name: str, dtype: str, device: str, places: int | None) -> tuple[int, Need]:
    """Places for a run, and what it needs: the most that nine tenths of the device's memory hold, so that
    they are the same tomorrow.

    Raises:
        ModelError: it does not fit into the memory that is free, with the figures and what would.
    """
    needs = {one: needed(path, dtype, device, one) for one in ((places,) if places else PLACES)}
    chosen = next((one for one, need in needs.items() if need.bytes <= 0.9 * need.total), min(needs))
    need = needs[chosen]
    if need.bytes > need.free:
        smaller = [
            one for one in PLACES if one < chosen and needed(path, dtype, device, one).bytes <= need.free
        ]
        other = [f"PLACES={smaller[0]}"] if smaller else []
        other += ["DTYPE=bfloat16"] if dtype == "float32" else []
        other += ["memory that other programs hold"] if need.bytes <= need.total else []
        raise ModelError(
            f"model {shown(name)} needs {need}; what could help: {', '.join([*other, 'a smaller model, or a larger device'])}"
        )
    return chosen, need
