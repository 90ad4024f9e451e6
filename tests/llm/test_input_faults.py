"""What a user asks of shards and attacks, and files of prompts, broken on purpose: refused in one line before any heavy work."""

import json
import sys
from pathlib import Path

import pytest
import torch
from llm_items import items as some_items
from small_language_model import language_model

from ica.build import jobs
from ica.llm.jailbreak import attack, attacks
from ica.llm.jailbreak.attacks import Attack, PromptsError
from ica.llm.protocol import measure, shards

torch.set_num_threads(1)
DEEP = "[" * 100_000 + "]" * 100_000


# Shards


def run_measure(monkeypatch, tmp_path: Path, *words: str, model=None, items=None) -> int:
    """The command in this process, with a small model; heavy work must not begin where an argument is wrong."""

    def load(name: str):
        if model is None:
            pytest.fail("the model is loaded although an argument is wrong")
        return model

    monkeypatch.setattr(jobs, "settle", lambda module, threads=1: None)
    monkeypatch.setattr(measure, "load", load)
    monkeypatch.setattr(measure, "model_folder", lambda hash: tmp_path / "calls")
    if items is not None:
        monkeypatch.setattr(
            measure, "load_items", lambda source: (items, {"source": source, "sha256": "1" * 64})
        )
    monkeypatch.setattr(sys, "argv", ["measure", *words, "--status", str(tmp_path / "status.json")])
    return measure.main()


@pytest.mark.fault(
    "Settings",
    "A shard is asked for with a scale, category, number of threads, job file or output folder that there is not",
    "One line that names it and what is accepted, before the model is loaded; the status file holds it too",
)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["life", "smollm2"], "scale must be one of live, ladder, got 'life'"),
        (["live"], "scale (live, ladder) and model must be given"),
        (["live", "smollm2", "Agee"], "did you mean Age?"),
        (["ladder", "smolm2"], "model must be one of"),
        (["live", "smollm2", "--threads", "0"], "--threads must be a whole number of 1 to 10000, got '0'"),
        (["live", "smollm2", "--threads", "a"], "--threads must be a whole number of 1 to 10000, got 'a'"),
        (["live", "smollm2", "--out", "{file}"], "--out: nothing can be written into"),
        (["live", "smollm2", "--out", "/proc/none"], "--out: nothing can be written into"),
        (["live", "smollm2", "--items", "{none}"], "holds no .jsonl file"),
        (["--job", "{none}"], "No such file"),
        (["--job", "{file}"], "no JSON"),
        (["--job", "{deep}"], "nested too deeply"),
        (["--job", "{list}"], "it must hold scale, model, items, category"),
        (["live", "--job", "{list}"], "give one or the other"),
    ],
)
def test_words_of_measure_are_checked(tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "file").write_text("text")
    (tmp_path / "deep").write_text(DEEP)
    (tmp_path / "list").write_text('{"scale": "live"}')
    paths = {name: str(tmp_path / name) for name in ("file", "none", "deep", "list")}
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert run_measure(monkeypatch, tmp_path, *(word.format(**paths) for word in words), *out) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed" and message in status["report"]


@pytest.mark.fault(
    "Input",
    "A category of the BBQ folder has no item to read in one of the two conditions",
    "An error that names category and condition, and no empty result",
)
def test_a_category_without_records_is_an_error(tmp_path, monkeypatch, capsys):
    only = [one for one in some_items(12, ("Age",)) if one.condition == "ambiguous"]
    out = ["--out", str(tmp_path / "out")]
    for left, missing in ((only, "disambiguated"), ([], "ambiguous")):
        assert run_measure(monkeypatch, tmp_path, "live", "smollm2", "Age", *out, items=left) == 1
        assert f"bbq has no {missing} item of category Age in the confirming half" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.fault(
    "Input",
    "A BBQ item is longer than the model can read",
    "Refused before anything is read, with the item, its tokens and what the model reads",
)
def test_an_item_that_the_model_cannot_read_is_named(tmp_path, monkeypatch, capsys):
    many, small = some_items(12, ("Age",)), language_model(places=512)
    out = ["--out", str(tmp_path / "out")]
    assert run_measure(monkeypatch, tmp_path, "live", "smollm2", "Age", *out, model=small, items=many) == 1
    said = capsys.readouterr().err
    assert "needs up to " in said and "accepted are at most 512, which small llama reads at once" in said
    assert any(one.id in said for one in many) and not list((tmp_path / "out").iterdir())
    assert not (tmp_path / "calls").exists()


def test_a_job_is_handed_over_by_a_file(tmp_path):
    for model in ("smollm2", "my models/a b.gguf", "x: y", "1e3", "$HOME `id` 'q' \"d\"", "modèle\n2"):
        shard = shards.shards("live", model)[3]
        (tmp_path / "job.json").write_text(json.dumps(shards.job(shard)))
        assert shards.from_job(tmp_path / "job.json") == shard
    (tmp_path / "job.json").write_text(json.dumps(shards.job(shard) | {"category": "Agee"}))
    with pytest.raises(
        ValueError, match=r"job .*job.json: category 'Agee' is not of bbq; did you mean Age\?"
    ):
        shards.from_job(tmp_path / "job.json")


# Prompts for jailbreaks


@pytest.mark.fault(
    "Input",
    "A file of prompts is a folder, empty, no UTF-8, nested without end, of another form, or a CSV with faults",
    "Refused, with its name, the row, the reason and what is accepted",
)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "it is a folder"),
        ("a.csv", b"", "it is empty"),
        ("a.csv", b"goal\n\xff\n", "not in UTF-8"),
        ("a.csv", b"Bake a cake\nSing\n", "its columns are 'Bake a cake'"),
        ("a.csv", b"goal,goal\na,b\n", "column 'goal' stands twice"),
        ("a.csv", b"goal\nBake, then sing\n", "line 2 has 2 cells, its header 1"),
        ("a.csv", b'goal\n"Bake\n', "line 2: unexpected end of data"),
        ("a.csv", b"goal\na\0b\n", "line 2: goal must be text, got the character '\\x00'"),
        ("a.csv", b"goal\n" + b"x" * 150_000 + b"\n", "field larger than field limit"),
        ("a.csv", b"goal\n\n", "holds no prompt"),
        ("a.json", DEEP.encode(), "nested too deeply"),
        ("a.json", b'[{"goal": "a"}, 3]', "entry 2 is no object"),
        ("a.json", b'[{"goal": ["a"]}]', "entry 1: goal must be text"),
        ("a.json", b'[{"goal": NaN}]', "NaN is no JSON"),
        (
            "a.json",
            b'[{"prompt": "a \\ud800 b"}]',
            "entry 1: prompt must be text, got the character '\\ud800'",
        ),
        ("a.json", b'{"goal": "a"}', "it holds no list"),
        ("a.json", json.dumps([{"goal": "x" * 100_001}]).encode(), "entry 1: goal has 100001 characters"),
    ],
)
def test_files_of_prompts_are_checked(tmp_path, name, content, message):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(PromptsError, match=f"{name} .*accepted are a CSV") as caught:
        attacks.load_prompts(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_valid_prompts_are_read_whole(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        '\ufeffid,goal\r\n1,"Bake,\nthen ""sing"""\r\n2,\r\n\r\n3,Hum\u2028twice\r\n'.encode()
    )
    found = attacks.load_prompts(tmp_path / "a.csv")
    assert [one.text for one in found] == ['Bake,\nthen "sing"', "Hum\u2028twice"]
    assert [one.place for one in found] == ["line 3", "line 6"]


@pytest.mark.fault(
    "Input",
    "A prompt is longer than the model reads",
    "Refused before anything is generated, with its row, its tokens and what is accepted",
)
def test_a_prompt_that_the_model_cannot_read_is_named(tmp_path, monkeypatch, capsys):
    long = tmp_path / "long.json"
    long.write_text(json.dumps([{"goal": "Sing."}, {"goal": "again " * 5000}]))
    model, small = language_model(places=8192), language_model(places=256)
    for one in (model, small):  # a template with a system turn
        one.tokenizer.chat_template = one.tokenizer.chat_template.replace(
            "{{ raise_exception", "{{ '' and raise_exception"
        )
    monkeypatch.setattr(jobs, "settle", lambda module, threads=1: None)
    monkeypatch.setattr(attack, "load", lambda name: model)
    monkeypatch.setattr(attack, "model_folder", lambda hash: tmp_path / "calls")
    monkeypatch.setattr(attack, "greedy", lambda *words: pytest.fail("something is generated"))
    monkeypatch.setattr(sys, "argv", ["attack", "small", "--prompts", str(long)])
    assert attack.main() == 1
    said = capsys.readouterr().err
    assert (
        "entry 2: a dialogue about it needs up to about " in said
        and "accepted are at most 4096 with small llama" in said
    )
    with pytest.raises(PromptsError, match="attack 1: .* accepted are at most 256"):
        attack.require_room(small, [Attack("", "word " * 200)])


@pytest.mark.fault(
    "Settings",
    "Attacks are asked for with none of them, too many, no threads, or an output that is a folder or cannot be written",
    "One line that names it and what is accepted, before the model is loaded",
)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "0"], "--attacks must be a whole number of 1 to"),
        (["--attacks", "many"], "--attacks must be a whole number of 1 to"),
        (["--attacks", "99"], "--attacks must be at most"),
        (["--threads", "0"], "--threads must be a whole number of 1 to"),
        (["--out", "{folder}"], "is a folder; accepted is the path of a file"),
        (["--out", "{file}/x.json"], "--out: nothing can be written into"),
        (["--prompts", "{file}", "--attacks", "1"], "give one or the other"),
        (["--prompts", "{folder}"], "it is a folder"),
    ],
)
def test_words_of_attack_are_checked(tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "file").write_text("goal\nSing\n")
    paths = {"folder": str(tmp_path), "file": str(tmp_path / "file")}
    monkeypatch.setattr(jobs, "settle", lambda module, threads=1: None)
    monkeypatch.setattr(attack, "load", lambda name: pytest.fail("the model is loaded"))
    status = tmp_path / "status.json"
    given = [word.format(**paths) for word in words]
    monkeypatch.setattr(sys, "argv", ["attack", "smollm2", *given, "--status", str(status)])
    assert attack.main() == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and message in json.loads(status.read_text())["report"]
