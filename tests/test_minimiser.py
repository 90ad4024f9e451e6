"""The minimiser against SciPy and autograd; its existence against geometry, certificates and counts."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sympy.functions.combinatorial.numbers import stirling

from ica import minimiser
from ica.objectives import pl_loss, predict, squared_distance_reward


def draw(batch=30, n=12, d=3, seed=0, random_ranks=False):
    """Responses r y* + (1 - r) e_i, ranked by r: orders that a linear function nearly gives; or by nothing."""
    generator = torch.Generator().manual_seed(seed)
    target = 2 * torch.randn(batch, 1, d, generator=generator, dtype=torch.float64)
    r = torch.rand(batch, n, generator=generator, dtype=torch.float64)
    noise = 2 * torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    y = r.unsqueeze(-1) * target + (1 - r).unsqueeze(-1) * noise
    return y, torch.rand(batch, n, generator=generator, dtype=torch.float64) if random_ranks else r


def loss(prediction, responses, rewards):
    return pl_loss(squared_distance_reward(prediction, responses), rewards)


def having(responses, rewards):
    some = minimiser.exists(responses, rewards)
    return responses[some], rewards[some]


@pytest.mark.parametrize(("d", "n"), [(1, 6), (2, 9), (5, 19)])
def test_scipy_finds_the_same_minimiser(d, n):
    y, r = (values[:8] for values in having(*draw(60, n, d)))
    found = minimiser.minimiser(y, r)
    assert len(found) == 8
    for i in range(8):

        def value(prediction, i=i):
            point = torch.tensor(prediction, requires_grad=True)
            result = loss(point[None], y[i : i + 1], r[i : i + 1]).sum()
            return result.item(), torch.autograd.grad(result, point)[0].numpy()

        other = optimize.minimize(value, np.zeros(d), jac=True, method="BFGS", options={"gtol": 1e-10})
        assert np.abs(other.x - found[i].numpy()).max() < 1e-6 * (1 + found[i].norm())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_the_gradient_is_zero_at_every_scale_and_place(scale):
    y, r = draw(400, 8, 3)
    some = minimiser.exists(y, r)
    y, r = scale * y[some], r[some]
    found = minimiser.minimiser(y + 5 * scale, r).sub(5 * scale).requires_grad_()
    # the scores up to a common term: squared distances round where the minimiser is far away
    scores = 2 * (y @ found.unsqueeze(-1)).squeeze(-1) - y.square().sum(-1)
    (gradient,) = torch.autograd.grad(pl_loss(scores, r).sum(), found)
    assert (gradient.norm(dim=-1) < 1e-9 * scale).all()


def test_expansion_is_the_loss_and_its_derivatives():
    y, r = draw(5, 9, 3)
    point = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    best_first = minimiser.ranked(y, r)
    value, gradient, hessian, terms = minimiser.expansion(point, best_first)
    torch.testing.assert_close(value, loss(point, y, r))
    for i in range(5):

        def one(p, i=i):
            return loss(p[None], y[i : i + 1], r[i : i + 1]).sum()

        torch.testing.assert_close(gradient[i], torch.autograd.functional.jacobian(one, point[i]))
        torch.testing.assert_close(hessian[i], torch.autograd.functional.hessian(one, point[i]))
    assert (terms >= gradient.norm(dim=-1)).all()


def test_weighted_terms_have_the_minimiser_of_their_weighted_sum():
    y, r = having(*draw(60, 9, 3))
    weights = torch.linspace(3, 0.2, 8, dtype=torch.float64)
    best_first = minimiser.ranked(y, r)
    found = minimiser.newton(best_first, weights).requires_grad_()
    scores = 2 * (best_first @ found.unsqueeze(-1)).squeeze(-1) - best_first.square().sum(-1)
    terms = scores.flip(-1).logcumsumexp(-1).flip(-1) - scores
    value = (weights * terms[:, :-1]).sum(-1)
    (gradient,) = torch.autograd.grad(value.sum(), found)
    assert gradient.norm(dim=-1).max() < 1e-8
    assert (found - minimiser.newton(best_first)).norm(dim=-1).median() > 0.1

    def one(p):
        return minimiser.expansion(p, best_first, weights)[0].sum()

    hessian = minimiser.expansion(found.detach(), best_first, weights)[2]
    expected = torch.autograd.functional.hessian(one, found.detach())
    torch.testing.assert_close(hessian, torch.stack([expected[i, :, i] for i in range(len(y))]))
    torch.testing.assert_close(
        minimiser.expansion(found.detach(), best_first, weights)[0] - value.detach(),
        torch.zeros(len(y)).double(),
        atol=1e-9,
        rtol=0,
    )


def test_on_a_line_it_lies_in_the_span_and_is_that_of_one_dimension():
    place = torch.tensor([[0.3, -1.0, 2.0, 0.1, 1.1]], dtype=torch.float64)
    rewards = torch.tensor([[0.9, 0.4, 0.2, 0.7, 0.5]], dtype=torch.float64)
    along = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    line, space = place.unsqueeze(-1), place.unsqueeze(-1) * along
    assert minimiser.exists(space, rewards).item()
    torch.testing.assert_close(
        minimiser.minimiser(space, rewards), minimiser.minimiser(line, rewards) * along, rtol=1e-9, atol=1e-9
    )


# Existence


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=7, unique=True))
def test_on_a_line_there_is_none_exactly_where_the_order_is_monotone(places):
    y = torch.tensor(places, dtype=torch.float64)[None, :, None]
    rewards = torch.linspace(1, 0, len(places), dtype=torch.float64)[None]
    steps = np.diff(places)
    assert minimiser.exists(y, rewards).item() == (not ((steps > 0).all() or (steps < 0).all()))


def test_in_the_plane_there_is_none_exactly_where_the_steps_fit_in_half_a_turn():
    for n in (3, 4, 5, 8):
        y, r = draw(150, n, 2, seed=n)
        steps = minimiser.ranked(y, r).diff(dim=1)
        angles = torch.atan2(steps[..., 1], steps[..., 0]).sort(-1).values
        gaps = torch.cat([angles.diff(dim=-1), angles[:, :1] + 2 * math.pi - angles[:, -1:]], dim=-1)
        assert torch.equal(minimiser.exists(y, r), gaps.amax(-1) < math.pi)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 15))
def test_an_order_that_a_direction_gives_has_none(seed, d, n):
    generator = torch.Generator().manual_seed(seed)
    y, v = (torch.randn(3, k, d, generator=generator, dtype=torch.float64) for k in (n, 1))
    r = (y * v).sum(-1)
    assert not minimiser.exists(y, r).any()
    u, margin = minimiser.runaway(y, r)
    products = -(minimiser.ranked(y, r).diff(dim=1) * u[:, None]).sum(-1)
    torch.testing.assert_close(products.amin(-1), margin)
    along = torch.nn.functional.normalize(v, dim=-1)
    assert (margin >= (-minimiser.ranked(y, r).diff(dim=1) * along).sum(-1).amin(-1) - 1e-9).all()


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 5))
def test_steps_that_cancel_have_one(seed, d, more):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(3, d + more, d, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, d + more, 1, generator=generator, dtype=torch.float64) + 0.1
    steps = torch.cat([steps, -(weights * steps).sum(1, keepdim=True)], dim=1)
    y = torch.nn.functional.pad(-steps.cumsum(1), (0, 0, 1, 0))
    r = -torch.arange(d + more + 2, dtype=torch.float64).expand(3, -1)
    assert minimiser.exists(y, r).all()
    assert (minimiser.first_existing(y, r) >= d + 2).all()
    with pytest.raises(ValueError, match="but prompt 0 has none"):
        minimiser.runaway(y, r)


@pytest.mark.parametrize(("n", "d"), [(3, 1), (4, 2), (5, 2), (5, 3), (6, 3)])
def test_as_many_orders_have_none_as_cover_counts(n, d):
    y = torch.randn(n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    r = torch.tensor(list(itertools.permutations(range(n))), dtype=torch.float64)
    found = minimiser.exists(y.expand(len(r), n, d), r)
    assert (~found).sum() == minimiser.orders(n, d)


def test_orders_of_few_points_are_all_and_of_many_on_a_line_two():
    assert [minimiser.orders(n, 4) for n in (1, 2, 5)] == [1, 2, 120]
    assert minimiser.orders(9, 1) == 2


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_the_share_is_that_of_the_orders_and_of_permutations_by_their_cycles(d):
    for n in range(2, 15):
        share = minimiser.share_without(n, d)
        assert share == pytest.approx(minimiser.orders(n, d) / math.factorial(n), rel=1e-12)
        if d < n:  # Zaslavsky: regions of a generic section of the braid arrangement
            cycles = sum(stirling(n, n - k, kind=1) for k in range(d - 1, -1, -2))
            assert share == pytest.approx(2 * int(cycles) / math.factorial(n), rel=1e-12)
    assert minimiser.share_without(1, d) == 1
    assert minimiser.share_without(500, d) < 1e-9


def test_the_least_n_is_where_it_begins_and_it_stays():
    y, r = draw(60, 12, 3)
    first = minimiser.first_existing(y, r)
    for n in range(2, 13):
        assert torch.equal(minimiser.exists(y[:, :n], r[:, :n]), first <= n)
    assert first.min() >= 5
    assert torch.equal(minimiser.first_existing(y[:, :4], r[:, :4]), torch.full((60,), 5))


def test_a_critic_that_says_nothing_has_the_share_of_random_ranks():
    y, r = draw(400, 8, 3, random_ranks=True)
    share, expected = (
        minimiser.exists(y, r).double().mean().item(),
        1 - minimiser.orders(8, 3) / math.factorial(8),
    )
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5


# Where there is none, and descent


def test_the_margin_is_the_largest_that_a_general_solver_finds():
    y, r = draw(6, 4, 3)
    u, margin = minimiser.runaway(y, r)
    for rows, own in zip(-minimiser.ranked(y, r).diff(dim=1).numpy(), margin.tolist(), strict=True):
        rule = {"type": "ineq", "fun": lambda v, rows=rows: rows @ v - 1, "jac": lambda v, rows=rows: rows}
        begin = np.linalg.pinv(rows) @ np.ones(3)
        other = optimize.minimize(
            lambda v: v @ v, begin, jac=lambda v: 2 * v, constraints=rule, method="SLSQP"
        )
        assert own == pytest.approx(1 / np.linalg.norm(other.x), rel=1e-6)
    torch.testing.assert_close(u.norm(dim=-1), torch.ones(6, dtype=torch.float64))


def test_the_shortest_direction_is_made_of_the_steps_of_least_margin():
    y, r = draw(40, 4, 4)
    v, alpha = minimiser.shortest(y, r)
    steps = -minimiser.ranked(y, r).diff(dim=1)
    products = (steps * v[:, None]).sum(-1)
    assert (products > 1 - 1e-9).all() and (alpha >= 0).all()
    assert ((products - 1) * alpha).abs().max() < 1e-9
    torch.testing.assert_close(alpha.sum(-1), v.square().sum(-1))


def test_long_descent_is_plain_descent():
    y, r = draw(5, 6, 3)
    rate, start = minimiser.stable_rate(y), torch.ones(5, 3, dtype=torch.float64)
    path = minimiser.plain_descent(y, r, start, rate, 30)
    kept = minimiser.long_descent(minimiser.ranked(y, r), start, rate, [1, 7, 30])
    torch.testing.assert_close(kept, path[[1, 7, 30]])
    assert (start == 1).all()
    for wrong in ([], [3, 3], [5, 2], [0, 4]):
        with pytest.raises(ValueError, match="at"):
            minimiser.long_descent(minimiser.ranked(y, r), start, rate, wrong)


def test_descent_on_predictions_is_descent_on_the_weights():
    y, r = draw(4, 6, 3)
    query = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    W = torch.zeros(4, 3, 2, dtype=torch.float64, requires_grad=True)
    rate = 0.02 * query.square().sum(-1)
    path = minimiser.plain_descent(y, r, torch.zeros(4, 3).double(), rate, 7)
    for _ in range(7):
        (gradient,) = torch.autograd.grad(loss(predict(W, query), y, r).sum(), W)
        W = (W - 0.02 * gradient).detach().requires_grad_()
    torch.testing.assert_close(path[-1], predict(W, query).detach())


def test_a_stable_step_never_raises_the_loss_and_ends_at_the_minimiser():
    y, r = having(*draw(20, 7, 2))
    path = minimiser.plain_descent(y, r, torch.zeros(len(y), 2).double(), minimiser.stable_rate(y), 1000)
    values = torch.stack([loss(point, y, r) for point in path[::50]])
    excess = values - loss(minimiser.minimiser(y, r), y, r)
    assert (values.diff(dim=0) <= 1e-9).all()
    assert (excess >= -1e-9).all() and excess[-1].median() < 0.01 * excess[0].median()


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 3), (4, 5)])
def test_without_minimiser_descent_has_the_limits_of_the_theorem(n, d):
    y = torch.randn(20, n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r = torch.arange(float(n), 0, -1, dtype=torch.float64).expand(20, n)
    (v, alpha), rate, T = minimiser.shortest(y, r), minimiser.stable_rate(y), 10_000
    half, end = minimiser.long_descent(y, torch.zeros(20, d).double(), rate, [T // 2, T])
    assert (end - half - v * math.log(2) / 2).norm(dim=-1).median() < 0.01
    limit = (4 * rate * T * loss(end, y, r)) / v.square().sum(-1)
    assert (limit.median() - 1).abs() < 0.01
    scores = squared_distance_reward(end, y)
    margins = (scores[:, :-1] - scores[:, 1:]) - (4 * rate[:, None] * T / alpha).log()
    assert margins[alpha > 0].abs().median() < 0.02


# Refusals


def test_refusals_name_the_prompt_or_the_argument(as_users_call):
    y, r = draw(3, 4, 3)
    with pytest.raises(ValueError, match="3 of 3 have none, first prompt 0"):
        minimiser.minimiser(y, r)
    with pytest.raises(ValueError, match="no ties"):
        minimiser.exists(y, torch.zeros_like(r))
    with pytest.raises(ValueError, match="responses must be finite"):
        minimiser.exists(y * torch.nan, r)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        minimiser.plain_descent(y, r, y[:, 0], torch.ones(3), 0)
    with pytest.raises(ValueError, match="n must be a whole number"):
        minimiser.orders(0, 2)


def test_ties_may_keep_the_order_of_the_prompt():
    y, r = draw(20, 8, 2)
    tied = r.clone()
    tied[:, 1] = tied[:, 0]
    before = tied.clone()
    before[:, 1] -= 1e-9
    assert torch.equal(minimiser.exists(y, tied, "stable"), minimiser.exists(y, before))
