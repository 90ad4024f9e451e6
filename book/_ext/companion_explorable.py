"""Directive `explorable`: a recorded figure whose place a drawing to play with takes, where scripts run.

The weights are the texts of a recorded table's column "weights", JSON each; they stand in the page, as an attribute
of the script. Script, style and arithmetic are the files explorable*.* of `_static`, which this page alone loads.
Nothing is fetched, so the page works from disk.
"""

import csv
import json
from typing import ClassVar

from companion_data import raw
from companion_figures import RecordedFigure
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx

from ica.record.outside import from_csv_cell


class Explorable(RecordedFigure):
    """`{explorable} figure` with `:alt:` and `:weights:` (id of the table); the body is the caption of both."""

    option_spec: ClassVar = RecordedFigure.option_spec | {"weights": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        figure, *box = super().run()
        figure["classes"].append("explorable")
        file = f"{self.options.get('weights', '')}.csv"
        table = self.records / self.notebook / "tables" / file
        if not table.is_file():
            raise self.error(f"explorable: this page's notebook recorded no table {file}")
        with table.open(newline="", encoding="utf-8") as stream:
            models = [json.loads(from_csv_cell(row["weights"])) for row in csv.DictReader(stream)]
        weights = json.dumps(models, separators=(",", ":"), allow_nan=False)
        static = "../" * self.env.docname.count("/") + "_static"
        style = raw('<link rel="stylesheet" href="{static}/explorable.css">', static=static)
        # Not deferred: the drawing is there before what follows it is laid out, so nothing moves.
        scripts = raw(
            '<script src="{static}/explorable_maths.js"></script>'
            '<script src="{static}/explorable.js" data-weights="{weights}"></script>',
            static=static,
            weights=weights,
        )
        link = raw(
            '<p class="source"><a href="{url}" download>Weights as exported (CSV with JSON cells)</a></p>',
            url=self.address("_tables", self.notebook, file),
        )
        return [style, figure, scripts, *box, link]


def setup(app: Sphinx) -> dict:
    app.add_directive("explorable", Explorable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
