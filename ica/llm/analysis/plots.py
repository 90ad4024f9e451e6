"""Figures that the pages on language models share: a radar with its interval twin, rows of estimates, and named points."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ica.llm.analysis.metrics import rate
from ica.llm.bbq.items import CATEGORIES, CONDITIONS
from ica.record.figures import LINES, MARKERS, PALETTE, SMALLEST
from ica.record.styles import ALIASES, STYLES, style_of

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
SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))  # of a point, for its name


def short(category: str) -> str:
    """A category's name, short enough for an axis."""
    return SHORT.get(category, category)


def broken(title: str) -> str:
    """A model's title on two lines, where it is one of this build."""
    return title.replace(", this build", ",\nthis build")


def look(name: str, k: int = 0) -> dict:
    """Colour, line and marker: the book's for what it has a style for, one for any model of this build, else the k-th of each."""
    if name in STYLES or name in ALIASES:
        return style_of(name)
    if name.endswith(", this build"):
        return style_of("another model")
    return {"color": PALETTE[k], "linestyle": LINES[k], "marker": MARKERS[k]}


def radar(ax: Axes, values: Mapping[str, pd.Series]) -> None:
    """Draw series of shares (index: category) as polygons on polar axes, from 0 at the centre to 1."""
    angles = np.linspace(0, 2 * np.pi, len(CATEGORIES), endpoint=False)
    closed = np.append(angles, angles[0])
    for k, (label, series) in enumerate(values.items()):
        radii = series.reindex(CATEGORIES).to_numpy(dtype=float)
        ax.plot(closed, np.append(radii, radii[0]), label=label, markersize=4, **look(label, k))
    ax.set_theta_offset(np.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, [short(name) for name in CATEGORIES])
    ax.set(ylim=(0, 1))
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"])
    for label, angle in zip(ax.get_xticklabels(), angles, strict=True):
        label.set_horizontalalignment("left" if 0.1 < angle < 3.0 else "right" if angle > 3.3 else "center")


def rows(
    ax: Axes,
    tables: Mapping[str, pd.DataFrame],
    labels: Sequence[str],
    zero: float | None = 0.0,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Estimates with intervals, one row a label, those of several tables beside each other.

    Each table has columns label, estimate, lo, hi; labels that it lacks stay empty. `styles`: whose style a table has, by its name,
    if not that of its own name.
    """
    spread = np.linspace(-0.22, 0.22, len(tables)) if len(tables) > 1 else [0.0]
    for k, (name, table) in enumerate(tables.items()):
        own = table.set_index("label").reindex(labels)
        style = look((styles or {}).get(name, name), k) | {"linestyle": "none"}
        at = np.arange(len(labels)) + spread[k]
        ax.hlines(at, own["lo"], own["hi"], color=style["color"], linewidth=1.4)
        ax.plot(own["estimate"], at, label=name, markersize=5, **style)
    if zero is not None:
        ax.axvline(zero, color=GREY, linewidth=0.8, linestyle="--", marker="", zorder=0)
    ax.set_yticks(range(len(labels)), [broken(label) for label in labels])
    ax.set(ylim=(len(labels) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)


def kinds(found: Mapping[str, Mapping[str, pd.DataFrame]]) -> tuple[Figure, pd.DataFrame]:
    """Accuracy on ambiguous (left) and disambiguated items, one row a model, Wilson 95 %; the figure, and what it shows.

    Args:
        found: model, answer, table with columns condition and accuracy (0 or 1).
    """
    rows_of = [
        (model, kind, name, *vars(rate(part["accuracy"].to_numpy() > 0.5)).values())
        for model, tables in found.items()
        for name, table in tables.items()
        for kind, part in table.groupby("condition")
    ]
    columns = ["label", "kind", "answer", "estimate", "lo", "hi", "items", "units"]
    data = pd.DataFrame(rows_of, columns=columns).drop(columns="units")
    size = (7.2, 0.75 * len(found) + 1.2)
    fig, axes = plt.subplots(1, len(CONDITIONS), figsize=size, sharey=True)
    for ax, kind in zip(axes, CONDITIONS, strict=True):
        part = data[data["kind"] == kind]
        tables = {name: one for name, one in part.groupby("answer", sort=False)}
        rows(ax, tables, list(found), zero=1 / 3)
        ax.set(title=f"{kind} items", xlabel="accuracy", xlim=(0, 1))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig, data


def named_points(axes: Sequence[Axes], tables: Sequence[pd.DataFrame], x: str, y: str) -> None:
    """Write the category beside each point, where its name covers no other name and, if it can, no point; call this last.

    Points in one place share one text. A table for each of the axes, all of one figure.
    """
    figure = axes[0].figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    for ax, table in zip(axes, tables, strict=True):
        taken, points = [], ax.transData.transform(table[[x, y]].to_numpy(dtype=float))
        for (at, height), part in table.groupby([x, y]):
            words = ",\n".join(short(name) for name in part["category"])
            found = []
            for offset, side in _offsets():
                text = ax.annotate(words, (at, height), xytext=offset, fontsize=SMALLEST, **side)
                text.set_in_layout(False)
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer).padded(2)  # an annotation's own holds its line
                clear = ax.bbox.containsx(box.x0) and ax.bbox.containsx(box.x1)
                clear = clear and ax.bbox.containsy(box.y0) and ax.bbox.containsy(box.y1)
                bad = 100 * sum(box.overlaps(other) for other in taken) + 100 * (not clear)
                found.append((bad + sum(box.contains(*point) for point in points), len(found), text, box))
            best = min(found, key=lambda one: one[:2])
            for one in found:
                if one is not best:
                    one[2].remove()
            taken.append(best[3])


def _offsets() -> Iterator[tuple[tuple[float, float], dict]]:
    """Places for a name around its point, the nearest first: offset in points, and how the text is aligned there."""
    for far in (3, 9, 16, 24, 34):
        for right, up in SIDES:
            side = {"ha": ("right", "center", "left")[right + 1], "va": ("top", "center", "bottom")[up + 1]}
            thin = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
            line = {"arrowprops": thin} if far > 3 else {}
            yield (far * right, far * up), {"textcoords": "offset points"} | side | line
