r"""The exact minimiser of the squared-distance Plackett-Luce loss, and where descent goes without one.

For the notebooks "minimiser" (theorems, proofs) and "floor" (the synthetic task).

Number the n responses of a prompt best first and let $\delta_k = y_k - y_{k+1}$, $k < n$. The scores
$-\lVert \hat y - y_i \rVert^2$ differ by terms that are linear in the prediction, so

$$L(\hat y) = \sum_{i<n} \log \sum_{j \ge i}
\exp \big( 2 \langle \hat y, y_j - y_i \rangle + \lVert y_i \rVert^2 - \lVert y_j \rVert^2 \big)$$

is convex, and $\nabla L = -2 \sum_k w_k \delta_k$, $w_k = \sum_{i \le k < j} \beta^i_j > 0$.

*Existence (ours).* L has a minimiser if and only if no v has $\langle v, \delta_k \rangle \ge 0$ for all k
and $> 0$ for some; it is unique up to vectors orthogonal to all $\delta_k$, along which L is constant. So
there is none for $n \le d + 1$ responses in general position (the $\delta_k$ are independent, and some v has
$\langle v, \delta_k \rangle = 1$ for all k); and once there is one and the $\delta_k$ span $R^d$, more
responses leave one.

*Descent (ours).* Where some v has all $\langle v, \delta_k \rangle > 0$, gradient descent with a stable step
stays within $C (1 + \sqrt{\log T})$ of $\tfrac12 \log T\, v^*$, $v^*$ the shortest v with all products at
least 1, and almost surely within a constant: its direction is that of the largest margin
$1 / \lVert v^* \rVert$.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, ranking, remaining_weights

TOLERANCE = 1e-12  # of the gradient, in units of the sum of the norms of its terms
REACH = 10.0
MOST = 1000  # Newton steps; prompts of the sampler take 10 to 80
TOGETHER = 100  # prompts in one linear program


def ranked(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Float[Tensor, "batch n d"]:
    """The responses best first, float64; ValueError as `objectives.ranking` says, or for one not finite."""
    tau = ranking(rewards, ties)
    return checks.finite("responses", responses).double().gather(-2, tau.unsqueeze(-1).expand_as(responses))


def exists(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Bool[Tensor, " batch"]:
    r"""Whether the loss of these n responses has a minimiser, by a linear program (HiGHS).

    With $\delta_k$ scaled to norm 1, maximise $\sum_k \langle v, \delta_k \rangle$ subject to
    $0 \le \langle v, \delta_k \rangle \le 1$. A v as in the module's theorem, scaled so that its largest
    product is 1, is feasible with a value of at least 1; without one the value is 0. So it is compared with
    1/2, far from the solver's tolerance of 1e-7.

    Raises:
        ValueError: as `ranked` says.
        RuntimeError: the solver gives up.
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
    r"""The least n at which the loss of the first n responses has a minimiser; N + 1: at none up to N.

    By bisection from d + 2 on, for responses in general position: below there is none, and then it stays.

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
    prediction: Float[Tensor, "batch d"],
    best_first: Float[Tensor, "batch n d"],
    weights: Float[Tensor, " terms"] | None = None,
) -> tuple[
    Float[Tensor, " batch"], Float[Tensor, "batch d"], Float[Tensor, "batch d d"], Float[Tensor, " batch"]
]:
    r"""Loss (nats), gradient and Hessian at a prediction, and the sum of the norms of the gradient's terms.

    $\nabla L = 2 \sum_i q_i$, $q_i = \sum_{j>i} \beta^i_j (y_j - y_i)$, and $\nabla^2 L = 4 \sum_i \sum_{j>i}
    \beta^i_j (y_j - y_i)(y_j - y_i)^\top - q_i q_i^\top$: sums over $j > i$ alone, so that they keep their
    relative accuracy where all of them are small. `weights`: of the n - 1 terms, by default 1.
    """
    centre = best_first.mean(1, keepdim=True)
    y, moved = best_first - centre, prediction.unsqueeze(-1) - centre.mT
    scores = 2 * (y @ moved).squeeze(-1) - y.square().sum(-1)  # up to a term that all share
    each = scores.new_ones(scores.shape[-1] - 1) if weights is None else weights
    worse = each.unsqueeze(-1) * remaining_weights(scores).triu(1)
    share, pulled, first = worse.sum(-1), worse @ y, y[:, :-1]
    q = pulled - share.unsqueeze(-1) * first
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)[:, 1:]
    loss = torch.nn.functional.softplus(rest - scores[:, :-1]) @ each
    cross = first.mT @ pulled
    curvature = y.mT @ (worse.sum(1).unsqueeze(-1) * y) - cross - cross.mT
    curvature = curvature + first.mT @ (share.unsqueeze(-1) * first) - q.mT @ (q / each.unsqueeze(-1))
    return loss, 2 * q.sum(1), 4 * curvature, 2 * q.norm(dim=-1).sum(-1)


def minimiser(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> Float[Tensor, "batch d"]:
    r"""The prediction that minimises the loss, float64, by damped Newton steps from the mean response.

    A step h solves $(\nabla^2 L + \kappa M \lVert \nabla L \rVert I)\, h = -\nabla L$ with M twice the
    largest distance between responses. At $\kappa = 1$ it always lowers the loss, which is
    quasi-self-concordant (Doikov 2023); $\kappa$ is divided by 4 after a step that did, multiplied by 4 (up
    to 1) after one that did not. It ends at a gradient of 1e-12 of the sum of the norms of its terms. Where
    the $\delta_k$ do not span $R^d$, it is the minimiser in their span.

    Raises:
        ValueError: a prompt whose loss has no minimiser (the first is named), or as `ranked` says.
        RuntimeError: no convergence.
    """
    best_first = ranked(responses, rewards, ties)
    if not (found := exists(responses, rewards, ties)).all():
        raise ValueError(
            f"every prompt must have a minimiser, but {int((~found).sum())} of {len(found)} have none, first "
            f"prompt {int((~found).nonzero()[0])}, whose loss falls for ever along some direction"
        )
    return newton(best_first)


def newton(
    best_first: Float[Tensor, "batch n d"], weights: Float[Tensor, " terms"] | None = None
) -> Float[Tensor, "batch d"]:
    """As `minimiser`, of responses already ranked whose loss is known to have one.

    With positive `weights` of the terms, that of the weighted loss, which has one where the loss has.

    Responses far apart make the loss nearly piecewise linear: they are first drawn together to a distance of
    `REACH`, and then apart by factors of 2, each time from the minimiser before.
    """
    steps, centre = best_first.diff(dim=1), best_first.mean(1)
    span = torch.linalg.pinv(steps) @ steps
    y = best_first - centre.unsqueeze(1)
    widest = torch.cdist(y, y).amax((1, 2)) if len(y) else y.new_ones(0)
    factor = (REACH / widest).clamp(max=1).view(-1, 1, 1)
    found = _newton(factor * y, torch.zeros_like(y[:, 0]), span, weights)
    while (factor < 1).any():
        wider = (2 * factor).clamp(max=1)
        found = _newton(wider * y, (wider / factor).squeeze(-1) * found, span, weights)
        factor = wider
    return (span @ (found + centre).unsqueeze(-1)).squeeze(-1)


def _newton(
    y: Float[Tensor, "batch n d"],
    start: Float[Tensor, "batch d"],
    span: Float[Tensor, "batch d d"],
    weights: Float[Tensor, " terms"] | None,
) -> Float[Tensor, "batch d"]:
    reach = 2 * torch.cdist(y, y).amax((1, 2)) if len(y) else y.new_ones(0)
    prediction, identity = start.clone(), torch.eye(y.shape[-1], dtype=torch.float64)
    left, damping = torch.arange(len(y)), torch.ones(len(y), dtype=torch.float64)
    loss, gradient, hessian, terms = expansion(prediction, y, weights)
    for _ in range(MOST):
        size = gradient.norm(dim=-1)
        far = size > TOLERANCE * terms
        if not far.any():
            return prediction
        left, size = left[far], size[far]
        state = (loss[far], gradient[far], hessian[far], terms[far])
        ridge = damping[left] * reach[left] * size + 1e-15 * state[2].diagonal(dim1=1, dim2=2).sum(-1)
        step = torch.linalg.solve(state[2] + ridge[:, None, None] * identity, -state[1].unsqueeze(-1))
        tried = prediction[left] + (span[left] @ step).squeeze(-1)
        new = expansion(tried, y[left], weights)
        # within rounding of the scores, the gradient decides
        level = (new[0] - state[0]).abs() <= 1e-13 * (1 + reach[left] * tried.norm(dim=-1))
        lower = torch.where(level, new[1].norm(dim=-1) < size, new[0] < state[0])
        prediction[left] = torch.where(lower.unsqueeze(-1), tried, prediction[left])
        damping[left] = torch.where(lower, damping[left] / 4, (damping[left] * 4).clamp(max=1))
        loss, gradient, hessian, terms = (
            torch.where(lower.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(new, state, strict=True)
        )
    raise RuntimeError(f"Newton's method must converge within {MOST} steps; {int(far.sum())} prompts did not")


def runaway(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> tuple[Float[Tensor, "batch d"], Float[Tensor, " batch"]]:
    r"""Where there is no minimiser: the unit vector u of the largest margin, and the margin.

    The margin is $\min_k \langle u, \delta_k \rangle = 1 / \lVert v^* \rVert$,
    $u = v^* / \lVert v^* \rVert$, in units of the responses. Along u the loss falls to 0, its infimum.

    Raises:
        ValueError: as `shortest` says.
    """
    v = shortest(responses, rewards, ties)[0]
    return torch.nn.functional.normalize(v, dim=-1), 1 / v.norm(dim=-1)


def shortest(
    responses: Float[Tensor, "batch n d"], rewards: Float[Tensor, "batch n"], ties: str = "error"
) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch steps"]]:
    r"""The shortest v with all $\langle v, \delta_k \rangle \ge 1$, and its weights.

    $v = \sum_k \alpha_k \delta_k$; $\alpha_k \ge 0$ is 0 where the product exceeds 1. Non-negative least
    squares (Lawson and Hanson 1974, ch. 23).

    Raises:
        ValueError: a prompt without such a v (its loss has a minimiser, or falls only along directions that
            leave two responses level, for responses not in general position), or as `ranked` says.
    """
    steps = -ranked(responses, rewards, ties).diff(dim=1)
    scale = steps.norm(dim=-1).mean(-1)
    found = []
    for prompt, rows in enumerate((steps / scale[:, None, None]).numpy()):
        system, aim = np.vstack([rows.T, np.ones(len(rows))]), np.eye(rows.shape[1] + 1)[-1]
        weights, distance = optimize.nnls(system, aim)
        if distance < 1e-7:
            raise ValueError(
                "every prompt must have a direction along which each response beats the next, "
                f"but prompt {prompt} has none"
            )
        found.append(weights / (1 - weights.sum()))
    alpha = torch.from_numpy(np.array(found)) / scale.square().unsqueeze(-1)
    return (alpha.unsqueeze(-1) * steps).sum(1), alpha


def plain_descent(
    responses: Float[Tensor, "batch n d"],
    rewards: Float[Tensor, "batch n"],
    start: Float[Tensor, "batch d"],
    rate: Float[Tensor, " batch"],
    steps: int,
) -> Float[Tensor, "steps_and_start batch d"]:
    r"""Predictions of plain gradient descent on the loss (a sum over its terms), from the start on.

    A step of rate $\eta$ on W, $\hat y = W x$, moves the prediction by $-\eta \lVert x \rVert^2 \nabla L$:
    `rate` is $\eta \lVert x \rVert^2$. Below $2 / ((n - 1) D^2)$, D the largest distance between responses,
    no step raises the loss (its Hessian is at most $(n - 1) D^2$).

    Raises:
        ValueError: steps < 1, or as `ranked` says.
    """
    checks.whole("steps", steps, 1)
    path = [checks.finite("start", start)]
    for _ in range(steps):
        path.append(path[-1] + 2 * rate.unsqueeze(-1) * pl_direction(path[-1], responses, rewards))
    return torch.stack(path)


def long_descent(
    best_first: Float[Tensor, "batch n d"],
    start: Float[Tensor, "batch d"],
    rate: Float[Tensor, " batch"],
    at: list[int],
) -> Float[Tensor, "times batch d"]:
    """As `plain_descent`, of responses already ranked, kept at the rising step numbers `at` only.

    Raises:
        ValueError: `at` not rising whole numbers from 1 on.
    """
    if not at or [*at] != sorted({*at}) or checks.whole("the first of `at`", at[0], 1) < 1:
        raise ValueError(f"at must be step numbers that rise, got {at}")
    y, z, eta = best_first.numpy(), start.numpy().copy(), 2 * rate.numpy()[:, None, None]
    squares, terms = np.square(y).sum(-1), np.triu(np.ones(y.shape[1:2] * 2))[:-1]
    first = np.append(np.ones(y.shape[1] - 1), 0.0)
    kept = []
    for t in range(1, at[-1] + 1):
        logits = 2 * (y @ z[..., None])[..., 0] - squares
        odds = np.exp(logits - logits.max(1, keepdims=True))
        left = odds[:, ::-1].cumsum(1)[:, ::-1][:, :-1]
        pulls = first - odds * ((1 / left) @ terms)
        z += (eta * (pulls[:, None] @ y))[:, 0]
        if t == at[len(kept)]:
            kept.append(z.copy())
    return torch.from_numpy(np.stack(kept))


def stable_rate(responses: Float[Tensor, "batch n d"]) -> Float[Tensor, " batch"]:
    r"""$1 / ((n - 1) D^2)$, half of the rate below which `plain_descent` never raises the loss."""
    reach = torch.cdist(responses, responses).amax((1, 2))
    return 1 / ((responses.shape[1] - 1) * reach.square())


def orders(n: int, d: int) -> int:
    r"""How many of the n! orders of n points of $R^d$ in general position a linear function gives.

    $Q(n, d) = Q(n-1, d) + (n-1)\, Q(n-1, d-1)$ (Cover 1967). These rankings have no minimiser.
    """
    if checks.whole("n", n, 1) == 1:
        return 1
    return 2 if checks.whole("d", d, 1) == 1 else orders(n - 1, d) + (n - 1) * orders(n - 1, d - 1)


def share_without(n: int, d: int) -> float:
    r"""$Q(n, d) / n!$: share of prompts without minimiser where ranks say nothing of the responses.

    It is the probability of at most d - 1 successes in independent trials m = 3, ..., n with probabilities
    $1 - 1/m$ (ours).
    """
    law = np.eye(1, checks.whole("d", d, 1))[0]  # of 0, ..., d - 1 successes
    for m in range(3, checks.whole("n", n, 1) + 1):
        law = law / m + np.append(0.0, law[:-1]) * (1 - 1 / m)
    return float(law.sum())
