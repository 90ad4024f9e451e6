"""Teach arms and ask them, `make taught RUNS="both-seed0 ..."`: one run an arm and seed, stored in `results/taught`.

A run that is stored is left as it is; one that was stopped goes on, its training from the last checkpoint, its questions from the
kept answers. Checkpoints lie in `build/taught`, in a folder named by all that decides the numbers, until the result is stored; that
of a first stage until all runs that begin with it are.
"""

import argparse
import fcntl
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from ica.build import jobs, stored
from ica.llm.bbq.items import Item
from ica.llm.model.cache import CallCache, model_folder
from ica.llm.model.engine import Engine
from ica.llm.model.load import LanguageModel, load
from ica.llm.protocol.measure import provenance
from ica.llm.protocol.shards import HALF, load_items
from ica.llm.taught import evaluate, items, lessons, results
from ica.llm.taught.settings import ARMS, BASE, Arm, Recipe, chosen, stem
from ica.llm.taught.train import Progress, TrainingError, train
from ica.record.provenance import project_root

MODULE = "ica.llm.taught.run"
DECIDES = ("items.yml", "items.py", "lessons.py", "settings.py", "train.py", "evaluate.py")
HELD_OUT = 120  # items of each condition, of the held-out templates
Sets = dict[str, list[Item]]


def code_digest() -> str:
    """Twelve digits over the files of this folder that decide the numbers."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in DECIDES)).hexdigest()[:12]


def mark(course: lessons.Course, model: LanguageModel) -> str:
    """SHA-256 over all that decides the weights after a course: it names checkpoint and kept answers."""
    parts = [course.mark, model.hash, model.network.config.hidden_size, code_digest(), torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def place(course: lessons.Course, model: LanguageModel) -> Path:
    """The folder for checkpoints of a course."""
    about = course.mark
    kind = Arm(**about["arm"]).name if "arm" in about else f"first-{'critic' if about['critic'] else 'plain'}"
    folder = (project_root() or Path.cwd()) / "build" / "taught"
    return folder / f"{stem(kind, about['seed'])}-{mark(course, model)[:12]}"


def sets(count: int = HELD_OUT) -> tuple[Sets, str]:
    """The items that a model is asked, by the name of their set, and the SHA-256 of the BBQ file."""
    every, source = load_items("bbq")
    bbq = sorted((item for item in every if item.half == HALF), key=lambda item: item.id)
    return {"bbq": bbq, "templates": [made.item for made in items.held_out(count)]}, source["sha256"]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder; TrainingError where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"{folder} is in use: the same run goes on in another process") from error
        yield


def perform(
    model: LanguageModel,
    arm: Arm,
    seed: int,
    recipe: Recipe,
    asked: tuple[Sets, str],
    out: Path,
    tell: jobs.Tell,
) -> Path:
    """Teach `model` in place, ask it, and write the result into the folder `out`; its path. The first stage's checkpoint stays.

    Raises:
        TrainingError: as `train` says, or where the same run or its first stage goes on elsewhere. CacheError: answers cannot be kept.
    """
    first, second = (stage(arm, seed, recipe) for stage in (lessons.first_stage, lessons.second_stage))
    name, digest, started = stem(arm.name, seed), mark(second, model), datetime.now(UTC)
    folder = place(second, model)
    with alone(folder):
        with alone(place(first, model)):
            begun = train(model, first, recipe, place(first, model), lambda text: tell(f"first stage {text}"))
        done = train(model, second, recipe, folder, tell)
        taught = replace(model, name=name, hash=digest)
        engine = Engine(taught, CallCache(model_folder(digest)))
        found = {
            key: evaluate.read(engine, some, lambda text, key=key: tell(f"{key} {text}"))
            for key, some in asked[0].items()
        }
        whole = Progress(begun.step + done.step, begun.losses + done.losses, begun.seconds + done.seconds)
        path = results.write(
            out / f"{name}.json", _content(model, arm, seed, recipe, asked[1], whole, found, started)
        )
    for used in (folder, model_folder(digest)):
        shutil.rmtree(used, ignore_errors=True)
    return path


def _content(
    model: LanguageModel,
    arm: Arm,
    seed: int,
    recipe: Recipe,
    items: str,
    done: Progress,
    found: dict,
    started: datetime,
) -> dict:
    """The result as it is stored."""
    return {
        "schema": results.SCHEMA,
        "arm": arm.as_dict(),
        "seed": seed,
        "recipe": asdict(recipe),
        "model": {
            "name": Path(model.name).name,
            "sha256": model.hash,
            "parameters": model.network.num_parameters(),
        },
        "items": items,
        "losses": done.losses,
        "asked": found,
        "provenance": provenance(started) | {"code": code_digest(), "train_seconds": round(done.seconds, 1)},
    }


def _work(options: argparse.Namespace, tell: jobs.Tell) -> None:
    wanted = chosen(options.runs)
    jobs.settle(MODULE)
    torch.set_num_threads(1)
    root = project_root() or Path.cwd()
    out = root / "results" / results.FOLDER
    stored.check(root)
    asked = sets()
    for name, seed in wanted:
        key, arm, recipe = stem(name, seed), ARMS[name], Recipe()
        path = out / f"{key}.json"
        if results.current(path, arm, seed, recipe, code_digest()):
            print(f"{path} is there", flush=True)
            continue

        def say(text: str, key: str = key) -> None:
            tell(f"{key}: {text}")
            print(f"{key}  {text}", file=sys.stderr, flush=True)

        model = load(BASE)
        print(perform(model, arm, seed, recipe, asked, out, say), flush=True)
        stored.accept(root / "results")
        same = [one for one in ARMS.values() if one.critic == arm.critic]
        if all(
            results.current(out / f"{stem(one.name, seed)}.json", one, seed, recipe, code_digest())
            for one in same
        ):
            shutil.rmtree(place(lessons.first_stage(arm, seed, recipe), model), ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", default="", help="arms or runs (ARM-seedK), apart by spaces; default: all, in order"
    )
    parser.add_argument("--list", action="store_true", help="only list the runs")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far it is")
    options = parser.parse_args()
    if options.list:
        print("\n".join(stem(*one) for one in chosen("")))
        return 0
    return jobs.run(lambda tell: _work(options, tell), "Teaching critics", options.status)


if __name__ == "__main__":
    sys.exit(main())
