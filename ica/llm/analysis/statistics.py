"""Intervals (95 %) and tests for paired answers to the same items: exact or resampled, seeded, vectorised.

Items lie in categories; resampling is within category, so every interval here speaks of other items of the same categories. All
differences are per item, second minus first. Seeds make every figure exactly repeatable.

A bootstrap of values that are all alike within each category is a point, however few they are. `bootstrap_difference` can give one and
is for quantities in nats; of shares and their differences `score_interval`, `signed_interval` and `share_difference` never do.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats

from ica import checks

Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Estimate:
    """A mean or share with its interval; number of items, or `units` as {"prompts": 12, "words": 2} if it counts others."""

    estimate: float
    lo: float
    hi: float
    n: int
    units: dict[str, int] = field(default_factory=dict)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval (lo, hi) for a share; 0 to 1 if n is 0.

    Raises:
        ValueError: hits outside 0 to n. Source: Wilson (1927).
    """
    checks.whole("n", n, 0)
    if checks.whole("hits", hits, 0) > n:
        raise ValueError(f"hits must be at most n = {n}, got {hits}")
    return score_interval(hits / n, n) if n else (0.0, 1.0)


def score_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval around any share of n >= 1 units; of a mean of values from 0 to 1 it is too wide rather than too narrow."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))


def signed_interval(plus: float, minus: float, n: int) -> tuple[float, float]:
    r"""Interval for the difference of two shares of the same n >= 1 items (+1, -1, else 0).

    The score interval for paired shares after adding half an item to each of the two kinds and one to the rest (Agresti and Min,
    2005): centre $(n_+ - n_-)/(n + 2)$, variance that of the smoothed values. For values between -1 and 1 give the sums of the
    positive and of the negative ones: the variance is then an upper bound.
    """
    a, b, m = plus + 0.5, minus + 0.5, n + 2
    half = Z * np.sqrt(((a + b) / m - ((a - b) / m) ** 2) / m)
    return max(-1.0, float((a - b) / m - half)), min(1.0, float((a - b) / m + half))


@dataclass(frozen=True)
class McNemar:
    """Items right only before and only after, and the exact two-sided p of their being equally likely."""

    only_before: int
    only_after: int
    n: int
    p: float


def mcnemar(before: Bool[np.ndarray, " items"], after: Bool[np.ndarray, " items"]) -> McNemar:
    """Exact McNemar test of two answers to the same items: sign test on the items where they differ (p = 1 if none do).

    Raises:
        ValueError: different numbers of items. Source: McNemar (1947).
    """
    if before.shape != after.shape:
        raise ValueError(f"before and after must be of the same items, got {len(before)} and {len(after)}")
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    p = float(stats.binomtest(won, lost + won).pvalue) if lost + won else 1.0
    return McNemar(lost, won, len(before), p)


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Holm's adjusted p values of a family of tests, in the given order. Source: Holm (1979)."""
    stepped = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.sort(p)).clip(max=1)
    return stepped[stats.rankdata(p, "ordinal") - 1]


def _groups(strata: Shaped[np.ndarray, " items"], least: int) -> list[Int[np.ndarray, " members"]]:
    """Indices of the items of each stratum; ValueError for a stratum that is too small."""
    names, code = np.unique(strata, return_inverse=True)
    if not len(names):
        raise ValueError("items must hold at least one item, got none")
    members = [np.flatnonzero(code == k) for k in range(len(names))]
    small = [f"{name!s} ({len(m)})" for name, m in zip(names, members, strict=True) if len(m) < least]
    if small:
        raise ValueError(
            f"each category must hold at least {least} items to be resampled; too few in {', '.join(small)}"
        )
    return members


def _finite(name: str, values: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite; {int((~np.isfinite(values)).sum())} of {values.size} entries are not"
        )


def bootstrap_difference(
    differences: Float[np.ndarray, " items"],
    strata: Shaped[np.ndarray, " items"],
    *,
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    r"""Mean over items of paired differences with a bootstrap interval over items within category.

    Resampled category means are spread about their mean by $\sqrt{n_c / (n_c - 1)}$, so that their variance is the unbiased one also
    in small categories (Rao and Wu, 1988), and all by the ratio of Student's quantile (items less categories degrees of freedom) to
    the normal one, so that a handful of items gives a wide interval; percentiles.

    Args:
        differences: one an item, second minus first.
        strata: category of each item.

    Raises:
        ValueError: entries not finite, a category of one item, fewer than 100 draws.
    """
    checks.whole("draws", draws, 100)
    _finite("differences", differences)
    rng, members = np.random.default_rng(seed), _groups(strata, 2)
    spread = np.zeros(draws)
    for index in members:
        values, n = differences[index].astype(float), len(index)
        means = values[rng.integers(n, size=(draws, n))].mean(1)
        spread += n / len(differences) * (means - values.mean()) * np.sqrt(n / (n - 1))
    few = stats.t.ppf(0.975, len(differences) - len(members)) / Z
    estimate = float(np.mean(differences))
    lo, hi = estimate + few * np.quantile(spread, [0.025, 0.975])
    return Estimate(estimate, float(lo), float(hi), len(differences))


def share_difference(
    differences: Float[np.ndarray, " items"], strata: Shaped[np.ndarray, " items"]
) -> Estimate:
    """As `bootstrap_difference`, of differences of shares (-1 to 1): at either end the wider of its interval and `signed_interval`."""
    found = bootstrap_difference(differences, strata)
    lo, hi = signed_interval(
        float(differences.clip(0).sum()), float((-differences).clip(0).sum()), len(differences)
    )
    return Estimate(found.estimate, min(lo, found.lo), max(hi, found.hi), found.n)


@dataclass(frozen=True)
class Shift:
    """Mean shift with its interval, the p values of a sign-flip and of a Wilcoxon test, and the number of items."""

    estimate: float
    lo: float
    hi: float
    p_flip: float
    p_wilcoxon: float
    n: int


def sign_flip(values: Float[np.ndarray, " items"], draws: int = 4000, seed: int = 0) -> float:
    """Two-sided p of the mean of `values` when each has either sign with equal chance; at least 1 / (draws + 1).

    Exact under the null that the differences are symmetric about zero, as they are when the two conditions are exchangeable. All
    zero: p = 1.
    """
    _finite("values", values)
    signs = np.random.default_rng(seed).integers(0, 2, size=(draws, len(values)), dtype=np.int8) * 2 - 1
    means = np.abs(signs @ values.astype(float))
    own = abs(float(values.sum()))
    return float((1 + (means >= own - 1e-9 * (1 + own)).sum()) / (draws + 1))


def log_probability_shift(
    first: Float[np.ndarray, " items"],
    second: Float[np.ndarray, " items"],
    strata: Shaped[np.ndarray, " items"],
    *,
    draws: int = 4000,
    seed: int = 0,
) -> Shift:
    """Shift of the log-probability (nats) of the same answers from one condition to the other: the primary outcome.

    `first` and `second` are the log-probabilities of each item's first answer under two contexts that differ in the critic only:
    for the effect of a critic, no critic and a positive (or a negative) one; for the contrast, a negative and a positive one. An
    effect of merely being asked again is in both of the last two and drops out of their contrast.

    Raises:
        ValueError: different numbers of items, entries not finite, a category of one item.
    """
    if not len(first) == len(second) == len(strata):
        raise ValueError(
            f"first, second and strata must be of the same items, got {len(first)}, {len(second)}, {len(strata)}"
        )
    change = second.astype(float) - first
    mean = bootstrap_difference(change, strata, draws=draws, seed=seed)
    wilcoxon = float(stats.wilcoxon(change).pvalue) if change.any() else 1.0
    return Shift(mean.estimate, mean.lo, mean.hi, sign_flip(change, draws, seed), wilcoxon, mean.n)
