"""Figures of Part I that are long or serve more than one page."""

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ica.intervals import median_interval
from ica.record import figures
from ica.record.styles import style_of

TASKS = {"BT": "Bradley-Terry, N = 2", "PL": "Plackett-Luce, N = 4"}
LOOKS = {
    "softmax, 1 head": "one head",
    "softmax, 2 heads": "transformer",
    "softmax, 2 heads, FFN": "construction",
    "linear, 3 heads": "linear attention",
    "linear, 3 heads, FFN": "linear attention, unmasked",
    "3 blocks, softmax, 3 heads, FFN": "transformer",
    "2 blocks, softmax, 3 heads, FFN": "three quarters depth",
    "1 block, softmax, 3 heads, FFN": "flip noise",
    "3 blocks, linear, 3 heads, FFN": "linear attention",
    "3 blocks, softmax, 3 heads": "no FFN",
}
"""Which style of the book a configuration of `training_curves` has."""


def ratio_rows(ratios: pd.DataFrame, sesoi: float) -> Figure:
    """Ratios with their intervals, one row each, over the zone of changes too small to matter.

    Args:
        ratios: columns "part", "ratio", "from" and "to".
        sesoi: smallest factor of interest; the zone is from 1 / sesoi to sesoi.
    """
    fig, ax = plt.subplots(figsize=(7.2, 0.8 + 0.34 * len(ratios)))
    ax.axvspan(1 / sesoi, sesoi, color=figures.GRID, alpha=0.6, linewidth=0)
    ax.axvline(1, color=figures.MUTED, linewidth=1, marker="")
    ends = [ratios["ratio"] - ratios["from"], ratios["to"] - ratios["ratio"]]
    ax.errorbar(ratios["ratio"], range(len(ratios)), xerr=ends, fmt="o", color=figures.BLUE, capsize=3)
    ticks = [tick for tick in (0.5, 0.8, 1, 1.25, 2, 3, 5, 8) if tick <= ratios["to"].max()]
    ax.set(xscale="log", ylim=(len(ratios) - 0.5, -0.5), xlim=(min(0.7, 0.95 * ratios["from"].min()), None))
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(ratios)), ratios["part"])
    return fig


def configurations(
    runs: pd.DataFrame, constructed: dict[tuple[str, str], float], bounds: dict[str, float]
) -> Figure:
    """Held-out errors of every configuration, one dot a run: a panel for each task, a row for each configuration.

    Args:
        runs: columns "task", "configuration", "start" ("random" or "construction") and "error".
        constructed: error of the construction itself, by task and configuration, where there is one.
        bounds: least error of one layer of linear attention without FFN, by task.
    """
    names = {
        task: list(dict.fromkeys(runs.loc[runs["task"] == task, "configuration"])) for task in ("BT", "PL")
    }
    heights = [len(rows) for rows in names.values()]
    fig, axes = plt.subplots(2, 1, figsize=(7.2, 7.4), sharex=True, height_ratios=heights)
    for ax, (task, rows) in zip(axes, names.items(), strict=True):
        for y, name in enumerate(rows):
            here = runs[(runs["task"] == task) & (runs["configuration"] == name)]
            bound = bounds[task] if name.endswith(("linear, 1 head", "linear, 3 heads")) else math.nan
            marks = _configuration(ax, y, here, constructed.get((task, name), math.nan), bound)
        ax.set(xscale="log", title=TASKS[task], ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(range(len(rows)), rows)
    axes[1].set_xlabel("held-out relative squared error (1: no step)")
    labels = ["trained from random weights", "trained from the disturbed construction"]
    fig.legend(
        marks, [*labels, "construction", "bound, linear attention"], loc="outside lower center", ncols=2
    )
    return fig


def _configuration(ax: Axes, y: int, runs: pd.DataFrame, constructed: float, bound: float) -> list:
    """One row of `configurations`; returns its four kinds of marks, for the legend."""
    first, back = (runs.loc[runs["start"] == start, "error"] for start in ("random", "construction"))
    _, lo, hi = median_interval(list(first))
    ours = style_of("construction") | {"linestyle": ""}
    ax.plot([lo, hi], [y, y], "-", color=figures.BLUE, lw=9, alpha=0.3, solid_capstyle="butt", marker="")
    (a,) = ax.plot(first, [y] * len(first), "o", color=figures.BLUE)
    (b,) = ax.plot(back, [y] * len(back), "^", color=figures.OCHRE, mfc="none")
    (c,) = ax.plot([constructed], [y], **ours | {"marker": "D"})
    (e,) = ax.plot([bound], [y], "|", color=figures.RUST, ms=16, mew=2.5)
    return [a, b, c, e]


def training_curves(curves: pd.DataFrame) -> Figure:
    """Held-out error against training steps: a panel for each task, median and interval for each configuration.

    Args:
        curves: columns "task", "configuration", "update" (training step), "median", "from" and "to".
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 5.2))
    for ax, (task, here) in zip(axes, curves.groupby("task", sort=False), strict=True):
        for name, one in here.groupby("configuration", sort=False):
            ax.plot(one["update"], one["median"], label=name, markevery=2, **style_of(LOOKS[name]))
            figures.band(ax, one["update"], one["from"].clip(upper=1e3), one["to"].clip(upper=1e3))
        ax.set(yscale="log", xlabel="training steps", title=TASKS[task], ylim=(None, 3))
        ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16))
    axes[0].set_ylabel("held-out relative squared error")
    return fig


RESPONSE = {"color": figures.BLUE, "marker": "s", "linestyle": ""}
FORMATS = {
    "float64": style_of("construction"),
    "float32": {"color": figures.VIOLET, "linestyle": figures.LINES[1], "marker": "s"},
    "bfloat16": {"color": figures.OCHRE, "linestyle": figures.LINES[2], "marker": "^"},
}
"""Looks of the constructions by number format."""


def two_readings(
    path: Float[Tensor, "steps 2"], ranked: Float[Tensor, "N 2"], loss: Callable[[Tensor], Tensor]
) -> Figure:
    """One prompt in the plane: left, the prediction moves along `path`; right, its first step as a shift of the responses.

    Args:
        path: predictions along gradient descent, the start included.
        ranked: responses, best first.
        loss: Plackett-Luce loss of each of a batch of predictions.
    """
    axis = torch.linspace(-2.0, 2.0, 81, dtype=path.dtype)
    surface = loss(torch.cartesian_prod(axis, axis)).reshape(81, 81).T
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.2), sharex=True, sharey=True)
    contour = left.contour(
        axis, axis, surface, levels=8, colors=figures.MUTED, linewidths=0.7, linestyles="-"
    )
    left.clabel(contour, fmt="%.0f", fontsize=9)
    left.plot(*path.T, **style_of("gradient descent"), label=r"prediction $\hat y$ along GD")
    right.plot(*path[0], **style_of("gradient descent"))
    for i, y in enumerate(ranked):
        arrow = {"arrowstyle": "->", "color": figures.BLUE, "shrinkA": 5}
        moved = y - 3 * (path[1] - path[0])  # drawn three times as long
        right.annotate("", moved.tolist(), y.tolist(), arrowprops=arrow)
        for ax in (left, right):
            ax.plot(*y, **RESPONSE, label="response, with its rank" if i == 0 else None)
            ax.annotate(str(i + 1), y.tolist(), xytext=(7, -11), textcoords="offset points")
    left.set(title="the prediction moves", ylabel="second feature")
    right.set(title="or the responses move")
    for ax in (left, right):
        ax.set(xlim=(-2, 2), ylim=(-2, 2), xlabel="first feature", aspect="equal")
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def blocks(story: pd.DataFrame) -> Figure:
    """One prompt before each of its four Plackett-Luce blocks: remaining candidates, selection, weights, and what is added.

    Args:
        story: a row for each block and rank: "y1", "y2" (the response), "marked", "head A", "head B" (attention), and
            "from1", "from2", "to1", "to2" (the prediction with the step collected so far, before and after the block).
    """
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.2), sharex=True, sharey=True)
    fig.get_layout_engine().set(hspace=0.04)
    start = story.iloc[0][["from1", "from2"]].to_list()
    for ax, (block, group) in zip(axes.flat, story.groupby("block"), strict=True):
        _block(ax, group, start)
        ax.set(title=f"block {block}", aspect="equal")
        ax.margins(0.18)
    for ax in axes[1]:
        ax.set_xlabel("first feature")
    for ax in axes[:, 0]:
        ax.set_ylabel("second feature")
    legend = fig.legend(*axes[1, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([60])
    return fig


def _block(ax: Axes, group: pd.DataFrame, start: list[float]) -> None:
    """One panel of `blocks`."""
    live, gone = group[~group["marked"]], group[group["marked"]]
    chosen, first = group.loc[group["head A"].idxmax()], group.iloc[0]
    area = 500 * live["head B"]
    ax.scatter(live["y1"], live["y2"], s=area, color=figures.BLUE, alpha=0.3, label="weight of head B (area)")
    ax.plot(live["y1"], live["y2"], **RESPONSE, label="remaining candidate")
    ax.plot(gone["y1"], gone["y2"], "X", color=figures.MUTED, label="eliminated")
    ring = {"ms": 13, "mfc": "none", "color": figures.FOREGROUND, "ls": ""}
    ax.plot(chosen["y1"], chosen["y2"], "o", **ring, label="selected by head A")
    ax.plot(*start, **style_of("construction") | {"linestyle": ""}, label=r"prediction $\hat y$")
    ends = (first["to1"], first["to2"]), (first["from1"], first["from2"])
    arrow = {"arrowstyle": "->", "color": figures.CYAN, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", *ends, arrowprops=arrow)
    ax.plot(*zip(*ends, strict=True), marker="", linestyle="")  # limits that hold the arrow
    for _, row in group.iterrows():
        ax.annotate(f"{row['rank']:.0f}", (row["y1"], row["y2"]), xytext=(8, 5), textcoords="offset points")


def prefix_ladders(found: pd.DataFrame, rewards: list[float]) -> Figure:
    """What the token of a prefix selects block by block on the causal page: a panel for each prefix.

    Args:
        found: columns "prefix", "block", "found" (reward that head A selects) and "limit" (threshold in force).
        rewards: of all responses, in the order of the tokens.
    """
    fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.8), sharey=True)
    N = len(rewards)
    for ax, (i, part) in zip(axes, found.groupby("prefix"), strict=True):
        for j, reward in enumerate(rewards, start=1):
            unseen = "" if j <= i else " unseen"
            line = (0, (1, 3)) if unseen else "-"
            ax.hlines(reward, 0.5, N - 0.5, color=figures.MUTED, linewidth=0.9, linestyle=line)
            ax.text(N - 0.42, reward, f"$r_{j}${unseen}", va="center", fontsize=9)
        for later, fill, label in (
            (False, "full", "selected by head A"),
            (True, "none", "selected, adds zero"),
        ):
            rows = part[(part["block"] >= i) == later]
            mark = {"color": figures.BLUE, "markersize": 7, "fillstyle": fill, "label": label}
            ax.plot(rows["block"], rows["found"], "o", **mark)
        limits = part.dropna()
        ends = limits["block"] - 0.4, limits["block"] + 0.4
        ax.hlines(limits["limit"], *ends, color=figures.OCHRE, linewidth=2.2, label="threshold in this block")
        ax.set(
            xlim=(0.5, N + (0.6 if i < N else 0.1)), xticks=range(1, N), xlabel="block", title=f"token {i}"
        )
        ax.grid(False)
    axes[0].set_ylabel("reward")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
