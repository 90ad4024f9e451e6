r"""Plackett-Luce in constant depth with one mask feature a side: width paid in magnitude (ours).

As `constant_depth`, but the mask is a product of two staircases that grow like exponentials. At each point
$\zeta_k$ of the grid the key feature rises from $\rho^{k-1}$ to $\rho^k$ just above it, and the query feature
falls by the same factor just below it, times $\rho$ to the power of half the number of points, so that
neither leaves the range of the type. So

* $r \le \lambda$: the product is at most $1/\rho$ (leak);
* $r \ge \lambda + $ gap: a point lies between the two, and the product is at least 1 (strength).

All weights of the staircases are positive: nothing cancels. A product that overflows is a mask of minus
infinity. The trade between width, magnitude and error stands in the notebook "What a mask costs".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.constant_depth import (
    average_head,
    constant_depth_layout,
    reward_grid,
    term_head,
)
from ica.theory.constructions.layout import Layout, Unit, carry, set_units
from ica.theory.constructions.thresholds import Grid, mask_strength
from ica.transformer import Transformer


def one_feature(
    W: Float[Tensor, "d p"], N: int, assumptions: Assumptions, steps: int = 1, *, low: float = 0.0
) -> Transformer:
    """Transformer of 1 + 2 steps blocks of one head of width d + 2 that does `steps` Plackett-Luce steps.

    Arguments are those of `constant_depth`, without a width.

    Raises:
        ValueError: as `constant_depth`; more gaps in the spread than the range of the type can hold.
    """
    W = start(W, assumptions)
    d, p = W.shape
    checks.whole("N", N, 2)
    grid = reward_grid(assumptions, low)
    strength = mask_strength(assumptions.radius**2, assumptions.margin(N))
    ratio = strength / torch.finfo(assumptions.dtype).eps
    layout = constant_depth_layout(d, p, 1)
    layers = 1 + 2 * checks.whole("steps", steps, 1)
    hidden = max(4 * grid.size, 2 * d)
    model = blank(layout, W, assumptions, layers=layers, heads=1, head_width=d + 2, hidden=hidden)
    set_units(model.blocks[0].feed_forward, staircases(layout, grid, ratio, assumptions.dtype))
    for term, average in zip(model.blocks[1::2], model.blocks[2::2], strict=True):
        term_head(term.attention, layout, N, assumptions, "acc")
        average_head(average.attention, layout, N, assumptions, layout.read({"acc": 1.0, "y": 1.0}))
        set_units(average.feed_forward, carry(layout, "acc"))
    return promise(model, W, assumptions, steps, N, fewest=N, spread=assumptions.spread, low=low)


def staircases(layout: Layout, grid: Grid, ratio: float, dtype: torch.dtype) -> list[Unit]:
    r"""Two units a grid point and side: they add $\rho^{k - \text{mid}}$ to phi above point k, the inverse to psi below it.

    Args:
        ratio: $\rho$, strength over leak.

    Raises:
        ValueError: steps beyond the range of `dtype`, six digits of it kept for the scales of the head.
    """
    digits = math.log10(ratio) * (grid.size / 2 + 1)
    most = math.log10(torch.finfo(checks.dtype("dtype", dtype)).max) - 6
    if digits > most:
        raise ValueError(
            f"gap must be larger for one mask feature in {dtype}: {grid.size} grid points with"
            f" {math.log10(ratio):.1f} digits each need {digits:.0f} digits a side, and it holds {most:.0f}"
        )
    powers = ratio ** (torch.arange(grid.size, dtype=torch.float64) - (grid.size - 1) / 2)
    rises = powers.diff(prepend=torch.zeros(1, dtype=torch.float64))
    falls = (1 / powers).diff(append=torch.zeros(1, dtype=torch.float64)).neg()
    units = []
    for side, place, heights in ((1.0, "phi", rises), (-1.0, "psi", falls)):
        slope = layout.read({"r": side / grid.ramp})
        for point, height in zip(grid.points.tolist(), heights.tolist(), strict=True):
            for begin, sign in ((0.0, 1.0), (1.0, -1.0)):
                units.append((slope, -side * point / grid.ramp - begin, layout.read({place: sign * height})))
    return units
