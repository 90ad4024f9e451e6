r"""What one Plackett-Luce step becomes under a wrong critic, in closed form (page `noisy_critic`; all of it ours).

With logits $\ell_j = -\|\hat y - y_j\|^2$, $w_j = e^{\ell_j}$ and $m(S) = \sum_{j \in S} w_j y_j / \sum_{j \in S} w_j$, the softmax mean of
a set of responses, the direction of a step is

$$u(\tau) = \sum_j y_j - \sum_{i=1}^N m(S_i), \qquad S_i = \{\tau(i), \dots, \tau(N)\},$$

so that a ranking enters through its sets of remaining candidates alone. What follows for two rankings stands first,
for a critic that errs at random after it.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ica import checks
from ica.objectives import ranking, remaining_weights, squared_distance_reward

KINDS = ("replace", "flip")
WIDEST = 600.0
"""Largest range of the logits of a prompt: beyond it weights leave the range of float64."""


def _ranked(
    prediction: Float[Tensor, "*batch d"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
) -> tuple[Float[Tensor, "*batch N d"], Float[Tensor, "*batch N"], Float[Tensor, "*batch N N"]]:
    """Responses best first, their logits, and the softmax over each set of remaining candidates, a set a row."""
    order = ranking(rewards)
    y = responses.gather(-2, order.unsqueeze(-1).expand_as(responses))
    logits = squared_distance_reward(prediction, y)
    alone = torch.zeros_like(logits).unsqueeze(-2)
    alone[..., -1] = 1
    return y, logits, torch.cat([remaining_weights(logits), alone], dim=-2)


def _diameter(responses: Float[Tensor, "*batch N d"]) -> Float[Tensor, "*batch"]:
    return torch.cdist(responses, responses).amax((-2, -1))


def direction_by_sets(
    prediction: Float[Tensor, "*batch d"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
) -> Float[Tensor, "*batch d"]:
    """Direction of the step as all responses less the softmax means of the sets of remaining candidates."""
    y, _, beta = _ranked(prediction, responses, rewards)
    return ((1 - beta.sum(-2)).unsqueeze(-1) * y).sum(-2)


def swap_changes(
    prediction: Float[Tensor, "*batch d"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
) -> tuple[Float[Tensor, "*batch swaps d"], Float[Tensor, "*batch swaps"]]:
    r"""Change of the direction when ranks k and k + 1 change places, k = 1..N - 1, and its bound.

    With C the ranks below both, a and b the two, $\pi_a = w_a / (w_a + \sum_C w)$, it is
    $\pi_b (y_b - m(C)) - \pi_a (y_a - m(C))$, at most $\max(\pi_a, \pi_b)$ times the diameter of the responses.
    """
    y, logits, beta = _ranked(prediction, responses, rewards)
    nothing = torch.full_like(logits[..., :1], -torch.inf)
    below = torch.cat([logits.flip(-1).logcumsumexp(-1).flip(-1)[..., 2:], nothing], -1)  # log mass of C
    better, worse = ((logits[..., part] - below).sigmoid() for part in (slice(-1), slice(1, None)))
    middle = torch.cat([(beta @ y)[..., 2:, :], y[..., -1:, :]], -2)  # where C is empty any point will do
    change = worse.unsqueeze(-1) * (y[..., 1:, :] - middle) - better.unsqueeze(-1) * (y[..., :-1, :] - middle)
    return change, torch.maximum(better, worse) * _diameter(responses).unsqueeze(-1)


def ranking_bound(
    prediction: Float[Tensor, "*batch d"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
    shown: Float[Tensor, "*batch N"],
) -> Float[Tensor, "*batch"]:
    r"""Bound of how far apart the directions of two rankings are, by `rewards` and by `shown`.

    The diameter times $\sum_i \big(1 - w(S_i \cap S_i') / \max(w(S_i), w(S_i'))\big)$, the total variations of the softmax
    over the sets of remaining candidates; for one swap of neighbours it is the bound of `swap_changes`.
    """
    logits = squared_distance_reward(prediction, responses).unsqueeze(-2)
    rank = torch.arange(logits.shape[-1]).unsqueeze(-1)
    sets = [ranking(r).argsort(-1).unsqueeze(-2) >= rank for r in (rewards, shown)]
    first, second, both = (
        logits.masked_fill(~inside, -torch.inf).logsumexp(-1) for inside in (*sets, sets[0] & sets[1])
    )
    return _diameter(responses) * (1 - (both - torch.maximum(first, second)).exp()).sum(-1)


def kendall_distance(
    rewards: Float[Tensor, "*batch N"], shown: Float[Tensor, "*batch N"]
) -> Int[Tensor, "*batch"]:
    """Pairs that two rankings order differently: the swaps of neighbours that lead from one to the other."""
    signs = [(values.unsqueeze(-1) - values.unsqueeze(-2)).sign() for values in (rewards, shown)]
    return (signs[0] * signs[1] < 0).sum((-2, -1)) // 2


def rank_weights(N: int) -> Float[Tensor, " N"]:
    r"""Weights $1 - (H_N - H_{N - i})$ of rank i in the direction at equal logits; H: harmonic numbers. Their sum is 0."""
    return 1 - (1 / torch.arange(checks.whole("N", N, 2), 0, -1, dtype=torch.float64)).cumsum(0)


def _probability(p: float) -> float:
    if isinstance(p, bool) or not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p!r}")
    return float(p)


def shown_rewards(
    rewards: Float[Tensor, "*batch N"], p: float, generator: torch.Generator, kind: str = "replace"
) -> Float[Tensor, "*batch N"]:
    """What the critic says: each reward replaced by a fresh U(0, 1), or flipped to 1 - r, with probability p."""
    checks.one_of("kind", kind, KINDS)
    chance, fresh = torch.rand(2, *rewards.shape, generator=generator, dtype=torch.float64)
    return torch.where(chance < _probability(p), fresh if kind == "replace" else 1 - rewards, rewards)


def reversal_probability(
    gap: Float[Tensor, "*batch"], p: float, kind: str = "replace"
) -> Float[Tensor, "*batch"]:
    r"""Probability that two rewards `gap` apart are shown in the wrong order.

    Replacement: $p (1 - p)(1 - g) + p^2 / 2$. Flips: p whatever the rewards, as of the two single flips exactly one
    turns the order round.
    """
    p = _probability(p)
    if checks.one_of("kind", kind, KINDS) == "flip":
        return torch.full_like(gap, p)
    return p * (1 - p) * (1 - gap) + p * p / 2


def _levels(r: Float[Tensor, " N"], p: float, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """The law of each shown reward, on a grid of values t.

    Returns:
        weights (T, N) that response k is shown at t; the probabilities (T, N) that another is shown below t, and above.
        The atoms are exact. On the pieces of [0, 1] between two rewards all is a polynomial in t of degree N - 1, for
        which Gauss-Legendre with more than N/2 nodes a piece is exact.
    """
    eye = torch.eye(len(r), dtype=r.dtype)
    if kind == "flip":
        t = torch.cat([r, 1 - r]).unsqueeze(-1)
        plain, mirrored = ((values <= t).to(r.dtype) for values in (r, 1 - r))
        below, above = ((1 - p) * a + p * b for a, b in ((plain, mirrored), (1 - plain, 1 - mirrored)))
        return torch.cat([(1 - p) * eye, p * eye]), below, above
    ends = torch.cat([r.new_zeros(1), r.sort().values, r.new_ones(1)])
    x, gauss = (torch.as_tensor(v, dtype=r.dtype) for v in np.polynomial.legendre.leggauss(len(r) // 2 + 1))
    pieces = ends.diff().unsqueeze(-1)
    t = torch.cat([r, (ends[:-1].unsqueeze(-1) + pieces * (x + 1) / 2).flatten()]).unsqueeze(-1)
    spread = (p * pieces * gauss / 2).reshape(-1, 1).expand(-1, len(r))
    under = (r <= t).to(r.dtype)
    below, above = (1 - p) * under + p * t, (1 - p) * (1 - under) + p * (1 - t)
    return torch.cat([(1 - p) * eye, spread]), below, above


def expected_direction(
    prediction: Float[Tensor, " d"],
    responses: Float[Tensor, "N d"],
    rewards: Float[Tensor, " N"],
    p: float,
    kind: str = "replace",
    spacing: float = 0.25,
) -> Float[Tensor, " d"]:
    r"""Expected direction of the step over the errors of the critic, exact up to rounding, for one prompt.

    The rewards shown are independent, with distribution functions $F_j$. Given that response k is shown at t, each
    other one is a remaining candidate with probability $F_j(t)$, independently; with $1 / Z = \int_0^\infty e^{-z Z} dz$

    $$\mathbb E \sum_i m(S_i) = \sum_k \int dF_k(t) \int_0^\infty e^{-z w_k} \prod_{l \ne k} \phi_l
    \Big[ w_k y_k + \sum_{j \ne k} \frac{F_j e^{-z w_j}}{\phi_j} w_j y_j \Big] dz, \quad
    \phi_l = 1 - F_l(t) + F_l(t) e^{-z w_l}.$$

    Instead of N! rankings these are about N^3 terms a node of z. In $\log z$ the trapezoid rule converges
    exponentially: its error is of the order of $e^{-\pi^2 / h}$ at the spacing h (7e-18 at 0.25).

    Raises:
        ValueError: rewards outside (0, 1), tied, or with flips two of sum 1; logits over a range of more than
            `WIDEST`; p outside [0, 1].
    """
    checks.one_of("kind", kind, KINDS)
    p = _probability(p)
    ranking(torch.cat([rewards, 1 - rewards]) if kind == "flip" else rewards)
    if not ((rewards > 0) & (rewards < 1)).all():
        raise ValueError("rewards must lie in (0, 1), the range of the critic's random ones")
    logits = squared_distance_reward(prediction, responses)
    logits = logits - logits.max()
    if logits.min() < -WIDEST:
        raise ValueError(f"logits must lie within {WIDEST:g} of one another, got {-logits.min().item():.4g}")
    w, (weights, below, above) = logits.exp(), _levels(rewards, p, kind)
    nodes = torch.arange(-40, math.log(40) - logits.min().item() + spacing, spacing, dtype=w.dtype)
    z = nodes.exp()[:, None, None]
    factor = torch.logaddexp(above.log(), below.log() - z * w)  # log phi: nodes of z, values t, responses
    there = (below.log() - z * w - factor).exp()
    others = factor.sum(-1, keepdim=True) - factor
    own = weights * (others - z * w).exp() * (spacing * z)
    shares = own * (1 - there) * w + own.sum(-1, keepdim=True) * there * w
    return (1 - shares.sum((0, 1))) @ responses


def first_order(
    prediction: Float[Tensor, " d"], responses: Float[Tensor, "N d"], rewards: Float[Tensor, " N"]
) -> Float[Tensor, " d"]:
    r"""Slope in p at p = 0 of the expected direction under replacement.

    The response of rank a, its reward drawn anew, falls below rank b > a with probability $r_{\tau(b)}$ and rises above
    rank c < a with probability $1 - r_{\tau(c)}$; each passing is a swap of neighbours.
    """
    order = ranking(rewards)
    y, r = responses[order], rewards[order]
    logits, ranks, slope = squared_distance_reward(prediction, y), torch.arange(len(r)), 0 * prediction

    def mean(inside: Bool[Tensor, " N"]) -> Float[Tensor, " d"]:
        return logits.masked_fill(~inside, -torch.inf).softmax(-1) @ y

    for a in ranks:
        for b in ranks[a + 1 :]:
            slope += r[b] * (mean(ranks >= b) - mean((ranks > b) | (ranks == a)))
        for c in ranks[:a]:
            slope += (1 - r[c]) * (mean(ranks > c) - mean((ranks >= c) & (ranks != a)))
    return slope
