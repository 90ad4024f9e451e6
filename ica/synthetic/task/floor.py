r"""Where the Plackett-Luce minimiser points when all responses lie between a target and a distractor.

The responses $y_i = r_i y^* + (1 - r_i) e$ span a plane. In it $y^*$ has angle 0, $e$ the angle
$\varphi \in (0, \pi)$ and $y_i$ the angle $\theta_i \in [0, \varphi]$, the smaller the better. With the
cosine reward the loss has one minimising direction, of angle $\omega = \mu - \pi/2$, where $\mu$ lies
between the smallest and the largest $\theta_i$ (proof: notebook "floor"). So the error of the
minimiser is $1 - \cos\omega = 1 - \sin\mu$. With the squared-distance reward there is no
minimiser; gradient descent runs away along $y^* - e$.
"""

import math

import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction
from ica.synthetic.task.data import SyntheticBatch

HALVINGS = 52


def plane(batch: SyntheticBatch) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch d"]]:
    r"""Orthonormal basis of each prompt's plane, float64: along $y^*$, and across, on the side of $e$.

    Raises:
        ValueError: d < 2 or own noise, where there is no plane.
    """
    if batch.good.shape[-1] < 2:
        raise ValueError(f"batch must have d >= 2 features to span a plane, got d = {batch.good.shape[-1]}")
    first = torch.nn.functional.normalize(batch.good.double(), dim=-1)
    bad = batch.on_a_line().bad.double()
    return first, torch.nn.functional.normalize(bad - (bad * first).sum(-1, keepdim=True) * first, dim=-1)


def plane_angles(
    vectors: Float[Tensor, "batch n d"], basis: tuple[Float[Tensor, "batch d"], Float[Tensor, "batch d"]]
) -> Float[Tensor, "batch n"]:
    r"""Angle (rad, $-\pi$ to $\pi$) of the projections to the plane: 0 along $y^*$, positive towards $e$."""
    along, across = (torch.einsum("bnd,bd->bn", vectors.double(), axis) for axis in basis)
    return torch.atan2(across, along)


def slope(
    omega: Float[Tensor, " batch"], angles: Float[Tensor, "batch n"], own: float = 1.0
) -> Float[Tensor, " batch"]:
    r"""Derivative in $\omega$ of the mean over the responses of $\log \sum_{j \ge i} e^{s_j} - s_i$.

    The scores are $s_j = \cos(\omega - \theta_j)$.

    Args:
        angles: of the responses, largest (worst) first.
        own: share of response i in its own sum: 1 is the Plackett-Luce loss over n; 1/2 makes it the midpoint
            rule of the loss of infinitely many responses, if the angles are those of evenly spaced qualities.
    """
    weights = (omega.unsqueeze(-1) - angles).cos().exp()
    sums = weights.cumsum(-1)
    middle, half = (angles[:, :-1] + angles[:, 1:]) / 2, (angles[:, :-1] - angles[:, 1:]) / 2
    # sum over j of w_j (s'_j - s'_i), built from neighbours: accurate also for angles that nearly agree
    pull = (2 * (omega.unsqueeze(-1) - middle).cos() * half.sin() * sums[:, :-1]).cumsum(-1)
    return (pull / (sums - (1 - own) * weights)[:, 1:]).sum(-1) / angles.shape[-1]


def minimiser_angle(angles: Float[Tensor, "batch n"], own: float = 1.0) -> Float[Tensor, " batch"]:
    r"""Angle $\omega$ of the direction that minimises the loss, by bisection of its slope to rounding.

    The slope has one zero with $\omega + \pi/2$ between the smallest and the largest angle; below it the
    slope is negative, above it positive.

    Args:
        angles: of the responses of each prompt, in any order; the smaller the better the response.
        own: see `slope`.

    Raises:
        ValueError: fewer than two responses, or angles that are not finite or outside 0 to pi.
    """
    if angles.shape[-1] < 2:
        raise ValueError(f"angles must hold n >= 2 responses per prompt, got n = {angles.shape[-1]}")
    checks.finite("angles", angles)
    if angles.min() < 0 or angles.max() > math.pi:
        raise ValueError(f"angles must lie between 0 and pi, got {angles.min():.3g} to {angles.max():.3g}")
    ordered = angles.double().sort(-1, descending=True).values
    lo, hi = ordered[:, -1] - math.pi / 2, ordered[:, 0] - math.pi / 2
    for _ in range(HALVINGS):
        middle = (lo + hi) / 2
        falls = slope(middle, ordered, own) < 0
        lo, hi = torch.where(falls, middle, lo), torch.where(falls, hi, middle)
    return (lo + hi) / 2


def minimisers(batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
    """Unit vectors, float64, that minimise the cosine-reward loss over the first n responses, n in `seen`.

    The critic is taken to be true: the ranking is that of the quality.

    Raises:
        ValueError: a length outside 2 to N, d < 2.
    """
    N = batch.responses.shape[1]
    if len(seen) == 0 or seen.min() < 2 or seen.max() > N:
        raise ValueError(f"seen must hold lengths from 2 to N = {N}, got {seen.tolist()}")
    first, second = plane(batch)
    angles = plane_angles(batch.responses, (first, second)).clamp(0, math.pi)
    omega = torch.stack([minimiser_angle(angles[:, :n]) for n in seen.tolist()], dim=1).unsqueeze(-1)
    return omega.cos() * first.unsqueeze(1) + omega.sin() * second.unsqueeze(1)


def path_angles(
    phi: Float[Tensor, " batch"], ratio: Float[Tensor, " batch"], quality: Float[Tensor, "#batch n"]
) -> Float[Tensor, "batch n"]:
    r"""Angles of $r y^* + (1 - r) e$; `phi`: of $e$; `ratio`: $\lVert e \rVert / \lVert y^* \rVert$."""
    bad = (1 - quality) * ratio.unsqueeze(-1)
    return torch.atan2(bad * phi.sin().unsqueeze(-1), quality + bad * phi.cos().unsqueeze(-1))


def population_angle(
    phi: Float[Tensor, " batch"], ratio: Float[Tensor, " batch"], cells: int = 1000
) -> Float[Tensor, " batch"]:
    r"""Angle $\omega$ of the minimiser for infinitely many responses of uniform quality (midpoint rule).

    Raises:
        ValueError: an angle outside 0 to pi, a ratio that is not positive, fewer than two cells.
    """
    checks.whole("cells", cells, 2)
    if not ((phi > 0) & (phi < math.pi)).all():
        raise ValueError("phi must lie strictly between 0 and pi: parallel ends span no plane")
    if not ((ratio > 0) & ratio.isfinite()).all():
        raise ValueError("ratio must be a finite number above 0 for every prompt")
    quality = (torch.arange(cells, dtype=torch.float64).unsqueeze(0) + 0.5) / cells
    return minimiser_angle(path_angles(phi.double(), ratio.double(), quality), own=0.5)


def expected_population_floor(d: int, nodes: int = 40, cells: int = 1000) -> float:
    r"""Mean of $1 - \cos\omega$ over the sampler at infinitely many responses, by Gauss-Jacobi quadrature.

    Given x, $y^*$ and $e$ are independent Gaussian vectors of one variance. So $(1 - \cos\varphi)/2$ has the
    law Beta((d-1)/2, (d-1)/2) and, independently,
    $\lVert e \rVert^2 / (\lVert e \rVert^2 + \lVert y^* \rVert^2)$ the law Beta(d/2, d/2).

    Raises:
        ValueError: d < 2 (no plane), fewer than two nodes or cells.
    """
    checks.whole("d", d, 2)
    checks.whole("nodes", nodes, 2)
    points = [special.roots_jacobi(nodes, k / 2 - 1, k / 2 - 1) for k in (d - 1, d)]
    (t, v), (u, w) = [(torch.tensor((1 + x) / 2), torch.tensor(y / y.sum())) for x, y in points]
    phi = (1 - 2 * t).arccos().repeat_interleave(nodes)
    omega = population_angle(phi, (u / (1 - u)).sqrt().repeat(nodes), cells)
    return float(((1 - omega.cos()).view(nodes, nodes) * v[:, None] * w).sum())


def expected_difference_error(d: int) -> float:
    r"""Mean over the sampler of $1 - \cos(y^* - e, y^*)$: where descent on the squared-distance reward ends.

    $y^* - e$ and $y^*$ are Gaussian with correlation $1/\sqrt 2$, so this is one minus the mean of a sample
    correlation coefficient:

    $$1 - \frac{\sqrt 2}{d} \left( \frac{\Gamma(\frac{d+1}{2})}{\Gamma(\frac d2)} \right)^2
    {}_2F_1 \left( \tfrac12, \tfrac12; \tfrac d2 + 1; \tfrac12 \right)$$

    Raises:
        ValueError: d < 1. Source: Hotelling (1953).
    """
    checks.whole("d", d, 1)
    gammas = math.exp(2 * (special.gammaln((d + 1) / 2) - special.gammaln(d / 2)))
    return float(1 - math.sqrt(2) / d * gammas * special.hyp2f1(0.5, 0.5, d / 2 + 1, 0.5))


def squared_descent(
    batch: SyntheticBatch, start: Float[Tensor, "batch d"], steps: int
) -> Float[Tensor, "steps_and_start batch d"]:
    r"""Plain gradient descent on the squared-distance Plackett-Luce loss of all N responses.

    Step size $1 / ((N - 1) \lVert y^* - e \rVert^2)$ for each prompt, half of that up to which no step
    expands distances; the query has unit norm.

    Returns:
        The prediction at the start and after each step.

    Raises:
        ValueError: a start of another shape than the good answers, steps < 1, own noise.
    """
    checks.shape("start", start, tuple(batch.good.shape))
    checks.whole("steps", steps, 1)
    ends = batch.good - batch.on_a_line().bad
    size = 1 / ((batch.responses.shape[1] - 1) * ends.square().sum(-1, keepdim=True))
    path = [start]
    for _ in range(steps):
        path.append(path[-1] + 2 * size * pl_direction(path[-1], batch.responses, batch.rewards, "stable"))
    return torch.stack(path)
