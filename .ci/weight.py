"""Weight of the built site: all of it, each page without its images, and images that load before they are needed."""

import re
from collections.abc import Iterator
from pathlib import Path

SITE, PAGE = 30.0, 1.5  # MB
EAGER = re.compile(r"<img\b(?![^>]*\bloading=\"lazy\")[^>]*\bsrc=\"([^\"]*_figures/[^\"]*)\"")


def findings(book: Path) -> Iterator[str]:
    """What is heavier than it may be, and figures that are not lazy."""
    files = [path for path in book.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    if total > SITE:
        yield f"the site has {total:.1f} MB, more than {SITE:g}"
    for page in sorted(path for path in files if path.suffix == ".html" and "_static" not in path.parts):
        name, weight = page.relative_to(book), page.stat().st_size / 1e6
        if weight > PAGE:
            yield f"{name}: the page has {weight:.2f} MB without images, more than {PAGE:g}"
        for image in EAGER.findall(page.read_text(encoding="utf-8")):
            yield f"{name}: image {image} is not lazy"


def shown(book: Path) -> str:
    """Total, and the heaviest pages, in MB."""
    total = sum(path.stat().st_size for path in book.rglob("*") if path.is_file()) / 1e6
    pages = sorted((p.stat().st_size / 1e6, str(p.relative_to(book))) for p in book.glob("*/*.html"))
    return "\n".join(
        [f"{total:6.1f}  MB, the site", *(f"{mb:6.2f}  MB, {name}" for mb, name in pages[:-6:-1])]
    )
