"""Intervals over seeds, for few runs and errors that spread over decades."""

import math

import scipy  # loads a part where it is used first
from jaxtyping import Float
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
    covered = [k for k in range(1, n // 2 + 1) if 1 - 2 * scipy.special.bdtr(k - 1, n, 0.5) >= level]
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
    lo, hi = scipy.stats.ttest_ind(*logs, equal_var=False).confidence_interval(level)
    centre = sum(logs[0]) / len(above) - sum(logs[1]) / len(below)
    return math.exp(centre), math.exp(lo), math.exp(hi)


def mean_interval(
    values: Float[Tensor, "seeds prompts *points"], level: float = 0.95
) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points"], Float[Tensor, "*points"]]:
    r"""Mean over seeds and prompts, all seeds on the same prompts, with an interval (mean, lo, hi) for both.

    The layout is crossed, value = mean + seed + prompt + residual, with mean squares $M_S, M_P, M_E$. The
    mean varies by $V_S + V_P$, $V_S = (P \sigma_S^2 + \sigma_E^2) / SP$ and $V_P = \sigma_P^2 / P$, of which
    $v_S = M_S / SP$ and $v_P = (M_P - M_E) / SP$ are unbiased estimates. Half the width is
    $\sqrt{t_{S-1}^2 v_S + t_{P-1}^2 \max(v_P, 0)}$: to each part Student's quantile for its own degrees of
    freedom (S. K. Banerjee, Sankhya 22 (1960), 357-358).

    Why it covers: for Gaussian effects the mean is independent of the mean squares, so the coverage is
    $\mathbb E\, F(h^2 / (V_S + V_P))$, h half the width, F the distribution function of $\chi^2_1$. F is
    concave, so that is at least the mean of $\mathbb E\, F(t^2 v / V)$ over the parts, weighted by V: `level`
    for the seeds, and for the prompts but for the error of $M_E$. At 0.95 it is 0.95 where one part is all,
    and nowhere above 0.978 with 3 seeds, 0.967 with 5, 0.955 with 20 (no residual). Few seeds far from
    Gaussian, if theirs is the larger part, are covered less: three with exponential effects at 0.89.

    With one seed it is Student's interval over the prompts and speaks of that run only.

    Raises:
        ValueError: no seed, fewer than two prompts, entries that are not finite, a level outside (0, 1).
    """
    half = _half_squared("values", values, level, *values.shape[:2]).sqrt()
    mean = values.double().mean((0, 1))
    return mean, mean - half, mean + half


def against_one_run(
    values: Float[Tensor, "seeds prompts *points"],
    number: float | Float[Tensor, "*points"],
    like: Float[Tensor, "runs others *points"] | None = None,
    prompts: int = 256,
    level: float = 0.95,
) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points"], Float[Tensor, "*points"]]:
    r"""Mean less a number, itself the mean of one other run over other prompts (difference, lo, hi).

    The number varies by $\sigma_S^2 + (\sigma_P^2 + \sigma_E^2) / p$, added to the variance of the mean. From
    `like` it is estimated as $M_S / P$ and, for the prompts, $(M_P - M_E) / Sp + M_E (1 / p - 1 / P)$; each
    part has its quantile as in `mean_interval`.

    Args:
        like: several runs that vary as the other one would, over seeds and prompts; by default `values`.
        prompts: how many prompts p the other run was measured on.

    Raises:
        ValueError: fewer than two runs to take the spread from, no prompts, or as `mean_interval` says.
    """
    checks.whole("prompts", prompts, 1)
    name, runs = ("values", values) if like is None else ("like", like)
    if len(runs) < 2:
        raise ValueError(
            f"{name} must hold at least two seeds to say how far one run is off, got {len(runs)}"
        )
    variance = _half_squared("values", values, level, *values.shape[:2])
    half = (variance + _half_squared(name, runs, level, 1, prompts)).sqrt()
    difference = values.double().mean((0, 1)) - number
    return difference, difference - half, difference + half


def _half_squared(
    name: str, values: Float[Tensor, "seeds prompts *points"], level: float, seeds: int, prompts: int
) -> Float[Tensor, "*points"]:
    """Square of half the width for the mean of so many seeds and prompts drawn as those of `values`."""
    S, P = values.shape[:2]
    if S < 1 or P < 2:
        raise ValueError(f"{name} must hold at least one seed and two prompts, got {S} and {P}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    rest = checks.finite(name, values).double()
    rest = rest - rest.mean((0, 1))
    of_seeds, of_prompts = rest.mean(1, keepdim=True), rest.mean(0, keepdim=True)
    free = max(S - 1, 1)  # with one seed its mean square and that of the residual are 0
    residual = (rest - of_seeds - of_prompts).square().sum((0, 1)) / (free * (P - 1))
    by_seed = of_seeds.square().sum((0, 1)) / (free * seeds)
    by_prompt = (of_prompts.square().sum((0, 1)) / (P - 1) - residual / S) / prompts
    by_prompt += residual * (1 / prompts - 1 / P) / seeds
    few, many = (float(scipy.special.stdtrit(df, (1 + level) / 2)) ** 2 for df in (free, P - 1))
    return few * by_seed + many * by_prompt.clamp(min=0)


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
    lo, hi = scipy.stats.ttest_1samp(logs, 0.0).confidence_interval(level)
    return math.exp(sum(logs) / len(logs)), math.exp(lo), math.exp(hi)
