"""The gradient-descent baseline of every prompt and prefix: all at once, against a loop that takes one after the other."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ica.bench.timing import Case, Way
from ica.synthetic.task.baselines import descend
from ica.synthetic.task.data import SyntheticBatch, sample_batch

STEPS, RATE = 50, 0.1
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cases(
    code: SimpleNamespace | None = None, prompts: int = 256, alone: int = 2, N: int = 20, steps: int = STEPS
) -> Iterator[Case]:
    """The released setting, 2 to N - 1 triplets seen.

    Args:
        code: the checkout's modules; without them the loop takes the loss below.
        prompts, alone: of our way and of the loop, which would take many minutes over as many.
    """
    seen = torch.arange(2, N)
    many, few = (
        sample_batch(count, N, 5, torch.Generator().manual_seed(0), dtype=torch.float64)
        for count in (prompts, alone)
    )
    loss = code.tasks.pl_loss_single if code else prefix_loss
    name = "released loss, a loop" if code else "one prompt and prefix after the other, a loop"
    # a step takes at least the prediction, the scores, and the gradient of either
    counted = 2 * steps * sum(2 * 5 * 5 + 2 * 5 * n for n in seen.tolist())
    yield Case(
        f"{len(seen)} prefixes of {N} responses, {steps} steps of Adam",
        "prompt",
        (
            Way(
                "ours, all at once", lambda: descend(many, seen, start(), steps=steps), prompts, prompts * counted, 300.0
            ),
            Way(name, lambda: loop(few, seen, loss, steps), alone, alone * counted),
        ),
        lambda: float((descend(few, seen, start(), steps=steps) - loop(few, seen, loss, steps)).abs().max()),
        1e-6,
        dtype=torch.float64,
        repeats=3,
    )  # fmt: skip


def start() -> torch.Generator:
    """The source of both ways' first weights."""
    return torch.Generator().manual_seed(1)


def prefix_loss(
    prediction: Float[Tensor, " d"], responses: Float[Tensor, "n d"], rewards: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Plackett-Luce loss of one prediction over the responses seen, cosine reward."""
    ordered = cosine_similarity(prediction, responses[rewards.argsort(descending=True)], dim=1)
    return (ordered.flip(0).logcumsumexp(0).flip(0) - ordered).sum()


def loop(
    batch: SyntheticBatch, seen: Int[Tensor, " prefixes"], loss: Loss, steps: int = STEPS
) -> Float[Tensor, "batch prefixes d"]:
    """As `descend`, but each prompt and prefix by itself: a linear layer, autograd, an optimiser of its own."""
    (B, d), found = batch.query.shape, []
    first = torch.randn(B, len(seen), d, d, generator=start(), dtype=torch.float64) / d**0.5
    for k in range(B):
        for j, n in enumerate(seen.tolist()):
            layer = nn.Linear(d, d, bias=False, dtype=torch.float64)
            layer.weight.data.copy_(first[k, j])
            optimiser = torch.optim.Adam(layer.parameters(), lr=RATE)
            for _ in range(steps):
                optimiser.zero_grad()
                loss(layer(batch.query[k]), batch.responses[k, :n], batch.rewards[k, :n]).backward()
                optimiser.step()
            found.append(layer(batch.query[k]).detach())
    return torch.stack(found).view(B, len(seen), d)
