"""Readouts between layers, and the hypotheses that they are compared with."""

from dataclasses import replace

import pytest
import torch

from ica.imitation import initial
from ica.synthetic import floor, readouts
from ica.synthetic.config import RunConfig
from ica.synthetic.data import sample_batch
from ica.synthetic.tokens import tokens

TINY = RunConfig(form="triplet", layers=2, heads=1, width=8, hidden=8, d=3, N=6)


def prompts(count: int = 12, seed: int = 0):
    return sample_batch(count, 6, 3, torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_last_direct_readout_is_the_prediction():
    model, batch = initial(TINY.transformer(), 0).double(), prompts()
    found = readouts.direct(model, readouts.streams(model, batch, 4, "triplet"))
    expected = readouts.unit(model(tokens(batch, "triplet"))[:, 3], dim=-1)
    torch.testing.assert_close(found[-1], expected)
    alone = readouts.unit(readouts.model_predictor(model, "triplet")(readouts.first(batch, 4)), dim=-1)
    torch.testing.assert_close(alone, expected)  # causal: what comes later does not matter


def test_a_probe_finds_a_linear_map_and_nothing_in_noise():
    generator = torch.Generator().manual_seed(1)
    inputs, noise = torch.randn(400, 8, generator=generator), torch.randn(400, 3, generator=generator)
    wanted = inputs[:, :3] * 2 + 1
    assert readouts.explained(readouts.fit(inputs[:200], wanted[:200])(inputs[200:]), wanted[200:]) > 1 - 1e-9
    assert readouts.explained(readouts.fit(inputs[:200], noise[:200])(inputs[200:]), noise[200:]) < 0.1
    with pytest.raises(ValueError, match="more than 9 examples"):
        readouts.fit(inputs[:5], wanted[:5])


def test_descent_ends_at_the_exact_minimiser_and_stays_in_the_plane():
    batch = prompts()
    path = readouts.descent(batch, 2000, size=0.5)
    exact = floor.minimisers(batch, torch.tensor([6]))[:, 0]
    assert (1 - torch.cosine_similarity(path[-1], exact, dim=-1)).max() < 1e-6
    normal = torch.linalg.cross(batch.good, batch.bad)
    assert (path * readouts.unit(normal, dim=-1)).sum(-1).abs().max() < 1e-9


def test_rules_are_what_their_names_say():
    batch, rules = prompts(), readouts.hypotheses(steps=5)
    every, best = torch.arange(12), batch.quality.argmax(1)
    torch.testing.assert_close(rules["best response"](batch), batch.responses[every, best])
    ahead = torch.cosine_similarity(rules["best less worst"](batch), batch.good - batch.bad, dim=-1)
    torch.testing.assert_close(ahead, torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(rules["Bayes"](batch), batch.good)
    step = torch.cosine_similarity(rules["constructed step"](batch), batch.good - batch.bad, dim=-1)
    torch.testing.assert_close(step, torch.ones(12, dtype=torch.float64))
    assert set(rules) > {"minimiser", "mean response", "reward-weighted mean"}


def test_sensitivities_agree_with_automatic_differentiation():
    batch = prompts(3)
    found = readouts.sensitivity(lambda b: (b.rewards.unsqueeze(-1) * b.responses).sum(1), batch)
    assert found.shape == (3, 6, 3, 3)
    order = batch.rewards.argsort(1, descending=True)
    for k in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda y, k=k: readouts.unit((batch.rewards[k].unsqueeze(-1) * y).sum(0), dim=-1),
            batch.responses[k],
        )
        torch.testing.assert_close(found[k], jacobian.permute(1, 2, 0)[order[k]], atol=1e-6, rtol=1e-5)


def test_the_minimiser_knows_rewards_by_their_order_only():
    batch, rule = prompts(), readouts.hypotheses(steps=50)["minimiser"]
    rewards = readouts.same_order(batch.rewards, 3.0)
    assert torch.equal(rule(batch), rule(replace(batch, rewards=rewards)))
    assert not torch.equal(rule(batch), rule(replace(batch, rewards=batch.rewards.flip(1))))


def test_bad_input_is_named():
    batch = prompts()
    with pytest.raises(ValueError, match="n must lie between 2 and N = 6, got 7"):
        readouts.first(batch, 7)
    with pytest.raises(ValueError, match="form must be one of triplet"):
        readouts.model_predictor(initial(TINY.transformer(), 0), "interleaved")
    with pytest.raises(ValueError, match="batch must be float64"):
        single = sample_batch(2, 6, 3, torch.Generator().manual_seed(0))
        readouts.sensitivity(lambda b: b.responses.mean(1), single)
    with pytest.raises(ValueError, match="power must be a finite number above 0"):
        readouts.same_order(batch.rewards, 0.0)
