"""What a reader finds: exercises on each page, claims of prose that there are, figures in the gallery, a light site, print."""

import re
import sys
from pathlib import Path

import pytest

from ica.build import notebooks, stored
from ica.record import claims

ROOT = Path(__file__).parents[2]
NAMES = notebooks.listed(ROOT)
PROSE = sorted((ROOT / "book").glob("*.md"))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_ends_with_a_command_and_a_change_to_try(name):
    cells = [cell.source for cell in notebooks.read(ROOT, name).cells if cell.cell_type == "markdown"]
    words = cells[-1].partition("## Run it")[2]
    assert re.search(r"`(\.venv/bin/python -m ica\.build\.execute|make) ", words), "no command"
    change = re.search(r"(Try|Worth changing|One change worth trying)(.*)", words, re.DOTALL)
    assert change, "no change to try"
    assert re.search(r"[:;]", change[2]), "a change says, after a colon, what should happen"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_claims_of_the_prose_are_registered(path):
    registry = claims.load()
    for role, given in re.findall(r"\{(says|verdict|measured)\}`([^`]+)`", path.read_text(encoding="utf-8")):
        id, slash, part = given.partition("/")
        assert id in registry, f"{role} of {id}"
        assert not slash or part in registry[id].criteria, given


def test_every_rule_of_responsible_use_has_a_measurement():
    text = (ROOT / "book/use.md").read_text(encoding="utf-8")
    rules = re.findall(r"^- (.*)$", text, re.MULTILINE)
    assert len(rules) >= 10
    for rule in rules:
        assert "{verdict}" in rule or "{doc}`/notebooks/" in rule, rule
        assert rule.count("{says}") == rule.count("{verdict}"), f"each sentence with its verdict: {rule}"


# The gallery


def test_gallery_shows_each_figure_small_and_leads_to_it(built):
    alpha = (built / "build/book/notebooks/alpha.html").read_text()
    gallery = (built / "build/book/book/claims.html").read_text().partition('class="tile')[2]
    assert 'href="../notebooks/alpha.html#fig-alpha-curve"' in gallery
    assert re.search(
        r'<img class="only-dark" src="../_figures/alpha/alpha-curve.svg#dark" alt=""[^>]* loading="lazy"',
        gallery,
    )
    number = re.search(r'caption-number">Fig\. ([\d.]+)', alpha)[1]
    assert f"<span>Figure {number}</span>" in gallery
    first = gallery.partition("<p>")[2].partition("</p>")[0]
    assert first.startswith("The error falls with <span") and "Then" not in first, "the first sentence alone"


def test_page_on_how_it_is_made_lists_every_notebook(built):
    text = (built / "build/book/book/claims.html").read_text()
    assert re.search(r'<img [^>]*src="../_figures/workflow.svg"', text)
    assert (built / "build/book/_figures/workflow.dark.svg").is_file()
    assert "3 notebooks, " in text and "Nothing is stored." in text
    table = re.sub(r"<[^>]*>|\n", " ", text.partition("Peak memory of one, GiB")[2].partition("</table>")[0])
    jobs = re.search(r"notebooks +(\d+) .*? (\w+), \d", table)
    assert jobs[1] == "3" and jobs[2] in ("alpha", "beta", "gamma")


def test_stored_results_are_counted_with_their_time(tmp_path):
    for name, content in {
        "a/x.json": '{"provenance": {"seconds": 2.5, "hardware": {"cpu": "P"}}}',
        "a/y.json": '{"config": {"steps": 10}, "provenance": {"seconds": 2.5, "seconds_per_update": 1.0, "hardware": {"cpu": "Q"}}}',
        "a/y.safetensors": "12345",
        "b/z.json": '{"shards": [{"provenance": {"seconds": 1.0, "calls": {"seconds": 7.0}, "hardware": {"cpu": "P"}}}]}',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    one, two = stored.summary(tmp_path)
    assert (one["name"], one["files"], one["seconds"], one["longest"]) == ("a", 3, 12.5, 10.0)
    assert one["processors"] == ["P", "Q"] and one["bytes"] == sum(
        p.stat().st_size for p in (tmp_path / "a").iterdir()
    )
    assert two["seconds"] == 7.0


# Weight


@pytest.fixture
def weight(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    sys.modules.pop("weight", None)
    import weight

    return weight


def test_a_heavy_site_a_heavy_page_and_an_eager_figure_are_found(weight, tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    page = '<img src="../_figures/a/b.svg"{}>' + "x" * 200
    (tmp_path / "book/good.html").write_text(page.format(' loading="lazy"'))
    assert list(weight.findings(tmp_path)) == []
    (tmp_path / "book/bad.html").write_text(page.format(""))
    assert list(weight.findings(tmp_path)) == ["book/bad.html: image ../_figures/a/b.svg is not lazy"]
    monkeypatch.setattr(weight, "PAGE", 1e-4)
    monkeypatch.setattr(weight, "SITE", 1e-4)
    found = list(weight.findings(tmp_path))
    assert found[0].startswith("the site has 0.0 MB") and sum("without images" in one for one in found) == 2


def test_built_figures_are_lazy(built, weight):
    assert [one for one in weight.findings(built / "build/book") if "lazy" in one] == []


def test_the_style_for_paper_hides_what_only_a_screen_needs():
    css = (ROOT / "book/_static/companion.css").read_text(encoding="utf-8").partition("@media print")[2]
    for name in (".bd-header-article", ".bd-sidebar-primary", ".preview-box", "details.cite"):
        assert name in css.partition("display: none")[0]
