"""Figures that the pages on language models share: a radar with its interval twin, and rows of estimates."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ica.llm.bbq.items import CATEGORIES
from ica.record.figures import LINES, MARKERS, PALETTE, SMALLEST

SHORT = {
    "Disability_status": "Disability",
    "Gender_identity": "Gender",
    "Physical_appearance": "Appearance",
    "Race_ethnicity": "Race",
    "Race_x_SES": "Race × SES",
    "Race_x_gender": "Race × gender",
    "Sexual_orientation": "Orientation",
}


GREY = "0.5"  # legible on both themes


def short(category: str) -> str:
    """A category's name, short enough for an axis."""
    return SHORT.get(category, category)


def radar(ax: Axes, values: Mapping[str, pd.Series], categories: Sequence[str] = CATEGORIES) -> None:
    """Draw series of shares (index: category) as polygons on polar axes, from 0 at the centre to 1."""
    angles = np.linspace(0, 2 * np.pi, len(categories), endpoint=False)
    closed = np.append(angles, angles[0])
    for k, (label, series) in enumerate(values.items()):
        radii = series.reindex(categories).to_numpy(dtype=float)
        style = {"color": PALETTE[k], "marker": MARKERS[k], "linestyle": LINES[k], "markersize": 4}
        ax.plot(closed, np.append(radii, radii[0]), label=label, **style)
    ax.set_theta_offset(np.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, [short(name) for name in categories])
    ax.set(ylim=(0, 1))
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"])
    for label, angle in zip(ax.get_xticklabels(), angles, strict=True):
        label.set_horizontalalignment("left" if 0.1 < angle < 3.0 else "right" if angle > 3.3 else "center")


def rows(
    ax: Axes, tables: Mapping[str, pd.DataFrame], labels: Sequence[str], zero: float | None = 0.0
) -> None:
    """Estimates with intervals, one row a label, those of several tables beside each other.

    Each table has columns label, estimate, lo, hi; labels that it lacks stay empty.
    """
    spread = np.linspace(-0.22, 0.22, len(tables)) if len(tables) > 1 else [0.0]
    for k, (name, table) in enumerate(tables.items()):
        own = table.set_index("label").reindex(labels)
        at = np.arange(len(labels)) + spread[k]
        ax.hlines(at, own["lo"], own["hi"], color=PALETTE[k], linewidth=1.4)
        ax.plot(own["estimate"], at, MARKERS[k], color=PALETTE[k], label=name, linestyle="none", markersize=5)
    if zero is not None:
        ax.axvline(zero, color=GREY, linewidth=0.8, linestyle="--", marker="", zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)


def named_points(ax: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """Write the category beside each point; points in one place share one text."""
    for (at, height), part in table.groupby([x, y]):
        text = ",\n".join(short(name) for name in part["category"])
        ax.annotate(text, (at, height), xytext=(3, 3), textcoords="offset points", fontsize=SMALLEST)
