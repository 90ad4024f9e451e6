"""What a training run leaves, written whole or not at all, and read back with every field checked.

A result is a JSON file: configuration, seeds, training losses, looks at held-out prompts on the way, the errors of every
seed on every evaluation prompt at the end, and where it comes from (commit, versions, hardware, time). The weights lie
beside it as safetensors. `live` reads what a build trained, `stored` what `results/paper/` holds.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ica.record.provenance import project_root, write_json
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, SyntheticBatch, sample_batch
from ica.synthetic.training.catalogue import Job, jobs_of
from ica.transformer import Transformer

SCHEMA = 1
EVALUATION_SEED = 1_000_000_007
PROMPTS, LOOK_PROMPTS = 256, 128
FIELDS = (
    "schema",
    "scale",
    "name",
    "id",
    "config",
    "seeds",
    "seen",
    "losses",
    "looks",
    "final",
    "provenance",
)
DIGITS = 5


class ResultError(ValueError):
    """A result is missing, damaged or of another run; the message names it and what to do."""


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
    prefixes `seen`, after the last update.
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
        return [model for file in self.files for model in _models(file, self.config)]


def evaluation_prompts(
    config: RunConfig, critic: Critic | None = None, count: int = PROMPTS
) -> SyntheticBatch:
    """Prompts that no run trains on; the same for every run with this N and d, rated by the run's own critic or another.

    Another count gives other prompts.
    """
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    return sample_batch(count, config.N, config.d, generator, config.critic if critic is None else critic)


def rounded(tensor: Float[Tensor, "..."]) -> list | float:
    """The entries as nested lists, rounded to what a JSON file needs to hold."""
    return tensor.double().round(decimals=DIGITS).tolist()


def write(path: Path, job: Job, content: dict) -> Path:
    """Write a result; `content` holds all of `FIELDS` that the job does not say."""
    own = {"schema": SCHEMA, "scale": job.scale, "name": job.name, "id": job.id}
    own |= {"config": job.config.as_dict(), "seeds": list(job.seeds)}
    if sorted(own | content) != sorted(FIELDS):
        raise ValueError(
            f"content must hold {', '.join(sorted(set(FIELDS) - set(own)))}, got {sorted(content)}"
        )
    return write_json(path, own | content, compact=True)


def read(path: Path) -> Result:
    """One result file.

    Raises:
        ResultError: it is missing or damaged, of another version of the format, or its id is not that of its fields.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ResultError(f"result {path} has format {content['schema']!r}; accepted: {SCHEMA}")
        config, seeds = RunConfig.from_dict(content["config"]), tuple(content["seeds"])
        final = {key: torch.tensor(content["final"][key]) for key in ("error", "nmse")}
        looks = [
            Look(look["step"], *(torch.tensor(look[key]) for key in ("error", "nmse", "loss")))
            for look in content["looks"]
        ]
        seen, losses = torch.tensor(content["seen"]), torch.tensor(content["losses"])
        scale, name, identity, source = (content[key] for key in ("scale", "name", "id", "provenance"))
    except FileNotFoundError as error:
        raise ResultError(f"result {path} is missing") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ResultError):
            raise
        raise ResultError(f"result {path} is damaged ({type(error).__name__}: {error})") from error
    if identity != config.hash(seeds):
        raise ResultError(
            f"result {path} says it is run {identity}, but its configuration and seeds are {config.hash(seeds)}"
        )
    return Result(scale, name, config, seeds, seen, *final.values(), losses, looks, [seeds], [path], [source])


def merged(parts: list[Result]) -> Result:
    """Seed groups of one configuration as one result; ValueError where they are not of one configuration."""
    first = parts[0]
    if any(part.config != first.config for part in parts):
        raise ValueError(f"parts must be of one configuration; those of run {first.name} differ")
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
    )


def live_folder() -> Path:
    """Where a build keeps its runs: `ICA_RUNS`, else `build/runs` in the checkout or here."""
    given = os.environ.get("ICA_RUNS")
    return Path(given) if given else (project_root() or Path.cwd()) / "build" / "runs"


def live(name: str, scale: str = "ci") -> Result:
    """A run that this build trained.

    Raises:
        ResultError: it is not there, with the command that makes it. ValueError: no such run in the catalogue.
    """
    parts = []
    for job in jobs_of(name, scale):
        path = live_folder() / job.id / "result.json"
        if not path.is_file():
            seeds = ",".join(map(str, job.seeds))
            raise ResultError(
                f"run {name} (scale {scale}, seeds {seeds}) is not there: {path} is missing; "
                f"`python -m ica.synthetic.training.run {scale} {name}` makes it"
            )
        parts.append(read(path))
    return merged(parts)


def stored(name: str, folder: Path | None = None) -> Result | None:
    """The stored run of that name at the largest scale there is, its seed groups together; None where there is none.

    Raises:
        ResultError: a stored file that cannot be read.
    """
    folder = folder or (project_root() or Path.cwd()) / "results" / "paper"
    for scale in ("paper", "cores"):
        parts = [read(path) for path in sorted(folder.glob(f"{scale}-{name}-seed*.json"))]
        parts = [part for part in parts if part.name == name]
        if parts:
            return merged(parts)
    return None


def _models(file: Path, config: RunConfig) -> list[Transformer]:
    weights = (
        file.with_name("weights.safetensors")
        if file.name == "result.json"
        else file.with_suffix(".safetensors")
    )
    try:
        stacked = load_file(weights)
        built = [Transformer(config.transformer()) for _ in range(len(next(iter(stacked.values()))))]
        for k, model in enumerate(built):
            model.load_state_dict({name: tensor[k] for name, tensor in stacked.items()})
    except FileNotFoundError as error:
        raise ResultError(
            f"weights {weights} are missing; they are kept for live runs and the main stored one"
        ) from error
    except (OSError, SafetensorError, RuntimeError, StopIteration) as error:
        raise ResultError(f"weights {weights} are damaged or of another model ({error})") from error
    return [model.eval() for model in built]
