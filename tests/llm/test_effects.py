"""Agreement of two evaluations, differences by kind of item, and names beside points."""

import copy

import llm_items
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ica.llm.analysis import effects, plots, selfcheck
from ica.llm.protocol.results import Reading
from ica.record import figures


def reading(scale: str, sha: str, records: list[dict]) -> Reading:
    model = {"name": "smollm2", "sha256": sha, "parameters": 1}
    return Reading(scale, model, {"source": "bbq", "sha256": "1"}, records, [])


def record(id: str) -> dict:
    core = {"answer": 1, "first/0": [-1.0, -2.0, -3.0], "counts": [2, 2, 1]}
    rounds = {"own/2": [-0.5, -1.5, -2.5], "own/answers": [0, 1, 1]}
    return {"id": id, "core": core, "rounds": rounds}


def test_evaluations_that_agree_differ_by_nothing():
    stored = reading("ladder", "a", [record("one"), record("two"), record("three")])
    found = effects.agreement(reading("live", "a", [record("one"), record("two")]), [stored])
    assert found["log-probabilities"] == {"value": 0.0, "n": {"log-probabilities": 12, "items": 2}}
    assert found["chosen options"] == {"value": 0, "n": {"items": 2}}


def test_each_other_number_and_each_other_choice_is_found():
    stored = [record("one"), record("two")]
    other = copy.deepcopy(stored)
    other[0]["core"]["first/0"][2] += 0.25
    other[1]["rounds"]["own/answers"][2] = 2
    found = effects.agreement(reading("live", "a", other), [reading("ladder", "a", stored)])
    assert found["log-probabilities"]["value"] == 0.25 and found["chosen options"]["value"] == 1


def test_other_models_and_other_items_are_not_compared():
    stored = [reading("ladder", "a", [record("one")])]
    assert "none of the precomputed models" in effects.agreement(reading("live", "b", []), stored)
    assert "No item" in effects.agreement(reading("live", "a", [record("two")]), stored)
    with pytest.raises(ValueError, match="make ladder MODELS=gemma"):
        effects.named(stored, "gemma")


def test_small_p_values_are_no_zero():
    assert effects.p_text(3e-9) == "< 0.0001" and effects.p_text(0.01234) == "0.0123"


@pytest.mark.parametrize("seed", range(3))
def test_names_of_points_that_crowd_do_not_overprint(seed):
    figures.style()
    rng = np.random.default_rng(seed)
    names = ["Age", "Race_x_gender", "Nationality", "Religion", "Physical_appearance", "SES"]
    table = pd.DataFrame({"category": names, "x": 0.5 + rng.normal(0, 0.01, 6), "y": rng.normal(0, 0.01, 6)})
    fig, ax = plt.subplots(figsize=(7.2, 3.7))
    ax.plot(table["x"], table["y"], "o")
    ax.set(xlim=(0, 1), ylim=(-0.5, 0.5), xlabel="x", ylabel="y")
    plots.named_points([ax], [table], "x", "y")
    assert {text.get_text() for text in ax.texts} == {plots.short(name) for name in names}
    assert not figures.overprints(fig)
    plt.close(fig)


def test_the_main_table_has_a_row_for_each_model_and_condition():
    table = effects.main_table([reading("live", "a", llm_items.records(2, 2.0, -2.0))])
    assert (
        table["condition"].tolist()[:3] == ["first answer", "re-answer control", "self-critique"]
        and len(table) == 8
    )
    by = table.set_index("condition")
    assert by.loc["oracle critic", "accuracy"] > by.loc["inverted critic", "accuracy"]
    assert (table["lo"] <= table["accuracy"]).all() and (table["accuracy"] <= table["hi"]).all()


def test_the_simulated_model_without_effect_shows_what_each_test_does():
    equal = (selfcheck.without_effect(60, 0.0) <= 0.05).mean()
    unequal = (selfcheck.without_effect(60, 0.4) <= 0.05).mean()
    assert equal["plain"] > 0.4 and unequal["plain"] > 0.8
    assert equal["apart"] <= 0.1 and equal["controlled"] <= 0.1 and unequal["controlled"] <= 0.1
    sticky = (selfcheck.without_effect(60, 0.4, kept=1.0, items=24) <= 0.05).mean()
    assert sticky["controlled"] > 0.2  # a control that keeps the first answer is none
    for wrong in ({"spread": 0.9}, {"spread": 0.1, "kept": 2.0}):
        with pytest.raises(ValueError, match="must lie between"):
            selfcheck.without_effect(1, **wrong)
