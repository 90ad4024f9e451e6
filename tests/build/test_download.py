"""A downloaded notebook reads well in plain Jupyter: no markup of the book is left, numbers and verdicts are in their places."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from ica.build import download, notebooks

ROOT = Path(__file__).parents[2]
ROW = {"notebook": "demo", "says": "It {term}`falls <fall>` to $x$.", "verdict": "mixed"}
ROW |= {"outcomes": {"n = 2": "supported", "n = 3": "open"}, "order": ["n = 2", "n = 3"]}
ROW |= {
    "measurement": {
        "parts": {"n = 2": {"value": 0.5, "interval": [0.25, 0.75]}, "n = 3": {"value": 2, "interval": None}}
    }
}
KNOWN = download.Known({"a-b": ROW}, {"demo": {"k": 0.125}, "other": {"t": "words"}})
ONLINE = download.Known(KNOWN.claims, KNOWN.numbers, "https://book.org/", "https://github.com/a/b")


class Anything(download.Known):
    """Knows something of every claim and number."""

    def verdict(self, text):
        return "open"

    def says(self, id):
        return "It is so."

    def short(self, options, ids):
        return "Yes."

    def measured(self, text):
        return "0.5"

    def number(self, notebook, text):
        return "1"


@pytest.mark.parametrize("name", notebooks.listed(ROOT))
def test_no_markup_of_the_book_is_left(name):
    page = download.plain(notebooks.read(ROOT, name), name, Anything({}, {}))
    nbformat.validate(page)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            assert not re.search(
                r"\{[a-z:-]+\}`|[`:]{3}\{|^:[a-z-]+:|^\([\w-]+\)=$", cell.source, re.MULTILINE
            ), cell.source
            assert cell.source.count("```") % 2 == 0


@pytest.mark.parametrize(
    "text, shown",
    [
        ("{verdict}`a-b` {verdict}`a-b/n = 3`", "**[mixed]** **[open]**"),
        ("{says}`a-b`", "It falls to $x$."),
        ("{measured}`a-b/n = 2`, {measured}`a-b/n = 3`", "0.50 [0.25,\u00a00.75], 2"),
        ("{glue:text}`k:.2f` {glue:text}`/notebooks/other.ipynb::t:s`", "0.12 words"),
        ("{doc}`floor` {doc}`this page </book/claims>`", "*floor* *this page*"),
        (
            "{cite}`key` {eq}`eq-x` {numref}`fig-a` {prf:ref}`thm-b` {ref}`there <c>`",
            "[key] (eq-x) `fig-a` `thm-b` there",
        ),
        ("(panel-a)=\n# Panel", "# Panel"),
        ("```{math}\n:label: eq-m\nx^2\n```", "$$\nx^2\n$$ (eq-m)"),
        (
            "````{admonition} Proof\n:class: dropdown\nA.\n\n```{prf:lemma} Name\n:label: l\nB.\n```\n````",
            "**Proof**\n\nA.\n\n**Lemma (Name).** B.",
        ),
        (
            "```{answer} a-b\nOnly {verdict}`a-b`.\n```",
            "**Answer**\n\n- It falls to $x$. **[mixed]**\n\nOnly **[mixed]**.",
        ),
        ("```{recorded-figure} a-curve\n:alt: A curve\nIt falls.\n```", "*Figure `a-curve`.* It falls."),
        ("```{verdicts}\n```", "- `a-b`: It falls to $x$. **[mixed]**"),
    ],
)
def test_markup_becomes_text(text, shown):
    assert download.markdown(text, "demo", KNOWN) == shown


def test_with_addresses_there_are_links_and_pictures():
    text = "```{recorded-figure} a-curve\n:alt: A\nIt falls.\n```\n\n{doc}`floor` {doc}`c </book/claims>`"
    shown = download.markdown(text, "demo", ONLINE)
    assert "![a-curve](https://book.org/_figures/demo/a-curve.png)" in shown
    assert shown.endswith(
        "[floor](https://book.org/notebooks/floor.html) [c](https://book.org/book/claims.html)"
    )


def test_a_claim_that_no_run_recorded_is_an_error():
    with pytest.raises(KeyError, match="none"):
        download.markdown("{says}`none`", "demo", KNOWN)


@pytest.mark.parametrize(
    "known, where", [(KNOWN, "with the repository:"), (ONLINE, "(https://github.com/a/b)")]
)
def test_the_first_cell_says_where_ica_comes_from(known, where):
    page = download.plain(new_notebook(cells=[new_markdown_cell("# A", id="a")]), "demo", known)
    assert [cell.cell_type for cell in page.cells] == ["markdown", "code"]
    command = [sys.executable, "-I", "-S", "-c", page.cells[1].source]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: This notebook needs the package `ica`") and where in last


def test_in_colab_the_first_cell_fetches_and_installs_the_repository(tmp_path):
    origin = tmp_path / "it's origin"
    (origin / "ica").mkdir(parents=True)
    (origin / "ica/__init__.py").touch()
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    (tmp_path / "pip/__main__.py").write_text(
        "import sys\nopen('asked', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
    )
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=origin, check=True)
    known = download.Known({}, {}, repository=str(origin))
    cell = download.plain(new_notebook(cells=[new_markdown_cell("# A", id="a")]), "demo", known).cells[1]
    command = [sys.executable, "-S", "-c", f"{cell.source}\nprint(ica.__file__)"]
    there = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "COLAB_RELEASE_TAG": "release"}
    for _ in range(2):  # a second run of the cell finds the clone
        done = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == str(tmp_path / "ica-companion/ica/__init__.py"), done.stderr
    asked = f"install --quiet --editable {tmp_path / 'ica-companion'}"
    assert (tmp_path / "asked").read_text().splitlines() == [asked] * 2


def test_the_site_offers_it(built):
    page = nbformat.read(built / "build/book/_sources/notebooks/alpha.ipynb", as_version=4)
    nbformat.validate(page)
    words = "\n".join(cell.source for cell in page.cells)
    assert (
        "**Question.** Is $x^2$ small?" in words
        and "The number $x^{2}$ is small, 1.0. **[supported]**" in words
    )
    assert page.cells[1].id == "needs-ica" and not any(cell.get("outputs") for cell in page.cells)
