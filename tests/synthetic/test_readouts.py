"""Readouts between layers."""

import pytest
import torch

from ica.synthetic.analysis import controls, readouts, rules
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.tokens import tokens
from ica.transformer import initial

TINY = RunConfig(form="triplet", layers=2, heads=1, width=8, hidden=8, d=3, N=6)


def prompts(count: int = 12, seed: int = 0):
    return sample_batch(count, 6, 3, torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_last_direct_readout_is_the_prediction():
    model, batch = initial(TINY.transformer(), 0).double(), prompts()
    found = readouts.direct(model, readouts.streams(model, batch, 4, "triplet"))
    expected = readouts.unit(model(tokens(batch, "triplet"))[:, 3], dim=-1)
    torch.testing.assert_close(found[-1], expected)
    alone = readouts.unit(rules.model_predictor(model, "triplet")(controls.cut(batch, 4)), dim=-1)
    torch.testing.assert_close(alone, expected)  # causal: what comes later does not matter


def test_a_probe_finds_a_linear_map_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(1)
    inputs, noise = torch.randn(400, 8, generator=generator), torch.randn(400, 3, generator=generator)
    wanted = inputs[:, :3] * 2 + 1
    found = [readouts.fit(inputs[:200], y[:200])(inputs[200:]) for y in (wanted, noise)]
    assert readouts.explained(found[0], wanted[200:]).mean() > 1 - 1e-9
    assert readouts.explained(found[1], noise[200:]).mean() < 0.1


def test_the_share_explained_is_that_of_the_variance():
    wanted = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    middle = wanted.mean(1, keepdim=True).expand_as(wanted)
    shares = [readouts.explained(found, wanted).mean(-1) for found in (middle, (wanted + middle) / 2)]
    torch.testing.assert_close(shares[0], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(shares[1], torch.full((2,), 0.75, dtype=torch.float64))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="more than 9 examples"):
        readouts.fit(torch.zeros(5, 8), torch.zeros(5, 3))
