"""Criteria: every verdict of every kind, at its edges, and what must hold whatever the numbers are."""

import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ica.record.criteria import (
    CONTRADICTED,
    MIXED,
    NEGLIGIBLE,
    OPEN,
    QUANTILE,
    SINGLE,
    SUPPORTED,
    UNTESTABLE,
    Criterion,
    combine,
)

MOST, LEAST, WITHIN = Criterion("<=", 1.0), Criterion(">=", 1.0), Criterion("within", (0.0, 1.0))
ABOVE, BELOW, DIFFERS = (Criterion(op, at=0.0, sesoi=0.1) for op in ("above", "below", "differs"))
MORE, LESS, OTHER = (Criterion(op, at=1.0, sesoi=1.25, scale="ratio") for op in ("above", "below", "differs"))
MIRROR = {
    "above": "below",
    "below": "above",
    "differs": "differs",
    "<=": ">=",
    ">=": "<=",
    "within": "within",
}


@pytest.mark.parametrize(
    ("criterion", "value", "interval", "verdict"),
    [
        (MOST, 1, None, SUPPORTED),
        (MOST, 1 + 1e-12, None, CONTRADICTED),
        (MOST, 0.5, (0.2, 1.0), SUPPORTED),
        (MOST, 0.5, (0.2, 1.1), OPEN),
        (MOST, 1.5, (1.0, 1.9), OPEN),
        (MOST, 1.5, (1.2, 1.9), CONTRADICTED),
        (MOST, 1.5, (0.2, 0.9), OPEN),  # a value outside its interval counts too
        (LEAST, 1, None, SUPPORTED),
        (LEAST, 0.9, None, CONTRADICTED),
        (LEAST, 1.5, (1.0, 2), SUPPORTED),
        (LEAST, 0.9, (0.5, 1.0), OPEN),
        (LEAST, 0.5, (0.2, 0.9), CONTRADICTED),
        (WITHIN, 0.5, (0, 1), SUPPORTED),
        (WITHIN, 0.5, (-0.1, 0.9), OPEN),
        (WITHIN, 0.5, (-1, 3), OPEN),
        (WITHIN, 2, (1.5, 2.5), CONTRADICTED),
        (WITHIN, -2, (-2.5, -1.5), CONTRADICTED),
        (ABOVE, 0.5, (0.11, 0.9), SUPPORTED),
        (ABOVE, 0.5, (0.1, 0.9), OPEN),  # on the edge no effect of interest is excluded yet
        (ABOVE, -0.5, (-0.9, -0.11), CONTRADICTED),
        (ABOVE, 0.05, (-0.1, 0.1), NEGLIGIBLE),
        (ABOVE, 0.05, (0.01, 0.09), NEGLIGIBLE),  # beyond zero, and too small to matter
        (ABOVE, 0.05, (-0.2, 0.2), OPEN),
        (BELOW, -0.5, (-0.9, -0.11), SUPPORTED),
        (BELOW, 0.5, (0.11, 0.9), CONTRADICTED),
        (BELOW, 0.0, (-0.1, 0.1), NEGLIGIBLE),
        (BELOW, -0.1, (-0.2, 0.0), OPEN),
        (DIFFERS, 0.5, (0.11, 0.9), SUPPORTED),
        (DIFFERS, -0.5, (-0.9, -0.11), SUPPORTED),
        (DIFFERS, 0.0, (-0.1, 0.1), NEGLIGIBLE),
        (DIFFERS, 0.1, (0.0, 0.2), OPEN),
        (MORE, 2, (1.3, 3), SUPPORTED),
        (MORE, 2, (1.25, 3), OPEN),
        (MORE, 0.5, (0.3, 0.79), CONTRADICTED),
        (MORE, 1, (0.8, 1.25), NEGLIGIBLE),
        (MORE, 1, (0.79, 1.25), OPEN),
        (LESS, 0.5, (0.3, 0.79), SUPPORTED),
        (LESS, 2, (1.3, 3), CONTRADICTED),
        (LESS, 1.1, (1.05, 1.2), NEGLIGIBLE),
        (LESS, 0.9, (0.5, 1.3), OPEN),
        (OTHER, 0.5, (0.3, 0.79), SUPPORTED),
        (OTHER, 2, (1.3, 3), SUPPORTED),
        (OTHER, 1, (0.9, 1.1), NEGLIGIBLE),
        (OTHER, 1.3, (1.0, 1.6), OPEN),
        (Criterion("above", at=2.0, sesoi=2.0, scale="ratio"), 5, (4.1, 6), SUPPORTED),
    ],
)
def test_verdict_on_one_part(criterion, value, interval, verdict):
    assert criterion.judge(value, interval) == verdict


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (Criterion("<=", 1e-12), "<= 1e-12"),
        (WITHIN, "within [0, 1]"),
        (ABOVE, "above 0 by 0.1"),
        (DIFFERS, "differs from 0 by 0.1"),
        (LESS, "below 1 by a factor of 1.25"),
    ],
)
def test_criterion_in_words(criterion, words):
    assert str(criterion) == words


def numbers(low, high):
    return st.floats(low, high, allow_nan=False)


@st.composite
def criteria(draw):
    op = draw(st.sampled_from(sorted(MIRROR)))
    if op in ("<=", ">="):
        return Criterion(op, draw(numbers(-5, 5)))
    if op == "within":
        low = draw(numbers(-5, 5))
        return Criterion(op, (low, low + draw(numbers(0, 5))))
    if draw(st.booleans()):
        return Criterion(op, at=draw(numbers(0.2, 5)), sesoi=draw(numbers(1.01, 4)), scale="ratio")
    return Criterion(op, at=draw(numbers(-5, 5)), sesoi=draw(numbers(0.01, 5)))


@st.composite
def symmetric(draw):
    """A criterion with a value and an interval that is symmetric around it, on the criterion's scale."""
    criterion = draw(criteria())
    value, half = draw(numbers(-8, 8)), draw(numbers(1e-3, 8))
    points = value, value - half, value + half
    if criterion.scale == "ratio":
        points = tuple(math.exp(point / 4) for point in points)
    return criterion, points[0], points[1:]


def clear(criterion, *points):
    """Rounding decides where an end of the interval lies on an end of the region: leave those cases out."""
    return all(abs(point - end) > 1e-6 * (1 + abs(end)) for point in points for end in criterion.region)


@given(symmetric())
def test_a_symmetric_interval_decides_exactly_where_p_is_at_most_5_percent(case):
    criterion, value, interval = case
    assume(clear(criterion, value, *interval))
    p = criterion.p_value(value, interval)
    assert 0 <= p <= 1
    assert (criterion.judge(value, interval) != OPEN) == (p <= 0.05)


def mirrored(criterion, value, interval):
    op, bound = MIRROR[criterion.op], criterion.bound
    if criterion.scale == "ratio":
        other = Criterion(op, at=1 / criterion.at, sesoi=criterion.sesoi, scale="ratio")
        return other, 1 / value, (1 / interval[1], 1 / interval[0])
    bound = (-bound[1], -bound[0]) if op == "within" else bound if bound is None else -bound
    at = None if criterion.at is None else -criterion.at
    return Criterion(op, bound, at=at, sesoi=criterion.sesoi), -value, (-interval[1], -interval[0])


@given(symmetric())
def test_a_mirrored_criterion_gives_the_mirrored_verdict(case):
    criterion, value, interval = case
    assume(clear(criterion, value, *interval))
    other, *points = mirrored(criterion, value, interval)
    assert other.judge(*points) == criterion.judge(value, interval)
    assert other.p_value(*points) == pytest.approx(criterion.p_value(value, interval), rel=1e-4, abs=1e-9)


@given(criteria(), numbers(-8, 8), *(numbers(0, 8),) * 4)
def test_a_wider_interval_never_decides_what_was_open_nor_turns_a_verdict(criterion, value, a, b, more, less):
    narrow = criterion.judge(value, (value - a, value + b))
    wide = criterion.judge(value, (value - a - less, value + b + more))
    assert wide in (narrow, OPEN)
    assert criterion.judge(value, None) != OPEN or criterion.op in ("above", "below", "differs")


@given(symmetric())
def test_evidence_beyond_the_decision_lowers_p(case):
    criterion, value, interval = case
    centre = math.sqrt(interval[0] * interval[1]) if criterion.scale == "ratio" else sum(interval) / 2
    near = tuple(
        math.sqrt(end * centre) if criterion.scale == "ratio" else (end + centre) / 2 for end in interval
    )
    assume(criterion.judge(value, interval) != OPEN)
    assert criterion.p_value(value, near) <= criterion.p_value(value, interval) + 1e-12


@pytest.mark.parametrize(
    ("criterion", "value", "interval", "away"),
    [  # away: from the end of the region that decides, in half-widths of the side that faces it
        (MOST, 0.5, (-3.0, 0.7), 0.5 / 0.2),
        (MOST, 1.5, (1.1, 9.0), 0.5 / 0.4),
        (LEAST, 1.5, (1.1, 9.0), 0.5 / 0.4),
        (LEAST, 0.5, (-3.0, 0.7), 0.5 / 0.2),
        (ABOVE, 1.0, (0.5, 3.0), 0.9 / 0.5),
        (ABOVE, -1.0, (-3.0, -0.5), 0.9 / 0.5),
        (MORE, 2.5, (2.0, 9.0), math.log(2) / math.log(1.25)),
    ],
)
def test_p_by_hand(criterion, value, interval, away):
    assert criterion.p_value(value, interval) == pytest.approx(math.erfc(away * QUANTILE / math.sqrt(2)))


@pytest.mark.parametrize("criterion", [MOST, LEAST, WITHIN, ABOVE, DIFFERS, MORE])
def test_an_interval_without_width_is_certain(criterion):
    for value in (-3.0, 0.0, 0.5, 1.0, 1.1, 4.0):
        p = criterion.p_value(value, (value, value))
        assert p == (1 if criterion.judge(value, (value, value)) == OPEN else 0)


def share(criterion, true, half, verdict=SUPPORTED, log=False, runs=4000):
    """How often samples of this true value, with intervals of this half-width, give the verdict."""
    draws = np.random.default_rng(0).normal(true, half / QUANTILE, runs)
    ends = np.stack([draws, draws - half, draws + half])
    if log:
        ends = np.exp(ends)
    return np.mean([criterion.judge(value, (lo, hi)) == verdict for value, lo, hi in ends.T])


def ends_of(words):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", words)]


@pytest.mark.parametrize(
    ("criterion", "half"),
    [
        (MOST, 0.3),
        (LEAST, 0.3),
        (WITHIN, 0.1),
        (WITHIN, 0.3),  # narrow enough that both bounds cost power
        (ABOVE, 0.2),
        (BELOW, 0.2),
        (DIFFERS, 0.2),
    ],
)
def test_detectable_values_are_detected_in_80_of_100_samples(criterion, half):
    values = ends_of(criterion.detectable(0.05, (0.05 - half, 0.05 + half)))
    assert len(values) == (2 if criterion.op in ("within", "differs") else 1)
    for value in values:
        assert share(criterion, value, half) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("criterion", [MORE, LESS, OTHER])
def test_detectable_ratios_are_detected_in_80_of_100_samples(criterion):
    half = 0.2
    for value in ends_of(criterion.detectable(1.0, (math.exp(-half), math.exp(half)))):
        assert share(criterion, math.log(value), half, log=True) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("criterion", "interval", "words"),
    [
        (ABOVE, (-0.1, 0.3), "above 0.386"),
        (WITHIN, (0.1, 0.1), "within [0, 1]"),
        (WITHIN, (-0.9, 1.1), "none, as the interval is too wide"),
        (MORE, (0.0, 0.2), "above 1.39"),
        (BELOW, (-0.1, 0.3), "below -0.386"),
        (DIFFERS, (-0.1, 0.3), "below -0.386 or above 0.386"),
        (MOST, (0.9, 1.1), "below 0.857"),
        (LEAST, (0.9, 1.1), "above 1.14"),
        (WITHIN, (-0.1, 0.1), "within [0.143, 0.857]"),
        (WITHIN, (-0.4, 0.4), "none, as the interval is too wide"),
        (MORE, (-0.5, 2), "above 3.04"),  # no logarithm of what is not above 0
    ],
)
def test_detectable_in_words(criterion, interval, words):
    assert criterion.detectable(0.1, interval) == words


def test_bounds_that_no_value_meets_with_80_percent_power_are_called_too_narrow_for_the_interval():
    half = 0.34  # room for one bound at this power, not for two
    assert WITHIN.detectable(0.5, (0.5 - half, 0.5 + half)).startswith("none")
    assert share(WITHIN, 0.5, half) < 0.75


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([SUPPORTED], SUPPORTED),
        ([NEGLIGIBLE, NEGLIGIBLE], NEGLIGIBLE),
        ([SINGLE, SINGLE], SINGLE),
        ([UNTESTABLE], UNTESTABLE),
        ([SUPPORTED, CONTRADICTED], MIXED),
        ([SUPPORTED, NEGLIGIBLE], MIXED),
        ([CONTRADICTED, NEGLIGIBLE], MIXED),
        ([OPEN, CONTRADICTED], MIXED),
        ([SUPPORTED, MIXED], MIXED),
        ([SUPPORTED, OPEN], OPEN),
        ([SUPPORTED, SINGLE], OPEN),
        ([SUPPORTED, UNTESTABLE], OPEN),
    ],
)
def test_verdict_on_a_whole(parts, whole):
    assert combine(parts) == whole == combine(parts[::-1])
    assert combine([whole]) == whole
