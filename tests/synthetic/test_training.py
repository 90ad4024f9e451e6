"""Training: stacked equals alone, interrupted equals uninterrupted, a failure leaves the last checkpoint."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ica.synthetic.task.config import LATER, RunConfig
from ica.synthetic.task.data import Critic
from ica.synthetic.task.tokens import lengths, read_at, tokens
from ica.synthetic.training import catalogue, checkpoints, evaluation, train
from ica.transformer import Transformer

TINY = RunConfig(form="triplet", layers=1, heads=1, width=8, hidden=8, d=3, N=5, steps=40, batch=8, rate=1e-2)
SEEDS = (0, 3)
ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys, torch
from pathlib import Path
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training.train import train
torch.set_num_threads(1)
config = RunConfig.from_dict(json.loads(sys.argv[1]))
print("ready", flush=True)
train(config, (0, 3), Path(sys.argv[2]), every=5)
"""


def same(first: train.State, second: train.State) -> bool:
    a, b = first.tensors(), second.tensors()
    return first.losses == second.losses and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> train.State:
    return train.train(TINY, SEEDS, tmp_path_factory.mktemp("whole"), every=7)


def test_the_loss_falls(tmp_path):
    losses = torch.tensor(train.train(replace(TINY, steps=200, batch=64), SEEDS, tmp_path, every=200).losses)
    assert (losses[-10:].mean(0) < losses[:10].mean(0) - 0.2).all()


def test_stacked_seeds_equal_single_runs(whole, tmp_path):
    for k, seed in enumerate(SEEDS):
        alone = train.train(TINY, (seed,), tmp_path / str(seed))
        for name, tensor in alone.weights.items():
            torch.testing.assert_close(tensor[0], whole.weights[name][k], rtol=1e-4, atol=1e-6)


def test_adam_is_pytorchs(tmp_path):
    config = replace(TINY, steps=6)
    ours = train.train(config, (1,), tmp_path)
    model = train.models(config, train.start(config, (1,)))[0].train()
    optimiser = torch.optim.Adam(model.parameters(), lr=config.rate)
    for step in range(config.steps):
        batch = train.prompts_of(config, 1, step)
        optimiser.zero_grad()
        train.loss(model(tokens(batch, config.form)), batch, config).backward()
        optimiser.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), ours.weights[name][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 0},
        {"hidden": 0, "mask": "full", "post_norm": True},
        {"attention": "linear"},
        {"form": "interleaved"},
        {"critic": Critic("replace", 0.5, raters=3), "teacher": "truth"},
        {"noise": "own", "reward": "squared_distance", "scope": "all"},
        {"form": "test-token", "scope": "all"},
        {"form": "interleaved", "scope": "all", "noise": "own"},
        {"products": "bfloat16"},
        {"products": "bfloat16", "form": "test-token", "attention": "linear"},
    ],
)
def test_every_variant_trains_all_of_its_weights(changes, tmp_path):
    config = replace(TINY, steps=3, **changes)
    first, last = train.start(config, (0,)), train.train(config, (0,), tmp_path)
    still = [name for name in first.weights if torch.equal(first.weights[name], last.weights[name])]
    assert not still


def test_products_in_bfloat16_train_about_the_same_model_which_is_judged_in_float32(tmp_path):
    stated = {"noise": "own", "reward": "squared_distance", "scope": "all", "form": "test-token"}
    configs = {name: replace(TINY, products=name, **stated) for name in ("float32", "bfloat16")}
    states = {name: train.train(config, SEEDS, tmp_path / name) for name, config in configs.items()}
    exact, half = (torch.tensor(states[name].losses) for name in configs)
    assert ((half - exact) / exact).abs().max() < 0.03 and not torch.equal(half, exact)
    assert {tensor.dtype for tensor in states["bfloat16"].tensors().values()} == {torch.float32}
    judged = {name: evaluation.evaluate(configs["bfloat16"], states[name].weights, 64) for name in configs}
    again = evaluation.evaluate(configs["float32"], states["bfloat16"].weights, 64)
    for key, values in judged["bfloat16"].items():
        assert values.dtype == torch.float32 and torch.equal(values, again[key])
    errors = [judged[name]["nmse"].mean((1, 2)) for name in configs]
    torch.testing.assert_close(*errors, rtol=0.05, atol=0)
    inputs = torch.randn(2, 4, 2 * TINY.N, 7, generator=torch.Generator().manual_seed(0))
    runs = [train.forward(configs["bfloat16"], products) for products in ("float32", "bfloat16")]
    full, rough = (run(states["bfloat16"].weights, inputs) for run in runs)
    assert rough.dtype == torch.float32 and 1e-5 < (full - rough).abs().max() < 0.1 * full.abs().max()


def test_the_teacher_ranks_and_the_critic_is_shown():
    critic = Critic("flip", 1.0)
    taught = {teacher: replace(TINY, critic=critic, teacher=teacher) for teacher in ("critic", "truth")}
    batch = train.prompts_of(taught["truth"], 0, 0)
    outputs = torch.randn(TINY.batch, TINY.N, TINY.d, generator=torch.Generator().manual_seed(0))
    losses = {teacher: train.loss(outputs, batch, config) for teacher, config in taught.items()}
    mirrored = replace(batch, rewards=batch.quality, quality=batch.rewards)
    assert losses["truth"] == train.loss(outputs, mirrored, taught["critic"]) != losses["critic"]
    assert torch.equal(tokens(batch, "triplet")[..., -1], batch.rewards)


@pytest.mark.parametrize("kind", ["terminate", "kill"])
def test_interrupted_and_resumed_equals_uninterrupted(kind, whole, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, json.dumps(TINY.as_dict()), str(tmp_path)]
    number, stops = signal.SIGTERM if kind == "terminate" else signal.SIGKILL, 0
    for attempt in range(3):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        process.stdout.readline()
        time.sleep(random.Random(attempt).uniform(0.05, 0.5))
        process.send_signal(number)
        stops += process.wait() != 0
    ended = train.train(TINY, SEEDS, tmp_path, every=5)
    assert stops > 0 and same(ended, whole)
    assert not list(tmp_path.glob("*.tmp")) or kind == "kill"


def test_values_that_are_not_finite_stop_with_the_last_checkpoint_kept(tmp_path):
    broken = replace(TINY, rate=1e30, steps=10)
    with pytest.raises(train.TrainingError, match=r"seed \d gives values that are not finite at update \d+"):
        train.train(broken, SEEDS, tmp_path, every=1)
    (*_, last) = checkpoints.paths(tmp_path)
    tensors, _ = checkpoints.load(last, broken, SEEDS)
    assert tensors


def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint(tmp_path):
    train.train(replace(TINY, steps=5), SEEDS, tmp_path, every=5)
    (kept,) = checkpoints.paths(tmp_path)
    before, limits = kept.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (2000, limits[1])
    )  # no file may grow past 2000 bytes: the write fails
    try:
        with pytest.raises(
            checkpoints.CheckpointError, match="could not be written .* the last one is step-000005"
        ):
            checkpoints.save(tmp_path, {"w": torch.zeros(5000)}, {"step": 10})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name] and kept.read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train.train(replace(TINY, steps=1), SEEDS, tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match="is of another run"):
        train.train(replace(TINY, steps=1, rate=0.5), SEEDS, tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match="is of another run"):
        train.train(replace(TINY, steps=1), (0, 1), tmp_path)


@pytest.mark.parametrize("scope", ["seen", "all"])
@pytest.mark.parametrize("form", ["interleaved", "triplet", "test-token"])
def test_a_prediction_sees_exactly_its_triplets(form, scope):
    config = replace(TINY, form=form)
    model = Transformer(config.transformer())
    batch = train.prompts_of(config, 0, 0)
    later = replace(batch, responses=batch.responses.clone(), rewards=batch.rewards.clone())
    later.responses[:, 3:] += 1
    later.rewards[:, 3:] += 1
    seen = lengths(config.N, form, scope)
    one, two = (model(tokens(b, form))[:, read_at(seen, form)] for b in (batch, later))
    changed = (one - two).abs().amax((0, 2)) > 0
    assert changed.tolist() == [n > 3 for n in seen.tolist()]


def test_configurations_have_stable_names():
    assert RunConfig.from_dict(json.loads(json.dumps(TINY.as_dict()))) == TINY
    names = {
        TINY.hash(),
        TINY.hash((0,)),
        replace(TINY, critic=Critic("flip", 0.1)).hash(),
        replace(TINY, d=4).hash(),
    }
    assert len(names) == 4 and RunConfig().hash() == RunConfig().hash()


# As the ids were before noise, scope and products could be chosen (commit cfb8d13): files bear them.
IDS = {
    ("ci", "base"): "979a074b9d73",
    ("ci", "critic-raters"): "abe6b1536a19",
    ("cores", "base"): "fa689f829b7c",
    ("cores", "interleaved-small"): "8bad8831fcef",
}
RELEASED = {"053881a5e85d": {}, "0e5ed4dcbe6b": {"hidden": 0, "mask": "full", "post_norm": True}}


def test_configurations_from_before_keep_their_names_and_new_fields_make_new_ones():
    for (scale, name), expected in IDS.items():
        assert catalogue.jobs_of(name, scale)[0].id == expected
    for expected, changes in RELEASED.items():
        assert replace(RunConfig(), **changes).hash((0, 1, 2)) == expected
    for file in (ROOT / "results" / "paper").glob("cores-*.json"):
        content = json.loads(file.read_text())
        old = {key: value for key, value in content["config"].items() if key not in LATER}
        assert RunConfig.from_dict(old).hash(tuple(content["seeds"])) == content["id"]
    new = {"noise": "own", "scope": "all", "products": "bfloat16", "form": "test-token"}
    assert set(LATER) <= set(new)
    configs = [TINY, *(replace(TINY, **{key: value}) for key, value in new.items()), replace(TINY, **new)]
    assert len({config.hash() for config in configs}) == len(configs)
    for config in configs:
        assert RunConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("form", "pairs"),
        ("noise", "each"),
        ("scope", "some"),
        ("products", "float16"),
        ("reward", "dot"),
        ("N", 2),
        ("rate", 0.0),
        ("batch", 0),
        ("heads", 3),
        ("critic", 0.5),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        replace(TINY, **{field: value})
    with pytest.raises(ValueError, match="configuration has no field 'colour'"):
        RunConfig.from_dict({"colour": 1})
