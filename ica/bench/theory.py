"""The Plackett-Luce loss with its gradient against the double loop, and a constructed forward pass against gradient descent."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ica.bench.timing import Case, Way
from ica.objectives import pl_gradient
from ica.theory.compare import descent_predictions
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.plackett_luce import plackett_luce
from ica.theory.cost import multiply_adds
from ica.theory.descent import prompt_loss
from ica.theory.prompts import Prompts, default_gap, sample_prompts

SIZES, BATCHES = (4, 8, 16, 32, 64), (2, 8, 32, 128)
RESPONSES, FEATURES = (4, 8, 16, 32), (2, 4, 8, 16, 32)


def drawn(batch: int, N: int, d: int) -> tuple[Prompts, Float[Tensor, "d d"]]:
    """Prompts and a linear model, in float64."""
    generator = torch.Generator().manual_seed(1000 * N + d)
    W = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    return sample_prompts(batch, N, d, generator=generator), W


def gradient_work(batch: int, N: int, d: int) -> int:
    """Operations that loss and gradient take at least: prediction and scores, and the gradient of either."""
    return 2 * batch * (2 * d * d + 2 * N * d)


def by_autograd(W: Float[Tensor, "batch d p"], prompts: Prompts) -> Float[Tensor, "batch d p"]:
    """The gradient of our loss by automatic differentiation."""
    leaf = W.clone().requires_grad_(True)
    return torch.autograd.grad(prompt_loss(leaf, prompts).sum(), leaf)[0]


def by_loops(W: Float[Tensor, "batch d p"], prompts: Prompts) -> Float[Tensor, "batch d p"]:
    """The same with the loss as it is written: over prompts, then over ranks, a log of a sum for each."""
    leaf = W.clone().requires_grad_(True)
    total = leaf.new_zeros(())
    for k, rewards in enumerate(prompts.rewards.tolist()):
        prediction = leaf[k] @ prompts.query[k]
        scores = [-(prediction - response).square().sum() for response in prompts.responses[k]]
        ranked = [scores[i] for i in sorted(range(len(rewards)), key=lambda i: -rewards[i])]
        for i in range(len(ranked) - 1):
            total = total + torch.stack(ranked[i:]).logsumexp(0) - ranked[i]
    return torch.autograd.grad(total, leaf)[0]


def objective(sizes: Sequence[int] = SIZES, batches: Sequence[int] = BATCHES, d: int = 5) -> Iterator[Case]:
    """Gradients in W, over N with 8 prompts and over the number of prompts with N = 16."""
    grid = [("N", N, N, 8) for N in sizes] + [("prompts", batch, 16, batch) for batch in batches]
    for series, at, N, batch in grid:
        prompts, W = drawn(batch, N, d)
        each = W.expand(batch, d, d).contiguous()
        ways = {
            "ours, autograd": by_autograd,
            "ours, closed form": lambda W, some: pl_gradient(W, some.query, some.responses, some.rewards),
            "double loop, autograd": by_loops,
        }
        runs = {name: lambda way=way, W=each, some=prompts: way(W, some) for name, way in ways.items()}
        work = gradient_work(batch, N, d)
        yield Case(
            f"N = {N}, {batch} prompts, d = {d}",
            "loss and gradient",
            tuple(Way(name, run, 1, work) for name, run in runs.items()),
            lambda runs=runs: _apart([run() for run in runs.values()]),
            1e-10,
            dtype=torch.float64,
            series=series,
            at=at,
        )


def _apart(found: Sequence[Tensor]) -> float:
    """Largest difference from the last, in units of its largest number."""
    return max(float((one - found[-1]).abs().max() / found[-1].abs().max()) for one in found)


def constructed(
    responses: Sequence[int] = RESPONSES, features: Sequence[int] = FEATURES, batch: int = 8
) -> Iterator[Case]:
    """One step of the construction with N - 1 blocks and two heads, over N with d = 5 and over d with N = 8.

    The model alone is timed, without the look at its assumptions. Its operations are those of the theorem's blocks
    (`ica.theory.cost.multiply_adds`); how they grow is fitted beside the time.
    """
    grid = [("N", N, N, 5) for N in responses] + [("d", d, 8, d) for d in features]
    for series, at, N, d in grid:
        prompts, W = drawn(batch, N, d)
        told = Assumptions(eta=0.5 / N, gap=0.999 * default_gap(N))
        model = plackett_luce(W, N, told, heads=2).requires_grad_(False)
        given = prompts.tokens()

        def forward(model=model, given=given) -> Tensor:
            return model(given, unchecked=True)[:, -1]

        def descent(W=W, prompts=prompts, eta=told.eta) -> Tensor:
            return descent_predictions(W, prompts, eta, 1)[1]

        yield Case(
            f"N = {N}, d = {d}, {batch} prompts",
            "gradient step",
            (
                Way("constructed transformer", forward, 1, 2 * batch * multiply_adds(model.config, N)),
                Way("gradient descent, autograd", descent, 1, gradient_work(batch, N, d)),
            ),
            lambda a=forward, b=descent: _apart([a(), b()]),
            1e-9,
            dtype=torch.float64,
            series=series,
            at=at,
        )
