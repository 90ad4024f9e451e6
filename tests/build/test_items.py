"""The page of single items: texts are shown and never obeyed, filters and keys work from disk, three dialogues stand without scripts."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from sphinx.application import Sphinx

from ica.llm.analysis import dialogues
from ica.llm.protocol import results

ROOT = Path(__file__).parents[2]
EVIL = '<img src=x onerror="alert(1)"></script><b>{0}\u2028 *not bold*'


def some() -> tuple[results.Reading, dict]:
    """A stored model with six of its items in four categories, and texts for two of them, one hostile."""
    reading = results.stored()[0]
    age = [record for record in reading.records if record["category"] == "Age"][:3]
    others = {record["category"]: record for record in reading.records if record["category"] != "Age"}
    records = age + list(others.values())[:3]
    plain = ("A zebra and a quokka ran.", "Who ran?", ("The zebra", "Unknown", "The quokka"))
    texts = {age[0]["id"]: (EVIL, "Who </pre>?", ("<i>one</i>", EVIL, "two")), age[1]["id"]: plain}
    known = {one["id"]: dialogues.words(one, *texts[one["id"]]) for one in age if one["id"] in texts}
    return replace(reading, records=records), known


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The page as Sphinx builds it; the folder of the site."""
    folder, said, (reading, known) = tmp_path_factory.mktemp("items"), io.StringIO(), some()
    source = folder / "source"
    (source / "book").mkdir(parents=True)
    (source / "notebooks").mkdir()
    (source / "book/items.md").write_text("# Items\n\n```{single-items}\n```\n")
    names = {name for pages in dialogues.PAGES.values() for name in pages}
    for name in names:
        (source / f"notebooks/{name}.md").write_text(f"# {name}\n")
    pages = "\n".join(["book/items", *(f"notebooks/{name}" for name in sorted(names))])
    (source / "index.md").write_text(f"# Start\n\n```{{toctree}}\n{pages}\n```\n")
    settings = {"extensions": ["myst_parser", "companion_items"], "html_theme": "basic"}
    settings["html_static_path"] = [str(ROOT / "book/_static")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book/_ext"))
        patch.setattr(
            results, "stored", lambda: [reading, replace(reading, model=reading.model | {"name": "two"})]
        )
        patch.setattr(dialogues, "texts", lambda: known)
        Sphinx(
            source, None, folder / "out", folder / "t", "html", settings, status=None, warning=said
        ).build()
    warned = [line for line in said.getvalue().splitlines() if "already registered" not in line]
    assert not [line for line in warned if "WARNING" in line or "ERROR" in line], warned
    return folder / "out"


def test_three_dialogues_stand_in_the_page_escaped(built):
    page = (built / "book/items.html").read_text(encoding="utf-8")
    assert page.count('class="rubric"') == 3 and "<img src=x" not in page
    assert "&lt;img src=x" in page and "Who &lt;/pre&gt;?" in page
    assert "Review for bias, a forced verdict: Own verdict on it" in page


def test_data_are_scripts_of_ascii_that_hold_json(built):
    for name in ("items", "0", "1"):
        text = (built / f"_items/{name}.js").read_bytes().decode("ascii")
        head, _, body = text.partition(" = ")
        assert head == f'(window.companionItems ??= {{}})["{name}"]'
        assert json.loads(body.rstrip(";\n"))
    given = json.loads((built / "_items/items.js").read_text().partition(" = ")[2].rstrip(";\n"))
    assert len(given["items"]) == 6 and given["models"][1] == "two"


def test_the_stored_models_fit_the_page():
    """All that the page loads for one model, texts of the items too, is within what a page may weigh."""
    readings, texts = results.stored(), dialogues.texts()
    items = json.dumps(dialogues.facts(readings, texts))
    packed = json.dumps(dialogues.packed(readings[0]), separators=(",", ":"))
    assert 0 < len(items) + len(packed) < 1_500_000


@pytest.fixture
def visit(built, monkeypatch):
    """The page opened from disk, in a browser with or without scripts; an error or a dialog box fails."""
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import check_site

    if check_site.CHROMIUM is None:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=check_site.CHROMIUM, args=check_site.FLAGS)
        wrong: list[str] = []

        def opened(scripts: bool = True, anchor: str = ""):
            page = browser.new_context(java_script_enabled=scripts).new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
            page.goto((built / "book/items.html").as_uri() + anchor)
            if scripts:
                page.wait_for_selector(".dialogue h2")
            return page

        yield opened
        browser.close()
        assert not wrong


def test_texts_are_shown_as_they_are(visit):
    page = visit()
    reading, known = some()
    one = known[reading.records[0]["id"]]
    assert page.locator(".items-app :is(img, b, i)").count() == 0
    assert page.locator(".dialogue h2").inner_text().endswith("Who </pre>?")
    shown = page.locator(".dialogue pre").all_text_contents()
    for step in dialogues.steps(one, reading.records[0])["core"]:
        assert step.tail.strip().replace("\u2028", "\n") in [text.replace("\u2028", "\n") for text in shown]
    assert "[six demonstrations]" in shown[0] and "Context: <img src=x" in shown[0]


def test_filters_search_and_keys(visit):
    page = visit()
    count, rows = page.locator(".items-app p[role=status]"), page.locator(".list li")
    assert count.inner_text().startswith("6 of 6") and rows.count() == 6
    page.get_by_role("searchbox").fill("QUOKKA zebra")
    assert rows.count() == 1 and count.inner_text().startswith("1 of 6")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("combobox", name="Category", exact=True).select_option("Age")
    assert rows.count() == 3
    page.locator(".list button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".dialogue h2").inner_text().endswith("Who ran?")
    assert page.url.endswith(f"#{some()[0].records[1]['id']}-0")
    page.get_by_role("button", name="Next").click()
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.get_by_role("combobox", name="Category", exact=True).select_option("")
    found = [dialogues.outcomes(record)[1] for record in some()[0].records]
    page.get_by_role("combobox", name="Correction", exact=True).select_option("self-critique")
    page.get_by_role("combobox", name="Second answer", exact=True).select_option("changed")
    assert rows.count() == sum(a != b for a, b in found)


def test_an_address_leads_to_an_item_of_a_model(visit):
    record = some()[0].records[1]
    page = visit(anchor=f"#{record['id']}-1")
    assert page.locator(".dialogue h2").inner_text().endswith("Who ran?")
    assert page.get_by_role("combobox", name="Model", exact=True).input_value() == "1"


def test_without_scripts_three_dialogues_stay(visit):
    page = visit(scripts=False)
    assert page.locator(".items-static table").count() == 3 and page.locator(".items-app").count() == 0
