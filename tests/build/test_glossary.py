"""Definitions of terms stand hidden on the pages that use them, as descriptions of the links to the glossary."""

import io
from pathlib import Path

import pytest
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
GLOSSARY = """# Words

```{glossary}
critic
judge
  Who rates a *response*, <or> two.

  A second paragraph.

norm
  The length $|x|$.
```
"""
PAGE = "# Page\n\nA {term}`critic` and {term}`the judge <judge>`, a {term}`critic` again.\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the two pages; (folder of the site, warnings)."""
    folder, said = tmp_path_factory.mktemp("glossary"), io.StringIO()
    source, out = folder / "source", folder / "out"
    source.mkdir()
    (source / "words.md").write_text(GLOSSARY, encoding="utf-8")
    (source / "index.md").write_text(PAGE, encoding="utf-8")
    settings = {
        "extensions": ["myst_parser", "companion_glossary"],
        "myst_enable_extensions": ["dollarmath"],
        "html_static_path": [str(ROOT / "book/_static")],
        "html_theme": "basic",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book/_ext"))
        app = Sphinx(source, None, out, folder / "trees", "html", settings, status=None, warning=said)
        app.build()
    return out, said.getvalue()


def test_definitions_describe_links(built):
    page = (built[0] / "index.html").read_text(encoding="utf-8")
    assert page.count('class="reference internal term"') == 3
    assert page.count('href="words.html#term-critic" aria-describedby="about-term-critic"') == 2
    hidden = page.partition("<div hidden>")[2].partition("</div>")[0]
    assert '<p id="about-term-critic">Who rates a response, &lt;or&gt; two.</p>' in hidden
    assert hidden.count("<p id=") == 2, "each definition once, and only those used"
    assert "second paragraph" not in hidden


def test_script_is_local(built):
    page = (built[0] / "index.html").read_text(encoding="utf-8")
    assert 'src="_static/glossary.js' in page
    script = (built[0] / "_static/glossary.js").read_text(encoding="utf-8")
    assert "http" not in script


def test_maths_in_a_definition_is_said(built):
    assert "'norm' is shown as plain text" in built[1]
