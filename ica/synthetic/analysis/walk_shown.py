"""The walk from the released code to the paper as its page shows it: verdicts, effects, words, one figure.

Behind the page "From the code to the paper"; the numbers are those of `ica.synthetic.analysis.walk`.
"""

import itertools
import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ica.record import figures
from ica.record.claims import Measured
from ica.record.criteria import CONTRADICTED, NEGLIGIBLE, OPEN, SUPPORTED, Criterion
from ica.synthetic.analysis.walk import (
    CONCLUSIONS,
    ENDS,
    FACTORS,
    RELEASED,
    STATED,
    Missing,
    Walk,
    configurations,
    estimate,
)

PLACES = {RELEASED: "the code", STATED: "the paper"}
UNITS = {"nMSE": "normalised MSE", "1 - cos": "1 − cos"}  # as figures name them
# Verdict -> marker, and its face (None: filled).
MARKS = {SUPPORTED: ("o", None), CONTRADICTED: ("X", None)}
MARKS |= {NEGLIGIBLE: ("s", figures.BACKGROUND), OPEN: ("o", figures.BACKGROUND)}
# Ticks of a ratio, the finest first.
TICKS = ((0.8, 1, 1.25), (0.5, 0.7, 1, 1.4, 2), (0.1, 0.2, 0.5, 1, 2, 5, 10), (0.1, 0.3, 1, 3, 10))
TICKS += (tuple(10.0**k for k in range(-6, 7)), tuple(100.0**k for k in range(-3, 4)))
APART = 0.24  # of the axis, from one tick to the next
NONE = "not at hand"


def verdicts(walk: Walk, measure: str, criteria: Mapping[str, Criterion]) -> pd.DataFrame:
    """What the figure draws: each conclusion in each configuration, its verdict, whether the end has another.

    A configuration whose sweep is not stored has empty cells.
    """
    rows = []
    for end, (name, criterion) in itertools.product(ENDS, criteria.items()):
        for label, run in configurations(end).items():
            row = {"conclusion": name, "end": end, "changed": label, "measure": measure}
            try:
                found = estimate(walk.conclusions(run, measure)[name])
            except Missing:
                rows.append(row | {"value": None, "lo": None, "hi": None, "verdict": ""})
                continue
            row |= {"value": found["value"], "lo": found["interval"][0], "hi": found["interval"][1]}
            row |= {"verdict": criterion.judge(found["value"], found["interval"])}
            rows.append(row | {"seeds": found["n"]["seeds"]})
    table = pd.DataFrame(rows).astype({"value": float, "lo": float, "hi": float})
    whole = table[table["changed"] == "unchanged"].set_index(["conclusion", "end"])["verdict"]
    there = [whole[row.conclusion, row.end] for row in table.itertuples()]
    moved = [bool(a and b and a != b) for a, b in zip(table["verdict"], there, strict=True)]
    return table.assign(moved=moved)


def table_of_effects(walk: Walk, measure: str, criteria: Mapping[str, Criterion]) -> pd.DataFrame:
    """Each factor's effect on each conclusion from either end, its verdict; empty if a sweep is missing."""
    rows = []
    for end, (name, criterion) in itertools.product(ENDS, criteria.items()):
        try:
            found = {factor: estimate(v) for factor, v in walk.effects(end, name, measure).items()}
        except Missing:
            found = {}
        for factor, label in FACTORS.items():
            row = {"factor": label, "end": end, "conclusion": name, "measure": measure}
            row |= {"value": None, "lo": None, "hi": None, "verdict": ""}
            if found:
                value, interval = found[factor]["value"], found[factor]["interval"]
                row |= {"value": value, "lo": interval[0], "hi": interval[1]}
                row |= {"verdict": criterion.judge(value, interval)}
            rows.append(row)
    return pd.DataFrame(rows).astype({"value": float, "lo": float, "hi": float})


def wide(effects: pd.DataFrame) -> pd.DataFrame:
    """That table as a page shows it: a row a factor and end, a column a conclusion."""
    shown = effects.assign(
        cell=[
            "" if math.isnan(row.value) else format(Measured(row.value, (row.lo, row.hi)), ".3g")
            for row in effects.itertuples()
        ]
    )
    names = [*FACTORS.values()]
    shown["factor"] = pd.Categorical(shown["factor"], names, ordered=True)
    rows = shown.pivot(index=["factor", "end"], columns="conclusion", values="cell")[[*CONCLUSIONS]]
    return rows.reset_index().rename_axis(columns=None).astype({"factor": str})


def _said(parts: Mapping[str, list[str]]) -> str:
    """What holds from either end, in words."""
    return "; ".join(f"from {PLACES[end]} {', '.join(found) or 'none'}" for end, found in parts.items())


def moves(effects: pd.DataFrame, factor: str) -> str:
    """The conclusions that a factor moves by more than the least of interest, with the effects."""
    own = effects[effects["factor"] == FACTORS[factor]]
    if not (own["verdict"] != "").all():
        return NONE
    decided = own[own["verdict"] == SUPPORTED]
    return _said(
        {
            end: [
                f"{row.conclusion} {times(row.value)}" for row in decided[decided["end"] == end].itertuples()
            ]
            for end in ENDS
        }
    )


def times(ratio: float) -> str:
    """A ratio in words, to two digits."""
    return f"×{ratio:.2g}"


def changes(table: pd.DataFrame, factor: str) -> str:
    """The conclusions whose verdict is another where a factor alone is changed, with the new verdict."""
    own = table[table["changed"].isin([FACTORS[factor], "unchanged"])]
    if not (own["verdict"] != "").all():
        return NONE
    own = own[own["moved"]]
    return _said(
        {
            end: [f"{row.conclusion} ({row.verdict})" for row in own[own["end"] == end].itertuples()]
            for end in ENDS
        }
    )


def order(effects: pd.DataFrame, end: str, conclusion: str) -> str:
    """The factors by the size of their effect on a conclusion, largest first."""
    own = effects[(effects["end"] == end) & (effects["conclusion"] == conclusion)]
    if own["value"].isna().any():
        return NONE
    own = own.iloc[np.log(own["value"]).abs().argsort()[::-1]]
    return ", ".join(f"{row.factor} {times(row.value)}" for row in own.itertuples())


def figure(table: pd.DataFrame, measure: str, least: float) -> Figure:
    """The conclusions (rows) in the configurations around the code (left) and around the paper (right).

    The marker says which verdict a conclusion has there, red where that is another than at the end; the grey
    strip holds the ratios that are nearer to 1 than `least`, the smallest of interest.
    """
    labels = [*configurations(RELEASED)]
    fig, axes = plt.subplots(len(CONCLUSIONS), 2, figsize=(4.4, 7.8), sharex="row", sharey=True)
    for (name, words), pair in zip(CONCLUSIONS.items(), axes, strict=True):
        for end, ax in zip(ENDS, pair, strict=True):
            ax.axvspan(1 / least, least, color=figures.GRID, linewidth=0, zorder=0)
            _draw(ax, table[(table["conclusion"] == name) & (table["end"] == end)], labels)
        pair[0].set_title(words)
        _ratios(pair[0])
    for end, top, bottom in zip(ENDS, axes[0], axes[-1], strict=True):
        top.text(0, 1.27, f"from {PLACES[end]}", transform=top.transAxes, size=10, weight="bold")
        bottom.set_xlabel(f"ratio, {UNITS[measure]}")
    axes[0, 0].set_yticks([-k for k in range(len(labels))], labels)
    axes[0, 0].set_ylim(0.6 - len(labels), 0.6)
    handles = [
        plt.Line2D([], [], color=figures.FOREGROUND, marker=marker, markerfacecolor=face, linestyle="")
        for marker, face in MARKS.values()
    ]
    handles += [plt.Line2D([], [], color=colour, linewidth=4) for colour in (figures.BLUE, figures.RUST)]
    words = [*MARKS, "as unchanged", "another verdict"]
    fig.legend(handles, words, loc="outside upper center", ncols=2, columnspacing=1)
    return fig


def _ratios(ax: Axes) -> None:
    """A logarithmic axis (and those that share it) with ticks that do not touch."""
    ax.set_xscale("log")
    ax.minorticks_off()
    least, most = ax.get_xlim()
    for ticks in TICKS:
        there = [tick for tick in ticks if least <= tick <= most]
        gaps = [math.log(b / a) / math.log(most / least) for a, b in itertools.pairwise(there)]
        if min(gaps, default=0) > APART and there[0] / least < 10 and most / there[-1] < 10:
            break
    ax.set_xticks(there, [f"{tick:g}" for tick in there])


def _draw(ax: Axes, own: pd.DataFrame, labels: list[str]) -> None:
    """One conclusion in the configurations around one end: a dot with its interval each."""
    ax.axvline(1, **figures.style_of("bound") | {"linewidth": 1})
    for row in own.dropna(subset=["value"]).itertuples():
        y, colour = -labels.index(row.changed), figures.RUST if row.moved else figures.BLUE
        marker, face = MARKS[row.verdict]
        ax.hlines(y, row.lo, row.hi, color=colour, linewidth=1.6)
        ax.plot(row.value, y, marker, color=colour, markersize=7, markerfacecolor=face or colour)
    if own["value"].isna().all():
        ax.text(0.5, 0.5, "not stored", transform=ax.transAxes, ha="center")


def differing(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """The conclusions that have one verdict in one measure and another in the other, at either end."""
    keys = ["end", "conclusion"]
    both = [t[t["changed"] == "unchanged"].set_index(keys)["verdict"] for t in (one, other)]
    if any((verdicts == "").any() for verdicts in both):
        return NONE
    found: dict[str, list[str]] = {end: [] for end in ENDS}
    for (end, name), verdict in both[0].items():
        if verdict != both[1][end, name]:
            found[end].append(f"{name} ({verdict}, {both[1][end, name]})")
    return "; ".join(f"as {end} {', '.join(names) or 'none'}" for end, names in found.items())
