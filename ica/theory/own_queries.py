r"""A query for each response: the Plackett-Luce step, its lift to one query, and convexity (ours).

Page "Rounds of self-correction as one trajectory". With triplets $(x_j, y_j, r_j)$ the model's rewards are
$-\|f_j\|^2$, $f_j = y_j - W x_j$, and $\|W x_j\|^2$ does not cancel. One step is $2 \eta \sum_j w_j f_j x_j^\top$; for
unit queries it is the step of a prompt with one query whose responses are the outer products $f_j x_j^\top$.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_loss, ranking, remaining_weights
from ica.theory.prompts import Prompts, default_gap, spaced_rewards


@dataclass(frozen=True)
class OwnQueries:
    """A batch of prompts whose responses have a query each, validated.

    Args:
        queries: N queries per prompt.
        responses: N >= 2 responses per prompt.
        rewards: the critic's values, distinct within a prompt.

    Raises:
        ValueError: shapes that do not fit, N < 2, mixed or unknown types, values not finite, tied rewards.
    """

    queries: Float[Tensor, "batch N p"]
    responses: Float[Tensor, "batch N d"]
    rewards: Float[Tensor, "batch N"]

    def __post_init__(self):
        checks.shape("responses", self.responses, (None, None, None))
        batch, N, _ = self.responses.shape
        checks.whole("responses: N", N, 2)
        checks.shape("queries", self.queries, (batch, N, None))
        checks.shape("rewards", self.rewards, (batch, N))
        for name in ("queries", "responses", "rewards"):
            checks.finite(name, getattr(self, name))
            checks.one_of(f"{name}.dtype", getattr(self, name).dtype, (self.responses.dtype,))
        checks.distinct("rewards", self.rewards)


def sample_own(batch: int, N: int, d: int, p: int, generator: torch.Generator) -> OwnQueries:
    """Gaussian unit queries (p features), Gaussian responses of unit mean square norm, rewards in 0..1.

    ValueError: a size below its least value.
    """
    for name, value, least in (("batch", batch, 1), ("N", N, 2), ("d", d, 1), ("p", p, 1)):
        checks.whole(name, value, least)
    queries = torch.randn(batch, N, p, generator=generator, dtype=torch.float64)
    responses = torch.randn(batch, N, d, generator=generator, dtype=torch.float64) / d**0.5
    rewards = spaced_rewards(batch, N, default_gap(N), generator)
    return OwnQueries(queries / queries.norm(dim=-1, keepdim=True), responses, rewards)


def residuals(W: Float[Tensor, "*batch d p"], prompts: OwnQueries) -> Float[Tensor, "batch N d"]:
    r"""$f_j = y_j - W x_j$."""
    return prompts.responses - prompts.queries @ W.mT


def own_loss(W: Float[Tensor, "batch d p"], prompts: OwnQueries) -> Float[Tensor, " batch"]:
    """Plackett-Luce loss of each prompt, every response scored against the prediction for its own query."""
    return pl_loss(-residuals(W, prompts).square().sum(dim=-1), prompts.rewards)


def step_weights(
    scores: Float[Tensor, "batch N"], rewards: Float[Tensor, "batch N"]
) -> Float[Tensor, "batch N"]:
    r"""$w_j$: 1 for each term that response j wins, less its softmax weight in every term; they sum to 0."""
    tau = ranking(rewards)
    wins = torch.ones_like(scores)
    wins[..., -1] = 0
    ranked = wins - remaining_weights(scores.gather(-1, tau)).sum(dim=-2)
    return torch.zeros_like(ranked).scatter(-1, tau, ranked)


def own_direction(W: Float[Tensor, "*batch d p"], prompts: OwnQueries) -> Float[Tensor, "batch d p"]:
    r"""$\sum_j w_j f_j x_j^\top$, half of minus the gradient of `own_loss` in W."""
    f = residuals(W, prompts)
    weights = step_weights(-f.square().sum(dim=-1), prompts.rewards)
    return (weights.unsqueeze(-1) * f).mT @ prompts.queries


def lifted(W: Float[Tensor, "*batch d p"], prompts: OwnQueries) -> Prompts:
    r"""The prompt with one query (the number 1) and the responses $f_j x_j^\top$ of d p features, flattened.

    Its step from the prediction 0 is $\Delta W$, flattened. Raises:
        ValueError: queries that are not of norm 1.
    """
    if not ((prompts.queries.norm(dim=-1) - 1).abs() < 1e-6).all():
        raise ValueError("queries must have norm 1 to be lifted: the score of a response would change")
    outer = residuals(W, prompts).unsqueeze(-1) * prompts.queries.unsqueeze(-2)
    one = torch.ones(len(outer), 1, dtype=outer.dtype)
    return Prompts(one, outer.flatten(2), prompts.rewards)


def least_curvature(W: Float[Tensor, "batch d p"], prompts: OwnQueries) -> Float[Tensor, " batch"]:
    """Least eigenvalue of the Hessian of `own_loss` in W; below 0 where the loss is not convex."""
    least = []
    for k in range(len(W)):
        one = OwnQueries(prompts.queries[k, None], prompts.responses[k, None], prompts.rewards[k, None])
        hessian = torch.autograd.functional.hessian(lambda V, one=one: own_loss(V[None], one)[0], W[k])
        size = W[k].numel()
        least.append(torch.linalg.eigvalsh(hessian.reshape(size, size))[0])
    return torch.stack(least)


def own_descent(
    W: Float[Tensor, "batch d p"], prompts: OwnQueries, eta: float, steps: int
) -> Float[Tensor, "steps_and_start batch d p"]:
    """Weights along plain gradient descent on `own_loss` by autograd, the start included.

    ValueError: eta or steps out of range.
    """
    checks.positive("eta", eta)
    path = [W.detach().clone()]
    for _ in range(checks.whole("steps", steps, 0)):
        leaf = path[-1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(own_loss(leaf, prompts).sum(), leaf)
        path.append(path[-1] - eta * gradient)
    return torch.stack(path)
