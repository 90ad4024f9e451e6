"""The cache broken in every part: what is damaged is made anew, what cannot be written is refused by name, and nothing half-made stays."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_language_model import language_model, refused, saved, written

from ica.llm.model import assets, copies
from ica.llm.model.cache import CacheError, CallCache, call_key, model_folder
from ica.llm.model.engine import Engine
from ica.llm.model.load import load
from ica.llm.model.scoring import Request
from ica.record import seals

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LOAD = "import sys\nfrom ica.llm.model.load import load\ntry:\n    load(sys.argv[1])\nexcept ValueError as error:\n    print(error)"


@pytest.fixture
def commons(monkeypatch):
    """A folder in which a cache lies that others may read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("ICA_CACHE", str(folder / "cache"))
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def stranger():
    """From the call on, work as a user whom permissions bind, as they do not bind root."""
    own = os.geteuid()
    yield (lambda: os.seteuid(65534)) if own == 0 else lambda: None
    os.seteuid(own)


def closed(folder: Path) -> None:
    """Nobody may write here or below."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)


# Converted copies


def damage(copy: Path, how: str) -> None:
    if how == "no seal":
        (copy / copies.SEAL).unlink()
    elif how == "empty seal":
        (copy / copies.SEAL).write_text("{}")
    elif how == "config.json gone":
        (copy / "config.json").unlink()
    elif how == "tokenizer.json cut":
        (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text()[:-9])
    elif how == "a file in its place":
        shutil.rmtree(copy)
        copy.write_text("")


@pytest.mark.fault(
    "Results",
    "The converted copy of a model is damaged, or its seal is empty or gone",
    "The copy is made anew by the next call, without a word to the user",
)
@pytest.mark.parametrize(
    "how", ["no seal", "empty seal", "config.json gone", "tokenizer.json cut", "a file in its place"]
)
def test_copies_that_are_not_whole_are_made_anew(how, commons):
    path = written(commons / "small.gguf")
    before = {name: tensor.clone() for name, tensor in load(path).network.state_dict().items()}
    (copy,) = (commons / "cache/models").iterdir()
    damage(copy, how)
    torch.testing.assert_close(dict(load(path).network.state_dict()), before, rtol=0, atol=0)
    assert not seals.faults(copy / copies.SEAL)
    assert [one.name for one in (commons / "cache/models").iterdir()] == [copy.name]


@pytest.mark.fault(
    "Surroundings",
    "The disk of the cache is full while a model is converted",
    "An error names the folder and ICA_CACHE; nothing half-written stays",
)
@pytest.mark.parametrize("most", [20_000, 110_000])
def test_a_full_disk_while_converting(most, commons):
    path = written(commons / "small.gguf")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))  # no file may grow past so many bytes
    try:
        refused(path, r"the converted copy .*/cache/models/.* could not be written \(.*set ICA_CACHE")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((commons / "cache/models").iterdir())


@pytest.mark.slow
@pytest.mark.fault(
    "Surroundings", "Two processes convert one model at once", "Both load it, and one whole copy is left"
)
def test_two_processes_convert_at_once(commons):
    path = written(commons / "small.gguf")
    (commons / "cache/models").mkdir(parents=True)

    def run(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", LOAD, path], env={**ENVIRONMENT, "ICA_CACHE": str(commons / "cache")},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == ["", ""]
    (copy,) = (commons / "cache/models").iterdir()
    assert not seals.faults(copy / copies.SEAL)


@pytest.mark.fault(
    "Surroundings",
    "A conversion was killed days ago, and its half-made files are still in the cache",
    "The next conversion removes them",
)
def test_what_killed_conversions_left_is_removed(commons):
    path, folder = written(commons / "small.gguf"), commons / "cache/models"
    for name, age in ((".making-old", 2 * assets.DAY), (".making-new", 0.0)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    load(path)
    assert not (folder / ".making-old").exists() and (folder / ".making-new").exists()


# Whose cache it is


@pytest.mark.fault(
    "Surroundings",
    "Two users share one cache, which one of them may only read",
    "What is there is used; what would have to be written is refused, with the variable that names another place",
)
def test_two_users_with_one_cache(commons, stranger, monkeypatch):
    path, other = written(commons / "small.gguf"), written(commons / "other.gguf", "llama")
    expected = load(path).tokens("the thing")
    Engine(language_model(), CallCache(model_folder("0" * 64))).score([Request("a", (" b",))])
    (copy,) = (commons / "cache/models").iterdir()
    asset = assets.named("bbq").path
    asset.parent.mkdir(parents=True)
    asset.write_bytes(b"damaged")
    closed(commons / "cache")
    language_model().tokens("x")
    monkeypatch.setenv("TMPDIR", "/tmp")
    stranger()
    assert load(path).tokens("the thing") == expected and copy.is_dir()
    cache = CallCache(model_folder("0" * 64))
    assert len(cache) == 1
    with pytest.raises(
        CacheError, match="cannot be written .Permission denied.; set ICA_CALLS to a folder of your own"
    ):
        cache.put("key", 1)
    refused(
        other,
        r"other.gguf cannot be converted: .*models cannot be written \(Permission denied\); set ICA_CACHE",
    )
    with pytest.raises(
        assets.AssetError, match=r"asset bbq: .*bbq.jsonl cannot be used \(Permission denied\); set ICA_CACHE"
    ):
        assets.fetch("bbq")
    with pytest.raises(
        assets.AssetError, match=r"assets/smollm2 cannot be written \(Permission denied\); set ICA_CACHE"
    ):
        assets.fetch("smollm2")


@pytest.mark.fault(
    "Surroundings",
    "The cache is a file, or there is no home folder",
    "One line names the place and ICA_CACHE",
)
def test_a_cache_that_has_no_place(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICA_CACHE", str(tmp_path / "file"))
    path = written(tmp_path / "small.gguf")
    refused(path, r"file/models cannot be written \(Not a directory\); set ICA_CACHE")
    with pytest.raises(assets.AssetError, match=r"cannot be written \(Not a directory\); set ICA_CACHE"):
        assets.fetch("bbq")
    monkeypatch.setenv("ICA_CACHE", "")
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(assets.AssetError, match="there is no home folder; set ICA_CACHE"):
        assets.cache_folder()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_what_the_umask_says(mask, commons):
    path = written(commons / "small.gguf")
    before = os.umask(mask)
    try:
        load(path)
        CallCache(commons / "cache/calls/x").put("key", 1)
    finally:
        os.umask(before)
    found = [one for one in (commons / "cache").rglob("*") if one.name != copies.SEAL]
    wrong = [one for one in found if one.stat().st_mode & 0o777 & ~(0o777 if one.is_dir() else 0o666) & ~mask]
    assert not wrong and not [one for one in found if one.stat().st_mode & mask]
    assert all(one.stat().st_mode & 0o044 == 0o044 & ~mask for one in found)


# Kept answers


@pytest.mark.fault(
    "Results",
    "Kept answers with deep nesting, of other types, a folder or a pipe among them, a file that may not be read",
    "Each is named in a warning and skipped; what it held is computed again",
)
@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "[]",
        "7",
        '{"key": ["a"], "check": "", "answer": 1}',
        '{"key": "a"}',
        '{"key": "a", "check": "", "answer": NaN}',
    ],
)
def test_lines_of_any_shape(line, tmp_path):
    CallCache(tmp_path).put("good", 1)
    (tmp_path / "bad.jsonl").write_text(line + "\n")
    with pytest.warns(UserWarning, match=r"bad.jsonl, line 1 is damaged") as warned:
        assert CallCache(tmp_path).get("good") == 1
    assert len(warned) == 1


def test_files_that_are_none(commons, stranger):
    calls = commons / "calls"
    CallCache(calls).put("good", 1)
    (calls / "folder.jsonl").mkdir()
    os.mkfifo(calls / "pipe.jsonl")
    (calls / "none.jsonl").symlink_to("nowhere")
    (calls / "secret.jsonl").write_text("")
    (calls / "secret.jsonl").chmod(0)
    stranger()
    with pytest.warns(UserWarning, match="will be computed again") as warned:
        assert CallCache(calls).get("good") == 1
    said = sorted(str(one.message) for one in warned)
    assert [name in one for name, one in zip(("folder", "none", "pipe", "secret"), said, strict=True)] == [
        True
    ] * 4
    assert all("it is no file" in one for one in said[:3]) and "Permission denied" in said[3]


@pytest.mark.fault(
    "Results",
    "A kept answer is of another shape than the question, with a checksum that holds",
    "A warning names it, and the answer is computed",
)
@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        [],
        [[], "x"],
        [[[["a"]]], 1.0],
        [[[[-1.0], [-1.0]]], 1.0],
        [[[[]]], 1.0],
        [[[[True]]], 1.0],
        {"a": 1},
    ],
)
def test_answers_of_another_shape(answer, tmp_path):
    asked, model = [Request("the thing", (" A",))], language_model()
    expected = Engine(model).score(asked)
    engine = Engine(model, CallCache(tmp_path))
    key = call_key(model.hash, "scores", {**engine.settings(), "anchors": []}, [["the thing", [" A"]]])
    engine.cache.put(key, answer)
    engine = Engine(model, CallCache(tmp_path))
    with pytest.warns(UserWarning, match="another shape than what was asked"):
        assert engine.score(asked) == expected
    again = Engine(model, CallCache(tmp_path))
    assert again.score(asked) == expected and again.computed == 0  # the good answer is taken from now on


@pytest.mark.parametrize("rows", [[[0, 1]], [[-1]], [[]], [[0.5]], [[1], [1]], [[True]]])
def test_generated_answers_of_another_shape(rows, tmp_path):
    model = language_model()
    engine = Engine(model, CallCache(tmp_path))
    settings = {**engine.settings(), "new_tokens": 1, "anchors": []}
    engine.cache.put(call_key(model.hash, "greedy", settings, ["the"]), [rows, 0.1])
    with pytest.warns(UserWarning, match="another shape than what was asked"):
        assert engine.generate(["the"], 1) == Engine(model).generate(["the"], 1)


def test_another_place_for_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", str(tmp_path / "cache"))
    assert model_folder("a" * 64) == tmp_path / "cache/calls" / ("a" * 16)
    monkeypatch.setenv("ICA_CALLS", str(tmp_path / "own"))
    assert model_folder("a" * 64) == tmp_path / "own" / ("a" * 16)


# Commands


def command(module: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"ica.llm.model.{module}", *words],
        env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.fault(
    "Settings",
    "An asset of no such name, or a cache that is a file, from the command line",
    "One line, no traceback",
)
def test_commands_say_what_is_wrong(tmp_path):
    (tmp_path / "file").touch()
    done = command("assets", "smolm2")
    assert done.returncode == 1 and "did you mean smollm2? known are smollm2, " in done.stderr
    done = command("assets", "bbq", ICA_CACHE=str(tmp_path / "file"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "set ICA_CACHE" in done.stderr
    out, status = tmp_path / "out.json", tmp_path / "status.json"
    out.write_text("old")
    done = command(
        "prepare", "bbq", "--out", str(out), "--status", str(status), ICA_CACHE=str(tmp_path / "file")
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and not out.exists()
    said = json.loads(status.read_text())
    assert (
        said["state"] == "failed"
        and said["report"].startswith("Fetching bbq: ")
        and "ICA_CACHE" in said["report"]
    )


@pytest.mark.skipif(
    not assets.is_here("bbq"), reason="bbq is not in the cache; `python -m ica.llm.model.assets bbq`"
)
def test_prepared_assets_say_what_they_are(tmp_path):
    out, status = tmp_path / "out.json", tmp_path / "status.json"
    assert command("prepare", "bbq", "--out", str(out), "--status", str(status)).returncode == 0
    assert json.loads(out.read_text())["sha256"] == assets.named("bbq").sha256
    assert json.loads(status.read_text())["state"] == "done"


@pytest.mark.fault(
    "Text from outside",
    "The package client reports with colours and line ends",
    "The error is one plain line",
)
def test_text_of_the_package_client_is_plain(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", str(tmp_path))
    said = "\x1b[31mERROR: no\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \udcff\u202e" + "x" * 10_000
    monkeypatch.setattr(assets.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, said))
    with pytest.raises(
        assets.AssetError, match=r"could not be downloaded \(ERROR: no link x+\.\.\.\); run"
    ) as caught:
        assets.fetch("bbq")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_good_folders_need_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", "/dev/null/none")
    assert load(saved(tmp_path / "folder")).tokens("the")
