"""Directive `slider`: a recorded figure whose place a drawing with a slider takes, where scripts run.

It draws the figure's own data, the recorded CSV, which stands in the page as an attribute of the script; `slider.js` and `slider.css` of
`_static` are loaded by the pages that have one. Nothing is fetched, so the page works from disk.
"""

import csv
import json
import math
from typing import ClassVar

from companion_data import raw
from companion_figures import RecordedFigure
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx

from ica.record.outside import from_csv_cell
from ica.record.styles import ALIASES, DARK, LINES, PALETTE, STYLES, style_of

COLUMNS = ("by", "along", "x", "y", "of")  # roles that columns of the data have, by options of their names
ENDS = ("lo", "hi")  # of the band, where there is one


def drawn(name: str, place: int) -> dict:
    """Colours for both themes and dashes of a curve, as on every other page; without a style of its own those of its place, as Matplotlib has it."""
    known = name in STYLES or name in ALIASES
    style = (
        style_of(name)
        if known
        else {"color": PALETTE[place % len(PALETTE)], "linestyle": LINES[place % len(LINES)]}
    )
    line = style["linestyle"] if style["linestyle"] in LINES else LINES[0]
    dashes = " ".join(f"{3 * length:g}" for length in line[1]) if isinstance(line, tuple) else ""
    return {"light": style["color"], "dark": DARK[style["color"]], "dashes": dashes}


class Slider(RecordedFigure):
    """`{slider} figure` with `:alt:`; `:by:`, `:along:`, `:x:`, `:y:`, `:of:` name columns of its data; the body is the caption.

    A curve for each value of `of`; a choice between the values of `by`, if any; a slider for those of `along`. If `along` is `x`, the slider
    moves along the curves. `:names:` says what the columns are called, as `n: triplets seen; nmse: normalised MSE`.
    """

    option_spec: ClassVar = RecordedFigure.option_spec | dict.fromkeys(
        (*COLUMNS, "names"), directives.unchanged_required
    )

    def run(self) -> list[nodes.Node]:
        figure, *box = super().run()
        if missing := [name for name in (*COLUMNS[1:], "names") if not self.options.get(name)]:
            raise self.error(f"slider {self.arguments[0]}: option :{missing[0]}: is required")
        file = self.find(".csv")[1]
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            data, head = list(reader), reader.fieldnames or []
        columns = [*(self.options.get(name, "") for name in COLUMNS), *ENDS]
        if set(columns) - {*head, "", *ENDS}:  # what it shows is not stored: the figure says so
            return [figure, *box]
        pairs = (pair.partition(":") for pair in self.options["names"].split(";"))
        names = {column.strip(): words.strip() for column, _, words in pairs}
        if unnamed := [column for column in columns[1:4] if column not in names]:
            raise self.error(f"slider {self.arguments[0]}: option :names: must name {unnamed[0]!r}")
        rows = [[self.cell(column, row.get(column, "")) for column in columns] for row in data]
        curves = {name: drawn(name, k) for k, name in enumerate(dict.fromkeys(row[4] for row in rows))}
        given = {"columns": columns, "names": names, "rows": rows, "curves": curves}
        figure["classes"].append("slider")
        static = "../" * self.env.docname.count("/") + "_static"
        style = raw('<link rel="stylesheet" href="{static}/slider.css">', static=static)
        script = raw(
            '<script src="{static}/slider.js" data-figure="{id}" data-given="{given}"></script>',
            static=static,
            id=figure["ids"][0],
            given=json.dumps(given, separators=(",", ":"), allow_nan=False),
        )
        return [style, figure, script, *box]

    def cell(self, column: str, value: str) -> str | float | None:
        """A number to six digits, a missing one as None; of the columns that name things the text."""
        if column in (self.options.get("by", ""), self.options["of"]):
            return from_csv_cell(value)
        number = float(value or "nan")
        return None if math.isnan(number) else float(f"{number:.6g}")


def setup(app: Sphinx) -> None:
    app.add_directive("slider", Slider)
