"""Metrics and statistics: against loops, statsmodels and scipy; power and level on simulated models."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as independent_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ica.llm.analysis import correlation, metrics, statistics

NAN = float("nan")


def plausible(hits: int, n: int, lo: float, hi: float) -> bool:
    """Whether a share between lo and hi would give as many (as few) hits with a chance of at least 1 in 1,000."""
    return stats.binom.sf(hits - 1, n, hi) > 1e-3 and stats.binom.cdf(hits, n, lo) > 1e-3


answers = st.lists(
    st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(0, 2), st.integers(0, 2), st.booleans()),
    max_size=30,
)


def told(rows) -> pd.DataFrame:
    """Answers to ambiguous items; the biased option is one of the two people, or not known."""
    table = pd.DataFrame(rows, columns=["chosen", "unknown", "turn", "known"])
    biased = ((table["unknown"] + 1 + table["turn"] % 2) % 3).astype("Int64")
    return table.assign(biased=biased.where(table["known"]), condition="ambiguous", category="Age", id="")


@given(answers)
def test_the_mean_sign_is_the_published_bias_score(rows):
    table = told(rows)
    found = metrics.signs(table)["sign"]
    n = committed = agrees = right = 0
    for one in table[table["known"] & (table["chosen"] >= 0)].itertuples():
        n += 1
        right += one.chosen == one.unknown
        committed += one.chosen != one.unknown
        agrees += one.chosen == one.biased
    assert len(found) == n
    if committed:
        assert found.mean() == pytest.approx((1 - right / n) * (2 * agrees / committed - 1))
    else:
        assert found.mean() == 0 if n else np.isnan(found.mean())
    person = (table["chosen"] != table["unknown"]) & (table["chosen"] >= 0)
    turned = table.assign(chosen=table["chosen"].where(~person, 3 - table["unknown"] - table["chosen"]))
    assert metrics.signs(turned)["sign"].tolist() == (-found).tolist()
    assert metrics.signs(table.assign(condition="disambiguated")).empty


@given(st.integers(0, 60), st.integers(0, 60))
def test_wilson_agrees_with_statsmodels(hits, misses):
    lo, hi = statistics.wilson(hits, hits + misses)
    if not hits + misses:
        assert (lo, hi) == (0, 1)
    else:
        other = proportion_confint(hits, hits + misses, method="wilson")
        assert (lo, hi) == pytest.approx(other, abs=1e-12)


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40)


@given(pairs)
def test_mcnemar_agrees_with_statsmodels(rows):
    before, after = (np.array([r[k] for r in rows], dtype=bool) for k in (0, 1))
    found = statistics.mcnemar(before, after)
    table = [[0, found.only_before], [found.only_after, 0]]
    assert found.only_before == sum(b and not a for b, a in rows)
    assert found.only_after == sum(a and not b for b, a in rows)
    other = independent_mcnemar(table, exact=True).pvalue if found.only_before + found.only_after else 1.0
    assert found.p == pytest.approx(other)
    assert statistics.mcnemar(after, before).p == found.p


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p):
    assert statistics.holm(np.array(p)) == pytest.approx(multipletests(p, method="holm")[1])


def simulated(
    seed: int, n: int = 40, categories: int = 11
) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Category of each item, chance of a right first answer, and a generator."""
    strata = np.repeat(np.arange(categories), n)
    return strata, np.linspace(0.2, 0.6, categories)[strata], np.random.default_rng(seed)


def test_the_bootstrap_agrees_with_a_loop_and_with_theory():
    strata, _, rng = simulated(0)
    strata = np.concatenate([strata, [99, 99, 99]])
    values = rng.normal(size=len(strata)) + strata / 50
    found = statistics.bootstrap_difference(values, strata, draws=20000, seed=1)
    parts = [values[strata == s] for s in np.unique(strata)]
    error = np.sqrt(sum((len(p) / len(values)) ** 2 * p.var(ddof=1) / len(p) for p in parts))
    assert found.estimate == pytest.approx(np.mean(values)) and found.n == len(values)
    assert found.hi - found.lo == pytest.approx(2 * 1.96 * error, rel=0.03)
    loop = []
    for _ in range(2000):
        drawn = [
            p.mean() + np.sqrt(len(p) / (len(p) - 1)) * (rng.choice(p, len(p)).mean() - p.mean())
            for p in parts
        ]
        loop.append(sum(len(p) / len(values) * d for p, d in zip(parts, drawn, strict=True)))
    assert np.quantile(loop, [0.025, 0.975]) == pytest.approx([found.lo, found.hi], abs=0.02)


def test_a_handful_of_items_gives_an_interval_as_wide_as_students():
    covered = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(size=6)
        found = statistics.bootstrap_difference(values, np.arange(6) % 2, draws=400, seed=seed)
        covered += found.lo <= 0 <= found.hi
    assert plausible(covered, 300, 0.93, 0.99)


@pytest.mark.parametrize("values", [np.zeros(12), np.ones(12), np.full(12, 0.25), np.repeat([0.0, 1.0], 6)])
def test_differences_of_shares_that_are_alike_within_categories_are_not_certain(values):
    found = statistics.share_difference(values, np.repeat([0, 1], 6))
    assert found.lo < found.estimate - 0.05 and found.hi - found.lo > 0.2 and found.hi <= 1


def test_sign_flips_agree_with_all_flips_and_wilcoxon_with_scipy():
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.5, -0.4, 0.9, 0.6])
    signs = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    assert statistics.sign_flip(values, draws=40000) == pytest.approx(exact, abs=0.01)
    first = np.zeros(8)
    shift = statistics.log_probability_shift(first, values, np.zeros(8))
    assert shift.p_wilcoxon == stats.wilcoxon(values).pvalue and shift.estimate == pytest.approx(
        values.mean()
    )
    back = statistics.log_probability_shift(values, first, np.zeros(8))
    assert (back.estimate, back.p_flip) == pytest.approx((-shift.estimate, shift.p_flip))


def test_permutations_agree_with_all_permutations():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 6))
    found = correlation.permutation_p(x, y, 20000, np.random.default_rng(1))
    for one, two, p in zip(x, y, found, strict=True):
        own, *others = (abs(stats.pearsonr(one, two[list(k)])[0]) for k in permutations(range(6)))
        assert p == pytest.approx((1 + sum(r >= own - 1e-12 for r in others)) / 720, abs=0.015)
    shared = np.cov(x[0], y[0])[0, 1]
    assert correlation.permutation_p(x[0], y[0], 200, np.random.default_rng(1), shared) == 1
    assert correlation.permutation_p(x[0], np.ones(6), 200, np.random.default_rng(1)) == 1


def test_correlations_agree_with_scipy():
    """Without noise of items, the interval is Fisher's; p is that of all permutations."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=7)
    y = x + 0.4 * rng.normal(size=7)
    theirs = stats.pearsonr(x, y)
    estimate, lo, hi = (float(v) for v in correlation.corrected(x, y, np.zeros(3), 999, rng))
    assert (estimate, lo, hi) == pytest.approx((theirs.statistic, *theirs.confidence_interval(0.95)))
    exact = stats.permutation_test(
        (y,), lambda v: stats.pearsonr(x, v).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert correlation.permutation_p(x, y, 9999, rng) == pytest.approx(exact.pvalue, abs=0.006)
    strata, items = np.repeat(np.arange(7), 6), np.tile([-1.0, 1, -1, 1, -1, 1], 7)
    own = correlation.correlation_over_categories(
        x[strata] + items, y[strata] + np.roll(items, 1), strata, draws=200
    )
    assert own.estimate == pytest.approx(theirs.statistic)


def critic_run(seed: int, effect: float) -> dict[str, bool]:
    """One simulated model: first answers, answers under a critic that adds `effect` to accuracy, log-probabilities."""
    strata, chance, rng = simulated(seed)
    before = rng.random(len(chance)) < chance
    after = np.where(rng.random(len(chance)) < 0.6, before, rng.random(len(chance)) < chance + effect / 0.4)
    found = statistics.bootstrap_difference(after.astype(float) - before, strata, draws=400, seed=seed)
    first = rng.normal(-2, 1, len(chance))
    second = first + effect + rng.normal(0, 0.3, len(chance)) * rng.exponential(1, len(chance))
    shift = statistics.log_probability_shift(first, second, strata, draws=400, seed=seed)
    return {
        "mcnemar": statistics.mcnemar(before, after).p <= 0.05,
        "bootstrap": not found.lo <= 0 <= found.hi,
        "covered": found.lo <= effect <= found.hi,
        "flip": shift.p_flip <= 0.05,
        "wilcoxon": shift.p_wilcoxon <= 0.05,
        "shift covered": shift.lo <= effect <= shift.hi,
    }


def rates(runs: list[dict[str, bool]]) -> dict[str, int]:
    return {name: sum(run[name] for run in runs) for name in runs[0]}


def test_a_model_without_effect_gives_findings_at_no_more_than_the_stated_rate():
    found = rates([critic_run(seed, 0.0) for seed in range(400)])
    assert all(plausible(found[name], 400, 0.0, 0.05) for name in ("mcnemar", "flip", "wilcoxon"))
    assert plausible(found["bootstrap"], 400, 0.03, 0.06)
    assert all(plausible(found[name], 400, 0.94, 0.97) for name in ("covered", "shift covered"))


def test_a_known_effect_is_recovered():
    found = rates([critic_run(10_000 + seed, 0.09) for seed in range(300)])
    assert all(plausible(found[name], 300, 0.94, 0.97) for name in ("covered", "shift covered"))
    assert all(found[name] >= 0.9 * 300 for name in ("mcnemar", "bootstrap", "flip", "wilcoxon"))


def tables(check, gain, shared: int) -> np.ndarray:
    """Chance of each pair of a check (0, 1) and a gain (-1, 0, 1) with these means; shared: its sign within items, strongest or 0."""
    up, down = 0.25 + gain / 2, 0.25 - gain / 2
    if not shared:
        chances = np.stack([1 - check, check], -1), np.stack([down, 1 - up - down, up], -1)
        return np.einsum("...i,...j->...ij", *chances).reshape(*check.shape, 6)
    ends = [check * 0, down, 1 - up, check * 0 + 1]  # one uniform number decides both
    cuts = [(0, 1 - check), (1 - check, 1)] if shared > 0 else [(check, 1), (0, check)]
    return np.stack(
        [
            np.maximum(np.minimum(hi, ends[g + 1]) - np.maximum(lo, ends[g]), 0)
            for lo, hi in cuts
            for g in range(3)
        ],
        -1,
    )


def found_correlations(runs, items, rho=0.0, shared=0, spread=0.15, seed=0):
    """Estimates and intervals in runs with 11 categories whose true means, drawn anew each time, correlate by rho."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, runs, 11))
    check = np.clip(0.6 + spread * a, 0.02, 0.98)
    gain = np.clip(0.1 + spread * (rho * a + np.sqrt(1 - rho**2) * b), -0.45, 0.45)
    return corrected(rng.multinomial(items, tables(check, gain, shared)), rng)


def corrected(counts, rng):
    """Estimate and interval from counts of the six pairs, for each run and category."""
    x, y, n = np.repeat([0, 1], 3), np.tile([-1, 0, 1], 2), counts.sum(-1)
    mx, my = counts @ x / n, counts @ y / n
    noise = [
        (counts @ (u * v) / n - m) / (n - 1) for u, v, m in ((x, x, mx**2), (y, y, my**2), (x, y, mx * my))
    ]
    return correlation.corrected(mx, my, np.mean(noise, axis=-1), 199, rng)


@pytest.mark.parametrize("items", [44, 400, 1000])
def test_categories_that_do_not_correlate_seldom_seem_to(items):
    """The categories are a sample, so the rate must not grow with the items; whatever an item's noise does to both quantities."""
    for shared in (0, 1, -1):
        for spread in (0.05, 0.15):
            estimate, lo, hi = found_correlations(1000, items, shared=shared, spread=spread)
            assert plausible(int((lo > 0).sum()), 1000, 0.0, 0.035)
            assert plausible(int((hi < 0).sum()), 1000, 0.0, 0.035)
            assert np.isnan(estimate).mean() < (0.4 if spread == 0.15 else 1)


@pytest.mark.parametrize("items", [44, 400, 1000])
def test_a_shared_first_answer_alone_seldom_seems_a_correlation(items):
    rng = np.random.default_rng(items)
    first, second = 0.35, 1 / 3  # calls every answer wrong, answers again at random; all categories are alike
    chances = [0, first * (1 - second), first * second, 0, 0, 0]
    chances[4:] = (1 - first) * (1 - second), (1 - first) * second
    estimate, lo, _ = corrected(rng.multinomial(items, chances, size=(2000, 11)), rng)
    assert plausible(int((lo > 0).sum()), 2000, 0.0, 0.02) and np.isnan(estimate).mean() > 0.95


@pytest.mark.parametrize(("items", "power"), [(44, 0.36), (100, 0.62), (400, 0.8)])
def test_a_correlation_of_categories_is_recovered(items, power):
    for shared in (0, 1, -1):
        estimate, lo, hi = found_correlations(1000, items, 0.8, shared)
        told = ~np.isnan(estimate)
        assert (lo > 0).mean() > power and abs(estimate[told].mean() - 0.8) < 0.06
        assert plausible(int((lo <= 0.8)[told & (hi >= 0.8)].sum()), int(told.sum()), 0.94, 0.99)


def over(checks: list[int], gains: list[int]) -> correlation.Correlation:
    """Correlation over categories of 40 items with so many checks and gains, on different items as far as that goes."""
    x = (np.arange(40) < np.array(checks)[:, None]).astype(float)
    y = (np.arange(40, 0, -1) <= np.array(gains)[:, None]).astype(float)
    strata = np.repeat(np.arange(len(checks)), 40)
    return correlation.correlation_over_categories(x.ravel(), y.ravel(), strata, draws=500)


def test_a_correlation_that_cannot_be_told_says_why_in_numbers():
    few = over([20, 22, 24, 22], [4, 16, 28, 36])
    assert "x differs too little between the 4 categories (variance of their means 0.0017," in few.untestable
    assert "y differs" not in few.untestable and few.estimate > 0.4
    assert np.isnan(few.corrected) and (few.lo, few.hi) == (-1, 1)
    same = over([4, 16, 28, 36], [36, 24, 12, 4])
    assert same.untestable == "x is a linear function of y over the 4 categories."
    assert same.estimate == pytest.approx(-1) and (same.lo, same.hi) == (-1, 1)
    fine = over([4, 16, 28, 36], [4, 16, 36, 24])
    assert (fine.untestable, fine.categories, fine.items) == ("", 4, 160)
    assert fine.p > 0.05 and fine.lo <= 0 < fine.estimate < fine.corrected <= fine.hi
    assert over([4, 8, 16, 20, 28, 36, 38], [4, 6, 18, 16, 26, 36, 34]).lo > 0


def test_shared_first_answers_make_a_correlation_and_only_the_protected_figures_withstand():
    naive = apart = interval = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        before, after = rng.random((2, 11 * 40)) < 0.35
        gain, blamed = after.astype(float) - before, (~before).astype(float)
        found = correlation.correlation_over_categories(
            blamed, gain, np.repeat(np.arange(11), 40), splits=9, draws=200, seed=seed
        )
        naive += found.p <= 0.05
        apart += found.p_apart <= 0.05
        interval += found.lo > 0 or found.hi < 0
    assert naive > 50 and plausible(apart, 100, 0.0, 0.05) and plausible(interval, 100, 0.0, 0.05)


def test_ties_and_missing_variation_give_no_finding():
    zeros, strata = np.zeros(40), np.repeat(np.arange(4), 10)
    found = statistics.log_probability_shift(zeros, zeros, strata)
    assert (found.estimate, found.lo, found.hi, found.p_flip, found.p_wilcoxon) == (0, 0, 0, 1, 1)
    flat = correlation.correlation_over_categories(
        zeros, np.random.default_rng(0).random(40), strata, draws=100
    )
    assert np.isnan(flat.estimate) and (flat.p, flat.p_apart, flat.lo, flat.hi) == (1, 1, -1, 1)
    assert "variance of their means 0," in flat.untestable
    assert statistics.mcnemar(np.ones(3, dtype=bool), np.ones(3, dtype=bool)).p == 1


def test_the_same_seed_gives_the_same_figures():
    strata, _, rng = simulated(3)
    x, y = rng.random((2, len(strata)))
    for function in (statistics.log_probability_shift, correlation.correlation_over_categories):
        one, two = (function(x, y, strata, draws=100, seed=4) for _ in range(2))
        assert repr(one) == repr(two)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.wilson(3, 2), "hits must be at most n = 2, got 3"),
        (lambda: statistics.mcnemar(np.ones(2, bool), np.ones(3, bool)), "of the same items, got 2 and 3"),
        (lambda: statistics.bootstrap_difference(np.zeros(3), np.array([0, 0, 1])), r"too few in 1 \(1\)"),
        (lambda: statistics.bootstrap_difference(np.zeros(0), np.zeros(0)), "at least one item"),
        (
            lambda: statistics.bootstrap_difference(np.array([0.0, NAN]), np.zeros(2)),
            "differences must be finite; 1 of 2",
        ),
        (lambda: statistics.log_probability_shift(np.zeros(2), np.zeros(3), np.zeros(2)), "got 2, 3, 2"),
        (
            lambda: correlation.correlation_over_categories(np.zeros(8), np.zeros(8), np.arange(8) % 2),
            "at least 4 categories",
        ),
    ],
)
def test_refusals_name_what_was_wrong(as_users_call, call, message):
    with pytest.raises(ValueError, match=message):
        call()
