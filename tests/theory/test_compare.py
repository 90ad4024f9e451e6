"""The comparison itself: it must see an error that is there, in the right unit, at the right step."""

import pytest
import torch

from ica.theory.compare import descent_predictions, predictions_along, step_errors, step_errors_by_unit
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.plackett_luce import pl_layout, plackett_luce
from ica.theory.prompts import default_gap, sample_prompts


@pytest.fixture
def setting():
    generator = torch.Generator().manual_seed(0)
    prompts = sample_prompts(6, 3, 2, generator=generator)
    W = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    scales = Assumptions(eta=0.1, gap=0.999 * default_gap(3))
    return prompts, W, scales, plackett_luce(W, 3, scales, 2)


def test_predictions_along_start_and_end_with_the_model(setting):
    prompts, W, _, model = setting
    along = predictions_along(model, prompts.tokens(), 2)
    assert along.shape == (3, 6, 3, 2)
    torch.testing.assert_close(along[0], (prompts.query @ W.T).unsqueeze(1).expand(-1, 3, -1))
    torch.testing.assert_close(along[-1], model(prompts.tokens()), rtol=0, atol=0)


def test_a_planted_error_is_seen_at_its_step_and_size(setting):
    prompts, W, scales, model = setting
    assert step_errors(model, prompts, W, scales.eta, 2).max() < 1e-12
    with torch.no_grad():
        for block in model.blocks[2:]:
            block.attention.W_O.weight[pl_layout(2, 2).slices["acc"]] *= 1.5
    errors = step_errors_by_unit(model, prompts, W, scales.eta, 2)
    path = descent_predictions(W, prompts, scales.eta, 2)
    second, ways = (path[2] - path[1]).norm(dim=-1), (path[2] - path[0]).norm(dim=-1)
    assert errors["own"][0].max() < 1e-12
    torch.testing.assert_close(errors["own"][1], 0.5 * second / ways)
    torch.testing.assert_close(errors["typical"][1], 0.5 * second / ways.square().mean().sqrt())


def test_bad_arguments_are_named(setting):
    prompts, W, scales, model = setting
    with pytest.raises(ValueError, match="steps must divide the model's depth 4, got 3"):
        step_errors(model, prompts, W, scales.eta, 3)
    with pytest.raises(ValueError, match="blocks_per_step must divide"):
        predictions_along(model, prompts.tokens(), 3)
    with pytest.raises(ValueError, match="unit must be one of own, typical"):
        step_errors(model, prompts, W, scales.eta, 2, "percent")
