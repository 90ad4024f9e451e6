"""The step of the cosine reward: its closed form, and the constructed blocks that take its direction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from torch.nn.functional import normalize

from ica.objectives import cosine_reward, pl_direction, pl_loss
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.plackett_luce import plackett_luce
from ica.theory.prompts import Prompts, default_gap, sample_prompts

SEEDS = st.integers(0, 2**31)


def step_of(prediction, responses, rewards):
    """Minus the gradient of the loss in the prediction, by autograd."""
    leaf = prediction.clone().requires_grad_(True)
    pl_loss(cosine_reward(leaf, responses), rewards).sum().backward()
    return -leaf.grad


def parts_of(prediction, responses, rewards):
    """Unit prediction, direction for unit responses at half of it, and their inner product."""
    h = normalize(prediction, dim=-1)
    u = pl_direction(h / 2, normalize(responses, dim=-1), rewards)
    return h, u, (h * u).sum(-1, keepdim=True)


@given(N=st.integers(2, 8), d=st.integers(2, 6), size=st.sampled_from([1e-3, 1.0, 50.0]), seed=SEEDS)
def test_the_gradient_is_a_projected_direction_over_the_norm(N, d, size, seed):
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(3, N, d, generator=generator)
    prediction = size * torch.randn(3, d, generator=generator, dtype=torch.float64)
    h, u, along = parts_of(prediction, prompts.responses, prompts.rewards)
    closed = (u - along * h) / prediction.norm(dim=-1, keepdim=True)
    found = step_of(prediction, prompts.responses, prompts.rewards)
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-11 * N / size)
    assert (found * h).sum(-1).abs().max() < 1e-11 * N / size
    assert closed.norm() > 1e-3 * found.norm()


@settings(max_examples=10, deadline=None)
@given(N=st.integers(2, 6), seed=SEEDS)
def test_constructed_blocks_take_its_direction_on_responses_of_norm_one(N, seed):
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(1, N, 4, generator=generator)
    prediction, eta = torch.randn(1, 4, generator=generator, dtype=torch.float64), 0.05
    h, _, along = parts_of(prediction, prompts.responses, prompts.rewards)
    moved = prediction + eta * step_of(prediction, prompts.responses, prompts.rewards)
    a = eta / prediction.square().sum(-1, keepdim=True)
    if (a * along).max() >= 0.9:
        return
    rate = (a / (4 * (1 - a * along))).item()
    unit = Prompts(prompts.query, normalize(prompts.responses, dim=-1), prompts.rewards)
    W = (h / 2).T @ prompts.query  # W x = h / 2, as the query has norm 1
    model = plackett_luce(W, N, Assumptions(eta=rate, gap=0.99 * default_gap(N)))
    with torch.no_grad():
        built = model(unit.tokens())[:, 0]
    torch.testing.assert_close(normalize(built, dim=-1), normalize(moved, dim=-1), rtol=0, atol=1e-11)


def test_two_rays_have_no_common_shift():
    prediction = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    rays = torch.tensor([[1.0, 1.0, 0.3], [1.0, -0.5, 0.8]], dtype=torch.float64)
    responses = torch.cat([t * rays for t in (1.0, 2.0, 3.0)])
    wanted = cosine_reward(prediction + torch.tensor([0.0, 0.4, 0.0]).double(), responses)

    def miss(s):
        return (cosine_reward(prediction, responses - torch.as_tensor(s)) - wanted).numpy()

    starts = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least = min(least_squares(miss, start.numpy()).cost for start in starts)
    whole = 0.5 * (miss([0.0, 0.0, 0.0]) ** 2).sum()
    assert 0.05 * whole < least < whole
    with pytest.raises(ValueError, match="must not be zero"):
        miss(rays[0])
