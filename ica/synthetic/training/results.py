"""What a training run leaves, written whole or not at all, and read back with every field checked.

A result is a JSON file: configuration, seeds, training losses, looks at held-out prompts on the way, the errors of every
seed on every evaluation prompt at the end, and where it comes from (commit, versions, hardware, time). The weights lie
beside it as safetensors; of a live run also a seal, which says what both were made with. `live` reads what a build trained, `stored`
what `results/paper/` holds.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ica import checks
from ica.record import seals
from ica.record.provenance import project_root, write_json
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.tokens import prefixes
from ica.synthetic.training import evaluation
from ica.synthetic.training.catalogue import LIVE, Job, jobs_of
from ica.transformer import Transformer

SCHEMA = 3
PRECOMPUTED = ("paper", "cores")  # scales of the released task that are stored, the largest first
FIRST = ("scale", "name", "id", "config", "seeds", "seen", "losses", "looks", "final", "provenance")
# The format of a result, by its field `schema`: what else it holds. All of these are read, the last is written.
# 2 has the SHA-256 of the weights' file. 3 has the errors of some runs under noisy critics, and its `nmse` is over the prompts' mean
# ||y*||^2 (`metrics.normalised_mse`), where before each prompt's was over its own: those at the end are converted, those of looks NaN.
FIELDS = {
    1: ("schema", *FIRST),
    2: ("schema", *FIRST, "weights"),
    SCHEMA: ("schema", *FIRST, "weights", "noisy"),
}
RESULT, WEIGHTS, SEAL = "result.json", "weights.safetensors", "seal.json"


class ResultError(ValueError):
    """A result is missing, damaged or of another run; the message names it and what to do."""


Errors = Float[Tensor, "seeds prompts prefixes"]


def is_noisy(job: Job) -> bool:
    """Whether the result of a job holds errors under noisy critics: a stored run of the main configuration, whose weights
    are not kept."""
    return job.name == "base" and job.scale not in LIVE


@dataclass(frozen=True)
class Look:
    """Means over the evaluation prompts after `step` updates: errors per seed and prefix, loss per seed (nats)."""

    step: int
    error: Float[Tensor, "seeds prefixes"]
    nmse: Float[Tensor, "seeds prefixes"]
    loss: Float[Tensor, " seeds"]


@dataclass(frozen=True)
class Result:
    """One run, all its seed groups together.

    `errors` is 1 - cos and `nmse` the normalised mean squared error, of every seed on every evaluation prompt at the
    prefixes `seen`, after the last update; `noisy` both by level of random rewards at test time (none where not measured). For each seed group of `groups` there is its file, its provenance, and the SHA-256 of
    its weights (None in results of schema 1).
    """

    scale: str
    name: str
    config: RunConfig
    seeds: tuple[int, ...]
    seen: Int[Tensor, " prefixes"]
    errors: Float[Tensor, "seeds prompts prefixes"]
    nmse: Float[Tensor, "seeds prompts prefixes"]
    losses: Float[Tensor, "updates seeds"]
    looks: list[Look]
    groups: list[tuple[int, ...]]
    files: list[Path]
    provenance: list[dict]
    weights: list[str | None]
    noisy: dict[float, tuple[Errors, Errors]]

    @property
    def precomputed(self) -> bool:
        """Is it stored, rather than trained by this build?"""
        return self.files[0].name != RESULT

    def at(self, n: int) -> Float[Tensor, "seeds prompts"]:
        """1 - cos of every seed and prompt after n triplets; ValueError where there is no prediction."""
        return self.errors[..., self.column(n)]

    def column(self, n: int) -> int:
        """Index of n among the prefixes; ValueError where there is no prediction."""
        if n not in self.seen.tolist():
            raise ValueError(
                f"n must be one of the prefixes {self.seen[0]} to {self.seen[-1]} of run {self.name}, got {n}"
            )
        return self.seen.tolist().index(n)

    def models(self) -> list[Transformer]:
        """The trained transformers, one for each seed.

        Raises:
            ResultError: the weights are not there (of stored runs only some are kept), damaged, or do not fit.
        """
        parts = zip(self.files, self.groups, self.weights, strict=True)
        return [model for part in parts for model in _models(self.config, *part)]


def write(path: Path, job: Job, content: dict) -> Path:
    """Write a result; `content` holds all of `FIELDS[SCHEMA]` that the job does not say."""
    own = {"schema": SCHEMA, "scale": job.scale, "name": job.name, "id": job.id}
    own |= {"config": job.config.as_dict(), "seeds": list(job.seeds)}
    if sorted(own | content) != sorted(FIELDS[SCHEMA]):
        wanted = ", ".join(sorted(set(FIELDS[SCHEMA]) - set(own)))
        raise ValueError(f"content must hold {wanted}, got {sorted(content)}")
    return write_json(path, own | content, compact=True)


def read(path: Path) -> Result:
    """One result file.

    Raises:
        ResultError: it is missing or damaged (a field, a shape, a number that is not finite), of another version of the format, or
            its id is not that of its fields.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema not in FIELDS:
            accepted = ", ".join(map(str, FIELDS))
            raise ResultError(f"result {path} has format {schema!r}; accepted: {accepted}")
        if missing := sorted(set(FIELDS[schema]) - set(content)):
            raise ValueError(f"no {', '.join(missing)}")
        found = _parsed(path, content)
    except FileNotFoundError as error:
        raise ResultError(f"result {path} is missing") from error
    except ResultError:
        raise
    except OSError as error:
        raise ResultError(f"result {path} cannot be read ({error.strerror})") from error
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # deep JSON: RecursionError
        raise ResultError(f"result {path} is damaged ({type(error).__name__}: {error})") from error
    if content["id"] != found.config.hash(found.seeds):
        raise ResultError(
            f"result {path} says it is run {content['id']}, but its configuration and seeds are "
            f"{found.config.hash(found.seeds)}"
        )
    return found


def _parsed(path: Path, content: dict) -> Result:
    """The fields of a result as tensors; ValueError and the like for what cannot be one."""
    config, seeds = RunConfig.from_dict(content["config"]), tuple(content["seeds"])
    seen = prefixes(config)
    if content["seen"] != seen.tolist():
        raise ValueError(f"seen must be {seen[0]} to {seen[-1]}")
    if not all(isinstance(content[key], str) for key in ("scale", "name", "id")):
        raise ValueError("scale, name and id must be text")
    each, full = (len(seeds), len(seen)), (len(seeds), evaluation.PROMPTS, len(seen))
    error, nmse = (_numbers(f"final.{key}", content["final"][key], full) for key in ("error", "nmse"))
    noisy = {
        float(level): tuple(_numbers(f"noisy.{level}.{key}", found[key], full) for key in ("error", "nmse"))
        for level, found in content.get("noisy", {}).items()
    }
    losses = _numbers("losses", content["losses"], (config.steps, len(seeds)))
    shapes = {"error": each, "nmse": each, "loss": each[:1]}
    looks = [
        Look(one["step"], *(_numbers(f"looks.{key}", one[key], shapes[key]) for key in shapes))
        for one in content["looks"]
    ]
    steps = [look.step for look in looks]
    if steps != sorted(set(steps)) or [*steps[:1], *steps[-1:]] != [0, config.steps]:
        raise ValueError(f"looks must go from update 0 to {config.steps}, got {steps}")
    if content["schema"] < SCHEMA:
        size = evaluation.evaluation_prompts(config).good.square().sum(-1)
        nmse = nmse * (size / size.mean()).unsqueeze(-1)
        looks = [replace(look, nmse=look.nmse * torch.nan) for look in looks]
    source, weights = dict(content["provenance"]), content.get("weights")
    return Result(
        content["scale"],
        content["name"],
        config,
        seeds,
        seen,
        error,
        nmse,
        losses,
        looks,
        [seeds],
        [path],
        [source],
        [weights],
        noisy,
    )


def _numbers(name: str, values: list, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Nested lists as a tensor of that shape; ValueError where a number is not finite or the shape is another."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return checks.finite(name, checks.shape(name, tensor, shape))


def unlike(job: Job, result: Result) -> list[str]:
    """What in a result is not as the job asks: its run, and the steps of its looks; empty if all is."""
    file, found = result.files[0], []
    if (result.scale, result.name, result.config.hash(result.seeds)) != (job.scale, job.name, job.id):
        found.append(f"{file} holds run {result.name} (scale {result.scale}), not {job.name} ({job.scale})")
    steps = sorted({*range(0, job.config.steps, job.every), job.config.steps})
    if [one.step for one in result.looks] != steps:
        found.append(f"{file} holds looks after other updates than 0, every {job.every}, {job.config.steps}")
    return found


def merged(parts: list[Result]) -> Result:
    """Seed groups of one configuration as one result; ResultError where they differ in it or in the steps of their looks."""
    first = parts[0]
    for part in parts:
        if part.config != first.config:
            raise ResultError(f"{part.files[0]} is of another configuration than {first.files[0]}")
        if [look.step for look in part.looks] != [look.step for look in first.looks]:
            raise ResultError(f"{part.files[0]} holds looks after other updates than {first.files[0]}")
    looks = [
        Look(
            same[0].step,
            *(torch.cat([getattr(look, key) for look in same]) for key in ("error", "nmse", "loss")),
        )
        for same in zip(*(part.looks for part in parts), strict=True)
    ]
    return Result(
        first.scale,
        first.name,
        first.config,
        tuple(seed for part in parts for seed in part.seeds),
        first.seen,
        torch.cat([part.errors for part in parts]),
        torch.cat([part.nmse for part in parts]),
        torch.cat([part.losses for part in parts], dim=1),
        looks,
        [seeds for part in parts for seeds in part.groups],
        [file for part in parts for file in part.files],
        [source for part in parts for source in part.provenance],
        [digest for part in parts for digest in part.weights],
        {
            level: tuple(torch.cat([part.noisy[level][k] for part in parts]) for k in range(2))
            for level in first.noisy
            if all(level in part.noisy for part in parts)
        },
    )


def live_folder() -> Path:
    """Where a build keeps its runs: `ICA_RUNS`, else `build/runs` in the checkout or here."""
    given = os.environ.get("ICA_RUNS")
    return Path(given) if given else (project_root() or Path.cwd()) / "build" / "runs"


def live(name: str, scale: str = "ci") -> Result:
    """A run that this build trained, or one of a live scale that it need not train, as it is `kept`.

    Raises:
        ResultError: it is not there, or not as it was written, with the command that makes it. ValueError: no such run in the
            catalogue.
    """
    return merged([kept(job) or _live(job) for job in jobs_of(name, scale)])


def kept(job: Job) -> Result | None:
    """What `results/paper/` holds of a job of a live scale; None where there is nothing, or the job now asks for another run.

    Raises:
        ResultError: a stored file that cannot be read, or is of another run than its name says, with the commands that mend it.
    """
    file = _stored_folder() / f"{job.stem}.json"
    if job.scale not in LIVE or not file.is_file():
        return None
    result = _stored(file, job.name, job.scale)
    return None if unlike(job, result) else result


def _live(job: Job) -> Result:
    folder = live_folder() / job.id
    try:
        if not (folder / RESULT).exists():
            raise ResultError(f"{folder / RESULT} is missing")
        if found := seals.faults(folder / SEAL):
            raise ResultError("; ".join(found))
        result = read(folder / RESULT)
        if found := unlike(job, result):
            raise ResultError("; ".join(found))
    except ResultError as error:
        seeds = ",".join(map(str, job.seeds))
        raise ResultError(
            f"run {job.name} (scale {job.scale}, seeds {seeds}) is not there: {error}; "
            f"`python -m ica.synthetic.training.run {job.scale} {job.name}` makes it"
        ) from error
    return result


def stored(name: str, folder: Path | None = None, scales: tuple[str, ...] = PRECOMPUTED) -> Result | None:
    """The stored run of that name at the first of the scales there is, its seed groups together; None where there is none.

    Raises:
        ResultError: a stored file that cannot be read, or is of another run than its name says, with the commands that mend it.
    """
    folder = folder or _stored_folder()
    for scale in scales:
        files = sorted(folder.glob(f"{scale}-{name}-seed*.json"))
        if files:
            return merged([_stored(file, name, scale) for file in files])
    return None


def _stored_folder() -> Path:
    return (project_root() or Path.cwd()) / "results" / "paper"


def _stored(file: Path, name: str, scale: str) -> Result:
    try:
        result = read(file)
        if (result.name, result.scale) != (name, scale):
            raise ResultError(f"result {file} holds run {result.name} (scale {result.scale})")
    except ResultError as error:
        raise ResultError(f"{error}; {_advice(name, scale)}") from error
    return result


def _advice(name: str, scale: str) -> str:
    return f'`git checkout -- results` restores it, `make stored SCALE={scale} RUNS="{name}"` makes it anew'


def _models(config: RunConfig, file: Path, seeds: tuple[int, ...], digest: str | None) -> list[Transformer]:
    """The models of one seed group; ResultError where their weights are missing, damaged or of other models."""
    weights = file.with_name(WEIGHTS) if file.name == RESULT else file.with_suffix(".safetensors")
    try:
        if digest is not None and seals.sha256(weights) != digest:
            raise ResultError(f"weights {weights} are damaged (their SHA-256 is not that of the result)")
        stacked = load_file(weights)
        built = [Transformer(config.transformer()) for _ in seeds]
        for name, tensor in stacked.items():
            checks.finite(name, tensor)
            if len(tensor) != len(seeds):
                raise ValueError(f"{name} is of {len(tensor)} models, not {len(seeds)}")
        for k, model in enumerate(built):
            model.load_state_dict({name: tensor[k] for name, tensor in stacked.items()})
    except FileNotFoundError as error:
        raise ResultError(
            f"weights {weights} are missing; they are kept for small runs and the main ones, seed 0"
        ) from error
    except ResultError:
        raise
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ResultError(f"weights {weights} are damaged or of another model ({error})") from error
    return [model.eval() for model in built]
