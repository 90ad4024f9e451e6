"""How to cite: directive `bibtex`, the file of all entries, and what each page says of itself in its head.

Addresses are absolute where the book's own is known: `html.baseurl` in _config.yml, or ICA_BOOK_URL for one build.
"""

from collections.abc import Iterator
from pathlib import Path

import companion_bibtex as bibtex
from companion_claims import measured, rows_of
from companion_data import Directive, notebook_names, raw, read, records
from companion_figures import RecordedFigure, RecordedTable, entry_of
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

KINDS = {"figure": RecordedFigure, "table": RecordedTable}
FILE = "_bib/companion.bib"


def latest(app: Sphinx) -> dict:
    """Provenance of the run that began last: the book is as old as that."""
    runs = [read(records(app) / name / "run.json") for name in notebook_names(app)]
    return max(runs, key=lambda run: run["started"])


def _address(app: Sphinx, place: str) -> str:
    return app.config.html_baseurl and app.config.html_baseurl + place


def of_record(app: Sphinx, kind: str, notebook: str, about: dict) -> str:
    """Entry of a recorded figure or table, with the number and the address that it has on its own notebook's page."""
    label = KINDS[kind].label
    anchor = f"{label}-{about['id']}"
    number = app.env.toc_fignumbers.get(f"notebooks/{notebook}", {}).get(kind, {}).get(anchor, ())
    place = f"notebooks/{notebook}.html" + (f"#{anchor}" if number else "")
    words = ".".join(map(str, number))
    return bibtex.recorded(label, kind.title(), about, bibtex.citation(), words, _address(app, place))


def of_claim(app: Sphinx, row: dict) -> str:
    """Entry of a claim, with what was measured and the criterion of each part."""
    parts, found = row["measurement"]["parts"], []
    for name in parts and row["order"]:
        words = f"{measured(parts[name])}, criterion {row['criteria'][name]['text']}"
        found.append(words if name == "value" else f"{name}: {words}")
    run = read(records(app) / row["notebook"] / "run.json")
    place = _address(app, f"notebooks/{row['notebook']}.html#claim-{row['id']}")
    said = "; ".join(found) or row["measurement"]["untestable"]
    return bibtex.claim(row, said, run, bibtex.citation(), place)


def of_companion(app: Sphinx) -> str:
    return bibtex.companion(bibtex.citation(), latest(app), app.config.html_baseurl or "")


class BibTeX(Directive):
    """`{bibtex} companion`, or `{bibtex} figure|table|claim id`: the entry, and a link to the file of all of them."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind, id, app = *[*self.arguments, ""][:2], self.env.app
        if kind in KINDS and id:
            return [entry_of(kind, *self.found(kind, id))]
        if kind == "claim" and id in (rows := rows_of(self.records)):
            entry = of_claim(app, rows[id])
        elif kind == "companion" and not id:
            entry = of_companion(app)
        else:
            raise self.error(
                f"bibtex: {' '.join(self.arguments)!r} is nothing recorded; accepted: companion, or "
                "figure, table or claim with an id"
            )
        return [nodes.literal_block("", entry, language="bibtex", force=True)]

    def found(self, kind: str, id: str) -> tuple[str, dict]:
        for name in notebook_names(self.env.app):
            for folder in KINDS[kind].folders:
                if (file := self.records / name / folder / f"{id}.json").is_file():
                    return name, read(file)
        raise self.error(f"bibtex: no notebook recorded {kind} {id!r}")


class AllEntries(Directive):
    """`{all-entries}`: a link to the file with every entry of the book."""

    def run(self) -> list[nodes.Node]:
        url = "../" * self.env.docname.count("/") + FILE
        return [raw('<p><a href="{url}" download>All entries, one BibTeX file</a></p>', url=url)]


def fill(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for node in doctree.findall(nodes.literal_block):
        if "entry" in node:
            node += nodes.Text(of_record(app, *node["entry"]))
            del node["entry"]


def _files(app: Sphinx) -> Iterator[tuple[str, str, Path]]:
    """Kind, notebook and file of every recorded figure and table, by notebook."""
    for name in notebook_names(app):
        for kind, directive in KINDS.items():
            for folder in directive.folders:
                for file in sorted((records(app) / name / folder).glob("*.json")):
                    yield kind, name, file


def entries(app: Sphinx) -> list[str]:
    """Every entry of the book: the companion, figures and tables by notebook, claims."""
    recorded = [of_record(app, kind, name, read(file)) for kind, name, file in _files(app)]
    return [of_companion(app), *recorded, *(of_claim(app, row) for row in rows_of(records(app)).values())]


def check_keys(app: Sphinx) -> None:
    """ExtensionError where two records would be cited by the same key."""
    found: dict[str, str] = {}
    for kind, name, file in _files(app):
        entry, place = bibtex.key(KINDS[kind].label, file.stem), f"{file.parent.name}/{file.stem} of {name}"
        if entry in found:
            raise ExtensionError(f"BibTeX key {entry} is of {found[entry]} and of {place}: rename one")
        found[entry] = place


def write_entries(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        file = Path(app.outdir) / FILE
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n\n".join(entries(app)) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_directive("bibtex", BibTeX)
    app.add_directive("all-entries", AllEntries)
    app.connect("builder-inited", check_keys)
    app.connect("doctree-resolved", fill)
    app.connect("build-finished", write_entries)
