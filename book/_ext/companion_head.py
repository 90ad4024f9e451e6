"""What a page says of itself in its head, to search engines and where it is shared: description, citation_* and og: tags.

The description is the page's question and its first answer, or its first paragraph; the picture its first recorded figure. What must be
an absolute address (og:url, og:image, citation_public_url) is there only where the book's own address is known.
"""

import html
import re

from companion_bibtex import citation, people
from companion_cite import latest
from companion_claims import NBSP
from companion_data import PROJECT
from companion_figures import recorded_images
from docutils import nodes
from sphinx.application import Sphinx

LONGEST = 300  # characters of a description


def plain(node: nodes.Node) -> str:
    """The words of a node on one line; of maths the letters alone."""
    found = []
    for leaf in node.findall(nodes.Text):
        words = leaf.astext()
        if isinstance(leaf.parent, nodes.math):
            words = re.sub(r"[{}$]", "", re.sub(r"\\([A-Za-z]+)\s*", r"\1 ", words)).replace("\\", "")
        if "verdict" in leaf.parent.get("classes", ()):
            words = f"({words.partition(NBSP)[2]})"  # without its sign
        found.append(words)
    return " ".join("".join(found).split())


def cut(words: str) -> str:
    """The words, whole sentences if one ends in time, at most LONGEST characters."""
    if len(words) <= LONGEST:
        return words
    head = words[: LONGEST - 1]
    stop = max(head.rfind(end) for end in (". ", "? ", "! "))
    return head[: stop + 1] if stop > LONGEST // 2 else head.rpartition(" ")[0] + "…"


def of_class(doctree: nodes.document, name: str) -> nodes.Node | None:
    return next(
        doctree.findall(lambda node: isinstance(node, nodes.container) and name in node["classes"]), None
    )


def description(doctree: nodes.document) -> str:
    """Question and first answer of a page, the one in short if there is one; or its first paragraph."""
    question, answer = of_class(doctree, "question"), of_class(doctree, "answer")
    if question is None:
        first = next((one for one in doctree.findall(nodes.paragraph) if len(plain(one)) > 20), None)
        return cut(plain(first)) if first is not None else ""
    asked = plain(question[0]).removeprefix("Question. ")
    if answer is None:
        return cut(asked)
    short = plain(answer[0]).removeprefix("Answer").removeprefix(".").strip()
    return cut(f"{asked} {short or plain(next(answer.findall(nodes.list_item)))}")


def picture(doctree: nodes.document) -> str:
    """Place in the site of the page's first recorded figure, as PNG; nothing where there is none."""
    first = next(doctree.findall(recorded_images), None)
    return first["images"][0]["src"].replace("../", "").removesuffix(".svg") + ".png" if first else ""


def tags(app: Sphinx, page: str, title: str, doctree: nodes.document) -> list[tuple[str, str, str]]:
    """The tags of a page: (attribute, its value, content)."""
    cited, base, about = citation(), app.config.html_baseurl, description(doctree)
    found = [
        ("name", "description", about),
        ("property", "og:title", title),
        ("property", "og:description", about),
        ("property", "og:type", "article"),
        ("property", "og:site_name", PROJECT),
        ("name", "citation_title", title),
        *(("name", "citation_author", name) for name in people(cited)),
        ("name", "citation_publication_date", latest(app)["started"][:10].replace("-", "/")),
        ("name", "citation_inbook_title", cited["title"]),
        ("name", "citation_doi", cited.get("doi", "")),
    ]
    if base:
        image = picture(doctree)
        found += [
            ("property", "og:url", f"{base}{page}.html"),
            ("name", "citation_public_url", f"{base}{page}.html"),
            ("property", "og:image", image and base + image),
        ]
    return [tag for tag in found if tag[2]]


def describe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Add the tags to the page's head, but for those that the page gives itself."""
    if doctree is None or page not in app.env.found_docs:
        return
    there = context.get("metatags") or ""
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title") or page))
    title = re.sub(r"\\[()]", "", title)
    lines = [
        f'<meta {kind}="{html.escape(name)}" content="{html.escape(words)}" />'
        for kind, name, words in tags(app, page, title, doctree)
        if f'{kind}="{name}"' not in there
    ]
    context["metatags"] = "\n".join([there, *lines])


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", describe)
