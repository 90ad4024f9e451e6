"""House style of the figures, and the one way they are saved.

Every colour of `ica.record.styles` (text, grid, background, data) is one exact hex value, so the dark SVG is the
light one with those values exchanged, each at least 4.5 to 1 on the page of its theme. Line style and marker change
with the colour, so that colour is never the only carrier. Heatmaps carry magnitude as opacity: zero shows the page
itself in both themes. A figure whose texts overprint one another or are cut is not saved.
"""

import hashlib
import io
import math
import re
from numbers import Integral, Real
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ica.record import outside, texts
from ica.record.provenance import LICENCE, plain, write_atomic, write_json
from ica.record.styles import (  # noqa: F401 - the names that notebooks take from here
    BACKGROUND,
    BLUE,
    CYAN,
    DARK,
    FOREGROUND,
    GRID,
    HATCHES,
    LINES,
    MARKERS,
    MUTED,
    OCHRE,
    PALETTE,
    RAMP,
    ROSE,
    RUST,
    STYLES,
    VIOLET,
    style_of,
)

COLD, WARM = "#0072b2", "#ac4800"  # of heatmaps: as an opacity over the page, in both themes
WIDTH, SMALLEST = 7.2, 9.0
SUFFIXES = (".svg", ".dark.svg", ".pdf", ".png", ".csv", ".json")
ID = re.compile(r"[a-z][a-z0-9-]*")
HEX = re.compile(r"#[0-9a-f]{6}\b")
_INKED = (
    "text.",
    "axes.label",
    "axes.title",
    "axes.edge",
    "xtick.",
    "ytick.",
    "lines.",
    "patch.edge",
    "hatch.",
)
_BOXES = tuple(f"boxplot.{part}props." for part in ("box", "whisker", "cap", "median", "flier"))
INKS = tuple(f"{name}color" for name in _INKED + _BOXES)
FIXED = {"svg.hashsalt": "ica", "svg.fonttype": "path", "pdf.fonttype": 42, "savefig.bbox": "standard"}


def _fade(colour: str, alphas: np.ndarray) -> list[tuple]:
    return [(*to_rgb(colour), a) for a in alphas]


_STEPS = np.linspace(0, 1, 128)
SEQUENTIAL = ListedColormap(_fade(COLD, 0.75 * _STEPS), name="ica-sequential")
# Zero itself has no step: heatmap leaves zeros out, and the faintest entry still shows.
_ARMS = 0.12 + 0.63 * _STEPS
DIVERGING = ListedColormap(_fade(WARM, _ARMS[::-1]) + _fade(COLD, _ARMS), name="ica-diverging")


def style() -> None:
    """Set the house style for all figures from here on: Matplotlib's own fonts, 7.2 in wide, 9 pt and up."""
    cycle = mpl.cycler(color=PALETTE) + mpl.cycler(linestyle=LINES) + mpl.cycler(marker=MARKERS)
    mpl.rcdefaults()  # a reader's own matplotlibrc must not enter the figures
    mpl.rcParams.update(
        dict.fromkeys(INKS, FOREGROUND)
        | dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), BACKGROUND)
        | dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALLEST)
        | dict.fromkeys(("axes.titlesize", "axes.labelsize", "font.size", "figure.titlesize"), 10.0)
        | {
            "font.family": ["DejaVu Sans"],
            "mathtext.fontset": "dejavusans",
            "figure.figsize": (WIDTH, 4.0),
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycle,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.6,
            "lines.markersize": 4.5,
            "legend.edgecolor": GRID,
            "legend.facecolor": BACKGROUND,
            "legend.framealpha": 1.0,
            "image.cmap": "viridis",
        }
        | FIXED
    )


def band(ax: Axes, x, lo, hi, colour: str | None = None, label: str | None = None) -> PolyCollection:
    """Shade the interval from `lo` to `hi` over `x` (one length), with edges that show without colour.

    `colour`: default that of the last line drawn. ValueError unless lo <= hi.
    """
    x, lo, hi = (np.asarray(v, dtype=float) for v in (x, lo, hi))
    if x.ndim != 1 or lo.shape != x.shape or hi.shape != x.shape:
        raise ValueError(
            f"lo and hi must have the shape of x, one axis; got x {x.shape}, lo {lo.shape}, hi {hi.shape}"
        )
    if (lo > hi).any():
        raise ValueError(f"lo must be at most hi everywhere; at x = {x[lo > hi][0]} it is not")
    colour = colour or (ax.lines[-1].get_color() if ax.lines else PALETTE[0])
    for edge in (lo, hi):
        ax.plot(x, edge, color=colour, linewidth=0.6, linestyle="-", marker="", alpha=0.7)
    return ax.fill_between(x, lo, hi, color=colour, alpha=0.18, linewidth=0, label=label)


def heatmap(
    ax: Axes,
    matrix: Float[Tensor, "rows columns"] | Float[np.ndarray, "rows columns"],
    rows: list[str],
    columns: list[str],
    annotate: bool = True,
    signed: bool = True,
    limit: float | None = None,
    numbers: str = ".3g",
) -> QuadMesh:
    """Draw a matrix (array or tensor) as named cells, zeros blank; return the mesh.

    signed: rust below zero, blue above (weights), and the faintest entry still shows; otherwise blue from 0
    (attention, no negative entries). `limit`: magnitude of full colour, default the largest. `annotate`
    writes every entry that is not zero in the format `numbers`. ValueError if names and shape differ, for
    entries that are not finite, and for negative ones if not signed.
    """
    values = (
        matrix.detach().double().cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix, float)
    )
    if values.ndim != 2 or values.shape != (len(rows), len(columns)):
        named = f"{len(rows)} rows and {len(columns)} columns are named"
        raise ValueError(
            f"matrix must have one row per name in rows and one column per name in columns; "
            f"its shape is {values.shape}, {named}"
        )
    if not np.isfinite(values).all():
        raise ValueError("matrix must be finite, got NaN or infinite entries")
    if not signed and (values < 0).any():
        raise ValueError("matrix must have no negative entry if signed is False")
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(f"limit must be a finite number above 0 or None, got {limit!r}")
    largest = limit if limit is not None else (np.abs(values).max(initial=0) or 1.0)
    import seaborn  # half a second, which most pages need not wait

    seaborn.heatmap(
        values,
        mask=values == 0,
        cmap=DIVERGING if signed else SEQUENTIAL,
        vmin=-largest if signed else 0,
        vmax=largest,
        annot=annotate,
        fmt=numbers,
        annot_kws={"fontsize": SMALLEST, "color": FOREGROUND},
        linewidths=0.7,
        linecolor=GRID,
        cbar=False,
        square=True,
        xticklabels=columns,
        yticklabels=rows,
        ax=ax,
    )
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False, rotation=0)
    ax.grid(False)
    return ax.collections[-1]


def colourbar(mesh: QuadMesh, label: str) -> Colorbar:
    """Add a vector colour bar beside the mesh's axes, in 20 bands (finer ones overlap and darken)."""
    bands = np.linspace(mesh.norm.vmin, mesh.norm.vmax, 21)
    place = {"ax": mesh.axes, "fraction": 0.05, "pad": 0.03}
    bar = mesh.axes.figure.colorbar(mesh, label=label, boundaries=bands, ticks=MaxNLocator(6), **place)
    bar.solids.set(edgecolor=GRID, linewidth=0.3)
    bar.outline.set_edgecolor(GRID)
    bar.minorticks_off()
    bar.ax.grid(False)
    return bar


def csv_bytes(data: pd.DataFrame, name: str = "data") -> bytes:
    """Return a tidy table as CSV: numbers that read back the same, NaN empty, no index, newline endings.

    Texts that a spreadsheet would compute begin with an apostrophe, as `outside.csv_cell` writes them.
    ValueError for no rows or columns, infinities, an index or column names that would be lost, or cells that
    are neither numbers, truth values nor text.
    """
    if not isinstance(data, pd.DataFrame) or data.empty:
        raise ValueError(
            f"{name} must be a pandas DataFrame with at least one row and column, got {data!r:.60}"
        )
    if not all(isinstance(c, str) for c in data.columns) or not data.columns.is_unique:
        raise ValueError(f"{name} must have distinct texts as column names, got {list(data.columns)}")
    if data.index.nlevels > 1 or data.index.name is not None or data.index.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must not carry data in its index, which is not written; call reset_index() first"
        )
    for column in data.columns:
        for cell in data[column]:
            if not isinstance(cell, (str, Real, np.bool_)) and cell is not None and cell is not pd.NA:
                kind = type(cell).__name__
                raise ValueError(f"{name}[{column!r}] must hold numbers, truth values or text, got {kind}")
            if isinstance(cell, Real) and not isinstance(cell, Integral) and math.isinf(cell):
                raise ValueError(
                    f"{name}[{column!r}] must not hold infinities; leave such a cell NaN (written empty)"
                )
    return outside.each_text(data, outside.csv_cell).to_csv(index=False, lineterminator="\n").encode()


def describe(data: pd.DataFrame, columns: dict[str, str] | None) -> dict[str, dict]:
    """Return each column's type and, where given, meaning; ValueError if `columns` names one not there."""
    columns = columns or {}
    if unknown := [c for c in columns if c not in data.columns]:
        raise ValueError(
            f"columns must describe columns of the data, got {unknown[0]!r}; has {list(data.columns)}"
        )
    return {c: {"type": str(data[c].dtype), "meaning": columns.get(c)} for c in data.columns}


def check_names(id: str, title: str) -> None:
    """ValueError unless `id` can be a file name and anchor and `title` says something."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise ValueError(f"id must match {ID.pattern} (small letters, digits, hyphens), got {id!r}")
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"title must be text, got {title!r}")


def _check_text(fig: Figure) -> None:
    """Refuse text that would be smaller than 9 pt on the page; call once the figure is drawn."""
    shrunk = min(1.0, WIDTH / fig.get_figwidth())
    for text in fig.findobj(Text):
        size = text.get_fontsize() * shrunk
        if text.get_visible() and text.get_text().strip() and size < SMALLEST - 0.01:
            raise ValueError(
                f"fig must have text of at least {SMALLEST:g} pt at {WIDTH} in width; "
                f"{text.get_text()!r} has {size:.1f} pt"
            )


def _render(fig: Figure, kind: str, metadata: dict) -> bytes:
    stream = io.BytesIO()
    with mpl.rc_context(FIXED):
        fig.savefig(stream, format=kind, dpi=200, facecolor=BACKGROUND, metadata=metadata)
    return stream.getvalue()


def overprints(fig: Figure) -> list[str]:
    """What is wrong with the figure's texts as saved, one phrase each: overprinted, touching a title or axis label,
    hidden by a legend, or cut by the figure's edge."""
    with texts.watched() as drawn:
        _render(fig, "svg", {"Date": None})
    return texts.faults(fig, drawn)


def dark(svg: str) -> str:
    """Return the SVG for the dark theme: colours of `DARK` exchanged, black (left unsaid in SVG) made light."""
    svg = HEX.sub(lambda found: DARK.get(found.group(), found.group()), svg)
    return svg.replace("<svg ", f'<svg fill="{DARK[FOREGROUND]}" ', 1)


def _drawings(fig: Figure, fields: dict, commit: str) -> dict[str, str | bytes]:
    """The figure in all formats, suffix -> content; ValueError for texts or parts that `save` refuses."""
    with texts.watched() as drawn:
        svg = _render(fig, "svg", fields).decode()
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        fig.set_layout_engine(None)  # laid out once: the other formats are drawn at the same places
    _check_text(fig)
    if wrong := texts.faults(fig, drawn):
        raise ValueError(
            f"figure {fields['Identifier']} must have texts that can all be read, but {'; '.join(wrong)}"
        )
    if "<image" in svg:
        raise ValueError(
            "fig must hold no raster image (imshow, rasterized=True); use heatmap, colourbar or pcolormesh"
        )
    title, made = fields["Title"], fields["Creator"]
    png = {"Title": title, "Source": fields["Source"], "Commit": commit, "Software": made}
    png |= {"Copyright": LICENCE}
    pdf = {"Title": title, "Subject": fields["Description"], "Creator": made, "CreationDate": None}
    return {
        ".svg": svg,
        ".dark.svg": dark(svg),
        ".pdf": _render(fig, "pdf", pdf),
        ".png": _render(fig, "png", png),
    }


def save(
    fig: Figure,
    folder: Path,
    id: str,
    data: pd.DataFrame,
    title: str,
    provenance: dict,
    columns: dict[str, str] | None = None,
) -> dict[str, Path]:
    """Save a figure and its data as `folder/<id>` + each of `SUFFIXES`; return suffix -> path.

    `data`: tidy table of what is drawn; `columns`: what its columns mean, with units; `provenance`: from
    `ica.record.provenance`. The same figure and data give the same bytes (the JSON also holds times). SVG, PDF
    and PNG carry title, notebook, commit, version and licence. ValueError, before anything is written, for a
    bad id or title, empty or infinite data, text below 9 pt at page width, texts that `overprints` names, or
    raster images inside the figure.
    """
    check_names(id, title)
    if not isinstance(fig, Figure):
        raise ValueError(f"fig must be a Matplotlib Figure, got {type(fig).__name__}")
    csv = csv_bytes(data)
    meaning = describe(data, columns)
    notebook, commit = provenance["notebook"], provenance["commit"] or "none"
    made = f"ica {provenance['versions']['ica']}"
    source = f"notebook {notebook}; figure {id}; commit {commit}; version {made}; licence {LICENCE}"
    fields = {"Title": title, "Creator": made, "Source": f"notebook {notebook}", "Identifier": id}
    fields |= {"Description": source, "Rights": LICENCE, "Date": None}
    with texts.plain(fig):
        contents = _drawings(fig, fields, commit) | {".csv": csv}
    about = plain(
        {
            "id": id,
            "title": title,
            "licence": LICENCE,
            "rows": len(data),
            "columns": meaning,
            "csv_sha256": hashlib.sha256(csv).hexdigest(),
            "provenance": provenance,
        }
    )
    paths = {
        suffix: write_atomic(Path(folder) / f"{id}{suffix}", content) for suffix, content in contents.items()
    }
    return paths | {".json": write_json(Path(folder) / f"{id}.json", about)}
