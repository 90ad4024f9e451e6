"""Fonts of formulas and icons as data, for Firefox on files; no other browser asks for them."""

import base64
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def companion_local():
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        import companion_local

        yield companion_local
    finally:
        sys.path.pop(0)


@pytest.fixture
def static(tmp_path) -> Path:
    """The static files of a site, as far as fonts are named there: the real MathJax and the real theme."""
    import pydata_sphinx_theme

    mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
    (tmp_path / "mathjax").symlink_to(mathjax)
    for name in ("styles", "vendor"):
        (tmp_path / name).symlink_to(theme / name)
    return tmp_path


def test_every_font_that_pages_name_is_in_the_script(companion_local, static):
    text = companion_local.script(static)
    given = json.loads(re.search(r"of (\[\[.*\]\])\) document", text)[1])
    named = (static / "mathjax/tex-chtml.js").read_text(encoding="utf-8")
    maths = set(re.findall(r"MathJax_[\w-]+\.woff", named))
    icons = set(
        re.findall(
            r"fa-[\w-]+\.woff2", (static / "styles/pydata-sphinx-theme.css").read_text(encoding="utf-8")
        )
    )
    assert len(given) == len(maths) + len(icons) and len(maths) > 15 and icons
    for name, _, data in given:
        assert re.fullmatch(r"MJX(ZERO|TEX[\w-]*)|Font Awesome 6 (Free|Brands)", name)
        assert base64.b64decode(data.partition(",")[2])[:4] in (b"wOFF", b"wOF2")
    assert {weight for name, weight, _ in given if name == "Font Awesome 6 Free"} == {"400", "900"}


def test_pages_ask_for_it_in_firefox_on_files_alone(companion_local):
    assert 'location.protocol === "file:"' in companion_local.ASK and '"Firefox"' in companion_local.ASK
    assert f"_static/{companion_local.FILE}" in companion_local.ASK


def test_the_site_has_it(built):
    book = built / "build/book"
    assert (book / "_static/local_fonts.js").is_file()
    assert "local_fonts.js" in (book / "notebooks/alpha.html").read_text()
