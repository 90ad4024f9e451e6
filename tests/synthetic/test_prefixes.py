"""The vectorised prefix losses against plain double loops: values and gradients, ties, n = 2."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.objectives import REWARDS
from ica.synthetic.task.prefixes import prefix_pl_losses


def score(prediction, response, reward):
    """One reward, element by element, for autograd to follow."""
    if reward == "squared_distance":
        return -sum((a - b) ** 2 for a, b in zip(prediction, response, strict=True))
    dot = sum(a * b for a, b in zip(prediction, response, strict=True))
    return dot / (sum(a * a for a in prediction).sqrt() * sum(b * b for b in response).sqrt())


def loops(prediction, responses, rewards, n, reward):
    """Plackett-Luce of the first n responses, term by term."""
    order = sorted(range(n), key=lambda i: -rewards[i].item())
    scores = [score(prediction, responses[i], reward) for i in order]
    loss = torch.zeros((), dtype=prediction.dtype)
    for i in range(n - 1):
        loss = loss - scores[i] + sum(s.exp() for s in scores[i:]).log()
    return loss


@pytest.mark.parametrize("reward", REWARDS)
@given(
    N=st.integers(2, 8),
    d=st.integers(2, 5),
    levels=st.sampled_from([None, 1, 2, 3]),
    seed=st.integers(0, 2**31),
)
def test_losses_and_gradients_equal_double_loops(reward, N, d, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(2, N + 1)
    predictions = torch.randn(2, N - 1, d, generator=generator, dtype=torch.float64, requires_grad=True)
    responses = torch.randn(2, N, d, generator=generator, dtype=torch.float64)
    rewards = torch.rand(2, N, generator=generator, dtype=torch.float64)
    if levels:  # an ordinal critic: ties, for levels = 1 nothing but ties
        rewards = (rewards * levels).floor()
    scores = REWARDS[reward](predictions, responses.unsqueeze(1))
    ours = prefix_pl_losses(scores, rewards, lengths)
    pairs = [(b, k) for b in range(2) for k in range(N - 1)]
    theirs = [loops(predictions[b, k], responses[b], rewards[b], k + 2, reward) for b, k in pairs]
    torch.testing.assert_close(ours.flatten(), torch.stack(theirs), rtol=1e-9, atol=1e-12)
    weights = torch.rand(ours.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), predictions, retain_graph=True)
    plain = sum(weights[b, k] * loss for (b, k), loss in zip(pairs, theirs, strict=True))
    (expected,) = torch.autograd.grad(plain, predictions)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12)


def test_two_equal_scores_cost_log_two_and_later_responses_do_not_count():
    scores = torch.tensor([[[0.3, 0.3, 7.0]]], requires_grad=True)
    loss = prefix_pl_losses(scores, torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([2]))
    assert loss.item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    torch.testing.assert_close(gradient[0, 0], torch.tensor([0.5, -0.5, 0.0]))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("scores", "lengths", "message"),
    [
        (torch.zeros(1, 1, 3), torch.tensor([1]), "lengths must lie between 2 and N = 3"),
        (torch.zeros(1, 1, 3), torch.tensor([4]), "lengths must lie between 2 and N = 3"),
        (torch.zeros(1, 2, 3), torch.tensor([2]), r"scores must have shape \(1, 1, 3\)"),
        (torch.full((1, 1, 3), torch.nan), torch.tensor([2]), "scores must be finite"),
    ],
)
def test_bad_input_is_named(scores, lengths, message):
    with pytest.raises(ValueError, match=message):
        prefix_pl_losses(scores, torch.tensor([[0.1, 0.2, 0.3]]), lengths)
