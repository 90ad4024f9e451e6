"""Results of shards: written whole, read back with every field checked, put together, and asked for by a build."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from llm_items import records

from ica.build import notebooks
from ica.llm.model import assets
from ica.llm.protocol import results, shards, workflow
from ica.llm.protocol.results import ResultError

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "has format 9"),
        ({"records": [{"category": "SES"}]}, "records of another category"),
        ({"records": None}, "is damaged"),
        ({"category": None}, "records of another category"),
        ({"id": "0" * 12}, "is of shard 000000000000, not of"),
    ],
)
def test_damaged_results_are_named(built, change, message):
    shard = shards.shards("live", "smollm2")[0]
    path = built / f"{shard.id}.json"
    path.write_text(json.dumps(content(shard) | change))
    with pytest.raises(ResultError, match=message):
        results.read(path, shard)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ResultError, match="is damaged"):
        results.read(path)
    with pytest.raises(ResultError, match="is missing"):
        results.read(built / "none.json")


def test_shards_of_two_models_are_not_put_together():
    first, second = shards.shards("live", "smollm2")[:2]
    with pytest.raises(ResultError, match="differ in model"):
        results.merged([content(first, "one"), content(second, "two")])


def test_the_ladder_is_stored_and_read_back(built, tmp_path):
    where = tmp_path / "stored"
    path = results.store("smollm2", where)
    (reading,) = results.stored(where)
    assert path.name == "smollm2.json" and reading.name == "smollm2" and len(reading.records) == 44
    for text in ("[]", '{"shards": []}', '{"shards": [{}]}', '{"shards": [3]}'):
        (where / "other.json").write_text(text)
        with pytest.raises(ResultError, match=r"other.json is damaged"):
            results.stored(where)
    assert results.stored(tmp_path / "none") == []
    with pytest.raises(ResultError, match="make ladder MODELS=gemma3-270m"):
        results.store("gemma3-270m", where)


def test_the_ladder_attacks_models_that_lead_dialogues():
    models = workflow.attacked(shards.ladder())
    assert models and set(models) < set(shards.ladder()) and all(words > 0 for words in models.values())
    assert workflow.attacked(["gemma3-270m"]) == {}


@pytest.mark.parametrize(("model", "attacks"), [("smollm2", 1), ("gemma3-270m", 0)])
def test_the_ladder_asks_for_shards_and_attacks(model, attacks):
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--cores", "1", "--quiet", "rules"]
    command += ["--rerun-triggers", "params", "--config", f"models={model}", "--forceall", "--", "ladder"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE))
    assert int(jobs["read"]) == 11 and int(jobs["ladder"]) == 1 and int(jobs.get("attack", 0)) == attacks


def test_long_notebooks_say_so():
    assert notebooks.long(ROOT, "llm_jailbreak") and not notebooks.long(ROOT, "alignment")


def test_attacks_are_made_again_when_what_they_stand_on_changes(tmp_path):
    shutil.copytree(ROOT / "ica", tmp_path / "ica", ignore=shutil.ignore_patterns("__pycache__"))
    before = workflow.attack_digest(tmp_path)
    assert before == workflow.attack_digest(ROOT)
    changed = set()
    made = {"llm/jailbreak/attacks.yml", "llm/jailbreak/judges.py", "llm/model/generation.py"}
    for name in (*made, "llm/analysis/selfcheck.py", "intervals.py"):
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
