"""Masks and one attention layer: the theorems' bounds against constructions, searches and autograd."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from ica.objectives import pl_direction
from ica.theory import masks, one_layer
from ica.theory.compare import predictions_along
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.one_feature import one_feature
from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts, sample_prompts
from ica.transformer import TransformerConfig, initial


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def mask_sizes(draw):
    J = draw(st.integers(1, 24))
    leak = 10 ** draw(st.floats(-12, -1))
    return J, draw(st.integers(1, J)), leak, leak * 10 ** draw(st.floats(0.5, 10))


@settings(deadline=None, max_examples=60)
@given(mask_sizes())
def test_windows_of_exponentials_mask_and_meet_both_bounds(sizes):
    J, _, leak, strength = sizes
    limits, keys = masks.window_mask(*sizes)
    mask, remaining = limits @ keys.mT, torch.ones(J, J, dtype=torch.bool).tril(-1)
    assert (mask[remaining] <= leak * (1 + 1e-9)).all() and (mask >= 0).all()
    assert (mask[~remaining] >= strength * (1 - 1e-9)).all()
    magnitude = math.log10(float(limits.norm(dim=1).max() * keys.norm(dim=1).max()))
    assert masks.least_magnitude(*sizes) - 1e-9 <= magnitude <= masks.window_magnitude(*sizes) + 1e-9


@settings(deadline=None, max_examples=60)
@given(J=st.integers(1, 8), K=st.integers(1, 8), seed=st.integers(0, 10**6), scale=st.floats(0.1, 3))
def test_no_features_have_less_magnitude_than_the_bound(J, K, seed, scale):
    """Features at random: leak and strength are what they are; the bound must lie below their magnitude."""
    K = min(J, K)
    limits, keys = (part * torch.exp(scale * torch.randn(J, K, generator=seeded(seed + k)))
                    for k, part in enumerate(masks.window_mask(J, K, 0.1, 10.0)))  # fmt: skip
    mask, remaining = (limits @ keys.mT).abs(), torch.ones(J, J, dtype=torch.bool).tril(-1)
    strength = float(mask[~remaining].min())
    leak = max(float(mask[remaining].max()) if J > 1 else 0.0, 1e-9 * strength)
    if leak < strength:
        magnitude = float(limits.norm(dim=1).max() * keys.norm(dim=1).max())
        assert masks.least_magnitude(J, K, leak, strength) <= math.log10(magnitude) + 1e-9


def test_search_comes_down_to_the_bound_for_one_pair():
    assert masks.searched_magnitude(3, 1, 50.0, 2, 0) == pytest.approx(
        masks.least_magnitude(3, 1, 1.0, 50.0), abs=1e-6
    )
    assert masks.searched_magnitude(3, 2, 50.0, 2, 0) < masks.window_magnitude(3, 2, 1.0, 50.0) - 0.1


def graded_prompts(J, batch=20, N=8, d=3):
    data = sample_prompts(batch, N, d, generator=seeded(0))
    ranks = torch.rand(batch, N, generator=seeded(1)).argsort(dim=-1)
    first = torch.rand(batch, 1, generator=seeded(2), dtype=torch.float64)
    return Prompts(data.query, data.responses, first * (1 - (N - 1) / J) + ranks / J)


@pytest.mark.parametrize(
    "K, leak, most", [(1, 1e-15, 1e-13), (3, 1e-15, 1e-13), (12, 1e-15, 1e-13), (2, 0.1, 1)]
)
def test_masked_heads_take_the_step_up_to_the_leak(K, leak, most):
    data = graded_prompts(12)
    start = torch.randn(len(data.query), 3, generator=seeded(3), dtype=torch.float64)
    goal = pl_direction(start, data.responses, data.rewards)
    strength = float((start.unsqueeze(1) - data.responses).square().sum(-1).max()) + 45
    features = masks.window_mask(12, K, leak, strength)
    mask = masks.rewards_mask(data.rewards, 0.0, 0.9999 / 12, features)
    error = (masks.masked_direction(start, data.responses, mask) - goal).norm(dim=-1)
    D = torch.cdist(data.responses, data.responses).amax(dim=(1, 2))
    proved = 8 * D * (0.5 * math.expm1(2 * leak) + 8 * math.exp(leak - 45))
    assert (error <= proved + 1e-13).all() and error.max() <= most
    assert leak < 0.01 or error.max() > 1e-6


@settings(deadline=None, max_examples=20)
@given(
    N=st.integers(2, 12),
    d=st.integers(2, 5),
    steps=st.integers(1, 2),
    share=st.floats(0.6, 0.9),
    seed=st.integers(0, 999),
)
def test_one_mask_feature_takes_steps_as_a_transformer(N, d, steps, share, seed):
    gap = share / max(N - 1, 2)
    data = sample_prompts(4, N, d, gap=gap, generator=seeded(seed))
    W = torch.randn(d, d, generator=seeded(seed + 1), dtype=torch.float64) / d**0.5
    model = one_feature(W, N, Assumptions(eta=0.5 / N, gap=0.999 * gap), steps)
    assert model.config.head_width == d + 2 and model.config.layers == 1 + 2 * steps
    with torch.no_grad():
        moved = predictions_along(model, data.tokens(), len(model.blocks))[-1]
    path = gradient_descent(W.expand(4, d, d), data, 0.5 / N, steps) @ data.query.unsqueeze(-1)
    assert (moved - path[-1].mT).norm(dim=-1).max() <= 1e-12


def test_one_mask_feature_refuses_what_its_numbers_cannot_hold():
    with pytest.raises(ValueError, match="gap must be larger for one mask feature in torch.float32"):
        one_feature(torch.eye(2), 4, Assumptions(eta=0.1, gap=0.2, dtype=torch.float32))
    coarse = one_feature(torch.eye(2).double(), 8, Assumptions(eta=0.1, gap=0.4))
    data = sample_prompts(4, 8, 2, generator=seeded(0))
    with pytest.raises(ValueError, match="reward gap"):
        coarse(data.tokens())


@settings(deadline=None, max_examples=20)
@given(N=st.integers(3, 12), d=st.integers(2, 5), size=st.floats(0.2, 3), seed=st.integers(0, 10**6))
def test_step_follows_the_alternating_series_of_the_proof(N, d, size, seed):
    W = torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)
    data = one_layer.probe_prompts(W, N, size)
    path = gradient_descent(W.expand(N, d, d), data, 0.3, 1)
    step = ((path[1] - path[0]) @ data.query.unsqueeze(-1)).squeeze(-1)
    v = data.responses[0, 0] / size
    found = (step @ v / (2 * 0.3 * size)).numpy()
    assert np.abs(found - found[0] - one_layer.wanted(N)).max() <= 1e-9


@settings(deadline=None, max_examples=20)
@given(heads=st.integers(1, 3), seed=st.integers(0, 10**6), scale=st.floats(0.3, 30))
def test_random_layers_change_sign_no_more_often_and_miss_the_step(heads, seed, scale):
    m, bound = one_layer.one_layer_bound(heads, 1.0, 0.5)
    W = torch.randn(2, 2, generator=seeded(seed), dtype=torch.float64)
    model = initial(
        TransformerConfig(6, 2, width=12, layers=1, heads=heads, head_width=6), seed, torch.float64
    )
    for block in model.blocks:
        for weight in (block.attention.W_Q.weight, block.attention.W_K.weight):
            weight.data.mul_(scale)
    data = one_layer.probe_prompts(W, m, 1.0)
    with torch.no_grad():
        out = model(data.tokens())[:, 0]
    path = gradient_descent(W.expand(m, 2, 2), data, 0.5, 1)
    assert (out - (path[1] @ data.query.unsqueeze(-1)).squeeze(-1)).norm(dim=-1).max() >= bound
    line = np.linspace(-1, 2, 400)
    probe = torch.from_numpy(line).unsqueeze(-1)
    rewards = torch.cat([data.rewards[:1, :-1].expand(400, -1) + 1e-7, probe], dim=-1)
    moved = Prompts(data.query[:1].expand(400, -1), data.responses[:1].expand(400, -1, -1), rewards)
    with torch.no_grad():
        along = model(moved.tokens())[:, 0].numpy()
    for coordinate in along.T:
        for level in np.quantile(coordinate, (0.2, 0.5, 0.8)):
            off = coordinate - level
            signs = np.sign(off[np.abs(off) > 1e-9 * np.abs(coordinate).max()])
            assert (np.diff(signs) != 0).sum() <= one_layer.most_signs(heads)


@pytest.mark.parametrize("N", [2, 3, 5, 6])
def test_the_step_has_a_denominator_for_each_term(N):
    """As a function of z = exp(logit of the worst) it is rational of degree N - 1: rank of its Loewner matrix.

    A head whose score is that logit gives degree 1, so N - 2 heads cannot be equal to it.
    """
    others = np.stack([np.zeros(N - 1), np.sqrt(1.5 * np.arange(1, N))], axis=1)  # the worst moves across
    rewards = np.append(np.arange(N - 1, 0, -1.0), 0.0)
    t = np.sqrt(np.linspace(0.1, 1.5 * N, 2 * (N + 3)))

    def share(t):
        """Sum over terms of the weight of the worst response, by the library's own direction."""
        y = torch.from_numpy(np.vstack([others, [t, 0.0]]))
        found = pl_direction(torch.zeros(2, dtype=torch.float64), y, torch.from_numpy(rewards))
        return -float(found[0]) / t

    z, value = np.exp(-(t**2)), np.array([share(one) for one in t])
    a, b = slice(0, None, 2), slice(1, None, 2)
    loewner = (value[a, None] - value[b]) / (z[a, None] - z[b])
    sizes = np.linalg.svd(loewner, compute_uv=False)
    rank = int((sizes > 1e-12 * sizes[0]).sum())
    assert rank == N - 1


def test_search_is_sharp_for_one_head():
    assert one_layer.one_layer_bound(1, 1.0, 0.5) == (4, pytest.approx(1 / 6))
    assert one_layer.searched_error(3, 1, 4, 0) <= 1e-9
    assert 1 / 6 <= one_layer.searched_error(4, 1, 6, 0) + 1e-12 <= 0.17
    assert one_layer.searched_error(6, 2, 6, 0) <= 1e-6


def test_two_heads_are_exact_for_seven_responses_on_an_uneven_ladder():
    """Six changes of side are all that two heads can make; where the lobes are, the probe's rewards are put.

    Four zeros are given and two come of themselves. Every wanted value lies in a lobe of its own, if the
    output is scaled up until the smallest lobe is high enough.
    """
    slopes, offsets = np.array([1.0, 0.8676730149859911]), np.array([0.0, 4.534356637897565])
    zeros = np.array([-20.67236461, -14.69789647, -13.49577759, -8.01158541])

    def terms(r):
        gates = 1 / (1 + np.exp(-np.outer(np.atleast_1d(r), slopes) - offsets))
        return np.hstack([gates, gates * np.atleast_1d(r)[:, None]])

    weights = np.linalg.solve(terms(zeros), -np.ones(4))
    line = np.linspace(-60, 20, 8001)
    output = 1 + terms(line) @ weights
    lobes = np.split(np.arange(len(line)), np.flatnonzero(np.diff(np.sign(output))) + 1)
    assert len(lobes) == 7 == one_layer.most_signs(2) + 1
    goal = one_layer.wanted(7)
    goal = goal - (goal[5] + goal[6]) / 2
    tops = np.array([lobe[np.abs(output[lobe]).argmax()] for lobe in lobes])
    scale = 0.9 * np.sign(output[0] * goal[0]) * (np.abs(output[tops]) / np.abs(goal)).min()
    ends = [line[lobes[0][-1] + 1], *(line[lobe[0] - 1] for lobe in lobes[1:])]
    rewards = [brentq(lambda r, v=v: float(1 + (terms(r) @ weights)[0] - scale * v), end, line[top], xtol=1e-15)
               for v, end, top in zip(goal, ends, tops, strict=True)]  # fmt: skip
    assert (np.diff(rewards) > 1).all()
    error = np.abs((1 + terms(rewards) @ weights) / scale - goal).max()
    assert error <= 1e-4 < one_layer.one_layer_bound(2, 1.0, 0.5)[1]


def test_an_ffn_of_fixed_size_delays_the_bound():
    assert [one_layer.most_signs(h) for h in (1, 2, 3)] == [2, 6, 14]
    assert one_layer.most_signs(1, before=3, after=2) == 4 * 5 * 2
    assert one_layer.one_layer_bound(1, 1.0, 0.5, after=16)[0] == 68


@pytest.mark.parametrize(
    "named, call",
    [
        ("K must be at most", lambda: masks.least_magnitude(3, 4, 0.1, 1.0)),
        ("strength must be above", lambda: masks.window_magnitude(3, 2, 1.0, 0.5)),
        ("K must be larger", lambda: masks.window_mask(20, 1, 1e-7, 30.0, torch.float32)),
        ("N must", lambda: one_layer.probe_prompts(torch.eye(2).double(), 2, 1.0)),
        ("W must have at least two rows", lambda: one_layer.probe_prompts(torch.ones(1, 2).double(), 4, 1.0)),
        ("heads must", lambda: one_layer.most_signs(0)),
        ("tries must", lambda: one_layer.searched_error(4, 1, 0, 0)),
    ],
)
def test_bad_input_is_named(named, call):
    with pytest.raises(ValueError, match=named):
        call()
