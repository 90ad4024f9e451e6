"""BibTeX entries of figures and tables: one key each, authors and addresses from CITATION.cff."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
RUN = {"commit": "0123abc", "dirty": False, "versions": {"ica": "0.1.0"}, "notebook": "demo", "profile": "ci"}
ABOUT = {"id": "a-curve", "title": "A curve & 5%", "provenance": RUN | {"started": "2026-11-28T00:00:00"}}


@pytest.fixture(scope="module")
def figures():
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        import companion_figures

        yield companion_figures
    finally:
        sys.path.pop(0)


def test_entry_names_authors_commit_and_only_known_addresses(figures):
    people = [{"family-names": "Doe", "given-names": "Jane", "name-particle": "van"}, {"name": "The Group"}]
    cited = {"title": "A book", "authors": people}
    entry = figures.bibtex("fig", "Figure", ABOUT, cited)
    assert entry.startswith("@misc{ica-fig-a-curve,\n  author = {van Doe, Jane and {The Group}},\n")
    assert r"title = {{A curve \& 5\%}}" in entry and "howpublished = {A book}" in entry
    assert "Figure a-curve of notebook demo, version 0.1.0, commit 0123abc, profile ci" in entry
    assert "url" not in entry and "doi" not in entry
    entry = figures.bibtex("tab", "Table", ABOUT, cited | {"doi": "10.1/2", "url": "https://x.org"})
    assert (
        entry.startswith("@misc{ica-tab-a-curve,") and "doi = {10.1/2},\n  url = {https://x.org}\n}" in entry
    )


def test_two_records_with_one_key_stop_the_build(figures, tmp_path):
    for place in ("one/figures/x.json", "one/tables/x.json", "two/figures/y.json"):
        path = tmp_path / "_record" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    app = SimpleNamespace(srcdir=str(tmp_path))
    figures.check_keys(app)  # a figure and a table may share an id
    (tmp_path / "_record" / "two" / "figures" / "x.json").write_text("{}")
    with pytest.raises(ExtensionError, match="ica-fig-x is of figures/x of one and of figures/x of two"):
        figures.check_keys(app)
