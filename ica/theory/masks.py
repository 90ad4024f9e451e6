r"""What a mask costs a head: its width, the size of its features, and its error, one against another (ours).

A mask adds $-\Psi(\lambda_i)^\top \Phi(r_j)$ to the score of query i and key j. It has K pairs of features,
leaves an error of at most $\kappa_0$ (the leak) on remaining keys, $r_j \le \lambda_i$, and takes at least
$\kappa_1$ (the strength) from keys with $r_j \ge \lambda_i + g$. Its magnitude is $\Gamma = \max \lVert \Psi
\rVert \max \lVert \Phi \rVert$. J is the number of gaps g that fit into the spread of rewards. Theorem and
proof stand in the notebook "What a mask costs".
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from ica import checks


def _sizes(J: int, K: int, leak: float, strength: float) -> None:
    checks.whole("J", J, 1)
    if checks.whole("K", K, 1) > J:
        raise ValueError(f"K must be at most J = {J}, got {K}")
    if checks.positive("strength", strength) <= checks.positive("leak", leak):
        raise ValueError(f"strength must be above leak = {leak}, got {strength}")


def least_magnitude(J: int, K: int, leak: float, strength: float) -> float:
    r"""Lower bound of the theorem on $\log_{10} \Gamma$, for any K pairs of features.

    Raises:
        ValueError: K not from 1 to J, leak or strength not positive, strength not above leak.
    """
    _sizes(J, K, leak, strength)
    rest = 1 - 1 / K
    constant = math.sqrt(K) * (rest ** (-(K - 1) / 2) if K > 1 else 1.0)
    start = K * rest**J * (leak / strength) ** 2
    growth = J / K * math.log10(strength / (constant * leak))
    return 0.5 * math.log10(K / (1 + start)) + math.log10(leak) + growth


def window_magnitude(J: int, K: int, leak: float, strength: float) -> float:
    r"""Bound on $\log_{10} \Gamma$ of `window_mask`, in the same units; ValueError as `least_magnitude`."""
    _sizes(J, K, leak, strength)
    ratio = math.log10(strength / leak)
    return 0.5 * math.log10(K) + math.log10(leak) + math.ceil(J / K) * ratio


def window_mask(
    J: int, K: int, leak: float, strength: float, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "J K"], Float[Tensor, "J K"]]:
    r"""Features of the mask that meets the bound: exponentials in K windows of levels.

    Row i of the first belongs to the limit $r_0 + i g$, row j of the second to the reward $r_0 + (j + 1) g$.
    With $\rho = \kappa_1 / \kappa_0$ and windows of n levels, $\Psi_b$ falls as $\rho^{-i}$ in window b and
    is 0 elsewhere, and $\Phi_b$ is 0 below the window, rises as $\kappa_0 \rho^j$ in it and stays there. Both
    are centred, so that neither is very large.

    Raises:
        ValueError: as `least_magnitude`; features beyond the range of `dtype`.
    """
    _sizes(J, K, leak, strength)
    n, ratio = math.ceil(J / K), math.log10(strength / leak)
    first = torch.arange(K, dtype=torch.float64) * n
    level = torch.arange(J, dtype=torch.float64).unsqueeze(-1) - first
    inside, above = (level >= 0) & (level < n), level >= 0
    half = 0.5 * n * ratio
    limits = torch.where(inside, 10 ** (half - ratio * level), 0.0)
    rewards = torch.where(above, leak * 10 ** (ratio * (level + 1).clamp(max=n) - half), 0.0)
    finite = torch.finfo(checks.dtype("dtype", dtype))
    for features in (limits, rewards):
        sizes = features[features > 0]
        if not (sizes.min() >= finite.tiny and sizes.max() <= finite.max):
            raise ValueError(f"K must be larger for features within the range of {dtype}, got {K}")
    return limits.to(dtype), rewards.to(dtype)


def levels(rewards: Float[Tensor, "batch N"], low: float, gap: float, J: int) -> tuple[Tensor, Tensor]:
    """Level of each reward as a limit (0 to J) and as a reward (-1 to J - 1: row of `window_mask`).

    Rounding down by the gap: two rewards a gap apart differ in level, and a smaller one has none that is
    larger.
    """
    level = ((rewards - low) / checks.positive("gap", gap)).floor().long().clamp(0, J)
    return level, level - 1


def masked_direction(
    prediction: Float[Tensor, "batch d"],
    y: Float[Tensor, "batch N d"],
    mask: Float[Tensor, "batch N N"],
) -> Float[Tensor, "batch d"]:
    r"""Half of the step over eta that the heads of constant depth take with this mask.

    That is $\sum_i (y_i - \sum_j a_{ij} y_j)$.
    $a_{ij}$ is the softmax over j of $2 \hat y^\top y_j - \lVert y_j \rVert^2$ less the mask of limit $r_i$
    and reward $r_j$.
    """
    scores = 2 * (y @ prediction.unsqueeze(-1)).mT - y.square().sum(dim=-1).unsqueeze(1)
    return (y - (scores - mask).softmax(dim=-1) @ y).sum(dim=1)


def rewards_mask(
    rewards: Float[Tensor, "batch N"],
    low: float,
    gap: float,
    features: tuple[Float[Tensor, "J K"], Float[Tensor, "J K"]],
) -> Float[Tensor, "batch N N"]:
    """The mask of every limit (rows) on every reward (columns) of a prompt, from features of each level."""
    limits, keys = features
    J, K = limits.shape
    nothing = torch.zeros(1, K, dtype=limits.dtype)
    limit, reward = levels(rewards, low, gap, J)
    psi = torch.cat([limits, nothing])[limit]
    phi = torch.cat([nothing, keys])[reward + 1]
    return psi @ phi.mT


def searched_magnitude(J: int, K: int, strength: float, tries: int, seed: int) -> float:
    r"""Least $\log_{10} \Gamma$ that a search over all features of J levels finds, leak 1.

    SLSQP from windows and from disturbed windows.

    Raises:
        ValueError: as `least_magnitude`; tries below 1.
    """
    limits, keys = (part.numpy() for part in window_mask(J, K, 1.0, strength))
    below = np.tril(np.ones((J, J), dtype=bool), k=-1)  # limit i, reward j + 1: remaining if j + 1 <= i
    n, rng, best = J * K, np.random.default_rng(seed), window_magnitude(J, K, 1.0, strength)

    def slack(x):
        psi, phi = x[:n].reshape(J, K), x[n : 2 * n].reshape(J, K)
        mask, most = psi @ phi.T, np.exp(x[-1])
        far = [1 - np.square(part).sum(axis=1) / most for part in (psi, phi)]
        return np.concatenate([1 - mask[below], 1 + mask[below], mask[~below] / strength - 1, *far])

    balance = [part * 10 ** (best / 2) / np.linalg.norm(part, axis=1).max() for part in (limits, keys)]
    start = np.append(np.concatenate([part.ravel() for part in balance]), best * np.log(10))
    for attempt in range(checks.whole("tries", tries, 1)):
        x = start * (1 + 0.3 * (attempt > 0) * rng.normal(size=start.shape))
        rule = {"type": "ineq", "fun": slack}
        found = minimize(lambda x: x[-1], x, constraints=rule, method="SLSQP", options={"maxiter": 300})
        if slack(found.x).min() > -1e-7:
            best = min(best, found.x[-1] / np.log(10))
    return float(best)
