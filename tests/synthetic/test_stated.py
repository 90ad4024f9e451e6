"""The panels as stated: ratios and their intervals, curves of both sizes, and claims that need runs that are there."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from ica.record import claims
from ica.record.record import Record
from ica.synthetic.analysis import stated, stated_claims, stated_noise
from ica.synthetic.task.baselines import best_response, descend
from ica.synthetic.task.bayes import posterior_mean
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic
from ica.synthetic.task.tokens import prefixes
from ica.synthetic.training import evaluation, results
from ica.synthetic.training.sweep import LEVELS, PROMPTS, Sweep

CONFIG = RunConfig(
    noise="own", reward="squared_distance", scope="all", form="triplet", layers=1, heads=1, width=8, hidden=8, d=2, N=20, steps=4
)  # fmt: skip
SEEN = prefixes(CONFIG)


def result(config=CONFIG, scale=1.0, seeds=3, name="base") -> results.Result:
    """A result of made numbers: the error falls with n, and rises with the level."""
    generator = torch.Generator().manual_seed(seeds)
    shape = (seeds, evaluation.PROMPTS, len(SEEN))

    def made(level: float) -> torch.Tensor:
        size = evaluation.evaluation_prompts(config).good.square().sum(-1)
        own = torch.rand(shape, generator=generator) * (size / size.mean()).view(1, -1, 1)
        return scale * (1 + level) * own / SEEN.view(1, 1, -1) ** 0.5

    nmse = made(0.0)
    noisy = {level: (made(level), made(level)) for level in LEVELS[1:]}
    groups = [tuple(range(seeds))]
    return results.Result(
        "full",
        name,
        config,
        groups[0],
        SEEN,
        nmse,
        nmse,
        torch.ones(4, seeds),
        [],
        groups,
        [],
        [{}],
        [None],
        noisy,
    )


def sweep(scale=1.0, seeds=40, first=1) -> Sweep:
    generator = torch.Generator().manual_seed(first)
    seen = torch.arange(first, 20)
    rows = {
        level: scale
        * (1 + level)
        * (1 + 0.05 * torch.randn(seeds, len(seen), generator=generator, dtype=torch.float64))
        / seen**0.5
        for level in LEVELS
    }
    return Sweep("stated", "base", CONFIG, tuple(range(seeds)), seen, rows, rows, None, {})


@pytest.fixture
def small() -> dict[str, Sweep]:
    return {
        "transformer": sweep(0.5),
        "gradient descent": sweep(2.0, first=2),
        "best-of-n": sweep(0.1, first=2),
    }


@pytest.fixture
def full() -> dict[str, results.Result]:
    return {"transformer": result()}


@pytest.fixture
def record(tmp_path, monkeypatch) -> Record:
    monkeypatch.setenv("ICA_OUTPUT", str(tmp_path))
    return Record("panel_a", {"scale": "ci", "seed": 0}, [0])


def taken(record: Record, id: str) -> dict:
    """The measurement of a claim as it was recorded."""
    (found,) = [row for row in record._claims if row["id"] == id]
    return found


def test_values_have_the_mean_of_the_results_and_ratios_their_ratio(full):
    run, other = full["transformer"], result(scale=2.0, seeds=2)
    torch.testing.assert_close(stated.values(run).mean((0, 1)), run.nmse.double().mean((0, 1)))
    torch.testing.assert_close(stated.values(run, 0.5).mean(1), run.noisy[0.5][1].double().mean(1))
    with pytest.raises(results.ResultError, match="no errors at p = 0.1"):
        stated.values(run, 0.1)
    found = stated.compared(run, other)
    expected = (
        run.nmse[:2, :, run.column(14)].double().mean() / other.nmse[..., other.column(14)].double().mean()
    )
    assert found["value"] == pytest.approx(expected.item())
    assert found["interval"][0] < found["value"] < found["interval"][1]
    assert found["n"] == {"seeds": 2, "prompts": 256}


def test_the_interval_of_a_ratio_covers():
    """Two runs on the same prompts, seeds and prompts random: at least 93 % of 400 intervals hold the ratio of the true means."""
    generator, inside = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        prompt = torch.randn(1, 60, generator=generator).double().exp()
        runs = [
            scale * prompt * (1 + 0.1 * torch.randn(3, 1, generator=generator).double())
            + 0.2 * torch.randn(3, 60, generator=generator).double()
            for scale in (1.0, 0.4)
        ]
        lo, hi = stated.full_ratio(*runs)["interval"]
        inside += lo <= 2.5 <= hi
    assert inside >= 0.93 * 400


def test_small_ratios_are_paired_by_seed():
    own = torch.rand(40, dtype=torch.float64) + 0.5
    found = stated.small_ratio(3 * own, own)
    assert found["value"] == pytest.approx(3) and found["interval"] == pytest.approx((3, 3))
    mixed = stated.small_ratio(3 * own, own.flip(0))
    assert mixed["value"] == pytest.approx(3) and mixed["interval"][1] - mixed["interval"][0] > 0.1
    assert found["n"] == {"seeds": 40, "prompts": 40 * PROMPTS}


def test_sweeps_of_more_seeds_are_compared_on_the_seeds_that_both_have():
    more, fewer = sweep(1.0, seeds=6), sweep(2.0, seeds=4)
    cut = stated.shared({"more": more, "fewer": fewer})
    assert [run.seeds for run in cut.values()] == [(0, 1, 2, 3)] * 2
    assert torch.equal(cut["more"].at(5, "error", 0.5), more.at(5, "error", 0.5)[:4])
    assert torch.equal(cut["fewer"].at(5), fewer.at(5))
    found = stated_claims.released({"more": more, "fewer": fewer}, {}, "more", "fewer")
    assert found["value"] == pytest.approx((more.at(15)[:4] - fewer.at(15)).mean().item())
    assert found["n"]["seeds"] == 4
    with pytest.raises(ValueError, match="seeds of more, other must begin alike"):
        stated.shared({"more": more, "other": replace(fewer, seeds=(4, 5, 6, 7))})


def test_rules_are_those_of_the_task_on_the_evaluation_prompts():
    batch, seen = evaluation.evaluation_prompts(CONFIG, Critic("replace", 0.5)), torch.arange(2, 20)
    predictions = {
        "gradient descent": descend(batch, seen, torch.Generator().manual_seed(0), reward="squared_distance"),
        "best-of-n": best_response(batch, seen),
        "Bayes": torch.stack([posterior_mean(batch, n) for n in range(2, 20)], dim=1),
    }
    found = stated.rules(CONFIG, 0.5)
    for name, one in predictions.items():
        squared = (one - batch.good.unsqueeze(1)).square().sum(-1).double().mean(0)
        expected = squared / batch.good.double().square().sum(-1).mean()
        torch.testing.assert_close(found[name].mean((0, 1)), expected, rtol=1e-5, atol=1e-7)


def test_the_figure_draws_each_size_that_is_there(full, small):
    frames = {
        "full": pd.concat([stated.full_curves(full), stated.rule_curves(CONFIG, ["gradient descent"])]),
        "small": stated.small_curves(small),
    }
    fig, data = stated.figure(frames, log=True)
    assert [len(ax.get_legend_handles_labels()[0]) for ax in fig.axes] == [2, 3]
    assert set(data["n"]) == set(range(2, 20)) and set(data["size"]) == {"full", "small"}
    assert len(stated.figure({"full": stated.full_curves({}), "small": frames["small"]})[0].axes) == 1
    said = stated.about(full, {"transformer": small["transformer"]})
    assert "3 seeds each" in said["full"] and "40 seeds each" in said["small"]
    assert "none" in stated.about({}, small)["full"]
    plt.close("all")


def test_without_any_precomputed_run_a_figure_says_so(record):
    for k, (fig, data) in enumerate(
        (stated.figure(stated.frames({}, {})), stated_noise.figure(stated_noise.frames({}, {})))
    ):
        assert "no precomputed runs" in fig.axes[0].texts[0].get_text()
        record.figure(f"none-{k}", fig, data, "Nothing", stated.meanings(data))
    assert "full" in stated.about({}, {}) and not stated.small({"a": "no-such-run"})


def test_noise_is_drawn_solid_and_dashed(full, small):
    curves = stated_noise.frames(full, small)
    fig, data = stated_noise.figure(curves)
    lines = fig.axes[1].lines[::3]  # each with the two edges of its band
    assert len(lines) == 10 and {line.get_linestyle() for line in lines} == {"-", "--"}
    assert set(data["level"]) == set(LEVELS)
    plt.close("all")


def test_claims_say_what_the_curves_say(record, full, small):
    stated_claims.against_rule(record, "a-s-few", "a-s-few-full", small, full, "gradient descent", [2])
    row = taken(record, "a-s-few")
    ratios = (small["transformer"].at(2) / small["gradient descent"].at(2)).log().mean().exp().item()
    assert row["parts"]["value"]["value"] == pytest.approx(ratios)
    stated_claims.examples(record, "a-s-examples", "a-s-examples-full", small, full)
    parts = taken(record, "a-s-examples-full")["parts"]
    run = full["transformer"]
    means = [run.nmse[..., run.column(n)].double().mean().item() for n in (14, 2)]
    assert parts["transformer"]["value"] == pytest.approx(means[0] / means[1])
    registry = claims.load()
    assert (
        registry["a-s-examples-full"]
        .criteria["transformer"]
        .judge(**{k: parts["transformer"][k] for k in ("value", "interval")})
        == "supported"
    )


def test_claims_without_their_runs_are_not_testable(record, small):
    stated_claims.against_rule(record, "a-s-many", "a-s-many-full", {}, {}, "gradient descent", [14])
    for id in ("a-s-many", "a-s-many-full"):
        assert "not at hand: n = 14" in taken(record, id)["untestable"]
    stated_claims.against_rule(
        record, "a-s-best", "a-s-best-full", {"transformer": small["transformer"]}, {}, "best-of-n", (2, 14)
    )
    assert taken(record, "a-s-best")["untestable"]


def test_every_claim_of_noise_is_recorded(tmp_path, monkeypatch, full, small):
    monkeypatch.setenv("ICA_OUTPUT", str(tmp_path))
    record = Record("panel_b", {"scale": "ci", "seed": 0, "end_prompts": 10}, [0])
    for key, name in (("tf", "transformer"), ("gd", "gradient descent")):
        stated_claims.noise(record, f"b-s-{key}", f"b-s-{key}-full", small, full, name)
        stated_claims.noise(record, f"b-s-{key}-order", f"b-s-{key}-order-full", small, full, name, True)
    stated_claims.blind(record, "b-s-blind", "b-s-blind-full", small, full)
    wanted = {id for id in claims.load() if id.startswith("b-s-")}
    assert {row["id"] for row in record._claims} == wanted and not any(
        row["untestable"] for row in record._claims
    )
    step = taken(record, "b-s-tf-order")["parts"]["p = 0.5 to 0.75"]["value"]
    assert step == pytest.approx(1.75 / 1.5, rel=0.02)


def test_pairs_compare_with_the_first_label(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_OUTPUT", str(tmp_path))
    record = Record("panel_d", {"scale": "ci"}, [0])
    small = {"softmax attention": sweep(0.5), "linear attention": sweep(1.0)}
    full = {
        "softmax attention": result(),
        "linear attention": result(replace(CONFIG, attention="linear"), 3.0),
    }
    stated_claims.pair(record, "d-linear", "d-linear-full", small, full, [*small])
    stated_claims.level(record, "d-hardly", "d-hardly-full", small, full, "linear attention")
    assert taken(record, "d-linear")["parts"]["value"]["value"] == pytest.approx(2, rel=0.05)
    assert taken(record, "d-linear-full")["parts"]["value"]["value"] == pytest.approx(3, rel=0.05)
    assert taken(record, "d-hardly")["parts"]["value"]["value"] == pytest.approx(
        small["linear attention"].at(14).mean().item()
    )
    assert math.isfinite(taken(record, "d-hardly-full")["parts"]["value"]["value"])
