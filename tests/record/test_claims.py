"""The claims: none without a criterion, and verdicts and sentences that follow from the measurement alone."""

import numpy as np
import pytest
import torch
import yaml

from ica.record import claims
from ica.record.criteria import Criterion

GOOD = {
    "id": "bt-exact",
    "notebook": "bradley_terry",
    "statement": "A layer is one step.",
    "basis": "as stated",
    "measured": "largest relative error",
    "criterion": {"op": "<=", "bound": 1.0e-12},
}
EFFECT = {"op": "above", "at": 0, "sesoi": 0.03}
NOISY = GOOD | {"criterion": EFFECT, "unit": "seeds", "reason": "seeds alone differ by 0.026"}
TWO = {"parts": {"float64": GOOD["criterion"], "float32": {"op": "within", "bound": [0, 1]}}}


def registry(tmp_path, *entries, name="small.yml"):
    path = tmp_path / "theory" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(list(entries), sort_keys=False))
    return claims.load([path])


def one(tmp_path, entry):
    return registry(tmp_path, entry)[entry["id"]]


def measured(**parts):
    return {"id": "bt-exact", "parts": parts, "untestable": None}


def part(value, interval=None, n=None):
    return {"value": value, "interval": interval, "n": n}


def sampled(value, interval, **n):
    return part(value, interval, n or {"seeds": 5})


def without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


# The registry


def test_the_shipped_registry_is_valid():
    loaded = claims.load()
    assert list(loaded) == [claim.id for claim in loaded.values()]
    assert {claim.part for claim in loaded.values()} == set(claims.PARTS)
    order = [claims.PARTS.index(claim.part) for claim in loaded.values()]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("sign", "patterns"),
    [
        ("TODO", ("*.yml", "registry/**/*.*")),
        ("`", ("registry/*/*.yml",)),
    ],  # a page shows a backtick as it is
)
def test_the_registry_is_finished_and_holds_formulas_as_its_only_markup(sign, patterns):
    home = claims.REGISTRY.parent
    files = sorted(file for pattern in patterns for file in home.glob(pattern))
    left = [
        f"{file.relative_to(home)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if sign in line
    ]
    assert len(files) > 10 and not left, "\n".join(left)


def test_load_reads_what_the_file_says(tmp_path):
    words = {"setting": "4 blocks", "fixed": "before", "changed": "a bound", "otherwise": "mixed"}
    first, second, third = registry(
        tmp_path, GOOD, GOOD | {"id": "two", "criterion": TWO}, NOISY | words | {"id": "three"}
    ).values()
    assert first.part == "theory" and first.criteria == {"value": Criterion("<=", 1e-12)}
    assert not first.stochastic and first.says == {} and first.setting is None
    assert second.criteria == {"float64": Criterion("<=", 1e-12), "float32": Criterion("within", (0.0, 1.0))}
    assert third.stochastic and third.criteria == {"value": Criterion("above", at=0.0, sesoi=0.03)}
    assert {key: getattr(third, key) for key in words} == words


def test_an_effect_may_be_a_ratio(tmp_path):
    ratio = {"op": "below", "at": 1, "sesoi": 1.25, "scale": "ratio"}
    (claim,) = registry(tmp_path, NOISY | {"criterion": ratio}).values()
    assert claim.criteria["value"] == Criterion("below", at=1.0, sesoi=1.25, scale="ratio")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (without(GOOD, "criterion"), "criterion is missing; needed are id, notebook"),
        (without(GOOD, "measured"), "measured is missing"),
        (GOOD | {"criterion": None}, "criterion: must be a mapping with keys op, bound; got None"),
        (GOOD | {"criterion": {}}, "op must be one of <=, >=, within, above, below, differs; got None"),
        (GOOD | {"criterion": {"op": "==", "bound": 1}}, "op must be one of .*; got '=='"),
        (GOOD | {"criterion": {"op": "<="}}, "bound is missing"),
        (GOOD | {"criterion": {"op": "<=", "bound": "1e-12"}}, "write 1.0e-12"),
        (GOOD | {"criterion": {"op": "<=", "bound": float("nan")}}, "a finite number; got nan"),
        (GOOD | {"criterion": {"op": "<=", "bound": True}}, "a finite number; got True"),
        (GOOD | {"criterion": {"op": "<=", "bound": 1, "sesoi": 1}}, "unknown key 'sesoi'; accepted: op, bound"),
        (GOOD | {"criterion": {"op": "within", "bound": [1, 0]}}, r"lo <= hi, got \[1, 0\]"),
        (GOOD | {"criterion": {"op": "within", "bound": 3}}, "two finite numbers; got 3"),
        (GOOD | {"criterion": {"op": "within", "bound": [0, 1, 2]}}, "two finite numbers"),
        (GOOD | {"criterion": {"parts": {}}}, "parts must map part names"),
        (GOOD | {"criterion": {"parts": {15: GOOD["criterion"]}}}, "part names .text. to criteria"),
        (GOOD | {"criterion": {"parts": {"a[0]": GOOD["criterion"]}}}, r"without brackets and braces, got 'a\[0\]'"),
        (GOOD | {"criterion": {"parts": {"a": {"op": "<="}}}}, "part a: criterion: bound is missing"),
        (GOOD | {"criterion": EFFECT}, "unit is missing; an effect is judged over seeds, prompts"),
        (NOISY | {"criterion": EFFECT | {"bound": 1}}, "unknown key 'bound'; accepted: op, at, sesoi, scale"),
        (NOISY | {"criterion": {"op": "differs", "at": 0}}, "sesoi is missing"),
        (NOISY | {"criterion": EFFECT | {"sesoi": 0}}, "sesoi must be above 0 .*, got 0"),
        (NOISY | {"criterion": EFFECT | {"scale": "ratio"}}, "factor above 1, and at above 0"),
        (NOISY | {"criterion": EFFECT | {"scale": "log"}}, "scale must be one of difference, ratio; got 'log'"),
        (NOISY | {"criterion": EFFECT | {"at": "zero"}}, "at must be a finite number; got 'zero'"),
        (without(NOISY, "reason"), "reason is missing"),
        (NOISY | {"unit": "runs"}, "unit must be one of seeds, .*; got 'runs'"),
        (GOOD | {"verdict": "supported"}, "unknown key 'verdict'; accepted: id"),
        (GOOD | {"basis": "paper"}, "basis must be one of as stated, .*; got 'paper'"),
        (GOOD | {"id": "BT exact"}, "id must match .*, got 'BT exact'"),
        (GOOD | {"notebook": "a/b"}, "notebook must match"),
        (GOOD | {"statement": " "}, "statement must be text, got ' '"),
        (GOOD | {"changed": None}, "changed must be text, got None"),
        (GOOD | {"says": "words"}, "says must map verdicts to sentences, got 'words'"),
        (GOOD | {"says": {"supported": 1}}, "says must map verdicts to sentences"),
        (GOOD | {"says": {"reproduced": "Yes."}}, "says must be one of supported, .*; got 'reproduced'"),
        (GOOD | {"says": {"open": "{worth}"}}, "'worth'.*accepted: statement, parts, m, k, value"),
        (GOOD | {"says": {"open": "{parts[float64]}"}}, "'float64'.*parts: value"),
        (GOOD | {"says": {"open": "{value:q}"}}, "Unknown format code"),
        (GOOD | {"says": {"open": r"$\frac{1}{2}$"}}, "double the braces of formulas"),
        (GOOD | {"says": {"open": "an open { brace"}}, "cannot be filled in"),
        (GOOD | {"criterion": TWO, "says": {"mixed": "{value}"}}, "'value'.*parts: float64, float32"),
        (GOOD | {"says": {"not testable here": "{value} is unknown"}}, "'value'.*parts: none"),
        ("just text", "must be a mapping"),
    ],
)  # fmt: skip
def test_load_refuses_and_names_file_and_claim(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message) as caught:
        registry(tmp_path, entry)
    name = entry["id"] if isinstance(entry, dict) else 0
    assert str(caught.value).startswith(f"small.yml: claim {name}")


def test_a_file_must_hold_a_list_and_an_id_is_taken_once_over_all_files(tmp_path):
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(yaml.safe_dump([GOOD | {"notebook": name[0]}]))
    (tmp_path / "c.yml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ValueError, match=r"b\.yml: claim bt-exact: id is already taken by notebook a"):
        claims.load([tmp_path / "a.yml", tmp_path / "b.yml"])
    with pytest.raises(ValueError, match=r"c\.yml: must hold a list of claims, got dict"):
        claims.load([tmp_path / "c.yml"])


# Measurements


@pytest.mark.parametrize(
    ("entry", "measurement", "message"),
    [
        (GOOD, measured(), "part value has a criterion but was not measured"),
        (GOOD, measured(value=part(1), other=part(1)), "part other: not registered; accepted parts: value"),
        (GOOD, measured(value=part(float("nan"))), "finite number, got nan"),
        (GOOD, measured(value=part(float("inf"))), "finite number, got inf"),
        (GOOD, measured(value=part("1")), "finite number, got '1'"),
        (GOOD, measured(value=part(np.ones(2))), "single number, got an array"),
        (GOOD, measured(value=part(1, (2, 0))), "lo <= hi"),
        (GOOD, measured(value=part(1, (0, 1, 2))), r"\(lo, hi\) or None"),
        (GOOD, measured(value=part(1, 0.5)), r"\(lo, hi\) or None, got 0.5"),
        (GOOD, measured(value=part(1, (0, float("nan")))), "interval must be a finite number"),
        (GOOD, measured(value=part(1, n=0)), "n of cases must be a whole number of at least 1, got 0"),
        (GOOD, measured(value=part(1, n=1.5)), "n of cases must be a whole number of at least 1, got 1.5"),
        (GOOD, measured(value=part(1, n=True)), "n of cases must be a finite number, got True"),
        (GOOD, measured(value=part(1, n={})), "n must map units to counts, as {'cases': 5}; got {}"),
        (GOOD, measured(value=part(1, n={1: 2})), "n must map units to counts"),
        (NOISY, measured(value=part(1, n={"seeds": 5})), "interval is required"),
        (NOISY, measured(value=part(1, (0, 2))), "n must map units to counts, as {'seeds': 5}; got None"),
        (NOISY, measured(value=part(1, (0, 2), 5)), "n must map units to counts, as {'seeds': 5}; got 5"),
        (
            NOISY,
            measured(value=sampled(1, (0, 2), items=5)),
            "n must say how many seeds there are, got {'items': 5}",
        ),
        (NOISY, measured(value=sampled(1, (0, 2), seeds=np.ones(2))), "n of seeds must be a single number"),
        (NOISY, measured(value=sampled(1, (0, 2), seeds="5")), "n of seeds must be a finite number, got '5'"),
        (GOOD, {"id": "bt-exact", "parts": {}}, "untestable is missing"),
        (GOOD, measured(value=part(1)) | {"verdict": "supported"}, "unknown key 'verdict'"),
        (GOOD, measured() | {"untestable": ""}, "the reason in words, and then no parts; got ''"),
        (GOOD, measured(value=part(1)) | {"untestable": "no GPU"}, "and then no parts"),
    ],
)
def test_check_refuses(tmp_path, entry, measurement, message):
    with pytest.raises(ValueError, match=message) as caught:
        claims.check(one(tmp_path, entry), measurement)
    assert str(caught.value).startswith("claim bt-exact")


def test_numbers_become_plain_and_parts_stand_in_the_order_of_the_registry(tmp_path):
    claim = one(tmp_path, GOOD | {"criterion": TWO})
    half = part(torch.tensor(0.5), n=np.int64(7))
    checked = claims.check(claim, measured(float32=half, float64=part(np.float32(0.25), np.array([0, 1]))))
    assert list(checked["parts"]) == ["float64", "float32"]
    assert checked["parts"]["float64"] == part(0.25, [0.0, 1.0])
    assert checked["parts"]["float32"] == part(0.5, n={"cases": 7})
    assert type(checked["parts"]["float32"]["n"]["cases"]) is int
    counts = claims.check(
        one(tmp_path, NOISY), measured(value=sampled(1, (0, 2), seeds=np.int64(5), prompts=torch.tensor(3)))
    )
    assert counts["parts"]["value"]["n"] == {"seeds": 5, "prompts": 3}


@pytest.mark.parametrize(
    ("entry", "parts", "verdict"),
    [
        (GOOD, {"value": part(1e-13)}, "supported"),
        (GOOD, {"value": part(1e-11)}, "contradicted"),
        (GOOD, {"value": part(1e-13, (0, 1e-11))}, "open"),
        (GOOD | {"criterion": TWO}, {"float64": part(1e-13), "float32": part(0.5)}, "supported"),
        (GOOD | {"criterion": TWO}, {"float64": part(1e-13), "float32": part(2)}, "mixed"),
        (GOOD | {"criterion": TWO}, {"float64": part(1e-13), "float32": part(1, (0.5, 2))}, "open"),
        (NOISY, {"value": sampled(0.1, (0.04, 0.2))}, "supported"),
        (NOISY, {"value": sampled(0.01, (-0.01, 0.02))}, "negligible"),
        (NOISY, {"value": sampled(-0.1, (-0.2, -0.04))}, "contradicted"),
        (NOISY, {"value": sampled(0.1, (0.0, 0.2))}, "open"),
        (NOISY, {"value": sampled(0.1, (0.04, 0.2), seeds=2, prompts=256)}, "single run"),
        (
            NOISY,
            {"value": sampled(0.1, (0.04, 0.2), prompts=64)},
            "supported",
        ),  # gradient descent has no seed
        (NOISY | {"unit": "models"}, {"value": sampled(0.1, (0.04, 0.2), models=1)}, "single run"),
        (NOISY | {"unit": "prompts"}, {"value": sampled(0.1, (0.04, 0.2), prompts=2)}, "supported"),
    ],
)
def test_verdict(tmp_path, entry, parts, verdict):
    row = claims.row(one(tmp_path, entry), measured(**parts))
    assert row["verdict"] == verdict
    assert set(row["outcomes"]) == set(row["order"]) == set(parts)


def test_a_row_holds_the_claim_its_criteria_and_what_an_open_part_could_have_shown(tmp_path):
    parts = {"a": EFFECT, "b": EFFECT, "few": EFFECT}
    claim = one(tmp_path, NOISY | {"criterion": {"parts": parts}, "setting": "4 blocks"})
    few = sampled(0.1, (0, 0.2), seeds=1)
    row = claims.row(claim, measured(few=few, b=sampled(0.1, (0, 0.2)), a=sampled(0.1, (0.05, 0.15))))
    assert (row["part"], row["notebook"], row["basis"]) == ("theory", "bradley_terry", "as stated")
    assert (row["setting"], row["reason"], row["unit"]) == ("4 blocks", NOISY["reason"], "seeds")
    assert row["order"] == ["a", "b", "few"] and row["stochastic"]
    assert row["criteria"]["a"] == {"op": "above", "text": "above 0 by 0.03"}
    assert row["outcomes"] == {"a": "supported", "b": "open", "few": "single run"}
    assert row["p"].keys() == {"a", "b"} and row["p"]["a"] < 0.05 < row["p"]["b"]
    assert row["detectable"] == {"b": "above 0.173"}
    assert claims.row(one(tmp_path, GOOD), measured(value=part(1e-13)))["p"] == {}  # exact: nothing to test


def test_untestable_is_its_own_verdict_and_its_reason_no_part_of_the_sentence(tmp_path):
    why = {"id": "bt-exact", "parts": {}, "untestable": "needs {a} *larger* <model>"}
    row = claims.row(one(tmp_path, GOOD), why)
    assert (row["verdict"], row["outcomes"], row["p"]) == ("not testable here", {}, {})
    assert row["says"] == "Not testable here: A layer is one step."
    assert row["measurement"]["untestable"] == "needs {a} *larger* <model>"
    own = one(tmp_path, GOOD | {"says": {"not testable here": "Not tried ({k} of {m})."}})
    assert claims.row(own, why)["says"] == "Not tried (0 of 1)."


# Sentences


def says(tmp_path, words, *parts, **changes):
    entry = (NOISY if parts and parts[0]["interval"] else GOOD) | changes
    claim = one(tmp_path, entry | {"says": words})
    return claims.row(claim, measured(**dict(zip(claim.criteria, parts, strict=True))))["says"]


def test_the_verdict_chooses_the_sentence(tmp_path):
    words = {
        "supported": "Up by {value:.2f}.",
        "negligible": "Less than 0.03 ({value:.3f}).",
        "contradicted": "Down: {value}.",
    }
    assert says(tmp_path, words, sampled(0.1, (0.04, 0.2))) == "Up by 0.10 [0.04,\u00a00.20]."
    assert (
        says(tmp_path, words, sampled(-0.001, (-0.02, 0.01)))
        == "Less than 0.03 (−0.001 [−0.020,\u00a00.010])."
    )
    assert says(tmp_path, words, sampled(-0.1, (-0.2, -0.04))) == "Down: −0.10 [−0.20,\u00a0−0.04]."
    assert says(tmp_path, words, sampled(0.1, (0, 0.2))) == "Open at this sample size: A layer is one step."


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("supported", "A layer is one step."),
        ("contradicted", "Contradicted: A layer is one step."),
        ("negligible", "No effect that matters: A layer is one step."),
        ("open", "Open at this sample size: A layer is one step."),
        ("mixed", "Holds in 1 of 2 parts: A layer is one step."),
        ("single run", "Shown, not judged (single run): A layer is one step."),
        ("not testable here", "Not testable here: A layer is one step."),
    ],
)
def test_every_verdict_has_words(tmp_path, verdict, words):
    claim = one(tmp_path, GOOD | {"criterion": TWO})
    assert claim.sentence(verdict, measured(), {"float64": "supported", "float32": "open"}) == words


def test_braces_of_a_statement_are_no_fields_and_those_of_words_are_doubled(tmp_path):
    statement = r"$\frac{a}{b}$ & {value} <b>"
    assert says(tmp_path, {}, part(0), statement=statement) == statement
    words = {"supported": r"With $\frac{{1}}{{N}}$: {statement}"}
    assert says(tmp_path, words, part(0), statement=statement) == r"With $\frac{1}{N}$: " + statement


def test_parts_of_any_name_may_stand_in_a_sentence(tmp_path):
    names = ["n = 15", "Plackett-Luce, 2 heads", "at: once", "15", "0.5", "a/b", "what!r"]
    criterion = {"parts": {name: {"op": "<=", "bound": 9} for name in names}}
    words = {"supported": "; ".join(f"{{parts[{name}]:.1f}}" for name in names) + " in {k} of {m}"}
    found = says(tmp_path, words, *map(part, range(7)), criterion=criterion)
    assert found == "0.0; 1.0; 2.0; 3.0; 4.0; 5.0; 6.0 in 7 of 7"


@pytest.mark.parametrize(
    ("value", "spec", "words"),
    [(-0.0004, ".2f", "0.00"), (-1e-12, "", "−1e−12"), (-0.25, "+.1f", "−0.2"), (0.0, ".1e", "0.0e+00")],
)
def test_numbers_have_true_minus_signs_and_no_negative_zero(value, spec, words):
    assert format(claims.Measured(value), spec) == words
