r"""What no training can beat: lower bounds on the error of imitating a gradient step, for two kinds of attention layer.

* Linear attention: every output of one layer is a combination of fixed monomials in the tokens, so least squares over all
  of them bounds the error of any number of heads; along a line of prompts it is a polynomial, so the best uniform
  approximation bounds it.
* One softmax head: four prompts on which no convex average of linear values can be right.

Propositions and proofs are ours; they stand in the notebooks "What linear attention cannot do" and "How many heads?".
One layer of several heads: `ica.theory.one_layer`.
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linprog
from torch import Tensor

from ica import checks
from ica.theory.imitation import Examples
from ica.theory.prompts import Prompts


def linear_attention_features(tokens: Float[Tensor, "batch N inputs"]) -> Float[Tensor, "batch N features"]:
    r"""All monomials that one layer of linear attention can combine at token i: $z_{ia} \sum_j z_{jb} z_{jc} / N$.

    $z_i$ is the token with a 1 put before it, so the embedding's bias and the residual stream are covered
    ($\sum_j 1 / N = 1$). A head with scores $z_i^\top S z_j / N$ and values $V z_j$ gives $V_{kc} S_{ab}$ times these monomials;
    many heads give sums of such, which are all linear maps.
    """
    batch, N, _ = tokens.shape
    z = torch.cat([torch.ones(batch, N, 1, dtype=tokens.dtype), tokens], dim=-1)
    moments = z.transpose(-2, -1) @ z / N
    b, c = torch.triu_indices(z.shape[-1], z.shape[-1])
    return (z.unsqueeze(-1) * moments[:, None, None, b, c]).flatten(-2)


def linear_attention_bound(examples: Examples) -> float:
    """Least relative error on these examples of any layer of linear attention: any heads, any width, no network.

    Raises:
        ValueError: fewer tokens than features, so that the bound would be empty.
    """
    features = linear_attention_features(examples.tokens.double()).flatten(0, 1)
    if len(features) <= features.shape[-1]:
        raise ValueError(
            f"examples must hold more tokens than the {features.shape[-1]} features, got {len(features)}"
        )
    N, d = examples.tokens.shape[1], examples.moved.shape[-1]
    wanted = examples.moved.double().repeat_interleave(N, dim=0)
    fitted = features @ torch.linalg.lstsq(features, wanted, driver="gelsd").solution
    return float(examples.relative_error(fitted.view(-1, N, d).to(examples.moved.dtype)))


def polynomial_bound(
    t: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"], degree: int
) -> tuple[float, Float[np.ndarray, " points"]]:
    """Largest error, over the points, of the best polynomial of a degree, and that polynomial's values there.

    A lower bound for the best uniform approximation on the interval of the points. Solved as a linear programme in
    Chebyshev polynomials.

    Raises:
        ValueError: fewer points than the degree needs, points and values of different length, not finite or all equal.
    """
    checks.whole("degree", degree, 0)
    if len(t) != len(values) or len(t) < degree + 2:
        raise ValueError(
            f"values must match t, with at least degree + 2 points; got {len(t)} and {len(values)}"
        )
    if not (np.isfinite(t).all() and np.isfinite(values).all() and np.ptp(t) > 0):
        raise ValueError("t and values must be finite, and t must not be all equal")
    basis = np.polynomial.chebyshev.chebvander(2 * (t - t.min()) / np.ptp(t) - 1, degree)
    slack = -np.ones((len(t), 1))
    solved = linprog(
        np.append(np.zeros(degree + 1), 1.0),
        A_ub=np.block([[basis, slack], [-basis, slack]]),
        b_ub=np.concatenate([values, -values]),
        bounds=[(None, None)] * (degree + 1) + [(0, None)],
        method="highs",
    )
    return float(solved.fun), basis @ solved.x[:-1]


def opposed_prompts(W: Float[Tensor, "d p"], N: int, size: float, direction: Float[Tensor, " d"]) -> Prompts:
    r"""Four prompts, to be read at their first token, on which a layer of one softmax head must err.

    The first response is $t v$, all others are $-t v$ (prompts 0, 1) or $t v$ as well (prompts 2, 3); its reward is the
    highest (0, 2) or the lowest (1, 3). Rewards are spaced evenly on [0, 1]. The query has unit norm and $v^\top W x = 0$, so
    all responses are equally far from the first prediction.

    Args:
        size: norm t of the responses.
        direction: v, made a unit vector.

    Raises:
        ValueError: W without two columns (no such query), N < 2, size not positive, direction zero or not finite.
    """
    checks.finite("W", checks.shape("W", W, (None, None)))
    d, p = W.shape
    if p < 2:
        raise ValueError(f"W must have at least two columns, got {p}")
    checks.finite("direction", checks.shape("direction", direction, (d,)))
    if not direction.norm() > 0:
        raise ValueError("direction must not be zero")
    v = direction.to(W.dtype) / direction.norm()
    query = torch.linalg.svd((v @ W).unsqueeze(0)).Vh[-1]
    signs = torch.ones(4, checks.whole("N", N, 2), dtype=W.dtype)
    signs[:2, 1:] = -1
    highest = torch.linspace(1, 0, N, dtype=W.dtype)
    rewards = torch.stack([highest, highest.flip(0)] * 2)
    return Prompts(query.expand(4, -1), checks.positive("size", size) * signs.unsqueeze(-1) * v, rewards)


def one_head_bound(N: int, size: float, eta: float) -> float:
    r"""Least error (a norm, in units of the response) of one softmax head on the worst of `opposed_prompts`.

    Half of the shorter of the two steps $4 \eta t (N-1)/N$ (own response best) and $4 \eta t \sum_{k=2}^N 1/k$ (own worst), for the
    blind direction of the head. With N = 2 that is half of the step.

    Raises:
        ValueError: N < 2, size or eta not positive.
    """
    harmonic = sum(1 / k for k in range(2, checks.whole("N", N, 2) + 1))
    return 2 * checks.positive("eta", eta) * checks.positive("size", size) * min((N - 1) / N, harmonic)


def blind_direction(reward_path: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """A unit vector at right angles to what a unit of reward adds to the output; ValueError if d < 2."""
    if len(checks.finite("reward_path", reward_path)) < 2:
        raise ValueError("reward_path must have at least two entries (d >= 2)")
    return torch.linalg.svd(reward_path.unsqueeze(0)).Vh[-1]
