"""Train one run of the catalogue and leave its result: `python -m ica.synthetic.training.run ci base`.

Results go to `build/runs/<id>/`, checkpoints to a folder beside it that is removed once the result is whole. Started
again after any end, the run goes on from its last checkpoint; other code or settings start it anew. With the settings that are
the default here it gives the bits that a build gives.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from ica.build import imports, jobs
from ica.record import seals
from ica.record.provenance import (
    commit,
    dirty,
    hardware,
    project_root,
    seconds_since,
    threads,
    versions,
    write_atomic,
)
from ica.synthetic.task.tokens import prefixes
from ica.synthetic.training import evaluation, locks, results
from ica.synthetic.training.catalogue import LIVE, SCALES, Job, jobs_of
from ica.synthetic.training.train import State, train

ROOT = Path(__file__).parents[3]
MODULE = "ica.synthetic.training.run"
# What the numbers of a result stand on; these and what they import. How a result is written and read has a number of its own
# (`results.SCHEMA`).
NUMBERS = ("ica.synthetic.training.train", "ica.synthetic.training.evaluation")
DEVICES = ("cpu", "cuda", "auto")
# A run of a live scale has the bits that the build's settings give. One of the larger scales, which may take days on a GPU, may be made with
# any device and threads, which it says; code and library must be the same.
FREE = ("code", "torch")


def code_digest(root: Path = ROOT, more: tuple[str, ...] = ()) -> str:
    """SHA-256 over every module that the numbers of a run stand on, and `more`: another digest, another run.

    Raises:
        ValueError: a name that is no module.
    """
    names = (*NUMBERS, *more)
    modules = imports.closure([f"import {name}" for name in names], root)
    if missing := sorted(set(names) - set(modules)):
        raise ValueError(f"NUMBERS of {MODULE} names {missing[0]!r}, which is no module")
    files = [imports.module_file(root, module) for module in modules]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def settings(count: int, device: str, environment: Mapping[str, str]) -> dict:
    """What the bits of a result depend on besides its job: code, library, device, threads, and the variables that fix dispatch."""
    made = {"code": code_digest()[:12], "torch": torch.__version__, "device": device, "threads": count}
    made["instructions"] = torch.backends.cpu.get_cpu_capability()
    return made | {name: environment.get(name) for name in jobs.ENVIRONMENT}


def faults(job: Job, folder: Path, threads: int = 1) -> list[str]:
    """Why the result in a folder cannot be taken for the one that a build makes, one phrase each; empty if it can.

    That is: a file is missing or damaged, it was made with other settings than the build's (of live scales; of larger ones with
    other code or another torch), or it is not all that the job asks.
    """
    variables = {**jobs.ENVIRONMENT, **dict.fromkeys(jobs.THREADS, str(threads))}
    return _faults(job, folder, settings(threads, "cpu", variables))


def _faults(job: Job, folder: Path, wanted: dict) -> list[str]:
    if found := seals.faults(folder / results.SEAL):
        return found
    made, compared = seals.about(folder / results.SEAL), wanted if job.scale in LIVE else FREE
    other = [
        f"{key} {made.get(key)} (here {wanted[key]})" for key in compared if made.get(key) != wanted[key]
    ]
    found = [f"{folder} was made with {', '.join(other)}"] if other else []
    try:
        return found + results.unlike(job, results.read(folder / results.RESULT))
    except results.ResultError as error:
        return [*found, str(error)]


def source(started: datetime, updates: int, seconds: float, device: str) -> dict:
    """Where a result comes from; `seconds` and `updates` are those of this process, the last one of a resumed run."""
    return {
        "code": code_digest()[:12],
        "commit": commit(),
        "dirty": dirty(),
        "versions": versions(),
        "hardware": hardware(),
        "device": device,
        "threads": threads(),
        "platform": platform.platform(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds_since(started),
        "updates": updates,
        "seconds_per_update": round(seconds / updates, 5) if updates else None,
    }


def perform(job: Job, out: Path, device: str = "cpu", tell: jobs.Tell | None = None) -> Path:
    """Train a job, or go on with it, and write result, weights and seal into `out`; the result's path.

    A whole result of the same code and settings that is there already is left as it is. Where another process trains this very
    run, its end is waited for, which stderr says.

    Args:
        tell: is called with how far it is.

    Raises:
        TrainingError, CheckpointError: as `train` says; no result is written.
        ResultError: the result cannot be written, as on a full disk; the last checkpoint stays.
        KeyboardInterrupt: asked to stop; the updates done are kept.
    """
    what = f"the training of run {job.name} (scale {job.scale}, seeds {','.join(map(str, job.seeds))})"
    with locks.held(out.with_name(f".{job.id}.lock"), what, tell):
        made = settings(torch.get_num_threads(), device, os.environ)
        if _faults(job, out, made):
            _make(job, out, made, _checkpoints(job, out, made), tell)
        _tidy(job, out)  # also after a run that was killed between its result and this
    return out / results.RESULT


def _checkpoints(job: Job, out: Path, made: dict) -> Path:
    """The folder for checkpoints with these settings; what a killed process left half-written in it is removed."""
    text = json.dumps(made, sort_keys=True)
    folder = out.with_name(f".{job.id}-{hashlib.sha256(text.encode()).hexdigest()[:12]}")
    for half in folder.glob("*.tmp"):
        half.unlink()
    for other in out.parent.glob(f".{job.id}-*"):
        if other != folder:
            print(
                f"checkpoints in {other} are of other code or settings; not used", file=sys.stderr, flush=True
            )
    return folder


def _make(job: Job, out: Path, made: dict, folder: Path, tell: jobs.Tell | None) -> None:
    """Train and publish."""
    started, begun, spent, first = datetime.now(UTC), time.time(), [0.0], []

    def look(step: int, weights: dict) -> dict:
        before = time.time()
        found = evaluation.look(job.config, step, weights)
        spent[0] += time.time() - before
        return found

    def progress(text: str) -> None:
        first.append(int(text.partition("/")[0]))
        if tell:
            tell(text)

    state = train(
        job.config,
        job.seeds,
        folder,
        every=job.every,
        look=look,
        tell=progress,
        device=made["device"],
    )
    seconds = time.time() - begun - spent[0]
    final = evaluation.evaluate(job.config, state.weights, evaluation.PROMPTS)
    content = {
        "seen": prefixes(job.config).tolist(),
        "losses": evaluation.rounded(torch.tensor(state.losses)),
        "looks": state.looks,
        "final": {key: evaluation.rounded(final[key]) for key in ("error", "nmse")},
        "noisy": evaluation.noisy(job.config, state.weights) if results.is_noisy(job) else {},
        "provenance": source(started, state.step - first[0], seconds, made["device"]),
    }
    with _writing(
        f"result of run {job.name} could not be written to {out}", f"its last checkpoint is kept in {folder}"
    ):
        _publish(job, out, made, state, content)


def _publish(job: Job, out: Path, made: dict, state: State, content: dict) -> None:
    """Write the weights, the result, and the seal that says that both are there, each at once or not at all."""
    weights = {name: tensor.contiguous().cpu() for name, tensor in state.weights.items()}
    path = write_atomic(out / results.WEIGHTS, save(weights))
    result = results.write(out / results.RESULT, job, content | {"weights": seals.sha256(path)})
    seals.write(out / results.SEAL, [path, result], made)


@contextmanager
def _writing(what: str, rest: str) -> Iterator[None]:
    """An error of the system as a `ResultError` that says what could not be written, why, and what there is."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise results.ResultError(f"{what} ({error}); {rest}") from error


def _tidy(job: Job, out: Path) -> None:
    """Remove the checkpoints of a job whose result is there, and what killed processes left half-written beside it."""
    for old in out.parent.glob(f".{job.id}-*"):
        shutil.rmtree(old, ignore_errors=True)
    for name in (results.RESULT, results.WEIGHTS, results.SEAL):
        for half in out.glob(f".{name}.*"):
            half.unlink()


def command(job: Job) -> str:
    """The words after `python -m ica.synthetic.training.run` that make this job; a GPU is used only outside of `ci`."""
    seeds = ",".join(map(str, job.seeds))
    return f"{job.scale} {job.name} --seeds {seeds} --device {'cpu' if job.scale in LIVE else 'auto'}"


def gpus(job: Job) -> int:
    """GPUs that a cluster is asked for: one for a job of the paper's size, none for the small ones."""
    return int(job.scale in ("paper", "full"))


def store(job: Job, result: Path, folder: Path) -> Path:
    """Copy a result to the stored ones, under a name that says scale, run and seeds; with the weights of the live scales,
    and of `base`, seed 0.

    Raises:
        ResultError: it cannot be written; the one before, if any, stays.
    """
    target = folder / f"{job.stem}.json"
    with _writing(f"result of run {job.name} could not be stored as {target}", f"it is kept in {result}"):
        if job.scale in LIVE or (job.name == "base" and 0 in job.seeds):
            weights = result.with_name(results.WEIGHTS).read_bytes()
            write_atomic(target.with_suffix(".safetensors"), weights)
        return write_atomic(target, result.read_bytes())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("scale", help=f"one of {', '.join(SCALES)}")
    parser.add_argument("name", help="a run of `runs.yml`")
    parser.add_argument("--seeds", help="only the group of these seeds, as in 0,1,2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto (a GPU where there is one)")
    parser.add_argument("--threads", default="1", help="threads on the CPU (default: 1, as in a build)")
    parser.add_argument("--store", action="store_true", help="copy the result to results/paper as well")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the run is")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Job]:
    """The jobs that the options name; ValueError for what there is not."""
    chosen = jobs_of(options.name, options.scale)
    if options.seeds is None:
        return chosen
    groups = {",".join(map(str, job.seeds)): job for job in chosen}
    given = options.seeds.replace(" ", "")
    if given not in groups:
        accepted = " or ".join(groups)
        raise ValueError(f"--seeds {options.seeds!r} is no seed group of it; accepted: {accepted}")
    return [groups[given]]


def _device(given: str) -> str:
    """cpu or cuda; ValueError for another name, or a GPU that is not there."""
    if given not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}; got {given!r}")
    there = torch.cuda.is_available()
    if given == "cuda" and not there:
        raise ValueError("--device cuda: PyTorch finds no such GPU here; accepted: cpu, auto")
    return "cuda" if given != "cpu" and there else "cpu"


def _threads(given: str) -> int:
    if not given.strip().isdecimal() or int(given) < 1:
        raise ValueError(f"--threads must be a whole number of at least 1, got {given!r}")
    return int(given)


def _work(options: argparse.Namespace) -> Callable[[jobs.Tell], None]:
    def work(tell: jobs.Tell) -> None:
        chosen, device, count = _chosen(options), _device(options.device), _threads(options.threads)
        jobs.settle(MODULE, count)
        torch.set_num_threads(count)
        for job in chosen:
            path = perform(job, results.live_folder() / job.id, device, tell)
            kept = (project_root() or ROOT) / "results" / "paper"
            print(store(job, path, kept) if options.store else path)

    return work


def main() -> int:
    options = _arguments()
    if options.scale not in LIVE:  # may take days; a limit that was asked for holds
        os.environ[jobs.LIMIT] = os.environ.get(jobs.LIMIT) or "0"
    return jobs.run(_work(options), f"Training run {options.name} (scale {options.scale})", options.status)


if __name__ == "__main__":
    sys.exit(main())
