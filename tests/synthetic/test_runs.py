"""Runs: what they leave, how they resume, how they fail, and that every curve can be traced back."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ica.synthetic.analysis import controls, panels
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic
from ica.synthetic.task.tokens import lengths, loss, read_at, tokens
from ica.synthetic.training import evaluation, results, run, train
from ica.synthetic.training.catalogue import Job

ROOT = Path(__file__).parents[2]
TINY = RunConfig(form="triplet", layers=1, heads=1, width=8, hidden=8, d=3, N=6, steps=30, batch=8, rate=1e-2)
JOB = Job("ci", "base", TINY, (0, 3), 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> results.Result:
    return results.read(run.perform(JOB, tmp_path_factory.mktemp("runs") / JOB.id))


def test_a_result_says_what_its_models_do(made):
    batch = evaluation.evaluation_prompts(TINY)
    seen = lengths(TINY.N, TINY.form)
    assert made.seen.tolist() == seen.tolist() and made.errors.shape == (2, evaluation.PROMPTS, len(seen))
    for k, model in enumerate(made.models()):
        outputs = model(tokens(batch, TINY.form))[:, read_at(seen, TINY.form)]
        expected = 1 - torch.cosine_similarity(outputs, batch.good.unsqueeze(1), dim=-1)
        torch.testing.assert_close(made.errors[k], expected, atol=1e-4, rtol=0)
    assert [look.step for look in made.looks] == [0, 10, 20, 30] and made.losses.shape == (30, 2)
    fewer = evaluation.evaluation_prompts(TINY, count=evaluation.LOOK_PROMPTS)
    for k, model in enumerate(made.models()):
        outputs = model(tokens(fewer, TINY.form))
        errors = 1 - torch.cosine_similarity(
            outputs[:, read_at(seen, TINY.form)], fewer.good.unsqueeze(1), dim=-1
        )
        torch.testing.assert_close(made.looks[-1].error[k], errors.mean(0), atol=1e-4, rtol=0)
        expected = loss(outputs, fewer, TINY)
        torch.testing.assert_close(made.looks[-1].loss[k], expected, atol=1e-3, rtol=0)


def test_a_result_can_be_traced(made):
    content = json.loads(made.files[0].read_text())
    source = content["provenance"]
    assert content["id"] == TINY.hash((0, 3)) == made.files[0].parent.name
    assert RunConfig.from_dict(content["config"]) == TINY and content["seeds"] == [0, 3]
    assert {"commit", "code", "versions", "hardware", "device", "seconds_per_update"} <= set(source)
    (row,) = panels.traces({"curve": made}).to_dict("records")
    assert row["result"] == content["id"] and row["seeds"] == "0, 3" and row["steps"] == 30
    assert set(panels.curves({"curve": made}, last=6)["run"]) == {content["id"]}


def test_a_run_stopped_between_two_looks_leaves_the_same_result(made, tmp_path, monkeypatch):
    prompts_of = train.prompts_of

    def stop(config, seed, step):
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return prompts_of(config, seed, step)

    monkeypatch.setattr(train, "prompts_of", stop)
    with pytest.raises(KeyboardInterrupt, match="after update 12,"):
        run.perform(JOB, tmp_path / JOB.id)
    monkeypatch.undo()
    again = results.read(run.perform(JOB, tmp_path / JOB.id))
    assert [look.step for look in again.looks] == [look.step for look in made.looks]
    content = [json.loads(result.files[0].read_text()) for result in (made, again)]
    for one in content:
        del one["provenance"]
    assert content[0] == content[1]


def test_a_finished_run_is_not_trained_again_but_one_of_other_code_is(tmp_path, monkeypatch):
    job = replace(JOB, config=replace(TINY, steps=2), every=2)
    path = run.perform(job, tmp_path / job.id)
    before = path.stat().st_mtime_ns
    left = tmp_path / f".{job.id}-0123456789ab"  # by a run killed once its result was there
    left.mkdir()
    assert run.perform(job, tmp_path / job.id) == path and path.stat().st_mtime_ns == before
    assert not left.exists()
    monkeypatch.setattr(run, "code_digest", lambda: "0" * 64)
    run.perform(job, tmp_path / job.id)
    assert path.stat().st_mtime_ns > before


def test_a_full_disk_at_the_end_is_named_keeps_the_checkpoint_and_publishes_nothing(tmp_path, monkeypatch):
    job = replace(JOB, config=replace(TINY, steps=2, width=64, hidden=256, layers=2), every=2)
    out = tmp_path / job.id
    out.mkdir()
    monkeypatch.setattr(run, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.perform(job, out)  # leaves its checkpoints
    monkeypatch.undo()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, limits[1])
    )  # no file may grow past this: the write fails
    try:
        with pytest.raises(
            results.ResultError, match="could not be written .* its last checkpoint is kept in"
        ):
            run.perform(job, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(out.iterdir())
    assert run.perform(job, out) == out / "result.json"


def test_seed_groups_are_read_as_one_run(made, tmp_path):
    for seeds in ((0, 3), (5,)):
        job = replace(JOB, scale="cores", name="linear", seeds=seeds)
        run.store(job, run.perform(job, tmp_path / "runs" / job.id), tmp_path / "stored")
    both = results.stored("linear", tmp_path / "stored")
    assert both.seeds == (0, 3, 5) and both.errors.shape[0] == 3 and both.losses.shape == (30, 3)
    torch.testing.assert_close(both.errors[:2], made.errors)
    assert results.stored("base", tmp_path / "stored") is None
    with pytest.raises(results.ResultError, match="weights .* are missing"):
        both.models()


def test_a_small_run_that_is_stored_is_read_and_not_trained(made, tmp_path, monkeypatch):
    """While the job asks for that very run; what is damaged is named."""
    monkeypatch.setattr(results, "project_root", lambda: tmp_path)
    monkeypatch.setattr(results, "jobs_of", lambda name, scale: [JOB])
    monkeypatch.setenv("ICA_RUNS", str(tmp_path / "nothing"))
    assert results.kept(JOB) is None
    path = run.store(JOB, made.files[0], tmp_path / "results" / "paper")
    found = results.live("base", "ci")
    assert found.precomputed and not made.precomputed
    assert torch.equal(found.errors, made.errors) and len(found.models()) == 2
    assert "precomputed: curve" in panels.about({"curve": found})
    assert "precomputed" not in panels.about({"curve": made})
    torch.testing.assert_close(controls.anew(found, 3), torch.zeros(3, 2), atol=1e-5, rtol=0)
    assert results.kept(replace(JOB, config=replace(TINY, steps=2))) is None
    assert results.kept(replace(JOB, scale="cores")) is None
    path.write_text("{}")
    with pytest.raises(results.ResultError, match=r"make stored SCALE=ci RUNS=\"base\"` makes it anew"):
        results.kept(JOB)


def test_the_main_stored_run_keeps_its_weights(tmp_path):
    job = replace(JOB, scale="cores", config=replace(TINY, steps=2), every=2)
    run.store(job, run.perform(job, tmp_path / "runs" / job.id), tmp_path / "stored")
    assert len(results.stored("base", tmp_path / "stored").models()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"schema": 4}, "format 4; accepted: 1, 2, 3"),
        (lambda c: {k: v for k, v in c.items() if k != "noisy"}, "damaged .*no noisy"),
        (lambda c: c | {"noisy": {"0.5": {"error": [[0.0]], "nmse": [[0.0]]}}}, r"noisy.0.5.error must have"),
        (lambda c: c | {"seeds": [0, 4]}, "says it is run"),
        (lambda c: {k: v for k, v in c.items() if k != "final"}, "damaged .*final"),
        (lambda c: c | {"config": c["config"] | {"layers": -1}}, "damaged .*layers"),
    ],
)
def test_damaged_results_are_named(change, message, made, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(change(json.loads(made.files[0].read_text()))))
    with pytest.raises(results.ResultError, match=message):
        results.read(path)


def test_errors_under_noisy_critics_are_kept_and_merged(tmp_path):
    """Of a stored run of the main configuration, whose weights are then gone; against its models."""
    found = []
    for seeds in ((0, 3), (5,)):
        job = replace(JOB, scale="cores", config=replace(TINY, noise="own", steps=2), seeds=seeds, every=2)
        made = results.read(run.perform(job, tmp_path / "runs" / job.id))
        run.store(job, made.files[0], tmp_path / "stored")
        found.append(made)
    one, both = found[0], results.stored("base", tmp_path / "stored")
    assert list(one.noisy) == list(both.noisy) == list(evaluation.LEVELS)
    for level, (error, nmse) in both.noisy.items():
        assert error.shape == nmse.shape == both.errors.shape
        for k, own in enumerate((error, nmse)):
            assert torch.equal(own, torch.cat([part.noisy[level][k] for part in found]))
    batch = evaluation.evaluation_prompts(one.config, Critic("replace", 0.5))
    assert batch.noise == "own" and not torch.equal(batch.rewards, batch.quality)
    for k, model in enumerate(one.models()):
        outputs = model(tokens(batch, "triplet"))[:, read_at(one.seen, "triplet")].double()
        squared = (outputs - batch.good.unsqueeze(1)).square().sum(-1)
        expected = squared / batch.good.double().square().sum(-1).mean()
        torch.testing.assert_close(one.noisy[0.5][1][k].double(), expected, atol=1e-4, rtol=1e-4)
    without = replace(found[1], noisy={})
    assert results.merged([one, without]).noisy == results.merged([without, one]).noisy == {}
    assert not results.is_noisy(JOB) and not results.is_noisy(replace(job, name="linear"))
    assert json.loads(one.files[0].read_text())["schema"] == 3


def from_weights(file: Path) -> results.Result:
    """A stored result with its errors computed anew from its weights."""
    read = results.read(file)
    weights, _ = train.stack_module_state(read.models())
    found = evaluation.evaluate(
        read.config, {key: one.detach() for key, one in weights.items()}, evaluation.PROMPTS
    )
    return replace(read, errors=found["error"], nmse=found["nmse"])


def test_normalised_errors_of_older_formats_are_converted():
    """In formats 1 and 2 each prompt's own norm was below; against the weights that lie beside the file."""
    file = ROOT / "results" / "paper" / "cores-base-seed0.json"
    content = json.loads(file.read_text())
    assert content["schema"] in (1, 2)
    read, again = results.read(file), from_weights(file)
    torch.testing.assert_close(read.errors, again.errors, atol=2e-4, rtol=0)
    torch.testing.assert_close(read.nmse, again.nmse, atol=4e-4, rtol=1e-3)
    torch.testing.assert_close(read.nmse.mean(1), again.nmse.mean(1), atol=2e-5, rtol=0)
    written = torch.tensor(content["final"]["nmse"])
    assert (written - read.nmse).abs().mean() > 0.05  # the two ways differ, so that the conversion is seen
    assert all(look.nmse.isnan().all() and look.error.isfinite().all() for look in read.looks)
    assert read.noisy == {}


@pytest.mark.parametrize("schema", [1, 2])
def test_a_file_of_an_older_format_gives_the_numbers_of_today(schema, made, tmp_path):
    content = json.loads(made.files[0].read_text())
    size = evaluation.evaluation_prompts(TINY).good.square().sum(-1)
    nmse = torch.tensor(content["final"]["nmse"]) * (size.mean() / size).unsqueeze(-1)
    content = content | {"schema": schema, "final": content["final"] | {"nmse": nmse.tolist()}}
    kept = {key: value for key, value in content.items() if key in results.FIELDS[schema]}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(kept))
    read = results.read(path)
    torch.testing.assert_close(read.nmse, made.nmse, atol=1e-5, rtol=1e-5)
    assert torch.equal(read.errors, made.errors) and read.noisy == {}
    assert all(look.nmse.isnan().all() for look in read.looks)
    assert read.weights == ([None] if schema == 1 else made.weights)


def test_missing_and_truncated_results_are_named(made, tmp_path, monkeypatch):
    with pytest.raises(results.ResultError, match=r"nothing.json is missing"):
        results.read(tmp_path / "nothing.json")
    half = tmp_path / "half.json"
    half.write_text(made.files[0].read_text()[:500])
    with pytest.raises(results.ResultError, match=r"half.json is damaged"):
        results.read(half)
    monkeypatch.setenv("ICA_RUNS", str(tmp_path))
    with pytest.raises(results.ResultError, match="python -m ica.synthetic.training.run ci base` makes it"):
        results.live("base")


def test_evaluation_prompts_are_those_of_no_update_and_differ_by_critic_in_rewards_only():
    clean, noisy = (evaluation.evaluation_prompts(TINY, Critic("replace", p), count=16) for p in (0.0, 1.0))
    assert torch.equal(clean.responses, noisy.responses) and not torch.equal(clean.rewards, noisy.rewards)
    again = evaluation.evaluation_prompts(TINY, count=16)
    assert torch.equal(again.rewards, clean.rewards)


def test_the_command_line_names_what_is_wrong(tmp_path):
    status = tmp_path / "run-x.json"
    command = [sys.executable, "-m", "ica.synthetic.training.run", "ci", "nothing", "--status", str(status)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "must be one of base" in done.stderr
    told = json.loads(status.read_text())
    assert told["state"] == "failed" and "must be one of base" in told["report"]
