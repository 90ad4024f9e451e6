"""Exchanged ends are what a critic that flips every reward ranks by; means of responses know no critic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.objectives import cosine_reward
from ica.synthetic.analysis import noise
from ica.synthetic.task import floor
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.prefixes import prefix_pl_losses


def prompts(count=20, N=9, critic=None, seed=0):
    return sample_batch(count, N, 5, torch.Generator().manual_seed(seed), critic, torch.float64)


def test_exchanging_twice_changes_nothing_and_once_keeps_what_a_model_reads():
    batch = prompts()
    once = noise.exchanged(batch)
    for name in ("query", "responses", "rewards", "shown"):
        assert torch.equal(getattr(once, name), getattr(batch, name))
    twice = noise.exchanged(once)
    assert torch.equal(twice.good, batch.good) and torch.allclose(twice.quality, batch.quality)
    line = once.quality.unsqueeze(-1) * once.good.unsqueeze(1) + (1 - once.quality).unsqueeze(
        -1
    ) * once.bad.unsqueeze(1)
    torch.testing.assert_close(line, once.responses)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 9))
def test_the_minimiser_of_the_exchanged_prompt_minimises_the_flipped_loss(seed, n):
    batch, seen = prompts(critic=Critic("flip", 1.0), seed=seed), torch.tensor([n])
    best = floor.minimisers(noise.exchanged(batch), seen)
    other = torch.nn.functional.normalize(
        best + 0.1 * torch.randn(best.shape, generator=torch.Generator().manual_seed(seed), dtype=best.dtype),
        dim=-1,
    )
    losses = [
        prefix_pl_losses(cosine_reward(found, batch.responses.unsqueeze(1)), batch.rewards, seen)
        for found in (best, other)
    ]
    assert (losses[0] <= losses[1] + 1e-12).all()


def test_a_critic_that_says_nothing_favours_neither_end():
    batch = prompts(20_000, 4, Critic("replace", 1.0))
    best = batch.responses[torch.arange(20_000), batch.rewards.argmax(1)]
    gap = torch.sub(*noise.end_cosines(best, batch))
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))


def test_the_mean_of_the_responses_tends_to_its_limit():
    batch = prompts(4000, 400)
    error = cosine_error(noise.response_mean(batch, torch.tensor([400])), batch.good.unsqueeze(1))
    spread = error.std() / math.sqrt(4000)
    assert abs(error.mean() - floor.expected_difference_error(5)) < 4 * spread
    torch.testing.assert_close(
        noise.response_mean(batch, torch.tensor([3]))[:, 0], batch.responses[:, :3].mean(1)
    )
    with pytest.raises(ValueError, match="seen must hold lengths from 1 to N = 400"):
        noise.response_mean(batch, torch.tensor([401]))


def stated(count, N=9, seed=0):
    return sample_batch(count, N, 5, torch.Generator().manual_seed(seed), None, torch.float64, "own")


def test_the_linear_reader_has_the_error_of_its_formula_and_no_multiple_of_it_less():
    batch, seen = stated(20_000), torch.tensor([1, 4, 9])
    found = noise.linear_reader(batch, seen)
    size = batch.good.square().sum(-1).mean()
    for k, n in enumerate(seen.tolist()):
        gap = (found[:, k] - batch.good).square().sum(-1) / size
        assert abs(gap.mean() - 5 / (3 * n + 5)) < 4 * gap.std() / math.sqrt(20_000)
        for factor in (0.9, 1.1):
            assert (factor * found[:, k] - batch.good).square().sum(-1).mean() / size > gap.mean()
    with pytest.raises(ValueError, match="batch must have own noise"):
        noise.linear_reader(prompts(), seen)


def test_measures_of_a_prediction_that_is_the_target_shrunk():
    batch = stated(50)
    predictions = torch.stack([0.5 * batch.good, batch.good + 1], dim=1).expand(2, -1, -1, -1)
    found = noise.against_target(predictions, batch)
    torch.testing.assert_close(found["nmse"].mean((0, 1))[0].item(), 0.25)
    assert found["scaled"][..., 0].abs().max() < 1e-12 and found["error"][..., 0].abs().max() < 1e-12
    size = batch.good.square().sum(-1).mean()
    torch.testing.assert_close(found["nmse"].mean((0, 1))[1], 5 / size)
    assert found["scaled"].mean((0, 1))[1] < found["nmse"].mean((0, 1))[1]
