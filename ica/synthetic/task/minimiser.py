r"""The exact minimiser of the squared-distance Plackett-Luce loss, responses off a line (notebook "floor").

Number the n responses of a prompt best first and let $\delta_k = y_k - y_{k+1}$, $k < n$. The scores
$-\lVert \hat y - y_i \rVert^2$ differ by terms that are linear in the prediction, so

$$L(\hat y) = \sum_{i<n} \log \sum_{j \ge i}
\exp \big( 2 \langle \hat y, y_j - y_i \rangle + \lVert y_i \rVert^2 - \lVert y_j \rVert^2 \big)$$

is convex, and $\nabla L = -2 \sum_k w_k \delta_k$, $w_k = \sum_{i \le k < j} \beta^i_j > 0$.

*Existence (ours).* L has a minimiser if and only if no v has $\langle v, \delta_k \rangle \ge 0$ for all k
and $> 0$ for some. With such a v $\langle v, \nabla L \rangle < 0$ everywhere. Without one, every unit vector
v in the span of the $\delta_k$ has some $\langle v, \delta_k \rangle < 0$, at most $-\epsilon$ by
compactness, so that term k of L grows along v at a rate of at least $2 \epsilon$ while no term falls below 0:
L tends to infinity in the span, and has a minimiser there. L is constant along every v that is orthogonal to
all $\delta_k$, and strictly convex in their span: the minimiser is unique up to such v.

So there is none for $n \le d + 1$ responses in general position (the $\delta_k$ are independent, and some v
has $\langle v, \delta_k \rangle = 1$ for all k); and once there is one and the $\delta_k$ span $R^d$, more
responses leave one.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse, special
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, ranking, remaining_weights

TOLERANCE = 1e-12  # of the gradient, in units of the sum of the norms of its terms
HALVINGS = 35
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
    r"""Where there is no minimiser: the unit vector u of the largest margin $\gamma$, and the margin.

    $\gamma = \min_k \langle u, \delta_k \rangle$, in units of the responses. Along u the loss falls to 0, its
    infimum. Gradient descent with a stable step ends in this direction (Soudry et al. 2018), with a norm that
    grows like $\log k / (2 \gamma)$ in the number k of steps. u is along the shortest v with all
    $\langle v, \delta_k \rangle \ge 1$, $\gamma = 1 / \lVert v \rVert$: non-negative least squares (Lawson
    and Hanson 1974, ch. 23).

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
        rest = system @ weights - aim
        found.append(-rest[:-1] / rest[-1])
    v = torch.from_numpy(np.array(found))
    return torch.nn.functional.normalize(v, dim=-1), scale / v.norm(dim=-1)


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


def stable_rate(responses: Float[Tensor, "batch n d"]) -> Float[Tensor, " batch"]:
    r"""$1 / ((n - 1) D^2)$, half of the rate below which `plain_descent` never raises the loss."""
    reach = torch.cdist(responses, responses).amax((1, 2))
    return 1 / ((responses.shape[1] - 1) * reach.square())


def orders(n: int, d: int) -> int:
    r"""How many of the n! orders of n points of $R^d$ in general position a linear function gives.

    $Q(n, d) = Q(n-1, d) + (n-1)\, Q(n-1, d-1)$ (Cover 1967). These are the rankings whose loss has no
    minimiser: under a critic that says nothing its share is $Q(n, d) / n!$.
    """
    if checks.whole("n", n, 1) == 1:
        return 1
    return 2 if checks.whole("d", d, 1) == 1 else orders(n - 1, d) + (n - 1) * orders(n - 1, d - 1)


def limit_factor(
    target2: Float[Tensor, " batch"], query2: Float[Tensor, " batch"], d: int, cells: int = 400
) -> Float[Tensor, " batch"]:
    r"""The c for which the minimiser tends to $c\, y^*$ as $n \to \infty$, responses with noise of their own.

    It minimises (proof: notebook "floor"), with $q_z = 1 + 2 (1 - z)^2 \lVert x \rVert^2$ and
    $s = \lVert y^* \rVert^2$,

    $$\int_0^1 \Big[ \log \frac1r \int_0^r q_z^{-d/2} e^{-(c - z)^2 s / q_z} dz + (c - r)^2 s \Big] dr .$$

    By bisection of the slope, integrals by the midpoint rule.

    Args:
        target2, query2: $\lVert y^* \rVert^2$ and $\lVert x \rVert^2$.

    Raises:
        ValueError: norms that are not finite and positive, d < 1, fewer than two cells.
    """
    checks.whole("d", d, 1)
    z = ((torch.arange(checks.whole("cells", cells, 2)).double() + 0.5) / cells).unsqueeze(0)
    if not ((target2 > 0) & (query2 > 0) & target2.isfinite() & query2.isfinite()).all():
        raise ValueError("target2 and query2 must be finite numbers above 0")
    s, q = target2.double().unsqueeze(-1), 1 + 2 * (1 - z).square() * query2.double().unsqueeze(-1)

    def below(logs: Float[Tensor, "batch cells"]) -> Float[Tensor, "batch cells"]:
        # midpoint rule: half of a cell's own weight lies below its middle
        sums = logs.logcumsumexp(-1)
        return torch.logaddexp(sums, torch.nn.functional.pad(sums[:, :-1], (1, 0), value=-torch.inf))

    def rises(c: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        logs = -d / 2 * q.log() - (c.unsqueeze(-1) - z).square() * s / q
        total, pushed = below(logs), logs - q.log()
        mean = c.unsqueeze(-1) * (below(pushed) - total).exp() - (below(pushed + z.log()) - total).exp()
        return (c.unsqueeze(-1) - z - mean).mean(-1) > 0

    lo, hi = torch.zeros_like(target2.double()), torch.ones_like(target2.double())
    while not (done := rises(hi)).all():
        hi = torch.where(done, hi, 2 * hi)
    for _ in range(HALVINGS):
        middle = (lo + hi) / 2
        over = rises(middle)
        lo, hi = torch.where(over, lo, middle), torch.where(over, middle, hi)
    return (lo + hi) / 2


def expected_limit_error(d: int, nodes: int = 20, cells: int = 200) -> float:
    r"""Normalised MSE of the limit $c\, y^*$ over the sampler, $\mathbb E\, (c - 1)^2 s / \mathbb E\, s$.

    By Gauss-Laguerre quadrature, as $\lVert x \rVert^2$ and $s / \lVert x \rVert^2$ are independent, of law
    $\chi^2_d$. With the defaults good to 1e-4 from d = 5 on.

    Raises:
        ValueError: d < 1, fewer than two nodes or cells.
    """
    checks.whole("d", d, 1)
    u, w = (
        torch.from_numpy(found)
        for found in special.roots_genlaguerre(checks.whole("nodes", nodes, 2), d / 2 - 1)
    )
    query2, weights = (2 * u).repeat_interleave(nodes), torch.outer(w, w).flatten()
    target2 = query2 * (2 * u).repeat(nodes)
    off = (limit_factor(target2, query2, d, cells) - 1).square()
    return float((weights * off * target2).sum() / (weights * target2).sum())
