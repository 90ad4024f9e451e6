"""Intervals over seeds, for few runs and errors that spread over decades."""

import math

from jaxtyping import Float
from scipy import stats
from torch import Tensor

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


def paired_interval(
    differences: Float[Tensor, "seeds prompts"], level: float = 0.95
) -> tuple[float, float, float]:
    r"""Mean of a difference measured for every seed on the same prompts, with an interval (mean, lo, hi) for both.

    The variance of the mean is taken as $s_S^2 / S + s_P^2 / P$, with $s_S$ the standard deviation over the S seeds of their
    means, $s_P$ that over the P prompts of theirs: each holds a share of the residual, so the sum is on the safe side. The
    quantile is Student's with S - 1 degrees of freedom; with one seed it is the normal one and the interval speaks of
    prompts only.

    Raises:
        ValueError: fewer than two prompts, entries that are not finite, a level outside (0, 1).
    """
    checks.finite("differences", differences)
    seeds, prompts = differences.shape
    if prompts < 2 or seeds < 1:
        raise ValueError(
            f"differences must hold at least one seed and two prompts, got {seeds} and {prompts}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    values = differences.double()
    variance = values.mean(0).var().item() / prompts
    quantile = stats.norm.ppf((1 + level) / 2)
    if seeds > 1:
        variance += values.mean(1).var().item() / seeds
        quantile = stats.t.ppf((1 + level) / 2, seeds - 1)
    mean, half = values.mean().item(), float(quantile) * math.sqrt(variance)
    return mean, mean - half, mean + half


def paired_ratio(above: list[float], below: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Geometric mean of the ratios of positive values measured in pairs, with Student's interval on the logarithms.

    Raises:
        ValueError: lists of different lengths, fewer than two pairs, or a value that is not finite and positive.
    """
    if len(above) != len(below) or len(above) < 2:
        raise ValueError(f"above and below must hold at least two pairs, got {len(above)} and {len(below)}")
    pairs = zip(above, below, strict=True)
    logs = [
        math.log(checks.positive("above", first) / checks.positive("below", second))
        for first, second in pairs
    ]
    lo, hi = stats.ttest_1samp(logs, 0.0).confidence_interval(level)
    return math.exp(sum(logs) / len(logs)), math.exp(lo), math.exp(hi)
