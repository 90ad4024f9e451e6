"""How to cite: BibTeX entries, the files that archives read, and what a page says of itself in its head."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes
from sphinx.errors import ExtensionError

from ica.build import site

ROOT = Path(__file__).parents[2]
RUN = {"commit": "0123abc", "dirty": False, "versions": {"ica": "0.1.0"}, "notebook": "demo", "profile": "ci"}
RUN |= {"started": "2026-11-28T00:00:00"}
ABOUT = {"id": "a-curve", "title": "A curve & 5%", "provenance": RUN}
PEOPLE = [{"family-names": "Doe", "given-names": "Jane", "name-particle": "van"}, {"name": "The Group"}]
CITED = {"title": "A book", "authors": PEOPLE}


@pytest.fixture(scope="module")
def extension():
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        import companion_bibtex
        import companion_cite
        import companion_head

        yield SimpleNamespace(bibtex=companion_bibtex, cite=companion_cite, head=companion_head)
    finally:
        sys.path.pop(0)


def test_entry_names_authors_commit_and_only_known_addresses(extension):
    entry = extension.bibtex.recorded("fig", "Figure", ABOUT, CITED)
    assert entry.startswith("@misc{ica-fig-a-curve,\n  author = {van Doe, Jane and {The Group}},\n")
    assert r"title = {{A curve \& 5\%}}" in entry and "howpublished = {A book}" in entry
    assert "Figure a-curve of notebook demo, version 0.1.0, commit 0123abc, profile ci" in entry
    assert "url" not in entry and "doi" not in entry
    known = CITED | {"doi": "10.1/2", "url": "https://x.org"}
    entry = extension.bibtex.recorded("tab", "Table", ABOUT, known, "3.1")
    assert entry.startswith("@misc{ica-tab-a-curve,") and "{Table 3.1 (a-curve) of notebook demo" in entry
    assert "related = {ica-companion},\n  doi = {10.1/2},\n  url = {https://x.org}\n}" in entry
    entry = extension.bibtex.recorded("fig", "Figure", ABOUT, known, "3.1", "https://book.org/a#b")
    assert "url = {https://book.org/a#b}" in entry, "the figure's own address, where the book has one"


def test_the_companion_is_software_and_the_parent(extension):
    entry = extension.bibtex.companion(CITED | {"license": ["MIT", "CC-BY-4.0"]}, RUN)
    assert entry.startswith("@software{ica-companion,\n  author = {van Doe, Jane and {The Group}},\n")
    assert "year = {2026}" in entry and "license = {MIT, CC-BY-4.0}" in entry and "url" not in entry
    released = extension.bibtex.companion(CITED | {"date-released": "2027-01-02"}, RUN, "https://book.org/")
    assert "year = {2027}" in released and "url = {https://book.org/}" in released


def test_the_entry_of_a_claim_has_its_verdict_and_its_maths(extension):
    row = {
        "id": "a-b",
        "notebook": "demo",
        "verdict": "open",
        "statement": "The {term}`step` is $x^2$, *at 5 %*.",
    }
    entry = extension.bibtex.claim(row, "0.1 [0, 1]", RUN, CITED)
    assert entry.startswith("@misc{ica-claim-a-b,") and r"title = {{The step is $x^2$, at 5 \%.}}" in entry
    assert "Claim a-b of notebook demo: open (0.1 [0, 1]), version 0.1.0" in entry
    odd = extension.bibtex.claim(row | {"statement": "Costs $5 {"}, "", RUN, CITED)
    assert r"title = {{Costs \$5 \textbraceleft{}}}" in odd


def test_two_records_with_one_key_stop_the_build(extension, tmp_path):
    for place in ("one/figures/x.json", "one/tables/x.json", "two/figures/y.json"):
        path = tmp_path / "_record" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    app = SimpleNamespace(srcdir=str(tmp_path))
    extension.cite.check_keys(app)  # a figure and a table may share an id
    (tmp_path / "_record" / "two" / "figures" / "x.json").write_text("{}")
    with pytest.raises(ExtensionError, match="ica-fig-x is of figures/x of one and of figures/x of two"):
        extension.cite.check_keys(app)


# What archives read


def test_citation_files_agree():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    meta = json.loads((ROOT / "codemeta.json").read_text())
    names = [one.get("name") or f"{one['family-names']}, {one['given-names']}" for one in cited["authors"]]
    assert [one["name"] for one in zenodo["creators"]] == names == [one["name"] for one in meta["author"]]
    assert zenodo["title"] == meta["name"] == cited["title"]
    assert zenodo["version"] == meta["version"] == cited["version"]
    assert zenodo["keywords"] == meta["keywords"] == cited["keywords"]
    assert meta["license"] == [f"https://spdx.org/licenses/{name}" for name in cited["license"]]
    assert zenodo["license"] == cited["license"][0]
    (paper,) = cited["references"]
    (identifier,) = (one["value"] for one in paper["identifiers"])
    assert meta["referencePublication"]["name"] == paper["title"]
    assert (
        meta["referencePublication"]["identifier"]
        == identifier
        == zenodo["related_identifiers"][0]["identifier"]
    )
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert meta["runtimePlatform"] == f"Python {python}"


# What a page says of itself


def test_description_is_question_and_first_answer(extension):
    maths = nodes.math("", r"\hat y^{2}")
    question = nodes.container(
        "", nodes.paragraph("", "", nodes.strong("", "Question. "), nodes.Text("Is it?"))
    )
    head = nodes.paragraph("", "", nodes.strong("", "Answer"))
    answer = nodes.container("", head, nodes.bullet_list())
    said = nodes.paragraph("", "", nodes.Text("Yes, "), maths, nodes.Text("."))
    answer[1] += [nodes.list_item("", said), nodes.list_item("", nodes.paragraph("", "More."))]
    question["classes"], answer["classes"] = ["question"], ["answer"]
    page = nodes.section("", nodes.paragraph("", "Words before, many of them."), question, answer)
    assert extension.head.description(page) == "Is it? Yes, hat y^2."
    assert extension.head.description(nodes.section("", page[0])) == "Words before, many of them."
    answer[0] = nodes.paragraph("", "", nodes.strong("", "Answer."), nodes.Text(" It is."))
    assert extension.head.description(page) == "Is it? It is."
    long = "One sentence that goes on. " * 20
    assert extension.head.cut(long).endswith("goes on.") and len(extension.head.cut(long)) <= 300
    assert extension.head.cut("word" * 10 + " word" * 80).endswith(" word…")


HEAD = r'<meta (?:name|property)="([a-z_:]+)" content="([^"]*)"'


def test_pages_have_tags_and_no_address_that_is_not_known(built):
    text = (built / "build/book/notebooks/alpha.html").read_text()
    found = re.findall(HEAD, text.partition("</head>")[0])
    tags = dict(found)
    assert tags["description"] == "Is x^2 small? The number x^2 is small, 1.0. (supported)"
    assert tags["og:title"].endswith("Page alpha") and tags["citation_title"] == tags["og:title"]
    assert tags["citation_author"] == "The authors of the in-context alignment companion"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d", tags["citation_publication_date"])
    assert not {"og:image", "og:url", "citation_public_url"} & set(tags) and 'rel="canonical"' not in text
    for page in ("book/intro", "book/claims", "notebooks/beta"):
        head = (built / f"build/book/{page}.html").read_text().partition("</head>")[0]
        assert dict(re.findall(HEAD, head)).get("description"), page


def test_entries_have_the_number_that_the_page_shows(built):
    text = (built / "build/book/notebooks/alpha.html").read_text()
    number = re.search(r'caption-number">Fig\. ([\d.]+)', text)[1]
    assert f"Figure {number} (alpha-curve) of notebook alpha" in text


def test_one_file_holds_every_entry_once(built):
    text = (built / "build/book/_bib/companion.bib").read_text()
    keys = re.findall(r"^@(\w+)\{([^,]+),$", text, re.MULTILINE)
    assert keys[0] == ("software", "ica-companion") and len({key for _, key in keys}) == len(keys)
    names = {key for _, key in keys}
    assert {
        "ica-fig-alpha-curve",
        "ica-tab-alpha-table",
        "ica-claim-alpha-up",
        "ica-claim-gamma-none",
    } <= names
    assert text.count("{") == text.count("}")
    assert "supported (0.50 [0.30, 0.70] (5 seeds, 64 prompts), criterion above 0 by 0.1)" in text


# Addresses


def test_with_addresses_pages_name_them(extension, monkeypatch):
    page = nodes.section("", nodes.paragraph("", "Words before, many of them."))
    picture = extension.head.recorded_images(images=[{"src": "../_figures/demo/a-curve.svg"}])
    page += picture
    app = SimpleNamespace(config=SimpleNamespace(html_baseurl="https://book.org/"))
    monkeypatch.setattr(extension.head, "latest", lambda app: RUN)
    tags = {name: words for _, name, words in extension.head.tags(app, "notebooks/demo", "Demo", page)}
    assert tags["og:image"] == "https://book.org/_figures/demo/a-curve.png"
    assert tags["og:url"] == tags["citation_public_url"] == "https://book.org/notebooks/demo.html"


@pytest.mark.parametrize(
    "remote, address",
    [
        ("https://github.com/a/b.git", "https://github.com/a/b"),
        ("git@gitlab.com:a/b.git", "https://gitlab.com/a/b"),
        ("https://user:secret@github.com/a/b", "https://github.com/a/b"),
        ("/a/folder", ""),
        ("https://git.example.org/a/b", ""),
        ("https://github.com.example.org/a/b", ""),
        (None, ""),
    ],
)
def test_origin_counts_where_it_is_public(tmp_path, remote, address):
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.org"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    if remote:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    assert site.origin(tmp_path) == address
