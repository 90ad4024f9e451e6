"""What weights files say of themselves before any weight is read: tensors, numbers, and so the memory that they need."""

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import psutil

from ica.llm.model.folders import ModelError, shown

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MARGIN = 1 << 29  # bytes to work with, beside the weights
CONVERTING = 2.0  # a conversion holds what it has read and what it writes
GIB = 1 << 30
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
MOST = {"entries": 1 << 16, "tensors": 1 << 16, "array": 1 << 22, "text": 1 << 24}  # in a GGUF header
VERSIONS = (2, 3)


@dataclass(frozen=True)
class Sizes:
    """Tensors of a model's files, and numbers in all of them together."""

    tensors: int
    numbers: int


WEIGHTS = ("F64", "F32", "F16", "BF16")
BUFFERS = re.compile(r"position_ids|attn\.(masked_)?bias$|inv_freq")  # not weights, of any type


def safetensors_sizes(files: Sequence[Path]) -> Sizes:
    """What the headers of safetensors files say.

    Raises:
        SafetensorError: a header is damaged or its file cut short.
        ValueError: numbers that are no weights as they stand (quantized ones, say), or a tensor that is in two files.
    """
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for file in files:
        with safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118  (no dictionary)
                tensor = opened.get_slice(name)
                if name in shapes:
                    raise ValueError(f"tensor {name} is in two files")
                if tensor.get_dtype() not in WEIGHTS and not BUFFERS.search(name):
                    raise ValueError(
                        f"tensor {name} is of type {tensor.get_dtype()}; accepted are {', '.join(WEIGHTS)}"
                    )
                shapes[name] = tensor.get_shape()
    return Sizes(len(shapes), sum(map(prod, shapes.values())))


def gguf_sizes(file: Path) -> Sizes:
    """What the header of a GGUF file says.

    Raises:
        ValueError: it is no GGUF file, cut short, of an unknown version or quantisation type, or its counts are absurd.
    """
    if file.stat().st_size < 24:
        raise ValueError("it does not begin as a GGUF file does")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Header(data).sizes()


class _Header:
    """Reads a GGUF header from its beginning, and no further than the file goes."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def sizes(self) -> Sizes:
        magic, version, tensors, entries = self._take("4sIQQ")
        if magic != b"GGUF":
            raise ValueError("it does not begin as a GGUF file does")
        if version not in VERSIONS:
            raise ValueError(f"GGUF version {version}; accepted are {' and '.join(map(str, VERSIONS))}")
        self._at_most("tensors", tensors, "tensors")
        self._at_most("entries", entries, "entries")
        values = dict(self._entry() for _ in range(entries))
        layers = [
            value for key, value in values.items() if key.endswith(".block_count") and isinstance(value, int)
        ]
        if layers and max(layers) > tensors:
            raise ValueError(f"its header says {max(layers)} layers, but holds {tensors} tensors")
        found = [self._tensor() for _ in range(tensors)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise ValueError(f"general.alignment {alignment!r} is no number of bytes")
        begin = -(-self.at // alignment) * alignment
        for name, _, end in found:
            if begin + end > len(self.data):
                raise ValueError(
                    f"tensor {shown(name)} ends at byte {begin + end}, the file at {len(self.data)}"
                )
        return Sizes(tensors, sum(numbers for _, numbers, _ in found))

    def _take(self, form: str) -> tuple:
        size = struct.calcsize(f"<{form}")
        if self.at + size > len(self.data):
            raise ValueError("it ends within its header")
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += size
        return found

    def _at_most(self, what: str, count: int, most: str) -> None:
        if count > MOST[most]:
            raise ValueError(f"its header says {count} {what}; accepted are at most {MOST[most]}")

    def _text(self, what: str) -> str:
        (length,) = self._take("Q")
        self._at_most(f"bytes for {what}", length, "text")
        try:
            return self._take(f"{length}s")[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{what} is no UTF-8") from error

    def _entry(self) -> tuple[str, object]:
        key = self._text("the name of an entry")
        (kind,) = self._take("I")
        return key, self._value(kind, shown(key))

    def _value(self, kind: int, key: str) -> object:
        """A value; of an array nothing is kept."""
        if kind in SCALARS:
            return self._take(SCALARS[kind])[0]
        if kind == TEXT:
            return self._text(key)
        if kind != ARRAY:
            raise ValueError(f"{key} is of the unknown type {kind}")
        inner, count = self._take("IQ")
        self._at_most(f"values for {key}", count, "array")
        if inner in SCALARS:
            self._take(f"{count}{SCALARS[inner]}")
        elif inner == TEXT:
            for _ in range(count):
                self._text(f"a text of {key}")
        else:
            raise ValueError(f"{key} is an array of the unknown type {inner}")
        return None

    def _tensor(self) -> tuple[str, int, int]:
        """Name, numbers, and end of a tensor, counted in bytes from where the tensors begin."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._text("the name of a tensor")
        (axes,) = self._take("I")
        if axes > 8:
            raise ValueError(f"tensor {shown(name)} has {axes} axes")
        numbers = prod(self._take(f"{axes}Q"))
        kind, offset = self._take("IQ")
        if kind not in {one.value for one in GGMLQuantizationType}:
            raise ValueError(f"tensor {shown(name)} is of the unknown quantization type {kind}")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return name, numbers, offset + numbers // block * size


def afford(name: str, numbers: int, dtype: str, times: float = 1.0, of: Sequence[str] = tuple(BYTES)) -> None:
    """See that a model fits into the memory that is free.

    Args:
        name: the model, for the message.
        numbers: how many its weights are.
        dtype: what they are held in.
        times: how often they are held at once.
        of: types of numbers that could be asked for instead.

    Raises:
        ModelError: it does not, with the figures and what would.
    """
    free = available()
    needs = {one: round(numbers * BYTES[one] * times) + MARGIN for one in {dtype, *of}}
    if needs[dtype] <= free:
        return
    half = next((one for one in of if needs[one] < needs[dtype] and needs[one] <= free), None)
    raise ModelError(
        f"model {shown(name)} needs about {needs[dtype] / GIB:.1f} GiB of memory ({numbers / 1e6:,.0f} million numbers in {dtype}"
        f"{', held twice to convert them' if times > 1 else ''}, and {MARGIN / GIB:.1f} GiB to work with), but {free / GIB:.1f} GiB "
        f"are free; accepted are smaller models{f', or this one with dtype={half!r} ({needs[half] / GIB:.1f} GiB)' if half else ''}"
    )


def available(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of memory that this process can still have: what the machine has free, or its control group allows.

    Args:
        root: where control groups are mounted.
        own: the file that names the process's own.
    """
    found = [psutil.virtual_memory().available]
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for one in lines:
        _, kinds, path = one.split(":", 2)
        if not kinds:
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            base, names = (
                root / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        folder = base / path.strip("/")
        found += [_room(each, *names) for each in (folder, *folder.parents) if each.is_relative_to(base)]
    return max(0, min(found))


def _room(folder: Path, limit: str, usage: str, cached: str) -> int:
    """What a control group still allows; what it holds of files that can be read again does not count."""
    try:
        stats = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # no limit
        return 1 << 63
    return most - used + int(stats.get(cached, 0))
