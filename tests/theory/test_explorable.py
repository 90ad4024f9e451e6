"""The explorable: exported weights are the constructors', and a browser multiplies them as PyTorch does."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import sync_playwright

from ica.theory import explorable as ex
from ica.theory.compare import descent_predictions

STATIC = Path(__file__).parents[2] / "book" / "_static"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
EACH = [(construction, N) for construction in ex.CONSTRUCTIONS for N in ex.SIZES]
SMOOTH = ex.STOPS.index(30)
"""Up to this stop nothing that the paper's elimination divides by is near rounding: streams agree too."""
RUN = """([model, stop, prompts]) => prompts.map(([y, r]) => {
    const { streams, attention, readout } = Explorable.run(model, stop, Explorable.tokens(model, y, r));
    const end = streams.at(-1), moved = Explorable.moved(model, streams[0], end);
    return { streams, attention, readout, moved, gone: Explorable.pushed(model, streams[0], end) };
})"""
DESCENT = "([model, prompts]) => prompts.map(([y, r]) => Explorable.descent(model, y, r))"


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
    model = json.loads(ex.as_json(construction, N))
    for stop in range(len(ex.STOPS)):
        made = ex.build(construction, N, stop)
        weights = [[m.detach().numpy() for m in ex._matrices(block)] for block in made.blocks]
        read = [[ex.dense(model["matrices"][k], stop) for k in block["matrices"]] for block in model["blocks"]]
        for ours, theirs in zip(weights, read, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        for name, weight in (("embed", made.embed.weight), ("readout", made.readout.weight)):
            number = model[name][0] if name == "embed" else model[name]
            assert np.array_equal(ex.dense(model["matrices"][number], stop), weight.detach().numpy())


@pytest.mark.parametrize(("construction", "N"), EACH)
def test_numpy_computes_what_the_model_computes(construction, N):
    model, prompts = ex.exported(construction, N), drawn(N, seed=N)
    given = ex.tokens(construction, prompts)
    for stop in (0, SMOOTH, len(ex.STOPS) - 1) if construction != "paper" else (0, SMOOTH):
        with torch.no_grad():
            assert close(ex.evaluate(model, stop, given.numpy()), ex.build(construction, N, stop)(given, True))


@pytest.mark.parametrize(("construction", "N"), EACH)
@pytest.mark.parametrize("stop", [0, 5, SMOOTH])
def test_browser_computes_streams_attention_and_readout_as_pytorch_does(page, construction, N, stop):
    prompts, made = drawn(N, seed=10 * N + stop), ex.build(construction, N, stop)
    given = ex.tokens(construction, prompts)
    with torch.no_grad():
        trace, readout = made.trace(given, unchecked=True), made(given, unchecked=True)
    found = page.evaluate(RUN, [ex.exported(construction, N), stop, listed(prompts)])
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
    model = ex.exported(construction, N)
    found = page.evaluate(RUN, [model, stop, listed(prompts)])
    assert close([one["moved"] for one in found], reached)
    assert close(page.evaluate(DESCENT, [model, listed(prompts)]), reached)
    assert not close([one["moved"] for one in found], reached + 1e-6)


def test_browser_has_no_step_for_tied_rewards(page):
    model = ex.exported("ours", 3)
    assert page.evaluate(DESCENT, [model, [[[[0, 1], [1, 0], [1, 1]], [0.2, 0.6, 0.2]]]]) == [None]


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
