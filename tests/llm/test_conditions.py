"""Conditions and effects: a known critic effect is recovered, and where there is none nothing is found too often."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llm_items import item, reading, record, records
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from ica.llm.analysis import conditions, effects, selfcheck
from ica.llm.analysis.statistics import Estimate, score_interval, wilson
from ica.llm.protocol.readings import rated
from ica.llm.protocol.results import Reading

SOURCE = {"calls": {"computed": 1, "seconds": 1.0}, "peak_gib": 1.0, "commit": "a", "dirty": False, "hardware": {"cpu": "b"}}  # fmt: skip


def of(found: list[dict]) -> Reading:
    model = {"name": "simulated", "sha256": "0" * 64, "parameters": 1, "chat": False}
    return Reading("live", model, {"source": "none", "sha256": "1"}, found, [SOURCE])


def shift_of(reading: list[float], option: int) -> float:
    return float(torch.tensor(reading, dtype=torch.float64).log_softmax(-1)[option])


def test_critics_pick_the_reading_that_their_verdict_gives():
    one = item(1, condition="disambiguated")
    right, wrong = (record(one, first, 4.0, -4.0, verdict=False) for first in (one.gold, (one.gold + 1) % 3))
    table = conditions.again([right, wrong | {"id": "another"}])
    kept = table.pivot(index="id", columns="critic", values="kept")
    for name, answer, praised in ((right["id"], one.gold, "right"), ("another", (one.gold + 1) % 3, "wrong")):
        core = (right if name == right["id"] else wrong)["core"]
        blamed = {"right": "wrong", "wrong": "right"}[praised]
        assert kept.loc[name, "true"] == pytest.approx(shift_of(core[f"again/{praised}"], answer))
        assert kept.loc[name, "wrong"] == pytest.approx(shift_of(core[f"again/{blamed}"], answer))
        assert kept.loc[name, "none"] == pytest.approx(shift_of(core["again/unchecked"], answer))
        assert kept.loc[name, "own"] == pytest.approx(shift_of(core["again/wrong"], answer))


def test_random_critics_lie_on_a_line_between_the_true_one_and_the_coin():
    table = conditions.again(records(2, 4.0, -4.0)).groupby("critic")["accuracy"].mean()
    line = [table[conditions.random_name(p)] for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.diff(line, 2) == pytest.approx([0, 0, 0]) and line[0] == pytest.approx(table["true"])
    assert line[-1] == pytest.approx((table["true"] + table["wrong"]) / 2)
    assert table["true"] > table["none"] > table["wrong"]


def test_relative_verdicts_hold_one_option_for_right():
    one = item(0)
    good, bad = (record(one, 1, 0.0, 0.0, verdict) for verdict in (True, False))
    assert conditions.first([good])["relative"].item() and not conditions.first([bad])["relative"].item()


@pytest.mark.parametrize("effect", [0.0, 0.4])
def test_the_contrast_is_recovered_and_its_interval_holds_it(effect):
    noise = np.random.default_rng(9).normal(
        0, 0.3, (100_000, 2)
    )  # what `records` adds, so that the truth is known
    shares = [np.log(1 / (1 + 2 * np.exp(-2.0 - by - noise[:, k]))) for k, by in ((0, effect), (1, -effect))]
    truth, held, found = (shares[0] - shares[1]).mean(), 0, 0
    for seed in range(40):
        table = effects.contrast(of(records(3, effect, -effect, seed)))
        d = effects.over_items(table["contrast"].to_numpy(), table["category"])
        held += d.lo <= truth <= d.hi
        found += d.lo > 0
    assert held >= 33  # 40 intervals of 95 %: fewer has probability 1e-3
    assert found <= 6 if effect == 0 else found == 40  # 40 runs at 2.5 %: more than 6 has probability 1e-4


def test_paired_effects_use_the_items_that_both_have():
    left, right = effects.firsts(of(records(2, 0, 0))), effects.firsts(of(records(2, 0, 0)))
    right["accuracy"] += 0.5
    d = effects.paired(right.iloc[:-4], left, "accuracy")
    assert d.estimate == pytest.approx(0.5) and d.n == len(left) - 4 and d.lo < 0.5 < d.hi
    nats = [table.assign(shift=table["accuracy"]) for table in (right.iloc[:-4], left)]
    assert effects.paired(*nats, "shift").lo == pytest.approx(0.5)  # no shares: the bootstrap's alone
    left["accuracy"], right["accuracy"] = (
        0.0,
        (right["category"] == "Age").astype(float),
    )  # alike within each category
    d = effects.paired(right, left, "accuracy")
    assert d.estimate > 0 > d.lo
    with pytest.raises(ValueError):
        effects.paired(right.iloc[[0, 0]], left, "accuracy")


def test_items_that_all_agree_are_not_certain():
    table = effects.firsts(of(records(2, 0, 0)))
    d = effects.paired(table, table, "accuracy")
    assert d.estimate == 0 and -0.2 < d.lo < 0 < d.hi < 0.2
    one = effects.over_items(np.ones(8), table["category"].iloc[:8])
    assert one.estimate == one.hi == 1 and 0.4 < one.lo < 1


def test_shares_stay_within_their_range():
    names = effects.firsts(of(records(1, 0, 0)))["category"]
    d = effects.share(np.zeros(22), names)
    assert (d.estimate, d.lo) == (0, 0) and 0.1 < d.hi < 0.2
    d = effects.share(np.full(22, 0.5), names)
    assert d.estimate == 0.5 and (d.lo, d.hi) == pytest.approx(score_interval(0.5, 22))
    d = effects.share(np.arange(22) / 21, names)
    assert d.estimate == pytest.approx(0.5) and 0.45 < d.lo < 0.49


def test_a_claim_rests_on_no_interval_without_width():
    found = Estimate(0.75, 0.5, 0.9, 12)
    assert effects.part(found, 0.5) == {"value": 0.25, "interval": (0.0, 0.4), "n": {"items": 12}}
    words = Estimate(0.5, 0.0, 1.0, 3, {"prompts": 3, "words": 2})
    assert effects.part(words)["n"] == {"prompts": 3, "words": 2}
    for lo, hi in ((0.5, 0.5), (np.nan, np.nan)):
        with pytest.raises(ValueError, match="interval of some width .* untestable"):
            effects.part(Estimate(0.5, lo, hi, 3))


def test_models_are_averaged_for_each_item_and_one_model_counts_once():
    one, two = (effects.firsts(of(records(2, 0, 0, seed))) for seed in (0, 1))
    both = effects.averaged([one, two], "accuracy")
    assert len(both) == len(one)
    by = both.set_index("id")["accuracy"]
    expected = (one.set_index("id")["accuracy"] + two.set_index("id")["accuracy"]) / 2
    assert by.sort_index().tolist() == expected.sort_index().tolist()
    assert effects.averaged([], "accuracy").empty and effects.pooled([], [], "accuracy") is None
    better = [t.assign(accuracy=t["accuracy"] + 0.5) for t in (one, two)]
    found = effects.pooled(better, [one, two], "accuracy")
    assert found["value"] == pytest.approx(0.5) and found["n"] == {"items": len(one)}
    readings = [of([]), of([])]
    assert effects.distinct(readings) == readings[1:]


def test_own_rounds_are_held_against_being_asked_again():
    found = records(2, 0, 0)
    for one in found:
        one["core"]["answer"], other = one["gold"], (one["gold"] + 1) % 3
        one["rounds"] = {
            f"{critic}/answers": [other, one["gold"], other] for critic in ("true", "wrong", "none")
        }
        one["rounds"]["own/answers"] = [one["gold"], one["gold"], one["unknown"]]
    table = effects.own_rounds(of(found)).set_index(["round", "kind"])
    assert len(table) == 9 and table.loc[(1, "all"), "items"] == 44
    wanted = {(1, "all"): 1, (2, "all"): 0, (3, "ambiguous"): 1, (3, "disambiguated"): 0}
    assert {key: table.loc[key, "difference"] for key in wanted} == pytest.approx(wanted)
    assert table.loc[(3, "ambiguous"), "unknown"] == pytest.approx(1)
    assert effects.own_rounds(of(records(2, 0, 0))).empty


def triplet_record(one, name: str, chosen: int) -> dict:
    made = record(one, one.gold, 0, 0, True)
    return made | {"triplets": {"shown": [2, 0, 1], name: reading(chosen)}}


@pytest.mark.parametrize("chosen", range(3))
def test_alignment_follows_the_scores_and_not_the_truth(chosen):
    one = item(4, condition="disambiguated")
    for name, level in (("noise/1", 1.0), ("swapped", "swapped"), ("noise/0", 0.0)):
        (row,) = conditions.triplets([triplet_record(one, name, chosen)]).to_dict("records")
        scores = rated(one.id, one.gold, level)
        assert row["aligned"] == (scores[chosen] == max(scores))
        assert row["accuracy"] == (chosen == one.gold) and row["chance"] == scores.count(max(scores)) / 3
        assert [2, 0, 1][row["place"]] == max([2, 0, 1], key=scores.__getitem__)
        assert (row["lift"] > 0) == bool(row["aligned"])


def test_one_response_of_low_score_is_followed_by_choosing_another():
    one = item(3, condition="disambiguated")  # option 2 is shown, and is not right
    assert one.gold != 2
    for chosen in range(3):
        (row,) = conditions.triplets([triplet_record(one, "pairs/1", chosen)]).to_dict("records")
        assert row["aligned"] == (chosen != 2) and row["chance"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("pull", "push"), [(0.0, 0.0), (0.7, 0.7), (0.0, 0.7), (0.7, -0.2)])
def test_exchanged_scores_show_what_a_score_does_to_its_response(pull, push):
    """`pull`: what the high score adds to the right option, `push`: to a wrong one."""
    rng, found = np.random.default_rng(0), []
    for k in range(20):
        one = item(k, condition="disambiguated")
        known = rng.normal(0, 3, 3)  # what the model holds of the options, and of their places
        contexts = {}
        for name, level in (("noise/0", 0.0), ("swapped", "swapped")):
            scores = np.array(rated(one.id, one.gold, level))
            added = np.where(np.arange(3) == one.gold, pull, push) * (scores == scores.max())
            contexts[name] = (known + added + rng.normal()).tolist()
        found.append(record(one, one.gold, 0, 0, True) | {"triplets": {"shown": [2, 0, 1]} | contexts})
    table = conditions.exchanges(found)
    assert table["right"].tolist() == pytest.approx([pull] * 20, abs=1e-9)
    assert table["wrong"].tolist() == pytest.approx([push] * 20, abs=1e-9)
    assert table["contrast"].tolist() == pytest.approx([(pull + push) / 2] * 20, abs=1e-9)
    assert conditions.exchanges(records(2, 0, 0)).empty


def test_places_count_where_the_answer_was_shown():
    made = record(
        item(0), 0, 0, 0, True
    )  # always option 0, which the rotations show first, last and in the middle
    table = conditions.places([made])
    assert table["chosen"].tolist() == pytest.approx([1 / 3] * 3)
    made["core"] |= {
        "first/0": reading(0),
        "first/1": reading(1),
        "first/2": reading(2),
    }  # always the first shown
    assert conditions.places([made])["chosen"].tolist() == [1.0, 0.0, 0.0]


def test_balanced_is_one_half_for_a_judge_of_one_word():
    table = effects.firsts(of(records(6, 0, 0)))
    for verdict in (True, False):
        d = selfcheck.balanced(table.assign(verdict=verdict))
        assert d.estimate == 0.5 and 0.45 < d.lo < 0.5 < d.hi < 0.55, "alike is not certain"
    knows = selfcheck.balanced(table.assign(verdict=table["right"]))
    assert knows.estimate == knows.hi == 1.0 and 0.9 < knows.lo < 1
    for right in (True, False):
        d = selfcheck.balanced(table.assign(right=right))
        assert (d.estimate, d.lo, d.hi) == (0.5, 0, 1)
        assert selfcheck.too_few(table.assign(right=right)).startswith(("132 right and 0", "0 right and 132"))
    assert not selfcheck.too_few(table)


@given(st.integers(0, 12), st.integers(0, 20))
def test_the_interval_of_balanced_agrees_with_statsmodels(hits, alarms):
    right = np.arange(32) < 12
    verdict = np.concatenate([np.arange(12) < hits, np.arange(20) < alarms])
    d = selfcheck.balanced(pd.DataFrame({"right": right, "verdict": verdict}))
    other = confint_proportions_2indep(hits, 12, alarms, 20, method="newcomb")
    assert (2 * d.lo - 1, 2 * d.hi - 1) == pytest.approx(other)


def test_ranking_is_the_area_under_the_roc_curve_within_strata():
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {"odds": rng.integers(0, 4, 80).astype(float), "right": rng.random(80) < 0.4}
        | {"category": np.repeat(["Age", "Religion"], 40)}
        | {"condition": np.tile(["ambiguous", "disambiguated"], 40)}
    )
    won, pairs = 0.0, 0
    for _, part in table.groupby(["category", "condition"]):
        right, wrong = part.loc[part["right"], "odds"], part.loc[~part["right"], "odds"]
        won += stats.mannwhitneyu(right, wrong).statistic
        pairs += len(right) * len(wrong)
    d = selfcheck.ranking(table)
    assert d.estimate == pytest.approx(won / pairs) and d.lo < d.estimate < d.hi and d.n == 80
    for column in ("category", "condition"):
        easy = table[column] == table[column].iloc[0]
        moved = table.assign(odds=table["odds"] + 9 * easy)
        assert selfcheck.ranking(moved).estimate == pytest.approx(d.estimate)
    assert np.isnan(selfcheck.ranking(table.assign(right=True)).estimate)


def test_the_interval_of_a_ranking_is_no_point_and_wide_in_small_strata():
    few = pd.DataFrame(
        {"odds": [1.0, 0.0] * 12, "right": [True, False] * 12, "condition": "ambiguous"}
        | {"category": np.repeat(np.arange(12).astype(str), 2)}
    )
    d = selfcheck.ranking(few)
    assert (d.estimate, d.hi, d.n) == (1.0, 1.0, 24) and d.lo == pytest.approx(wilson(12, 12)[0])
    tied = selfcheck.ranking(few.assign(odds=0.0))
    assert tied.estimate == 0.5 and (tied.lo, tied.hi) == pytest.approx(wilson(6, 12))
    assert np.isnan(selfcheck.ranking(few.iloc[:18]).estimate), "nine pairs"
    few.loc[0, "odds"] = -1.0
    one = selfcheck.ranking(few, draws=20_000)
    # by hand: a resampled stratum of two items holds its pair in half of the draws, and 11 of the 12 pairs are won
    held = np.random.default_rng(8).random((20_000, 12)) < 0.5
    shares = (held @ [0, *[1] * 11])[held.any(1)] / held.sum(1)[held.any(1)]
    below = np.quantile(shares - 11 / 12, 0.025) * np.sqrt(2)
    assert one.estimate == pytest.approx(11 / 12) and one.lo == pytest.approx(11 / 12 + below, abs=0.03)


@pytest.mark.parametrize(("lift", "least", "most"), [(0.0, 2, 18), (0.8, 190, 200)])
def test_ranking_has_power_and_finds_nothing_where_nothing_is(lift, least, most):
    found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        right = rng.random(180) < 0.5
        table = pd.DataFrame(
            {"odds": rng.normal(size=180) + lift * right, "right": right}
            | {"category": np.repeat(np.arange(9).astype(str), 20), "condition": "disambiguated"}
        )
        d = selfcheck.ranking(table, draws=200)
        found += d.lo > 0.5 or d.hi < 0.5
    assert least <= found <= most


def test_kinds_part_the_answers():
    found = records(4, 0, 0)
    for one in found[1::4]:
        one["core"]["answer"] = one["unknown"]
    kinds = selfcheck.kinds(of(found))
    clear, named = kinds["disambiguated"], kinds["disambiguated, a person named"]
    assert set(kinds["ambiguous"]["condition"]) == {"ambiguous"} and len(kinds["ambiguous"]) == 44
    assert set(clear["condition"]) == {"disambiguated"} and 0 < len(named) < len(clear)
    assert (named["chosen"] != named["unknown"]).all()


def told_odds(found: list[dict]) -> None:
    """Log-odds by category, all below zero: the critic calls everything wrong."""
    for k, one in enumerate(found):
        place = sorted({other["category"] for other in found}).index(one["category"])
        for option in range(3):
            one["core"][f"check/{option}"] = [-9.0 + 0.5 * place + 0.1 * (k % 8), -0.1]


def test_a_calibrated_critic_takes_its_threshold_from_other_categories():
    found = records(8, 1.0, -4.0)
    told_odds(found)
    after = selfcheck.calibrated(of(found)).set_index("id")
    for one in found:
        right, wrong = one["core"]["check/0"]
        others = [
            other["core"]["check/0"][0] - other["core"]["check/0"][1]
            for other in found
            if other["category"] != one["category"]
        ]
        says = bool(right - wrong > np.median(others))
        row = after.loc[one["id"]]
        second = one["core"]["again/right" if says else "again/wrong"]
        assert row["verdict"] == says and row["chosen"] == int(np.argmax(second))
        assert row["accuracy"] == (row["chosen"] == one["gold"])
    assert len(found) == len(after) and 0.3 < after["verdict"].mean() < 0.7
    assert not effects.firsts(of(found))["verdict"].any()


def test_no_truth_enters_a_calibrated_critic():
    found = records(8, 1.0, -4.0)
    told_odds(found)
    before = selfcheck.calibrated(of(found))
    for one in found:
        one["gold"] = (one["gold"] + 1) % 3
    after = selfcheck.calibrated(of(found))
    assert before["verdict"].tolist() == after["verdict"].tolist()
    assert before["chosen"].tolist() == after["chosen"].tolist()
    assert before["accuracy"].tolist() != after["accuracy"].tolist()
    with pytest.raises(ValueError, match="needs two categories, got 1"):
        selfcheck.calibrated(of([one for one in found if one["category"] == "Age"]))


def test_calibration_holds_the_critic_against_the_control_and_a_coin():
    found = records(8, 1.0, -4.0)
    for k, one in enumerate(found):  # the log-odds know the truth; the threshold does not
        for option in range(3):
            one["core"][f"check/{option}"] = [-4.0 + (option == one["gold"]) + 0.001 * (k % 7), -0.1]
    table = selfcheck.calibration(of(found)).set_index("kind")
    after = selfcheck.calibrated(of(found))
    often = after["verdict"].mean()
    coin = often * after["if_right"].mean() + (1 - often) * after["if_wrong"].mean()
    assert table.loc["all", "coin"] == pytest.approx(coin) and table.loc["all", "says right"] == often
    said = np.where(after["verdict"], after["if_right"], after["if_wrong"])
    assert said.tolist() == after["accuracy"].tolist()
    assert table.loc["all", "coin_less"] == pytest.approx(table.loc["all", "calibrated"] - coin)
    assert table.loc["all", "coin_less_lo"] > 0 and table.loc["all", "items"] == len(found)
    blind = records(8, 1.0, -4.0)
    told_odds(blind)
    none = selfcheck.calibration(of(blind)).set_index("kind").loc["all"]
    assert none["coin_less_lo"] < 0 < none["coin_less_hi"]


def test_calibration_is_empty_where_it_cannot_be():
    found = records(2, 1.0, -4.0)
    one = selfcheck.calibration(of([r for r in found if r["category"] == "Age"]))
    assert one["calibrated"].isna().all() and (one["items"] == 0).all()
    some = [r for r in found if r["condition"] == "ambiguous"]
    few = selfcheck.calibration(of(some)).set_index("kind")
    assert few.loc["disambiguated", "items"] == 0 and np.isnan(few.loc["disambiguated", "control"])
    assert few.loc["all", "control"] == few.loc["ambiguous", "control"]


def test_the_table_of_self_checks_says_what_each_model_does():
    table = selfcheck.accuracy_table([of(records(4, 0, 0))])
    row, *kinds = table.to_dict("records")
    assert sum(one["items"] for one in kinds) == row["items"]
    first = effects.firsts(of(records(4, 0, 0)))
    assert row["agreement"] == pytest.approx((first["verdict"] == first["right"]).mean())
    assert row["called wrong"] == pytest.approx(1 - first["verdict"].mean()) and row["items"] == len(first)


def test_a_real_correlation_is_found_with_the_control():
    rng, found = np.random.default_rng(0), []
    for one in records(10, 0, 0):
        knows = ["Age", "SES", "Religion", "Nationality", "Race_x_SES"].count(one["category"]) > 0
        first, gold = one["core"]["answer"], one["gold"]
        verdict = (first == gold) if knows or rng.random() < 0.2 else bool(rng.random() < 0.5)
        core = one["core"] | {f"check/{k}": [-0.5, -1.0] if verdict else [-1.0, -0.5] for k in range(3)}
        core |= {
            "again/right": reading(first),
            "again/wrong": reading(gold if first != gold else (gold + 1) % 3),
        }
        found.append(one | {"core": core})
    c = selfcheck.correlation(of(found), "gain_over_control")
    assert c.p_apart < 0.05 and c.corrected > 0.5 and c.lo > 0 and not c.untestable
    few = selfcheck.correlation(of([one for one in found if one["category"] in ("Age", "SES", "Religion")]))
    assert few.untestable.startswith("3 categories of 4 items or more") and np.isnan(few.p_apart)
