"""Controls: majorities against draws, transitions and changes against counts by hand."""

import numpy as np
import pandas as pd
import pytest
from llm_items import item, items, reading, record

from ica.llm.analysis import conditions, controls, selfcheck
from ica.llm.protocol.results import Reading
from ica.record.record import Record

SOURCE = {"calls": {"computed": 1, "seconds": 1.0}}


def of(found: list[dict]) -> Reading:
    model = {"name": "simulated", "sha256": "0" * 64, "parameters": 1, "chat": False}
    return Reading("live", model, {"source": "none", "sha256": "1"}, found, [SOURCE])


def reviewed(one, first: int, unfair: bool, fair_word: int, unfair_word: int) -> dict:
    """A record whose bias review calls the answer biased or not, with the answers after either verdict."""
    block = {"first": reading(first), "answer": first, "instructed": reading(one.unknown)}
    block |= {"review": [-1.0, -0.5] if unfair else [-0.5, -1.0], "again/unchecked": reading(first)}
    block |= {"again/unbiased": reading(fair_word), "again/biased": reading(unfair_word)}
    return record(one, first, 0.0, 0.0, verdict=True) | {"review": block}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_majorities_are_those_of_draws(k):
    p = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]])
    found = controls.majority(p, k)
    assert found.sum(1) == pytest.approx(1)
    rng, draws = np.random.default_rng(k), 40_000
    for row, exact in zip(p, found, strict=True):
        counts = rng.multinomial(k, row, draws)
        top = counts == counts.max(1, keepdims=True)
        shares = (top / top.sum(1, keepdims=True)).mean(0)
        assert np.abs(shares - exact).max() < 4 * 0.5 / np.sqrt(draws)


def test_one_sample_is_the_distribution_and_many_are_the_first_answer():
    p = np.array([[0.4, 0.35, 0.25]])
    assert controls.majority(p, 1) == pytest.approx(p)
    gains = [controls.majority(p, k)[0, 0] for k in (1, 3, 5, 15, 45)]
    assert gains == sorted(gains) and controls.majority(p, 45)[0].argmax() == 0
    three = 0.4**3 + 3 * 0.4**2 * 0.6 + 2 * 0.4 * 0.35 * 0.25
    assert controls.majority(p, 3)[0, 0] == pytest.approx(three)


@pytest.mark.parametrize(("p", "k"), [([[0.5, 0.5, 0.5]], 3), ([[1.2, -0.2, 0.0]], 3), ([[1.0, 0, 0]], 0)])
def test_what_is_no_distribution_is_refused(p, k):
    with pytest.raises(ValueError, match="must"):
        controls.majority(np.array(p), k)


def test_samples_are_drawn_as_the_first_answer_is_chosen():
    one = record(item(0), 1, 0.0, 0.0, True)
    one["core"] |= {"counts": [1, 2, 4], "first/0": [-3.0, -6.0, -9.0]}
    by_token = np.exp([-3.0, -3.0, -2.25])
    whole = np.exp([-3.0, -6.0, -9.0])
    block = {"review": {"first": one["core"]["first/0"]}}
    for scores, flag in ((by_token, True), (whole, False)):
        found = controls.option_distribution(one | block, "review", flag)
        assert found == pytest.approx(scores / scores.sum())
    spread = controls.option_distribution(one, "core")
    assert spread.sum() == pytest.approx(1) and not np.allclose(spread, by_token / by_token.sum())


def test_the_own_review_is_the_likelier_verdict_and_the_oracle_knows():
    one = item(1, condition="disambiguated")
    wrong = (one.gold + 1) % 3
    for unfair in (True, False):
        found = conditions.reviewed([reviewed(one, wrong, unfair, wrong, one.gold)]).set_index("answer")
        assert found.loc["bias review", "chosen"] == (one.gold if unfair else wrong)
        assert found.loc["bias review", "biased review"] == unfair
        assert found.loc["oracle review", "chosen"] == one.gold  # a wrong answer is called biased
        assert found.loc["instruction control", "chosen"] == one.unknown
    right = conditions.reviewed([reviewed(one, one.gold, True, one.gold, wrong)]).set_index("answer")
    assert right.loc["oracle review", "accuracy"] == 1 and right.loc["bias review", "accuracy"] == 0


def simulated() -> Reading:
    """First answers right in half, each made "unknown" by a review that calls all of them biased."""
    some = items(4)
    firsts = [one.gold if k % 4 < 2 else (one.gold + 1) % 3 for k, one in enumerate(some)]
    return of([reviewed(one, a, True, a, one.unknown) for one, a in zip(some, firsts, strict=True)])


def test_transitions_count_what_became_of_each_answer():
    found = controls.transitions([simulated()])
    names = ["right stays", "right to wrong", "wrong to right", "wrong stays", "wrong to wrong"]
    assert (found[names].sum(axis=1) == found["items"]).all()
    told = found[found["answer"] == "bias review"].set_index("kind")
    ambiguous, clear = told.loc["ambiguous"], told.loc["disambiguated"]
    assert ambiguous["right to wrong"] == 0 and ambiguous["wrong to right"] == 22
    assert clear["wrong to right"] == 0 and clear["right to wrong"] == 22
    asked = found[found["answer"] == "re-answer control"]
    assert (asked[["right to wrong", "wrong to right", "wrong to wrong"]].to_numpy() == 0).all()


def test_where_nothing_changes_the_bound_is_exact():
    same = pd.DataFrame({"id": range(88), "chosen": 1})
    none = controls.changes(same, same)
    assert (none.estimate, none.lo, none.n) == (0, 0, 88)
    assert none.hi == pytest.approx(1 - 0.025 ** (1 / 88))
    assert "no answer changed (of 88; a share above 0.041" in controls.changed_text(none)
    other = same.assign(chosen=[0] * 11 + [1] * 77)
    some = controls.changes(same, other)
    assert some.lo < some.estimate == 0.125 < some.hi and controls.changed_text(some).startswith("11 of 88")


def test_claims_on_a_review_that_was_not_read_are_not_testable():
    told = {}

    class Kept(Record):
        def __init__(self):
            pass

        def claim(self, id, **what):
            told[id] = what

        def untestable(self, id, why):
            told[id] = why

    ids = ("gain", "control", "instruction", "bias", "changed")
    controls.review_claims(Kept(), *ids, reading=of([record(item(0), 1, 0.0, 0.0, True)]))
    assert all("was not read" in why for why in told.values()) and len(told) == 5
    controls.review_claims(Kept(), *ids, reading=simulated())
    assert told["gain"]["parts"]["ambiguous"]["value"] == pytest.approx(0.5)
    assert told["gain"]["parts"]["disambiguated"]["value"] == pytest.approx(-0.5)
    assert told["changed"]["value"] > 0.4 and told["bias"]["value"] <= 0


def test_tables_have_both_kinds_apart():
    whole = simulated()
    table = controls.table([whole]).set_index("kind")
    assert set(table.index) == {"ambiguous", "disambiguated"} and (table["called biased"] == 1).all()
    assert table.loc["ambiguous", "bias review"] == 1 and table.loc["disambiguated", "bias review"] == 0
    spent = controls.compute_table([whole])
    assert (spent["lo"] <= spent["less five"]).all() and (spent["five"] > spent["one sample"]).any()
    assert controls.reviewed_items(whole) == len(whole.records)


def test_verdicts_are_judged_on_both_kinds_apart():
    whole = simulated()  # every verdict is "right", so nothing is told apart
    parts, why = selfcheck.better(whole)
    assert set(parts) == {"ambiguous", "disambiguated"} and not why
    assert all(part["value"] == 0 and part["n"] == {"items": 44} for part in parts.values())
    table = selfcheck.accuracy_table([whole]).set_index("kind")
    assert list(table.index) == ["all", "ambiguous", "disambiguated"]
    assert (table["called wrong"] == 0).all() and (table["agreement"] == 0.5).all()
    few = of([one for one in whole.records if one["category"] == "Age"])
    assert selfcheck.better(few)[1].startswith("ambiguous items: 2 right and 2 wrong answers")
