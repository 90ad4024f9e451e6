"""Small runs with many seeds: what is stored is what the models do, whatever ended the sweep on its way."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from scipy import stats

from ica.build import stored as seal
from ica.intervals import mean_interval
from ica.synthetic.task import baselines
from ica.synthetic.task.data import Critic
from ica.synthetic.task.metrics import normalised_mse
from ica.synthetic.task.tokens import loss, read_at, tokens
from ica.synthetic.training import catalogue, locks, results, run, sweep, train

ROOT = Path(__file__).parents[2]
RUNS = """
ci: &small
  config: {noise: own, reward: squared_distance, scope: all, form: test-token, layers: 1, heads: 1, width: 8,
    hidden: 8, d: 3, N: 6, steps: 12, batch: 8, rate: 1.0e-2}
  groups: [[0, 3]]
  every: 10
  runs: {base: {}, critic: {critic: {kind: flip, level: 0.5}}}
stated: *small
walk: {config: {form: triplet}, groups: [[0]], every: 1, runs: {released: {}}}
"""


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A folder for results, with a small catalogue, five seeds in stacks of two, and 16 prompts each."""
    file, of_scale = tmp_path / "runs.yml", catalogue.jobs
    file.write_text(RUNS)
    monkeypatch.setattr(catalogue, "jobs", lambda scale, _=None: of_scale(scale, file))
    monkeypatch.setattr(sweep, "project_root", lambda: tmp_path)
    monkeypatch.setenv("ICA_RUNS", str(tmp_path / "build" / "runs"))
    for name, value in {
        "SEEDS": {"ci": 5, "stated": 5, "walk": 2},
        "LONGER": {},
        "GROUP": 2,
        "PROMPTS": 16,
        "LEVELS": (0.0, 0.5),
    }.items():
        monkeypatch.setattr(sweep, name, value)
    return tmp_path


def quiet(text: str) -> None:
    pass


def numbers(path: Path) -> dict:
    content = json.loads(path.read_text())
    del content["provenance"]
    return content


def left(folder: Path) -> list[str]:
    """What lies in the folder of the live runs, but for locks."""
    return sorted(path.name for path in (folder / "build" / "runs").iterdir() if path.suffix != ".lock")


# What is stored


def test_what_is_stored_is_what_freshly_trained_models_do(small, tmp_path):
    assert sweep.perform("ci", "critic", quiet) == small / "results/sweep/ci-critic.json"
    found = sweep.stored("ci", "critic")
    assert (
        found.seeds == (0, 1, 2, 3, 4) and found.seen.tolist() == list(range(6)) and list(found.nmse) == [0.0]
    )
    state = train.train(found.config, found.seeds, tmp_path / "anew")
    for k, model in enumerate(train.models(found.config, state)):
        batch = sweep.own_prompts(found.config, k)
        outputs = model(tokens(batch, "test-token")).detach()
        predictions = outputs[:, read_at(found.seen, "test-token")]
        for n in range(6):
            nmse = normalised_mse(predictions[:, n].double(), batch.good.double()).mean()
            error = (1 - torch.cosine_similarity(predictions[:, n], batch.good, dim=-1)).mean()
            assert found.at(n)[k].item() == pytest.approx(nmse.item(), rel=1e-3)
            assert found.at(n, "error")[k].item() == pytest.approx(error.item(), abs=1e-4)
        assert found.loss[k].item() == pytest.approx(loss(outputs, batch, found.config).item(), rel=1e-4)
    again = sweep.judge(found.config, state.weights, found.seeds, (0.0,))
    torch.testing.assert_close(
        torch.tensor(again["nmse"]["0.0"]).double(), found.nmse[0.0], rtol=1e-3, atol=1e-5
    )
    source = found.provenance
    assert source["seconds_per_seed"] > 0 and {"commit", "code", "versions", "hardware", "seconds"} <= set(
        source
    )
    assert left(small) == [] and seal.faults(small / "results") == []


def test_the_base_is_judged_under_random_rewards_too(small):
    sweep.perform("ci", "base", quiet)
    found = sweep.stored("ci", "base")
    assert list(found.nmse) == list(found.error) == [0.0, 0.5]
    assert not torch.equal(found.at(5, level=0.5), found.at(5)) and torch.equal(
        found.at(0), found.at(0, level=0.5)
    )
    content = json.loads(sweep.path("ci", "base").read_text())
    fields = {"schema", "scale", "name", "config", "seeds", "seen", "nmse", "error", "loss", "provenance"}
    assert set(content) == fields and content["schema"] == 1


def test_a_seed_is_judged_on_prompts_of_its_own_which_all_runs_with_these_data_share(small):
    base, critic = (sweep.job_of("ci", name).config for name in ("base", "critic"))
    one, same, noisy, other = (
        sweep.own_prompts(base, 1),
        sweep.own_prompts(critic, 1),
        sweep.own_prompts(base, 1, Critic("replace", 1.0)),
        sweep.own_prompts(base, 2),
    )
    assert one.noise == "own" and len(one.query) == 16
    assert torch.equal(one.responses, same.responses) and torch.equal(one.responses, noisy.responses)
    assert torch.equal(one.rewards, one.quality)
    assert not torch.equal(same.rewards, one.rewards) and not torch.equal(noisy.rewards, one.rewards)
    assert not torch.equal(one.responses, other.responses)
    assert not torch.equal(one.query[:8], train.prompts_of(base, 1, 0).query)


def test_baselines_are_those_of_the_very_same_prompts(small):
    sweep.perform("ci", sweep.BASELINES, quiet)
    found = sweep.stored_baselines("ci")
    assert list(found) == ["Bayes", "best-of-n", "gradient descent"] and left(small) == []
    for k in range(5):
        for level in (0.0, 0.5):
            batch = sweep.own_prompts(found["Bayes"].config, k, Critic("replace", level))
            seen, generator = torch.arange(2, 6), torch.Generator().manual_seed(k)
            expected = {
                "Bayes": baselines.bayes(batch, seen),
                "best-of-n": baselines.best_response(batch, seen),
                "gradient descent": baselines.descend(batch, seen, generator, reward="squared_distance"),
            }
            for name, predictions in expected.items():
                nmse = normalised_mse(predictions.double(), batch.good.double().unsqueeze(1)).mean(0)
                ours = torch.stack([found[name].at(n, level=level)[k] for n in range(2, 6)])
                torch.testing.assert_close(ours, nmse, rtol=1e-4, atol=1e-4)
    assert found["Bayes"].loss is None and found["Bayes"].provenance["seconds_per_seed"] > 0


def test_values_of_a_sweep_are_independent_replicates_with_students_interval(small):
    sweep.perform("ci", "critic", quiet)
    values = sweep.stored("ci", "critic").at(4)
    mean, lo, hi = mean_interval(values.unsqueeze(0))
    expected = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    assert (lo.item(), hi.item()) == pytest.approx(tuple(expected)) and mean == values.mean()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"n": 6}, "n must be one of 0 to 5"),
        ({"n": 2, "measure": "loss"}, "measure must be one of nmse, error; got 'loss'"),
        ({"n": 2, "level": 0.5}, r"level must be one of 0.0 \(critic\), got 0.5"),
    ],
)
def test_a_number_that_there_is_not_is_named(words, message, small):
    sweep.perform("ci", "critic", quiet)
    with pytest.raises(ValueError, match=message):
        sweep.stored("ci", "critic").at(**words)


def test_all_that_this_project_stores_is_whole_and_of_its_catalogue():
    for file in sorted((ROOT / "results" / "sweep").glob("*.json")):
        scale, _, name = file.stem.partition("-")
        job = sweep.job_of(scale, name)
        found = sweep._read(scale, name)
        assert all((one.config, one.seeds) == (job.config, job.seeds) for one in found.values()), file.name


# Ends


def stop_at(monkeypatch, seed: int, step: int) -> None:
    prompts_of = train.prompts_of

    def stop(config, of_seed, at):
        if (of_seed, at) == (seed, step):
            os.kill(os.getpid(), signal.SIGTERM)
        return prompts_of(config, of_seed, at)

    monkeypatch.setattr(train, "prompts_of", stop)


@pytest.mark.fault(
    "Ends",
    "A sweep of many seeds is ended in the middle, and what it kept of it is damaged",
    "Nothing is stored; started again it goes on from its last checkpoint, to the same numbers",
)
@pytest.mark.parametrize("damaged", [False, True])
def test_a_sweep_that_was_stopped_goes_on_to_the_same_numbers(damaged, small, monkeypatch, capsys):
    whole = numbers(sweep.perform("ci", "base", quiet))
    sweep.path("ci", "base").unlink()
    with monkeypatch.context() as patch:
        stop_at(patch, 2, 7)
        with pytest.raises(KeyboardInterrupt, match="after update 8,"):
            sweep.perform("ci", "base", quiet)
    assert not sweep.path("ci", "base").exists()
    (folder,) = (small / "build" / "runs").glob(".sweep-ci-base-*")
    assert sorted(path.name for path in folder.iterdir()) == ["0-1.json", "2"]
    if damaged:
        (folder / "0-1.json").write_text("{")
    done, told = [], []
    forward = train.prompts_of
    monkeypatch.setattr(train, "prompts_of", lambda *words: done.append(words[1:]) or forward(*words))
    assert numbers(sweep.perform("ci", "base", told.append)) == whole
    assert ((0, 0) in done) == damaged and (2, 7) not in done and {(2, 8), (4, 0)} <= set(done)
    assert "2 seeds, 8/12" in told and left(small) == []
    assert ("0-1.json is damaged" in capsys.readouterr().err) == damaged
    assert sweep.stored("ci", "base").provenance["seconds_per_seed"] > 0


def test_baselines_that_were_stopped_go_on_with_the_level_under_way(small, monkeypatch):
    whole = numbers(sweep.perform("ci", sweep.BASELINES, quiet))
    sweep.path("ci", sweep.BASELINES).unlink()
    seen: list[str] = []

    def tell(text: str) -> None:
        seen.append(text)
        if text == "p = 0.5, seed 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.perform("ci", sweep.BASELINES, tell)
    seen.clear()
    assert numbers(sweep.perform("ci", sweep.BASELINES, seen.append)) == whole
    assert seen == [f"p = 0.5, seed {k}" for k in range(5)]


def test_what_is_there_is_left_and_what_other_code_or_another_catalogue_made_is_not(small, monkeypatch):
    made = {name: sweep.perform("ci", name, quiet) for name in ("critic", sweep.BASELINES)}

    def anew() -> set[str]:
        before = {name: path.stat().st_mtime_ns for name, path in made.items()}
        after = {name: sweep.perform("ci", name, quiet).stat().st_mtime_ns for name in made}
        return {name for name in made if after[name] != before[name]}

    assert anew() == set()
    for digest, wanted in (
        (lambda more: str(len(more)) * 64, set(made)),
        (lambda more: ("9" if more else "0") * 64, {sweep.BASELINES}),  # baselines.py changes
    ):
        monkeypatch.setattr(run, "code_digest", lambda more=(), of=digest: of(more))
        assert anew() == wanted and anew() == set()
    (small / "runs.yml").write_text(RUNS.replace("level: 0.5", "level: 0.25"))
    assert anew() == {"critic"} and sweep.stored("ci", "critic").config.critic.level == 0.25


@pytest.mark.fault(
    "Results",
    "Two processes make the same sweep of many seeds at once",
    "The second says for whom it waits, and then takes what the first has stored",
)
def test_of_two_that_make_one_sweep_the_second_waits(small, capsys):
    lock, told = small / "build" / "runs" / ".sweep-ci-critic.lock", []
    with locks.held(lock, "the sweep critic (scale ci)"):
        second = threading.Thread(target=sweep.perform, args=("ci", "critic", told.append))
        second.start()
        end = time.monotonic() + 30
        while told != ["waiting"] and time.monotonic() < end:
            time.sleep(0.02)
        assert told == ["waiting"] and not sweep.path("ci", "critic").exists()
        job = sweep.job_of("ci", "critic")
        sweep._make(job, sweep.path("ci", "critic"), small / "build" / "own", quiet)
        made = sweep.path("ci", "critic").stat().st_mtime_ns
    second.join(60)
    assert told == ["waiting"] and sweep.path("ci", "critic").stat().st_mtime_ns == made
    assert "waiting for the sweep critic (scale ci) (process" in capsys.readouterr().err


# What is damaged, or wrong


def without(content: dict, name: str) -> dict:
    return {key: value for key, value in content.items() if key != name}


CHANGES = {
    "cut": (lambda c: None, "damaged or another .JSONDecodeError"),
    "list": (lambda c: [c], "damaged or another .Type"),
    "format": (lambda c: c | {"schema": 2}, "it has format 2; accepted: 1"),
    "another run": (lambda c: c | {"name": "base"}, "it holds 'base' of scale 'ci'"),
    "another scale": (lambda c: c | {"scale": "stated"}, "it holds 'critic' of scale 'stated'"),
    "a field": (lambda c: without(c, "nmse"), "KeyError: 'nmse'"),
    "seeds": (lambda c: c | {"seeds": [0, 1, 2, 3, 5]}, "not those that it was made with"),
    "config": (lambda c: c | {"config": c["config"] | {"rate": 0.5}}, "not those that it was made with"),
    "config field": (lambda c: c | {"config": c["config"] | {"colour": 1}}, "no field 'colour'"),
    "seen": (lambda c: c | {"seen": [0, 1, 2, 3, 4, 6]}, "seen of critic must be 0 to 5"),
    "a seed": (lambda c: c | {"nmse": {"0.0": c["nmse"]["0.0"][1:]}}, r"nmse.0.0 must have shape \(5, 6\)"),
    "finite": (lambda c: c | {"error": {"0.0": [[float("nan")] * 6] * 5}}, "error.0.0 must be finite"),
    "levels": (lambda c: c | {"error": {"0.5": c["error"]["0.0"]}}, "levels of critic must be those of both"),
    "loss": (lambda c: c | {"loss": c["loss"][1:]}, r"loss must have shape \(5\)"),
}


@pytest.mark.fault(
    "Results",
    "A stored sweep of many seeds is cut, holds another run, or lacks a field or a number",
    "The file is named, with what is wrong and what mends it; the sweep's command makes it anew",
)
def test_stored_files_that_are_damaged_or_foreign_are_named(small, capsys):
    path = sweep.perform("ci", "critic", quiet)
    whole = path.read_text()
    for kind, (change, message) in CHANGES.items():
        changed = change(json.loads(whole))
        path.write_text(whole[:300] if changed is None else json.dumps(changed))
        with pytest.raises(results.ResultError, match=message) as caught:
            sweep.stored("ci", "critic")
        assert str(path) in str(caught.value), kind
        assert 'checkout -- results` restores it, `make sweep SCALE=ci RUNS="critic"` makes' in str(
            caught.value
        )
    assert numbers(sweep.perform("ci", "critic", quiet)) == without(json.loads(whole), "provenance")
    assert f"sweep {path} is damaged" in capsys.readouterr().err
    with pytest.raises(results.ResultError, match=r"base.json is missing; `make sweep .* makes it anew"):
        sweep.stored("ci", "base")
    with pytest.raises(results.ResultError, match=r"ci-baselines.json is missing"):
        sweep.stored_baselines("ci")


WORDS = {
    "scale": (
        ("statd", "base"),
        "scale 'statd' has no sweep; did you mean stated? accepted: ci, stated, walk",
    ),
    "no sweep": (("paper",), "scale 'paper' has no sweep; accepted: ci, stated, walk"),
    "run": (
        ("ci", "critic", "bass"),
        "scale ci has no run 'bass'; did you mean base? accepted: base, baselines",
    ),
    "baselines": (("ci", "baseline"), "did you mean baselines?"),
    "of the walk": (
        ("walk", "--runs", "released baselines"),
        "scale walk has no run 'baselines'; accepted: rel",
    ),
}


@pytest.mark.fault(
    "Input",
    "A sweep of many seeds is asked for at a scale or of a run that there is not",
    "One line says what was meant and what is accepted, before anything runs",
)
@pytest.mark.parametrize("kind", WORDS)
def test_wrong_words_are_named_before_anything_runs(kind, small, monkeypatch, capsys):
    words, message = WORDS[kind]
    monkeypatch.setattr(sys, "argv", ["sweep", *words])
    monkeypatch.setattr(sweep, "perform", lambda *_: pytest.fail("something ran"))
    assert sweep.main() == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (small / "results").exists()


def test_all_of_a_scale_is_its_runs_and_what_its_base_is_compared_with(small):
    assert sweep.names_of("ci") == ("baselines", "base", "critic") and sweep.names_of("walk") == ("released",)
    job = sweep.job_of("stated", "baselines")
    assert job.config == sweep.job_of("stated", "base").config and job.seeds == (0, 1, 2, 3, 4)
