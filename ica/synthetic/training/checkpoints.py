"""Checkpoints of stacked models: one safetensors file each, written whole or not at all, oldest removed last.

A checkpoint holds the weights and Adam's two moments of all seeds, and, in its header, the configuration, the seeds, the
number of updates done, the curve and the looks at held-out prompts so far, and a SHA-256 over all of that. Together with the rule that the
prompts of an update depend on (seed, update) only, it determines the rest of the run bit for bit.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ica.synthetic.task.config import RunConfig

NAME = re.compile(r"step-(\d{6})\.safetensors")
KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message names the file and what to do."""


class Damaged(CheckpointError):
    """A checkpoint is not as it was written."""


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def checksum(tensors: dict[str, torch.Tensor], header: str) -> str:
    """SHA-256 over the header and the names, types, shapes and bytes of the tensors, in hexadecimal."""
    found = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.flatten().numpy())
    return found.hexdigest()


def save(folder: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    """Write a checkpoint for `header["step"]`, then remove all but the last two.

    Raises:
        CheckpointError: it could not be written (a full disk, say); nothing half-written is left, earlier ones stay.
    """
    path = folder / f"step-{header['step']:06d}.safetensors"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, temporary, metadata={"run": text, "sha256": checksum(contiguous, text)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        kept = paths(folder)
        rest = f"the last one is {kept[-1].name}" if kept else "there is none before it"
        raise CheckpointError(f"checkpoint {path} could not be written ({error}); {rest}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()
    for old in paths(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path, config: RunConfig, seeds: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a checkpoint of this very run.

    Raises:
        Damaged: the file is not as it was written. CheckpointError: it is of another configuration or other seeds.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != checksum(tensors, metadata["run"]):
            raise ValueError("its checksum is another one")
        header = json.loads(metadata["run"])
    except KeyError as error:
        raise Damaged(f"checkpoint {path} is damaged (no {error})") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"checkpoint {path} is damaged ({error})") from error
    if RunConfig.from_dict(header["config"]) != config or tuple(header["seeds"]) != seeds:
        raise CheckpointError(
            f"checkpoint {path} is of another run (configuration or seeds differ); use another folder"
        )
    return tensors, header


def last(
    folder: Path, config: RunConfig, seeds: tuple[int, ...]
) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Tensors and header of the last whole checkpoint in the folder; None where there is none.

    A damaged one is removed, and named on stderr with what the run goes on from.

    Raises:
        CheckpointError: one of another run. OSError: a damaged one that cannot be removed.
    """
    damaged = []
    for path in reversed(paths(folder)):
        try:
            found = load(path, config, seeds)
        except Damaged as error:
            path.unlink()
            damaged.append(str(error))
            continue
        _say(damaged, f"going on from {path.name}, which is whole")
        return found
    _say(damaged, "there is no whole one before it, so the run starts anew")
    return None


def _say(damaged: list[str], rest: str) -> None:
    if damaged:
        print(f"{'; '.join(damaged)}: removed; {rest}", file=sys.stderr, flush=True)
