"""The site check's measurements, on small pages in a real browser where there is one; and BibTeX keys."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = "word " * 400
PAGE = """<html><body style="margin:0"><article style="width:600px; padding:0 20px">
<figure class="recorded" style="display:none"></figure><div style="height:{high}px"></div>
<figure class="recorded">a figure</figure>
<details><div class="highlight" style="overflow:hidden"><pre style="{pre}">{words}</pre></div></details>
<div style="{box}"><table style="width:{wide}px"><tr><td>cell</td></tr></table></div>
<div style="{maths}"><mjx-container display="true" style="display:block; white-space:nowrap">x {words}</mjx-container></div>
</article></body></html>"""
GOOD = {
    "high": 100,
    "pre": "overflow-x:auto",
    "box": "overflow-x:auto",
    "wide": 900,
    "maths": "overflow-x:auto",
}
BAD = {"high": 950, "pre": "", "box": "", "wide": 625, "maths": "overflow-x:clip"}


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import check_site

        yield check_site
    finally:
        sys.path.pop(0)


def test_pages_that_fit_scroll_or_are_cut(check, tmp_path):
    if check.CHROMIUM is None:
        pytest.skip("no Chromium here")
    (tmp_path / "notebooks").mkdir()
    for name, change in (("good", GOOD), ("bad", BAD)):
        (tmp_path / "notebooks" / f"{name}.html").write_text(PAGE.format(**change, words=WORDS))
    (tmp_path / "notebooks" / "bare.html").write_text("<article>words</article>")
    found = check.measured(tmp_path, [f"notebooks/{name}" for name in ("good", "bad", "bare")])
    assert found.positions["notebooks/good"] < 200 and found.positions["notebooks/bare"] is None
    assert found.scrolling == {
        f"{kind} at {width} px": 1
        for kind, width in (("code box", 1440), ("table", 1440), ("formula", 390), ("table", 390))
    }
    assert [finding.partition(": word")[0].partition(": x")[0] for finding in found.findings] == [
        f"notebooks/bad: the first figure begins {found.positions['notebooks/bad']} px down, beyond 900",
        "notebooks/bad: code box cut at 1440 px",
        "notebooks/bad: table cut at 1440 px: cell",
        "notebooks/bad: formula cut at 390 px",
        "notebooks/bad: table cut at 390 px: cell",
        "notebooks/bare: no recorded figure",
    ]
    assert "  none  notebooks/bare" in check.layout.shown(found)


def test_a_key_is_for_one_entry_that_may_be_shown_twice(check, tmp_path):
    entry = "<pre><span>@misc</span>{{<b>{}</b>,\n title = {{{}}}\n}}</pre>"
    references = tmp_path / "references.bib"
    references.write_text("@misc{alone, title={A}}\n@book{twice, title={B}}\n@book{twice, title={B}}\n")
    (tmp_path / "one.html").write_text(entry.format("same", "S") + entry.format("other", "O"))
    (tmp_path / "two.html").write_text(entry.format("same", "S") + entry.format("other", "another"))
    assert list(check.layout.duplicate_keys(tmp_path, references)) == [
        "BibTeX key other is of 2 entries: one.html, two.html",
        "BibTeX key twice is of 2 entries: references.bib",
    ]
