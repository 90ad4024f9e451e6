r"""Plackett-Luce in constant depth: two attention layers of one head are one gradient step, whatever N.

One network turns each reward into threshold features (`ica.theory.constructions.thresholds`). Then, for each
gradient step,

* a head with scores $2\hat y\cdot y_j - \|y_j\|^2 - M\,\Psi(r_i)\cdot\Phi(r_j)$ lets token $i$ see exactly
  the responses of reward at most $r_i$, so it holds its own term $y_i - \sum_j \beta^i_j y_j$ of the step
  (the worst response sees itself: its term is 0);
* a head with equal scores averages the terms over the tokens, times $2\eta N$, into $\hat y$.

The price is width: the features number about (4/3) spread/gap. `windowed` trades it back for depth: it cuts
the grid into windows and visits one window in each block. Constructions and proofs are ours; both stand in
the notebook "How many blocks?".
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, Unit, carry, set_head, set_units
from ica.theory.constructions.thresholds import Grid, clear_units, key_units, mask_strength, query_units
from ica.transformer import Attention, Transformer


def reward_grid(assumptions: Assumptions, low: float = 0.0) -> Grid:
    """Grid for rewards in [low, low + spread]; ValueError if the precision does not resolve the gap there."""
    return Grid(low, low + assumptions.spread, assumptions.gap).check(assumptions.dtype)


def constant_depth_layout(d: int, p: int, K: int) -> Layout:
    """Places: x, y, s = ||y||^2, r, yhat, acc (the token's own term), phi and psi (K features each), one."""
    return Layout(x=p, y=d, s=1, r=1, yhat=d, acc=d, phi=K, psi=K, one=1)


def constant_depth(
    W: Float[Tensor, "d p"],
    N: int,
    assumptions: Assumptions,
    steps: int = 1,
    *,
    low: float = 0.0,
    width: int = 0,
) -> Transformer:
    """Transformer of 1 + 2 steps blocks of one head that does `steps` steps on the Plackett-Luce loss.

    Args:
        W: the linear model to start from; the model reads out the moved prediction at every token.
        N: number of responses of a prompt, exactly: the average over the tokens is multiplied by it.
        assumptions: step size, reward gap, spread, radius and precision; all rewards lie in [low, low +
            spread].
        steps: gradient steps.
        low: least reward.
        width: threshold features to spend; 0 means as many as the gap needs.

    Raises:
        ValueError: W not a finite matrix, N < 2, steps < 1, low not finite, a gap that the precision or the
            width cannot resolve.
    """
    W = start(W, assumptions)
    d, p = W.shape
    checks.whole("N", N, 2)
    grid = reward_grid(assumptions, low)
    K = checks.whole("width", width, 0) or grid.size
    if K < grid.size:
        raise ValueError(f"width must be at least {grid.size} to tell rewards {grid.gap} apart, got {width}")
    layout = constant_depth_layout(d, p, K)
    layers = 1 + 2 * checks.whole("steps", steps, 1)
    hidden = max(2 * grid.size, 2 * d)
    model = blank(layout, W, assumptions, layers=layers, heads=1, head_width=d + 1 + K, hidden=hidden)
    features = key_units(layout, {"r": 1.0}, "phi", grid) + query_units(layout, {"r": 1.0}, "psi", grid)
    set_units(model.blocks[0].feed_forward, features)
    for term, average in zip(model.blocks[1::2], model.blocks[2::2], strict=True):
        term_head(term.attention, layout, N, assumptions, "acc")
        average_head(average.attention, layout, N, assumptions, layout.read({"acc": 1.0, "y": 1.0}))
        set_units(average.feed_forward, carry(layout, "acc"))
    return promise(model, W, assumptions, steps, N, fewest=N, spread=assumptions.spread, low=low)


def term_head(attention: Attention, layout: Layout, N: int, assumptions: Assumptions, target: str) -> None:
    r"""Head that writes $-\sum_j \beta^i_j y_j$ to `target` of token $i$, over the live keys."""
    read = layout.read
    M = mask_strength(assumptions.radius**2, assumptions.margin(N))
    set_head(
        attention,
        0,
        query=read({"yhat": 2.0}, {"one": 1.0}, {"psi": -M}),
        key=read({"y": 1.0}, {"s": -1.0}, {"phi": 1.0}),
        value=read({"y": 1.0}),
        output=read({target: -1.0}),
    )


def average_head(
    attention: Attention, layout: Layout, N: int, assumptions: Assumptions, value: Float[Tensor, "d width"]
) -> None:
    r"""Head with equal scores that adds $2\eta$ times the sum of `value` over the tokens to yhat."""
    nothing = torch.zeros(1, layout.width, dtype=value.dtype)
    output = layout.read({"yhat": 2 * assumptions.eta * N})
    set_head(attention, 0, query=nothing, key=nothing, value=value, output=output)


def windows(grid: Grid, count: int) -> list[Float[Tensor, " points"]]:
    """The grid cut into `count` runs of points; neighbouring runs share one point.

    Raises:
        ValueError: count below 1, or above the number of intervals of the grid.
    """
    intervals = grid.size - 1
    if checks.whole("count", count, 1) > max(intervals, 1):
        raise ValueError(
            f"count must be at most {max(intervals, 1)} for a grid of {grid.size} points, got {count}"
        )
    ends = [intervals * b // count for b in range(count + 1)]
    return [grid.points[first : last + 1] for first, last in pairwise(ends)]


def windowed_layout(d: int, p: int, K: int) -> Layout:
    """Places: as in `constant_depth_layout`, and z (the head's result), off (reward outside the window)."""
    return Layout(x=p, y=d, s=1, r=1, yhat=d, acc=d, z=d, phi=K, psi=K, off=1, one=1)


def windowed(
    W: Float[Tensor, "d p"], N: int, assumptions: Assumptions, steps: int = 1, *, count: int, low: float = 0.0
) -> Transformer:
    """Transformer of 1 + steps (count + 1) blocks of one head, with about 1/count of the features.

    Args:
        count: windows that the grid is cut into, one block each; other arguments as in `constant_depth`.

    Raises:
        ValueError: as `constant_depth` and `windows`.
    """
    W = start(W, assumptions)
    d, p = W.shape
    checks.whole("N", N, 2)
    grid = reward_grid(assumptions, low)
    cut = windows(grid, count)
    K = max(len(points) for points in cut)
    layout = windowed_layout(d, p, K)
    layers = 1 + checks.whole("steps", steps, 1) * (count + 1)
    hidden = 4 * d + 4 * K + 5
    model = blank(layout, W, assumptions, layers=layers, heads=1, head_width=d + 1 + K, hidden=hidden)
    enter = [enter_window(layout, grid, cut, b) for b in range(count)]
    set_units(model.blocks[0].feed_forward, enter[0])
    for i, block in enumerate(model.blocks[1:]):
        b = i % (count + 1)
        if b < count:
            term_head(block.attention, layout, N, assumptions, "z")
            units = keep_term(layout, 5 * assumptions.radius) + leave_window(layout)
            set_units(block.feed_forward, units + enter[(b + 1) % count])
        else:
            average_head(block.attention, layout, N, assumptions, layout.read({"acc": 1.0}))
            set_units(block.feed_forward, carry(layout, "acc"))
    return promise(model, W, assumptions, steps, N, fewest=N, spread=assumptions.spread, low=low)


def enter_window(layout: Layout, grid: Grid, cut: list[Tensor], b: int) -> list[Unit]:
    r"""Units that write the features of window b and its flag off: 0 in the core, 1 where they fall short.

    The features of points $g_{first..last}$ suffice for $g_{first} - h < r_i + w \le g_{last}$. The cores
    end half a spacing below these bounds, so that they tile the line and each flag has half a spacing to
    rise; the outer windows are open.
    """
    points, reward = cut[b], {"r": 1.0}
    units = key_units(layout, reward, "phi", grid, points) + query_units(layout, reward, "psi", grid, points)
    rise = grid.spacing / 2
    for side, outer, point in ((1.0, b == len(cut) - 1, points[-1]), (-1.0, b == 0, points[0])):
        if not outer:
            edge = float(point) - grid.ramp - rise
            slope = layout.read({"r": side / rise})
            for start_at, sign in ((0.0, 1.0), (1.0, -1.0)):
                units.append((slope, -side * edge / rise - start_at, layout.read({"off": sign})))
    return units


def leave_window(layout: Layout) -> list[Unit]:
    """Units that clear the features, the flag and z."""
    cleared = [unit for name in ("phi", "psi", "off") for unit in clear_units(layout, name)]
    return cleared + carry(layout, "z")


def keep_term(layout: Layout, bound: float) -> list[Unit]:
    r"""Units that set acc to $y + z$ where off = 0 and leave it where off = 1, for $|y + z - acc| <$ bound.

    They add relu(u - bound off) - relu(-u - bound off), u = y + z - acc. Where two windows both know a term,
    the second finds u = 0, so nothing is counted twice.
    """
    off = torch.zeros_like(layout.read({"y": 1.0}))
    off[:, layout.slices["off"]] = bound
    change = layout.read({"y": 1.0, "z": 1.0, "acc": -1.0})
    return [(side * change - off, 0.0, layout.read({"acc": side})) for side in (1.0, -1.0)]
