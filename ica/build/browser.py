"""The headless Chromium that checks and prints the site; it asks for nothing outside."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def chromium() -> str | None:
    """Path of the first of NAMES that there is; None without one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def needed() -> str:
    """As `chromium`; ValueError that says what to install where it, or what steers it and reads its files, is missing."""
    for name in ("playwright", "pypdf"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"Python's package {name} is missing; `make` installs it into .venv")
    if (path := chromium()) is None:
        raise ValueError(
            f"Chromium is missing: none of {', '.join(NAMES)} is on PATH; install it (on Debian: apt-get install chromium)"
        )
    return path


@contextmanager
def opened(width: int, height: int) -> Iterator[object]:
    """A page of a new Chromium, `width` by `height` CSS pixels, as long as the block runs; ValueError as `needed` says, or where Chromium fails."""
    path = needed()
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            try:
                yield browser.new_page(viewport={"width": width, "height": height})
            finally:
                browser.close()
        except Error as error:
            raise ValueError(f"Chromium fails: {error.message.strip().splitlines()[0]}") from error
