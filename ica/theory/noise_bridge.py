r"""From one step to panel (b): prompts of the experiment as stated, and gradient descent on them (page `noisy_critic`).

The data and the baseline are those of the paper's App. C.1, written apart from the code of Part II, so that either can
check the other.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, predict
from ica.theory.prompts import Prompts


def stated_prompts(
    batch: int, N: int, d: int, generator: torch.Generator
) -> tuple[Prompts, Float[Tensor, "batch d"]]:
    r"""Prompts with $y_i = r_i y^* + (1 - r_i) e_i$, $r_i \sim U(0, 1)$, and their targets $y^*$.

    $x \sim N(0, I_d)$; given x, $y^*$ and each $e_i$ are independent $N(0, \|x\|^2 I_d)$, as Gaussian matrices times x are.

    Raises:
        ValueError: a size below its least value (batch 1, N 2, d 1).
    """
    for name, value, least in (("batch", batch, 1), ("N", N, 2), ("d", d, 1)):
        checks.whole(name, value, least)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query = normal(batch, d)
    size = query.norm(dim=-1, keepdim=True)
    target, noise = size * normal(batch, d), size.unsqueeze(1) * normal(batch, N, d)
    rewards = torch.rand(batch, N, generator=generator, dtype=torch.float64)
    responses = torch.lerp(noise, target.unsqueeze(1).expand_as(noise), rewards.unsqueeze(-1))
    return Prompts(query, responses, rewards), target


def adam_predictions(
    prompts: Prompts,
    shown: Float[Tensor, "draws batch N"],
    generator: torch.Generator,
    steps: int = 50,
    rate: float = 0.1,
) -> Float[Tensor, "draws batch d"]:
    """Predictions of gradient descent as in Fig. 1b: Adam on W for each prompt and each draw of the critic.

    W starts from Gaussian entries of variance 1/d, as in Part II (ours; App. C.1 names neither start nor optimiser).

    Raises:
        ValueError: steps or rate out of range.
    """
    checks.whole("steps", steps, 1)
    checks.positive("rate", rate)
    d, query = prompts.responses.shape[-1], prompts.query.expand(len(shown), -1, -1)
    responses = prompts.responses.expand(len(shown), -1, -1, -1)
    W = torch.randn(*query.shape[:2], d, query.shape[-1], generator=generator, dtype=torch.float64) / d**0.5
    optimiser = torch.optim.Adam([W], lr=rate)
    for _ in range(steps):
        direction = pl_direction(predict(W, query), responses, shown)
        W.grad = -2 * direction.unsqueeze(-1) * query.unsqueeze(-2)
        optimiser.step()
    return predict(W, query)


def best_rate(steps: Float[Tensor, "batch d"], targets: Float[Tensor, "batch d"]) -> float:
    """The factor that brings these steps nearest to the targets, in the mean square over prompts."""
    return float((steps * targets).sum() / steps.square().sum())


def normalised(
    predictions: Float[Tensor, "*draws batch d"], targets: Float[Tensor, "batch d"]
) -> Float[Tensor, "*draws batch"]:
    """Squared errors in units of the mean squared norm of the targets: their mean is the normalised MSE of sec. 4."""
    return (predictions - targets).square().sum(-1) / targets.square().sum(-1).mean()
