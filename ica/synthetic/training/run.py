"""Train one run of the catalogue and leave its result: `python -m ica.synthetic.training.run ci base`.

Results go to `build/runs/<id>/`, checkpoints to a folder beside it that is removed once the result is whole. Started
again after any end, the run goes on from its last checkpoint; a change of the code starts it anew.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ica.build import imports
from ica.record.provenance import commit, dirty, hardware, seconds_since, threads, versions, write_json
from ica.synthetic.task.metrics import cosine_error, normalised_mse
from ica.synthetic.task.tokens import lengths, loss, read_at, tokens
from ica.synthetic.training import results
from ica.synthetic.training.catalogue import SCALES, Job, jobs_of
from ica.synthetic.training.checkpoints import CheckpointError
from ica.synthetic.training.train import TrainingError, Weights, forward, train

ROOT = Path(__file__).parents[3]
NUMBERS = tuple(
    f"ica.synthetic.{name}" for name in ("catalogue", "checkpoints", "results", "run", "training", "metrics")
)


def code_digest(root: Path = ROOT) -> str:
    """SHA-256 over every module that a run stands on: another digest, another run."""
    modules = imports.closure([f"import {name}" for name in NUMBERS], root)
    files = [imports.module_file(root, module) for module in modules]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


@torch.no_grad()
def evaluate(job: Job, weights: Weights, count: int) -> dict[str, torch.Tensor]:
    """Errors of every seed on `count` evaluation prompts at every prefix, and the loss of every seed, on the CPU."""
    config, batch = job.config, results.evaluation_prompts(job.config, count=count)
    seen, inputs = lengths(config.N, config.form), tokens(batch, config.form)
    device = next(iter(weights.values())).device
    outputs = forward(config)(weights, inputs.to(device).expand(len(job.seeds), *inputs.shape)).cpu()
    predictions, good = outputs[:, :, read_at(seen, config.form)], batch.good.view(1, count, 1, -1)
    return {
        "error": cosine_error(predictions, good),
        "nmse": normalised_mse(predictions, good),
        "loss": torch.stack([loss(output, batch, config) for output in outputs]),
    }


def look_at(job: Job, folder: Path, step: int, weights: Weights) -> None:
    """Leave the means over evaluation prompts after `step` updates as a file; twice gives the same file."""
    found = evaluate(job, weights, results.LOOK_PROMPTS)
    means = {"error": found["error"].mean(1), "nmse": found["nmse"].mean(1), "loss": found["loss"]}
    write_json(
        folder / f"look-{step:06d}.json", {"step": step} | {k: results.rounded(v) for k, v in means.items()}
    )


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


def _done(path: Path) -> bool:
    """Is there a result of this very code, with its weights?"""
    try:
        (source,) = results.read(path).provenance
    except results.ResultError:
        return False
    return source["code"] == code_digest()[:12] and path.with_name("weights.safetensors").is_file()


def _publish(job: Job, out: Path, weights: Weights, content: dict) -> Path:
    """Write the weights, then the result that says that they are there, each at once or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".weights.{os.getpid()}.tmp"
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, temporary)
        temporary.chmod(0o644)
        os.replace(temporary, out / "weights.safetensors")
    finally:
        temporary.unlink(missing_ok=True)
    return results.write(out / "result.json", job, content)


def perform(job: Job, out: Path, device: str = "cpu", status: Path | None = None) -> Path:
    """Train a job, or go on with it, and write `out/result.json` and `out/weights.safetensors`; the result's path.

    A result of the same code that is there already is left as it is.

    Raises:
        TrainingError, CheckpointError: as `train` says; no result is written.
        ResultError: the result cannot be written, as on a full disk; the last checkpoint stays.
        KeyboardInterrupt: asked to stop; the updates done are kept.
    """
    if _done(out / "result.json"):
        _tidy(job, out)  # killed between the result and this, a run leaves its checkpoints
        return out / "result.json"
    started, begun, spent = datetime.now(UTC), time.time(), [0.0]
    folder = out.with_name(f".{job.id}-{code_digest()[:12]}")
    folder.mkdir(parents=True, exist_ok=True)
    first: list[int] = []

    def look(step: int, weights: Weights) -> None:
        first.append(step)
        if step % job.every and step != job.config.steps:
            return  # gone on from where a signal stopped it: an uninterrupted run does not look here
        before = time.time()
        look_at(job, folder, step, weights)
        spent[0] += time.time() - before
        if status:
            progress = f"{step}/{job.config.steps}"
            write_json(status, {"state": "running", "started": begun, "progress": progress})

    state = train(job.config, job.seeds, folder, every=job.every, look=look, device=device)
    seconds = time.time() - begun - spent[0]
    final = evaluate(job, state.weights, results.PROMPTS)
    content = {
        "seen": lengths(job.config.N, job.config.form).tolist(),
        "losses": results.rounded(torch.tensor(state.losses)),
        "looks": [json.loads(path.read_text()) for path in sorted(folder.glob("look-*.json"))],
        "final": {key: results.rounded(final[key]) for key in ("error", "nmse")},
        "provenance": source(started, state.step - first[0], seconds, device),
    }
    try:
        path = _publish(job, out, state.weights, content)
    except (OSError, SafetensorError) as error:
        raise results.ResultError(
            f"result of run {job.name} could not be written to {out} ({error}); its last checkpoint is kept in {folder}"
        ) from error
    _tidy(job, out)
    return path


def _tidy(job: Job, out: Path) -> None:
    """Remove the checkpoints of a job whose result is there."""
    for old in out.parent.glob(f".{job.id}-*"):
        shutil.rmtree(old, ignore_errors=True)


def stem(job: Job) -> str:
    """Name of the stored result of a job: scale, run and seeds."""
    return f"{job.scale}-{job.name}-seed{'-'.join(map(str, job.seeds))}"


def command(job: Job) -> str:
    """The words after `python -m ica.synthetic.training.run` that make this job; a GPU is used only outside of `ci`."""
    seeds = ",".join(map(str, job.seeds))
    return f"{job.scale} {job.name} --seeds {seeds} --device {'cpu' if job.scale == 'ci' else 'auto'}"


def store(job: Job, result: Path, folder: Path) -> Path:
    """Copy a result to the stored ones, under a name that says scale, run and seeds; with the weights of `base`."""
    target = folder / f"{stem(job)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    if job.name == "base" and 0 in job.seeds:
        shutil.copyfile(result.with_name("weights.safetensors"), target.with_suffix(".safetensors"))
    shutil.copyfile(result, target)
    return target


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ica.synthetic.training.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("scale", help=f"one of {', '.join(SCALES)}")
    parser.add_argument("name", help="a run of `runs.yml`")
    parser.add_argument("--seeds", help="only the group of these seeds, as in 0,1,2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto (a GPU where there is one)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads on the CPU")
    parser.add_argument("--store", action="store_true", help="copy the result to results/paper as well")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the run is")
    return parser.parse_args()


def main() -> int:
    options = _arguments()
    begun = time.time()
    state = "failed"
    try:
        chosen = jobs_of(options.name, options.scale)
        if options.seeds:
            seeds = tuple(int(seed) for seed in options.seeds.split(","))
            chosen = [job for job in chosen if job.seeds == seeds]
            if not chosen:
                raise ValueError(f"--seeds {options.seeds} is no seed group of run {options.name}")
        if options.device not in ("cpu", "cuda", "auto"):
            raise ValueError(f"--device must be cpu, cuda or auto, got {options.device!r}")
        device = (
            ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
        )
        torch.set_num_threads(options.threads)
        for job in chosen:
            path = perform(job, results.live_folder() / job.id, device, options.status)
            print(store(job, path, ROOT / "results" / "paper") if options.store else path)
        state = "done"
    except (ValueError, TrainingError, CheckpointError) as error:
        if options.status:
            report = f"Training run {options.name} (scale {options.scale}) failed.\n\n{error}\n"
            options.status.with_suffix(".failure").write_text(report, encoding="utf-8")
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        return 130
    finally:
        if options.status:
            write_json(options.status, {"state": state, "started": begun, "seconds": time.time() - begun})
    return 0


if __name__ == "__main__":
    sys.exit(main())
