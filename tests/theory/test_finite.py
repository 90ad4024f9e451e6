"""The extensions at finite constants: errors stay below their bounds, fall with the margin, and bounds refuse."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.theory.constructions import finite
from ica.theory.constructions import several_queries as sq
from ica.theory.constructions.online import MARKS
from ica.theory.prompts import sample_prompts


def drawn(N: int, d: int, nu: float, seed: int):
    """Prompts, a first W, and scales at the margin nu that hold for them."""
    generator, gap = torch.Generator().manual_seed(seed), 0.5 / (N - 1)
    prompts = sample_prompts(8, N, d, gap=gap, generator=generator)
    W = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    return prompts, W, finite.AtMargin(eta=0.5 / N, gap=0.999 * gap, radius=8.0, nu=nu)


@settings(max_examples=20)
@given(marks=st.sampled_from(MARKS), N=st.integers(2, 8), d=st.integers(1, 5), nu=st.floats(13.0, 22.0),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_online_error_stays_below_its_bound(marks, N, d, nu, seed):
    prompts, W, scales = drawn(N, d, nu, seed)
    ratio, bound = finite.online_over_bound(W, prompts, scales, marks)
    assert ratio.shape == (8, N - 1) and ratio.max() <= 1
    assert (bound > 0).all()


@settings(max_examples=10)
@given(Q=st.integers(1, 4), N=st.integers(2, 6), nu=st.floats(8.0, 20.0), seed=st.integers(0, 2**31))
def test_apart_error_stays_below_its_bound(Q, N, nu, seed):
    generator, gap = torch.Generator().manual_seed(seed), 0.5 / (N - 1)
    prompts = sq.sample_several(8, Q, N, 3, 4, gap=gap, orthonormal=True, generator=generator)
    W = torch.randn(3, 4, generator=generator, dtype=torch.float64) / 2
    scales = finite.AtMargin(eta=0.5 / (Q * N), gap=0.999 * gap, nu=nu)
    assert finite.apart_over_bound(W, prompts, scales)[0].max() <= 1


@pytest.mark.parametrize("marks", MARKS)
def test_error_falls_as_the_exponential_of_the_margin(marks):
    errors = []
    for nu in (14.0, 18.0):
        ratio, bound = finite.online_over_bound(*reorder(drawn(4, 3, nu, 0)), marks)
        errors.append((ratio * bound.unsqueeze(1)).max().item())
    assert math.log(errors[0] / errors[1]) == pytest.approx(4, abs=0.6)


def reorder(case):
    prompts, W, scales = case
    return W, prompts, scales


def test_codes_of_least_strength_leak_but_below_the_share_of_the_theorem():
    generator = torch.Generator().manual_seed(3)
    prompts = sq.sample_several(8, 3, 4, 3, 3, gap=0.1, orthonormal=True, generator=generator)
    W = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    scales = finite.AtMargin(eta=0.05, gap=0.0999, nu=12.0)
    group = torch.cat([torch.tensor([-1]), torch.arange(3).repeat_interleave(4)])
    apart = group[1:, None] != group[None, :]
    for lead, low, high in ((0.0, 1e-60, 12 * math.exp(-12)), (None, 0.0, 0.0)):
        model = sq.several_queries(W, 3, 4, scales, pairs=0, lead=lead)
        leak = [a[:, :, 1:].masked_fill(~apart, 0).sum(-1) for a in model.trace(prompts.tokens()).attention]
        assert low <= torch.stack(leak).max() <= high


def test_diameter_counts_the_origin_on_request():
    far = torch.tensor([[[3.0, 4.0], [3.0, 3.0]]], dtype=torch.float64)
    assert finite.diameter(far).item() == pytest.approx(1)
    assert finite.diameter(far, origin=True).item() == pytest.approx(5)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finite.AtMargin(eta=0.1, gap=0.1, nu=0.0), "nu must be a finite number above 0"),
        (lambda: finite.thresholds_bound(*drawn(4, 3, 4.0, 0)[::2]), "S delta must be at most"),
        (lambda: finite.positions_bound(*drawn(4, 3, 4.0, 0)[::2]), "delta must be at most"),
        (lambda: finite.positions_bound(*drawn(8, 3, 8.0, 0)[::2]), r"\(N - 2\) M delta must be at most"),
        (
            lambda: sq.several_queries(torch.eye(2), 2, 3, finite.AtMargin(eta=0.1, gap=0.1), lead=-1.0),
            "lead must be at least 0",
        ),
    ],
)
def test_margins_too_small_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
