"""Layout of the built pages as a browser measures it: first figures, wide code, tables and formulas; BibTeX keys.

On a desktop (1440 x 900): the first recorded figure of a notebook's page begins on the first screen; no code box is
cut; a table wider than the column scrolls in a box of its own and shows that it does. On a phone (390 px): formulas
and tables that do not fit scroll.
"""

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
FIRST_SCREEN = 900  # px below the top of the page
FREE = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
FIRST = """() => { const figures = [...document.querySelectorAll('figure.recorded')];
    const first = figures.find(figure => figure.getClientRects().length);
    return first ? Math.round(first.getBoundingClientRect().top + scrollY) : null; }"""
OPEN = "() => { for (const box of document.querySelectorAll('details')) box.open = true; }"
# Things wider than the room they have: [what it says, "scrolls", "scrolls, no sign" or "cut"], none that fits.
WIDE = r"""selector => { const article = document.querySelector('article'), found = [];
    for (const thing of article.querySelectorAll(selector)) {
        const own = thing.getBoundingClientRect(), right = own.left + Math.max(own.width, thing.scrollWidth);
        if (!own.width) continue;
        let state = null;
        for (let box = thing; !state && box !== article.parentElement; box = box.parentElement) {
            const look = getComputedStyle(box), padding = box === article ? parseFloat(look.paddingRight) : 0;
            const edge = box.getBoundingClientRect().left + box.clientLeft + box.clientWidth - padding;
            if (look.display === 'inline' || right <= edge + 1) continue;
            const bar = box.offsetHeight - box.clientHeight - parseFloat(look.borderTopWidth)
                - parseFloat(look.borderBottomWidth) > 2;
            if (/auto|scroll/.test(look.overflowX))
                state = bar || look.backgroundImage !== 'none' ? 'scrolls' : 'scrolls, no sign';
            else if (/hidden|clip/.test(look.overflowX) || box === article) state = 'cut';
        }
        if (state) found.push([thing.textContent.trim().replace(/\s+/g, ' ').slice(0, 50), state]);
    }
    return found; }"""
ENTRY = re.compile(r"@(\w+)\{\s*([^,\s{}]+)\s*,")


class Layout(NamedTuple):
    """What was measured: findings, the first figure of each notebook's page (px), and how many things scroll."""

    findings: list[str]
    positions: dict[str, int | None]
    scrolling: dict[str, int]


def measure(browser: Browser, base: str, names: list[str]) -> Layout:
    """Visit every page once; `browser` must show scrollbars."""
    found, positions, scrolling = [], {}, defaultdict(int)
    page = browser.new_context(viewport=DESKTOP).new_page()

    def wide(name: str, kind: str, selector: str, where: str, bad: tuple[str, ...]) -> None:
        for text, state in page.evaluate(WIDE, selector):
            if state in bad:
                found.append(f"{name}: {kind} {state} {where}: {text}")
            else:
                scrolling[f"{kind} {where}"] += 1

    for name in names:
        page.set_viewport_size(DESKTOP)
        page.goto(f"{base}/{name}.html", wait_until="load")
        page.evaluate(FREE)
        if name.startswith("notebooks/"):
            top = positions[name] = page.evaluate(FIRST)
            if top is None:
                found.append(f"{name}: no recorded figure")
            elif top > FIRST_SCREEN:
                found.append(f"{name}: the first figure begins {top} px down, beyond {FIRST_SCREEN}")
        page.evaluate(OPEN)
        wide(name, "code box", "div.highlight pre", "at 1440 px", ("cut",))
        wide(name, "table", "table", "at 1440 px", ("cut", "scrolls, no sign"))
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(300)  # the sidebar slides out
        wide(name, "formula", "mjx-container[display=true]", "at 390 px", ("cut",))
        wide(name, "table", "table", "at 390 px", ("cut",))
    page.context.close()
    return Layout(found, positions, dict(scrolling))


def shown(layout: Layout) -> str:
    """The positions as a table, farthest first, and how many things scroll."""
    rows = sorted(layout.positions.items(), key=lambda item: -(item[1] if item[1] is not None else 10**6))
    lines = [f"{'none' if top is None else top:>6}  {name}" for name, top in rows]
    lines += [f"{count:>6}  x {what} scrolls" for what, count in sorted(layout.scrolling.items())]
    return "\n".join(["    px  first figure", *lines])


def entries(book: Path, references: Path) -> Iterator[tuple[str, str, str]]:
    """BibTeX entries of the site's boxes and of the bibliography: (key, text, place)."""
    pages = [page for page in sorted(book.rglob("*.html")) if "_static" not in page.parts]
    texts = []
    for page in pages:
        for box in re.findall(r"<pre\b[^>]*>(.*?)</pre>", page.read_text(encoding="utf-8"), re.DOTALL):
            texts.append((html.unescape(re.sub(r"<[^>]+>", "", box)), str(page.relative_to(book))))
    for text, place in [*texts, (references.read_text(encoding="utf-8"), references.name)]:
        starts = [match.start() for match in ENTRY.finditer(text)] + [len(text)]
        for at, end in pairwise(starts):
            yield ENTRY.match(text, at).group(2), text[at:end].strip(), place


def duplicate_keys(book: Path, references: Path) -> Iterator[str]:
    """Each BibTeX key that two different entries share; one entry may be shown on several pages."""
    found = defaultdict(dict)
    for key, text, place in entries(book, references):
        found[key].setdefault(text, []).append(place)
    for key, texts in found.items():
        places = [place for each in texts.values() for place in each]
        if len(texts) > 1 or places.count(references.name) > 1:
            yield f"BibTeX key {key} is of {max(len(texts), 2)} entries: {', '.join(dict.fromkeys(places))}"
