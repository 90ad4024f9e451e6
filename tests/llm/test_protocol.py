"""The protocol: what is read is what stands in the prompt, item by item, and twice the same."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from llm_items import item, items
from scipy import stats
from small_language_model import language_model

from ica.build import jobs
from ica.llm.model.cache import CallCache
from ica.llm.model.engine import Engine
from ica.llm.model.scoring import plain_log_probabilities
from ica.llm.protocol import blocks, measure, prompts, readings, results
from ica.llm.protocol.measure import read_shard
from ica.llm.protocol.shards import BLOCKS, Shard, ranked, shards

torch.set_num_threads(1)
MODEL = language_model(places=4096)
FEW = [item(1), item(2, condition="disambiguated"), item(5)]


@pytest.fixture(scope="module")
def cores() -> list[dict]:
    return blocks.measure(Engine(MODEL), FEW, "core")


def plain(context: str, options: tuple[str, ...]) -> list[float]:
    return plain_log_probabilities(MODEL, context, [f" {one}" for one in options]).sums.tolist()


def test_readings_are_those_of_the_prompt_written_out(cores):
    one, core = FEW[0], cores[0]
    turn = readings.rotation(one.id)
    shown = " / ".join(one.options[k] for k in [(0, 1, 2), (1, 2, 0), (2, 0, 1)][turn])
    question = f"Context: {one.context}\nQuestion: {one.question}\nOptions: {shown}\nAttempt:"
    start = prompts.lead("verdict") + question
    assert core[f"first/{turn}"] == pytest.approx(plain(start, one.options), abs=1e-4)
    tried = f"{start} {one.options[core['answer']]}"
    for word in ("unchecked", "right", "wrong"):
        text = f"{tried}\nVerdict: {word}\nFinal answer:"
        assert core[f"again/{word}"] == pytest.approx(plain(text, one.options), abs=1e-4)
    said = plain_log_probabilities(MODEL, f"{tried}\nVerdict:", [" right", " wrong"]).sums.tolist()
    assert core[f"check/{core['answer']}"] == pytest.approx(said, abs=1e-4)


def test_rounds_keep_the_whole_conversation(cores):
    found = blocks.measure(Engine(MODEL), FEW, "rounds", cores)[1]
    one, core = FEW[1], cores[1]
    text = blocks.stem(one, "verdict", readings.rotation(one.id))
    for number in range(2, blocks.ROUNDS + 1):
        answers = [core["answer"], *found["true/answers"]]
        told = "".join(
            f"\nAttempt: {one.options[a]}\nVerdict: {'right' if a == one.gold else 'wrong'}"
            for a in answers[:number]
        )
        expected = plain(f"{text}{told}\nFinal answer:", one.options)
        assert found[f"true/{number}"] == pytest.approx(expected, abs=1e-4)
        assert readings.likelier(found[f"true/{number}"], core["counts"]) == answers[number]


def test_triplets_show_the_scores_that_the_evaluation_knows():
    one = FEW[0]
    (found,) = blocks.measure(Engine(MODEL), [one], "triplets")
    for name, level, number in (("noise/0.5", 0.5, 3), ("swapped", "swapped", 3), ("pairs/2", 0.0, 2)):
        scores = readings.rated(one.id, one.gold, level)
        told = "".join(f"\nAttempt: {one.options[k]}\nScore: {scores[k]}/10" for k in found["shown"][:number])
        text = blocks.stem(one, "score", readings.rotation(one.id)) + told + "\nBest answer:"
        assert found[name] == pytest.approx(plain(text, one.options), abs=1e-4)


def test_every_block_reads_every_item_and_twice_the_same(cores, tmp_path):
    for block in blocks.BLOCKS:
        first = blocks.measure(Engine(MODEL), FEW, block, cores)
        assert len(first) == len(FEW) and all(first)
        assert blocks.measure(Engine(MODEL), FEW, block, cores) == first
    with pytest.raises(ValueError, match="block must be one of"):
        blocks.measure(Engine(MODEL), FEW, "others", cores)


def test_an_item_is_read_the_same_whatever_is_read_beside_it(cores):
    (alone,) = blocks.measure(Engine(MODEL), FEW[2:], "core")
    for name, values in alone.items():
        assert values == pytest.approx(cores[2][name], abs=1e-4)


@pytest.mark.parametrize("form", prompts.FORMS)
def test_leads_are_worked_questions_about_things(form):
    lead = prompts.lead(form)
    assert lead.endswith("\n\n")
    if form != "bare":
        assert lead.count("Context:") == len(prompts.demonstrations()) == lead.count(prompts.FINAL[form])


def test_demonstrations_are_balanced():
    table = yaml.safe_load(prompts.DEMONSTRATIONS.read_text())
    unknown = [
        "not enough information",
        "cannot be determined",
        "unknown",
        "not known",
        "not stated",
        "cannot be known",
    ]
    for verdict in prompts.VERDICTS:  # in each verdict's, the unknown option is right in half
        right = [
            row["options"][row["right"]].lower() in unknown for row in table if row["verdict"] == verdict
        ]
        assert sum(right) * 2 == len(right) > 0
    tried = [row["tried"] for row in table if row["verdict"] == "unchecked"]
    assert tried.count("right") == tried.count("wrong") == len(tried) / 2
    assert all(row["tried"] == row["verdict"] for row in table if row["verdict"] != "unchecked")
    lead = prompts.lead("verdict")
    for (
        demo
    ) in prompts.demonstrations():  # a right attempt is kept, any other is replaced by the right option
        shown = demo.options[demo.right if demo.tried == "right" else demo.wrong]
        told = f"Attempt: {shown}\nVerdict: {demo.verdict}\nFinal answer: {demo.options[demo.right]}\n"
        assert told in lead and demo.right != demo.wrong


def test_noise_replaces_scores_as_it_says():
    ids = [f"item {k}" for k in range(2000)]
    true = readings.rated("any", 1, 0.0)
    assert true == [2, 9, 2] and sorted(readings.rated("any", 1, "swapped")) == [2, 2, 9]
    assert all(readings.rated(one, 1, "swapped")[1] == 2 for one in ids)
    drawn = np.array([readings.rated(one, 1, 1.0) for one in ids])
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=11)[1:]).pvalue > 0.001
    before = np.zeros((len(ids), 3), dtype=bool)
    for level in (0.25, 0.5, 0.75):
        found = np.array([readings.rated(one, 1, level) for one in ids])
        kept = found != np.array([true] * len(ids))  # surely replaced
        assert abs(kept.mean() - 0.9 * level) < 0.02
        assert not (before & (found != drawn)).any()  # what was replaced stays replaced, by the same draw
        before = kept


def test_orders_and_rotations_are_even():
    ids = [f"item {k}" for k in range(3000)]
    turns = np.bincount([readings.rotation(one) for one in ids], minlength=3)
    assert stats.chisquare(turns).pvalue > 0.001
    first = np.bincount([readings.shown(one, 3)[0] for one in ids], minlength=3)
    assert stats.chisquare(first).pvalue > 0.001
    assert all(readings.shown(one, 2) == readings.shown(one, 3)[:2] for one in ids[:20])


def test_a_killed_shard_goes_on_and_ends_the_same(tmp_path):
    many = [one for one in items(12, ("Age",))]
    counts = {name: 1 for name in BLOCKS} | {"core": 3}
    shard = Shard("live", "any", "bbq", "Age", counts)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    whole = read_shard(Engine(MODEL, CallCache(tmp_path / "whole")), shard, many)
    with pytest.raises(KeyboardInterrupt):
        read_shard(Engine(MODEL, CallCache(tmp_path / "cut")), shard, many, stop)
    engine = Engine(MODEL, CallCache(tmp_path / "cut"))
    assert read_shard(engine, shard, many) == whole
    assert 0 < engine.computed < engine.asked
    blocks = {"core", "triplets", "rounds", "forms", "bare", "released", "review"}
    assert blocks <= set(whole[0]) and not blocks & set(whole[-1]) - {"core"}


def test_the_command_reads_what_it_is_asked_to(tmp_path, monkeypatch, capsys):
    many = items(12, ("Age", "SES"))
    monkeypatch.setattr(measure, "load", lambda name: MODEL)
    monkeypatch.setattr(measure, "load_items", lambda source: (many, {"source": "bbq", "sha256": "1" * 64}))
    monkeypatch.setattr(measure, "model_folder", lambda hash: tmp_path / "calls")
    monkeypatch.setattr(jobs, "settle", lambda module, threads: None)
    stored = [
        tmp_path / "out" / f"{one.id}.json"
        for one in shards("live", "smollm2")
        if one.category in ("Age", "SES")
    ]

    def run(*words: str) -> int:
        out = ["--out", str(tmp_path / "out"), "--status", str(tmp_path / "status.json"), "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["measure", "live", "smollm2", *words, *out])
        return measure.main()

    assert run("Age", "SES") == 0
    found = {one["category"]: one for one in map(results.read, stored)}
    assert (
        set(found) == {"Age", "SES"} and json.loads((tmp_path / "status.json").read_text())["state"] == "done"
    )
    for one in found.values():
        calls = one["provenance"]["calls"]
        assert calls["asked"] == calls["computed"] > 0 and calls["seconds"] > 0
    assert run("SES") == 0
    again = results.read(next(p for p in stored if "SES" in p.read_text()))
    assert again["provenance"]["calls"]["computed"] == 0
    assert again["records"] == found["SES"]["records"]
    assert again["provenance"]["calls"]["seconds"] == found["SES"]["provenance"]["calls"]["seconds"]
    assert run("Age", "Ages") == 1
    assert "category 'Ages' is not of bbq; did you mean Age? accepted: Age, " in capsys.readouterr().err
    assert "Ages" in json.loads((tmp_path / "status.json").read_text())["report"]


def test_more_items_begin_with_the_same():
    many = items(12, ("Age", "SES"))
    two, three = (ranked(many, "Age", count) for count in (2, 3))
    assert three[: len(two)] == two
    assert all(one.category == "Age" and one.half == "confirming" for _, one in three)


def test_counts_that_cannot_be_are_refused():
    shard = shards("live", "smollm2")[0]
    with pytest.raises(ValueError, match="at most that of core"):
        Shard("live", "smollm2", "bbq", "Age", shard.counts | {"forms": 99})
    with pytest.raises(ValueError, match="counts must name exactly"):
        Shard("live", "smollm2", "bbq", "Age", {"core": 1})
    with pytest.raises(ValueError, match="model must be one of"):
        shards("ladder", "another")
