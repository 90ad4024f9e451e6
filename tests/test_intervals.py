"""Intervals cover what they say they cover, and agree with statsmodels and scipy where these have them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from ica.intervals import against_one_run, mean_interval, median_interval, paired_ratio, ratio_interval

COUNT = {3: 4000, 5: 2400, 20: 800}  # repetitions, by the number of seeds
# variances of the seeds' effects, the prompts' and the residual, each in units of what it adds to the mean
PARTS = {
    "seeds": (0.9, 0.08, 0.02),
    "mixed": (0.3, 0.7, 0.0),
    "mixed, residual": (0.4, 0.4, 0.2),
    "prompts": (0.05, 0.9, 0.05),
    "residual": (0.1, 0.1, 0.8),
    "residual alone": (0.0, 0.0, 1.0),
}


def gaussian(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def skewed(generator, *shape):
    """Exponential, with mean 0 and variance 1."""
    return torch.empty(*shape, dtype=torch.float64).exponential_(generator=generator) - 1


def crossed(generator, sizes, spread, of_prompts=gaussian):
    """Tables [seeds, prompts, repetitions] around 0, with these standard deviations of the effects."""
    seeds, prompts, count = sizes
    of_seeds, by_prompt, rest = spread
    table = rest * gaussian(generator, *sizes)
    table += of_seeds * gaussian(generator, seeds, 1, count)
    return table + by_prompt * of_prompts(generator, 1, prompts, count)


def share(lo, hi):
    return ((lo <= 0) & (0 <= hi)).double().mean().item()


@pytest.mark.parametrize("prompts", [64, 256])
@pytest.mark.parametrize("seeds", [3, 5, 20])
@pytest.mark.parametrize("parts", [*PARTS, "skewed prompts"])
def test_mean_interval_covers_as_often_as_it_says(parts, seeds, prompts):
    generator, units = torch.Generator().manual_seed(seeds), (seeds, prompts, seeds * prompts)
    of_prompts = skewed if parts == "skewed prompts" else gaussian
    spread = [math.sqrt(v * n) for v, n in zip(PARTS.get(parts, PARTS["prompts"]), units, strict=True)]
    mean, lo, hi = mean_interval(crossed(generator, (seeds, prompts, COUNT[seeds]), spread, of_prompts))
    assert (lo <= mean).all() and (mean <= hi).all()
    assert 0.93 <= share(lo, hi) <= 0.98


@pytest.mark.parametrize(
    "sizes", [(3, 64, 64), (5, 64, 64), (20, 64, 64), (5, 256, 256), (5, 50, 64), (5, 64, 16)]
)
@pytest.mark.parametrize("spread", [(1, 1, 1), (0.125, 1, 0.3), (0.04, 1, 0.3), (0, 0, 1)])
def test_a_number_of_one_run_is_not_taken_as_exact(spread, sizes):
    seeds, prompts, other = sizes
    generator, count = torch.Generator().manual_seed(seeds), COUNT[seeds]
    values = crossed(generator, (seeds, prompts, count), spread)
    number = crossed(generator, (1, other, count), spread).mean((0, 1))
    assert 0.93 <= share(*against_one_run(values, number, prompts=other)[1:]) <= 0.98
    _, lo, hi = mean_interval(values)
    assert share(lo - number, hi - number) < 0.92


def test_a_number_is_taken_from_the_mean_and_two_runs_suffice():
    values = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    number = torch.tensor([0.7, -0.2, 3.0], dtype=torch.float64)
    mean, lo, hi = against_one_run(values, number)
    torch.testing.assert_close(mean, values.mean((0, 1)) - number)
    torch.testing.assert_close((lo + hi) / 2, mean)
    for same, other in zip(against_one_run(values, number, prompts=256), (mean, lo, hi), strict=True):
        assert torch.equal(same, other)
    wide = against_one_run(values, number, prompts=1)
    assert (wide[2] - wide[1] > hi - lo).all()
    with pytest.raises(ValueError, match="^values must be finite"):
        against_one_run(values * torch.inf, number)


def test_the_spread_of_one_run_may_come_from_others():
    """A mean over prompts alone, as of the minimiser, against a number of a run that varies as others do."""
    generator, spread, count = torch.Generator().manual_seed(0), (0.02, 0.3, 0.1), 1000
    values = crossed(generator, (1, 1000, count), (0, 0.3, 0))
    number = crossed(generator, (1, 256, count), spread).mean((0, 1))
    like = crossed(generator, (5, 200, count), spread)
    assert 0.93 <= share(*against_one_run(values, number, like)[1:]) <= 0.98


def test_one_seed_gives_students_interval_over_prompts():
    row = gaussian(torch.Generator().manual_seed(0), 1, 30)
    _, lo, hi = mean_interval(row, level=0.9)
    expected = stats.ttest_1samp(row[0].numpy(), 0).confidence_interval(0.9)
    assert (lo.item(), hi.item()) == pytest.approx(tuple(expected))


# Coverage of Student's 95 % interval over so many independent replicates, 20,000 repetitions (standard error
# 0.002): with exponential effects, skewness 2, and with squares of Gaussian ones, skewness 2.8.
SKEWED = {
    ("exponential", 20): 0.919,
    ("exponential", 40): 0.932,
    ("square", 20): 0.891,
    ("square", 40): 0.918,
}


@pytest.mark.parametrize(("effects", "seeds"), SKEWED)
def test_replicates_with_skewed_effects_are_covered_nearly_as_often_as_it_says(effects, seeds):
    """Many small runs, each judged on prompts of its own: one row of means for `mean_interval`."""
    generator = torch.Generator().manual_seed(seeds)
    draw = skewed if effects == "exponential" else lambda g, *shape: gaussian(g, *shape).square() - 1
    _, lo, hi = mean_interval(draw(generator, 1, seeds, 20_000))
    assert share(lo, hi) == pytest.approx(SKEWED[effects, seeds], abs=0.007)
    assert (hi < 0).double().mean() > 5 * (
        lo > 0
    ).double().mean()  # it misses on the side of few large values


def test_a_paired_difference_of_replicates_is_covered_as_often_as_it_says():
    """Two configurations whose seeds share their prompts: the skewed part that they share falls out."""
    generator = torch.Generator().manual_seed(0)
    shared = skewed(generator, 1, 20, 20_000)
    first, second = (shared + 0.5 * gaussian(generator, 1, 20, 20_000) for _ in range(2))
    _, lo, hi = mean_interval(first - second)
    assert share(lo, hi) == pytest.approx(0.95, abs=0.006)
    _, wide_lo, wide_hi = mean_interval(first)
    assert (hi - lo).mean() < 0.75 * (wide_hi - wide_lo).mean()


@given(shift=st.floats(-10, 10), scale=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_mean_interval_follows_shift_and_scale_at_every_point(shift, scale, seed):
    values = gaussian(torch.Generator().manual_seed(seed), 4, 9, 3)
    plain, moved = (torch.stack(mean_interval(v)) for v in (values, scale * values + shift))
    torch.testing.assert_close(moved, scale * plain + shift)
    torch.testing.assert_close(torch.stack(mean_interval(values[..., 1])), plain[:, 1])


def test_paired_ratio_is_the_geometric_mean_with_students_interval():
    mean, lo, hi = paired_ratio([2.0, 8.0, 4.0], [1.0, 2.0, 2.0])
    assert mean == pytest.approx(2 ** (4 / 3))
    spread = math.log(2) * math.sqrt(((1 - 4 / 3) ** 2 * 2 + (2 - 4 / 3) ** 2) / 2) / math.sqrt(3)
    assert math.log(hi) == pytest.approx(math.log(mean) + 4.302653 * spread, rel=1e-6)
    assert math.log(lo) == pytest.approx(math.log(mean) - 4.302653 * spread, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval(torch.zeros(2, 1)), "values must hold at least one seed and two prompts"),
        (lambda: mean_interval(torch.full((2, 3), float("nan"))), "values must be finite"),
        (lambda: mean_interval(torch.zeros(2, 3), level=1.0), "level must lie"),
        (lambda: against_one_run(torch.zeros(1, 3), 0.5), "values must hold at least two seeds"),
        (lambda: against_one_run(torch.zeros(1, 3), 0.5, torch.zeros(1, 3)), "like must hold at least two"),
        (lambda: against_one_run(torch.zeros(2, 3), 0.5, prompts=0), "prompts must be a whole number"),
        (lambda: paired_ratio([1.0], [1.0]), "at least two pairs"),
        (lambda: paired_ratio([1.0, -1.0], [1.0, 1.0]), "above must be"),
        (lambda: paired_ratio([1.0, 1.0], [1.0, 0.0]), "^below must be"),
        (lambda: paired_ratio([1.0, 1.0], [1.0, 1.0, 1.0]), "at least two pairs, got 2 and 3"),
        (lambda: ratio_interval([1.0], [1.0, 2.0]), "^above must"),
        (lambda: ratio_interval([1.0, 2.0], [1.0]), "^below must"),
        (lambda: ratio_interval([1.0, 0.0], [1.0, 2.0]), "^above must"),
        (lambda: ratio_interval([1.0, 2.0], [1.0, -2.0]), "^below must"),
        (lambda: median_interval([1.0] * 5), r"level 0.95 \(6 for 0.95\), got 5"),
    ],
)
def test_bad_samples_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_mean_interval_has_the_mean_squares_of_statsmodels():
    """The same two-way table as a linear model; half the width from its analysis of variance."""
    generator = torch.Generator().manual_seed(3)
    table = crossed(generator, (4, 9, 1), (0.6, 1.0, 0.5)).squeeze(-1)
    seed, prompt = np.indices(table.shape)
    frame = pd.DataFrame({"value": table.flatten(), "seed": seed.ravel(), "prompt": prompt.ravel()})
    squares = anova_lm(ols("value ~ C(seed) + C(prompt)", frame).fit())["mean_sq"]
    parts = squares["C(seed)"] / 36, (squares["C(prompt)"] - squares["Residual"]) / 36
    assert min(parts) > 0
    half = math.sqrt(sum(stats.t.ppf(0.975, df) ** 2 * part for df, part in zip((3, 8), parts, strict=True)))
    mean, lo, hi = mean_interval(table.unsqueeze(-1))
    assert ((hi - lo) / 2).item() == pytest.approx(half, rel=1e-12)
    assert mean.item() == pytest.approx(frame["value"].mean(), rel=1e-12)


def test_the_interval_of_one_run_is_students():
    values = torch.randn(1, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = [end.item() for end in mean_interval(values)[1:]]
    assert found == pytest.approx(DescrStatsW(values[0].numpy()).tconfint_mean(), rel=1e-12)


decades = st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=12, unique=True)


@given(decades, decades)
def test_ratios_agree_with_statsmodels(above, below):
    logs = [DescrStatsW(np.log(sample)) for sample in (above, below)]
    ends = CompareMeans(*logs).tconfint_diff(usevar="unequal")
    centre, *found = np.log(ratio_interval(above, below))
    assert found == pytest.approx(ends, rel=1e-9, abs=1e-9)
    assert centre == pytest.approx(logs[0].mean - logs[1].mean, rel=1e-9, abs=1e-9)
    pairs = list(zip(above, below, strict=False))
    first, second = (list(side) for side in zip(*pairs, strict=True))
    ends = DescrStatsW(np.log(first) - np.log(second)).tconfint_mean()
    assert np.log(paired_ratio(first, second)[1:]) == pytest.approx(ends, rel=1e-9, abs=1e-9)


def test_the_ratio_of_two_values_each_by_hand():
    """Welch's interval of mean logarithms 2 and 1/2, each from two values; unlike spreads, so not the pooled one."""
    above, below = [math.e, math.e**3], [1.0, math.e]
    ratio, lo, hi = ratio_interval(above, below)
    spread, free = math.sqrt(2 / 2 + 0.5 / 2), 1.25**2 / (1 + 0.25**2)
    assert math.log(ratio) == pytest.approx(1.5)
    assert [math.log(lo), math.log(hi)] == pytest.approx(1.5 + stats.t.ppf([0.025, 0.975], free) * spread)


@pytest.mark.parametrize("level", [0.3, 0.9, 0.95])
@pytest.mark.parametrize("n", range(6, 30))
def test_the_interval_of_a_median_is_that_of_scipys_quantile_test(n, level):
    values = np.random.default_rng(n).normal(size=n)
    found = stats.quantile_test(values, p=0.5).confidence_interval(level)
    assert median_interval(values.tolist(), level)[1:] == (found.low, found.high)
    assert median_interval(values.tolist(), level)[0] == np.median(values)
    assert median_interval(values.tolist()) == median_interval(values.tolist(), 0.95)
