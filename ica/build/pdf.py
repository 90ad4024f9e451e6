"""`make pdf`: the built site as one file to print, build/book.pdf.

Chromium takes the pages of build/book into one document (`pdf.html`), in the order of the table of contents, sets the formulas and
prints it: page numbers run over the whole, links between pages lead inside the file, proofs stand open, other folded parts stay folded. It is printed twice,
as the contents name pages that only the first print tells. A file that fails the check is not put in place.
"""

import argparse
import io
import re
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import yaml

from ica.build import book as whole
from ica.build import browser, jobs, notebooks
from ica.record.outside import plain_text
from ica.record.provenance import write_atomic

FRAME = Path(__file__).with_suffix(".html")
WIDTH, HEIGHT = 658, 978  # CSS pixels of an A4 page within the margins of FRAME
ENOUGH = 600  # seconds for the whole document in the browser
FOOTER = (
    '<div style="width: 100%; margin: 0 18mm; display: flex; justify-content: space-between; '
    'font: 8pt sans-serif; color: #444"><span class="title"></span><span class="pageNumber"></span></div>'
)
PAPER = {
    "prefer_css_page_size": True,
    "print_background": True,
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": FOOTER,
    "outline": True,
    "tagged": True,
}


@dataclass(frozen=True)
class Printed:
    """A print: the file's bytes, the first page of each chapter (from 1), the chapters' titles, the number of figures, and what is too wide."""

    content: bytes
    starts: list[int]
    titles: list[str]
    figures: int
    wide: list[str]


def contents(root: Path) -> list[tuple[str, list[str]]]:
    """Parts of the table of contents in order: (caption, pages); the first has no caption."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    loose = [str(toc["root"]), *notebooks.files(toc.get("chapters", []))]
    parts = [(part.get("caption", ""), notebooks.files(part)) for part in toc.get("parts", [])]
    return [("", loose), *parts]


def _reader(content: bytes) -> object:
    import pypdf

    return pypdf.PdfReader(io.BytesIO(content))


def _places(reader: object) -> dict[str, tuple[int, float]]:
    """Anchor -> page (from 1) and height on it in points, of all that the document links to."""
    pages = {page.indirect_reference.idnum: k for k, page in enumerate(reader.pages, 1)}
    found = reader.named_destinations
    return {
        name.lstrip("/"): (pages[one.raw_get("/Page").idnum], float(one.top or 0))
        for name, one in found.items()
    }


def key(name: str) -> str:
    """Anchor of a page of the site in the document, as in FRAME."""
    return "p-" + re.sub(r"[^A-Za-z0-9]+", "-", name)


def render(site: Path, parts: list[tuple[str, list[str]]], about: dict[str, str]) -> Printed:
    """Print the pages of the site.

    Args:
        site: folder of the built pages.
        parts: as `contents` gives them.
        about: title, author and address (or nothing) of the book.

    Raises:
        ValueError: Chromium is missing, or a page cannot be read by it.
    """
    names = [name for _, pages in parts for name in pages]
    with browser.opened(WIDTH, HEIGHT) as page:
        page.set_default_timeout(ENOUGH * 1000)
        page.emulate_media(media="print", color_scheme="light")
        page.goto(FRAME.as_uri())
        page.evaluate(
            "given => begin(given)", about | {"site": site.resolve().as_uri() + "/", "pages": names}
        )
        titles = []
        for caption, pages in parts:
            if caption:
                page.evaluate("words => part(words)", caption)
            for name in pages:
                text = (site / f"{name}.html").read_text(encoding="utf-8")
                titles.append(page.evaluate("([name, text]) => add(name, text)", [name, text]))
                page.evaluate("([name, title]) => listed(name, title)", [name, titles[-1]])
        figures = page.evaluate("() => settle()")
        page.evaluate("() => ready()")
        wide = page.evaluate("() => fit()")
        places = _places(_reader(page.pdf(**PAPER)))
        starts = [places[key(name)][0] for name in names]
        page.evaluate("found => numbers(found)", starts)
        return Printed(page.pdf(**PAPER), starts, titles, figures, wide)


def letters(words: str) -> str:
    """The words without what a file may set otherwise: spaces, signs, ligatures, formulas."""
    words = re.sub(r"\\\(.*?\\\)", "", words)
    return "".join(char for char in unicodedata.normalize("NFKC", words) if char.isalnum())


def findings(found: Printed) -> list[str]:
    """What is wrong with a print, one phrase each: too few pages, a title that is not on its page, a figure that is cut, what is too wide."""
    reader = _reader(found.content)
    places, count = _places(reader), len(reader.pages)
    wrong = [f"wider than the page: {one}" for one in found.wide]
    if count <= len(found.titles):
        wrong.append(f"{count} pages for {len(found.titles)} of the site")
    for title, start in zip(found.titles, found.starts, strict=True):
        if letters(title) not in letters(reader.pages[start - 1].extract_text()):
            wrong.append(f"page {start} does not begin with {title!r}")
    for k in range(found.figures):
        top, end = (places.get(f"mark-{k}-{place}") for place in ("top", "end"))
        if top is None or end is None:
            wrong.append(f"figure {k + 1} is not in the file")
        elif top[0] != end[0]:
            wrong.append(f"figure {k + 1} is cut: it begins on page {top[0]} and ends on page {end[0]}")
    return wrong


def about(root: Path, site: Path) -> dict[str, str]:
    """Title and author of the configuration, and the address that the first page names, if any."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    first = (site / f"{notebooks.pages(root)[0]}.html").read_text(encoding="utf-8")
    online = re.search(r'<meta property="og:url" content="([^"]*)"', first)
    base = online[1].removesuffix(f"{notebooks.pages(root)[0]}.html") if online else ""
    return {"title": config["title"], "author": config.get("author", ""), "online": base}


def make(root: Path) -> str:
    """Write build/book.pdf from build/book; what it is, in words.

    Raises:
        ValueError: no site, no Chromium, or a print that fails the check, all named; a file that was there stays.
    """
    site, file = root / "build" / "book", root / "build" / "book.pdf"
    pages = notebooks.pages(root)
    if missing := [name for name in pages if not (site / f"{name}.html").is_file()]:
        raise ValueError(f"build/book has no page {missing[0]}: run `make book` first")
    found = render(site, contents(root), about(root, site))
    if wrong := findings(found):
        raise ValueError("\n".join(["The PDF is not as it should be; none was written.", *wrong]))
    write_atomic(file, found.content)
    count = len(_reader(found.content).pages)
    return f"{count} pages, {found.figures} figures, {len(found.content) / 1e6:.1f} MB\n{file}"


def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(
        prog="python -m ica.build.pdf", description=__doc__.partition("\n")[0]
    ).parse_args(arguments)

    def work() -> int:
        print(make(root))
        return 0

    try:
        root = whole.here()
        browser.needed()
        if not (root / "build" / "book" / "index.html").is_file():
            raise ValueError("build/book is not there: run `make book` first")
        return whole.locked(root, "make pdf", work)
    except (ValueError, OSError) as error:
        words = str(error) if isinstance(error, ValueError) else jobs.of_system(error)
        print(plain_text(words), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
