"""Small runs with many seeds: `python -m ica.synthetic.training.sweep stated base linear`, or all of a scale without names.

Each seed trains as in `train` and is judged on prompts of its own, the same for every configuration with these data, so that the seeds
are independent replicates: a mean over them has Student's interval, a difference of two configurations is paired by seed, and only means
over prompts are kept. Beside them, as `baselines`, what needs no training on the very same prompts. A result of the same code and settings
that is there is left as it is; a run that is stopped goes on from its last checkpoint.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.build import jobs
from ica.record.provenance import project_root, write_json
from ica.synthetic.task import baselines
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, SyntheticBatch, sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.tokens import loss, prefixes, read_at, tokens
from ica.synthetic.training import catalogue, evaluation, results, run
from ica.synthetic.training.train import Weights, forward, train

MODULE = "ica.synthetic.training.sweep"
SCHEMA = 1
SEED, PROMPTS, GROUP = 2_000_000_011, 512, 10
SEEDS = {"ci": 40, "stated": 40, "walk": 20}  # by scale
BASELINES = "baselines"
LEVELS = (0.0, *evaluation.LEVELS)
CRITICS = {level: Critic("replace", level) for level in LEVELS}


@dataclass(frozen=True)
class Sweep:
    """Means over the prompts of each seed, by level of random rewards at test time (0 alone where no other was asked).

    `nmse` is the ratio of the mean squared error and the mean squared norm of the targets, `error` the mean of 1 - cos, both after
    n triplets, n in `seen`; `loss` (nats) that of training on held-out prompts, none for baselines.
    """

    scale: str
    name: str
    config: RunConfig
    seeds: tuple[int, ...]
    seen: Int[Tensor, " prefixes"]
    nmse: dict[float, Float[Tensor, "seeds prefixes"]]
    error: dict[float, Float[Tensor, "seeds prefixes"]]
    loss: Float[Tensor, " seeds"] | None
    provenance: dict

    def at(self, n: int, measure: str = "nmse", level: float = 0.0) -> Float[Tensor, " seeds"]:
        """One measure of every seed after n triplets; ValueError where there is none."""
        if n not in self.seen.tolist():
            raise ValueError(f"n must be one of {self.seen[0]} to {self.seen[-1]} ({self.name}), got {n}")
        return getattr(self, measure)[level][:, self.seen.tolist().index(n)]


def own_prompts(config: RunConfig, seed: int, critic: Critic | None = None) -> SyntheticBatch:
    """The prompts on which a seed is judged: the same for every run with this N, d and noise, rated by the run's own critic or another."""
    generator = torch.Generator().manual_seed(SEED + seed)
    return sample_batch(PROMPTS, config.N, config.d, generator, critic or config.critic, noise=config.noise)


def means(
    predictions: Float[Tensor, "prompts prefixes d"], batch: SyntheticBatch
) -> tuple[Float[Tensor, " prefixes"], Float[Tensor, " prefixes"]]:
    """Normalised MSE, as a ratio of means, and mean 1 - cos of predictions."""
    good = batch.good.double().unsqueeze(1)
    squared = (predictions.double() - good).square().sum(-1).mean(0)
    error = cosine_error(predictions.double(), good).mean(0)
    return squared / good.square().sum(-1).mean(), error


@torch.no_grad()
def judge(config: RunConfig, weights: Weights, seeds: tuple[int, ...], levels: tuple[float, ...]) -> dict:
    """What `Sweep` holds of trained seeds, as JSON does."""
    call, seen = forward(config), prefixes(config)
    found: dict = {"nmse": {}, "error": {}, "loss": []}
    for level in levels:
        rows = []
        for k, seed in enumerate(seeds):
            batch = own_prompts(config, seed, CRITICS[level] if level else None)
            one = {name: tensor[k : k + 1] for name, tensor in weights.items()}
            outputs = call(one, tokens(batch, config.form).unsqueeze(0))[0]
            rows.append(means(outputs[:, read_at(seen, config.form)], batch))
            if not level:
                found["loss"].append(evaluation.rounded(loss(outputs, batch, config)))
        for name, values in zip(("nmse", "error"), zip(*rows, strict=True), strict=True):
            found[name][str(level)] = evaluation.rounded(torch.stack(values))
    return found


def trained(job: catalogue.Job, folder: Path, tell: jobs.Tell) -> dict:
    """Train the seeds of a job, in stacked groups, and judge them; checkpoints in `folder`."""
    levels = LEVELS if job.name == "base" else (0.0,)
    whole: dict = {
        "nmse": {str(level): [] for level in levels},
        "error": {str(level): [] for level in levels},
        "loss": [],
    }
    for first in range(0, len(job.seeds), GROUP):
        group = job.seeds[first : first + GROUP]
        kept = folder / f"{group[0]}-{group[-1]}.json"
        if not kept.is_file():
            state = train(
                job.config,
                group,
                folder / f"{group[0]}",
                every=job.every,
                tell=lambda text, first=first: tell(f"{first} seeds, {text}"),
            )
            write_json(kept, judge(job.config, state.weights, group, levels), compact=True)
            shutil.rmtree(folder / f"{group[0]}", ignore_errors=True)
        part = json.loads(kept.read_text(encoding="utf-8"))
        whole["loss"] += part["loss"]
        for measure in ("nmse", "error"):
            for level, rows in part[measure].items():
                whole[measure][level] += rows
    return {"seen": prefixes(job.config).tolist()} | whole


def compared(job: catalogue.Job, tell: jobs.Tell) -> dict[str, dict]:
    """The baselines on the prompts of each seed: name -> what `Sweep` holds, as JSON does.

    GD as stated and as released differ in the reward alone (Adam, learning rate 0.1, 50 steps).
    """
    seen, config = torch.arange(2, job.config.N), job.config
    rules: dict[str, Callable[[SyntheticBatch, int], Tensor]] = {
        "gradient descent": lambda batch, seed: baselines.descend(
            batch, seen, torch.Generator().manual_seed(seed), reward=config.reward
        ),
        "best-of-n": lambda batch, seed: baselines.best_response(batch, seen),
        "Bayes": lambda batch, seed: baselines.bayes(batch, seen),
    }
    found: dict[str, dict] = {
        name: {"seen": seen.tolist(), "nmse": {}, "error": {}, "loss": []} for name in rules
    }
    for level in LEVELS:
        rows: dict[str, list] = {name: [] for name in rules}
        for seed in job.seeds:
            tell(f"p = {level}, seed {seed}")
            batch = own_prompts(config, seed, CRITICS[level])
            for name, rule in rules.items():
                rows[name].append(means(rule(batch, seed), batch))
        for name, measured in rows.items():
            for measure, values in zip(("nmse", "error"), zip(*measured, strict=True), strict=True):
                found[name][measure][str(level)] = evaluation.rounded(torch.stack(values))
    return found


def perform(scale: str, name: str, tell: jobs.Tell) -> Path:
    """Make one sweep, or the baselines of a scale (for the data and the reward of its base), unless it is there; its path."""
    base = catalogue.jobs_of("base" if name == BASELINES else name, scale)[0]
    job = catalogue.Job(scale, name, base.config, tuple(range(SEEDS[scale])), base.config.steps)
    target, started, begun = path(scale, name), datetime.now(UTC), time.time()
    if target.is_file() and json.loads(target.read_text(encoding="utf-8")).get("provenance", {}).get(
        "sweep"
    ) == made(job):
        return target
    own = results.live_folder() / f".sweep-{scale}-{name}-{made(job)}"
    content = {"runs": compared(job, tell)} if name == BASELINES else trained(job, own, tell)
    source = run.source(started, 0, time.time() - begun, "cpu") | {"sweep": made(job)}
    about = {
        "schema": SCHEMA,
        "scale": scale,
        "name": name,
        "config": job.config.as_dict(),
        "seeds": list(job.seeds),
    }
    write_json(target, about | content | {"provenance": source}, compact=True)
    shutil.rmtree(own, ignore_errors=True)
    return target


def made(job: catalogue.Job) -> str:
    """What a sweep's numbers depend on: its job and the code."""
    names = (*run.NUMBERS, "ica.synthetic.task.baselines")
    return f"{job.id}-{run.code_digest(names=names)[:12]}"


def path(scale: str, name: str) -> Path:
    """Where a sweep is stored."""
    return (project_root() or Path.cwd()) / "results" / "sweep" / f"{scale}-{name}.json"


def stored(scale: str, name: str) -> Sweep:
    """A stored sweep.

    Raises:
        ResultError: it is missing or damaged, with the command that makes it.
    """
    return _read(scale, name)[name]


def stored_baselines(scale: str) -> dict[str, Sweep]:
    """The baselines on the prompts of the sweeps of a scale, by name; ResultError as `stored` says."""
    return _read(scale, BASELINES)


def _read(scale: str, name: str) -> dict[str, Sweep]:
    file = path(scale, name)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA or (content["scale"], content["name"]) != (scale, name):
            raise ValueError(
                f"it holds {content['name']} of scale {content['scale']}, format {content['schema']}"
            )
        config, seeds = RunConfig.from_dict(content["config"]), tuple(content["seeds"])
        parts = content["runs"] if name == BASELINES else {name: content}
        return {
            key: _parsed(key, scale, config, seeds, part, content["provenance"])
            for key, part in parts.items()
        }
    except (OSError, KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise results.ResultError(
            f"sweep {file} is missing or damaged ({error}); `git checkout -- results` restores it, "
            f"`make sweep SCALE={scale} RUNS={name}` makes it anew"
        ) from error


def _parsed(
    name: str, scale: str, config: RunConfig, seeds: tuple[int, ...], part: dict, source: dict
) -> Sweep:
    seen = torch.tensor(part["seen"])
    shape = (len(seeds), len(seen))

    def table(measure: str) -> dict[float, Tensor]:
        rows = {
            float(level): torch.tensor(values, dtype=torch.float64) for level, values in part[measure].items()
        }
        return {
            level: checks.finite(measure, checks.shape(measure, one, shape)) for level, one in rows.items()
        }

    losses = torch.tensor(part["loss"], dtype=torch.float64) if part["loss"] else None
    return Sweep(scale, name, config, seeds, seen, table("nmse"), table("error"), losses, source)


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("scale", help=f"one of {', '.join(SEEDS)}")
    parser.add_argument("names", nargs="*", help=f"runs of runs.yml, or {BASELINES}; default: all")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far it is")
    options = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        checks.one_of("scale", options.scale, tuple(SEEDS))
        jobs.settle(MODULE, 1)
        torch.set_num_threads(1)
        for name in options.names or [BASELINES, *catalogue.jobs(options.scale)]:
            print(perform(options.scale, name, lambda text, name=name: tell(f"{name}: {text}")), flush=True)

    return jobs.run(work, f"Sweep {options.scale}", options.status)


if __name__ == "__main__":
    sys.exit(main())
