"""The walk from the code to the paper: what is compared, how it is paired, and what is said of it."""

import functools
import json
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ica.record.criteria import Criterion
from ica.synthetic.analysis import walk, walk_shown
from ica.synthetic.task import baselines
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training import catalogue, results, sweep

SEEDS = tuple(range(8))
ABOVE = Criterion("above", at=1, sesoi=1.25, scale="ratio")
OTHER = {"noise": "own", "reward": "squared_distance", "scope": "all", "form": "test-token", "steps": 300}


@functools.cache
def config_of(name: str) -> RunConfig:
    """The configuration of a run of the walk."""
    return catalogue.jobs_of(name, "walk")[0].config


def made(name, few, many, seeds=SEEDS, config=None, seen=(2, 14)) -> sweep.Sweep:
    """A sweep of these normalised MSEs after 2 and after 14 triplets, and their roots as 1 - cos."""
    values = torch.stack(
        [torch.as_tensor(one, dtype=torch.float64).expand(len(seeds)) for one in (few, many)], 1
    )
    config = config or config_of(name)
    seen = torch.tensor(seen)
    return sweep.Sweep("walk", name, config, seeds, seen, {0.0: values}, {0.0: values.sqrt()}, None, {})


def jitter(key: str) -> np.ndarray:
    """Numbers of mean 0 over the seeds, and over either half of them."""
    draws = np.random.default_rng(sum(map(ord, key))).normal(size=(2, 4)) / 100
    return (draws - draws.mean(1, keepdims=True)).ravel()


def built(effects: dict[str, float], together: float = 1.0, gd: float = 1.0) -> walk.Walk:
    """A walk in which each factor multiplies the error at 14 triplets, and all five together once more.

    GD has the error `gd` as released, 10 times that for own noise, 100 times for the squared distance.
    """
    runs, beside = walk.Runs(), {}
    for name in walk.WALK:
        config = config_of(name)
        on = [f for f in walk.FACTORS if getattr(config, f) == OTHER[f]]
        many = 0.5 * math.prod(effects[f] for f in on) * (together if len(on) == 5 else 1)
        runs["walk", name] = made(name, 0.8, many * np.exp(jitter(name)))
        level = (
            gd * (10 if config.noise == "own" else 1) * (100 if config.reward == "squared_distance" else 1)
        )
        several = {walk.GD: made("gd", 2 * level, level, config=config)}
        several[walk.BEST] = made("best", 0.4, 0.1 * (1 + (config.noise == "own")), config=config)
        beside[config.noise, config.reward] = several
    return walk.Walk(runs, beside)


SINGLE = {"noise": 0.25, "reward": 2.0, "scope": 0.7, "form": 1.1, "steps": 1.0}


# What is compared


def test_the_walk_changes_one_factor_at_a_time():
    ends = {end: config_of(end) for end in walk.ENDS}
    assert {f: getattr(ends["stated"], f) for f in walk.FACTORS} == OTHER
    for end, other in (walk.ENDS, walk.ENDS[::-1]):
        for factor in walk.FACTORS:
            changed = config_of(f"{end}-{factor}")
            assert changed == replace(ends[end], **{factor: getattr(ends[other], factor)}) != ends[end]
    assert len(set(walk.WALK)) == 12 == len(catalogue.jobs("walk"))


def test_conclusions_are_ratios_to_what_fits_the_data_and_the_reward():
    found = built(SINGLE)
    for name, level, best in (
        ("released", 1, 0.1),
        ("released-noise", 10, 0.2),
        ("released-reward", 100, 0.1),
        ("stated", 1000, 0.2),
    ):
        table, many = found.conclusions(name, "nMSE"), found.runs["walk", name].at(14).numpy()
        assert table.index.tolist() == [*SEEDS]
        np.testing.assert_allclose(np.exp(table["few"]), 0.8 / (2 * level))
        np.testing.assert_allclose(np.exp(table["many"]), many / level)
        np.testing.assert_allclose(np.exp(table["examples"]), many / 0.8)
        np.testing.assert_allclose(np.exp(table["best"]), many / best)
        np.testing.assert_allclose(found.conclusions(name, "1 - cos"), table / 2)
    with pytest.raises(KeyError, match="squared_distance"):
        walk.Walk(found.runs, {("shared", "cosine"): {}}).conclusions("stated", "nMSE")


def test_seeds_are_paired_by_their_number_and_not_by_their_place():
    one = pd.Series([1.0, 2.0, 4.0], index=[0, 1, 2])
    other = pd.Series([40.0, 10.0, 20.0, 7.0], index=[2, 0, 1, 9])
    gaps = walk.less(other, one)
    assert gaps.to_dict() == {0: 9.0, 1: 18.0, 2: 36.0} and gaps.index.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"two seeds in common.*\[0, 1, 2\].*\[2, 3\]"):
        walk.less(one, pd.Series([1.0, 2.0], index=[2, 3]))
    found = built(SINGLE)
    run = found.runs["walk", "released-noise"]
    turned = replace(run, seeds=run.seeds[::-1], nmse={0.0: run.nmse[0.0].flip(0)})
    again = walk.Walk(walk.Runs(found.runs | {("walk", "released-noise"): turned}), found.beside)
    for name in walk.CONCLUSIONS:
        same = [w.effects("released", name, "nMSE")["noise"] for w in (found, again)]
        pd.testing.assert_series_equal(*same)


def test_errors_that_have_no_logarithm_are_refused():
    with pytest.raises(ValueError, match="above 0, got -0.1 in walk-released, n = 14"):
        walk.by_seed(made("released", 0.8, [-0.1, *[0.5] * 7]), 14)
    for n, measure in ((3, "nMSE"), (14, "loss")):
        with pytest.raises(ValueError, match=r"n must be|measure must be"):
            walk.by_seed(made("released", 0.8, 0.5), n, measure)


def ratios(effects: dict[str, pd.Series]) -> dict[str, float]:
    return {factor: walk.estimate(logs)["value"] for factor, logs in effects.items()}


def test_effects_are_stated_over_released_from_either_end():
    found = built(SINGLE)
    for end in walk.ENDS:
        assert ratios(found.effects(end, "examples", "nMSE")) == pytest.approx(SINGLE)
        assert ratios(found.effects(end, "examples", "1 - cos"))["noise"] == pytest.approx(0.5)
        of_gd = SINGLE | {"noise": 0.25 / 10, "reward": 2 / 100}
        assert ratios(found.effects(end, "many", "nMSE")) == pytest.approx(of_gd)
    apart = found.effects("released", "examples", "nMSE")["noise"]
    np.testing.assert_allclose(apart, math.log(0.25) + jitter("released-noise") - jitter("released"))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10))
def test_what_factors_do_together_is_what_their_effects_leave(together):
    left = built(SINGLE, together).interaction("examples", "nMSE")
    assert walk.estimate(left)["value"] == pytest.approx(together)
    assert left.std() > 0


# Estimates


def test_an_estimate_is_students_interval_on_logarithms_over_seeds():
    logs = pd.Series([0.3, 0.1, 0.7, 0.4, 0.2])
    found = walk.estimate(logs)
    ends = np.exp(stats.ttest_1samp(logs, 0.0).confidence_interval(0.95))
    assert (found["value"], *found["interval"]) == pytest.approx((math.exp(logs.mean()), *ends))
    assert found["n"] == {"seeds": 5}


def test_what_two_single_runs_tell_apart_covers_the_true_spread():
    draws = np.random.default_rng(0).normal(0, 0.3, (1000, 10))
    found = [walk.resolved(pd.Series(row)) for row in draws]
    true = math.exp(0.3 * 1.959964 * 2**0.5)
    inside = np.mean([one["interval"][0] <= true <= one["interval"][1] for one in found])
    assert 0.93 < inside < 0.97
    spread = np.mean([math.log(one["value"]) ** 2 for one in found]) ** 0.5
    assert spread == pytest.approx(math.log(true), rel=0.05)
    assert walk.two_runs(pd.Series([1.0, 2.0, 4.0])) == pytest.approx(math.exp(2))


def test_a_lead_is_chosen_on_one_half_of_the_seeds_and_measured_on_the_other():
    half = np.repeat([0, 1], 4)
    effects = {
        "noise": pd.Series(np.array([-3.0, -5.0])[half] + jitter("a")),
        "reward": pd.Series(np.array([2.0, 1.0])[half] + jitter("b")),
        "scope": pd.Series(np.array([1.0, 9.0])[half]),  # largest of the others in the second half only
    }
    found = walk.ahead(effects, "noise")
    assert found["value"] == pytest.approx(
        math.exp(5 - 1)
    )  # in the second half, of what the first half chose
    assert found["n"] == {"seeds": 4}
    assert walk.ahead(effects, "reward")["value"] == pytest.approx(math.exp(1 - 5))
    turned = effects | {"noise": pd.Series(np.array([-3.0, 5.0])[half])}
    assert walk.ahead(turned, "noise")["value"] == pytest.approx(math.exp(-5 - 1))  # its sign did not hold


def test_a_factor_that_leads_from_one_end_is_held_against_the_others_at_the_other_end():
    found = built(SINGLE)
    assert walk.leads_from_both(found, "examples", "nMSE")["value"] == pytest.approx(4 / 2)
    without = found.runs["walk", "stated-reward"]
    high = replace(without, nmse={0.0: without.nmse[0.0] * 40})  # from the paper the reward now has 1 / 20
    runs = walk.Runs(found.runs | {("walk", "stated-reward"): high})
    lost = walk.leads_from_both(walk.Walk(runs, found.beside), "best", "nMSE")
    assert lost["value"] == pytest.approx(8 / 20)  # best-of-n doubles with the noise, whose effect is 1 / 8


# Gradient descent


@pytest.mark.parametrize("reward", ["cosine", "squared_distance"])
@pytest.mark.parametrize("noise", ["shared", "own"])
def test_references_are_those_of_the_whole_prompts(noise, reward):
    config = RunConfig(noise=noise, reward=reward, d=3, N=16)
    found = walk.references(config, (0, 3), prompts=16, start=5)
    for k, seed in enumerate((0, 3)):
        batch = walk.first(sweep.own_prompts(config, seed), 16)
        assert batch.noise == noise and len(batch.good) == 16
        for n in (2, 14):
            start, at = torch.Generator().manual_seed(5 + seed), torch.tensor([n])
            rules = {walk.GD: baselines.descend(batch, at, start, reward=reward)}
            rules[walk.BEST] = baselines.best_response(batch, at)
            for name, predicted in rules.items():
                for measure, expected in zip(("nmse", "error"), sweep.means(predicted, batch), strict=True):
                    torch.testing.assert_close(
                        found[name].at(n, measure)[k], expected[0], atol=1e-6, rtol=1e-5
                    )


def test_a_walk_computes_references_once_for_each_noise_and_reward(monkeypatch):
    asked = []

    def recorded(config, seeds, prompts, start):
        asked.append((config.noise, config.reward, seeds, prompts, start))
        return {}

    monkeypatch.setattr(walk, "references", recorded)
    runs = walk.Runs(built(SINGLE).runs)
    runs["ci", "base"] = runs["walk", "stated"]
    made_of = walk.Walk.of(runs, prompts=7, start=2)
    assert len(asked) == 4 == len(made_of.beside)
    assert {one[2:] for one in asked} == {(SEEDS, 7, 2)}


def test_fewer_steps_are_held_against_fifty_under_the_same_rewards():
    config = RunConfig(noise="own", reward="squared_distance", d=3, N=16)
    assert walk.fewer_steps(config, (0, 1), 0.0, prompts=4).tolist() == [0.0, 0.0]
    gaps = walk.fewer_steps(config, (0, 1), 1.0, prompts=4)
    batch = walk.first(sweep.own_prompts(config, 1, walk.Critic("replace", 1.0)), 4)
    several = [walk.descended(batch, 14, 1, config.reward, steps)[0].item() for steps in (50, 25)]
    assert gaps[1] == pytest.approx(math.log(several[0] / several[1])) and gaps[1] != 0


def test_more_prompts_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="at most the 512 prompts"):
        walk.first(sweep.own_prompts(RunConfig(), 0), 513)


# Sweeps that are not there


def test_a_sweep_that_is_not_stored_is_missing_and_a_damaged_one_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "path", lambda scale, name: tmp_path / f"{scale}-{name}.json")
    wanted = {"walk": ("released", "stated"), "ci": ("base",)}
    runs = walk.at_hand(wanted)
    assert not runs
    with pytest.raises(walk.Missing, match="The sweep walk-released is not stored"):
        walk.Walk.of(runs).effects("released", "few", "nMSE")
    (tmp_path / "ci-base.json").write_text(json.dumps({"schema": sweep.SCHEMA}))
    with pytest.raises(results.ResultError, match="ci-base"):
        walk.at_hand(wanted)


@pytest.mark.parametrize("there", [(), ("released",), ("stated", "stated-noise")])
def test_a_page_without_some_sweeps_says_so(there):
    whole = built(SINGLE)
    kept = walk.Walk(walk.Runs({("walk", name): whole.runs["walk", name] for name in there}), whole.beside)
    criteria = dict.fromkeys(walk.CONCLUSIONS, ABOVE)
    table = walk_shown.verdicts(kept, "nMSE", criteria)
    assert len(table) == 48 and table["value"].notna().sum() == 4 * len(there)
    assert not table["moved"].any() or "stated-noise" in there
    effects = walk_shown.table_of_effects(kept, "nMSE", criteria)
    assert effects["value"].isna().all() and (walk_shown.wide(effects)[[*walk.CONCLUSIONS]] == "").all(
        axis=None
    )
    assert walk_shown.moves(effects, "noise") == walk_shown.changes(table, "noise") == walk_shown.NONE
    assert walk_shown.order(effects, "stated", "few") == walk_shown.NONE
    fig = walk_shown.figure(table, "nMSE", 1.25)
    assert len(fig.axes) == 8
    plt.close(fig)


# What the page shows


def test_verdicts_are_marked_where_they_differ_from_those_of_their_end():
    effects = SINGLE | {"noise": 4.0, "reward": 1.0}
    table = walk_shown.verdicts(built(effects), "nMSE", dict.fromkeys(walk.CONCLUSIONS, ABOVE))
    own = table[table["conclusion"] == "examples"].set_index(["end", "changed"])
    assert own.loc[("released", "unchanged"), "value"] == pytest.approx(0.5 / 0.8)
    assert own.loc[("released", "unchanged"), "verdict"] == "contradicted"
    assert own.loc[("released", "noise"), "verdict"] == "supported"
    moved = {end: [*own.loc[end][own.loc[end]["moved"]].index] for end in walk.ENDS}
    assert moved == {"released": ["noise"], "stated": ["noise"]}
    words = walk_shown.changes(table[table["conclusion"] == "examples"], "noise")
    assert words == "from the code examples (supported); from the paper examples (contradicted)"


def test_words_say_what_moves_and_in_which_order():
    differs = Criterion("differs", at=1, sesoi=1.25, scale="ratio")
    effects = walk_shown.table_of_effects(built(SINGLE), "nMSE", dict.fromkeys(walk.CONCLUSIONS, differs))
    same = "many ×0.7, examples ×0.7, best ×0.7"
    assert walk_shown.moves(effects, "scope") == f"from the code {same}; from the paper {same}"
    assert walk_shown.moves(effects, "steps") == "from the code none; from the paper none"
    order = walk_shown.order(effects, "stated", "examples")
    assert order == "noise ×0.25, reward ×2, loss ×0.7, tokens ×1.1, steps ×1"
    wide = walk_shown.wide(effects).set_index(["factor", "end"])
    assert [*wide.columns] == [*walk.CONCLUSIONS] and len(wide) == 10
    assert wide.loc[("noise", "stated"), "examples"].startswith("0.25 [0.24")


@pytest.mark.parametrize(("least", "most"), [(0.8, 1.3), (0.7, 3), (0.02, 1.3), (0.7, 300), (1e-3, 30)])
def test_ticks_of_a_ratio_hold_1_and_do_not_touch(least, most):
    fig, ax = plt.subplots()
    ax.plot([least, most], [0, 1])
    walk_shown._ratios(ax)
    low, high = ax.get_xlim()
    places = [math.log(tick / low) / math.log(high / low) for tick in ax.get_xticks()]
    assert 1 in ax.get_xticks() and len(places) > 1
    assert min(np.diff(places)) > walk_shown.APART and 0 <= min(places) and max(places) <= 1
    plt.close(fig)


def test_words_say_which_verdicts_depend_on_the_measure():
    rows = [
        {"changed": changed, "end": end, "conclusion": name, "verdict": "supported"}
        for changed in ("unchanged", "noise")
        for end in walk.ENDS
        for name in walk.CONCLUSIONS
    ]
    one = pd.DataFrame(rows)
    other = one.copy()
    assert walk_shown.differing(one, other) == "as released none; as stated none"
    other.loc[(one["end"] == "stated") & (one["conclusion"] == "many"), "verdict"] = "open"
    assert walk_shown.differing(one, other) == "as released none; as stated many (supported, open)"
    other["verdict"] = ""
    assert walk_shown.differing(one, other) == walk_shown.NONE
