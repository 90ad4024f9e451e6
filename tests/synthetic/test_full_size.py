"""The answers of the paper's size: stored whole, read back, and refused where they are of others."""

from dataclasses import replace

import pytest
import torch

from ica.synthetic.analysis import full_size
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training import results, run
from ica.synthetic.training.catalogue import Job
from ica.synthetic.training.evaluation import evaluation_prompts

CONFIG = RunConfig(noise="own", reward="squared_distance", scope="all", form="triplet", layers=1, heads=1)
JOBS = [Job("full", "base", replace(CONFIG, width=8, hidden=8, steps=2), (seed,), 2) for seed in (0, 1)]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Answers of two tiny models; the weights of the second lie with the runs alone."""
    for module in (results, full_size):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setenv("ICA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(full_size, "jobs_of", lambda name, scale: JOBS)
    for job in JOBS:
        run.store(job, run.perform(job, tmp_path / "runs" / job.id), tmp_path / "results" / "paper")
    return full_size.make(lambda text: None)


def test_the_answers_are_those_of_the_models(asked):
    kept = full_size.stored()
    assert kept.answers.own.shape[0] == 2 and kept.answers.slopes.shape[1] == full_size.FEW
    torch.testing.assert_close(kept.changed[full_size.SAME], kept.answers.test)
    for k, job in enumerate(JOBS):
        again = full_size.ask(full_size.models(job)[0], job.config)
        for name in full_size.TENSORS:
            torch.testing.assert_close(getattr(kept.answers, name)[k], getattr(again.answers, name)[0])
        assert set(kept.changed) == set(again.changed) and len(again.changed) == 5
        for name, one in again.changed.items():
            torch.testing.assert_close(kept.changed[name][k], one[0])
    assert full_size.gap(kept, prompts=8, few=2).amax() < 1e-5
    moved = replace(kept, answers=replace(kept.answers, slopes=kept.answers.slopes * 1.01))
    assert full_size.gap(moved, prompts=8, few=2)[2] > 1e-3
    assert len(evaluation_prompts(CONFIG).query) >= len(kept.answers.test[0])


def test_answers_to_other_prompts_are_not_taken(asked):
    assert full_size.stored(seed=1) is None and full_size.stored(few=64) is None
    asked.unlink()
    assert full_size.stored() is None


def test_answers_that_are_damaged_or_of_other_models_are_named(asked, tmp_path):
    (other := tmp_path / "results/paper/full-base-seed1.json").rename(tmp_path / "away.json")
    with pytest.raises(results.ResultError, match=r"other models .*full_size` makes them anew"):
        full_size.stored()
    (tmp_path / "away.json").rename(other)
    assert full_size.stored() is not None
    asked.write_bytes(asked.read_bytes()[:-8])
    with pytest.raises(results.ResultError, match="are damaged or of others"):
        full_size.stored()
    other.with_name("full-base-seed0.safetensors").unlink()
    (tmp_path / "runs" / JOBS[0].id / results.RESULT).unlink()
    with pytest.raises(results.ResultError, match="is missing"):
        full_size.models(JOBS[0])
