"""Claims of the six panels as the paper states them: each is recorded for small models, `id`, and for the paper's size, `id_full`.

Errors are compared as ratios, since as stated they range over two decades. A part whose precomputed runs are not at hand makes its
claim not testable.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch

from ica.record.record import Record
from ica.synthetic.analysis import panels
from ica.synthetic.analysis.stated import (
    FEW,
    GD,
    MANY,
    MODEL,
    at,
    compared,
    full_ratio,
    replicated,
    rule_at,
    shared,
    small_ratio,
)
from ica.synthetic.training.evaluation import LEVELS
from ica.synthetic.training.results import Result
from ica.synthetic.training.sweep import Sweep

Small, Full = Mapping[str, Sweep], Mapping[str, Result]


def pair(
    record: Record,
    id: str,
    id_full: str,
    small_runs: Small,
    full_runs: Full,
    labels: Sequence[str],
    n: int = MANY,
) -> None:
    """Record the claims `id` (small) and `id_full`: errors after n triplets over those of the first of `labels`.

    A part for each of several others; the value itself for a single one.
    """
    base, *others = labels
    gaps = {
        id: {
            label: small_ratio(small_runs[label].at(n), small_runs[base].at(n))
            for label in others
            if {base, label} <= set(small_runs)
        },
        id_full: {
            label: compared(full_runs[label], full_runs[base], n)
            for label in others
            if {base, label} <= set(full_runs)
        },
    }
    for one, found in gaps.items():
        parts(record, one, found, others)


def level(
    record: Record,
    id: str,
    id_full: str,
    small_runs: Small,
    full_runs: Full,
    label: str,
    n: int = MANY,
) -> None:
    """Record the claims `id` (small) and `id_full` about the error of one configuration after n triplets."""
    there = {label: replicated(small_runs[label].at(n))} if label in small_runs else {}
    parts(record, id, there, [label])
    there = {}
    if label in full_runs:
        run = full_runs[label]
        there = {label: panels.estimate(at(run, n), len(run.seeds))}
    parts(record, id_full, there, [label])


def parts(record: Record, id: str, found: Mapping[str, dict], wanted: Sequence[str]) -> None:
    """Record a claim with these parts, or, of a single one, its value; not testable where a wanted part is missing."""
    if missing := [name for name in wanted if name not in found]:
        record.untestable(id, f"Precomputed runs are not at hand: {', '.join(missing)}.")
    elif len(wanted) == 1:
        record.claim(id, **found[wanted[0]])
    else:
        record.claim(id, parts={name: found[name] for name in wanted})


def released(sweeps: Small, runs: Full, first: str, second: str, n: int = panels.READ_AT) -> dict:
    """1 - cos after n triplets of the first configuration less that of the second, on the released task, as a claim takes it.

    Of the precomputed sweeps, many seeds, where both are there; else of the runs of this build.
    """
    if {first, second} <= set(sweeps):
        pair = shared({name: sweeps[name] for name in (first, second)})
        return replicated(pair[first].at(n, "error") - pair[second].at(n, "error"))
    return panels.compared(runs[first], runs[second], n)


def against_rule(
    record: Record,
    id: str,
    id_full: str,
    small_runs: Small,
    full_runs: Full,
    rule: str,
    points: Sequence[int],
) -> None:
    """Record the transformer's error over that of a rule that needs no training after each number of triplets."""
    wanted = [f"n = {n}" for n in points]
    found: dict[str, dict] = {id: {}, id_full: {}}
    for n, name in zip(points, wanted, strict=True):
        if {MODEL, rule} <= set(small_runs):
            found[id][name] = small_ratio(small_runs[MODEL].at(n), small_runs[rule].at(n))
        if MODEL in full_runs:
            run = full_runs[MODEL]
            found[id_full][name] = full_ratio(at(run, n), rule_at(run, rule, n), len(run.seeds))
    for one, measured in found.items():
        parts(record, one, measured, wanted)


def examples(record: Record, id: str, id_full: str, small_runs: Small, full_runs: Full) -> None:
    """Record the errors of transformer and GD with many triplets over those with few."""
    found: dict[str, dict] = {id: {}, id_full: {}}
    for name in (MODEL, GD):
        if name in small_runs:
            found[id][name] = small_ratio(small_runs[name].at(MANY), small_runs[name].at(FEW))
    if MODEL in full_runs:
        run = full_runs[MODEL]
        rule = (rule_at(run, GD, MANY), rule_at(run, GD, FEW))
        found[id_full] = {
            MODEL: full_ratio(at(run, MANY), at(run, FEW), len(run.seeds)),
            GD: full_ratio(*rule),
        }
    for one, measured in found.items():
        parts(record, one, measured, (MODEL, GD))


def noise(
    record: Record, id: str, id_full: str, small_runs: Small, full_runs: Full, name: str, steps: bool = False
) -> None:
    """Record what random rewards do to the error of the transformer or GD.

    The error at p = 0.5 and 1 over that at 0, or, with `steps`, at each level over that at the level before.
    """
    levels = (0.0, *LEVELS)
    wanted = {f"p = {p:g}": (0.0, p) for p in (0.5, 1.0)}
    if steps:
        wanted = {f"p = {a:g} to {b:g}": (a, b) for a, b in itertools.pairwise(levels)}
    found: dict[str, dict] = {id: {}, id_full: {}}
    for part, (a, b) in wanted.items():
        if name in small_runs:
            own = small_runs[name]
            found[id][part] = small_ratio(own.at(MANY, level=b), own.at(MANY, level=a))
        if MODEL in full_runs:
            run = full_runs[MODEL]
            pair = (at(run, MANY, p) if name == MODEL else rule_at(run, GD, MANY, p) for p in (b, a))
            found[id_full][part] = full_ratio(*pair, len(run.seeds) if name == MODEL else None)
    for one, measured in found.items():
        parts(record, one, measured, list(wanted))


def blind(record: Record, id: str, id_full: str, small_runs: Small, full_runs: Full) -> None:
    """Record the transformer's error with random rewards alone, over 1, that of predicting zero."""
    there = {"p = 1": replicated(small_runs[MODEL].at(MANY, level=1.0))} if MODEL in small_runs else {}
    parts(record, id, there, ["p = 1"])
    there = {}
    if MODEL in full_runs:
        own = at(full_runs[MODEL], MANY, 1.0)
        there = {"p = 1": full_ratio(own, torch.ones_like(own), len(own))}
    parts(record, id_full, there, ["p = 1"])
