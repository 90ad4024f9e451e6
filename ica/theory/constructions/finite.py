r"""The extensions at finite constants: error bounds with nothing sent to infinity (ours).

Pages "Causal attention and the online loss" and "Several queries in one context". All scores of a construction
lead, or trail, by a margin $\nu$; a softmax then leaves a share of order $e^{-\nu}$ on keys that it should not see.
`AtMargin` builds a model with the least constants that a theorem takes for a given margin; each `..._bound` is the
theorem's bound on the error of its prediction after one step, in exact arithmetic.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions import online as on
from ica.theory.constructions import several_queries as sq
from ica.theory.constructions.basics import Assumptions
from ica.theory.prompts import Prompts


@dataclass(frozen=True)
class AtMargin(Assumptions):
    r"""Assumptions whose scores lead by `nu`, whatever the number format would ask for; $c = \nu / g$.

    Args:
        nu: margin between scores; a finite number above 0 (ValueError otherwise).
    """

    nu: float = 20.0

    def __post_init__(self):
        super().__post_init__()
        checks.positive("nu", self.nu)

    def margin(self, N: int) -> float:
        """The margin, for any number of tokens."""
        return self.nu


def diameter(responses: Float[Tensor, "batch N d"], origin: bool = False) -> Float[Tensor, " batch"]:
    """Largest distance of two responses; with `origin`, the zero vector (a start token's value) counts as one."""
    points = torch.cat([responses, torch.zeros_like(responses[:, :1])], dim=1) if origin else responses
    return torch.cdist(points, points).amax(dim=(1, 2))


def _needs(name: str, value: float, most: float) -> None:
    if not value <= most:
        raise ValueError(
            f"{name} must be at most {most:.3g} for the bound to hold, got {value:.3g}; raise nu"
        )


def thresholds_bound(prompts: Prompts, scales: AtMargin) -> Float[Tensor, " batch"]:
    r"""$3 \eta (N-1) \delta D$, $\delta = 2 / (e^\nu - 1)$: one step of `online` with thresholds, any prefix.

    Raises:
        ValueError: a margin too small: $S \delta \le g / 16$ is needed.
    """
    N = prompts.rewards.shape[1]
    delta = 2 / math.expm1(scales.nu)
    _needs("S delta", scales.spread * delta, scales.gap / 16)
    return 3 * scales.eta * (N - 1) * delta * diameter(prompts.responses)


def positions_bound(prompts: Prompts, scales: AtMargin) -> Float[Tensor, " batch"]:
    r"""$2 \eta (N-1) \delta\, [2 D_0 + (N-2) M_B D / 8]$, $\delta = N e^{1-\nu}$: one step of `online` by positions.

    $D_0$ is the diameter with the origin. Raises:
        ValueError: a margin too small: $\delta \le 1/11$ and $(N-2) M \delta \le 1$ are needed, M the larger mask.
    """
    N = prompts.rewards.shape[1]
    delta, nu = N * math.exp(1 - scales.nu), scales.nu
    by_reward, by_distance = scales.c(N) * scales.spread, 2 * scales.radius**2
    M = 1.1 * (max(by_reward, by_distance) + 2 * nu)
    _needs("delta", delta, 1 / 11)
    _needs("(N - 2) M delta", (N - 2) * M * delta, 1.0)
    blurred = (N - 2) * 1.1 * (by_distance + 2 * nu) * diameter(prompts.responses) / 8
    return 2 * scales.eta * (N - 1) * delta * (2 * diameter(prompts.responses, origin=True) + blurred)


def apart_bound(prompts: sq.SeveralQueries, scales: AtMargin) -> Float[Tensor, " batch"]:
    r"""$4 \eta (N-1) \delta D_0$, $\delta = Q N e^{-\nu}$: one step of `several_queries` on orthonormal queries.

    $D_0$ is the diameter of all responses of the prompt and the origin. Raises:
        ValueError: a margin too small: $S \delta \le g / 4$ is needed.
    """
    _, Q, N, _ = prompts.responses.shape
    delta = Q * N * math.exp(-scales.nu)
    _needs("S delta", scales.spread * delta, scales.gap / 4)
    return 4 * scales.eta * (N - 1) * delta * diameter(prompts.responses.flatten(1, 2), origin=True)


BOUNDS = {"thresholds": thresholds_bound, "positions": positions_bound}


def online_over_bound(
    W: Float[Tensor, "d p"], prompts: Prompts, scales: AtMargin, marks: str
) -> tuple[Float[Tensor, "batch prefixes"], Float[Tensor, " batch"]]:
    """Error of one online step at every prefix of two responses or more, over its bound; and the bound."""
    bound = BOUNDS[checks.one_of("marks", marks, on.MARKS)](prompts, scales)
    model = on.online(W, prompts.rewards.shape[1], scales, 1, marks)
    distance, _ = on.prefix_distances(model, prompts, W, scales.eta, 1, marks)
    return distance[0, :, 1:] / bound.unsqueeze(1), bound


def apart_over_bound(
    W: Float[Tensor, "d p"], prompts: sq.SeveralQueries, scales: AtMargin
) -> tuple[Float[Tensor, "batch Q"], Float[Tensor, " batch"]]:
    """Error of one step on orthonormal queries kept apart by codes of the least strength, over its bound."""
    bound = apart_bound(prompts, scales)
    _, Q, N, _ = prompts.responses.shape
    model = sq.several_queries(W, Q, N, scales, 1, pairs=0, lead=0.0)
    distance, _ = sq.query_distances(model, prompts, W, scales.eta, 1)
    return distance[0] / bound.unsqueeze(1), bound
