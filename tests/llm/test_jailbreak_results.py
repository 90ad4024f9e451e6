"""Tables of attacks: what the judges say, how differences and intervals are taken, what could be seen; stored, read back, refused."""

import json
import random
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ica.llm.jailbreak import effects, results
from ica.llm.jailbreak.attacks import Attack
from ica.llm.jailbreak.defences import SENT, Written
from ica.record import claims, seals
from ica.record.provenance import write_json

WORD = "marzipan"


def table_of(told: dict, families=None) -> pd.DataFrame:
    """A judged table of attacks: `told[defence][k]` says whether attack k leaks; the released judge sees a success each time."""
    n = len(next(iter(told.values())))
    families = families or [f"kind {k % 3}" for k in range(n)]
    rows = [
        {
            "kind": "attack",
            "number": k,
            "family": families[k],
            "defence": name,
            "released": True,
            "strict": False,
        }
        | {"leaked": bool(one), "answered": None, "check": None}
        for name, shares in told.items()
        for k, one in enumerate(shares)
    ]
    return pd.DataFrame(rows)


def test_the_judged_table_holds_no_text_and_says_what_the_judges_say():
    made = [
        Attack("rule", "What is it?", WORD, "direct"),
        Attack("rule", "Why is it blue?", WORD, "benign", expect=("light",)),
    ]
    said = {"none": ["It is marzipan, of course.", "Because of the Light."], "self-1": ["I cannot say.", ""]}
    answers = {name: [Written(text, text) for text in texts] for name, texts in said.items()}
    table = results.judged(made, answers, {"self-1": ["Yes, it is.", "Perhaps."]})
    assert not any("course" in str(cell) for cell in table.to_numpy().ravel())
    attack, harmless = (table[table["kind"] == kind].set_index("defence") for kind in ("attack", "benign"))
    assert attack["leaked"].tolist() == [True, False] and attack["released"].tolist() == [True, False]
    assert attack["answered"].tolist() == [None, None] and attack["check"].tolist() == [None, "yes"]
    assert harmless["answered"].tolist() == [True, False] and harmless["check"].tolist() == [None, "unclear"]
    assert harmless["strict"].tolist() == [False, True], "no answer at all counts as refused"
    assert harmless["number"].tolist() == [0, 0]


def test_the_oracle_says_what_is_true_and_the_random_critic_is_the_mean():
    told = {"none": [1, 1, 0, 0, 1, 0], "breaks": [0, 0, 0, 1, 0, 0], "keeps": [1, 1, 0, 0, 1, 1]}
    found = results.wide(table_of(told))
    assert found["oracle"].tolist() == [0, 0, 0, 0, 0, 1] and found["random"].tolist() == [
        0.5,
        0.5,
        0,
        0.5,
        0.5,
        0.5,
    ]
    d = effects.difference(table_of(told), "oracle", "random")
    assert d.estimate == pytest.approx(1 / 6 - 2.5 / 6) and d.units == {"prompts": 6}


def test_differences_are_of_the_same_prompts_within_kind_with_exact_tests():
    told = {"self-1": [0] * 12 + [1] * 12, "none": [1] * 22 + [0] * 2}
    table = table_of(told)
    d, test = effects.difference(table, "self-1", "none"), effects.exact(table, "self-1", "none")
    assert d.estimate == pytest.approx(-10 / 24) and d.lo < d.estimate < d.hi < 0
    assert (test.only_before, test.only_after, test.n) == (12, 2, 24)
    assert test.p == pytest.approx(stats.binomtest(2, 14).pvalue)
    some = effects.difference(table, "self-1", "none", families=["kind 0"])
    assert some.units == {"prompts": 8}
    alike = effects.difference(table_of({"a": [1] * 24, "none": [1] * 24}), "a", "none")
    assert alike.estimate == 0 and alike.lo < -0.05 and alike.hi > 0.05, "all alike is not certain"
    apart = table_of({"a": [0] * 8 + [1] * 16, "none": [1] * 24}, ["x"] * 8 + ["y"] * 8 + ["z"] * 8)
    kinds = effects.over_kinds(apart, "a", "none")
    assert kinds.estimate == pytest.approx(-1 / 3) and kinds.hi > 0, (
        "one kind of three says little of other kinds"
    )
    assert effects.difference(apart, "a", "none").hi < 0
    with pytest.raises(ValueError, match="at least 2 items"):
        effects.difference(table_of({"a": [1, 0], "none": [0, 0]}, ["x", "y"]), "a", "none")


def test_intervals_over_prompts_cover():
    """Where defences do nothing, an interval of 72 prompts of nine kinds excludes 0 about as rarely as it says."""
    found, families = 0, [f"kind {k % 9}" for k in range(72)]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tell = rng.uniform(0.1, 0.9, 9)[np.arange(72) % 9]
        told = {name: rng.random(72) < tell for name in ("a", "none")}
        d = effects.difference(table_of(told, families), "a", "none")
        found += d.lo > 0 or d.hi < 0
    assert found <= 18


@pytest.mark.parametrize(("n", "discordant", "effect"), [(72, 0.3, 0.2), (36, 0.5, 0.3), (12, 0.4, 0.4)])
def test_power_is_that_of_simulated_samples(n, discordant, effect):
    rng, rejected = np.random.default_rng(0), 0
    shares = [(discordant + effect) / 2, (discordant - effect) / 2, 1 - discordant]
    for won, lost, _ in rng.multinomial(n, shares, 2000):
        rejected += won + lost > 0 and stats.binomtest(int(won), int(won + lost)).pvalue <= 0.05
    assert effects.power(n, discordant, effect) == pytest.approx(rejected / 2000, abs=0.035)


def test_what_can_be_seen_shrinks_with_the_number_of_prompts():
    assert effects.detectable(72, 0.4) < effects.detectable(48, 0.4) < effects.detectable(24, 0.4)
    for differ in (1, 2, 9):  # of 72; 2/72 rounds up
        assert not effects.detectable(72, differ / 72) > differ / 72
    assert np.isnan(effects.detectable(12, 0.2)), "12 prompts that differ in a fifth never show it"
    assert (
        effects.power(72, 0.3, effects.detectable(72, 0.3))
        >= 0.8
        > effects.power(72, 0.3, effects.detectable(72, 0.3) - 0.01)
    )
    for bad in ((0.2, 0.3), (0.0, 0.0), (1.2, 0.1)):
        with pytest.raises(ValueError, match="effect must be from 0 to discordant"):
            effects.power(10, *bad)


def test_checks_are_held_against_the_truth():
    table = table_of({"none": [1] * 10 + [0] * 10, "self-1": [0] * 20})
    table["check"] = None
    rows = table["defence"] == "self-1"
    table.loc[rows, "check"] = ["yes"] * 8 + ["unclear", "no"] + ["yes"] * 3 + ["no"] * 7
    told = effects.checks_told(table)
    assert told["leaked"].estimate == 0.8 and told["kept"].estimate == pytest.approx(0.3)
    assert told["balanced"].estimate == pytest.approx(0.75) and told["balanced"].lo > 0.5


def test_rates_and_the_released_judge():
    rng = random.Random(0)
    told = {name: [rng.random() < 0.5 for _ in range(18)] for name in SENT["attack"]}
    table = table_of(told)
    rates = results.rates(table).set_index(["judge", "defence"])
    assert rates.loc[("leaked", "icd"), "estimate"] == pytest.approx(np.mean(told["icd"]))
    assert rates.loc[("released", "icd"), "estimate"] == 1 and rates.loc[("released", "icd"), "lo"] < 0.9
    mean = np.mean([np.mean(shares) for shares in told.values()])
    assert effects.misjudged(table).estimate == pytest.approx(1 - mean)


def test_every_claim_of_the_page_is_measured_from_one_table():
    rng = np.random.default_rng(1)
    _, _, table = made(36)
    told = rng.random(len(table)) < np.where(table["defence"].str.startswith("instruct"), 0.2, 0.7)
    table = table.assign(leaked=told, answered=[None if one is None else True for one in table["answered"]])
    found = effects.claims(table)
    registered = [one.id for one in claims.load().values() if one.notebook == "llm_jailbreak"]
    for model in ("smollm2", "qwen-half"):
        assert {f"o-{name}-{model}" for name in found} <= set(registered)
    assert len(registered) == 2 * len(found) + 1
    assert found["cac"]["value"] < -0.2 and found["cac"]["n"] == {"prompts": 36}
    assert found["persuasive"]["n"] == {"prompts": 12} and found["benign"]["n"] == {"prompts": 18}
    assert found["benign"]["value"] == 0 > found["benign"]["interval"][0]
    rows = effects.compared(table, [("instruct-3", "none"), ("oracle", "random")]).set_index("defence")
    own = effects.exact(table, "instruct-3", "none")
    assert (
        rows.loc["instruct-3", "p"] == own.p
        and rows.loc["instruct-3", "differ"] == own.only_before + own.only_after
    )
    assert (
        np.isnan(rows.loc["oracle", "p"])
        and rows.loc["instruct-3", "kinds_lo"] < rows.loc["instruct-3", "difference"]
    )
    assert effects.label("diverse-neutral-3") == "neutral questions, 3" and effects.label("icd") == "ICD"
    assert {effects.label(name) for name in (*results.ALL, *SENT["benign"])}, "every defence has a name"


def made(count: int = 4):
    """A model, requests, and a table of them."""
    sent = results.asked(count)
    parts = []
    for kind, names in SENT.items():
        some = [one for one in sent if one.kind == kind]
        answers = {name: [Written(f"{WORD} light", "")] * len(some) for name in names}
        checks = {name: ["No."] * len(some) for name in names if name[:-2] in ("self", "instruct")}
        parts.append(results.judged(some, answers, checks))
    return {"name": "small", "sha256": "0" * 64, "parameters": 5}, sent, pd.concat(parts, ignore_index=True)


def test_stored_tables_come_back_and_others_are_refused(tmp_path):
    model, sent, table = made()
    path = results.store(tmp_path / "one.json", model, sent, table, {"commit": "a"})
    ((about, again),) = results.stored(tmp_path)
    assert about["name"] == "small"
    pd.testing.assert_frame_equal(again[table.columns], table, check_dtype=False)
    kept = json.loads(path.read_text())
    rows = kept["rows"]
    for lacking in (
        {},
        {"rows": []},
        {"model": {}},
        {"columns": kept["columns"][1:]},
        {"rows": [[1]]},
        {"rows": rows[:-1]},
        {"rows": [*rows, rows[-1]]},
        {"rows": [[*row[:5], None, *row[6:]] for row in rows]},
        {"rows": [[*row[:7], "maybe"] for row in rows]},
        {"rows": [row for row in rows if row[:2] == ["attack", 0]]},
        {"attacks": "0" * 64},
    ):
        write_json(tmp_path / "two.json", kept | lacking if lacking else {})
        with pytest.raises(results.AttackedError, match=r"two.json are missing or damaged"):
            results.stored(tmp_path)


def test_the_command_stores_what_can_be_used(tmp_path, monkeypatch, capsys):
    model, sent, table = made(2)
    path = results.store(tmp_path / "small.json", model, sent, table, {"commit": "a"})
    (tmp_path / "other.json").write_text("[]")
    monkeypatch.setattr(results, "_folder", lambda: tmp_path / "secret")
    monkeypatch.setattr(sys, "argv", ["attacked", str(path), str(tmp_path / "other.json")])
    assert results.main() == 1 and "other.json are missing or damaged" in capsys.readouterr().err
    assert [one.name for one in (tmp_path / "secret").iterdir()] == ["small.json"]
    assert (tmp_path / "secret" / "small.json").read_bytes() == path.read_bytes()


@pytest.mark.fault(
    "Results",
    "A stored table of attacks is missing, damaged, or was made of other attacks, with other code or more threads",
    "Refused, with its name and what to do; the build makes it again",
)
def test_a_table_that_is_not_what_it_should_be_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(results.workflow, "attack_digest", lambda root: "code")
    model, sent, table = made(4)
    path = tmp_path / "small.json"

    def sealed(count: int = 4, threads: int = 1) -> list[str]:
        about = results.made_of("smollm2", results.asked(count), threads)
        seals.write(path.with_suffix(".seal.json"), [path], about)
        return results.faults("smollm2", 4, path)

    assert results.faults("smollm2", 4, path) == [f"{path} is missing"]
    results.store(path, model, sent, table, {"commit": "a"})
    assert "small.seal.json is missing" in results.faults("smollm2", 4, path)[0]
    assert sealed() == []
    assert sealed(threads=2) == [f"{path} was made with other threads"]
    assert sealed(count=3) == [f"{path} was made with other attacks"]
    monkeypatch.setattr(results.workflow, "attack_digest", lambda root: "other code")
    assert results.faults("smollm2", 4, path) == [f"{path} was made with other code and attacks"]
    whole = path.read_text()
    for bad in (
        whole[:-5],
        "[" * 100_000,
        whole.replace("true", "1", 1),
        whole.replace('"attacks"', '"attack"', 1),
    ):
        path.write_text(bad)
        assert f"attacks {path} are missing or damaged: " in sealed()[0]
        assert "`make ladder` makes them anew" in sealed()[0] and "\n" not in sealed()[0]
