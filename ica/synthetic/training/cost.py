"""What training costs: floating-point operations by counting, minutes from what stored runs say; for the page "Running at scale"."""

import json
from dataclasses import dataclass
from statistics import median

import torch

from ica.record.provenance import project_root
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.tokens import tokens
from ica.synthetic.training import catalogue, run, sweep

# Of the same size, where nothing of a scale itself was measured.
ALIKE = {"paper": "full", **{name: f"sweep of {name}" for name in sweep.SEEDS}}


def multiply_adds(config: RunConfig) -> int:
    """Multiply-adds of one forward pass over one prompt: those of the matrix products; all else is linear in tokens and width.

    A block of width w with heads of h features in all and f hidden units takes 4 n w h for the maps of n tokens to queries, keys,
    values and back, 2 n^2 h for scores and averages (masked ones too: they are computed), and 2 n w f for the network.
    """
    model = config.transformer()
    n = tokens(sample_batch(1, config.N, config.d, torch.Generator().manual_seed(0)), config.form).shape[1]
    inner = model.heads * model.head_width
    block = 4 * n * model.width * inner + 2 * n * n * inner + 2 * n * model.width * model.hidden
    return model.layers * block + n * model.width * (model.inputs + model.outputs)


def training(config: RunConfig) -> int:
    """Floating-point operations to train one seed: two a multiply-add; the gradient takes two more passes, but for the tokens."""
    model, forward = config.transformer(), multiply_adds(config)
    n = 3 * config.N if config.form == "interleaved" else config.N * (2 if config.form == "test-token" else 1)
    return 2 * (3 * forward - n * model.width * model.inputs) * config.batch * config.steps


@dataclass(frozen=True)
class Cost:
    """What a scale of the catalogue costs, or its sweep with many seeds.

    Attributes:
        runs, seeds: configurations, and seeds of each.
        operations: of all of them.
        measured, hours: those of the stored runs, and how long these took on one core.
        rates: operations a second of one core, one a stored file.
    """

    name: str
    runs: int
    seeds: int
    operations: int
    measured: int
    hours: float
    rates: tuple[float, ...]


def _stored(name: str) -> dict:
    """Provenance of a stored file by its path below `results`; empty where there is none."""
    path = (project_root() or run.ROOT) / "results" / name
    return json.loads(path.read_text(encoding="utf-8"))["provenance"] if path.is_file() else {}


def _seconds(job: catalogue.Job) -> float:
    """What a stored job took on one core, at the rate of the process that ended it; 0 where none is stored."""
    source = _stored(f"paper/{job.stem}.json")
    here = source and source["device"] == "cpu" and source["threads"]["torch"] == 1
    return (source["seconds_per_update"] or 0) * job.config.steps if here else 0.0


def _cost(name: str, jobs: list[catalogue.Job], runs: int, seconds: list[float]) -> Cost:
    counted = [training(job.config) * len(job.seeds) for job in jobs]
    done = [(one, time) for one, time in zip(counted, seconds, strict=True) if time]
    return Cost(
        name,
        runs,
        sum(len(job.seeds) for job in jobs) // runs,
        sum(counted),
        sum(one for one, _ in done),
        sum(time for _, time in done) / 3600,
        tuple(one / time for one, time in done),
    )


def scale(name: str) -> Cost:
    """What the jobs of a scale cost; ValueError for a scale that there is not."""
    found = catalogue.jobs(name)
    jobs = [job for group in found.values() for job in group]
    return _cost(name, jobs, len(found), [_seconds(job) for job in jobs])


def swept(name: str) -> Cost:
    """What the sweep of a scale costs, without its baselines; its seconds hold judging too. ValueError for one that has none."""
    jobs = [sweep.job_of(name, one) for one in sweep.names_of(name) if one != sweep.BASELINES]
    return _cost(
        name, jobs, len(jobs), [_stored(f"sweep/{name}-{job.name}.json").get("seconds", 0.0) for job in jobs]
    )


def table() -> dict[str, tuple[Cost, float | None]]:
    """Every scale, and every sweep as "sweep of SCALE", with the operations a second of one core to reckon it with.

    That is the median of its own stored runs, else of what is of the same size (`ALIKE`); None where none of these is stored.
    """
    found = {name: scale(name) for name in catalogue.SCALES}
    found |= {f"sweep of {name}": swept(name) for name in sweep.SEEDS}
    rates = {name: one.rates or found[ALIKE.get(name, name)].rates for name, one in found.items()}
    return {name: (one, median(rates[name]) if rates[name] else None) for name, one in found.items()}
