"""Losses against plain double loops, gradients against autograd, refusals by name."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica import objectives
from ica.theory.prompts import sample_prompts

SIZES = {"N": st.integers(2, 12), "d": st.integers(1, 6), "seed": st.integers(0, 2**31)}


def loop_loss(scores: list[float], rewards: list[float]) -> float:
    """Plackett-Luce by its definition: one ratio per term, nothing shared or vectorised."""
    order = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    total = 0.0
    for i in range(len(order) - 1):
        below = sum(math.exp(scores[j]) for j in order[i:])
        total -= math.log(math.exp(scores[order[i]]) / below)
    return total


def draw(N: int, d: int, seed: int, batch: int = 3):
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(batch, N, d, generator=generator)
    return prompts, torch.randn(batch, d, d, generator=generator, dtype=torch.float64)


@given(**SIZES)
def test_pl_loss_equals_double_loop(N, d, seed):
    prompts, W = draw(N, d, seed)
    scores = objectives.squared_distance_reward(objectives.predict(W, prompts.query), prompts.responses)
    ours = objectives.pl_loss(scores, prompts.rewards)
    loops = [loop_loss(s, r) for s, r in zip(scores.tolist(), prompts.rewards.tolist(), strict=True)]
    torch.testing.assert_close(ours, torch.tensor(loops, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(d=SIZES["d"], seed=SIZES["seed"])
def test_bt_is_pl_with_two_responses(d, seed):
    prompts, W = draw(2, d, seed)
    scores = objectives.squared_distance_reward(objectives.predict(W, prompts.query), prompts.responses)
    bt, pl = (loss(scores, prompts.rewards) for loss in (objectives.bt_loss, objectives.pl_loss))
    torch.testing.assert_close(bt, pl, rtol=1e-12, atol=1e-14)


@given(**SIZES)
def test_closed_form_gradient_equals_autograd(N, d, seed):
    prompts, W = draw(N, d, seed)
    leaf = W.requires_grad_(True)
    scores = objectives.squared_distance_reward(objectives.predict(leaf, prompts.query), prompts.responses)
    (autograd,) = torch.autograd.grad(objectives.pl_loss(scores, prompts.rewards).sum(), leaf)
    closed = objectives.pl_gradient(W.detach(), prompts.query, prompts.responses, prompts.rewards)
    torch.testing.assert_close(closed, autograd, rtol=1e-10, atol=1e-11)


def test_step_is_a_data_transformation():
    prompts, W = draw(5, 3, 0)
    step = -0.1 * objectives.pl_gradient(W, prompts.query, prompts.responses, prompts.rewards)
    shift = objectives.predict(step, prompts.query)
    moved = objectives.squared_distance_reward(objectives.predict(W + step, prompts.query), prompts.responses)
    data = objectives.squared_distance_reward(
        objectives.predict(W, prompts.query), prompts.responses - shift.unsqueeze(1)
    )
    torch.testing.assert_close(moved, data, rtol=1e-12, atol=1e-12)


def test_loss_is_finite_where_scores_are_extreme():
    scores = torch.tensor([[-1e6, 0.0, 1e6]], dtype=torch.float64)
    loss = objectives.pl_loss(scores, torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(loss, torch.tensor([3e6], dtype=torch.float64))


def test_stable_ties_keep_the_order_of_the_prompt():
    rewards = torch.tensor([0.5, 0.9, 0.5])
    assert objectives.ranking(rewards, ties="stable").tolist() == [1, 0, 2]
    scores = torch.tensor([0.3, -0.2, 1.1])
    expected = loop_loss(scores.tolist(), rewards.tolist())
    assert objectives.pl_loss(scores, rewards, ties="stable").item() == pytest.approx(expected, rel=1e-6)


def test_cosine_reward_is_the_cosine():
    value = objectives.cosine_reward(
        torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    )
    torch.testing.assert_close(value, torch.tensor([1.0, 0.0, -(0.5**0.5)]))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (torch.tensor([1.0, 1.0]), "rewards must be distinct"),
        (torch.tensor([1.0, torch.nan]), "rewards must be finite"),
        (torch.tensor([1.0, torch.inf]), "rewards must be finite"),
        (torch.tensor([1.0]), "rewards must hold N >= 2"),
        (
            torch.tensor([1.0, 2.0], dtype=torch.float16),
            "dtype must be one of torch.float64, torch.float32, torch.bfloat16",
        ),
    ],
)
def test_bad_rewards_are_named(rewards, message):
    with pytest.raises(ValueError, match=message):
        objectives.pl_loss(torch.zeros_like(rewards), rewards)


@pytest.mark.usefixtures("as_users_call")
def test_bad_scores_are_named():
    rewards = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="scores must be finite"):
        objectives.pl_loss(torch.tensor([torch.nan, 0.0]), rewards)
    with pytest.raises(ValueError, match="ties must be one of error, stable"):
        objectives.pl_loss(rewards, rewards, ties="first")
