"""What the models of the paper's size answer to the questions of the page "mechanism": asked once, then read.

`python -m ica.synthetic.analysis.full_size` asks them: the stored runs `base` of the scale `full`, with weights from `results/paper/`
or, where none are kept there, from `build/runs/` (`python -m ica.synthetic.training.run full base --seeds 1`). One model takes a
minute. Stored are its predictions and Jacobians, in float32; every number on the page is computed from them there.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ica import checks
from ica.build import jobs
from ica.build import stored as seal
from ica.record.provenance import project_root, write_atomic
from ica.synthetic.analysis import fair, rules
from ica.synthetic.analysis.stated import MANY
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training import results, run
from ica.synthetic.training.catalogue import Job, jobs_of
from ica.transformer import Transformer

MODULE = "ica.synthetic.analysis.full_size"
SCHEMA, SEED, FEW = 1, 0, 128  # the page's own seed, and its prompts with Jacobians
SAME, TENSORS = "as it is", ("own", "test", "slopes")
ABOUT = ("schema", "seed", "few", "triplets", "weights", "provenance")


@dataclass(frozen=True)
class FullSize:
    """Answers of the models, and their predictions on the prompts as they are (`SAME`) and as each intervention changes them."""

    answers: fair.Answers
    changed: dict[str, Float[Tensor, "seeds batch d"]]


def ask(models: list[Transformer], config: RunConfig, seed: int = SEED, few: int = FEW) -> FullSize:
    """Ask models; `config` says of what size the prompts are."""
    predict = [rules.model_predictor(model.double(), "triplet") for model in models]
    where = fair.prompts(config, MANY, torch.Generator().manual_seed(seed), few)
    changes = rules.interventions(where[1], torch.Generator().manual_seed(seed))
    return FullSize(fair.Answers.of(predict, *where), fair.ask(predict, {SAME: where[1]} | changes))


def path() -> Path:
    """Where the answers are stored."""
    return (project_root() or Path.cwd()) / "results" / "paper" / "full-base-answers.safetensors"


def stored(seed: int = SEED, few: int = FEW) -> FullSize | None:
    """The stored answers in float64; None where there are none, or to other prompts than with this seed and number.

    Raises:
        ResultError: they are damaged, or not those of the stored runs, with the commands that mend it.
    """
    if not path().is_file() or (runs := results.stored("base", scales=("full",))) is None:
        return None
    try:
        with safe_open(path(), "pt") as file:
            about = json.loads(file.metadata()["about"])
            found = {name: checks.finite(name, file.get_tensor(name)).double() for name in file.keys()}  # noqa: SIM118
        if about["schema"] != SCHEMA or sorted(about) != sorted(ABOUT):
            raise ValueError(f"it has format {about['schema']!r}; accepted: {SCHEMA}")
        if about["weights"] != runs.weights:
            raise ValueError("it is of other models than results/paper/full-base-seed*.json")
        answers = fair.Answers(*(found.pop(name) for name in TENSORS))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise results.ResultError(
            f"answers {path()} are damaged or of others ({type(error).__name__}: {error}); "
            f"`git checkout -- results` restores them, `python -m {MODULE}` makes them anew"
        ) from error
    if (about["seed"], about["few"], about["triplets"]) != (seed, few, MANY):
        return None
    return FullSize(answers, found)


def models(job: Job) -> tuple[list[Transformer], str | None]:
    """The models of a job, from the stored weights or else those in `build/runs/`, and the SHA-256 of these.

    Raises:
        ResultError: they are in neither place.
    """
    file = path().with_name(f"{job.stem}.json")
    if not file.with_suffix(".safetensors").is_file():
        file = results.live_folder() / job.id / results.RESULT
    found = results.read(file)
    return found.models(), found.weights[0]


def gap(kept: FullSize, prompts: int, few: int) -> Float[Tensor, "kinds=3"]:
    """How far the answers of the first seed's model are from those kept, when it is asked again on the first prompts.

    Largest difference of an entry over the root mean square: of the predictions to fit on, those to judge on, and Jacobians.

    Args:
        prompts, few: how many to predict, and of these how many with Jacobians.

    Raises:
        ResultError: as `models` says.
    """
    job = jobs_of("base", "full")[0]
    predict = [rules.model_predictor(model.double(), "triplet") for model in models(job)[0]]
    where = fair.prompts(job.config, MANY, torch.Generator().manual_seed(SEED), FEW)
    some = (rules.double(batch, count) for batch, count in zip(where, (prompts, prompts, few), strict=True))
    again = fair.Answers.of(predict, *some)
    pairs = [(getattr(again, name)[0], getattr(kept.answers, name)[0]) for name in TENSORS]
    return torch.stack(
        [(new - old[: len(new)]).abs().max() / old.square().mean().sqrt() for new, old in pairs]
    )


def make(tell: jobs.Tell) -> Path:
    """Ask the models of every seed and store what they answer; the path."""
    started, parts, digests = datetime.now(UTC), [], []
    for job in jobs_of("base", "full"):
        tell(f"seed {job.seeds[0]}")
        asked, digest = models(job)
        parts.append(ask(asked, job.config))
        digests.append(digest)
    tensors = {name: torch.cat([getattr(one.answers, name) for one in parts]) for name in TENSORS}
    tensors |= {name: torch.cat([one.changed[name] for one in parts]) for name in parts[0].changed}
    source = run.source(started, 0, 0.0, "cpu")
    content = (SCHEMA, SEED, FEW, MANY, digests, source)
    about = json.dumps(dict(zip(ABOUT, content, strict=True)), sort_keys=True)
    content = save({name: one.float().contiguous() for name, one in tensors.items()}, {"about": about})
    write_atomic(path(), content)
    seal.accept(path().parents[1])
    return path()


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("--status", type=Path, help="a JSON file that says how far it is")
    options = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        jobs.settle(MODULE)
        torch.set_num_threads(1)
        seal.check(project_root() or Path.cwd())
        print(make(tell))

    return jobs.run(work, "Answers of the models of the paper's size", options.status)


if __name__ == "__main__":
    sys.exit(main())
