"""Runs of the catalogue: what they leave, how they resume, how they fail, and that every curve can be traced back."""

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

from ica.build import notebooks
from ica.synthetic.analysis import panels
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic
from ica.synthetic.task.tokens import lengths, loss, read_at, tokens
from ica.synthetic.training import catalogue, evaluation, results, run, train, workflow
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


def test_the_main_stored_run_keeps_its_weights(tmp_path):
    job = replace(JOB, scale="cores", config=replace(TINY, steps=2), every=2)
    run.store(job, run.perform(job, tmp_path / "runs" / job.id), tmp_path / "stored")
    assert len(results.stored("base", tmp_path / "stored").models()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | {"schema": 3}, "format 3; accepted: 1, 2"),
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


def test_every_run_of_every_scale_is_valid_and_has_its_own_id():
    for scale in catalogue.SCALES:
        found = [job for jobs in catalogue.jobs(scale).values() for job in jobs]
        assert len({job.id for job in found}) == len(found) > 5
    (base,) = catalogue.jobs_of("base", "paper")
    assert base.config == RunConfig() and base.config.steps == 3000 and len(base.seeds) >= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ci: {config: {}, groups: [[0]], every: 1}", "must hold exactly config, groups, every, runs"),
        ("ci: {config: {}, groups: [[0], [0]], every: 1, runs: {a: {}}}", "stands in two groups"),
        ("ci: {config: {}, groups: 3, every: 1, runs: {a: {}}}", "list of lists of seeds"),
        ("ci: {config: {}, groups: [[0]], every: 0, runs: {a: {}}}", "every must be a whole number"),
        (
            "ci: {config: {}, groups: [[0]], every: 1, runs: {a: {heads: 5}}}",
            "run a: width must be a multiple",
        ),
        ("ci: {config: [}", "runs.yml is no YAML"),
        ("ci: {config: 3, groups: [[0]], every: 1, runs: {}}", "config must be a mapping"),
        ("ci: {config: {}, groups: [[0]], every: 1, runs: [a]}", "runs must be a mapping"),
        ("ci: {config: {}, groups: [[0]], every: 1, 3: {}}", "must hold exactly"),
        ("ci: {config: {colour: 1}, groups: [[0]], every: 1, runs: {a: {}}}", "no field 'colour'"),
    ],
)
def test_bad_catalogues_are_named(text, message, tmp_path):
    file = tmp_path / "runs.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        catalogue.jobs("ci", file)


def test_unknown_runs_and_scales_are_named():
    with pytest.raises(ValueError, match="run of scale ci must be one of base, .*; got 'bass'"):
        catalogue.jobs_of("bass", "ci")
    with pytest.raises(ValueError, match="scale must be one of ci, cores, paper"):
        catalogue.jobs("full")


def test_a_notebook_is_digested_with_the_runs_it_reads():
    overrides = notebooks.overrides(ROOT, "ci")
    wanted = workflow.needed(ROOT, overrides)
    assert [job.name for job in wanted["panel_c"]] == notebooks.runs(ROOT, "panel_c")
    own = dict.fromkeys(overrides, "x")
    first, other = (workflow.digests(own, wanted, code) for code in ("one", "two"))
    assert first["panel_c"] != other["panel_c"] != "x" and first["bradley_terry"] == "x"
    at_paper = workflow.needed(ROOT, notebooks.overrides(ROOT, "paper"))
    assert {job.scale for job in at_paper["panel_c"]} == {"paper"}


def test_the_command_line_names_what_is_wrong(tmp_path):
    status = tmp_path / "run-x.json"
    command = [sys.executable, "-m", "ica.synthetic.training.run", "ci", "nothing", "--status", str(status)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "must be one of base" in done.stderr
    told = json.loads(status.read_text())
    assert told["state"] == "failed" and "must be one of base" in told["report"]
