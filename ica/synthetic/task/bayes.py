r"""The Bayes-optimal prediction where each response has noise of its own, in closed form, and its error.

Given the query, $y^*$ and the distractors $e_i$ are independent $N(0, \lVert x \rVert^2 I)$, so that $y_i = r_i y^* + (1 - r_i) e_i$ is a
noisy observation of $y^*$ with precision $\lambda_i = r_i^2 / (1 - r_i)^2$ in units of the prior's (ours, from the sampler of App. C.1).
"""

import math

from jaxtyping import Float
from scipy import integrate
from torch import Tensor

from ica import checks
from ica.synthetic.task.data import SyntheticBatch


def precisions(rewards: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    r"""$\lambda_i = r_i^2 / (1 - r_i)^2$ in units of the prior precision; ValueError for a reward outside [0, 1)."""
    checks.finite("rewards", rewards)
    if rewards.numel() and not ((rewards >= 0) & (rewards < 1)).all():
        raise ValueError(f"rewards must lie in [0, 1), got {rewards.min():.3g} to {rewards.max():.3g}")
    return (rewards / (1 - rewards)).square()


def posterior_mean(batch: SyntheticBatch, n: int) -> Float[Tensor, "batch d"]:
    r"""$\sum_i r_i y_i / (1 - r_i)^2$ over $1 + \sum_i \lambda_i$, i over the first n triplets; 0 for n = 0.

    Raises:
        ValueError: n outside 0 to N, shared noise (where two triplets determine the target), or as `precisions` says.
    """
    N = batch.responses.shape[1]
    if batch.noise != "own":
        raise ValueError("batch must have own noise, got shared noise")
    if checks.whole("n", n, 0) > N:
        raise ValueError(f"n must be at most N = {N}, got {n}")
    r, y = batch.rewards[:, :n].double(), batch.responses[:, :n].double()
    weights = r / (1 - r).square()
    total = 1 + precisions(r).sum(-1, keepdim=True)
    return ((weights.unsqueeze(-1) * y).sum(1) / total).to(batch.responses.dtype)


def expected_error(n: int) -> float:
    r"""Normalised MSE of the Bayes-optimal prediction after n triplets: $\mathbb E [1 / (1 + \sum_{i \le n} \lambda_i)]$.

    By $1 / (1 + S) = \int_0^\infty e^{-t (1 + S)} dt$ it is $\int_0^\infty e^{-t} \varphi(t)^n dt$ with
    $\varphi(t) = \mathbb E\, e^{-t \lambda}$, two nested quadratures; the same in every dimension.
    """
    checks.whole("n", n, 0)

    def transform(t: float) -> float:
        return integrate.quad(
            lambda r: math.exp(-t * (r / (1 - r)) ** 2) if r < 1 else 0.0, 0, 1, epsabs=1e-11
        )[0]

    # in u = e^-t, and t from large values, where the transform falls like 1 / sqrt(t)
    return integrate.quad(
        lambda s: 2 * s * math.exp(-s * s) * transform(s * s) ** n, 0, 8, epsabs=1e-10, limit=200
    )[0]
