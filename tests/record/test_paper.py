"""The paper's claims: what their registry may hold, and the verdicts that follow from this book's."""

import pytest
import yaml

from ica.record import claims, ledger, paper

EFFECT = {"op": "above", "at": 0, "sesoi": 0.1}
BOUND = {"op": "<=", "bound": 1.0}
BASE = {"notebook": "one", "statement": "S.", "basis": "analogue", "measured": "m"}
SEEDS = {"unit": "seeds", "reason": "r"}
OURS = [
    BASE | {"id": "exact", "criterion": BOUND},
    BASE | {"id": "two", "criterion": {"parts": {"a": BOUND, "b": BOUND}}},
    BASE | SEEDS | {"id": "noisy", "criterion": EFFECT, "setting": "4 blocks, width 36"},
    BASE | SEEDS | {"id": "same", "criterion": EFFECT, "setting": "4 blocks, width 36"},
    BASE | {"id": "elsewhere", "notebook": "two", "criterion": BOUND},
]
ITEM = {
    "id": "S1",
    "kind": "experiment",
    "place": "Fig. 1a",
    "claim": "It helps.",
    "scale": "one run",
    "tests": [{"claim": "exact", "basis": "as stated"}],
    "page": "notebooks/one",
}


@pytest.fixture
def registry(tmp_path):
    (tmp_path / "theory").mkdir()
    path = tmp_path / "theory" / "one.yml"
    path.write_text(yaml.safe_dump(OURS, sort_keys=False))
    return claims.load([path])


def load(tmp_path, registry, *items):
    file = tmp_path / "paper.yml"
    file.write_text(yaml.safe_dump(list(items), sort_keys=False))
    return paper.load(registry, file)


def bears(claim, basis="as stated", *parts):
    return {"claim": claim, "basis": basis} | ({"parts": list(parts)} if parts else {})


def part(value, interval=None, **n):
    return {"value": value, "interval": interval, "n": n or None}


UP, NONE, UNSURE = (
    {"value": part(0.5, interval, seeds=5, prompts=256)}
    for interval in ((0.3, 0.7), (-0.05, 0.05), (-0.5, 0.9))
)
NONE["value"]["value"] = 0.0
ONE_RUN = {"value": part(0.5, (0.3, 0.7), seeds=1, prompts=256)}
DOWN = {"value": part(-0.5, (-0.7, -0.3), seeds=5)}
GOOD, BAD = {"value": part(0.5)}, {"value": part(2.0)}


def judged(tmp_path, registry, tests, **measured):
    """The paper's one claim with these tests, when the book measured this (None: untestable)."""
    rows = []
    for id, parts in measured.items():
        why = "no GPU" if parts is None else None
        rows.append(claims.row(registry[id], {"id": id, "parts": parts or {}, "untestable": why}))
    ledger.adjust(rows)
    (item,) = load(tmp_path, registry, ITEM | {"tests": tests})
    (row,) = paper.judge([item], rows)
    return row


# The registry


def test_the_shipped_registry_names_registered_claims_alone():
    assert paper.load(claims.load())


def test_load_reads_what_the_file_says(tmp_path, registry):
    tests = [bears("two", "analogue", "b"), bears("exact")]
    first, second = load(
        tmp_path,
        registry,
        ITEM | {"tests": tests, "figure": "f", "note": "n"},
        ITEM | {"id": "T3", "tests": None},
    )
    assert first.tests == (paper.Test("two", "analogue", ("b",)), paper.Test("exact", "as stated"))
    assert (first.figure, first.note, first.kind) == ("f", "n", "experiment")
    assert second.tests == () and second.figure is None


def test_a_book_without_the_file_has_no_claims_of_the_paper(tmp_path, registry):
    assert paper.load(registry, tmp_path / "none.yml") == [] == load(tmp_path, registry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "guess"}, "S1: kind must be one of theorem, experiment, statement; got 'guess'"),
        ({"scale": None}, "S1: scale must be text, got None"),
        ({"note": 1}, "S1: note must be text, got 1"),
        ({"verdict": "supported"}, "S1: unknown key 'verdict'; accepted: id, kind"),
        ({"id": "S 1"}, "S 1: id must match .*, got 'S 1'"),
        ({"tests": "exact"}, "S1: tests must be a list, got 'exact'"),
        ({"tests": ["exact"]}, "S1: test: must be a mapping with keys claim, basis; got 'exact'"),
        ({"tests": [{"claim": "exact"}]}, "S1: test: basis is missing"),
        ({"tests": [bears("none")]}, "S1: test 'none' is no registered claim"),
        ({"tests": [bears("exact", "paper")]}, "S1: basis must be one of as stated, .*; got 'paper'"),
        ({"tests": [bears("two", "analogue", "c")]}, "S1: part of two must be one of a, b; got 'c'"),
        ({"tests": [bears("two") | {"parts": "a"}]}, "S1: parts of two must be a list, got 'a'"),
        (
            {"tests": [bears("two") | {"against": "yes"}]},
            "S1: against of two must be true or false, got 'yes'",
        ),
        ({"tests": [bears("exact")] * 2}, "S1: part value of test exact is given twice"),
        (
            {"tests": [bears("two"), bears("two", "analogue", "b")]},
            "S1: part b of test two is given twice",
        ),
    ],
)
def test_load_refuses_and_names_the_claim(tmp_path, registry, change, message):
    with pytest.raises(ValueError, match=f"paper.yml: {message}"):
        load(tmp_path, registry, ITEM | change)


def test_a_missing_key_an_id_given_twice_and_no_list_are_named(tmp_path, registry):
    with pytest.raises(ValueError, match="paper.yml: S1: page is missing"):
        load(tmp_path, registry, {k: v for k, v in ITEM.items() if k != "page"})
    with pytest.raises(ValueError, match="paper.yml: S1: id is taken already"):
        load(tmp_path, registry, ITEM, ITEM)
    (tmp_path / "paper.yml").write_text(yaml.safe_dump(ITEM))
    with pytest.raises(ValueError, match="paper.yml must be a list"):
        paper.load(registry, tmp_path / "paper.yml")


# Verdicts


def test_the_first_basis_that_has_a_test_decides(tmp_path, registry):
    tests = [
        bears("noisy", "analogue"),
        bears("two", "beyond the paper"),
        bears("exact", "as released"),
    ]
    row = judged(tmp_path, registry, tests, exact=BAD, noisy=UP, two={"a": part(0.5), "b": part(0.5)})
    assert (row["verdict"], row["basis"], row["of"]) == ("contradicted", "as released", 1)
    assert row["by_basis"] == {
        "as released": "contradicted",
        "analogue": "supported",
        "beyond the paper": "supported",
    }
    assert [test["claim"] for test in row["tests"]] == ["noisy", "two", "exact"]
    assert row["tests"][0] == bears("noisy", "analogue") | {
        "parts": [],
        "verdict": "supported",
        "notebook": "one",
        "against": False,
    }


@pytest.mark.parametrize("tests", [[], [bears("exact", "beyond the paper")], [bears("elsewhere")]])
def test_without_a_test_of_its_own_a_claim_is_not_tested(tmp_path, registry, tests):
    row = judged(tmp_path, registry, tests, exact=GOOD)
    assert (row["verdict"], row["basis"]) == ("not tested", None)
    assert (row["supported"], row["of"], row["here"]) == (0, 0, "")


@pytest.mark.parametrize(
    ("measured", "verdict", "supported", "of"),
    [
        ({"exact": GOOD, "noisy": UP}, "supported", 2, 2),
        ({"exact": GOOD, "noisy": NONE}, "mixed", 1, 2),
        ({"exact": GOOD, "noisy": UNSURE}, "open", 1, 2),
        ({"exact": BAD, "noisy": UNSURE}, "mixed", 0, 2),
        ({"exact": GOOD, "noisy": None}, "open", 1, 2),
        ({"exact": GOOD, "noisy": ONE_RUN}, "supported", 1, 1),  # shown, not judged
        ({"noisy": ONE_RUN}, "single run", 0, 1),
        ({"exact": None, "noisy": None}, "not testable here", 0, 2),
        ({"exact": GOOD}, "supported", 1, 1),  # the other's notebook is not in this book
        ({"two": {"a": part(0.5), "b": part(2.0)}, "exact": GOOD}, "mixed", 2, 3),
    ],
)
def test_parts_of_all_tests_of_the_basis_count(tmp_path, registry, measured, verdict, supported, of):
    row = judged(tmp_path, registry, [bears(id) for id in ("exact", "noisy", "two")], **measured)
    assert (row["verdict"], row["supported"], row["of"]) == (verdict, supported, of)


def test_a_test_may_be_of_some_parts(tmp_path, registry):
    found = {"a": part(0.5), "b": part(2.0)}
    row = judged(tmp_path, registry, [bears("two", "as stated", "a")], two=found)
    assert (row["verdict"], row["of"], row["tests"][0]["verdict"]) == ("supported", 1, "supported")
    row = judged(tmp_path, registry, [bears("two", "as stated", "a")], two=None)
    assert (row["verdict"], row["of"]) == ("not testable here", 1)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (UP, "contradicted"),
        (DOWN, "supported"),
        (NONE, "negligible"),
        (UNSURE, "open"),
        (None, "not testable here"),
    ],
)
def test_a_test_may_speak_against_the_claim(tmp_path, registry, measured, verdict):
    row = judged(tmp_path, registry, [bears("noisy") | {"against": True}], noisy=measured)
    assert (row["verdict"], row["supported"]) == (verdict, int(verdict == "supported"))
    assert row["tests"][0]["against"]


def test_the_gap_to_the_paper_names_setting_and_sizes_of_the_deciding_tests_once(tmp_path, registry):
    tests = [bears("noisy"), bears("same"), bears("exact", "beyond the paper")]
    row = judged(tmp_path, registry, tests, noisy=UP, same=UP, exact={"value": part(0.5, cases=1000)})
    assert row["here"] == "4 blocks, width 36; 5 seeds, 256 prompts"
    assert row["scale"] == "one run"
    row = judged(tmp_path, registry, [bears("exact")], exact={"value": part(0.5, cases=1000)})
    assert row["here"] == "1,000 cases"
    assert judged(tmp_path, registry, [bears("exact")], exact=None)["here"] == ""


@pytest.mark.parametrize(
    ("n", "words"),
    [
        ({"cases": 2, "prompts": 1000, "seeds": 5}, "5 seeds, 1,000 prompts, 2 cases"),
        ({"categories": 1, "models": 1}, "1 category, 1 model"),
        ({"cases": 1}, "1 case"),
        (None, ""),
    ],
)
def test_sample_sizes_in_words(n, words):
    assert paper.counts(n) == words
