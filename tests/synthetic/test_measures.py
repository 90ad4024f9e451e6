"""Measures against the truth: loss by the true order, side of the good answer, rank agreement."""

import pytest
import torch

from ica.objectives import cosine_reward, pl_loss
from ica.synthetic.analysis import measures
from ica.synthetic.task import baselines, floor
from ica.synthetic.task.data import Critic, sample_batch


def prompts(critic=None):
    return sample_batch(9, 6, 4, torch.Generator().manual_seed(0), critic, dtype=torch.float64)


def test_the_loss_is_by_the_true_order_whatever_the_critic_says():
    clean, wrong = prompts(), prompts(Critic("flip", 1.0))
    seen = torch.tensor([2, 6])
    answer = clean.responses.mean(1, keepdim=True).expand(-1, 2, -1)
    found = measures.true_losses(answer, wrong, seen)
    assert torch.equal(found, measures.true_losses(answer, clean, seen))
    for k, n in enumerate(seen.tolist()):
        scores = cosine_reward(answer[:, k], clean.responses[:, :n])
        torch.testing.assert_close(found[:, k], pl_loss(scores, clean.quality[:, :n]))


def test_the_minimiser_has_the_least_loss_and_is_past_the_good_answer():
    batch, seen = prompts(), torch.arange(2, 7)
    least = measures.measured(floor.minimisers(batch, seen).unsqueeze(0), batch, seen)
    assert abs(least["loss"].mean()) < 1e-12
    good = batch.good.unsqueeze(1).expand(-1, len(seen), -1)
    bad = batch.bad.unsqueeze(1).expand(-1, len(seen), -1)
    ends = measures.measured(torch.stack([good, bad]), batch, seen)
    assert (ends["loss"].mean(1) > 0).all() and ends["error"][0].abs().max() < 1e-12
    assert (ends["side"][1] == 1).all() and least["side"].mean() < 0.5


def test_the_best_response_is_the_one_rated_highest_so_far():
    batch, seen = prompts(Critic("replace", 0.5)), torch.tensor([1, 3, 6])
    found = baselines.best_response(batch, seen)
    for b in range(9):
        for k, n in enumerate(seen.tolist()):
            best = max(range(n), key=lambda i, b=b: batch.rewards[b, i].item())
            assert torch.equal(found[b, k], batch.responses[b, best])


def test_rank_agreement_is_kendalls():
    first = torch.tensor([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9], [0.1, 0.5, 0.9]])
    second = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    assert measures.rank_agreement(first, second).tolist() == pytest.approx([1.0, -1.0, 1 / 3])
