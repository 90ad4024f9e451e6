r"""Imitation: ordinary transformers trained to do one gradient step on the Plackett-Luce (N = 2: Bradley-Terry) loss.

A model reads the tokens of a prompt and is to give, at every token, the prediction after one step from $\hat y_0 = W x$:

$$\hat y_1 = \hat y_0 + 2 \eta \sum_{i<N} \Big( y_{\tau(i)} - \sum_{j \ge i} \beta^i_j y_{\tau(j)} \Big), \qquad \|x\| = 1.$$

Its error is squared, averaged over prompts and tokens, and divided by the mean square of the step: 1 is the error of
predicting no step at all. All seeds of one configuration train together, as one stacked model.
"""

import copy
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ica import checks
from ica.objectives import pl_direction
from ica.theory.prompts import Prompts, sample_prompts
from ica.transformer import Transformer


@dataclass(frozen=True)
class Examples:
    """Prompts as a model sees them, and what it is to answer at every token."""

    tokens: Float[Tensor, "batch N inputs"]
    moved: Float[Tensor, "batch d"]
    move: Float[Tensor, "batch d"]

    def relative_error(self, outputs: Float[Tensor, "*models batch N d"]) -> Float[Tensor, "*models"]:
        """Mean squared error at the tokens over the mean square of the step; 1 for predicting no step."""
        squares = (outputs - self.moved.unsqueeze(-2)).square().sum(dim=-1)
        return squares.mean(dim=(-1, -2)) / self.move.square().sum(dim=-1).mean()


@dataclass(frozen=True)
class GradientStep:
    """The step to imitate, and the prompts to imitate it on.

    Args:
        W: linear model that the step starts from, the same for all prompts.
        N: responses of a prompt.
        gap: smallest difference of two rewards of a prompt; rewards lie in [0, 1].
        scale: root mean square norm of a response.
        eta: step size.

    Raises:
        ValueError: W not a finite matrix of float64, a number out of range, a gap that N rewards cannot keep.
    """

    W: Float[Tensor, "d p"]
    N: int
    gap: float
    scale: float = 1.0
    eta: float = 0.5

    def __post_init__(self):
        checks.finite("W", checks.shape("W", self.W, (None, None)))
        checks.one_of("W.dtype", self.W.dtype, (torch.float64,))
        checks.whole("N", self.N, 2)
        for name in ("gap", "scale", "eta"):
            checks.positive(name, getattr(self, name))

    def on(self, prompts: Prompts, dtype: torch.dtype = torch.float32) -> Examples:
        """Tokens and answers for given prompts, worked out in float64, kept in `dtype`."""
        start = prompts.query @ self.W.T
        move = 2 * self.eta * pl_direction(start, prompts.responses, prompts.rewards)
        return Examples(prompts.tokens().to(dtype), (start + move).to(dtype), move.to(dtype))

    def sample(self, batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Examples:
        """Random prompts: unit query, Gaussian responses, spaced rewards."""
        d, p = self.W.shape
        prompts = sample_prompts(batch, self.N, d, p, gap=self.gap, generator=generator)
        return self.on(replace(prompts, responses=self.scale * prompts.responses), dtype)


@dataclass(frozen=True)
class Schedule:
    """Adam on minibatches drawn from a pool: linear warm-up, then a cosine down to 0.

    Args:
        steps: updates.
        batch: prompts in a minibatch.
        rate: largest learning rate.
        warm_up: updates until the largest rate.
        clip: largest norm of a model's gradient.
        checkpoints: how often the held-out error is taken, the start not counted.
    """

    steps: int
    batch: int = 128
    rate: float = 2e-2
    warm_up: int = 100
    clip: float = 1.0
    checkpoints: int = 20

    def __post_init__(self):
        for name in ("steps", "batch", "warm_up", "checkpoints"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("rate", "clip"):
            checks.positive(name, getattr(self, name))

    def rate_at(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        return (
            self.rate * min(1.0, (step + 1) / self.warm_up) * (1 + math.cos(math.pi * step / self.steps)) / 2
        )


@dataclass(frozen=True)
class Trained:
    """Models after training, and their held-out errors on the way: row 0 before, the last row after."""

    models: list[Transformer]
    steps: list[int]
    curve: Float[Tensor, "checkpoints_and_start models"]

    @property
    def errors(self) -> list[float]:
        """Held-out error of each model after training."""
        return self.curve[-1].tolist()


@torch.no_grad()
def perturbed(model: Transformer, size: float, seed: int) -> Transformer:
    """A copy with Gaussian noise on every weight w, standard deviation size * (1 + |w|); it promises nothing."""
    generator, noisy = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    noisy.built_for = None
    for weight in noisy.parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
        weight.add_(checks.positive("size", size) * (1 + weight.abs()) * noise)
    return noisy


def train(
    models: list[Transformer], seeds: list[int], pool: Examples, held_out: Examples, schedule: Schedule
) -> Trained:
    """Train all models at once, each on its own minibatches from `pool` (drawn by its seed).

    The models share one program but nothing else: each ends where it would end if trained alone.

    Raises:
        ValueError: no model, models of different configurations, or not one seed for each; tokens not finite.
    """
    if not models or len(models) != len(seeds):
        raise ValueError(
            f"seeds must hold one seed for each of at least one model, got {len(seeds)} for {len(models)}"
        )
    if any(model.config != models[0].config for model in models):
        raise ValueError("models must have one configuration, got different ones")
    for name, examples in (("pool", pool), ("held_out", held_out)):
        checks.finite(f"{name}.tokens", examples.tokens)
    weights, _ = stack_module_state(models)
    skeleton = copy.deepcopy(models[0])
    skeleton.built_for = None
    apply = vmap(lambda weight, tokens: functional_call(skeleton, weight, (tokens,)))
    optimiser = torch.optim.Adam(weights.values(), betas=(0.9, 0.99), foreach=True)
    batches = _minibatches(len(pool.tokens), seeds, schedule)
    looks = sorted(
        {round(k * schedule.steps / schedule.checkpoints) for k in range(schedule.checkpoints + 1)}
    )
    everyone = held_out.tokens.expand(len(models), *held_out.tokens.shape)
    curve, scale = [], pool.move.square().sum(dim=-1).mean()
    for step in range(schedule.steps + 1):
        if step in looks:
            with torch.no_grad():
                curve.append(held_out.relative_error(apply(weights, everyone)))
        if step < schedule.steps:
            rows = batches[:, step]
            errors = (apply(weights, pool.tokens[rows]) - pool.moved[rows].unsqueeze(-2)).square().sum(dim=-1)
            losses = errors.mean(dim=(-1, -2)) / scale
            _update(optimiser, list(weights.values()), losses, schedule.rate_at(step), schedule.clip)
    return Trained(_unstack(models, weights), looks, torch.stack(curve))


def _minibatches(size: int, seeds: list[int], schedule: Schedule) -> Int[Tensor, "models steps batch"]:
    shape = (schedule.steps, schedule.batch)
    return torch.stack(
        [torch.randint(size, shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def _update(
    optimiser: torch.optim.Adam,
    weights: list[Float[Tensor, "models ..."]],
    losses: Float[Tensor, " models"],
    rate: float,
    clip: float,
) -> None:
    """One Adam update of every model by its own loss, its gradient cut to the norm `clip`.

    A gradient that is not finite counts as 0: polynomials of high degree overflow now and then.
    """
    gradients = torch.autograd.grad(losses.sum(), weights)
    norms = sum(g.flatten(1).square().sum(dim=1) for g in gradients).sqrt()
    factors = torch.where(norms.isfinite(), clip / norms.clamp(min=clip), 0.0)
    gradients = [g.nan_to_num(0.0, 0.0, 0.0) for g in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient * factors.view(-1, *[1] * (gradient.ndim - 1))
    optimiser.param_groups[0]["lr"] = rate
    optimiser.step()


def _unstack(models: list[Transformer], weights: dict[str, Float[Tensor, "models ..."]]) -> list[Transformer]:
    copies = copy.deepcopy(models)
    for k, model in enumerate(copies):
        model.built_for = None  # trained, so no construction any more
        model.load_state_dict({name: stacked[k].detach() for name, stacked in weights.items()})
    return copies
