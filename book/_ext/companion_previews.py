"""What a link leads to, at hand: a term's definition, an equation, a theorem or a reference shows at the link itself.

Once all pages are written, each page gets, hidden, what its links of these kinds lead to, on whatever page that stands, as the description of
the link (`aria-describedby`). `_static/previews.js` shows it on hover, on keyboard focus and at a first tap. Nothing is loaded from elsewhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

SCRIPT = "previews.js"
LINK = re.compile(r'<a class="reference internal" href="([^"#]*)#([^"]+)"(?: title="[^"]*")?>')
# Where the things begin that a link may lead to; each is a <div> with an id.
THING = re.compile(
    r'<div class="(?:math|(?:proof|citation)\b)[^"]*"(?: id="([^"]+)"| role="[^"]*")+>', re.ASCII
)
TERM = re.compile(r'<dt id="(term-[^"]+)">')
DIV = re.compile(r"<(/?)div\b[^>]*>")
# What a copy does without: ids, which are there once, links, which cannot be followed in it, and signs for them.
WITHOUT = re.compile(
    r'<a class="headerlink".*?</a>|<span class="backrefs">.*?</span>|</?a\b[^>]*>| id="[^"]*"| role="[^"]*"'
)


def whole(markup: str, start: int) -> str:
    """The <div> that begins at `start`, up to its own end."""
    depth = 0
    for tag in DIV.finditer(markup, start):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return markup[start : tag.end()]
    return ""


def things(markup: str) -> Iterator[tuple[str, str]]:
    """Anchor and HTML of what a page holds that links to it can show."""
    for found in THING.finditer(markup):
        if found[1]:
            yield found[1], WITHOUT.sub("", whole(markup, found.start()))
    for found in TERM.finditer(markup):
        body = markup[found.end() :].partition("<dd>")[2].partition("</p>")[0]
        if body.startswith("<p>"):
            yield found[1], WITHOUT.sub("", f"{body}</p>")


def shown(markup: str, page: Path, known: dict[Path, dict[str, str]], maths: str) -> str:
    """The page with what its links lead to, hidden, at its end; without the script `maths` on it, but for formulas."""
    used: dict[tuple[Path, str], str] = {}

    def link(found: re.Match) -> str:
        place = (page.parent / found[1]).resolve() if found[1] else page
        text = known.get(place, {}).get(found[2], "")
        if not text or ('class="math' in text and maths not in markup):
            return found[0]
        about = used.setdefault((place, found[2]), f"about-{len(used)}-{found[2]}")
        kind = "term" if found[2].startswith("term-") else "seen"
        return (
            f'<a class="reference internal {kind}" href="{found[1]}#{found[2]}" aria-describedby="{about}">'
        )

    markup = LINK.sub(link, markup)
    texts = [f'<div id="{about}">{known[place][anchor]}</div>' for (place, anchor), about in used.items()]
    end = next((tag for tag in ("</article>", "</body>") if tag in markup), "")
    if not texts or not end:
        return markup
    head, _, tail = markup.rpartition(end)
    return f'{head}<div class="previews" hidden>{"".join(texts)}</div>\n{end}{tail}'


def describe(app: Sphinx, error: Exception | None) -> None:
    """Add to each page what its links lead to."""
    if error is not None or app.builder.format != "html":
        return
    files = [Path(app.outdir).resolve() / app.builder.get_target_uri(name) for name in app.env.found_docs]
    pages = {file: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    known = {file: dict(things(markup)) for file, markup in pages.items()}
    for file, markup in pages.items():
        if (changed := shown(markup, file, known, Path(app.config.mathjax_path).name)) != markup:
            file.write_text(changed, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.add_js_file(SCRIPT, loading_method="defer")
    app.connect("build-finished", describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
