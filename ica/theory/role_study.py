"""Roles at length, for the page `ablations`: more models of four responses, trained longer than a build can.

`python -m ica.theory.role_study` makes `results/theory/roles.json` anew. It goes on after the last configuration that the same code
finished; what each left is in `build/roles`.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ica import checks
from ica.build import jobs, stored
from ica.record.provenance import project_root, provenance, write_json
from ica.theory import imitation, roles

MODULE = "ica.theory.role_study"
SCHEMA = 1
NAME = "results/theory/roles.json"
TASK = "PL"
FULL = "3 blocks, softmax, 3 heads, FFN"
WITHOUT = {
    "linear for softmax": "3 blocks, linear, 3 heads, FFN",
    "one head for three": "3 blocks, softmax, 1 head, FFN",
    "no FFN": "3 blocks, softmax, 3 heads",
    "two blocks for three": "2 blocks, softmax, 3 heads, FFN",
    "one block for three": "1 block, softmax, 3 heads, FFN",
}
"""What is taken away, and the configuration that is left."""
KINDS = {
    kind.name: kind for kind in roles.KINDS if kind.task == TASK and kind.name in {FULL, *WITHOUT.values()}
}


@dataclass(frozen=True)
class Settings:
    """How many models of each configuration, and how they are trained and judged.

    Args:
        models: seeds of each configuration.
        steps: training steps, after which the learning rate is 0.
        held_out: prompts to judge on, the same for all.
        gap: smallest difference of two rewards of a prompt; rewards lie in [0, 1].
        seed: of the prompts; model k has the seed 100 seed + k. A build takes 0.
    """

    models: int = 40
    steps: int = 3000
    held_out: int = 8192
    gap: float = 0.2
    seed: int = 1

    def __post_init__(self):
        for name, least in (("models", 2), ("steps", 1), ("held_out", 1), ("seed", 0)):
            checks.whole(name, getattr(self, name), least)
        checks.positive("gap", self.gap)

    @property
    def study(self) -> roles.Study:
        """Prompts and schedule; of the Bradley-Terry task nothing is used."""
        models, steps = {"BT": 1, TASK: self.models}, {"BT": 1, TASK: self.steps}
        return roles.study(models, steps, self.held_out, self.gap, self.seed)


@dataclass(frozen=True)
class Stored:
    """A stored study: of each configuration the held-out error of each model after training, over the step's mean square."""

    settings: Settings
    errors: dict[str, Float[np.ndarray, " models"]]
    provenance: dict


class StudyError(ValueError):
    """The stored study cannot be used; the message names it, what is wrong, and what to do."""


def code_digest() -> str:
    """Twelve digits over the sources that decide the numbers."""
    files = [Path(imitation.__file__), Path(roles.__file__)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]


def load(path: Path | None = None) -> Stored:
    """The stored study.

    Raises:
        StudyError: it is missing, damaged or of another format.
    """
    path = path or (project_root() or Path.cwd()) / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checks.one_of("schema", content["schema"], (SCHEMA,))
        settings = Settings(**content["settings"])
        errors = {name: np.array(content["errors"][name], dtype=float) for name in KINDS}
        for name, found in errors.items():
            if found.shape != (settings.models,) or not (np.isfinite(found) & (found > 0)).all():
                raise ValueError(f"errors of {name!r} are not {settings.models} positive numbers")
        return Stored(settings, errors, content["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise StudyError(
            f"result {path} is missing or damaged ({why}); `git checkout -- results` restores it, "
            f"`.venv/bin/python -m {MODULE}` makes it anew"
        ) from error


def make(settings: Settings, root: Path, tell: jobs.Tell) -> Path:
    """Train every configuration that is not finished yet, and write the study below `root`; its path."""
    started, study, seconds = datetime.now(UTC), None, 0.0
    folder = root / "build" / "roles" / f"{code_digest()}-{hash_of(settings)}"
    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        path = folder / f"{number}.json"
        if not path.is_file():
            tell(name)
            begun, study = datetime.now(UTC), study or settings.study
            errors = study.train(kind).errors
            took = (datetime.now(UTC) - begun).total_seconds()
            write_json(path, {"errors": errors, "seconds": took})
        found[name] = json.loads(path.read_text(encoding="utf-8"))
        seconds += found[name]["seconds"]
    made = provenance(
        "ablations", vars(settings), [100 * settings.seed + k for k in range(settings.models)], started
    )
    content = {
        "schema": SCHEMA,
        "settings": vars(settings),
        "errors": {name: [float(f"{error:.6g}") for error in one["errors"]] for name, one in found.items()},
        "provenance": made | {"code": code_digest(), "seconds": round(seconds, 1)},
    }
    path = root / NAME
    write_json(path, content, compact=True)
    load(path)
    return path


def hash_of(settings: Settings) -> str:
    """Twelve digits over the settings and the version of PyTorch."""
    text = json.dumps([vars(settings), torch.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("--status", type=Path, help="a JSON file that says how far it is")
    options = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        jobs.settle(MODULE)
        torch.set_num_threads(1)
        root = project_root() or Path.cwd()
        stored.check(root)

        def say(text: str) -> None:
            tell(text)
            print(text, file=sys.stderr, flush=True)

        print(make(Settings(), root, say))
        stored.accept(root / "results")

    return jobs.run(work, "The roles at length", options.status)


if __name__ == "__main__":
    sys.exit(main())
