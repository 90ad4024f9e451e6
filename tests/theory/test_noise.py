"""Steps under a wrong critic: closed forms against autograd and against sums over all outcomes."""

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.objectives import pl_direction, pl_loss, squared_distance_reward
from ica.theory import noise, noise_bridge

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, N: int, d: int = 3, scale: float = 1.0):
    """A prediction (d,), responses (N, d) and rewards (N,) of one prompt."""
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(N + 1, d, generator=generator, dtype=torch.float64)
    return values[0], values[1:], torch.rand(N, generator=generator, dtype=torch.float64)


def by_autograd(prediction, responses, rewards):
    """Half of minus the gradient of the loss in the prediction."""
    leaf = prediction.clone().requires_grad_(True)
    pl_loss(squared_distance_reward(leaf, responses), rewards).backward()
    return -leaf.grad / 2


def swapped(rewards, k):
    """The rewards with those of ranks k + 1 and k + 2 exchanged."""
    pair = rewards.argsort(descending=True)[[k, k + 1]]
    changed = rewards.clone()
    changed[pair] = rewards[pair.flip(0)]
    return changed


@settings(max_examples=40, deadline=None)
@given(N=st.integers(2, 9), scale=st.sampled_from([0.1, 1.0, 4.0, 12.0]), seed=SEEDS)
def test_swaps_change_the_gradient_as_the_closed_form_says_and_within_the_bound(N, scale, seed):
    prediction, y, r = drawn(seed, N, scale=scale)
    changes, bounds = noise.swap_changes(prediction, y, r)
    before = by_autograd(prediction, y, r)
    torch.testing.assert_close(noise.direction_by_sets(prediction, y, r), before, rtol=0, atol=1e-11 * scale)
    for k in range(N - 1):
        other = swapped(r, k)
        change = by_autograd(prediction, y, other) - before
        torch.testing.assert_close(change, changes[k], rtol=0, atol=1e-11 * scale)
        assert change.norm() <= bounds[k] * (1 + 1e-9) + 1e-11 * scale
        assert noise.ranking_bound(prediction, y, r, other) == pytest.approx(
            bounds[k].item(), abs=1e-12 * scale
        )
        assert noise.kendall_distance(r, other) == 1


def test_at_equal_logits_a_swap_costs_a_share_of_the_distance_and_ranks_have_fixed_weights():
    y = torch.eye(5, dtype=torch.float64)  # all equally far from 0
    r = torch.tensor([0.9, 0.7, 0.5, 0.3, 0.1], dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    changes, bounds = noise.swap_changes(zero, y, r)
    shares = 1 / torch.arange(4, 0, -1, dtype=torch.float64)
    torch.testing.assert_close(changes, (y[1:] - y[:-1]) * shares[:, None])
    torch.testing.assert_close(bounds, shares * 2**0.5)
    torch.testing.assert_close(pl_direction(zero, y, r), noise.rank_weights(5))
    assert noise.rank_weights(5).sum().abs() < 1e-15


@given(N=st.integers(3, 8), seed=SEEDS, scale=st.sampled_from([0.3, 3.0]))
def test_any_two_rankings_are_within_the_bounds(N, seed, scale):
    prediction, y, r = drawn(seed, N, scale=scale)
    shown = torch.rand(N, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    apart = (pl_direction(prediction, y, shown) - pl_direction(prediction, y, r)).norm()
    fine = noise.ranking_bound(prediction, y, r, shown)
    crude = torch.cdist(y, y).max() * min(noise.kendall_distance(r, shown).item(), N - 1)
    assert apart <= fine + 1e-12 and fine <= crude + 1e-12


@settings(max_examples=15, deadline=None)
@given(N=st.integers(2, 5), p=st.floats(0, 1), scale=st.sampled_from([0.3, 2.0]), seed=SEEDS)
def test_expected_steps_are_sums_over_all_outcomes(N, p, scale, seed):
    prediction, y, r = drawn(seed, N, scale=scale)
    total = torch.zeros_like(prediction)
    for flips in product((False, True), repeat=N):
        chance = p ** sum(flips) * (1 - p) ** (N - sum(flips))
        total += chance * pl_direction(prediction, y, torch.where(torch.tensor(flips), 1 - r, r))
    found = noise.expected_direction(prediction, y, r, p, "flip")
    torch.testing.assert_close(found, total, rtol=0, atol=1e-11 * scale)
    orders = torch.tensor(list(permutations(range(N))), dtype=torch.float64)
    every = pl_direction(*(v.expand(len(orders), *v.shape) for v in (prediction, y)), orders)
    found = noise.expected_direction(prediction, y, r, 1.0)
    torch.testing.assert_close(found, every.mean(0), rtol=0, atol=1e-11 * scale)
    found = noise.expected_direction(prediction, y, r, 0.0)
    torch.testing.assert_close(found, pl_direction(prediction, y, r), rtol=0, atol=1e-11 * scale)


@given(p=st.floats(0, 1), kind=st.sampled_from(noise.KINDS), seed=SEEDS)
def test_two_responses_follow_the_closed_form(p, kind, seed):
    prediction, y, r = drawn(seed, 2)
    best = int(r.argmax())
    doubt = squared_distance_reward(prediction, y).softmax(-1)[1 - best]
    wrong = noise.reversal_probability((r[0] - r[1]).abs(), p, kind)
    closed = (doubt - wrong) * (y[best] - y[1 - best])
    found = noise.expected_direction(prediction, y, r, p, kind)
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-12)


def test_expected_steps_are_means_of_sampled_ones_for_replacement_between_0_and_1():
    prediction, y, r = drawn(5, 5)
    many = r.expand(60_000, 5)
    shown = noise.shown_rewards(many, 0.4, torch.Generator().manual_seed(6))
    steps = noise.direction_by_sets(prediction.expand(60_000, 3), y.expand(60_000, 5, 3), shown)
    off = steps.mean(0) - noise.expected_direction(prediction, y, r, 0.4)
    assert (off.abs() < 4 * steps.std(0) / 60_000**0.5).all()
    assert (steps.mean(0) - noise.expected_direction(prediction, y, r, 0.5)).norm() > 2 * off.norm()


@settings(max_examples=10, deadline=None)
@given(N=st.integers(2, 6), seed=SEEDS)
def test_the_first_order_is_the_slope_at_zero(N, seed):
    prediction, y, r = drawn(seed, N)
    h = 1e-4  # error of the one-sided difference of second order below: h^2
    at = [noise.expected_direction(prediction, y, r, p) for p in (0.0, h, 2 * h)]
    slope = (4 * at[1] - at[2] - 3 * at[0]) / (2 * h)
    torch.testing.assert_close(noise.first_order(prediction, y, r), slope, rtol=0, atol=2e-5)


@given(N=st.integers(2, 7), seed=SEEDS)
def test_a_critic_that_says_nothing_leads_from_near_to_far(N, seed):
    y = torch.eye(N, dtype=torch.float64)  # the coefficients themselves can be read
    prediction = torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    coefficients = noise.expected_direction(
        prediction, y, torch.linspace(0.1, 0.9, N, dtype=torch.float64), 1.0
    )
    far_first = (prediction - y).norm(dim=-1).argsort(descending=True)
    assert coefficients[far_first].diff().max() < 1e-12 and coefficients.sum().abs() < 1e-12


def test_the_average_at_equal_logits_with_a_true_critic_has_its_closed_form():
    for N in (2, 3, 9):
        ranked = torch.arange(N, 0, -1, dtype=torch.float64) / (N + 1)  # mean rewards, best first
        assert (noise.rank_weights(N) @ ranked).item() == pytest.approx(N * (N - 1) / (4 * (N + 1)))


def test_bad_arguments_are_named():
    prediction, y, r = drawn(0, 3)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\], got 1.5"):
        noise.expected_direction(prediction, y, r, 1.5)
    with pytest.raises(ValueError, match="kind must be one of replace, flip"):
        noise.expected_direction(prediction, y, r, 0.5, "gaussian")
    with pytest.raises(ValueError, match=r"rewards must lie in \(0, 1\)"):
        noise.expected_direction(prediction, y, 3 * r, 0.5)
    with pytest.raises(ValueError, match="logits must lie within 600"):
        noise.expected_direction(prediction, 100 * y, r, 0.5)
    with pytest.raises(ValueError, match="distinct|tie|differ"):
        noise.expected_direction(prediction, y, torch.tensor([0.3, 0.7, 0.2]).double(), 0.5, "flip")


def test_prompts_as_stated_have_their_law_and_gd_lowers_their_loss():
    generator = torch.Generator().manual_seed(1)
    prompts, target = noise_bridge.stated_prompts(4000, 2, 3, generator)
    size = prompts.query.square().sum(-1)
    assert (target.square().sum(-1) / size).mean().item() == pytest.approx(3, rel=0.06)
    r = prompts.rewards.unsqueeze(-1)
    noisy = (prompts.responses - r * target.unsqueeze(1)) / (1 - r) / size.sqrt()[:, None, None]
    assert noisy.square().mean().item() == pytest.approx(1, rel=0.06)
    assert (noisy[:, 0] * noisy[:, 1]).mean().abs() < 0.05  # each response has its own
    prompts, target = noise_bridge.stated_prompts(10, 4, 3, generator)
    shown = prompts.rewards.unsqueeze(0)
    losses = []
    for steps in (1, 50):
        start = torch.Generator().manual_seed(2)
        found = noise_bridge.adam_predictions(prompts, shown, start, steps)[0]
        losses.append(pl_loss(squared_distance_reward(found, prompts.responses), prompts.rewards).mean())
    assert losses[1] < losses[0] / 2


def test_the_best_rate_cannot_be_improved():
    generator = torch.Generator().manual_seed(3)
    steps, targets = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    rate = noise_bridge.best_rate(steps, targets)
    least = noise_bridge.normalised(rate * steps, targets).mean()
    assert all(noise_bridge.normalised(a * steps, targets).mean() > least for a in (0.9 * rate, 1.1 * rate))
    assert noise_bridge.normalised(0 * steps, targets).mean().item() == pytest.approx(1)
