r"""What one attention layer of H softmax heads cannot do for many responses (ours).

Only the reward of one response, the probe, moves through the gaps between the others; everything else stays.
At another token each head then gives one logistic function of that reward, whatever N is, while the
Plackett-Luce step changes sign with each rank of the probe. Theorem and proof stand in the notebook "How many
heads?".
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from torch import Tensor

from ica import checks
from ica.theory.prompts import Prompts


def most_signs(heads: int, before: int = 0, after: int = 0) -> int:
    r"""Most sign changes of an output coordinate of one layer, $Z_H = 2^{H+1} - 2$ without an FFN.

    With an FFN of `before` hidden units on the tokens and one of `after` units behind the attention, by the
    pieces that they cut the line into: $(F_0 + 1)(F Z_H + 1) Z_H$.
    """
    B = 2 ** (checks.whole("heads", heads, 1) + 1) - 2
    return (checks.whole("before", before, 0) + 1) * (checks.whole("after", after, 0) * B + 1) * B


def one_layer_bound(
    heads: int, size: float, eta: float, before: int = 0, after: int = 0
) -> tuple[int, float]:
    r"""Responses from which on the layer must err on `probe_prompts`, and by how much (a norm) at least.

    That is $N_0$, two more than `most_signs`, and $\eta \rho / (N_0 - 1)$, $\rho$ the size. ValueError if size or
    eta is not positive.
    """
    m = most_signs(heads, before, after) + 2
    return m, checks.positive("eta", eta) * checks.positive("size", size) / (m - 1)


def probe_prompts(W: Float[Tensor, "d p"], N: int, size: float) -> Prompts:
    r"""N prompts, to be read at their first token, that differ in the reward of the last response only: the probe.

    The others stand at $\pm \rho v$ by turns, $v \perp W x$, with rewards 0, 1, ..., N - 2 over N - 1; the
    probe stands where $v$ does not see it, as far from $W x$ as they do. In prompt q it ranks above q of
    them, half a gap from each neighbour.

    Raises:
        ValueError: N < 3, W with fewer than two rows or not finite, size not positive.
    """
    checks.finite("W", checks.shape("W", W, (None, None)))
    d, p = W.shape
    if d < 2:
        raise ValueError(f"W must have at least two rows, got {d}")
    query = torch.eye(p, dtype=W.dtype)[0]
    start = W @ query
    v = torch.linalg.svd(start.unsqueeze(0)).Vh[-1]
    aside = torch.linalg.svd(v.unsqueeze(0)).Vh[-1]
    signs = (-1.0) ** torch.arange(checks.whole("N", N, 3) - 1, dtype=W.dtype)
    others = checks.positive("size", size) * signs.unsqueeze(-1) * v
    probe = start + (start.norm() ** 2 + size**2).sqrt() * aside
    ladder = torch.arange(N - 1, dtype=W.dtype) / (N - 1)
    moving = (torch.arange(N, dtype=W.dtype) - 0.5) / (N - 1)
    rewards = torch.cat([ladder.expand(N, -1), moving.unsqueeze(-1)], dim=-1)
    responses = torch.cat([others, probe.unsqueeze(0)])
    return Prompts(query.expand(N, -1), responses.expand(N, -1, -1), rewards)


def wanted(N: int) -> Float[np.ndarray, " N"]:
    r"""Step on `probe_prompts` along v, in units of $2 \eta \rho$, less what does not depend on the rank of the probe.

    Minus the partial sums of $1 - 1/2 + 1/3 - \dots$, from none to N - 1 terms.
    """
    terms = 1 / np.arange(1, checks.whole("N", N, 3))
    return -np.append(0.0, np.cumsum(terms * (-1.0) ** np.arange(N - 1)))


def searched_error(N: int, heads: int, tries: int, seed: int) -> float:
    r"""Least largest error on `probe_prompts`, in units of $2 \eta \rho$, that a search over all layers of `heads` heads finds.

    A layer gives $b + \sum_h (u_h r + w_h)\, \sigma(a_h r + c_h)$ in the reward r of the probe, and every
    such function is that of a layer. b, u, w are fitted by least squares inside, a and c outside, with
    weights that move to the largest errors.
    """
    goal, t = wanted(N), np.linspace(-1, 1, N)
    rng, best = np.random.default_rng(seed), np.inf

    def missed(p: np.ndarray, weight: np.ndarray) -> np.ndarray:
        z = np.clip(p[:heads] * t[:, None] + p[heads:], -500, 500)
        gates = 1 / (1 + np.exp(-z))
        basis = np.hstack([np.ones((N, 1)), gates, gates * t[:, None]])
        solved = np.linalg.lstsq(basis * weight[:, None], goal * weight, rcond=1e-12)[0]
        return goal - basis @ solved

    for _ in range(checks.whole("tries", tries, 1)):
        slope = rng.choice([-1, 1], heads) * np.exp(rng.uniform(-0.7, np.log(8 * N), heads))
        p, weight = np.append(slope, -slope * rng.uniform(-1.3, 1.3, heads)), np.ones(N)
        for _ in range(6):
            p = least_squares(lambda p, w: missed(p, w) * w, p, args=(weight,), max_nfev=60).x
            off = np.abs(missed(p, weight))
            best = min(best, off.max())
            if best < 1e-9:
                return float(best)
            weight = weight * np.sqrt(np.maximum(off, 1e-3 * off.max()) / off.mean())
            weight /= weight.mean()
    return float(best)
