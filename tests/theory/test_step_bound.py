"""The bound of one Plackett-Luce step (notebook "plackett_luce", thm-pl) against the constructed blocks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.theory.compare import descent_predictions
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.plackett_luce import mask_strengths, plackett_luce, step_bound
from ica.theory.prompts import Prompts, default_gap, sample_prompts


def error_and_scales(drawn: Prompts, gap: float, product: float) -> tuple[torch.Tensor, Assumptions]:
    """Error of one constructed step of each prompt at c g = product, and what the blocks assume."""
    N, d = drawn.responses.shape[1:]
    W = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / d**0.5
    scales = Assumptions(eta=0.5 / N, gap=0.999 * gap, sharpness=product / (0.999 * gap))
    with torch.no_grad():
        moved = plackett_luce(W, N, scales)(drawn.tokens())
    exact = descent_predictions(W, drawn, scales.eta, 1)[1]
    return (moved - exact.unsqueeze(1)).norm(dim=-1).amax(1), scales


@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 4), st.floats(1.8, 20))
def test_no_error_exceeds_the_bound(seed, N, d, product):
    drawn = sample_prompts(5, N, d, generator=torch.Generator().manual_seed(seed))
    error, scales = error_and_scales(drawn, default_gap(N), product)
    pairs = step_bound(drawn, scales)
    assert (error <= pairs).all()
    assert (pairs <= step_bound(drawn, scales, worst=True)).all()


def test_the_bound_is_its_formula_pair_by_pair():
    drawn = sample_prompts(6, 5, 3, generator=torch.Generator().manual_seed(2))
    one = Assumptions(eta=0.2, gap=0.05, sharpness=40.0)
    c, found, worst = one.c(5), step_bound(drawn, one), step_bound(drawn, one, worst=True)
    for k, (y, r) in enumerate(zip(drawn.responses, drawn.rewards.tolist(), strict=True)):
        widest = max((a - b).norm().item() for a in y for b in y)
        ahead = [(i, j) for i in range(5) for j in range(5) if r[i] > r[j]]
        pairs = sum(math.exp(c * (r[j] - r[i])) * (y[i] - y[j]).norm().item() for i, j in ahead)
        left = widest * math.exp(-c * one.gap)
        assert found[k].item() == pytest.approx(0.4 * (pairs + left))
        assert worst[k].item() == pytest.approx(5 * 0.2 * 4 * left)


@pytest.mark.parametrize("N", [4, 16, 32])
def test_the_bound_is_tight_for_any_number_of_responses(N):
    """Ranks in pairs a gap apart, each pair the same two responses: the errors of all pairs add."""
    rewards = torch.arange(N, 0, -1, dtype=torch.float64) / N
    rewards[1::2] = rewards[::2] - 0.2 / N
    responses = (torch.arange(N) % 2).double().view(1, N, 1)
    drawn = Prompts(torch.ones(1, 1).double(), responses, rewards.unsqueeze(0))
    error, scales = error_and_scales(drawn, 0.2 / N, 8.0)
    assert error.item() > 0.6 * step_bound(drawn, scales).item()
    assert error.item() > 0.19 * step_bound(drawn, scales, worst=True).item()


def test_masks_meet_the_assumptions_of_the_theorem():
    for sharpness in (0.0, 30.0, 1e4):
        one = Assumptions(eta=0.1, gap=0.02, spread=2.0, radius=3.0, sharpness=sharpness)
        M_A, M_B = mask_strengths(9, one)
        product = one.c(9) * one.gap
        assert M_A >= one.c(9) * (2.0 + 0.02) + math.log(81 * 2.0 / 0.02) - 1e-9
        assert M_B >= 9.0 + product + 2 * math.log(9) - 1e-9


def test_below_log_6_there_is_no_bound():
    drawn = sample_prompts(2, 3, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="c g must be at least log 6 = 1.792, got 1.790"):
        step_bound(drawn, Assumptions(eta=0.1, gap=0.1, sharpness=17.9))
