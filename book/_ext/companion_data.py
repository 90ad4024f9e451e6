"""What the directives share: the staged records, and small helpers to build document nodes.

A piece of text is literal unless it is `Ours`: then it was written in the registry or on the page, and its markup counts. Names,
answers of models, errors, whatever a run or a machine said, is `str`, of which pages show the characters and obey none. HTML is
written by `raw` alone.
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ica.build import notebooks
from ica.record.claims import NOTEBOOK
from ica.record.outside import plain_text

PROJECT = "Self-correction as in-context alignment: a reproducible companion"
AUTHORS = "The authors of the in-context alignment companion"
# Fields of the registry and of the paper's claims that may hold markup; nothing that a run says goes into them but numbers.
WRITTEN = (
    "statement",
    "measured",
    "reason",
    "says",
    "fixed",
    "changed",
    "otherwise",
    "claim",
    "scale",
    "here",
    "note",
)
LONG = re.compile(r"(\S{40,})")
Piece = str | nodes.Node


class Ours(str):
    """Text with markup that counts, because it was written for this book: made by `ours` and `Directive.written` alone."""


def ours(row: dict, field: str, stop: str = "") -> Ours:
    """What the registry says in a field that may hold markup, ending in `stop`; empty where it says nothing."""
    if field not in WRITTEN:
        raise ValueError(f"{field} is not written in the registry; its text is literal")
    return Ours(row[field].rstrip(stop or None) + stop if row[field] else "")


def outside(words: str, *classes: str) -> nodes.inline:
    """The words as they are, without control characters; very long ones may break anywhere."""
    pieces = enumerate(LONG.split(plain_text(words)))
    found = [
        nodes.inline("", part, classes=["long"]) if k % 2 else nodes.Text(part) for k, part in pieces if part
    ]
    return nodes.inline("", "", *found, classes=list(classes), support_smartquotes=False)


def raw(template: str, **values: object) -> nodes.raw:
    """HTML of this extension, with the values, whatever they hold, as text in it."""
    given = {name: html.escape(plain_text(str(value))) for name, value in values.items()}
    return nodes.raw("", template.format(**given), format="html")


def records(app: Sphinx) -> Path:
    """Folder of the staged records."""
    return Path(app.srcdir) / "_record"


def read(path: Path) -> object:
    """The JSON value in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def notebook_names(app: Sphinx) -> list[str]:
    """Names of the notebooks with a record, sorted."""
    return sorted(
        path.name for path in records(app).iterdir() if path.is_dir() and NOTEBOOK.fullmatch(path.name)
    )


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

    def inline(self, *pieces: Piece) -> list[nodes.Node]:
        """The pieces as nodes: the markup of `Ours` ($maths$, `code`, links) read, but no HTML; any other text literal."""
        found: list[nodes.Node] = []
        for piece in pieces:
            if isinstance(piece, Ours):
                parsed, messages = self.state.inline_text(piece, self.lineno)
                found += [*without_html(parsed), *messages]
            else:
                found.append(outside(piece) if isinstance(piece, str) else piece)
        return found

    def paragraph(self, *pieces: Piece) -> nodes.paragraph:
        return nodes.paragraph("", "", *self.inline(*pieces))

    def written(self) -> Ours:
        """The body of the directive, as the page has it."""
        return Ours(" ".join(self.content))

    def reference(self, kind: str, target: str, words: str | None = None) -> addnodes.pending_xref:
        """A link to a label (`ref`) or page (`doc`) of this book, by its own title or in these words."""
        about = {"refdoc": self.env.docname, "refdomain": "std", "reftype": kind, "reftarget": target}
        shown = nodes.inline("", plain_text(words or target), classes=["xref", "std", f"std-{kind}"])
        return addnodes.pending_xref("", shown, **about, refexplicit=words is not None, refwarn=True)

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[list[nodes.Node]]], numeric: Sequence[bool] = ()
    ) -> nodes.table:
        """A table; each cell of `rows` is a list of block nodes, `numeric` columns are set to the right."""
        flags = list(numeric) or [False] * len(head)
        group = nodes.tgroup(cols=len(head))
        group += [nodes.colspec(colwidth=1) for _ in head]
        body = [self._row(cells, flags) for cells in rows]
        group += nodes.thead("", self._row([[text(words)] for words in head], flags))
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
    return nodes.paragraph("", "", outside(words, *classes))


def folded(summary: str, css: str, *body: nodes.Node) -> list[nodes.Node]:
    """A box that opens on a click."""
    return [
        raw('<details class="{css}"><summary>{summary}</summary>', css=css, summary=summary),
        *body,
        raw("</details>"),
    ]
