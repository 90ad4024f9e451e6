r"""Threshold features: a mask "key reward above the query's limit" that is exactly zero on every live key.

A grid $g_1 < \dots < g_K$ turns the reward $r$ of a key and the limit $t$ of a query into features

$$\Phi_k(r) = \mathrm{relu}\big((r - g_k)/w\big), \qquad \Psi_k(t) = \mathrm{relu}\big((g_k - t)/w\big),$$

one hidden unit each. **Lemma** (ours). Let the spacing be $h$ and $2w + h \le$ gap, and let the grid hold a
point in every interval of length $h$ within [low + w, high - w]. Then for limits and rewards in [low, high]

* $r \le t$: $\sum_k \Psi_k(t)\,\Phi_k(r) = 0$, in exact and in floating-point arithmetic;
* $r \ge t + $ gap: $\sum_k \Psi_k(t)\,\Phi_k(r) \ge 1$.

Proof. A product is positive only if $t < g_k < r$. If $r \ge t + $ gap, the interval [t + w, r - w] has
length at least $h$, so it holds a $g_k$, and there both factors are at least 1. In floating point the two
units, if they read the same source, compute $z$ and $-z$ by the same roundings, which are symmetric and
monotone, so for $r \le t$ one of the two factors is exactly 0.

So the score $-M \sum_k \Psi_k(t_i) \Phi_k(r_j)$ masks exactly the keys of larger reward, and a token whose
limit is its own reward never masks itself. Keys with t < r < t + gap are masked in part: the gap is an
assumption on the data.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.layout import Group, Layout, Unit

RAMP = 1 / 8
"""Ramp width w over the gap; the spacing h takes the rest, 3/4 of the gap."""


@dataclass(frozen=True)
class Grid:
    """Grid points for rewards and limits in [low, high] that tell values `gap` apart.

    Args:
        low: least reward or limit.
        high: largest reward or limit.
        gap: smallest difference to tell apart, in units of reward; at most high - low.

    Raises:
        ValueError: a bound not finite, low not below high, gap not in (0, high - low].
    """

    low: float
    high: float
    gap: float

    def __post_init__(self):
        for name in ("low", "high"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)!r}")
        if self.low >= self.high:
            raise ValueError(f"low must be below high = {self.high}, got {self.low}")
        if checks.positive("gap", self.gap) > (self.high - self.low) * (1 + 1e-9):
            raise ValueError(f"gap must be at most high - low = {self.high - self.low}, got {self.gap}")

    @property
    def ramp(self) -> float:
        """Ramp width w, in units of reward."""
        return RAMP * self.gap

    @property
    def spacing(self) -> float:
        """Distance h of neighbouring points, in units of reward."""
        return self.gap - 2 * self.ramp

    @property
    def size(self) -> int:
        """Number K of points: about (high - low) / spacing."""
        return math.floor((self.high - self.low - 2 * self.ramp) / self.spacing + 1e-9) + 1

    @property
    def points(self) -> Float[Tensor, " K"]:
        """The points low + w, low + w + h, ..., at most high - w (up to rounding)."""
        return self.low + self.ramp + self.spacing * torch.arange(self.size, dtype=torch.float64)

    def accept(self, rewards: Float[Tensor, "batch N"]) -> Float[Tensor, "batch N"]:
        """These rewards, if they lie in [low, high], the gap apart within a prompt; ValueError otherwise."""
        lowest, highest = float(rewards.min()), float(rewards.max())
        if lowest < self.low or highest > self.high:
            raise ValueError(
                f"rewards must lie in [{self.low}, {self.high}], got values in [{lowest}, {highest}]"
            )
        smallest = float(rewards.sort(dim=-1).values.diff(dim=-1).min())
        if smallest < self.gap * (1 - 1e-6):
            raise ValueError(
                f"rewards must differ by at least gap = {self.gap} within a prompt, got {smallest:.4g}"
            )
        return rewards

    def check(self, dtype: torch.dtype) -> "Grid":
        """This grid, if `dtype` resolves its gap at its rewards; ValueError otherwise."""
        least = 1024 * torch.finfo(checks.dtype("dtype", dtype)).eps * max(abs(self.low), abs(self.high))
        if self.gap < least:
            raise ValueError(
                f"gap must be at least {least:.3g} for rewards up to this size in {dtype}, got {self.gap}"
            )
        return self


def mask_strength(range_of_scores: float, margin: float) -> float:
    """Factor M of the mask: puts masked keys `margin` below live ones, if scores differ by at most the range.

    A tenth is to spare for the rounding of features on a grid that passed `Grid.check`.
    """
    return 1.1 * (checks.positive("range_of_scores", range_of_scores) + checks.positive("margin", margin))


def _ramps(
    layout: Layout, source: Group, points: Tensor, slope: float, offset: float, target: str
) -> list[Unit]:
    """One unit relu(slope * (source + offset - point)) per point, written to its feature in `target`."""
    if layout.size(target) < len(points):
        raise ValueError(f"target must hold {len(points)} features, {target!r} has {layout.size(target)}")
    if any(layout.size(name) != 1 for name in source):
        raise ValueError(f"source must name places of one feature, got {source}")
    read, write = slope * layout.read(source), layout.read({target: 1.0})
    biases = (slope * (offset - points)).tolist()
    return [(read, bias, write[k : k + 1]) for k, bias in enumerate(biases)]


def key_units(
    layout: Layout, source: Group, target: str, grid: Grid, points: Tensor | None = None, offset: float = 0.0
) -> list[Unit]:
    r"""Hidden units that add the key features $\Phi_k(r)$, $r$ = source + offset, to the place `target`.

    Args:
        source: where the reward is read, for instance {"r": 1.0}; places of one feature.
        target: a place of at least K features; clear it first if it is not zero.
        grid: sets the points and the ramp.
        points: some of the grid's points only.

    Raises:
        ValueError: an unknown place, a target too small, a source of more than one feature.
    """
    return _ramps(layout, source, grid.points if points is None else points, 1 / grid.ramp, offset, target)


def query_units(
    layout: Layout, source: Group, target: str, grid: Grid, points: Tensor | None = None, offset: float = 0.0
) -> list[Unit]:
    r"""Hidden units that add the query features $\Psi_k(t)$, $t$ = source + offset, to the place `target`.

    Arguments and errors are those of `key_units`; for instance source {"top": 1.0} and offset -gap/2 put the
    limit half a gap below a reward that was found.
    """
    return _ramps(layout, source, grid.points if points is None else points, -1 / grid.ramp, offset, target)


def clear_units(layout: Layout, target: str) -> list[Unit]:
    """Hidden units that set a place of features back to zero; one each, as features are never negative.

    Clearing and rewriting may share one network: both read the stream as it was before.
    """
    return [(layout.read({target: 1.0}), 0.0, layout.read({target: -1.0}))]
