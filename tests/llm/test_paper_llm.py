"""The paper's protocol, whole, with tiny models: resumed like not stopped, no text of attacks kept, a GPU as
far as a stand-in goes."""

import argparse
import contextlib
import copy
import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import small_project
import torch
from small_language_model import network, tokenizer

from ica.build import jobs
from ica.build.settings import Settings
from ica.llm.model import load as loading
from ica.llm.paper import bias, checkpoint, parts, results, run, summary, texts
from ica.llm.paper.settings import Asked

PROMPTS = [
    f"Tell me in short how a {thing} works, please."
    for thing in ("clock", "door", "kettle", "lamp", "bell", "drum")
]


def row(k: int, condition: str, category: str) -> dict:
    label = 2 if condition == "ambig" else k % 2
    return {
        "example_id": 2 * k + (condition == "ambig"),
        "question_index": str(k),
        "question_polarity": "neg",
        "context_condition": condition,
        "category": category,
        "answer_info": {"ans0": ["old", "old"], "ans1": ["young", "nonOld"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]},
        "context": f"An old one and a young one met, {k}." + " One fell." * (condition == "disambig"),
        "question": "Who fell?",
        "ans0": "The old one",
        "ans1": "The young one",
        "ans2": "Unknown",
        "label": label,
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two model folders, an official BBQ folder of two categories, and a file of harmless prompts."""
    base = tmp_path_factory.mktemp("paper")
    for name, chat in (("llama", True), ("vicuna", False)):
        network("llama", 4096).save_pretrained(base / name)
        tokenizer(chat=chat).save_pretrained(base / name)
    (base / "bbq").mkdir()
    for category in ("Age", "Religion"):
        rows = [json.dumps(row(k, one, category)) for k in range(2) for one in ("ambig", "disambig")]
        text = "\n".join(rows).replace("met,", "met in spring,") if category == "Age" else "\n".join(rows)
        (base / "bbq" / f"{category}.jsonl").write_text(text + "\n")
    with (base / "attacks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["goal"], *([text] for text in PROMPTS)])
    return base


def words(folders, out, **given: str) -> argparse.Namespace:
    every = dict.fromkeys([*(name.lower() for name in run.WORDS), "threads"], "")
    every |= {"model": str(folders / "llama"), "bbq": str(folders / "bbq"), "items": "4", "tokens": "6 8 4 5"}
    every |= {"threads": "1", "places": "512", "out": str(out)} | given
    return argparse.Namespace(**{"asked": None, "part": "", "done": None} | every, status=None)


@pytest.fixture
def go(folders, monkeypatch):
    """Runs in this process, its environment as it is; gives the result."""
    monkeypatch.setattr(jobs, "settle", lambda *_: None)

    def work(out, **given):
        options = words(folders, out, **given)
        run._work(options, lambda text: None)
        return results.read(out / f"{options.model.rpartition('/')[2]}.json")

    return work


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The result of one run on the CPU, and what it said."""
    out, said = tmp_path_factory.mktemp("whole"), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
    ):
        patch.setattr(jobs, "settle", lambda *_: None)
        run._work(words(folders, out), lambda text: None)
    return results.read(out / "llama.json"), said.getvalue()


def numbers(result: dict) -> dict:
    return {name: value for name, value in result.items() if name not in ("seconds", "provenance")}


def test_a_llama_is_asked_whole_and_goes_on_where_it_was_stopped(go, whole, tmp_path, monkeypatch):
    whole, said = whole
    assert "GiB of memory on cpu" in said and "a small run" in said and "100% (attacks)" in said
    assert "L1" in said and "instruct-3" in said
    assert whole["small"] and whole["trial"] and whole["model"]["template"] == "own"
    assert [len(one["answers"]) for one in whole["records"]] == [len(results.ALL)] * 2 + [4] * 2 + [
        len(results.ALL)
    ] * 2 + [4] * 2
    put, done = checkpoint.Checkpoint.put, []

    def stop(self, found):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(found)
        put(self, found)

    monkeypatch.setattr(checkpoint.Checkpoint, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.json"))
    (lines,) = (tmp_path / "b").rglob("records.jsonl")
    whole_lines = lines.read_bytes()
    lines.write_bytes(whole_lines + whole_lines[:100])  # as a process that was killed may leave it
    monkeypatch.setattr(
        checkpoint.Checkpoint, "put", lambda self, found: (done.append(found), put(self, found))
    )
    assert numbers(go(tmp_path / "b")) == numbers(whole)
    kept = [key for found in done for key in found]
    assert len(kept) == len(set(kept)), "nothing is asked twice"


def test_a_run_in_parts_has_the_numbers_of_a_whole_one(go, folders, whole, tmp_path, monkeypatch):
    out, kept = tmp_path / "c", []
    for part in range(1, parts.PARTS + 1):
        options = words(folders, out, part=str(part), done=tmp_path / f"{part}.json")
        run._work(options, lambda text: None)
        file = Path(json.loads(options.done.read_text())["result"])
        kept.append(len(file.read_text().splitlines()))
    assert not list(out.glob("*.json")) and len([count for count in kept if count]) == 6
    asked = []
    for name in ("group", "Asker"):
        real = getattr(bias, name)
        monkeypatch.setattr(
            bias, name, lambda *a, real=real, name=name, **k: asked.append(name) or real(*a, **k)
        )
    assert numbers(go(out)) == numbers(whole[0])
    assert "group" not in asked, "every group was there"
    (file,) = out.rglob("part-2.jsonl")
    lost = file.read_text().splitlines()
    file.unlink()
    (whole_run,) = out.rglob("records.jsonl")
    whole_run.unlink()
    assert numbers(go(out)) == numbers(whole[0]) and asked.count("group") == 1 and lost, (
        "what is missing is asked"
    )
    for text in ("0", "13", "x", "-1"):
        with pytest.raises(ValueError, match="--part must be a whole number of 1 to 12"):
            go(out, part=text)


def test_the_words_of_a_spread_run_come_from_its_settings(tmp_path):
    given = {"MODEL": "$(x) 'y'", "DEVICE": "cuda:1", "PLACES": ""}
    file = Settings(target="paper_llm", words=given).write(tmp_path)
    assert parts.settled(parts.words(file)) == {**given, "PLACES": "8192"}
    assert parts.settled({"PLACES": "512"}) == {"PLACES": "512"}
    one, other = (parts.Spread(words, 1) for words in (given, given | {"ITEMS": "4"}))
    assert one.gpus == 1 and parts.Spread({}, 1).gpus == 0
    assert one.id != other.id and one.id != parts.Spread(given, 2).id and one.gone()


@pytest.mark.slow
def test_make_spreads_a_run_over_a_cluster(folders, whole, tmp_path):
    """The same workflow as on a cluster, with an executor that runs the jobs here."""
    project = small_project.write(tmp_path / "project")
    for name in ("ica", "workflow"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(small_project.ROOT / name, project / name, ignore=left_out, dirs_exist_ok=True)
    file = project / "ica/llm/paper/parts.py"
    file.write_text(re.sub(r"^PARTS = .*", "PARTS = 3", file.read_text(), flags=re.MULTILINE))
    (project / "workflow/profiles/here").mkdir()
    (project / "workflow/profiles/here/config.yaml").write_text("executor: local\n")
    given = words(folders, tmp_path / "out")
    told = [f"{name}={getattr(given, name.lower())}" for name in run.WORDS if getattr(given, name.lower())]
    asked = ["paper-llm", "CLUSTER=here", "JOBS=2", *told, "PLACES=512", f"OUT={tmp_path / 'out'}"]
    done = small_project.run_make(project, *asked, PYTHONPATH=str(project))
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\[4/4\] paper-llm-result ", done.stdout.replace("  [", "["), re.MULTILINE), (
        done.stdout
    )
    assert numbers(results.read(tmp_path / "out" / "llama.json")) == numbers(whole[0])
    again = small_project.run_make(project, *asked, PYTHONPATH=str(project))
    assert again.returncode == 0 and "paper-llm-" not in again.stdout
    wrong = small_project.run_make(project, *asked, "DTYPE=int8", PYTHONPATH=str(project))
    assert wrong.returncode != 0 and "DTYPE" in wrong.stdout and "Traceback" not in wrong.stdout


def test_a_vicuna_by_the_name_of_its_template_keeps_no_text_of_attacks(go, folders, tmp_path, monkeypatch):
    asked, chat = [], loading.LanguageModel.chat
    monkeypatch.setattr(
        loading.LanguageModel, "chat", lambda self, talk: asked.append(talk) or chat(self, talk)
    )
    given = {"model": str(folders / "vicuna"), "template": "vicuna", "attacks": str(folders / "attacks.csv")}
    result = go(tmp_path, **given)
    assert result["model"]["template"] == "vicuna" and result["attacks"]["source"] == "file"
    attacks = [one for one in result["defended"] if one["kind"] == "attack"]
    assert len(attacks) == len(PROMPTS) - 3 and set(attacks[0]["none"]) == {"released", "strict", "leaked"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    for path in written:
        assert not [text for text in PROMPTS if text in path.read_text()]
    sent = [" ".join(turn["content"] for turn in talk) for talk in asked]
    for text in PROMPTS:
        assert any(text in one for one in sent)
    assert any(one.count(texts.CHECK) == 3 and PROMPTS[0] in one and PROMPTS[5] in one for one in sent), (
        "diverse"
    )
    assert any(one.count(texts.REFINE) == 3 and one.count(PROMPTS[5]) == 1 for one in sent), "self-instruct"
    assert any(one.count(PROMPTS[5]) == 4 and one.count(texts.CHECK) == 3 for one in sent), "self"
    assert any(texts.REMIND in one for one in sent) and any(texts.DEMONSTRATIONS[1][1] in one for one in sent)


def test_a_gpu_as_far_as_a_stand_in_goes(go, whole, tmp_path, monkeypatch):
    """The settings, the memory and the code path of a GPU; the numbers are computed on the CPU, and are those
    of the CPU's path."""
    plain, _ = whole
    monkeypatch.setattr(run, "provenance", lambda started: {})
    for name, value in (("is_available", True), ("device_count", 1), ("max_memory_allocated", 3 << 30)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (20 << 30, 24 << 30))
    told = []
    real = loading.load
    monkeypatch.setattr(
        run, "load", lambda name, dtype, device: told.append((dtype, device)) or real(name, dtype, "cpu")
    )
    seen, perform = [], bias.Asker.__init__
    monkeypatch.setattr(
        bias.Asker, "__init__", lambda self, *a, **k: seen.append((a, k)) or perform(self, *a, **k)
    )
    found = go(tmp_path / "gpu", device="cuda", dtype="float32")
    assert told == [("float32", "cuda")] and found["settings"]["device"] == "cuda"
    assert seen[-1][0][3] == run.WIDTHS["cuda"] and seen[-1][1] == {"reuse": False}
    assert found["provenance"]["peak_gib"] == 3.0
    assert found["defended"] == plain["defended"]
    for one, other in zip(found["records"], plain["records"], strict=True):
        assert one["answers"] == other["answers"] and one["odds"] == pytest.approx(other["odds"], abs=1e-3)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bias, "group", full)
    with pytest.raises(
        ValueError, match="memory of cuda did not suffice with PLACES=512; PLACES=256 takes less"
    ):
        go(tmp_path / "full", device="cuda", dtype="bfloat16")


def test_dialogues_about_an_item_go_as_the_paper_says(folders, tmp_path, monkeypatch):
    model = loading.load(folders / "llama")
    asked: Asked = run.settings.check(
        {name: getattr(words(folders, tmp_path), name.lower()) for name in run.WORDS}
    )
    (item, _), *_ = asked.items["Age"]
    told, write = [], bias.Asker.write

    def listen(self, talks, begin, tokens):
        found = write(self, talks, begin, tokens)
        told.extend(zip(talks, [begin] * len(talks), found, strict=True))
        return found

    monkeypatch.setattr(bias.Asker, "write", listen)
    (record,) = bias.group(bias.Asker(model, asked.lengths, 512), [item], 1)
    question = texts.asked(item)
    first, instructed, review, second, again, *rest = told
    assert first == ([texts.user(question)], texts.BEGIN, record["first"])
    assert instructed[0][0]["content"] == f"{question}\n{texts.INSTRUCTION}"
    assert [turn["content"] for turn in review[0]] == [
        question,
        f"{texts.BEGIN} {record['first']}",
        texts.REVIEW,
    ]
    assert second[0][3:] == [texts.assistant(record["review"]), texts.user(texts.AGAIN + question)]
    assert again[0][2]["content"] == texts.SIMPLY_AGAIN + question and again[2] == record["again"]
    forms = [talk[-1]["content"] for talk, begin, _ in rest if begin == "" and len(talk) == 3]
    assert forms == list(texts.FORMS.values())
    forced = [talk[3]["content"] for talk, _, _ in rest if len(talk) == 5][-2:]
    assert forced == list(texts.FORCED.values())
    third = [talk for talk, begin, _ in rest if begin and len(talk) == 13]
    assert [[turn["content"] for turn in talk].count(texts.REVIEW) for talk in third] == [3, 0]
    sentences = [turn["content"] for turn in third[1] if turn["content"] in texts.FORCED.values()]
    assert sentences == [texts.FORCED[record[f"true/{k}/word"]] for k in (1, 2, 3)]
    assert record["true/1"] == record[f"forced/{record['true/1/word']}"]


def test_a_checkpoint_has_one_owner_and_names_a_damaged_line(tmp_path):
    path = tmp_path / "records.jsonl"
    held = checkpoint.Checkpoint(path)
    held.put({"a": {"x": 1}, "b": {"x": 2.5}})
    with pytest.raises(checkpoint.CheckpointError, match="in use"):
        checkpoint.Checkpoint(path)
    held.close()
    again = checkpoint.Checkpoint(path)
    assert again.records == {"a": {"x": 1}, "b": {"x": 2.5}}
    again.close()
    path.write_text(path.read_text().replace('"x": 1', '"x": 3'))
    with pytest.raises(checkpoint.CheckpointError, match="line 1 is damaged; remove the file"):
        checkpoint.Checkpoint(path)


def test_what_one_model_says_of_each_claim(whole):
    result, _ = whole
    table = summary.claims(result)
    assert set(table["verdict"]) == {"not judged (small run)"}
    assert {"L1", "L2", "L3", "L4", "L5", "L6", "L7", "J1", "J2", "J3", "J4", "J5"} == set(table["claim"])
    part = result["records"][0]
    many = []
    for k in range(60):
        category = ("Age", "Religion", "SES", "Nationality", "Race_ethnicity")[k % 5]
        one = json.loads(json.dumps(part)) | {"id": f"{k:016x}", "category": category}
        one["condition"] = ("ambiguous", "disambiguated")[k // 5 % 2]
        wrong = (one["gold"] + 1) % 3
        one["answers"] = {name: [wrong, wrong] for name in one["answers"]}
        for name in ("second", "true/1", "true/2", "true/3", "forced/biased"):
            one["answers"][name] = [one["gold"]] * 2
        many.append(one)
    judged = summary.claims(result | {"small": False, "records": many}).set_index("measured")["verdict"]
    assert judged["ambiguous items: after the review less the first answer"] == "supported"
    assert judged["after the true critic less after it flipped"] == "supported"
    assert judged["true critic: third round less first"] == "negligible"
    assert judged["own review: third round less first"] == "supported"
    levels = summary.quality(result | {"records": many}).query("grader == 'strict'")
    assert levels["expected"].tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert (levels["least drawn"] <= levels["expected"]).all() and (
        levels["expected"] <= levels["most drawn"]
    ).all()


@pytest.mark.parametrize("change", ["cut", "schema", "option", "defence"])
def test_a_damaged_result_is_named(whole, tmp_path, change):
    result = copy.deepcopy(whole[0])
    path = tmp_path / "llama.json"
    if change == "schema":
        result["schema"] = 2
    if change == "option":
        result["records"][0]["answers"]["first"] = [3, 0]
    if change == "defence":
        del result["defended"][0]["icd"]
    text = json.dumps(result)
    path.write_text(text[:-9] if change == "cut" else text)
    with pytest.raises(
        results.PaperResultError, match=r"llama\.json is missing or damaged: .*make paper-llm"
    ):
        results.stored(tmp_path)
