"""Threshold features, constant depth, windows, one head: against autograd, and where they must refuse."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.theory.constructions.attention_only import attention_only
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.constant_depth import constant_depth, reward_grid, windowed, windows
from ica.theory.constructions.layout import Layout, set_units, zero_
from ica.theory.constructions.one_head import one_head, one_head_twice
from ica.theory.constructions.thresholds import Grid, clear_units, key_units, query_units
from ica.theory.cost import multiply_adds, wall_times
from ica.theory.descent import gradient_descent, relative_errors
from ica.theory.prompts import default_gap, sample_prompts
from ica.transformer import Transformer, TransformerConfig, count_parameters


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def worst_error(
    build, N, d, steps=1, dtype=torch.float64, gap=None, seed=0, batch=4, unchecked=False, **options
) -> float:
    """Largest relative error over prompts and tokens against gradient descent by autograd in float64."""
    gap = gap or default_gap(N)
    prompts = sample_prompts(batch, N, d, gap=gap, generator=seeded(seed))
    W = torch.randn(d, d, generator=seeded(seed + 1), dtype=torch.float64) / d**0.5
    eta = 0.5 / N
    path = gradient_descent(W.expand(batch, d, d), prompts, eta, steps) @ prompts.query.unsqueeze(-1)
    model = build(W, N, Assumptions(eta=eta, gap=gap, dtype=dtype), steps, **options)
    assert type(model) is Transformer and model.config.heads == 1
    with torch.no_grad():
        moved = model(prompts.to(dtype).tokens(), unchecked).double()
    goal, first = (path[k].mT.expand_as(moved) for k in (-1, 0))
    return float(relative_errors(moved, goal, first).max())


def feature_sums(grid: Grid, limits: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Psi(t) . Phi(r) of each limit and reward, computed by a real network."""
    layout = Layout(r=1, t=1, phi=grid.size, psi=grid.size)
    units = key_units(layout, {"r": 1.0}, "phi", grid) + query_units(layout, {"t": 1.0}, "psi", grid)
    h = torch.zeros(len(rewards), layout.width, dtype=rewards.dtype)
    h[:, 0], h[:, 1] = rewards, limits
    h = run_units(units, h)
    return layout.get(h, "psi") @ layout.get(h, "phi").mT


def run_units(units, h):
    """The stream after a block that holds these units only."""
    config = TransformerConfig(1, 1, width=h.shape[-1], layers=1, hidden=sum(len(u[0]) for u in units))
    block = zero_(Transformer(config).to(h.dtype)).blocks[0]
    set_units(block.feed_forward, units)
    with torch.no_grad():
        return block(h.unsqueeze(0)).squeeze(0)


@settings(deadline=None, max_examples=60)
@given(
    low=st.floats(-50, 50),
    spread=st.floats(0.01, 100),
    share=st.floats(0.005, 1),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_features_are_zero_up_to_the_limit_and_at_least_one_beyond_the_gap(low, spread, share, seed, dtype):
    grid = Grid(low, low + spread, share * spread)
    try:
        grid.check(dtype)
    except ValueError:
        return
    inside = torch.rand(40, generator=seeded(seed), dtype=torch.float64) * spread + low
    values = torch.cat([inside, inside[:20] - grid.gap, grid.points[:20]])
    values = values[(values >= low) & (values <= low + spread)].to(dtype)
    sums = feature_sums(grid, values, values)
    difference = values.double()[None, :] - values.double()[:, None]
    assert (sums[difference <= 0] == 0).all()
    beyond = sums[difference >= grid.gap]
    assert beyond.numel() == 0 or beyond.min() >= 0.95


def test_clear_and_rewrite_in_one_network():
    grid = Grid(0.0, 1.0, 0.1)
    layout = Layout(r=1, t=1, psi=grid.size)
    h = torch.tensor([[0.3, 0.6]], dtype=torch.float64)
    h = torch.cat([h, torch.zeros(1, grid.size, dtype=h.dtype)], dim=-1)
    h = run_units(query_units(layout, {"t": 1.0}, "psi", grid), h)
    moved = run_units(
        clear_units(layout, "psi") + query_units(layout, {"r": 1.0}, "psi", grid, offset=-0.05), h
    )
    expected = ((grid.points - 0.25) / grid.ramp).clamp(min=0)
    assert torch.allclose(layout.get(moved, "psi")[0], expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(
    N=st.integers(2, 12),
    d=st.integers(1, 6),
    steps=st.integers(1, 3),
    share=st.floats(0.02, 0.9),
    seed=st.integers(0, 10**6),
)
def test_constant_depth_is_gradient_descent(N, d, steps, share, seed):
    assert worst_error(constant_depth, N, d, steps, gap=share / (N - 1), seed=seed) <= FLOOR(d)


@settings(deadline=None, max_examples=20)
@given(N=st.integers(2, 8), d=st.integers(1, 4), count=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_windows_are_gradient_descent(N, d, count, seed):
    most = reward_grid(Assumptions(eta=1.0, gap=default_gap(N))).size - 1
    assert worst_error(windowed, N, d, 2, seed=seed, count=min(count, most)) <= FLOOR(d)


def FLOOR(d: int) -> float:
    """1e-12; more on a line (d = 1), where the terms of a step can nearly cancel; any sum loses digits."""
    return 1e-12 if d > 1 else 1e-9


@pytest.mark.parametrize("build, options", [(constant_depth, {}), (windowed, {"count": 5})])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_64_responses(build, options, dtype, bound):
    assert worst_error(build, 64, 16, 2, dtype=dtype, **options) <= bound


def test_depth_does_not_depend_on_N_and_windows_trade_width_for_depth():
    assumptions = Assumptions(eta=0.1, gap=0.01)
    W = torch.eye(2, dtype=torch.float64)
    assert {constant_depth(W, N, assumptions, 3).config.layers for N in (2, 64)} == {7}
    wide, thin = windowed(W, 64, assumptions, count=1), windowed(W, 64, assumptions, count=12)
    assert (wide.config.layers, thin.config.layers) == (3, 14)
    assert thin.config.head_width - 3 <= (wide.config.head_width - 3) / 12 + 2


def test_rewards_closer_than_the_gap_break_the_construction():
    def coarse(W, N, assumptions, steps):
        return constant_depth(W, N, Assumptions(eta=assumptions.eta, gap=0.4), steps)

    with pytest.raises(ValueError, match="reward gap must be at least gap = 0.4"):
        worst_error(coarse, 8, 3, batch=20)
    assert worst_error(coarse, 8, 3, batch=20, unchecked=True) > 1e-2


def test_windows_share_one_point_and_cover_the_grid():
    grid = Grid(0.0, 1.0, 0.05)
    cut = windows(grid, 7)
    assert len(cut) == 7 and torch.equal(torch.cat([cut[0], *(c[1:] for c in cut[1:])]), grid.points)
    assert all(a[-1] == b[0] for a, b in pairwise(cut))


def test_one_head_is_exact_at_the_better_token_only_and_twice_at_both():
    prompts = sample_prompts(50, 2, 3, generator=seeded(3))
    W = torch.randn(3, 3, generator=seeded(4), dtype=torch.float64) / 3**0.5
    path = gradient_descent(W.expand(50, 3, 3), prompts, 0.3, 1) @ prompts.query.unsqueeze(-1)
    with torch.no_grad():
        once, twice = (
            make(W, Assumptions(eta=0.3, gap=0.1))(prompts.tokens()) for make in (one_head, one_head_twice)
        )
    errors, both = (
        relative_errors(z, path[1].mT.expand_as(z), path[0].mT.expand_as(z)) for z in (once, twice)
    )
    better = prompts.rewards.argmax(dim=-1, keepdim=True)
    assert errors.gather(-1, better).max() <= 1e-12
    assert errors.gather(-1, 1 - better).min() >= 1
    assert both.max() <= 1e-12


@settings(max_examples=20, deadline=None)
@given(N=st.integers(2, 9), d=st.integers(1, 5), share=st.floats(0.2, 1.0), seed=st.integers(0, 10**6))
def test_attention_alone_takes_one_step(N, d, share, seed):
    """Without a network, in 2N - 3 layers, whatever the gap that it is told."""
    gap = share * default_gap(N)
    data = sample_prompts(4, N, d, gap=gap, generator=seeded(seed))
    W = torch.randn(d, d, generator=seeded(seed + 1), dtype=torch.float64) / d**0.5
    model = attention_only(W, N, Assumptions(eta=0.5 / N, gap=0.999 * gap))
    assert len(model.blocks) == 2 * N - 3 and not any(block.feed_forward for block in model.blocks)
    path = gradient_descent(W.expand(4, d, d), data, 0.5 / N, 1) @ data.query.unsqueeze(-1)
    with torch.no_grad():
        errors = (model(data.tokens()) - path[1].mT).norm(dim=-1)
    assert errors.max() <= 1e-12


def test_costs_count_what_is_there():
    config = TransformerConfig(inputs=4, outputs=2, width=6, layers=3, heads=2, head_width=5, hidden=7)
    model = Transformer(config)
    maps = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert multiply_adds(config, 11) == 11 * maps + 3 * 2 * 11 * 11 * 10
    assert count_parameters(model, nonzero=True) <= count_parameters(model)
    times = wall_times(lambda: model(torch.zeros(1, 11, 4)), repeats=4)
    assert len(times) == 4 and min(times) > 0


GOOD = Assumptions(eta=0.1, gap=0.1)
EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize(
    "named, call",
    [
        ("N must", lambda: constant_depth(EYE, 1, GOOD)),
        ("N must", lambda: attention_only(EYE, 1, GOOD)),
        ("steps must", lambda: constant_depth(EYE, 4, GOOD, 0)),
        ("W must be finite", lambda: constant_depth(EYE / 0, 4, GOOD)),
        ("low must be a finite", lambda: constant_depth(EYE, 4, GOOD, low=float("nan"))),
        ("width must be at least 14", lambda: constant_depth(EYE, 4, GOOD, width=5)),
        ("gap must be at least", lambda: constant_depth(EYE, 4, GOOD, low=1e14)),
        ("gap must be at least", lambda: reward_grid(Assumptions(eta=1.0, gap=1e-5, dtype=torch.float32))),
        ("gap must be at most", lambda: Grid(0.0, 1.0, 1.5)),
        ("low must be below", lambda: Grid(1.0, 1.0, 0.1)),
        ("count must be at most", lambda: windowed(EYE, 4, GOOD, count=100)),
        ("count must", lambda: windowed(EYE, 4, GOOD, count=0)),
        ("rewards must lie in", lambda: Grid(0.0, 1.0, 0.1).accept(torch.tensor([[0.2, 1.2]]))),
        ("rewards must differ", lambda: Grid(0.0, 1.0, 0.1).accept(torch.tensor([[0.2, 0.25]]))),
        ("n must", lambda: multiply_adds(TransformerConfig(1, 1, 1, 1), 0)),
        ("repeats must", lambda: wall_times(lambda: None, 0)),
    ],
)
def test_bad_input_is_named(named, call):
    with pytest.raises(ValueError, match=named):
        call()


def test_target_and_source_of_features_are_checked():
    layout = Layout(r=1, y=2, phi=3)
    with pytest.raises(ValueError, match="target must hold"):
        key_units(layout, {"r": 1.0}, "phi", Grid(0.0, 1.0, 0.05))
    with pytest.raises(ValueError, match="source must name"):
        key_units(layout, {"y": 1.0}, "phi", Grid(0.0, 1.0, 0.5))
