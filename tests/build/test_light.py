"""One drawing for both themes: in a real browser, to the pixel what the two drawings were."""

import io
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

from ica.build.browser import FLAGS, chromium
from ica.record import figures
from ica.record.provenance import provenance

ROOT = Path(__file__).parents[2]
DATA = pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0]})
PAGE = '<body style="margin:0; background:{ground}"><img src="{src}" width="700"></body>'


@pytest.fixture
def light(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    import companion_light

    return companion_light


def site(folder: Path, other: str = "") -> Path:
    """A page with a figure of each kind of mark, as the recorder leaves it, with `other` in its SVG."""
    figures.style()
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 3))
    left.plot([1, 2, 3], [1, 0.1, 0.01], marker="o", label="a line")
    left.errorbar([1, 2, 3], [2, 1, 0.5], yerr=0.1, fmt="s", color=figures.MUTED, label="intervals")
    figures.band(left, [1, 2, 3], [0.5, 0.05, 0.005], [2, 0.2, 0.02], label="a band")
    left.set(yscale="log", xlabel="number $n$")
    left.legend()
    for bar, hatch in zip(middle.bar(range(3), [1, 2, 3]), figures.HATCHES, strict=False):
        bar.set_hatch(hatch)
    middle.annotate("here", (1, 1), (1, 2.5), arrowprops={"arrowstyle": "->"}, color="black")
    right.scatter([0, 1], [0, 1], color=figures.BLUE, marker="^")
    about = provenance("demo", {}, [1], datetime.now(UTC))
    paths = figures.save(fig, folder / "_figures/demo", "curve", DATA, "Title", about)
    plt.close(fig)
    for suffix in (".svg", ".dark.svg"):
        svg = paths[suffix].read_text()
        paths[suffix].write_text(svg.replace("</svg>", f"{other}</svg>"))
    (folder / "page.html").write_text('<img src="_figures/demo/curve.dark.svg"><a href="x.dark.svg"></a>')
    return folder


def test_the_dark_drawing_is_the_light_one_led_to_by_another_address(light, tmp_path):
    if chromium() is None:
        pytest.skip("no Chromium here")
    apart, merged = site(tmp_path / "apart"), site(tmp_path / "merged")
    for path in apart.glob("_figures/*/*.svg"):
        path.write_text(light.drawing(path.read_text()))
    light.lighten(merged)
    assert not list(merged.glob("_figures/*/*.dark.svg"))
    assert (merged / "page.html").read_text() == (
        '<img src="_figures/demo/curve.svg#dark"><a href="x.dark.svg"></a>'
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 720, "height": 320})

        def seen(folder: Path, name: str, ground: str) -> Image.Image:
            (folder / "shown.html").write_text(PAGE.format(src=f"_figures/demo/{name}", ground=ground))
            page.goto((folder / "shown.html").as_uri())
            page.evaluate("() => document.querySelector('img').decode()")
            return Image.open(io.BytesIO(page.screenshot())).convert("RGB")

        pairs = {
            "white": ("curve.svg", "curve.svg"),
            "#121212": ("curve.dark.svg", "curve.svg#dark"),
        }
        shown = {
            ground: (seen(apart, two, ground), seen(merged, one, ground))
            for ground, (two, one) in pairs.items()
        }
        browser.close()
    for ground, (two, one) in shown.items():
        assert ImageChops.difference(two, one).getbbox() is None, ground
    assert shown["white"][1].getpixel((3, 3)) != shown["#121212"][1].getpixel((3, 3))


def test_a_drawing_with_a_colour_said_in_another_way_keeps_its_dark_one(light, tmp_path):
    folder = site(
        tmp_path, f'<style>rect {{ fill: {figures.FOREGROUND} }} </style><rect color="{figures.FOREGROUND}"/>'
    )
    light.lighten(folder)
    assert (folder / "_figures/demo/curve.dark.svg").is_file()
    assert "curve.dark.svg" in (folder / "page.html").read_text()
