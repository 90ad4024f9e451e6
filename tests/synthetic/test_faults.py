"""Results, checkpoints and stored files of training runs, damaged on purpose: none is taken for whole, each is named."""

import json
import os
import re
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ica.build import jobs
from ica.record import seals
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training import checkpoints, results, run, train, workflow
from ica.synthetic.training.catalogue import Job

ROOT = Path(__file__).parents[2]
TINY = RunConfig(form="triplet", layers=1, heads=1, width=4, hidden=4, d=2, N=4, steps=6, batch=4, rate=1e-2)
JOB = Job("ci", "base", TINY, (0, 3), 2)


def settle(patch: pytest.MonkeyPatch) -> None:
    """The environment of a build's jobs, as `run` sees it (the libraries of this process keep theirs)."""
    patch.setattr(os, "environ", {**os.environ, **jobs.ENVIRONMENT})


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    settle(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a result that the build could have made."""
    out = tmp_path_factory.mktemp("whole") / JOB.id
    with pytest.MonkeyPatch.context() as patch:
        settle(patch)
        run.perform(JOB, out)
    return out


@pytest.fixture
def out(whole, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "runs" / JOB.id))


def numbers(folder: Path) -> dict:
    content = json.loads((folder / results.RESULT).read_text())
    del content["provenance"]
    return content


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def seal(folder: Path, **about) -> None:
    """Seal the folder as it is, as if made so."""
    made = seals.about(folder / results.SEAL) | about
    seals.write(folder / results.SEAL, [folder / results.WEIGHTS, folder / results.RESULT], made)


def rewrite(folder: Path, **changes) -> None:
    """Change fields of a result and seal it again."""
    path = folder / results.RESULT
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    seal(folder)


def in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "no seal": (lambda out: (out / results.SEAL).unlink(), "seal.json is missing"),
    "empty seal": (lambda out: (out / results.SEAL).write_text(""), "seal.json is damaged"),
    "no result": (lambda out: (out / results.RESULT).unlink(), "result.json is missing"),
    "no weights": (lambda out: (out / results.WEIGHTS).unlink(), "weights.safetensors is missing"),
    "half a result": (lambda out: os.truncate(out / results.RESULT, 500), "result.json is damaged"),
    "a bit of the weights": (lambda out: flip(out / results.WEIGHTS, -9), "weights.safetensors is damaged"),
    "a folder": (lambda out: in_place_of(out / results.RESULT), "result.json cannot be read"),
    "no looks": (lambda out: rewrite(out, looks=[]), "looks must go from update 0 to 6"),
    "looks left out": (
        lambda out: rewrite(out, looks=[numbers(out)["looks"][k] for k in (0, -1)]),
        "looks after other updates than 0, every 2, 6",
    ),
    "losses left out": (lambda out: rewrite(out, losses=numbers(out)["losses"][:-1]), r"losses must have sh"),
    "not a number": (lambda out: rewrite(out, losses=[[float("nan")] * 2] * 6), "losses must be finite"),
    "another run": (lambda out: rewrite(out, name="linear"), r"holds run linear \(scale ci\), not base"),
}


@pytest.mark.fault(
    "Results",
    "A file of a finished training run is removed, cut short or changed by a bit; its looks or losses are left out",
    "The build names the file and what is wrong, and trains the run anew, to the same bits",
)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_result_is_not_taken_for_a_whole_one(kind, whole, out):
    damage, message = DAMAGE[kind]
    assert run.faults(JOB, out) == []
    damage(out)
    (found,) = run.faults(JOB, out)
    assert re.search(message, found)
    if kind == "a folder":  # which the build removes, and a run by hand names
        with pytest.raises(results.ResultError, match="could not be written .*Is a directory"):
            run.perform(JOB, out)
        (out / results.RESULT).rmdir()
    run.perform(JOB, out)
    assert run.faults(JOB, out) == [] and numbers(out) == numbers(whole)


@pytest.mark.fault(
    "Settings",
    "A run was trained by hand with two threads, on a GPU, with other code or another PyTorch",
    "The build does not take it for its own: it says what differs and trains it anew",
)
@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"threads": 2}, "made with threads 2 (here 1)"),
        ({"OMP_NUM_THREADS": None}, "made with OMP_NUM_THREADS None (here 1)"),
        ({"device": "cuda"}, "made with device cuda (here cpu)"),
        ({"instructions": "none"}, "made with instructions none (here "),
        ({"code": "0" * 12, "torch": "1.0"}, "made with code 000000000000 (here "),
    ],
)
def test_a_result_made_with_other_settings_is_not_the_builds(about, message, out):
    seal(out, **about)
    (found,) = run.faults(JOB, out)
    assert message in found
    large = replace(JOB, scale="cores")  # may be made anywhere, by the same code
    rewrite(out, scale="cores")
    assert bool(run.faults(large, out)) == ("code" in about)
    run.perform(JOB, out)
    assert run.faults(JOB, out) == []


@pytest.mark.fault(
    "Settings",
    "A run with two threads is interrupted, and the build goes on with it",
    "The checkpoints of other settings are named and not used",
)
def test_checkpoints_of_other_settings_are_not_used(whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / JOB.id
    monkeypatch.setattr(run, "_publish", lambda *_: 1 / 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(ZeroDivisionError):
        run.perform(JOB, out)
    monkeypatch.undo()
    (other,) = tmp_path.glob(f".{JOB.id}-*")
    for path in checkpoints.paths(other):
        path.write_bytes(b"")  # would be named if it were read
    capsys.readouterr()
    settle(monkeypatch)
    run.perform(JOB, out)
    said = capsys.readouterr().err
    assert said == f"checkpoints in {other} are of other code or settings; not used\n"
    assert numbers(out) == numbers(whole) and not other.exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    train.train(TINY, (0,), folder, every=3)
    return checkpoints.paths(folder)[-1]


@pytest.mark.fault(
    "Results",
    "One bit of a checkpoint is flipped, in the weights or in the header; or it is cut short, empty or a folder",
    "It is refused, by name",
)
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_named(checkpoint, tmp_path):
    good = checkpoint.read_bytes()
    assert checkpoints.load(checkpoint, TINY, (0,))
    path = tmp_path / checkpoint.name
    for at in range(0, len(good), len(good) // 200):  # the header and all tensors
        path.write_bytes(good)
        flip(path, at, at % 8)
        with pytest.raises(checkpoints.Damaged, match=f"{path.name} is damaged"):
            checkpoints.load(path, TINY, (0,))
    for part in (good[:-1], good[:8], b"", good + b"\0"):
        path.write_bytes(part)
        with pytest.raises(checkpoints.Damaged, match=f"{path.name} is damaged"):
            checkpoints.load(path, TINY, (0,))
    in_place_of(path)
    with pytest.raises(checkpoints.Damaged, match=f"{path.name} is damaged"):
        checkpoints.load(path, TINY, (0,))


@pytest.mark.fault(
    "Results",
    "The last checkpoint of an interrupted run is damaged, or the last two",
    "The run goes on from the one before if that is whole, else it starts anew, and says so; the result is the same",
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_damaged_checkpoint_is_passed_over_for_a_whole_one_only(
    count, whole, tmp_path, monkeypatch, capsys
):
    out = tmp_path / JOB.id
    monkeypatch.setattr(run, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.perform(JOB, out)
    monkeypatch.undo()
    settle(monkeypatch)
    (folder,) = tmp_path.glob(f".{JOB.id}-*")
    four, six = checkpoints.paths(folder)
    for path in (six, four)[:count]:
        flip(path, -1)
    run.perform(JOB, out)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{six} is damaged (its checksum is another one)" in line
    assert (f"{four} is damaged" in line) == (count == 2)
    assert line.endswith(
        ("going on from step-000004.safetensors, which is whole", "so the run starts anew")[count - 1]
    )
    assert numbers(out) == numbers(whole) and [one["step"] for one in numbers(out)["looks"]] == [0, 2, 4, 6]


WRONG = {
    "deep": ("[" * 100_000, "is damaged"),
    "not text": (b"\xff\xfe{", "is damaged"),
    "no object": ("[1]", "is damaged"),
    "no field": (lambda c: {k: v for k, v in c.items() if k != "looks"}, "is damaged .*no looks"),
    "infinite": (lambda c: c | {"losses": [[float("inf")] * 2] * 6}, "is damaged .*losses must be finite"),
    "too large": (lambda c: c | {"losses": [[10**400] * 2] * 6}, "is damaged"),
    "null": (lambda c: c | {"losses": None}, "is damaged"),
    "words": (lambda c: c | {"losses": [["a", "b"]] * 6}, "is damaged"),
    "ragged": (lambda c: c | {"losses": [[1.0, 2.0], [1.0]]}, "is damaged"),
    "fewer seeds": (
        lambda c: c | {"final": {key: value[:1] for key, value in c["final"].items()}},
        r"final.error must have shape \(2, 256, 3\), got \(1, 256, 3\)",
    ),
    "fewer prompts": (
        lambda c: c | {"final": {key: [seed[1:] for seed in value] for key, value in c["final"].items()}},
        r"must have shape \(2, 256, 3\), got \(2, 255, 3\)",
    ),
    "other prefixes": (lambda c: c | {"seen": [2, 3]}, "seen must be 2 to 4"),
    "looks backwards": (lambda c: c | {"looks": c["looks"][::-1]}, "looks must go from update 0 to 6"),
    "looks without numbers": (lambda c: c | {"looks": [{"step": 0}]}, "is damaged .*error"),
}


def spoil(path: Path, change) -> None:
    if callable(change):
        change = json.dumps(change(json.loads(path.read_text())))
    path.write_bytes(change if isinstance(change, bytes) else change.encode())


@pytest.mark.fault(
    "Results",
    "A stored result holds numbers that are not finite, of other shapes, no text, or JSON nested without end",
    "The file is named, with the commands that restore it or make it anew",
)
@pytest.mark.parametrize("kind", WRONG)
def test_a_stored_result_that_holds_something_else_is_named(kind, whole, tmp_path):
    change, message = WRONG[kind]
    path = run.store(replace(JOB, scale="cores"), whole / results.RESULT, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": "cores"}))
    assert results.stored("base", tmp_path).seeds == (0, 3)
    spoil(path, change)
    with pytest.raises(results.ResultError, match=message) as caught:
        results.stored("base", tmp_path)
    assert f"result {path}" in str(caught.value)
    assert str(caught.value).endswith(
        '; `git checkout -- results` restores it, `make stored SCALE=cores RUNS="base"` makes it anew'
    )


@pytest.mark.fault(
    "Results",
    "The weights of a stored run are missing, of another run, or changed by a bit; a file is under another run's name",
    "Reading them is refused; the message names the file",
)
def test_weights_and_names_that_do_not_fit_are_named(whole, tmp_path):
    job = replace(JOB, scale="cores")
    path = run.store(job, whole / results.RESULT, tmp_path)
    content = json.loads(path.read_text()) | {"scale": "cores"}
    path.write_text(json.dumps(content))
    weights = path.with_suffix(".safetensors")
    assert len(results.stored("base", tmp_path).models()) == 2
    flip(weights, -5)
    with pytest.raises(results.ResultError, match=f"weights {weights} are damaged .their SHA-256"):
        results.stored("base", tmp_path).models()
    first = {key: value for key, value in content.items() if key != "weights"} | {"schema": 1}
    path.write_text(json.dumps(first))  # without a digest of the weights
    for tensors in (
        {"a": torch.zeros(2, 1)},
        {"a": torch.zeros(())},
        {},
        {"a": torch.full((2, 1), torch.nan)},
    ):
        save_file(tensors, weights)
        with pytest.raises(results.ResultError, match=f"weights {weights} are damaged or of another model"):
            results.stored("base", tmp_path).models()
    weights.unlink()
    with pytest.raises(results.ResultError, match=f"weights {weights} are missing"):
        results.stored("base", tmp_path).models()
    path.rename(tmp_path / "cores-linear-seed0-3.json")
    with pytest.raises(
        results.ResultError, match=r"seed0-3.json holds run base \(scale cores\); `git checkout"
    ):
        results.stored("linear", tmp_path)


@pytest.mark.fault(
    "Results",
    "A notebook reads a training run of which a file is missing or damaged",
    "The error names the run, the file and the command that makes it",
)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_notebook_is_told_what_is_wrong_with_a_run(kind, out, monkeypatch):
    damage, message = DAMAGE[kind]
    monkeypatch.setenv("ICA_RUNS", str(out.parent))
    monkeypatch.setattr(results, "jobs_of", lambda name, scale: [JOB])
    assert results.live("base").seeds == (0, 3)
    damage(out)
    with pytest.raises(results.ResultError, match=message) as caught:
        results.live("base")
    assert "run base (scale ci, seeds 0,3) is not there" in str(caught.value)
    assert str(caught.value).endswith("`python -m ica.synthetic.training.run ci base` makes it")


def test_seed_groups_that_do_not_fit_are_named(whole, tmp_path):
    one = results.read(whole / results.RESULT)
    with pytest.raises(results.ResultError, match="holds looks after other updates"):
        results.merged([one, replace(one, looks=one.looks[::3])])
    with pytest.raises(results.ResultError, match="is of another configuration"):
        results.merged([one, replace(one, config=replace(TINY, rate=1.0))])


def test_results_stored_under_the_first_schema_are_read():
    for path in sorted((ROOT / "results" / "paper").glob("*.json")):
        assert results.read(path).weights in ([None], [json.loads(path.read_text()).get("weights")])


COVERED = (
    "ica/objectives.py",
    "ica/transformer.py",
    *(f"ica/synthetic/task/{name}.py" for name in ("config", "data", "metrics", "prefixes", "tokens")),
    *(f"ica/synthetic/training/{name}.py" for name in ("checkpoints", "evaluation", "train")),
)


@pytest.mark.fault(
    "Results",
    "A module that the numbers of training runs stand on is changed, or moved to another place",
    "The runs are trained anew; a list of modules that names one which there is not is an error",
)
def test_the_digest_of_the_code_covers_what_the_numbers_stand_on(tmp_path, monkeypatch):
    shutil.copytree(
        ROOT / "ica", tmp_path / "ica", ignore=shutil.ignore_patterns("__pycache__", "llm", "theory")
    )
    seen = {run.code_digest(tmp_path)}
    assert seen == {run.code_digest()}
    for name in COVERED:
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
        seen.add(run.code_digest(tmp_path))
    assert len(seen) == 1 + len(COVERED)
    monkeypatch.setattr(run, "NUMBERS", (*run.NUMBERS, "ica.synthetic.catalogue"))
    with pytest.raises(ValueError, match=r"names 'ica.synthetic.catalogue', which is no module"):
        run.code_digest(tmp_path)


def test_other_steps_of_the_looks_are_another_digest_of_the_notebook():
    wanted = [{"one": [replace(JOB, every=every)]} for every in (2, 3)]
    assert len({workflow.digests({"one": "x"}, jobs, "code")["one"] for jobs in wanted}) == 2


@pytest.mark.fault(
    "Surroundings",
    "The disk is full while a result is stored",
    "The file is named; the one before stays whole",
)
def test_a_full_disk_while_storing_is_named_and_keeps_the_one_before(whole, tmp_path):
    job = replace(JOB, scale="cores")
    path = run.store(job, whole / results.RESULT, tmp_path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # no file may grow past this
    try:
        with pytest.raises(results.ResultError, match=f"could not be stored as {path} .*File too large"):
            run.store(job, whole / results.RESULT, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert sorted(one.suffix for one in tmp_path.iterdir()) == [".json", ".safetensors"]
