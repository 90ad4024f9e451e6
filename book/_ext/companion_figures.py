"""Directives `recorded-figure` and `recorded-table`: what a run recorded, numbered, citable, to download."""

import csv
import html
import math
import re
import sys
from pathlib import Path
from typing import ClassVar

from companion_data import (
    Directive,
    folded,
    notebook_names,
    number,
    raw,
    read,
    text,
)
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx

from ica.record.claims import ID
from ica.record.outside import from_csv_cell

DOWNLOADS = {
    "SVG": ".svg",
    "SVG, dark": ".dark.svg",
    "PDF": ".pdf",
    "PNG": ".png",
    "Data (CSV)": ".csv",
    "Provenance (JSON)": ".json",
}
VARIANTS = {"only-light": ".svg", "only-dark": ".dark.svg"}
csv.field_size_limit(sys.maxsize)  # an answer may be longer than the 131,072 characters of the default
POINTS = re.compile(r'\b(width|height)="([\d.]+)pt"')


class recorded_images(nodes.General, nodes.Element):
    """The light and the dark drawing, served from _figures/ where the downloads are too."""


def visit_images(writer: object, node: recorded_images) -> None:
    # In a box of their own: the theme hides a caption that comes straight after a drawing it hides.
    # Each is a link to itself: alone in a window it can be enlarged, as wide ones on a phone must be.
    images = []
    for image in node["images"]:
        given = {key: html.escape(str(value)) for key, value in image.items()}
        shown = " ".join(f'{key}="{value}"' for key, value in given.items()) + ' loading="lazy"'
        link = f'<a class="{given["class"]}" href="{given["src"]}" title="Open the figure alone">'
        images.append(f"{link}<img {shown}></a>")
    writer.body.append(f"<div>{''.join(images)}</div>")
    raise nodes.SkipNode


def skip(writer: object, node: nodes.Element) -> None:
    raise nodes.SkipNode


def size(svg: Path) -> dict[str, int]:
    """Width and height of the drawing in CSS pixels, so that the page does not move as it loads."""
    head = svg.read_text(encoding="utf-8").partition("<svg")[2].partition(">")[0]
    return {key: round(float(points) * 4 / 3) for key, points in POINTS.findall(head)}


def entry_of(kind: str, notebook: str, about: dict) -> nodes.literal_block:
    """The place of a BibTeX entry, which `companion_cite` writes once the numbers of figures are known."""
    # Shown whatever a title holds, also if that is no BibTeX to a highlighter.
    return nodes.literal_block("", "", language="bibtex", force=True, entry=(kind, notebook, about))


class Recorded(Directive):
    """Common to figures and tables: finding the record, the number, the permalink and the folded box."""

    required_arguments = 1
    has_content = True
    label: str
    kind: str
    folders: tuple[str, ...]

    def find(self, suffix: str) -> tuple[str, Path]:
        """Notebook and file of the record with this id: the page's own notebook first, else the only one."""
        identifier = self.arguments[0]
        if not ID.fullmatch(identifier):
            raise self.error(f"{self.name}: {identifier!r} is no id; accepted: {ID.pattern}")
        names = notebook_names(self.env.app)
        own = [self.notebook] if self.notebook in names else []
        for group in (own, names):
            places = [
                (name, self.records / name / kind / f"{identifier}{suffix}")
                for name in group
                for kind in self.folders
            ]
            there = [(name, file) for name, file in places if file.is_file()]
            if len(there) > 1:
                raise self.error(
                    f"{self.name}: {identifier} was recorded by {', '.join(n for n, _ in there)}"
                )
            if there:
                return there[0]
        raise self.error(f"{self.name}: no notebook recorded {identifier!r}")

    def caption(self) -> list[nodes.Node]:
        """Children of the one paragraph in the body."""
        holder = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, holder)
        if len(holder) != 1 or not isinstance(holder[0], nodes.paragraph):
            raise self.error(f"{self.name} {self.arguments[0]}: the body must be one paragraph, the caption")
        return holder[0].children

    def name_node(self, node: nodes.Element, notebook: str) -> str:
        """Give the node its id and, on its own notebook's page, the name that {numref} finds; the id."""
        name = f"{self.label}-{self.arguments[0]}"
        if notebook != self.notebook:  # shown again elsewhere: the label belongs to the first place
            name += f"-in-{nodes.make_id(self.notebook)}"
        node["names"].append(nodes.fully_normalize_name(name))
        self.state.document.note_explicit_target(node, node)
        return node["ids"][0]

    def address(self, folder: str, notebook: str, file: str) -> str:
        return "../" * self.env.docname.count("/") + f"{folder}/{notebook}/{file}"

    def box(self, anchor: str, about: dict, links: dict[str, str]) -> list[nodes.Node]:
        """The folded box: downloads, permalink, BibTeX."""
        items = [
            raw('<li><a href="{url}" download>{label}</a></li>', url=url, label=label)
            for label, url in links.items()
        ]
        base = self.config.html_baseurl
        page = f"{self.env.docname if base else self.env.docname.rpartition('/')[2]}.html#{anchor}"
        return folded(
            "Cite or download",
            "cite",
            raw("<ul>"),
            *items,
            raw("</ul>"),
            raw(
                '<p>Permalink: <a class="reference internal" href="#{anchor}">{page}</a></p>',
                anchor=anchor,
                page=(base or "") + page,
            ),
            entry_of(self.kind.lower(), about["provenance"]["notebook"], about),
        )


class RecordedFigure(Recorded):
    """`{recorded-figure} id` with `:alt:`; the body is the caption."""

    option_spec: ClassVar = {"alt": directives.unchanged_required}
    label, kind, folders = "fig", "Figure", ("figures",)

    def run(self) -> list[nodes.Node]:
        alt = " ".join(self.options.get("alt", "").split())
        if not alt:
            raise self.error(f"recorded-figure {self.arguments[0]}: option :alt: is required")
        notebook, file = self.find(".json")
        about, identifier = read(file), self.arguments[0]
        figure = nodes.figure("", align="default", classes=["recorded"])
        self.set_source_info(figure)
        images = [
            {
                "class": css,
                "src": self.address("_figures", notebook, f"{identifier}{suffix}"),
                "alt": alt,
                **size(file.with_name(f"{identifier}{suffix}")),
            }
            for css, suffix in VARIANTS.items()
        ]
        figure += recorded_images(images=images)
        figure += nodes.caption("", "", *self.caption())
        anchor = self.name_node(figure, notebook)
        links = {
            label: self.address("_figures", notebook, identifier + end) for label, end in DOWNLOADS.items()
        }
        return [figure, *self.box(anchor, about, links)]


def shown(value: str, spec: str | None, kind: str) -> str:
    """A cell of a CSV file as a reader sees it: by its format, floats else to 4 digits, nothing as a dash."""
    if value == "":
        return "–"
    if not kind.startswith(("int", "uint", "float")):
        return format(from_csv_cell(value), spec or "")
    given = float(value)
    if given.is_integer() and (kind.startswith(("int", "uint")) or (spec or "").endswith("d")):
        given = int(value) if value.lstrip("-").isdigit() else int(given)
    if isinstance(given, float) and math.isnan(given):
        return "–"
    return number(given, spec or ("d" if isinstance(given, int) else ".4g"))


class RecordedTable(Recorded):
    """`{recorded-table} id`; the body is the caption."""

    label, kind, folders = "tab", "Table", ("tables", "timed")

    def run(self) -> list[nodes.Node]:
        notebook, file = self.find(".json")
        about, identifier = read(file), self.arguments[0]
        with file.with_suffix(".csv").open(newline="", encoding="utf-8") as stream:
            head, *rows = csv.reader(stream)
        head = [from_csv_cell(name) for name in head]
        kinds = [about["columns"][column]["type"] for column in head]
        specs = [about["formats"].get(column) for column in head]
        body = [[[text(shown(*cell))] for cell in zip(row, specs, kinds, strict=True)] for row in rows]
        table = self.table(head, body, [kind.startswith(("int", "uint", "float")) for kind in kinds])
        table.insert(0, nodes.title("", "", *self.caption()))
        self.set_source_info(table)
        anchor = self.name_node(table, notebook)
        names = {"Data (CSV)": ".csv", "Provenance (JSON)": ".json"}
        links = {label: self.address("_tables", notebook, identifier + end) for label, end in names.items()}
        return [table, *self.box(anchor, about, links)]


def setup(app: Sphinx) -> None:
    others = {name: (skip, None) for name in ("latex", "text", "man", "texinfo")}
    app.add_node(recorded_images, html=(visit_images, None), **others)
    app.add_directive("recorded-figure", RecordedFigure)
    app.add_directive("recorded-table", RecordedTable)
