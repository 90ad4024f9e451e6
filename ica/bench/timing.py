"""Times of several ways to the same numbers: taken in turns, beside the least that the arithmetic takes, with growth exponents."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

import torch

LEAST = 0.02  # seconds that a repetition lasts at least, by as many calls as that takes
SIDE = 1024  # of the matrices by which the machine's rate is measured


@dataclass(frozen=True)
class Way:
    """One way to do the work of a case.

    Args:
        name: as a table shows it.
        run: does it once.
        units: how many of the case's units one run does.
        flop: floating-point operations that one run takes at least; 0 where nothing is counted.
        goal: how many times faster than the reference it shall be; alone in its case, the most seconds a unit. 0: no goal.
    """

    name: str
    run: Callable[[], object]
    units: float = 1.0
    flop: float = 0.0
    goal: float = 0.0


@dataclass(frozen=True)
class Case:
    """Ways to the same numbers, the last of which is the reference; a single way is only timed.

    Args:
        name: what is done, and of what size.
        unit: of what the times are.
        ways: ours first.
        difference: computes by all ways and gives the largest difference of their numbers, before anything is timed.
        tolerance: what that may be.
        dtype, device: of the numbers, for the matrix rate.
        series, at: the series of cases that this one belongs to, and where in it; growth exponents are fitted along it.
        repeats: at most so many repetitions; 0: as many as are asked for.
        warm: whether `difference` has run every way, and each lasts long: then a repetition is one call, with none before.
    """

    name: str
    unit: str
    ways: tuple[Way, ...]
    difference: Callable[[], float] | None = None
    tolerance: float = 0.0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    series: str = ""
    at: float = 0.0
    repeats: int = 0
    warm: bool = False


def lasted(run: Callable[[], object], calls: int = 1) -> float:
    """Seconds a call, of some in a row; what a GPU still has to do counts."""
    _settled()
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    _settled()
    return (time.perf_counter() - begun) / calls


def _settled() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interleaved(runs: Sequence[Callable[[], object]], repeats: int, warm: bool = False) -> list[list[float]]:
    """Seconds a call of each run, `repeats` times in turns, so that what slows the machine down meets all of them."""
    calls = [1 if warm else max(1, math.ceil(LEAST / max(lasted(run), 1e-7))) for run in runs]
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, count, kept in zip(runs, calls, taken, strict=True):
            kept.append(lasted(run, count))
    return taken


def matrix_rate(dtype: torch.dtype, device: str = "cpu", side: int = SIDE, repeats: int = 5) -> float:
    """Floating-point operations a second of the product of two square matrices, the best of some repetitions."""
    left, right = (torch.rand(side, side, dtype=torch.float64).to(device, dtype) for _ in range(2))
    (taken,) = interleaved([lambda: left @ right], repeats)
    return 2 * side**3 / min(taken)


def spread(values: Sequence[float]) -> dict[str, object]:
    """Least, median and largest of the repetitions, and each."""
    return {"min": min(values), "median": median(values), "max": max(values), "each": list(values)}


def measured(case: Case, repeats: int, rate: float) -> dict:
    """The row of a case: each way's seconds a unit, floor and how many times faster than the reference it is.

    Args:
        repeats: repetitions.
        rate: operations a second of the machine, for the floor.

    Raises:
        ValueError: the ways do not give the same numbers; nothing is timed then.
    """
    difference = case.difference() if case.difference else None
    if difference is not None and not difference <= case.tolerance:
        raise ValueError(
            f"{case.name}: the ways differ by {difference:.2g}, more than {case.tolerance:g}; nothing is timed"
        )
    repeats = min(repeats, case.repeats or repeats)
    taken = interleaved([way.run for way in case.ways], repeats, case.warm)
    each = [[one / way.units for one in own] for way, own in zip(case.ways, taken, strict=True)]
    ways = [
        {
            "name": way.name,
            "units": way.units,
            "flop": way.flop / way.units,
            "floor": way.flop / way.units / rate,
            "goal": way.goal,
            "seconds": spread(own),
            "faster": spread([last / one for last, one in zip(each[-1], own, strict=True)]),
        }
        for way, own in zip(case.ways, each, strict=True)
    ]
    about = {"case": case.name, "unit": case.unit, "series": case.series, "at": case.at}
    return about | {"difference": difference, "tolerance": case.tolerance, "ways": ways}


def exponents(rows: Sequence[dict]) -> list[dict]:
    """Growth of each way along each series: slopes of log time, and of log operations, over log size, by least squares.

    That of time is fitted to each repetition by itself; of a series, three rows at least are needed.
    """
    found = []
    for series in dict.fromkeys(row["series"] for row in rows if row["series"]):
        own = [row for row in rows if row["series"] == series]
        if len(own) < 3:
            continue
        sizes = [math.log(row["at"]) for row in own]
        for k, way in enumerate(own[0]["ways"]):
            ways = [row["ways"][k] for row in own]
            turns = zip(*(one["seconds"]["each"] for one in ways), strict=True)
            slopes = [linear_regression(sizes, [math.log(one) for one in turn]).slope for turn in turns]
            counted = [one["flop"] for one in ways]
            fitted = linear_regression(sizes, list(map(math.log, counted))).slope if all(counted) else None
            found.append({"series": series, "way": way["name"], "time": spread(slopes), "operations": fitted})
    return found
