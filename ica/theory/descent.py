"""Gradient descent by automatic differentiation: the reference that every construction is checked against."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_loss, predict, squared_distance_reward
from ica.theory.prompts import Prompts


def prompt_loss(W: Float[Tensor, "batch d p"], prompts: Prompts) -> Float[Tensor, " batch"]:
    """Plackett-Luce loss of each prompt under its own linear model, squared-distance reward."""
    scores = squared_distance_reward(predict(W, prompts.query), prompts.responses)
    return pl_loss(scores, prompts.rewards)


def gradient_descent(
    W: Float[Tensor, "batch d p"],
    prompts: Prompts,
    eta: float,
    steps: int,
    loss: Callable[[Tensor, Prompts], Tensor] = prompt_loss,
) -> Float[Tensor, "steps_and_start batch d p"]:
    """Weights along plain gradient descent, the start included; one linear model per prompt.

    Args:
        W: where each prompt's model starts.
        eta: step size (plain, not divided by the number of terms or prompts).
        loss: maps (W, prompts) to one loss per prompt.

    Raises:
        ValueError: W of a shape that does not fit the prompts, not finite; eta or steps out of range.
    """
    batch, _, d = prompts.responses.shape
    checks.finite("W", checks.shape("W", W, (batch, d, prompts.query.shape[-1])))
    checks.positive("eta", eta)
    path = [W.detach().clone()]
    for _ in range(checks.whole("steps", steps, 0)):
        leaf = path[-1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(leaf, prompts).sum(), leaf)
        path.append(path[-1] - eta * gradient)
    return torch.stack(path)


def relative_errors(
    moved: Float[Tensor, "*#batch d"],
    reference: Float[Tensor, "*#batch d"],
    start: Float[Tensor, "*#batch d"],
) -> Float[Tensor, "*#batch"]:
    """Distance of `moved` from `reference`, in units of the way that the reference went from `start`."""
    return (moved - reference).norm(dim=-1) / (reference - start).norm(dim=-1)
