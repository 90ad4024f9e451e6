"""Checkpoints of stacked models: one safetensors file each, written whole or not at all, oldest removed last.

A checkpoint holds the weights and Adam's two moments of all seeds, and, in its header, the configuration, the seeds, the
number of updates done and the curve so far. Together with the rule that the prompts of an update depend on (seed, update)
only, it determines the rest of the run bit for bit.
"""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ica.synthetic.task.config import RunConfig

NAME = re.compile(r"step-(\d{6})\.safetensors")
KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message names the file and what to do."""


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))


def save(folder: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    """Write a checkpoint for `header["step"]`, then remove all but the last two.

    Raises:
        CheckpointError: it could not be written (a full disk, say); nothing half-written is left, earlier ones stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{header['step']:06d}.safetensors"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, temporary, metadata={"run": json.dumps(header, sort_keys=True)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        kept = paths(folder)
        rest = f"the last one is {kept[-1].name}" if kept else "there is none before it"
        raise CheckpointError(f"checkpoint {path} could not be written ({error}); {rest}") from error
    for old in paths(folder)[:-KEPT]:
        old.unlink()
    return path


def load(path: Path, config: RunConfig, seeds: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a checkpoint of this very run.

    Raises:
        CheckpointError: the file is damaged, or of another configuration or other seeds.
    """
    advice = "remove it to go on from the one before"
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}); {advice}") from error
    if RunConfig.from_dict(header["config"]) != config or tuple(header["seeds"]) != seeds:
        raise CheckpointError(
            f"checkpoint {path} is of another run (configuration or seeds differ); use another folder"
        )
    return tensors, header
