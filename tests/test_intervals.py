"""Intervals cover what they say they cover."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.intervals import paired_interval, paired_ratio


@pytest.mark.parametrize(("seeds", "noise"), [(5, 0.0), (5, 1.0), (2, 1.0), (1, 0.0)])
def test_paired_interval_covers_the_mean(seeds, noise):
    """Differences with an effect of the seed (none with one seed), of the prompt, and of both together."""
    generator, covered, trials = torch.Generator().manual_seed(seeds), 0, 600
    for _ in range(trials):
        by_seed = torch.randn(seeds, 1, generator=generator) * (seeds > 1)
        by_prompt = 3 * torch.randn(1, 40, generator=generator)
        both = noise * torch.randn(seeds, 40, generator=generator)
        mean, lo, hi = paired_interval(2 + by_seed + by_prompt + both)
        assert lo <= mean <= hi
        covered += lo <= 2 <= hi
    assert covered / trials > 0.93


@given(shift=st.floats(-10, 10), scale=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_paired_interval_follows_shift_and_scale(shift, scale, seed):
    values = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain, moved = paired_interval(values), paired_interval(scale * values + shift)
    assert moved == pytest.approx([scale * v + shift for v in plain], abs=1e-9)


def test_paired_ratio_is_the_geometric_mean_with_students_interval():
    mean, lo, hi = paired_ratio([2.0, 8.0, 4.0], [1.0, 2.0, 2.0])
    assert mean == pytest.approx(2 ** (4 / 3))
    spread = math.log(2) * math.sqrt(((1 - 4 / 3) ** 2 * 2 + (2 - 4 / 3) ** 2) / 2) / math.sqrt(3)
    assert math.log(hi) == pytest.approx(math.log(mean) + 4.302653 * spread, rel=1e-6)
    assert math.log(lo) == pytest.approx(math.log(mean) - 4.302653 * spread, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_interval(torch.zeros(2, 1)), "two prompts"),
        (lambda: paired_interval(torch.full((2, 3), float("nan"))), "differences must be finite"),
        (lambda: paired_interval(torch.zeros(2, 3), level=1.0), "level must lie"),
        (lambda: paired_ratio([1.0], [1.0]), "at least two pairs"),
        (lambda: paired_ratio([1.0, -1.0], [1.0, 1.0]), "above must be"),
    ],
)
def test_bad_samples_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
