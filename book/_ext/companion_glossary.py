"""Definitions at hand: where a page uses `{term}`word``, its definition shows at the word, on hover and on keyboard focus.

Sphinx makes the links to the glossary. This module adds the text of each definition to the pages that use it, hidden, as the
description of the link (`aria-describedby`), and `_static/glossary.js`, which shows it; nothing is loaded from elsewhere.
"""

import html
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

SCRIPT = "glossary.js"
LINK = re.compile(
    r'<a class="reference internal" href="([^"#]*#(term-[^"]+))">(?=<span class="xref std std-term">)'
)


def definitions(app: Sphinx) -> Iterator[tuple[str, str]]:
    """Anchor and definition of every term: the first paragraph of its entry, as plain text."""
    places = {doc for (kind, _), (doc, _) in app.env.get_domain("std").objects.items() if kind == "term"}
    for doc in sorted(places):
        for entry in app.env.get_doctree(doc).findall(nodes.definition_list_item):
            first = next(entry.findall(nodes.paragraph), None)
            if first is None:
                continue
            for term in entry.findall(nodes.term):
                if next(first.findall(nodes.math), None):
                    words = f"glossary: the first paragraph of {term.astext()!r} is shown as plain text; write it without $maths$"
                    logging.getLogger(__name__).warning(words, location=term)
                for anchor in term["ids"]:
                    yield anchor, " ".join(first.astext().split())


def describe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Give each link to a term its definition as a description, and add the definitions to the page."""
    if "std-term" not in context.get("body", ""):
        return
    if not hasattr(app, "glossary"):
        app.glossary = dict(definitions(app))
    used: dict[str, str] = {}

    def link(match: re.Match) -> str:
        anchor = match[2]
        if anchor not in app.glossary:
            return match[0]
        used[anchor] = app.glossary[anchor]
        return f'<a class="reference internal term" href="{match[1]}" aria-describedby="about-{anchor}">'

    body = LINK.sub(link, context["body"])
    texts = "".join(f'<p id="about-{anchor}">{html.escape(words)}</p>' for anchor, words in used.items())
    context["body"] = f"{body}<div hidden>{texts}</div>" if used else body


def setup(app: Sphinx) -> dict:
    app.add_js_file(SCRIPT, loading_method="defer")
    app.connect("html-page-context", describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
