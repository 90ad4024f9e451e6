"""How near a number must come to the reference where another kind of processor computed it: one table, and the comparison.

On the kind of processor that the reference was made on nothing of this counts: there every bit is compared.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ica.build import notebooks

NUMBER = re.compile(r"[-+−]?\d+(?:\.(\d+))?(?:[eE]([-+]?\d+))?")
ROUNDING = (1e-9, 1e-4)
WHOLE = re.compile(r"[-+−]?\d+")


@dataclass(frozen=True)
class Tolerance:
    """What two values of one kind may differ by: `absolute` + `relative` times the larger one + `spread` times the range of their column.

    Args:
        relative, absolute, spread: as above; numbers of at least 0.
        counts: whole numbers may differ by this share of the larger one, rounded up; 0: not at all.
        rounding: numbers of the size of float32's rounding errors (`ROUNDING`) may differ by this share of the larger one.
        interval: a claim's value and the ends of its interval may also differ by so many half-widths of that interval.
        why: the reason, for readers.
    """

    relative: float
    absolute: float
    spread: float
    counts: float
    rounding: float
    interval: float
    why: str


TOLERANCES = {
    "exact": Tolerance(
        1e-4,
        1e-9,
        0.0,
        0.0,
        0.5,
        0.0,
        "Computed with no step that picks between near ties. In float64 another order of a sum changes the last of 16 digits. Errors of a "
        "step in float32, of 1e-9 to 1e-4, are rounding alone: between an Intel and an AMD processor, both AVX-512, they differed by up to two "
        "fifths of the larger one, and what is divided by them by 4e-5 of itself. Counts and labels are the same.",
    ),
    "trained": Tolerance(
        0.2,
        1e-4,
        0.05,
        0.1,
        0.0,
        1.0,
        "Training in float32 enlarges a difference in the last bit at every step, so that another processor gives another of the models "
        "that the same seed could give. Between an Intel and an AMD processor numbers of few seeds, and ends of their intervals, mostly moved by up "
        "to a fifth; of a claim over seeds or prompts the interval says what such a change is worth.",
    ),
    "language model": Tolerance(
        0.02,
        0.05,
        0.02,
        0.1,
        0.0,
        1.0,
        "Log-probabilities in float32 agree to about five digits, but the choice between two options that are nearly as likely may turn, "
        "and what a model writes after that is another text: one answer in twenty.",
    ),
}
# Notebooks that train, or ask a language model, themselves; of all others their metadata tells.
TRAIN = ("ablations", "linear_attention", "overtraining", "taught")
ASK = ("llm_jailbreak",)


def kind(root: Path, name: str) -> str:
    """The row of `TOLERANCES` for the numbers of a notebook; ValueError where its file is no notebook."""
    about = notebooks.read(root, name).metadata.get("ica", {})
    if name in ASK or about.get("shards"):
        return "language model"
    return "trained" if name in TRAIN or about.get("runs") else "exact"


def _value(text: str) -> float:
    return float(text.replace("−", "-"))


def _unit(found: re.Match) -> float:
    """One in the last place that was printed; 0 of a whole number."""
    places = len(found[1] or "") - int(found[2] or 0)
    return 10.0**-places if (found[1] or found[2]) and abs(places) < 300 else 0.0


def is_number(text: str) -> bool:
    """Is the text one number and nothing else?"""
    return NUMBER.fullmatch(text) is not None and "−" not in text


def near(new: str, old: str, tolerance: Tolerance, spread: float = 0.0, printed: bool = False) -> bool:
    """Is a cell or value within the tolerance of that in the reference? Of a text, each number in it, and all else the same.

    Args:
        new, old: as text, numbers with all their digits.
        spread: range of the column in the reference.
        printed: the numbers were rounded for readers, so that one in the last place counts as rounding.
    """
    if new == old:
        return True
    if NUMBER.sub("#", new) != NUMBER.sub("#", old):
        return False
    for a, b in zip(NUMBER.finditer(new), NUMBER.finditer(old), strict=True):
        x, y = _value(a[0]), _value(b[0])
        largest = max(abs(x), abs(y))
        if WHOLE.fullmatch(a[0]) and WHOLE.fullmatch(b[0]):
            room = float(math.ceil(tolerance.counts * largest)) if math.isfinite(largest) else 0.0
        else:
            room = tolerance.absolute + tolerance.relative * largest + tolerance.spread * spread
            room += max(_unit(a), _unit(b)) if printed else 0.0
            if ROUNDING[0] <= min(abs(x), abs(y)) and largest <= ROUNDING[1]:
                room = max(room, tolerance.rounding * largest)
        if not abs(x - y) <= room:  # nor where one is too large for a float
            return False
    return True
