"""Critics that are taught: results as they are stored, and what the runs say together, on answers made so that it is known."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ica.llm.taught import results, settings, study
from ica.llm.taught.evaluate import CRITICS, EVERY, ROUNDS, SCORED, rated, word_of
from ica.llm.taught.items import held_out
from ica.llm.taught.settings import ARMS, GRADED, Arm, Recipe

N, STEPS = 90, 2
RECIPE = Recipe(first=STEPS, steps=STEPS)


def columns(seed: int, heeds: bool, odds: float) -> dict:
    """Answers of a model whose critic is right with probability `odds`, and which heeds a verdict perfectly or not at all."""
    rng = np.random.default_rng(seed)
    gold, first = rng.integers(3, size=N), rng.integers(3, size=N)
    held = np.where(np.arange(3) == gold[:, None], odds, 1 - odds)
    other = np.where(rng.random(N) < 0.5, (first + 1) % 3, (first + 2) % 3)
    after = {"unchecked": first, "right": first, "wrong": other if heeds else first}
    some = range(0, N, EVERY)
    deep = {name: [[int(first[k])] * ROUNDS for k in some] for name in CRITICS}
    deep |= {name: [int(first[k]) for k in some] for name in SCORED}
    facts = {"id": [f"{seed}-{k}" for k in range(N)], "category": [None] * N}
    facts["condition"] = ["ambiguous" if k % 2 else "disambiguated" for k in range(N)]
    numbers = {"gold": gold, "first": first, "held": held.round(4)} | after
    return facts | {name: value.tolist() for name, value in numbers.items()} | {"deep": deep}


def content(arm: Arm, seed: int) -> dict:
    """A stored run: a critic that is right nine times in ten, turned round with the arm's noise; seeds share their items."""
    odds = (0.9 * (1 - arm.noise) + 0.1 * arm.noise) if arm.critic else 0.5
    asked = {name: columns(k, arm.user, odds) for k, name in enumerate(results.SETS)}
    return {
        "schema": results.SCHEMA,
        "arm": arm.as_dict(),
        "seed": seed,
        "recipe": asdict(RECIPE),
        "model": {"name": "made", "sha256": "0", "parameters": 1},
        "items": "0",
        "losses": [1.0] * 2 * STEPS,
        "asked": asked,
        "provenance": {"code": "c"},
    }


def kept(folder: Path, arms=ARMS, seeds=settings.SEEDS) -> Path:
    for name in arms:
        for seed in seeds:
            results.write(folder / f"{settings.stem(name, seed)}.json", content(ARMS[name], seed))
    return folder


def test_results_are_read_as_they_were_written(tmp_path):
    runs = results.stored(kept(tmp_path))
    assert list(runs) == list(ARMS) and all(list(by_seed) == [0, 1, 2] for by_seed in runs.values())
    path = tmp_path / "both-seed0.json"
    assert results.current(path, ARMS["both"], 0, RECIPE, "c")
    assert not results.current(path, ARMS["both"], 0, RECIPE, "d")
    assert not results.current(path, ARMS["both"], 0, Recipe(), "c")
    assert not results.current(tmp_path / "none.json", ARMS["both"], 0, RECIPE, "c")
    assert results.stored(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.pop("asked"), "asked is missing"),
        (lambda one: one.update(schema=9), "it has format 9; accepted: 2"),
        (lambda one: one.update(seed=1), "it holds both-seed1"),
        (lambda one: one.update(losses=[1.0]), "losses must be 4 numbers"),
        (lambda one: one["asked"]["bbq"].update(first=[3] * N), "first must be 90 positions of options"),
        (lambda one: one["asked"]["bbq"].update(held=[[2, 0, 0]] * N), "held must be 90 triples"),
        (lambda one: one["asked"]["bbq"].update(condition=["odd"] * N), "condition must be one of"),
        (lambda one: one["asked"]["bbq"].pop("deep"), "deep"),
    ],
)
def test_a_damaged_result_is_named_with_what_mends_it(tmp_path, change, said):
    path = kept(tmp_path, ["both"], [0]) / "both-seed0.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(results.TaughtError, match=f'{said}.*make taught RUNS="both-seed0"'):
        results.read(path)


def test_runs_of_two_recipes_are_not_pooled(tmp_path):
    kept(tmp_path, ["both"], [0])
    other = content(ARMS["user"], 0) | {"provenance": {"code": "d"}}
    results.write(tmp_path / "user-seed0.json", other)
    with pytest.raises(results.TaughtError, match="2 recipes or codes"):
        results.stored(tmp_path)


def test_accuracies_under_critics_by_hand(tmp_path):
    answers = results.read(kept(tmp_path, ["both"], [0]) / "both-seed0.json").asked["bbq"]
    right = answers.first == answers.gold
    left = answers.after["wrong"] == answers.gold
    assert np.array_equal(answers.accuracy("first"), right) and np.array_equal(
        answers.accuracy("none"), right
    )
    assert np.allclose(answers.accuracy("true"), np.where(right, 1, left))
    assert np.allclose(answers.accuracy("wrong"), 0)
    assert np.allclose(answers.accuracy("random"), np.where(right, 0.5, 0.5 * left))
    assert np.allclose(answers.accuracy("own"), np.where(right, 0.9, 0.9 * left))
    assert np.allclose(answers.accuracy("own_likelier"), answers.accuracy("true"))
    assert np.allclose(answers.critic(), 0.9) and np.allclose(answers.critic(likelier=True), 1)
    with pytest.raises(ValueError, match="critic must be one of"):
        answers.accuracy("nobody")


def test_dose_and_response_of_a_perfect_user_and_of_none(tmp_path):
    """A perfect user with first accuracy a gains (1 + a)/2 for each unit of the critic's accuracy, who heeds nothing gains none."""
    runs = results.stored(kept(tmp_path))
    answers = runs["both"][0].asked["bbq"]
    a, left = answers.first_right.mean(), (answers.after["wrong"] == answers.gold).mean()
    assert np.allclose(study.doses(runs)[1], [0.9 - 0.8 * level for level in GRADED], atol=1e-3)
    with_, without = (study.estimate(study.slope(runs, user)) for user in (True, False))
    assert with_["value"] == pytest.approx(a + left, abs=1e-3) and with_["n"] == {"seeds": 3, "items": N}
    assert without["value"] == pytest.approx(0, abs=1e-9)
    assert study.estimate(study.apart(runs))["value"] == pytest.approx(a + left, abs=1e-3)
    gained = study.part(runs, "both", study.gain())["value"] - study.part(runs, "user", study.gain())["value"]
    assert study.estimate(study.interaction(runs))["value"] == pytest.approx(gained)
    table = study.dosed(runs)
    assert len(table) == 30 and table.groupby("model")["gain"].std().min() < 1e-9


def test_a_slope_takes_the_levels_that_are_stored_and_at_least_three(tmp_path):
    runs = results.stored(kept(tmp_path))
    part = {arm: found for arm, found in runs.items() if arm not in ("both-0.25", "both-0.75")}
    part["both-0.25"] = {0: runs["both-0.25"][0]}
    seeds, levels = study.graded(part)
    assert seeds == [0, 1, 2] and list(levels) == [0, 0.5, 1]
    assert study.estimate(study.apart(part))["value"] == pytest.approx(
        study.estimate(study.apart(runs))["value"], abs=1e-3
    )
    del part["both-0.5"]
    with pytest.raises(study.Missing, match="one of both-0.25, both-0.5, both-0.75 with the seeds of both"):
        study.graded(part)


def test_claims_are_measured_or_not_testable_by_what_is_stored(tmp_path):
    runs = results.stored(kept(tmp_path))
    every = study.claims(runs)
    for id, parts in every.items():
        for found in parts().values():
            lo, hi = found["interval"]
            assert lo <= found["value"] <= hi and lo < hi, id
    some = {"both": runs["both"]}
    for id in (
        "t-interaction",
        "t-dose",
        "t-dose-without",
        "t-dose-apart",
        "t-uses",
        "t-uses-not",
        "t-critic",
    ):
        with pytest.raises(study.Missing, match="Precomputed runs are not at hand"):
            study.claims(some)[id]()
    assert study.claims(some)["t-gain"]()["over the control"]["n"]["seeds"] == 3
    assert study.dosed(some).empty and set(study.corners(some)["arm"]) == {"both"}
    flat = {arm: runs["both"] for arm in ARMS}
    with pytest.raises(study.Missing, match=r"differ by 0\.00 only"):
        study.doses(flat)


def test_critics_in_the_evaluation_speak_of_the_answer_before_them():
    item = held_out(1)[0].item
    other = (item.gold + 1) % 3
    assert [word_of("true", item, k, [0.0, 0.0, 0.0]) for k in (item.gold, other)] == ["right", "wrong"]
    held = [0.9 if k == other else 0.2 for k in range(3)]
    assert [word_of("own", item, k, held) for k in (item.gold, other)] == ["wrong", "right"]
    assert word_of("none", item, other, held) == "unchecked"
    assert {len(rated(item, kind)) for kind in SCORED} == {1, 2, 3}
    best = {kind: max(rated(item, kind), key=lambda pair: pair[1])[0] for kind in ("three", "swapped")}
    assert best["three"] == item.gold != best["swapped"]
