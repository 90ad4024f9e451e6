"""The explorable: exported weights are the constructors', and a browser multiplies them as PyTorch does."""

import functools
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from ica.theory.compare import descent_predictions
from ica.theory.constructions import explorable as ex

STATIC = Path(__file__).parents[2] / "book" / "_static"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
EACH = [(construction, N) for construction in ex.CONSTRUCTIONS for N in (2, 4, 6)]
SMOOTH = ex.STOPS.index(30)
"""Up to this stop nothing that the paper's elimination divides by is near rounding: streams agree too."""
RUN = """([model, stop, prompts]) => prompts.map(([y, r]) => {
    const { streams, attention, readout } = Explorable.run(model, stop, Explorable.tokens(model, y, r));
    const end = streams.at(-1), moved = Explorable.moved(model, streams[0], end);
    return { streams, attention, readout, moved, gone: Explorable.pushed(model, streams[0], end) };
})"""
DESCENT = "([model, prompts]) => prompts.map(([y, r]) => Explorable.descent(model, y, r))"


exported = functools.cache(ex.exported)  # a model for each stop is made for it


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser):
    """An empty page with the arithmetic of the explorable."""
    page = browser.new_page()
    page.add_script_tag(path=STATIC / "explorable_maths.js")
    page.evaluate("window.Explorable = Explorable")
    return page


def drawn(N: int, seed: int, ladder: bool = False, batch: int = 3) -> ex.Prompts:
    """Random prompts in the plane; rewards of any distance, or 0.2 apart in random order."""
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randn(batch, N, 2, generator=generator, dtype=torch.float64)
    rewards = torch.rand(batch, N, generator=generator, dtype=torch.float64)
    return ex.prompt(responses, rewards.argsort(dim=-1).double() / 5 if ladder else rewards)


def listed(prompts: ex.Prompts) -> list:
    return [list(pair) for pair in zip(prompts.responses.tolist(), prompts.rewards.tolist(), strict=True)]


def close(found, expected: torch.Tensor) -> bool:
    """Equal to 1e-9, relative where the number is above 1."""
    expected = expected.numpy()
    return bool(np.all(np.abs(np.array(found) - expected) <= 1e-9 * np.maximum(1, np.abs(expected))))


@pytest.mark.parametrize(("construction", "N"), EACH)
def test_exported_weights_are_those_of_the_constructor_at_every_stop(construction, N):
    model = exported(construction, N)
    for stop in (0, 6, len(ex.STOPS) - 1):
        made = ex.build(construction, N, stop)
        weights = [[m.detach().numpy() for m in ex._matrices(block)] for block in made.blocks]
        read = [
            [ex.dense(model["matrices"][k], stop) for k in block["matrices"]] for block in model["blocks"]
        ]
        for ours, theirs in zip(weights, read, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        for name, weight in (("embed", made.embed.weight), ("readout", made.readout.weight)):
            number = model[name][0] if name == "embed" else model[name]
            assert np.array_equal(ex.dense(model["matrices"][number], stop), weight.detach().numpy())


def test_json_reads_back_the_same():
    assert json.loads(ex.as_json("paper", 2)) == exported("paper", 2)


@pytest.mark.parametrize(("construction", "N"), EACH)
def test_numpy_computes_what_the_model_computes(construction, N):
    model, prompts = exported(construction, N), drawn(N, seed=N)
    given = ex.tokens(construction, prompts)
    for stop in (0, SMOOTH, len(ex.STOPS) - 1) if construction != "paper" else (0, SMOOTH):
        with torch.no_grad():
            assert close(
                ex.evaluate(model, stop, given.numpy()), ex.build(construction, N, stop)(given, True)
            )


@pytest.mark.parametrize(("construction", "N"), EACH)
@pytest.mark.parametrize("stop", [0, SMOOTH])
def test_browser_computes_streams_attention_and_readout_as_pytorch_does(page, construction, N, stop):
    prompts, made = drawn(N, seed=10 * N + stop), ex.build(construction, N, stop)
    given = ex.tokens(construction, prompts)
    with torch.no_grad():
        trace, readout = made.trace(given, unchecked=True), made(given, unchecked=True)
    found = page.evaluate(RUN, [exported(construction, N), stop, listed(prompts)])
    for k, one in enumerate(found):
        assert close(one["readout"], readout[k])
        assert close(one["streams"], torch.stack(trace.streams)[:, k])
        assert close(one["attention"], torch.stack(trace.attention)[:, k])


@pytest.mark.parametrize(("construction", "N"), EACH)
def test_browser_reads_the_prediction_that_gradient_descent_reaches(page, construction, N):
    """Also where the paper's elimination works on the last digits, 0.2 apart and at an inverse temperature of 150."""
    stop = ex.STOPS.index(150 if construction == "paper" else 1000)
    prompts, eta = drawn(N, seed=20 + N, ladder=True), ex.step_size(N)
    reached = descent_predictions(ex.W, prompts, eta, 1)[1]
    model = exported(construction, N)
    found = page.evaluate(RUN, [model, stop, listed(prompts)])
    assert close([one["moved"] for one in found], reached)
    assert close(page.evaluate(DESCENT, [model, listed(prompts)]), reached)
    assert not close([one["moved"] for one in found], reached + 1e-6)


def test_browser_has_no_step_for_tied_rewards(page):
    model = exported("ours", 4)
    assert page.evaluate(DESCENT, [model, [[[[0, 1], [1, 0], [1, 1], [0, 0]], [0.2, 0.6, 0.2, 0]]]]) == [None]


def test_noise_of_the_page_is_standard_normal_and_repeats(page):
    values = np.array(page.evaluate("() => Explorable.normals(7, 4000)"))
    assert abs(values.mean()) < 0.06 and abs(values.std() - 1) < 0.05
    assert page.evaluate("() => Explorable.normals(7, 3)") == values[:3].tolist()


def test_scripts_are_short_and_ask_for_nothing():
    scripts = [path.read_text(encoding="utf-8") for path in sorted(STATIC.glob("explorable*.js"))]
    assert len(scripts) == 2 and sum(len(text.splitlines()) for text in scripts) < 300
    style = (STATIC / "explorable.css").read_text(encoding="utf-8")
    for text in (*scripts, style):
        without = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|fetch\(|XMLHttp|import\(|@import|url\(|innerHTML|eval\(", without)


def written(folder: Path, weights: bool = True) -> Path:
    """A page as the book has it: the figure, the scripts, one with the weights."""
    models = [exported(construction, N) for construction in ("ours", "paper") for N in (4, 6)]
    given = html.escape(json.dumps(models)) if weights else ""
    folder.joinpath("still.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    )
    style, maths, drawing = ((STATIC / f"explorable{end}").as_uri() for end in (".css", "_maths.js", ".js"))
    page = folder / "page.html"
    page.write_text(f"""<!doctype html><html><meta charset="utf-8"><link rel="stylesheet" href="{style}">
        <figure class="explorable"><div><img src="still.svg" alt=""></div><figcaption>Caption</figcaption></figure>
        <script src="{maths}"></script><script src="{drawing}" data-weights="{given}"></script></html>""")
    return page


@pytest.fixture
def shown(browser, tmp_path):
    """The explorable, opened from disk; fails if it asks for anything else or logs an error."""
    page, wrong = browser.new_page(), []
    page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(written(tmp_path).as_uri())
    yield page
    page.close()
    assert not wrong


def told(page) -> str:
    return page.locator(".told").text_content()


@pytest.mark.parametrize("construction", ["ours", "paper"])
def test_page_steps_to_the_end_of_the_gradient_step(shown, construction):
    shown.get_by_label("Construction").select_option(construction)
    blocks = len(exported(construction, 4)["blocks"])
    for k in range(1, blocks + 2):
        assert told(shown).startswith(f"After block {k - 1} of {blocks}." if k > 1 else "Before block 1")
        shown.get_by_role("button", name="Next block").press("Enter")
    error = re.search(r"Error: (\S+) of GD", told(shown).replace("−", "-"))[1]
    assert float(error) < 1e-9
    assert "Within the assumptions" in shown.locator(".limits").text_content()


def test_page_shows_who_is_eliminated_and_the_second_with_the_first_at_low_inverse_temperature(shown):
    following = shown.get_by_role("button", name="Next block")
    following.click()
    assert "Eliminated: 3." in told(shown)
    shown.get_by_label("Inverse temperature").fill(str(ex.STOPS.index(2)))
    assert "Eliminated: 1, 3." in told(shown)
    assert shown.locator(".response.gone").count() == 2


def test_page_warns_of_ties_and_has_no_error_then(shown):
    shown.locator(".explorable-app fieldset input").first.fill("0.6")
    assert "tied" in shown.locator(".limits").text_content()
    assert "GD" not in told(shown)


def test_responses_move_by_keys_and_by_pointer(shown):
    handle = shown.locator(".response").first
    assert handle.get_attribute("aria-label").startswith("Response 1 at (0.88, 0.48), rank 2 of 4.")
    handle.focus()
    shown.keyboard.press("ArrowRight")
    assert "(0.93, 0.48)" in handle.get_attribute("aria-label")
    shown.keyboard.press("Shift+ArrowDown")
    assert "(0.93, 0.23)" in handle.get_attribute("aria-label")
    box = handle.locator("circle").last.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x - 40, y - 40, steps=3)
    shown.mouse.up()
    moved = re.search(r"at \((\S+), (\S+)\)", handle.get_attribute("aria-label").replace("−", "-"))
    side = shown.locator(".explorable-app svg").bounding_box()["width"]
    expected = 0.93 - 40 * 4 / side, 0.23 + 40 * 4 / side
    assert float(moved[1]) == pytest.approx(expected[0], abs=0.02)
    assert float(moved[2]) == pytest.approx(expected[1], abs=0.02)


def test_figure_stays_without_scripts_and_where_they_fail(browser, tmp_path):
    for scripts, weights in ((False, True), (True, False)):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        page.goto(written(tmp_path, weights).as_uri())
        assert page.locator("figure img").is_visible() and not page.locator(".explorable-app").count()
        context.close()
