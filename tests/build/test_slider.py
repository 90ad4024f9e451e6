"""The slider draws the recorded data: what it shows at a stop is the row of the CSV; without scripts the drawing stays."""

import html
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from playwright.sync_api import sync_playwright

from ica.record.styles import DARK, PALETTE, style_of

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "book/_static"
ROWS = [
    [size, level, n, (1 + level) * factor / n, 0.9 * (1 + level) * factor / n, None if n == 3 else 9.0, who]
    for size in ("full", "small")
    for level in (0.0, 0.5)
    for n in (2, 3, 19)
    for who, factor in (("transformer", 1.0), ("gradient descent", 10.0))
]
OPTIONS = {"by": "size", "along": "level", "x": "n", "y": "nmse", "of": "label", "alt": "Curves"}
OPTIONS |= {"names": "level: p; n: triplets: seen; nmse: error"}


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    import check_site
    import companion_figures
    import companion_slider

    return SimpleNamespace(slider=companion_slider, figures=companion_figures, check=check_site)


def directive(extension, tmp_path, monkeypatch, head: str, rows: list = ROWS, **changed):
    """The directive on a recorded CSV of these rows; what it returns."""
    lines = [",".join("" if one is None else str(one) for one in row) for row in rows]
    (tmp_path / "curve.csv").write_text("\n".join([head, *lines]) + "\n")
    figure = nodes.figure(ids=["fig-curve"], classes=["recorded"])
    monkeypatch.setattr(extension.figures.RecordedFigure, "run", lambda self: [figure, nodes.paragraph()])
    made = object.__new__(extension.slider.Slider)
    made.arguments, made.options = ["curve"], {k: v for k, v in (OPTIONS | changed).items() if v}
    made.find = lambda suffix: ("demo", tmp_path / f"curve{suffix}")
    made.error = ValueError
    made.state = SimpleNamespace(
        document=SimpleNamespace(settings=SimpleNamespace(env=SimpleNamespace(docname="book/play")))
    )
    return made.run()


HEAD = "size,level,n,nmse,lo,hi,label"


def test_the_page_holds_the_data_and_the_colours_of_the_book(extension, tmp_path, monkeypatch):
    style, figure, script, _ = directive(extension, tmp_path, monkeypatch, HEAD)
    assert "slider" in figure["classes"] and "../_static/slider.css" in style.astext()
    given = json.loads(
        html.unescape(script.astext()).partition('data-given="')[2].rpartition('"></script>')[0]
    )
    assert given["columns"] == ["size", "level", "n", "nmse", "label", "lo", "hi"]
    assert (
        given["rows"][0] == ["full", 0.0, 2.0, 0.5, "transformer", 0.45, 9.0] and given["rows"][2][6] is None
    )
    blue = style_of("transformer")["color"]
    assert given["curves"]["transformer"] == {"light": blue, "dark": DARK[blue], "dashes": ""}
    assert given["names"]["n"] == "triplets: seen" and given["curves"]["gradient descent"]["dashes"]


def test_a_figure_without_groups_and_bands_has_the_colours_of_its_drawing(extension, tmp_path, monkeypatch):
    rows = [[30.0, 0.9, "one"], [60.0, 0.5, "bound"]]
    wanted = {"by": "", "along": "phi", "x": "phi", "y": "error", "names": "phi: angle; error: error"}
    _, figure, script, _ = directive(extension, tmp_path, monkeypatch, "phi,error,label", rows, **wanted)
    given = json.loads(
        html.unescape(script.astext()).partition('data-given="')[2].rpartition('"></script>')[0]
    )
    assert given["rows"][0] == ["", 30.0, 30.0, 0.9, "one", None, None] and "slider" in figure["classes"]
    assert given["curves"]["one"]["light"] == PALETTE[0] and given["curves"]["bound"]["dashes"]


def test_without_the_columns_the_figure_stands_alone(extension, tmp_path, monkeypatch):
    figure, _ = directive(extension, tmp_path, monkeypatch, HEAD.replace("level", "other"))
    assert "slider" not in figure["classes"]


@pytest.mark.parametrize("missing", ["along", "names"])
def test_an_option_that_is_missing_is_named(extension, tmp_path, monkeypatch, missing):
    with pytest.raises(ValueError, match=f"slider curve: option :{missing}: is required"):
        directive(extension, tmp_path, monkeypatch, HEAD, **{missing: ""})
    with pytest.raises(ValueError, match="slider curve: option :names: must name 'n'"):
        directive(extension, tmp_path, monkeypatch, HEAD, names="level: p; nmse: error")


@pytest.fixture
def shown(extension, tmp_path, monkeypatch):
    """A page with the slider along p, opened from disk with and without scripts: a function of the latter."""
    if extension.check.CHROMIUM is None:
        pytest.skip("no Chromium here")
    _, _, script, _ = directive(extension, tmp_path, monkeypatch, HEAD)
    markup = '<figure id="fig-curve"><div><img alt="drawing"></div></figure>' + script.astext()
    (tmp_path / "site/book").mkdir(parents=True)
    (tmp_path / "site/_static").mkdir()
    (tmp_path / "site/_static/slider.js").write_text((STATIC / "slider.js").read_text())
    (tmp_path / "site/book/play.html").write_text(f"<meta charset=utf-8>{markup}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=extension.check.CHROMIUM, args=extension.check.FLAGS
        )

        def page(scripts: bool):
            page = browser.new_context(java_script_enabled=scripts).new_page()
            page.on("pageerror", lambda error: pytest.fail(str(error)))
            page.goto((tmp_path / "site/book/play.html").as_uri())
            return page

        yield page
        browser.close()


def test_the_slider_shows_the_recorded_values(shown):
    page = shown(True)
    assert page.locator("img").count() == 0 and page.locator("figure.live").count() == 1
    cells = lambda: page.locator("tbody tr").all_inner_texts()
    assert [text.split() for text in cells()] == [
        ["transformer", "0.0526", "0.0474", "to", "9"],
        ["gradient", "descent", "0.526", "0.474", "to", "9"],
    ]
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "0.5" and cells()[0].split()[1] == "0.0789"
    assert page.locator("g.ghost").count() == 2, "the curves of the first stop stay, thin"
    page.locator("select").select_option("small")
    assert page.locator("output").inner_text() == "0.5", "the other group at the same stop"
    assert page.locator("polyline").count() == 2 + 2 + 2, "curves, ghosts, keys"


def test_without_scripts_the_drawing_stays(shown):
    page = shown(False)
    assert page.locator("img").count() == 1 and page.locator("svg").count() == 0
