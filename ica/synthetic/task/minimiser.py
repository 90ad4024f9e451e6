r"""The exact minimiser of the squared-distance Plackett-Luce loss where responses have noise of their own (notebook "floor").

Number the n responses of a prompt best first and let $\delta_k = y_k - y_{k+1}$, $k < n$. The scores
$-\lVert \hat y - y_i \rVert^2$ differ by terms that are linear in the prediction, so

$$L(\hat y) = \sum_{i<n} \log \sum_{j \ge i} \exp \big( 2 \langle \hat y, y_j - y_i \rangle + \lVert y_i \rVert^2 - \lVert y_j \rVert^2 \big)$$

is convex, and $\nabla L = -2 \sum_k w_k \delta_k$, $w_k = \sum_{i \le k < j} \beta^i_j > 0$.

*Existence (ours).* L has a minimiser if and only if no v has $\langle v, \delta_k \rangle \ge 0$ for all k and $> 0$ for some. With such a v
$\langle v, \nabla L \rangle < 0$ everywhere. Without one, every unit vector v in the span of the $\delta_k$ has some
$\langle v, \delta_k \rangle < 0$, at most $-\epsilon$ by compactness, so that term k of L grows along v at a rate of at least
$2 \epsilon$ while no term falls below 0: L tends to infinity in the span, and has a minimiser there. L is constant along every v
that is orthogonal to all $\delta_k$, and strictly convex in their span: the minimiser is unique up to such v.

So there is none for $n \le d + 1$ responses in general position (the $\delta_k$ are independent, and some v has
$\langle v, \delta_k \rangle = 1$ for all k); and once there is one and the $\delta_k$ span $R^d$, more responses leave one.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse, special
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, ranking, remaining_weights, squared_distance_reward
from ica.synthetic.task.data import SyntheticBatch

TOLERANCE = 1e-12  # of the gradient, in units of the sum of the norms of its terms
MOST = 1000  # Newton steps; prompts of the sampler take 10 to 60
TOGETHER = 100  # prompts in one linear program


def ranked(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Float[Tensor, "batch n d"]:
    """The responses best first, float64; ValueError as `objectives.ranking` says, or for responses that are not finite."""
    tau = ranking(rewards, ties)
    return checks.finite("responses", responses).double().gather(-2, tau.unsqueeze(-1).expand_as(responses))


def exists(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Bool[Tensor, " batch"]:
    r"""Whether the loss of these n responses has a minimiser, by a linear program (HiGHS).

    With $\delta_k$ scaled to norm 1, maximise $\sum_k \langle v, \delta_k \rangle$ subject to
    $0 \le \langle v, \delta_k \rangle \le 1$. A v as in the module's theorem, scaled so that its largest product is 1, is feasible with a
    value of at least 1; without one the value is 0. So it is compared with 1/2, far from the solver's tolerance of 1e-7.

    Raises:
        ValueError: as `ranked` says. RuntimeError: the solver gives up.
    """
    steps = torch.nn.functional.normalize(-ranked(responses, rewards, ties).diff(dim=1), dim=-1)
    values = [torch.zeros(0, dtype=torch.float64)]
    for part in steps.split(TOGETHER):
        rows = sparse.block_diag(list(part.numpy()), format="csr")
        bounds = np.repeat([1.0, 0.0], rows.shape[0])
        both = sparse.vstack([rows, -rows])
        found = optimize.linprog(-rows.sum(0), both, bounds, bounds=(None, None), method="highs")
        if found.status != 0:
            raise RuntimeError(f"the linear program must be solved, HiGHS says: {found.message}")
        values.append(torch.from_numpy(rows @ found.x).view(part.shape[:2]).sum(-1))
    return torch.cat(values) < 0.5


def first_existing(
    responses: Float[Tensor, "batch N d"], rewards: Float[Tensor, "batch N"], ties: str = "error"
) -> Int[Tensor, " batch"]:
    r"""The least n at which the loss of the first n responses has a minimiser, N + 1 if that of all N has none.

    By bisection, as a minimiser that is unique stays: for responses in general position, of more than d + 1 none below d + 2.

    Raises:
        ValueError: as `ranked` says.
    """
    batch, N, d = responses.shape
    checks.whole("N", N, 2)
    lo, hi = torch.full((batch,), min(d + 1, N)), torch.full((batch,), N + 1)
    while (hi - lo > 1).any():
        middle = (lo + hi) // 2
        for n in middle[hi - lo > 1].unique().tolist():
            asked = (middle == n) & (hi - lo > 1)
            found = exists(responses[asked, :n], rewards[asked, :n], ties)
            hi[asked], lo[asked] = torch.where(found, n, hi[asked]), torch.where(found, lo[asked], n)
    return hi


def expansion(
    prediction: Float[Tensor, "batch d"], best_first: Float[Tensor, "batch n d"]
) -> tuple[
    Float[Tensor, " batch"], Float[Tensor, "batch d"], Float[Tensor, "batch d d"], Float[Tensor, " batch"]
]:
    r"""Loss (nats), gradient and Hessian at a prediction, and the sum of the norms of the gradient's terms.

    $\nabla L = 2 \sum_i q_i$, $q_i = \sum_{j>i} \beta^i_j (y_j - y_i)$, and $\nabla^2 L = 4 \sum_i \sum_{j>i} \beta^i_j (y_j - y_i)(y_j - y_i)^\top
    - q_i q_i^\top$: sums over $j > i$ alone, so that they keep their relative accuracy where all weights are small.
    """
    y = best_first - best_first.mean(1, keepdim=True)
    scores = squared_distance_reward(prediction, best_first)
    worse = remaining_weights(scores).triu(1)
    share, pulled, first = worse.sum(-1), worse @ y, y[:, :-1]
    q = pulled - share.unsqueeze(-1) * first
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)[:, 1:]
    loss = torch.nn.functional.softplus(rest - scores[:, :-1]).sum(-1)
    cross = first.mT @ pulled
    curvature = y.mT @ (worse.sum(1).unsqueeze(-1) * y) - cross - cross.mT
    curvature = curvature + first.mT @ (share.unsqueeze(-1) * first) - q.mT @ q
    return loss, 2 * q.sum(1), 4 * curvature, 2 * q.norm(dim=-1).sum(-1)


def minimiser(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Float[Tensor, "batch d"]:
    r"""The prediction that minimises the loss, float64, by damped Newton steps from 0.

    A step solves $(\nabla^2 L + \kappa M \lVert \nabla L \rVert I)\, h = -\nabla L$ with M twice the largest distance between responses. At
    $\kappa = 1$ it always lowers the loss (Doikov 2023, the loss is quasi-self-concordant); $\kappa$ is divided by 4 after a step
    that did, multiplied by 4 (up to 1) after one that did not. It ends at a gradient of 1e-12 of the sum of the norms of its terms.
    Where the $\delta_k$ do not span $R^d$, the minimiser that lies in their span.

    Raises:
        ValueError: a prompt whose loss has no minimiser (the first is named), or as `ranked` says.
        RuntimeError: no convergence.
    """
    best_first = ranked(responses, rewards, ties)
    if not (found := exists(responses, rewards, ties)).all():
        raise ValueError(
            f"every prompt must have a minimiser, but the loss of prompt {int((~found).nonzero()[0])} has none "
            f"({int((~found).sum())} of {len(found)} prompts): it falls for ever along some direction"
        )
    return _newton(best_first)


def _newton(best_first: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch d"]:
    steps = best_first.diff(dim=1)
    span = torch.linalg.pinv(steps) @ steps
    reach = 2 * torch.cdist(best_first, best_first).amax((1, 2))
    prediction, identity = torch.zeros_like(best_first[:, 0]), torch.eye(best_first.shape[-1]).double()
    left, damping = torch.arange(len(best_first)), torch.ones(len(best_first), dtype=torch.float64)
    loss, gradient, hessian, terms = expansion(prediction, best_first)
    for _ in range(MOST):
        size = gradient.norm(dim=-1)
        open_ = size > TOLERANCE * terms
        if not open_.any():
            return prediction
        left = left[open_]
        state = (loss[open_], gradient[open_], hessian[open_], terms[open_])
        ridge = (damping[left] * reach[left] * size[open_])[:, None, None] * identity
        step = torch.linalg.solve(state[2] + ridge, -state[1].unsqueeze(-1))
        tried = prediction[left] + (span[left] @ step).squeeze(-1)
        new = expansion(tried, best_first[left])
        # within rounding of the loss, the gradient decides
        level = (new[0] - state[0]).abs() <= 1e-13 * (1 + state[0])
        lower = torch.where(level, new[1].norm(dim=-1) < size[open_], new[0] < state[0])
        prediction[left] = torch.where(lower.unsqueeze(-1), tried, prediction[left])
        damping[left] = torch.where(lower, damping[left] / 4, (damping[left] * 4).clamp(max=1))
        loss, gradient, hessian, terms = (
            torch.where(lower.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(new, state, strict=True)
        )
    raise RuntimeError(f"Newton's method must converge within {MOST} steps; {len(left)} prompts did not")
