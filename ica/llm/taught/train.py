"""Teach a course of lessons: full fine-tuning by AdamW, the loss on the answers alone.

Forward and backward run in bfloat16, as the base model was trained; gradients are added up, and weights kept, in float32.

What a step shows follows from the course and the step, and a checkpoint holds weights and both moments; so a run that was stopped
goes on to the same bits. The order of operations is fixed by one thread (`ica.build.jobs.settle`).
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from ica.llm.model.load import LanguageModel
from ica.llm.taught.lessons import Batch, Course, packed
from ica.llm.taught.settings import Recipe

FILE = "state.safetensors"
BETAS, DECAY, CLIP = (0.9, 0.95), 0.01, 1.0
MOMENTS = ("exp_avg", "exp_avg_sq")
Say = Callable[[str], None]
Master = dict[str, Tensor]  # weights in float32, by name


class TrainingError(ValueError):
    """Training cannot go on; the message says why, and what to do."""


@dataclass
class Progress:
    """Steps done, the loss of each (nats), and the seconds of processor time that they took."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


def loss_of(network: PreTrainedModel, batch: Batch) -> Float[Tensor, ""]:
    """A batch's part of the weighted mean over targets of -log p (nats), in the network's own precision up to the logits."""
    lowest = torch.finfo(network.dtype).min
    mask = torch.zeros(batch.sees.shape, dtype=network.dtype).masked_fill(~batch.sees, lowest).unsqueeze(1)
    hidden = network.model(
        input_ids=batch.tokens, attention_mask=mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state[batch.row, batch.place]
    logits = network.get_output_embeddings()(hidden)
    chosen = logits.float().log_softmax(-1).gather(1, batch.next.unsqueeze(1)).squeeze(1)
    return -(chosen * batch.weight).sum()


def train(
    model: LanguageModel, course: Course, recipe: Recipe, folder: Path, tell: Say | None = None
) -> Progress:
    """Teach the model in place, from the checkpoint in `folder` if there is one; one of the last step is all that it needs.

    Args:
        model: the model to begin with, in float32 on the CPU.
        tell: is called with how far it is, as in "50/400", where it starts and at each checkpoint.

    Raises:
        TrainingError: a loss that is not finite, or a checkpoint that cannot be read or written.
    """
    network = model.network.requires_grad_(True).train()
    attention = network.config._attn_implementation
    network.set_attn_implementation(
        "eager"
    )  # of short rows the fused one takes longer backward, by a third of a step
    master = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    adam = torch.optim.AdamW(master.values(), lr=recipe.rate, betas=BETAS, weight_decay=DECAY, fused=True)
    mark, steps = course.mark | {"base": model.hash}, course.steps
    done = _resume(master, adam, folder / FILE, mark)
    _put(master, network, torch.bfloat16)
    tell = tell or (lambda text: None)
    tell(f"{done.step}/{steps}")
    begun = time.process_time()
    while done.step < steps:
        loss = 0.0
        for batch in packed(model, course.of(done.step)):
            part = loss_of(network, batch)
            part.backward()
            _collect(network, master)
            loss += part.item()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {done.step + 1}; a lower rate may help")
        torch.nn.utils.clip_grad_norm_(master.values(), CLIP)
        for group in adam.param_groups:
            group["lr"] = recipe.rate_at(done.step, steps)
        adam.step()
        adam.zero_grad(set_to_none=True)
        _put(master, network, torch.bfloat16)
        done.step, done.losses = done.step + 1, [*done.losses, round(loss, 5)]
        if done.step % recipe.every == 0 or done.step == steps:
            now = time.process_time()
            done.seconds, begun = done.seconds + now - begun, now
            _save(master, adam, folder / FILE, mark, done)
            tell(f"{done.step}/{steps}, loss {sum(done.losses[-20:]) / len(done.losses[-20:]):.3f}")
    network.set_attn_implementation(attention)
    _put(master, network, torch.float32)
    network.requires_grad_(False).eval()
    return done


def _put(master: Master, network: PreTrainedModel, precision: torch.dtype) -> None:
    """Give the network the weights, rounded to a precision; its buffers stay as they are."""
    for name, weight in network.named_parameters():
        weight.grad, weight.data = None, master[name].to(precision, copy=True)


def _collect(network: PreTrainedModel, master: Master) -> None:
    """Add the network's gradients to the master's, and take them from it."""
    for name, weight in network.named_parameters():
        own, found = master[name], weight.grad.float()
        own.grad, weight.grad = found if own.grad is None else own.grad.add_(found), None


def _tensors(master: Master, adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and moments by name, each once (the embedding is tied)."""
    found = {}
    for name, weight in master.items():
        found[f"weight/{name}"] = weight
        found |= {f"{moment}/{name}": adam.state[weight][moment] for moment in MOMENTS if adam.state[weight]}
    return found


def _save(master: Master, adam: torch.optim.Optimizer, path: Path, mark: dict, done: Progress) -> None:
    """Write the checkpoint in place of the one before, at once or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    header = {"mark": json.dumps(mark, sort_keys=True), "done": json.dumps(asdict(done))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_tensors(master, adam), temporary, metadata=header)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"checkpoint {path} could not be written ({error}); the one before is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _resume(master: Master, adam: torch.optim.Optimizer, path: Path, mark: dict) -> Progress:
    """Put a checkpoint's weights and moments in place; where there is none, nothing is done."""
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, "pt") as file, torch.no_grad():
            header = file.metadata()
            if json.loads(header["mark"]) != mark:
                raise ValueError("it is of another run")
            done = Progress(**json.loads(header["done"]))
            for name, weight in master.items():
                weight.copy_(file.get_tensor(f"weight/{name}"))
                moments = {moment: file.get_tensor(f"{moment}/{name}") for moment in MOMENTS}
                adam.state[weight] = {"step": torch.tensor(float(done.step))} | moments
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"checkpoint {path} cannot be used ({type(error).__name__}: {error}); remove it to begin anew"
        ) from error
    return done
