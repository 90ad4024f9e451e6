"""What `make bench` accepts, checked in one place before anything runs."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ica.bench import released
from ica.build.jobs import MOST
from ica.record.parameters import Rule, meant, shown, whole

# Part -> what it measures, in the order in which they run; `book` takes long, so it runs only where it is named.
PARTS = {
    "training": "a training step against the released code's own",
    "descent": "the gradient-descent baseline against a loop",
    "objective": "Plackett-Luce loss and gradient against the double loop",
    "constructed": "a constructed forward pass against gradient descent",
    "items": "BBQ items a minute against each option by itself",
    "book": "`make book` in a fresh clone",
}
NAMES = ("RUNS", "RELEASED", "THREADS", "REPEATS", "DEVICE", "STORE")
ACCEPTED: dict[str, Rule] = {
    "THREADS": whole(1, MOST),
    "REPEATS": whole(1, 100),
    "STORE": Rule("yes or nothing", lambda value: value in ("", "yes")),
}
REPEATS = 5


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Args:
        runs: parts, in order.
        released: a checkout of the released code, if any.
        threads: of the processor.
        repeats: repetitions of each figure.
        device: where training steps run.
        store: whether the report goes to `results/bench` too.
    """

    runs: tuple[str, ...]
    released: Path | None
    threads: int
    repeats: int
    device: str
    store: bool


def asked(words: dict[str, str]) -> Asked:
    """The settings of their texts by name (`NAMES`), empty or missing ones at their defaults.

    Raises:
        ValueError: one that is not accepted, named, with what is.
    """
    given = {name: words.get(name, "").strip() for name in NAMES}
    runs = given["RUNS"].split() or [name for name in PARTS if name != "book"]
    if unknown := [name for name in runs if name not in PARTS]:
        raise ValueError(f"RUNS: {shown(unknown[0])} is no part; {meant(unknown[0], PARTS)}")
    threads, repeats = _number("THREADS", given["THREADS"], 1), _number("REPEATS", given["REPEATS"], REPEATS)
    _accepted("STORE", given["STORE"])
    device = given["DEVICE"] or "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"DEVICE: {shown(device)} cannot be used ({why})") from error
    ordered = tuple(name for name in PARTS if name in runs)
    return Asked(
        ordered, released.checkout(given["RELEASED"]), threads, repeats, device, bool(given["STORE"])
    )


def _number(name: str, text: str, default: int) -> int:
    if not text:
        return default
    return _accepted(name, int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text)


def _accepted(name: str, value):
    rule = ACCEPTED[name]
    if not rule.fits(value):
        raise ValueError(f"{name}: must be {rule.says}, got {shown(value)}")
    return value
