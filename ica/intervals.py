"""Intervals over seeds, for few runs and errors that spread over decades."""

import math

from scipy import stats

from ica import checks


def median_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Median of independent values and an interval (median, lo, hi) for the median of what they were drawn from.

    The interval runs from the k-th smallest to the k-th largest value, with the largest k whose coverage is at least
    `level` whatever the distribution (binomial order statistics).

    Raises:
        ValueError: too few values for that level (6 for 0.95).
    """
    n, ordered = len(values), sorted(values)
    covered = [k for k in range(1, n // 2 + 1) if 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= level]
    if not covered:
        raise ValueError(f"values must be enough for an interval of level {level} (6 for 0.95), got {n}")
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return middle, ordered[covered[-1] - 1], ordered[n - covered[-1]]


def ratio_interval(above: list[float], below: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Ratio of the geometric means of two samples of positive values, with Welch's interval on the logarithms.

    Raises:
        ValueError: a sample of fewer than two values, or a value that is not finite and positive.
    """
    logs = []
    for name, sample in (("above", above), ("below", below)):
        if len(sample) < 2:
            raise ValueError(f"{name} must hold at least two values, got {len(sample)}")
        logs.append([math.log(checks.positive(name, value)) for value in sample])
    lo, hi = stats.ttest_ind(*logs, equal_var=False).confidence_interval(level)
    centre = sum(logs[0]) / len(above) - sum(logs[1]) / len(below)
    return math.exp(centre), math.exp(lo), math.exp(hi)
