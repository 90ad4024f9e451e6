"""Constructions in the form of the paper's theorems: the response of every token moves by minus the step."""

import pytest
import torch

from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.bradley_terry import bradley_terry, bt_layout
from ica.theory.constructions.plackett_luce import pl_layout, plackett_luce
from ica.theory.constructions.tokens import token_errors, with_test_token, written_to_responses
from ica.theory.prompts import default_gap, sample_prompts


def _prompts(N):
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    return sample_prompts(20, N, 3, generator=generator), W, Assumptions(eta=0.1, gap=0.99 * default_gap(N))


def test_the_test_token_is_the_first_prediction_and_ranked_last():
    prompts, W, _ = _prompts(4)
    changed = with_test_token(prompts, W)
    last = prompts.rewards.argmin(-1)
    rows = torch.arange(len(last))
    assert torch.equal(changed.responses[rows, last], prompts.query @ W.T)
    assert (changed.responses != prompts.responses).any(-1).sum() == len(last)


@pytest.mark.parametrize("dummy", [False, True])
@pytest.mark.parametrize("N", [2, 5])
def test_every_response_moves_by_minus_the_step_and_nothing_else_moves(N, dummy):
    prompts, W, scales = _prompts(N)
    prompts = with_test_token(prompts, W) if dummy else prompts
    model = written_to_responses(plackett_luce(W, N, scales), pl_layout(3, 3))
    assert token_errors(model, pl_layout(3, 3), prompts, W, scales.eta).max() < 1e-12


def test_a_model_that_moves_the_prediction_is_not_in_that_form():
    prompts, W, scales = _prompts(2)
    assert token_errors(bradley_terry(W, scales), bt_layout(3, 3), prompts, W, scales.eta).max() > 0.1
