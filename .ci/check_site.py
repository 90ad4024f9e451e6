"""Check the built site as a browser sees it: pages, links, console, requests, maths, figures, access.

`.venv/bin/python .ci/check_site.py [build/book]` prints each finding on a line and fails if there is any;
`--positions` also prints how far down each page its first figure begins, and what the site weighs. Layout is measured in `layout.py`, weight
in `weight.py`.
Nothing outside the site is requested; links that leave it are not followed.
"""

import argparse
import functools
import http.server
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import layout
import weight

from ica.build import notebooks, site
from ica.build.browser import FLAGS, chromium

CHROMIUM = chromium()
THEMES, WIDTHS = ("light", "dark"), (1280, 390)
# Rules that the theme itself breaks, each with the reason why it stays.
BASELINE = {
    "region": "the theme puts its skip link and buttons outside of landmarks",
    "aria-required-children": "the bibliography is a list whose items are citation boxes (docutils)",
    "aria-allowed-role": "docutils gives each citation box the role doc-biblioentry",
    "aria-deprecated-role": "docutils gives each citation box the role doc-biblioentry",
}
MATHS = "() => [...document.querySelectorAll('.math')].length"
ERRORS = (
    "() => [...document.querySelectorAll('mjx-merror')].map(e => e.closest('.math, p')?.innerText || '?')"
)
UNSET = "() => document.querySelectorAll('.math').length > 0 && !document.querySelector('mjx-container')"
LOADED = """() => Promise.all([...document.querySelectorAll('article img')].filter(i => i.offsetParent !== null)
    .map(i => { i.loading = 'eager'; return i.decode().catch(() => {}); }))"""
IMAGES = """() => [...document.querySelectorAll('article img')].filter(i => i.offsetParent !== null)
    .filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.getAttribute('src'))"""
FIGURES = """() => [...document.querySelectorAll('figure.recorded:not(.live)')].filter(f =>
    [...f.querySelectorAll('img')].filter(i => i.offsetParent !== null).length !== 1).map(f => f.id)"""
FADED = """() => document.getAnimations().forEach(one => {
    try { one.finish(); } catch { /* one without end */ } })"""
LOOSE = "() => document.querySelectorAll('.cell_output img').length"
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
FREE = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"


class Links(HTMLParser):
    """Anchors that a page offers, and addresses that it points to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors, self.targets = {""}, []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        self.anchors.update(given[key] for key in ("id", "name") if given.get(key))
        self.targets += [given[key] for key in ("href", "src") if given.get(key)]
        if tag == "meta" and (given.get("http-equiv") or "").lower() == "refresh":
            self.targets.append(given["content"].partition("url=")[2])


def broken_links(book: Path) -> Iterator[str]:
    """Each address inside the site, of a page or an anchor, that leads nowhere."""
    pages = {
        page.resolve(): Links(page) for page in sorted(book.rglob("*.html")) if "_static" not in page.parts
    }
    for page, links in pages.items():
        for target in sorted(set(links.targets)):
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = (page.parent / unquote(url.path)).resolve() if url.path else page
            anchors = pages[file].anchors if file in pages else None
            if not file.is_file():
                yield f"{page.relative_to(book)}: broken link {target}"
            elif url.fragment and anchors is not None and unquote(url.fragment) not in anchors | {"top"}:
                yield f"{page.relative_to(book)}: broken anchor {target}"


def missing_pages(book: Path, names: list[str]) -> Iterator[str]:
    for name in names:
        file = book / f"{name}.html"
        if not file.is_file() or site.words(file) < 5:
            state = "empty" if file.is_file() else "missing"
            yield f"{name}: listed in _toc.yml, but the built page is {state}"


@contextmanager
def served(book: Path) -> Iterator[str]:
    """The site over http, as long as the block runs; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # the browser left a page before it had all files

    handler = functools.partial(Quiet, directory=str(book))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Visit:
    """A browser page that notes console errors, failed and external requests."""

    def __init__(self, browser: Browser, base: str) -> None:
        self.base, self.found = base, []
        self.context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
        self.page: Page = self.context.new_page()
        self.page.on("console", self.console)
        self.page.on("pageerror", lambda error: self.note(f"script error: {error}"))
        self.page.on("request", self.request)
        self.page.on("requestfailed", self.failed)
        self.page.on(
            "response", lambda r: self.note(f"status {r.status}: {r.url}") if r.status >= 400 else None
        )
        self.where = ""

    def note(self, what: str) -> None:
        self.found.append(f"{self.where}: {what}")

    def console(self, message: object) -> None:
        """Errors; but the forwarding page names no icon, and a browser that asks for one on its own is no finding."""
        asked = str(message.location.get("url", ""))
        if message.type == "error" and not asked.endswith("/favicon.ico"):
            self.note(f"console {message.type}: {message.text}")

    def request(self, request: object) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.note(f"external request: {request.url}")

    def failed(self, request: object) -> None:
        if request.failure != "net::ERR_ABORTED":  # given up because the next page was opened
            self.note(f"request failed: {request.url}")

    def open(self, name: str) -> None:
        self.where = f"{name} ({urlsplit(self.base).scheme})"
        self.page.goto(f"{self.base}/{name}", wait_until="load")
        self.page.evaluate(FREE)

    def forwarded(self, name: str, target: str) -> None:
        """The first address leads on to the first page."""
        self.where = name
        self.page.goto(f"{self.base}/{name}")
        self.page.wait_for_url(f"**/{target}.html", timeout=10_000)

    def theme(self, name: str) -> None:
        self.page.evaluate("name => { document.documentElement.dataset.theme = name; }", name)
        self.page.wait_for_timeout(300)  # colours fade over, on a slow machine later than that
        self.page.evaluate(FADED)

    def content(self) -> None:
        """Maths and, in both themes, figures of the open page."""
        for text in self.page.evaluate(ERRORS):
            self.note(f"broken maths: {text[:80]}")
        if self.page.evaluate(UNSET):
            self.note("maths is not set")
        if loose := self.page.evaluate(LOOSE):
            self.note(f"{loose} drawings without a caption among the outputs of cells")
        for theme in THEMES:
            self.theme(theme)
            self.page.evaluate(LOADED)
            for image in self.page.evaluate(IMAGES):
                self.note(f"image not shown in the {theme} theme: {image}")
            for figure in self.page.evaluate(FIGURES):
                self.note(f"figure {figure} shows not exactly one drawing in the {theme} theme")

    def narrow(self) -> None:
        """On a phone the page itself does not scroll sideways."""
        self.page.set_viewport_size({"width": WIDTHS[1], "height": 844})
        self.page.wait_for_timeout(300)  # the sidebar slides out
        if (extra := self.page.evaluate(WIDE)) > 0:
            self.note(f"page is {extra} px wider than a screen of {WIDTHS[1]} px")
        self.page.set_viewport_size({"width": WIDTHS[0], "height": 900})

    def access(self, axe: Axe) -> None:
        """Violations of accessibility rules, in both themes, beyond the baseline."""
        for theme in THEMES:
            self.theme(theme)
            for rule in axe.run(self.page, options={"preload": False}).response["violations"]:
                if rule["id"] not in BASELINE:
                    where = rule["nodes"][0]["html"][:100]
                    self.note(f"{theme}: axe {rule['id']} ({len(rule['nodes'])}x): {rule['help']}: {where}")

    def search(self, word: str) -> None:
        self.open(f"search.html?q={word}")
        try:
            self.page.wait_for_selector("ul.search li", timeout=10_000)
        except Exception:  # noqa: BLE001 - a time-out is the finding
            self.note(f"search for {word!r} finds nothing")
        self.page.wait_for_timeout(500)

    def shoot(self, folder: Path, name: str) -> None:
        for theme in THEMES:
            for width in WIDTHS:
                self.page.set_viewport_size({"width": width, "height": 900})
                self.theme(theme)  # waits longer than the 0.25 s in which the sidebar slides in or out
                self.page.evaluate(LOADED)
                path = folder / f"{Path(name).stem}-{theme}-{width}.png"
                self.page.screenshot(path=path, full_page=True, animations="disabled")
        self.page.set_viewport_size({"width": WIDTHS[0], "height": 900})


def browse(
    book: Path, names: list[str], ends: tuple[str, str], over_http: bool, shots: Path | None
) -> list[str]:
    """Findings of a visit to the pages `names`, over http or from disk, in a browser of its own.

    `ends`: the page that the first address leads to, and a word to search for. What does not hang on how a page came is looked at over http only.
    """
    with sync_playwright() as playwright, served(book) as address:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        visit = Visit(browser, address if over_http else book.as_uri())
        visit.forwarded("index.html", ends[0])
        for name in (f"{name}.html" for name in names):
            visit.open(name)
            visit.content()
            if over_http:
                visit.narrow()
                visit.access(Axe())
                if shots:
                    visit.shoot(shots, name)
        visit.search(ends[1])
        browser.close()
    return visit.found


def measured(book: Path, names: list[str]) -> layout.Layout:
    """Layout of every page, from disk, in a browser that shows its scrollbars."""
    with sync_playwright() as playwright:
        hidden = ["--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, ignore_default_args=hidden)
        try:
            return layout.measure(browser, book.resolve().as_uri(), names)
        finally:
            browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the built site.")
    parser.add_argument("book", type=Path, nargs="?", default=Path("build/book"))
    parser.add_argument("--screenshots", type=Path, help="save every page here, both themes, wide and narrow")
    parser.add_argument("--positions", action="store_true", help="print where the first figures begin")
    options = parser.parse_args()
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    book = options.book.resolve()
    names = list(dict.fromkeys(notebooks.pages(Path.cwd())))
    found = [*missing_pages(book, names), *broken_links(book)]
    static = bool(found)
    with ProcessPoolExecutor(2) as pool:  # two browsers at a time
        measuring = pool.submit(measured, book, [name for name in names if (book / f"{name}.html").is_file()])
        if not static:
            ends = names[0], re.sub(r"\W.*", "", Path(names[-1]).name) or "claims"
            parts = [(names[::2], ends, True), (names[1::2], ends, True), (names, ends, False)]
            visits = [pool.submit(browse, book, *part, options.screenshots) for part in parts]
            found += [finding for visit in visits for finding in visit.result()]
        pages = measuring.result()
    if options.positions or not static:
        found += pages.findings
        if options.positions:
            print(layout.shown(pages), weight.shown(book), sep="\n")
    found += [*layout.duplicate_keys(book, ROOT / "book" / "references.bib"), *weight.findings(book)]
    for line in dict.fromkeys(found):
        print(line)
    print(f"Site check: {len(names)} pages, {len(set(found))} findings.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
