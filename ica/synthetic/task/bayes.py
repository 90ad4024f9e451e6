r"""The Bayes-optimal prediction where each response has noise of its own, in closed form, and its error.

Given the query, $y^*$ and the distractors $e_i$ are independent $N(0, \lVert x \rVert^2 I)$, so that
$y_i = r_i y^* + (1 - r_i) e_i$ is a noisy observation of $y^*$ with precision
$u_i = r_i^2 / (1 - r_i)^2$ in units of the prior's (ours, from the sampler of App. C.1). As
$P(u > v) \approx v^{-1/2}$, the best few responses carry nearly all there is to know: the error falls
like $2 / (\pi n^2)$, that of best-of-n as fast, that of a mean with equal weights like $1 / n$.
"""

import math

from jaxtyping import Float
from scipy import integrate
from torch import Tensor

from ica import checks
from ica.synthetic.task.data import SyntheticBatch

NEAREST = 1 - 2**-25  # rewards above it are 1 in float32


def precisions(rewards: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    r"""$u_i = r_i^2 / (1 - r_i)^2$ in units of the prior precision.

    A reward of 1, which float32 makes of one within 2^-25 of it, counts as 1 - 2^-25.

    Raises:
        ValueError: a reward outside [0, 1].
    """
    checks.finite("rewards", rewards)
    if rewards.numel() and not ((rewards >= 0) & (rewards <= 1)).all():
        raise ValueError(f"rewards must lie in [0, 1], got {rewards.min():.3g} to {rewards.max():.3g}")
    r = rewards.double().clamp(max=NEAREST)
    return (r / (1 - r)).square().to(rewards.dtype)


def _own(batch: SyntheticBatch, n: int) -> None:
    if batch.noise != "own":
        raise ValueError("batch must have own noise, got shared noise")
    if checks.whole("n", n, 0) > (N := batch.responses.shape[1]):
        raise ValueError(f"n must be at most N = {N}, got {n}")


def _mean(r: Float[Tensor, "batch n"], y: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch d"]:
    weights = r / (1 - r).square()
    return (weights.unsqueeze(-1) * y.double()).sum(1) / (1 + precisions(r).sum(-1, keepdim=True))


def posterior_mean(batch: SyntheticBatch, n: int) -> Float[Tensor, "batch d"]:
    r"""$\sum_i r_i y_i / (1 - r_i)^2$ over $1 + \sum_i u_i$, i over the first n triplets; 0 for n = 0.

    Raises:
        ValueError: n outside 0 to N, shared noise (where two triplets determine the target), or as
            `precisions` says.
    """
    _own(batch, n)
    r = batch.rewards[:, :n].double()
    precisions(r)
    return _mean(r.clamp(max=NEAREST), batch.responses[:, :n]).to(batch.responses.dtype)


def from_order(batch: SyntheticBatch, n: int) -> Float[Tensor, "batch d"]:
    r"""`posterior_mean` with k / (n + 1) for the k-th lowest of the n rewards, its mean given the order.

    It reads the order of the rewards alone, as the Plackett-Luce loss does; the best
    prediction from the order is at least as good.

    Raises:
        ValueError: n outside 0 to N, shared noise.
    """
    _own(batch, n)
    ranks = batch.rewards[:, :n].argsort(-1).argsort(-1)
    return _mean((ranks + 1).double() / (n + 1), batch.responses[:, :n]).to(batch.responses.dtype)


def expected_best_of_n(n: int) -> float:
    r"""Normalised MSE of the best of n responses, $2\, \mathbb E (1 - \max_i r_i)^2 = 4 / ((n + 1)(n + 2))$.

    The best is off by $(1 - r)(e - y^*)$, and $\mathbb E \lVert e - y^* \rVert^2$ is twice
    $\mathbb E \lVert y^* \rVert^2$: the same in every dimension, for own and for shared noise.

    Raises:
        ValueError: n < 1.
    """
    checks.whole("n", n, 1)
    return 4 / ((n + 1) * (n + 2))


def expected_error(n: int) -> float:
    r"""Normalised MSE of `posterior_mean` after n triplets: $\mathbb E [1 / (1 + \sum_{i \le n} u_i)]$.

    By $1 / (1 + S) = \int_0^\infty e^{-t (1 + S)} dt$ it is $\int_0^\infty e^{-t} \varphi(t)^n dt$ with
    $\varphi(t) = \mathbb E\, e^{-t u}$, two nested quadratures; the same in every dimension.
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
