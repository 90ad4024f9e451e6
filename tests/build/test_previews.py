"""What a link leads to stands hidden on its page: terms, equations, theorems and references; a script shows it, from disk."""

import io
import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
WORDS = """# Words

```{glossary}
critic
judge
  Who rates a *response*, \\<or> two, $|x|$ long.

  A second paragraph.
```

(sum)=
## Sums

$$a + b = c$$ (eq-sum)

```{prf:theorem} Sums
:label: thm-sum
The sum of {term}`critic` and $b$ is $c$, after {eq}`eq-sum` and {cite}`one`.

$$a < c$$
```

```{bibliography}
```
"""
PAGE = """# Page

A {term}`critic` and {term}`the judge <judge>`, a {term}`critic` again; {eq}`eq-sum`, {prf:ref}`thm-sum`, {cite}`one`, {ref}`sum`.

$$q = 1$$ (eq-own)

From {eq}`eq-own`.

```{toctree}
sub/words
```
"""
BIB = "@misc{one, title = {A <b>title</b>}, author = {Author, A.}, year = {2020}}\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build the two pages; the folder of the site."""
    folder, said = tmp_path_factory.mktemp("previews"), io.StringIO()
    source, out = folder / "source", folder / "out"
    source.mkdir()
    (source / "sub").mkdir()
    (source / "sub/words.md").write_text(WORDS, encoding="utf-8")
    (source / "index.md").write_text(PAGE, encoding="utf-8")
    (source / "one.bib").write_text(BIB, encoding="utf-8")
    settings = {
        "extensions": ["myst_parser", "sphinx_proof", "sphinxcontrib.bibtex", "companion_previews"],
        "myst_enable_extensions": ["dollarmath"],
        "bibtex_bibfiles": ["one.bib"],
        "html_static_path": [str(ROOT / "book/_static")],
        "html_theme": "basic",
        "mathjax_path": "none.js",
        "numfig": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book/_ext"))
        app = Sphinx(source, None, out, folder / "trees", "html", settings, status=None, warning=said)
        app.build()
    return out


@pytest.fixture(scope="module")
def page(built) -> str:
    return (built / "index.html").read_text(encoding="utf-8")


def hidden(markup: str) -> str:
    return markup.partition('<div class="previews" hidden>')[2].partition("</body>")[0]


def test_links_have_what_they_lead_to_as_their_description(page):
    described = dict(re.findall(r'<a class="[^"]*" href="([^"]+)" aria-describedby="([^"]+)">', page))
    assert len(described) == 6 and page.count("aria-describedby=") == 7, "of two links to one term both"
    for target in ("sub/words.html#term-critic", "sub/words.html#equation-eq-sum", "#equation-eq-own"):
        assert described[target]
    for about in described.values():
        assert hidden(page).count(f'<div id="{about}">') == 1
    assert 'href="sub/words.html#sum"' in page, "a section is no preview, and its link stays"


def test_each_is_there_once_and_whole_and_holds_no_link_nor_second_id(page):
    text = hidden(page)
    assert "Who rates a <em>response</em>, &lt;or&gt; two," in text and "second paragraph" not in text
    theorem = text.partition("Theorem")[2]
    assert r"\[a &lt; c\]" in theorem and "after" in theorem
    assert text.count(r"\[a + b = c\]") == 1 and text.count(r"\[q = 1\]") == 1
    assert "A &lt;b&gt;title&lt;/b&gt;" in text or "A &lt;b&gt;" in text
    assert "<a" not in text and "headerlink" not in text
    assert set(re.findall(r'id="([^"]+)"', text)) == {one for one in re.findall(r'id="(about-[^"]+)"', text)}
    assert text.count("<div") == text.count("</div>") - 1, "its own end, and the box's"


def test_links_within_a_theorem_are_described_too(built):
    words = (built / "sub/words.html").read_text(encoding="utf-8")
    assert words.count("aria-describedby=") >= 3


def test_script_is_local(page, built):
    assert 'src="_static/previews.js' in page
    assert "http" not in (built / "_static/previews.js").read_text(encoding="utf-8")


@pytest.fixture
def browser_page(built):
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import check_site
    finally:
        sys.path.pop(0)
    if check_site.CHROMIUM is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=check_site.CHROMIUM, args=check_site.FLAGS)
        page = browser.new_page(has_touch=True)
        page.goto((built / "index.html").as_uri())
        yield page
        browser.close()


def test_shown_by_mouse_keyboard_and_touch_from_disk(browser_page):
    box, link = browser_page.locator(".preview-box"), browser_page.locator("a.seen").first
    link.hover()
    assert "a + b = c" in box.inner_text()
    browser_page.keyboard.press("Escape")
    assert box.is_hidden()
    browser_page.mouse.move(0, 0)
    browser_page.locator("a.term").first.focus()
    assert box.inner_text().startswith("Who rates a response, <or> two")
    browser_page.keyboard.press("Escape")
    theorem = browser_page.locator("a.seen[href$='thm-sum']")
    theorem.tap()
    assert "The sum of critic" in box.inner_text() and browser_page.url.endswith("index.html")
    theorem.tap()
    browser_page.wait_for_url("**/words.html#thm-sum")
