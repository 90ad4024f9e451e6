"""What the directives share: the staged records, and small helpers to build document nodes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ica.build import notebooks

PROJECT = "Self-correction as in-context alignment: a reproducible companion"
AUTHORS = "The authors of the in-context alignment companion"


def records(app: Sphinx) -> Path:
    """Folder of the staged records."""
    return Path(app.srcdir) / "_record"


def read(path: Path) -> object:
    """The JSON value in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def notebook_names(app: Sphinx) -> list[str]:
    """Names of the notebooks with a record, sorted."""
    return sorted(path.name for path in records(app).iterdir() if path.is_dir())


def parts(app: Sphinx) -> list[tuple[str, list[str]]]:
    """Parts of the book that hold notebooks: (caption, names of the notebooks in reading order)."""
    toc = yaml.safe_load((Path(app.srcdir) / "_toc.yml").read_text(encoding="utf-8"))
    found = []
    for part in toc.get("parts") or [{"caption": "Notebooks", "chapters": toc.get("chapters", [])}]:
        files = notebooks.files(part["chapters"])
        names = [Path(file).name for file in files if Path(file).parent.name == "notebooks"]
        if names:
            found.append((part["caption"], names))
    return found


def number(value: object, spec: str = ".3g") -> str:
    """A number as a reader sees it, with a true minus sign; None as a dash."""
    return "–" if value is None else format(value, spec).replace("-", "−")


class Directive(SphinxDirective):
    """A directive that knows the page's notebook and how to build rows of a table."""

    @property
    def notebook(self) -> str:
        """Name of the notebook of this page."""
        return self.env.docname.rpartition("/")[2]

    @property
    def records(self) -> Path:
        return records(self.env.app)

    def inline(self, text: str) -> list[nodes.Node]:
        """The text with its markup ($maths$, `code`, links) as nodes, without HTML."""
        found, messages = self.state.inline_text(text, self.lineno)
        return [*without_html(found), *messages]

    def paragraph(self, text: str) -> nodes.paragraph:
        return nodes.paragraph("", "", *self.inline(text))

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[list[nodes.Node]]], numeric: Sequence[bool] = ()
    ) -> nodes.table:
        """A table; each cell of `rows` is a list of block nodes, `numeric` columns are set to the right."""
        flags = list(numeric) or [False] * len(head)
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=1) for _ in head]
        body = [self._row(cells, flags) for cells in rows]
        group += nodes.thead("", self._row([[self.paragraph(text)] for text in head], flags))
        group += nodes.tbody("", *body)
        return nodes.table("", group, classes=["companion"])

    @staticmethod
    def _row(cells: Sequence[list[nodes.Node]], numeric: Sequence[bool]) -> nodes.row:
        entries = []
        for cell, flag in zip(cells, numeric, strict=True):
            entries.append(nodes.entry("", *cell, classes=["number"] if flag else []))
        return nodes.row("", *entries)


def without_html(found: list[nodes.Node]) -> list[nodes.Node]:
    """The nodes with any HTML among them as the text that it is."""
    holder = nodes.Element("", *found)
    for raw in list(holder.findall(nodes.raw)):
        raw.parent.replace(raw, nodes.Text(raw.astext()))
    return holder.children


def text(words: str, *classes: str) -> nodes.paragraph:
    """A paragraph of plain text, taken literally."""
    return nodes.paragraph("", "", nodes.inline("", words, classes=list(classes)))


def folded(summary: str, css: str, *body: nodes.Node) -> list[nodes.Node]:
    """A box that opens on a click."""
    return [
        nodes.raw("", f'<details class="{css}"><summary>{summary}</summary>', format="html"),
        *body,
        nodes.raw("", "</details>", format="html"),
    ]
