"""Directive `gallery`: every figure of the book, small, with the first sentence of its caption, and the verdicts of its page."""

import re
from collections.abc import Iterator

from companion_claims import VERDICTS, rows_of
from companion_data import Directive, outside, parts, raw, records
from companion_figures import recorded_images
from docutils import nodes
from sphinx.application import Sphinx

END = re.compile(r"(?<=[.!?])\s")
KEPT = (nodes.Text, nodes.math, nodes.emphasis, nodes.strong, nodes.literal)


class gallery_place(nodes.General, nodes.Element):
    """Where the gallery comes, once the captions of all pages are known."""


class Gallery(Directive):
    """`{gallery}`: a list of cards for each page that shows figures, by part."""

    def run(self) -> list[nodes.Node]:
        return [gallery_place()]


def sentence(caption: nodes.caption) -> list[nodes.Node]:
    """The first sentence of a caption, links in it as their words."""
    found: list[nodes.Node] = []
    for child in caption.children:
        if isinstance(child, nodes.Text) and (end := END.search(child.astext())):
            return [*found, nodes.Text(child.astext()[: end.start()])]
        found.append(child.deepcopy() if isinstance(child, KEPT) else nodes.Text(child.astext()))
    return found


def shown(app: Sphinx, name: str) -> Iterator[tuple[nodes.figure, str, list[dict]]]:
    """The recorded figures of a notebook's page: node, number in the book, drawings."""
    page = f"notebooks/{name}"
    numbers = app.env.toc_fignumbers.get(page, {}).get("figure", {})
    for figure in app.env.get_doctree(page).findall(nodes.figure):
        drawings = next(figure.findall(recorded_images), None)
        if drawings is not None and "recorded" in figure["classes"]:
            yield figure, ".".join(map(str, numbers.get(figure["ids"][0], ()))), drawings["images"]


def card(url: str, number: str, figure: nodes.figure, images: list[dict], up: str) -> nodes.container:
    """One figure: its drawings, its number, what it shows in a sentence; the first two lead to it."""
    found = [raw('<a class="thumb" href="{url}">', url=url)]
    for image in images:
        given = {key: str(image.get(key, "")) for key in ("width", "height")}
        src = up + image["src"].replace("../", "")
        found.append(
            raw(
                '<img class="{css}" src="{src}" alt="" width="{width}" height="{height}" loading="lazy">',
                css=image["class"],
                src=src,
                **given,
            )
        )
    found.append(raw("<span>{words}</span></a>", words=f"Figure {number}" if number else "Figure"))
    caption = next(figure.findall(nodes.caption), nodes.caption())
    return nodes.container("", *found, nodes.paragraph("", "", *sentence(caption)), classes=["tile"])


def fill(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put the gallery in its place."""
    for place in list(doctree.findall(gallery_place)):
        up, found = "../" * page.count("/"), []
        claims = rows_of(records(app)).values()
        for caption, names in parts(app):
            found.append(nodes.rubric("", caption))
            for name in names:
                figures = list(shown(app, name))
                if not figures:
                    continue
                verdicts = [row["verdict"] for row in claims if row["notebook"] == name]
                counts = ", ".join(f"{verdicts.count(v)} {v}" for v in VERDICTS if v in verdicts)
                title = app.env.titles[f"notebooks/{name}"].astext()
                link = raw(
                    '<a class="reference internal" href="{url}">{title}</a>',
                    url=f"{up}notebooks/{name}.html",
                    title=title,
                )
                found.append(nodes.paragraph("", "", link, outside(f" ({counts})" if counts else "")))
                cards = [
                    card(f"{up}notebooks/{name}.html#{figure['ids'][0]}", number, figure, images, up)
                    for figure, number, images in figures
                ]
                found.append(nodes.container("", *cards, classes=["gallery"]))
        place.replace_self(found)
        app.env.get_domain("math").data["has_equations"][page] = True  # so that MathJax is there


def setup(app: Sphinx) -> None:
    app.add_node(gallery_place)
    app.add_directive("gallery", Gallery)
    app.connect("doctree-resolved", fill)
