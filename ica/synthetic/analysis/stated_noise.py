"""Panel (b) as the paper states it: transformer (solid) and gradient descent (dashed) where rewards are random with probability p."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ica.record import figures, styles
from ica.synthetic.analysis import stated
from ica.synthetic.analysis.stated import GD, MODEL
from ica.synthetic.training.results import Result
from ica.synthetic.training.sweep import LEVELS, Sweep


def frames(full: Mapping[str, Result], small: Mapping[str, Sweep]) -> dict[str, pd.DataFrame]:
    """The curves of transformer and GD at each level, for each size that is there."""
    found: dict[str, list[pd.DataFrame]] = {"full": [], "small": []}
    for level in LEVELS:
        if MODEL in full:
            found["full"].append(stated.full_curves({MODEL: full[MODEL]}, level))
            found["full"].append(stated.rule_curves(full[MODEL].config, [GD], level))
        if {MODEL, GD} <= set(small):
            found["small"].append(stated.small_curves({name: small[name] for name in (MODEL, GD)}, level))
    return {size: pd.concat(rows, ignore_index=True) for size, rows in found.items() if rows}


def _draw(ax: Axes, frame: pd.DataFrame) -> None:
    for (level, label), group in frame.groupby(["level", "label"], sort=False):
        style = styles.style_of(f"p = {level:g}")
        kind = {
            "linestyle": "-" if label == MODEL else styles.DASHED,
            "marker": style["marker"],
            "markevery": 3,
        }
        name = f"p = {level:g}" if label == MODEL else None
        ax.plot(group["n"], group["nmse"], color=style["color"], label=name, **kind)
        figures.band(ax, group["n"], group["lo"], group["hi"], colour=style["color"])


def figure(curves: Mapping[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """The figure, a column for each size, and its data; a word where there is no size."""
    if not curves:
        return stated.nothing()
    fig, axes = plt.subplots(
        1, len(curves), figsize=(5.8 if len(curves) > 1 else 4.2, 4.2), sharey=True, squeeze=False
    )
    for ax, (size, frame) in zip(axes[0], curves.items(), strict=True):
        _draw(ax, frame)
        ax.set(xlabel="triplets seen, n", title=stated.SIZES[size], xticks=(2, 5, 10, 14, 19), yscale="log")
    axes[0, 0].set(ylabel="normalised MSE")
    axes[0, 0].set_yticks((0.2, 0.5, 1, 2), ("0.2", "0.5", "1", "2"))
    axes[0, 0].minorticks_off()
    for name, line in ((MODEL, "-"), (GD, styles.DASHED)):
        axes[0, 0].plot([], [], color=figures.MUTED, linestyle=line, marker="", label=name)
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3 if len(curves) > 1 else 2,
        handlelength=3,
    )
    return fig, pd.concat(curves.values(), ignore_index=True)
