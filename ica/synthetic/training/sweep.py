"""Small runs with many seeds: `python -m ica.synthetic.training.sweep stated base`, all without names.

Each seed trains as in `train` and is judged on prompts of its own, the same for all configurations with these
data. So the seeds are independent replicates: a mean over them has Student's interval, a difference of two
configurations is paired by seed, and only means over prompts are kept. Beside them, as `baselines`, what
needs no training, on the very same prompts. A sweep of the same code and settings that is there is left as it
is; one that is stopped goes on from its last checkpoint. What is stored is listed in results/SHA256.json.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.build import jobs
from ica.build import stored as seal
from ica.record.parameters import meant
from ica.record.provenance import project_root, write_json
from ica.synthetic.task import baselines
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, SyntheticBatch, sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.tokens import loss, prefixes, read_at, tokens
from ica.synthetic.training import catalogue, evaluation, locks, results, run
from ica.synthetic.training.train import Weights, forward, train

MODULE = "ica.synthetic.training.sweep"
SCHEMA = 1
SEED, PROMPTS, GROUP = 2_000_000_011, 512, 10
SEEDS = {"ci": 40, "stated": 40, "walk": 20}  # by scale
LONGER = {("ci", name): 160 for name in ("base", "linear", "heads-1", "no-ffn")}  # 40 left them undecided
BASELINES = "baselines"
LEVELS = (0.0, *evaluation.LEVELS)
CRITICS = {level: Critic("replace", level) for level in LEVELS}
MEASURES = ("nmse", "error")


@dataclass(frozen=True)
class Sweep:
    """Means over the prompts of each seed, by level of random rewards at test time (0 alone for some).

    `nmse` is the ratio of the mean squared error and the mean squared norm of the targets, `error` the mean
    of 1 - cos, both after n triplets, n in `seen`; `loss` (nats) that of training on held-out prompts, none
    for baselines.
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
        checks.one_of("measure", measure, MEASURES)
        found = getattr(self, measure)
        if level not in found:
            raise ValueError(
                f"level must be one of {', '.join(map(str, found))} ({self.name}), got {level!r}"
            )
        if n not in self.seen.tolist():
            raise ValueError(f"n must be one of {self.seen[0]} to {self.seen[-1]} ({self.name}), got {n}")
        return found[level][:, self.seen.tolist().index(n)]


def own_prompts(config: RunConfig, seed: int, critic: Critic | None = None) -> SyntheticBatch:
    """The prompts on which a seed is judged, rated by the run's own critic or another.

    They are the same for every run with this N, d and noise.
    """
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
        _note(found, level, rows)
    return found


def _note(found: dict, level: float, rows: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Put the pairs of `means`, one a seed, where they belong."""
    for measure, values in zip(MEASURES, zip(*rows, strict=True), strict=True):
        found[measure][str(level)] = evaluation.rounded(torch.stack(values))


def trained(job: catalogue.Job, folder: Path, tell: jobs.Tell) -> dict:
    """What `Sweep` holds of a job, as JSON does, and the seconds that it took.

    Its seeds are trained in stacked groups; checkpoints, and what is judged, lie in `folder`.
    """
    levels = LEVELS if job.name == "base" else LEVELS[:1]
    whole: dict = {measure: {str(level): [] for level in levels} for measure in MEASURES}
    whole |= {"seen": prefixes(job.config).tolist(), "loss": [], "seconds": 0.0}
    for first in range(0, len(job.seeds), GROUP):
        group = job.seeds[first : first + GROUP]
        own = folder / f"{group[0]}"
        part = _kept(folder / f"{group[0]}-{group[-1]}.json", partial(_group, job, group, own, levels, tell))
        shutil.rmtree(own, ignore_errors=True)
        for key in ("loss", "seconds"):
            whole[key] += part[key]
        for measure in MEASURES:
            for level, rows in part[measure].items():
                whole[measure][level] += rows
    return whole


def _group(
    job: catalogue.Job, group: tuple[int, ...], folder: Path, levels: tuple[float, ...], tell: jobs.Tell
) -> dict:
    """Seeds, trained as one stack and judged, and the seconds that this took (or in one go would have)."""
    begun, first = time.time(), []

    def progress(text: str) -> None:
        first.append(int(text.partition("/")[0]))
        tell(f"{group[0]} seeds, {text}")

    state = train(job.config, group, folder, every=job.every, tell=progress)
    share = 1 - first[0] / state.step
    found = judge(job.config, state.weights, group, levels)
    return found | {"seconds": (time.time() - begun) / share if share else 0.0}


def compared(job: catalogue.Job, folder: Path, tell: jobs.Tell) -> dict:
    """`runs`: the baselines on the prompts of each seed, name -> what `Sweep` holds; and `seconds`. As JSON.

    GD as stated and as released differ in the reward alone (Adam, learning rate 0.1, 50 steps).
    """
    seen = torch.arange(2, job.config.N)
    runs, seconds = {}, 0.0
    for level in LEVELS:
        part = _kept(folder / f"{level}.json", partial(_baselines, job, seen, level, tell))
        seconds += part["seconds"]
        for name, found in part["runs"].items():
            whole = runs.setdefault(name, {"seen": seen.tolist(), "nmse": {}, "error": {}, "loss": []})
            for measure in MEASURES:
                whole[measure] |= found[measure]
    return {"runs": runs, "seconds": seconds}


def _baselines(job: catalogue.Job, seen: Int[Tensor, " prefixes"], level: float, tell: jobs.Tell) -> dict:
    """Each baseline's measures at one level of random rewards, and the seconds that it took."""
    rules: dict[str, Callable[[SyntheticBatch, int], Tensor]] = {
        "gradient descent": lambda batch, seed: baselines.descend(
            batch, seen, torch.Generator().manual_seed(seed), reward=job.config.reward
        ),
        "best-of-n": lambda batch, seed: baselines.best_response(batch, seen),
        "Bayes": lambda batch, seed: baselines.bayes(batch, seen),
    }
    begun, rows = time.time(), {name: [] for name in rules}
    for seed in job.seeds:
        tell(f"p = {level}, seed {seed}")
        batch = own_prompts(job.config, seed, CRITICS[level])
        for name, rule in rules.items():
            rows[name].append(means(rule(batch, seed), batch))
    runs: dict[str, dict] = {name: {measure: {} for measure in MEASURES} for name in rules}
    for name, measured in rows.items():
        _note(runs[name], level, measured)
    return {"runs": runs, "seconds": time.time() - begun}


def _kept(file: Path, make: Callable[[], dict]) -> dict:
    """What an earlier process left in a file, or else what `make` gives, which is left there."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError as error:
        print(f"{file} is damaged ({error}): made anew", file=sys.stderr, flush=True)
    write_json(file, content := make(), compact=True)
    return content


def names_of(scale: str) -> tuple[str, ...]:
    """All that is swept of a scale: the baselines, where there is a base for them, and every run.

    Raises:
        ValueError: a scale that there is not, or that has no sweep.
    """
    if scale not in SEEDS:
        raise ValueError(f"scale {scale!r} has no sweep; {meant(scale, SEEDS)}")
    found = tuple(catalogue.jobs(scale))
    return (BASELINES, *found) if "base" in found else found


def job_of(scale: str, name: str) -> catalogue.Job:
    """What a sweep trains; for the baselines what they stand beside: the data and the reward of the base.

    Raises:
        ValueError: no such run at that scale, or as `names_of` says.
    """
    if name not in (known := names_of(scale)):
        raise ValueError(f"scale {scale} has no run {name!r}; {meant(name, known)}")
    config = catalogue.jobs_of("base" if name == BASELINES else name, scale)[0].config
    seeds = tuple(range(LONGER.get((scale, name), SEEDS[scale])))
    return catalogue.Job(scale, name, config, seeds, -(-config.steps // 4))


def perform(scale: str, name: str, tell: jobs.Tell) -> Path:
    """Make one sweep, or the baselines of a scale, unless it is there; its path.

    Where another process makes the very same, its end is waited for, which stderr says.

    Raises:
        ValueError: as `job_of` says. TrainingError, CheckpointError, KeyboardInterrupt: as `train` says; what
            was done is kept. OSError: a file cannot be written.
    """
    job, target = job_of(scale, name), path(scale, name)
    with locks.held(_beside(scale, name, ".lock"), f"the sweep {name} (scale {scale})", tell):
        if not current(job):
            _make(job, target, _beside(scale, name, f"-{made(job)}"), tell)
    return target


def _beside(scale: str, name: str, end: str) -> Path:
    return results.live_folder() / f".sweep-{scale}-{name}{end}"


def current(job: catalogue.Job) -> bool:
    """Is what is stored of this job whole, and made with this code and these settings?"""
    if not path(job.scale, job.name).is_file():
        return False
    try:
        found = _read(job.scale, job.name)
    except results.ResultError as error:
        print(f"{error}: made anew", file=sys.stderr, flush=True)
        return False
    if job.name == BASELINES:
        return all(one.provenance["sweep"] == made(job) for one in found.values())
    return all(
        f"{one.config.hash(one.seeds)}-{one.provenance['code']}" == made(job) for one in found.values()
    )


def _make(job: catalogue.Job, target: Path, folder: Path, tell: jobs.Tell) -> None:
    """Make a sweep and store it; what is kept on the way, in `folder`, is removed then."""
    started = datetime.now(UTC)
    content = (compared if job.name == BASELINES else trained)(job, folder, tell)
    source = run.source(started, 0, 0.0, "cpu") | {"sweep": made(job)}
    source["seconds_per_seed"] = round(content.pop("seconds") / len(job.seeds), 3)
    about = {"schema": SCHEMA, "scale": job.scale, "name": job.name, "config": job.config.as_dict()}
    about |= {"seeds": list(job.seeds)} | content | {"provenance": source}
    with _listing():  # so that no other sweep finds a result that is not listed yet
        write_json(target, about, compact=True)
        seal.accept(target.parents[1])
    shutil.rmtree(folder, ignore_errors=True)


def _listing() -> AbstractContextManager[None]:
    """The list of stored results, for this process alone."""
    return locks.held(results.live_folder() / ".results.lock", "the list of stored results")


def made(job: catalogue.Job) -> str:
    """What a sweep's numbers depend on: its job and the code, that of `baselines` for these alone."""
    more = ("ica.synthetic.task.baselines",) if job.name == BASELINES else ()
    return f"{job.id}-{run.code_digest(more=more)[:12]}"


def path(scale: str, name: str) -> Path:
    """Where a sweep is stored."""
    return (project_root() or Path.cwd()) / "results" / "sweep" / f"{scale}-{name}.json"


def stored(scale: str, name: str) -> Sweep:
    """A stored sweep.

    Raises:
        ResultError: it is missing, damaged or of another run, with the commands that mend it.
    """
    return _read(scale, name)[name]


def stored_baselines(scale: str) -> dict[str, Sweep]:
    """The baselines on the prompts of the sweeps of a scale, by name; ResultError as `stored` says."""
    return _read(scale, BASELINES)


def _read(scale: str, name: str) -> dict[str, Sweep]:
    file = path(scale, name)
    advice = f'`make sweep SCALE={scale} RUNS="{name}"` makes it anew'
    try:
        return _checked(scale, name, json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise results.ResultError(f"sweep {file} is missing; {advice}") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise results.ResultError(
            f"sweep {file} is damaged or another ({type(error).__name__}: {error}); "
            f"`git checkout -- results` restores it, {advice}"
        ) from error


def _checked(scale: str, name: str, content: dict) -> dict[str, Sweep]:
    """The parts of a file as sweeps; ValueError and the like for what cannot be one, or is another."""
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has format {content['schema']!r}; accepted: {SCHEMA}")
    if (content["scale"], content["name"]) != (scale, name):
        raise ValueError(f"it holds {content['name']!r} of scale {content['scale']!r}")
    config, seeds = RunConfig.from_dict(content["config"]), tuple(content["seeds"])
    source = content["provenance"]
    if config.hash(seeds) != source["sweep"].partition("-")[0]:
        raise ValueError("its configuration and seeds are not those that it was made with")
    if name != BASELINES:
        return {name: _parsed(name, scale, config, seeds, content, prefixes(config), source)}
    seen = torch.arange(2, config.N)
    runs = content["runs"].items()
    return {key: _parsed(key, scale, config, seeds, part, seen, source) for key, part in runs}


def _parsed(
    name: str, scale: str, config: RunConfig, seeds: tuple, part: dict, seen: Tensor, source: dict
) -> Sweep:
    if part["seen"] != seen.tolist():
        raise ValueError(f"seen of {name} must be {seen[0]} to {seen[-1]}")

    def numbers(what: str, values: list, shape: tuple[int, ...]) -> Tensor:
        return checks.finite(what, checks.shape(what, torch.tensor(values, dtype=torch.float64), shape))

    shape = (len(seeds), len(seen))
    nmse, error = (
        {float(level): numbers(f"{measure}.{level}", rows, shape) for level, rows in part[measure].items()}
        for measure in MEASURES
    )
    if 0.0 not in nmse or list(nmse) != list(error):
        raise ValueError(f"levels of {name} must be those of both measures, with 0")
    losses = numbers("loss", part["loss"], shape[:1]) if part["loss"] else None
    return Sweep(scale, name, config, seeds, seen, nmse, error, losses, source)


def asked(scale: str, names: Iterable[str]) -> list[str]:
    """The names of what is to be made, all of a scale without names; ValueError for what there is not."""
    found = list(dict.fromkeys(names)) or list(names_of(scale))
    for name in found:
        job_of(scale, name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("scale", help=f"one of {', '.join(SEEDS)}")
    parser.add_argument("names", nargs="*", help=f"runs of runs.yml, or {BASELINES}; default: all")
    parser.add_argument("--runs", default="", help="likewise, in one text, apart by spaces")
    parser.add_argument("--done", type=Path, help="a JSON file to write when all of it is there")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far it is")
    options = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        names = asked(options.scale, [*options.names, *options.runs.split()])
        jobs.settle(MODULE)
        torch.set_num_threads(1)
        with _listing():
            seal.check(project_root() or Path.cwd())
        for name in names:
            print(perform(options.scale, name, lambda text, name=name: tell(f"{name}: {text}")), flush=True)
        if options.done:
            write_json(options.done, {name: made(job_of(options.scale, name)) for name in names})

    return jobs.run(work, f"Sweep {options.scale}", options.status)


if __name__ == "__main__":
    sys.exit(main())
