"""Baselines and metrics against what they should be worth."""

import pytest
import torch

from ica.objectives import REWARDS
from ica.synthetic.task.baselines import bayes, descend
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.metrics import cosine_error, normalised_mse
from ica.synthetic.task.prefixes import prefix_pl_losses

SEEN = torch.tensor([2, 5, 10])


def draw(batch=64, critic=None):
    return sample_batch(batch, 10, 5, torch.Generator().manual_seed(0), critic, torch.float64)


def test_bayes_is_exact_from_two_true_triplets_and_not_with_a_wrong_critic():
    batch = draw()
    assert normalised_mse(bayes(batch, SEEN), batch.good.unsqueeze(1)).max() < 1e-12
    wrong = draw(critic=Critic("replace", 1.0))
    assert normalised_mse(bayes(wrong, SEEN), wrong.good.unsqueeze(1)).median() > 0.1


@pytest.mark.parametrize("reward", ["cosine", "squared_distance"])
def test_descent_lowers_every_loss_and_a_prefix_does_not_see_the_rest(reward):
    batch, generator = draw(8), torch.Generator().manual_seed(1)
    state = generator.get_state()

    def after(steps, prompts=batch):
        generator.set_state(state)
        return descend(prompts, SEEN, generator, steps=steps, reward=reward)

    def losses(predictions):
        scores = REWARDS[reward](predictions, batch.responses.unsqueeze(1))
        return prefix_pl_losses(scores, batch.rewards, SEEN)

    assert (losses(after(50)) < losses(after(1))).all()
    batch_two = sample_batch(8, 10, 5, torch.Generator().manual_seed(0), None, torch.float64)
    batch_two.responses[:, 5:] += 1
    torch.testing.assert_close(after(20, batch_two)[:, :2], after(20)[:, :2])


def test_metrics_at_known_points():
    good = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(cosine_error(-2 * good, good), torch.tensor([2.0]))
    torch.testing.assert_close(normalised_mse(torch.zeros(1, 2), good), torch.tensor([1.0]))
    torch.testing.assert_close(normalised_mse(2 * good, good), torch.tensor([1.0]))
