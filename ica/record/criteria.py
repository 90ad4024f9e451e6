"""Criteria of claims: what a measured value and its interval say about them.

Three kinds. A *bound* (`<=`, `>=`, `within`) is met, missed, or left open by the interval. An *effect* (`above`, `below`,
`differs`) is held against `at` and a smallest effect of interest, `sesoi`: beyond it in the claimed direction the claim is
supported, beyond it in the other contradicted, and an interval that lies wholly within it is a tested null, negligible.
All else is open.
"""

import math
from dataclasses import dataclass

import scipy  # loads a part where it is used first

SUPPORTED, CONTRADICTED, NEGLIGIBLE, OPEN = "supported", "contradicted", "negligible", "open"
MIXED, SINGLE, UNTESTABLE = "mixed", "single run", "not testable here"
VERDICTS = (SUPPORTED, CONTRADICTED, NEGLIGIBLE, MIXED, OPEN, SINGLE, UNTESTABLE)
BOUNDS, EFFECTS = ("<=", ">=", "within"), ("above", "below", "differs")
SCALES = ("difference", "ratio")
LEVEL = 0.95
QUANTILE = float(scipy.special.ndtri((1 + LEVEL) / 2))
POWER = 0.8
# Half-widths of the interval, from a bound to where the bound is passed with that power.
REACH = 1 + float(scipy.special.ndtri(POWER)) / QUANTILE


def _within(low: float, high: float, half: float) -> tuple[float, float] | None:
    """Ends of the true values that intervals of this half-width put between two bounds with power `POWER`; None: none."""
    error, ndtr = half / QUANTILE, scipy.special.ndtr

    def excess(true: float) -> float:
        return ndtr((high - half - true) / error) - ndtr((low + half - true) / error) - POWER

    if half == 0:
        return low, high
    if excess((low + high) / 2) < 0:
        return None
    end = scipy.optimize.brentq(excess, (low + high) / 2, high)
    return low + high - end, end


@dataclass(frozen=True)
class Criterion:
    """One condition.

    Args:
        op: one of `BOUNDS` or `EFFECTS`.
        bound: a number; (lo, hi) for "within"; None for effects.
        at: for effects, the value of no effect.
        sesoi: for effects, the smallest one of interest: a difference above 0 or, with `scale` "ratio", a factor above 1.
        scale: "difference" or "ratio".
    """

    op: str
    bound: float | tuple[float, float] | None = None
    at: float | None = None
    sesoi: float | None = None
    scale: str = "difference"

    def __str__(self) -> str:
        if self.op == "within":
            return f"within [{self.bound[0]:g}, {self.bound[1]:g}]"
        if self.op in BOUNDS:
            return f"{self.op} {self.bound:g}"
        words = "differs from" if self.op == "differs" else self.op
        by = f"by a factor of {self.sesoi:g}" if self.scale == "ratio" else f"by {self.sesoi:g}"
        return f"{words} {self.at:g} {by}"

    @property
    def region(self) -> tuple[float, float]:
        """Ends of the values that meet a bound, or of the values that are no effect of interest."""
        if self.op == "within":
            return self.bound
        if self.op in BOUNDS:
            return (-math.inf, self.bound) if self.op == "<=" else (self.bound, math.inf)
        if self.scale == "ratio":
            return self.at / self.sesoi, self.at * self.sesoi
        return self.at - self.sesoi, self.at + self.sesoi

    def judge(self, value: float, interval: tuple[float, float] | None) -> str:
        """Return a verdict on a value and its interval (None: the value is exact)."""
        lo, hi = (value, value) if interval is None else (min(value, interval[0]), max(value, interval[1]))
        low, high = self.region
        inside, less, more = low <= lo and hi <= high, hi < low, lo > high
        if self.op in BOUNDS:
            return SUPPORTED if inside else CONTRADICTED if less or more else OPEN
        if inside:
            return NEGLIGIBLE
        if not less and not more:
            return OPEN
        return SUPPORTED if self.op == "differs" or (self.op == "above") == more else CONTRADICTED

    def _above(self, value: float, interval: tuple[float, float], end: float) -> float:
        """One-sided p against "not above `end`", by the normal approximation that the interval gives."""
        if math.isinf(end):
            return 0.0 if end < 0 else 1.0
        points = [value, *interval, end]
        if self.scale == "ratio":
            points = [math.log(max(point, 1e-300)) for point in points]
        value, lo, hi, end = points
        error = (value - lo if value > end else hi - value) / QUANTILE
        return float(scipy.special.ndtr((end - value) / error)) if error > 0 else float(value <= end)

    def p_value(self, value: float, interval: tuple[float, float]) -> float:
        """Two-sided p of the decision that lies nearest: twice the least p of the one-sided tests at the region's ends.

        The verdict is decided at the level of the interval exactly where p <= 0.05 (for intervals that are symmetric).
        """
        low, high = self.region
        over_high, over_low = self._above(value, interval, high), self._above(value, interval, low)
        return min(1.0, 2 * min(over_high, 1 - over_low, max(over_low, 1 - over_high)))

    def detectable(self, value: float, interval: tuple[float, float]) -> str:
        """The true values that a sample like this one would have decided for the claim with 80 % power, in words."""
        log = self.scale == "ratio" and min(value, *interval) > 0
        there, back = (math.log, math.exp) if log else (float, float)
        half = (there(interval[1]) - there(interval[0])) / 2
        low, high = (end if math.isinf(end) else there(end) for end in self.region)
        if self.op == "within":
            ends = _within(low, high, half)
            return f"within [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "none, as the interval is too wide"
        reach = half * REACH
        less, more = f"below {back(low - reach):.3g}", f"above {back(high + reach):.3g}"
        return {
            "<=": f"below {high - reach:.3g}",
            ">=": f"above {low + reach:.3g}",
            "above": more,
            "below": less,
            "differs": f"{less} or {more}",
        }[self.op]


def combine(verdicts: list[str]) -> str:
    """Return the verdict on a whole from those on its parts: theirs if they agree; mixed if any part is decided against."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return MIXED if {CONTRADICTED, NEGLIGIBLE, MIXED} & set(verdicts) else OPEN
