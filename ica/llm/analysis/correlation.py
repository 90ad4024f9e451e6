r"""Does gain go with self-checking over the categories? A correlation of 9 to 11 points, and what it can carry.

**A warning that belongs beside every figure made of this.** Nine to eleven categories carry a correlation only if it is large: of
11 points $|r|$ must pass 0.60 for p < 0.05, of 9 points 0.67, and one category can make or undo it. Two effects bend it besides.
Noise in the category means draws it towards 0. And gain and self-check accuracy share the first answers: where a model
calls every answer wrong, self-check accuracy *is* one minus first accuracy and gain falls with first accuracy, so the two
correlate without any self-correction, by chance in the items alone (in a simulation the usual permutation test rejects in two of
three runs) and by true differences in first accuracy between categories. Against chance in the items there are `corrected` and
`p_apart` below; against true differences nothing here helps: compare with the gain of a control that was merely asked again.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

from ica import checks
from ica.llm.analysis.statistics import _finite, _groups, _level

KINDS = ("pearson", "spearman")


@dataclass(frozen=True)
class Correlation:
    """Correlation over categories of two category means.

    Attributes:
        estimate: of the means as measured, the figure usually shown.
        p: two-sided permutation p of it, the categories of y permuted. It knows nothing of noise that x and y share.
        p_apart: the same with x and y from disjoint halves of each category's items, twice the median over random splits: valid
            also if x and y share noise within an item, and conservative.
        corrected: correlation of the true means, sampling (co)variance of the items taken off by the method of moments.
        lo, hi: bootstrap interval for the correlation of the true means, over items within category.
        categories: how many.

    Where x or y is the same in every category: estimate and corrected NaN, both p 1, interval -1 to 1.
    """

    estimate: float
    p: float
    p_apart: float
    corrected: float
    lo: float
    hi: float
    categories: int


def correlate(
    x: Float[np.ndarray, "*#rows categories"],
    y: Float[np.ndarray, "*#rows categories"],
    kind: str = "pearson",
) -> Float[np.ndarray, "*rows"]:
    """Correlation along the last axis, row by row; NaN where x or y is constant. Spearman: of midranks."""
    checks.one_of("kind", kind, KINDS)
    if kind == "spearman":
        x, y = stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    flat = (np.ptp(x, axis=-1) < 1e-12) | (np.ptp(y, axis=-1) < 1e-12)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(flat, np.nan, np.clip((a * b).sum(-1) / np.where(flat, 1.0, scale), -1, 1))


def permutation_p(
    x: Float[np.ndarray, " categories"],
    y: Float[np.ndarray, " categories"],
    kind: str,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of a correlation when y is permuted; 1 if x or y is constant, at least 1 / (draws + 1)."""
    own = abs(float(correlate(x, y, kind)))
    if np.isnan(own):
        return 1.0
    orders = rng.permuted(np.tile(np.arange(len(y)), (draws, 1)), axis=1)
    return float((1 + (np.abs(correlate(x, y[orders], kind)) >= own - 1e-12).sum()) / (draws + 1))


def _apart_p(
    x: Float[np.ndarray, " items"],
    y: Float[np.ndarray, " items"],
    members: list[Int[np.ndarray, " _"]],
    kind: str,
    splits: int,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Twice the median over random splits of the permutation p of x in one half of the items and y in the other.

    Twice the median of p values of one hypothesis is a valid p however they depend on each other (Meinshausen et al., 2009).
    """
    p = []
    for _ in range(splits):
        halves = [np.array_split(rng.permutation(index), 2) for index in members]
        xs, ys = (
            np.array([v[half[k]].mean() for half in halves])
            for k, v in enumerate((x.astype(float), y.astype(float)))
        )
        p.append(permutation_p(xs, ys, kind, draws, rng))
    return float(min(1.0, 2 * np.median(p)))


def _corrected(
    x: Float[np.ndarray, "*rows categories"],
    y: Float[np.ndarray, "*rows categories"],
    noise: Float[np.ndarray, "2 2"],
) -> Float[np.ndarray, "*rows"]:
    """Correlation after taking `noise` off the covariance of the means; its sign alone if no variance is left."""
    a, b = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    n = x.shape[-1] - 1
    vx, vy = (a**2).sum(-1) / n - noise[0, 0], (b**2).sum(-1) / n - noise[1, 1]
    shared = (a * b).sum(-1) / n - noise[0, 1]
    left = (vx > 0) & (vy > 0)
    scaled = shared / np.sqrt(np.where(left, vx * vy, 1.0))
    return np.where(left, np.clip(scaled, -1, 1), np.sign(shared))


def _as_kind(r: Float[np.ndarray, "*rows"], kind: str, n: int) -> Float[np.ndarray, "*rows"]:
    """A Pearson correlation, or the mean Spearman correlation of n normal points that have it (Moran, 1948)."""
    if kind == "pearson":
        return r
    return np.asarray(6 / (np.pi * (n + 1)) * (np.arcsin(r) + (n - 2) * np.arcsin(r / 2)))


def correlation_over_categories(
    x: Float[np.ndarray, " items"],
    y: Float[np.ndarray, " items"],
    strata: Shaped[np.ndarray, " items"],
    *,
    kind: str = "pearson",
    splits: int = 25,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Correlation:
    r"""Correlation over categories of the category means of two quantities measured on the same items.

    Nine to eleven points carry it: read the warning at the head of this module.

    With $S$ the covariance of the K measured means over categories and $w$ the mean over categories of $s_c / n_c$ ($s_c$ the 2 by 2
    covariance of (x, y) over the $n_c$ items), $S - w$ estimates the covariance of the true means: `corrected` is its
    correlation. Resampled means carry the noise twice, so the interval holds the percentiles of the correlation of $S^* - 2w$. It
    speaks of other items of these categories, not of other categories. For Spearman, `corrected` and the interval are those of Pearson
    turned into the rank correlations that K normal points have in the mean.

    Args:
        x, y: per item, for instance agreement of the self-check with the truth (0 or 1), and gain (-1, 0, 1).
        strata: category of each item.
        kind: "pearson" or "spearman".

    Raises:
        ValueError: fewer than 4 categories, a category of fewer than 4 items, entries not finite, an unknown kind.
    """
    checks.one_of("kind", kind, KINDS)
    checks.whole("draws", draws, 100)
    checks.whole("splits", splits, 1)
    tail = (1 - _level(level)) / 2
    if not len(x) == len(y) == len(strata):
        raise ValueError(
            f"x, y and strata must be of the same items, got {len(x)}, {len(y)} and {len(strata)}"
        )
    for name, values in (("x", x), ("y", y)):
        _finite(name, values)
    members = _groups(strata, 4)
    if len(members) < 4:
        raise ValueError(
            f"strata must hold at least 4 categories for a correlation over them, got {len(members)}"
        )
    rng, noise, resampled = np.random.default_rng(seed), np.zeros((2, 2)), np.empty((2, draws, len(members)))
    means = np.array([[v[index].mean() for index in members] for v in (x, y)])
    for k, index in enumerate(members):
        noise += np.cov(x[index], y[index]) / (len(index) * len(members))
        pick = rng.choice(index, size=(draws, len(index)))
        resampled[:, :, k] = x[pick].mean(1), y[pick].mean(1)
    estimate = float(correlate(*means, kind))
    if np.isnan(estimate):
        return Correlation(estimate, 1.0, 1.0, estimate, -1.0, 1.0, len(members))
    p = permutation_p(*means, kind, draws, rng)
    p_apart = _apart_p(x, y, members, kind, splits, draws, rng)
    n = len(members)
    corrected = float(_as_kind(_corrected(*means, noise), kind, n))
    lo, hi = np.quantile(_as_kind(_corrected(*resampled, 2 * noise), kind, n), [tail, 1 - tail])
    return Correlation(estimate, p, p_apart, corrected, float(lo), float(hi), n)
