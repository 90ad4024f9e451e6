"""Results of shards: written whole, read back with every field checked, put together, and asked for by a build."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from llm_items import records

from ica.build import jobs, notebooks, settings
from ica.llm.model import assets
from ica.llm.protocol import results, shards, workflow
from ica.llm.protocol.results import ResultError
from ica.record import seals

ROOT = shards.ROOT


def content(shard: shards.Shard, model: str = "one", commit: str = "a") -> dict:
    own = [one for one in records(2, 1.0, -1.0) if one["category"] == shard.category]
    return {
        "schema": shards.SCHEMA,
        "scale": shard.scale,
        "id": shard.id,
        "model": {"name": model, "sha256": "0" * 64, "parameters": 5, "chat": True},
        "items": {"source": "bbq", "sha256": "1" * 64, "half": "confirming", "unplaced": 2},
        "category": shard.category,
        "counts": shard.counts,
        "records": own,
        "provenance": {"commit": commit, "calls": {"asked": 2, "computed": 2, "seconds": 30.0}},
    }


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    for scale in shards.SCALES:
        for shard in shards.shards(scale, "smollm2"):
            (tmp_path / f"{shard.id}.json").write_text(json.dumps(content(shard, "smollm2")))
    return tmp_path


def test_a_build_reads_all_categories(built):
    reading = results.live("smollm2")
    assert len(reading.records) == 44 and len(reading.provenance) == 11
    assert reading.rate == pytest.approx(44 / 5.5)


def test_a_missing_shard_is_named_with_its_command(built):
    shard = shards.shards("live", "smollm2")[3]
    (built / f"{shard.id}.json").unlink()
    with pytest.raises(
        ResultError, match=f"python -m ica.llm.protocol.measure live smollm2 {shard.category}"
    ):
        results.live("smollm2")


def changed(whole: dict, path: str, value: object) -> dict:
    """A copy in which one field, as in "records/0/core/answer", has another value."""
    copy = json.loads(json.dumps(whole))
    *before, last = path.split("/")
    inner = copy
    for name in before:
        inner = inner[int(name) if isinstance(inner, list) else name]
    inner[int(last) if isinstance(inner, list) else last] = value
    return copy


@pytest.mark.fault(
    "Results",
    "A field of a stored reading is missing, of another type, not finite, or of another shard",
    "Refused, with the file, the record, the field and what to do",
)
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 9, "has format 9; accepted: 3"),
        ("schema", [9], r"has format \[9\]"),
        ("id", "0" * 12, "is of shard 000000000000, not of"),
        ("category", None, "record 1 is of category Age, not None"),
        ("records", None, "records must be a list"),
        ("records", [], "ambiguous records must be 1 to 3"),
        ("records", [3], "record 1 must be an object, got 3"),
        ("records/0", {"category": "SES"}, "record 1 lacks id"),
        ("records/0/category", "SES", "record 1 is of category SES"),
        ("records/0/gold", True, "gold of record 1 cannot be True"),
        ("records/0/gold", 1.0, "gold of record 1 cannot be 1.0"),
        ("records/0/core", [], "core of record 1 must be an object"),
        ("records/0/core/answer", 3, "answer of core of record 1 cannot be 3"),
        ("records/0/core/counts", [1, 0, 1], "counts of core of record 1"),
        ("records/0/forms", {}, "forms of record 1 lacks score/own"),
        ("records/0/more", 1, "record 1 has an unknown field 'more'"),
        ("records/0/id", "x", "id of record 1 cannot be 'x'"),
        ("model", {}, "model lacks name"),
        ("model/parameters", "5", "parameters of model cannot be '5'"),
        ("items/sha256", "1", "sha256 of items"),
        ("counts/core", -1, "core of counts cannot be -1"),
        ("provenance", 3, "calls must be an object, got None"),
        ("provenance/calls/seconds", None, "seconds of calls cannot be None"),
    ],
)
def test_damaged_fields_are_named(built, path, value, message):
    shard = shards.shards("live", "smollm2")[0]
    file = built / f"{shard.id}.json"
    file.write_text(json.dumps(changed(content(shard), path, value)))
    with pytest.raises(ResultError, match=f"{file.name} .*{message}.*`make book` makes it anew") as caught:
        results.read(file, shard)
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "Results",
    "The file of a stored reading is missing, empty, cut short, a folder, nested without end, or holds NaN",
    "Refused, with its name and what to do; the build makes it again",
)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is missing"),
        ("", "it is empty"),
        ("folder", "it is a folder"),
        ("cut", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("\ud800", "not in UTF-8"),
        ("NaN", "NaN is no JSON"),
        ("[]", "it is no JSON object"),
    ],
)
def test_damaged_files_are_named(built, data, message):
    shard = shards.shards("live", "smollm2")[0]
    file = built / f"{shard.id}.json"
    whole = file.read_text()
    seals.write(results.seal_of(file), [file], results.made_of(shard))
    assert results.faults(shard, file) == []
    file.unlink()
    if data == "folder":
        file.mkdir()
    elif data is not None:
        text = whole[:-9] if data == "cut" else data
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ResultError, match=f"{file.name} .*{message}.*`make book` makes it anew"):
        results.read(file)
    assert [one for one in results.faults(shard, file) if file.name in one]


@pytest.mark.fault(
    "Results",
    "A reading was made by hand with more threads, of another model or other items, with other code, or has no seal",
    "Not taken for the build's; it is made again, and the build says why",
)
def test_a_reading_made_otherwise_is_not_taken(built, tmp_path, monkeypatch):
    model, folder = tmp_path / "my model.gguf", tmp_path / "items"
    model.write_text("one")
    folder.mkdir()
    (folder / "Age.jsonl").write_text("one")
    shard = shards.shards("live", str(model), str(folder))[0]
    path = results.path_of(shard)
    assert results.faults(shard, path) == [f"{path} is missing"]
    path.write_text(json.dumps(content(shard)))
    assert results.faults(shard, path) == [f"{results.seal_of(path)} is missing"]
    seals.write(results.seal_of(path), [path], results.made_of(shard, threads=4))
    assert results.faults(shard, path) == [f"{path} was made with other threads"]
    seals.write(results.seal_of(path), [path], results.made_of(shard))
    assert results.faults(shard, path) == []
    model.write_text("two")
    (folder / "Age.jsonl").write_text("two")
    workflow.content.cache_clear()
    shards.items_digest.cache_clear()
    assert results.faults(shard, path) == [f"{path} was made with other model and items"]
    monkeypatch.setattr(results, "code_digest", lambda: "0" * 64)
    assert results.faults(shard, path) == [f"{path} was made with other code and model and items"]


def test_the_code_of_a_shard_is_what_gives_its_numbers(tmp_path):
    found = set()
    shutil.copytree(ROOT / "ica", tmp_path / "ica", ignore=shutil.ignore_patterns("__pycache__"))
    names = (
        "llm/protocol/blocks.py",
        "llm/bbq/rows.py",
        "llm/model/scoring.py",
        "build/jobs.py",
        "record/record.py",
    )
    before = shards.code_digest.__wrapped__(tmp_path)
    for name in (*names, "llm/protocol/results.py", "llm/analysis/effects.py", "transformer.py"):
        file = tmp_path / "ica" / name
        old = file.read_text()
        file.write_text(old + "\n# another line\n")
        found |= {name} if shards.code_digest.__wrapped__(tmp_path) != before else set()
        file.write_text(old)
    assert found == set(names[:3])


def test_shards_of_two_models_are_not_put_together():
    first, second = shards.shards("live", "smollm2")[:2]
    with pytest.raises(ResultError, match="differ in model"):
        results.merged([content(first, "one"), content(second, "two")])


def test_the_ladder_is_stored_and_read_back(built, tmp_path):
    where = tmp_path / "stored"
    path = results.store("smollm2", where)
    (reading,) = results.stored(where)
    assert path.name == "smollm2.json" and reading.name == "smollm2" and len(reading.records) == 44
    for text in (
        "[]",
        '{"shards": []}',
        '{"shards": [{}]}',
        '{"shards": [3]}',
        '{"shards": NaN}',
        "[" * 100_000,
    ):
        (where / "other.json").write_text(text)
        with pytest.raises(ResultError, match=r"other.json is damaged"):
            results.stored(where)
    kept = tmp_path / "results" / "llm"
    shutil.copytree(where, kept)
    with pytest.raises(
        ResultError, match=r"`git checkout -- other.json` there restores it, `make ladder MODELS=other`"
    ):
        results.stored(kept)
    assert results.stored(tmp_path / "none") == []
    with pytest.raises(ResultError, match="make ladder MODELS=gemma3-270m"):
        results.store("gemma3-270m", where)


def test_the_ladder_attacks_models_that_lead_dialogues():
    models = workflow.attacked(shards.ladder())
    assert models and set(models) < set(shards.ladder()) and all(attacks >= 48 for attacks in models.values())
    assert workflow.attacked(["gemma3-270m"]) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "attacks"), [("smollm2", 1), ("gemma3-270m", 0)])
def test_the_ladder_asks_for_shards_and_attacks(tmp_path, model, attacks):
    for path in (*ROOT.glob("[!.]*"),):
        if path.name != "build":
            (tmp_path / path.name).symlink_to(path)
    settings.Settings(target="ladder", models=(model,)).write(tmp_path)
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--cores", "1", "--quiet", "rules"]
    command += ["--rerun-triggers", "params", "--forceall", "--", "ladder"]
    environment = {**os.environ, jobs.BUILD: "test"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE))
    assert int(asked["read"]) == 11 and int(asked["ladder"]) == 1 and int(asked.get("attack", 0)) == attacks


def test_long_notebooks_say_so():
    assert notebooks.long(ROOT, "llm_jailbreak") and not notebooks.long(ROOT, "alignment")


def test_attacks_are_made_again_when_what_they_stand_on_changes(tmp_path):
    shutil.copytree(ROOT / "ica", tmp_path / "ica", ignore=shutil.ignore_patterns("__pycache__"))
    before = workflow.attack_digest(tmp_path)
    assert before == workflow.attack_digest(ROOT)
    changed = set()
    made = {"attacks.yml", "benign.yml", "defences.py", "judges.py"}
    made = {f"llm/jailbreak/{name}" for name in made} | {"llm/model/generation.py"}
    for name in (*made, "llm/jailbreak/effects.py", "llm/analysis/selfcheck.py", "intervals.py"):
        file = tmp_path / "ica" / name
        old = file.read_text()
        file.write_text(old + "\n# another line\n")
        changed |= {name} if workflow.attack_digest(tmp_path) != before else set()
        file.write_text(old)
    assert changed == made


def test_stored_results_of_this_book_hold_what_they_say():
    for reading in results.stored(ROOT / "results" / "llm"):
        assert reading.scale == "ladder" and reading.items["half"] == shards.HALF
        ids = [record["id"] for record in reading.records]
        assert reading.rate > 0 and len({one["code"] for one in reading.provenance}) == 1
        assert len(set(ids)) == len(ids) and all(
            len(record["core"]["first/0"]) == 3 for record in reading.records
        )


def test_a_build_asks_for_the_shards_of_its_notebooks():
    overrides = {name: {} for name in notebooks.listed(ROOT)}
    wanted = workflow.needed(ROOT, overrides)
    assert len(wanted["llm_bbq"]) == 11 and wanted["alignment"] == []
    other = workflow.needed(ROOT, overrides | {"llm_bbq": {"model": "some/folder"}})
    assert {one.id for one in other["llm_bbq"]}.isdisjoint(one.id for one in wanted["llm_bbq"])
    assert workflow.assets_of(wanted["llm_bbq"][0]) == ["smollm2", "bbq"]
    assert workflow.assets_of(other["llm_bbq"][0]) == ["bbq"]
    loaded = workflow.models(ROOT, overrides)
    assert loaded["llm_jailbreak"] == ["smollm2"] and loaded["alignment"] == []
    before = dict.fromkeys(wanted, "digest")
    after, later = (workflow.digests(before, wanted, loaded, code) for code in ("code", "other"))
    assert after["alignment"] == "digest" != after["llm_bbq"] != later["llm_bbq"]


def test_digests_follow_what_a_model_and_items_hold(tmp_path):
    file, folder = tmp_path / "model.gguf", tmp_path / "folder"
    file.write_bytes(b"one")
    folder.mkdir()
    (folder / "Age.jsonl").write_text("one")
    sources = (str(file), str(folder), "owner/name", "smollm2")
    before = [workflow.content(one) for one in sources]
    file.write_bytes(b"two")
    (folder / "Age.jsonl").write_text("two")
    workflow.content.cache_clear()
    after = [workflow.content(one) for one in sources]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, True]
    assert after[3] == assets.table()["smollm2"].sha256


def test_commands_quote_what_a_user_gives():
    shard = shards.shards("live", "my models/a b.gguf", "my items")[0]
    assert workflow.command(shard) == "live 'my models/a b.gguf' Age --items 'my items'"
    assert shard.stem == "a-b.gguf-Age"


def test_only_models_of_the_ladder_are_stored():
    assert workflow.to_store("") == shards.ladder() and workflow.to_store("smollm2") == ["smollm2"]
    with pytest.raises(ValueError, match="MODELS: 'big' is not of the ladder"):
        workflow.to_store("big")


def test_a_folder_with_some_categories_is_read_as_far_as_it_goes(tmp_path):
    for name in ("SES", "Age", "older/Religion"):
        (tmp_path / f"{name}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").touch()
    assert [one.category for one in shards.shards("live", "smollm2", str(tmp_path))] == ["Age", "SES"]
    (tmp_path / "Age.jsonl").unlink()
    assert all(one.counts["triplets"] for one in shards.shards("live", "smollm2", str(tmp_path)))
    assert len(shards.shards("live", "smollm2", str(tmp_path / "none"))) == len(
        shards.shards("live", "smollm2")
    )


def test_some_blocks_are_read_in_a_few_categories_only():
    read = {one.category: one.counts for one in shards.shards("live", "smollm2")}
    assert all(counts["core"] for counts in read.values())
    assert {name for name, counts in read.items() if counts["triplets"]} == {
        "Age",
        "Gender_identity",
        "Religion",
    }
