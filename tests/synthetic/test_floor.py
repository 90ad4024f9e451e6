"""The floor: the angle against grids, autograd, descent and quadrature; the laws against the sampler."""

import math

import pytest
import torch
from scipy import integrate, optimize

from ica.objectives import REWARDS, cosine_reward, pl_loss, squared_distance_reward
from ica.synthetic.task import floor
from ica.synthetic.task.baselines import descend
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.prefixes import prefix_pl_losses

SEEN = torch.tensor([2, 3, 8, 20])


def draw(batch=40, N=20, d=5, seed=0):
    return sample_batch(batch, N, d, torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(predictions, batch):
    scores = REWARDS["cosine"](predictions, batch.responses.unsqueeze(1))
    return prefix_pl_losses(scores, batch.rewards, SEEN)


def test_no_direction_of_the_whole_space_has_a_lower_loss():
    batch, generator = draw(), torch.Generator().manual_seed(1)
    best = floor.minimisers(batch, SEEN)
    lowest = loss(best, batch)
    torch.testing.assert_close(best.norm(dim=-1), torch.ones(40, 4, dtype=torch.float64))
    for size in (2.0, 0.1, 1e-3):
        for _ in range(100):
            other = best + size * torch.randn(best.shape, generator=generator, dtype=torch.float64)
            assert (loss(other, batch) > lowest).all()


def test_descent_on_the_weights_converges_to_it():
    batch = draw(16)
    found = descend(batch, SEEN, torch.Generator().manual_seed(2), steps=400)
    torch.testing.assert_close(
        cosine_error(found, floor.minimisers(batch, SEEN)).max().item(), 0.0, atol=1e-6, rtol=0
    )


def test_the_slope_is_the_derivative_of_the_loss():
    batch = draw()
    basis = floor.plane(batch)
    angles = floor.plane_angles(batch.responses, basis)
    omega = torch.linspace(-3, 3, 40, dtype=torch.float64, requires_grad=True)
    direction = omega.cos()[:, None] * basis[0] + omega.sin()[:, None] * basis[1]
    (expected,) = torch.autograd.grad(
        pl_loss(cosine_reward(direction, batch.responses), batch.rewards).sum(), omega
    )
    ordered = angles.sort(-1, descending=True).values
    torch.testing.assert_close(20 * floor.slope(omega.detach(), ordered), expected)


def test_two_responses_in_closed_form():
    batch = draw(500, N=2)
    unit = torch.nn.functional.normalize(batch.responses, dim=-1)
    best = batch.rewards.argmax(-1)
    rows = torch.arange(500)
    difference = unit[rows, best] - unit[rows, 1 - best]
    found = floor.minimisers(batch, torch.tensor([2]))[:, 0]
    assert cosine_error(found, difference).max() < 1e-12
    middle = floor.plane_angles(batch.responses, floor.plane(batch)).mean(-1)
    torch.testing.assert_close(cosine_error(found, batch.good), 1 - middle.sin())


def test_answers_within_an_angle_keep_the_minimiser_away():
    phi = torch.linspace(0.02, math.pi / 2, 50, dtype=torch.float64)
    for ratio in (0.3, 1.0, 3.0):
        errors = 1 - floor.population_angle(phi, torch.full_like(phi, ratio)).cos()
        assert (errors > 1 - phi.sin()).all() and errors[0] > 0.97 and (errors.diff() < 0).all()


def test_the_population_angle_is_that_of_the_integral():
    phi, ratio = 1.9, 0.6

    def score(r, omega):
        return math.cos(
            omega - math.atan2((1 - r) * ratio * math.sin(phi), r + (1 - r) * ratio * math.cos(phi))
        )

    def functional(omega):
        def term(r):
            total, _ = integrate.quad(lambda t: math.exp(score(t, omega)), 0, r)
            return math.log(total / r) - score(r, omega)

        return integrate.quad(term, 0, 1)[0]

    expected = optimize.minimize_scalar(
        functional, bounds=(-math.pi / 2, phi - math.pi / 2), method="bounded"
    )
    given = torch.tensor([phi], dtype=torch.float64), torch.tensor([ratio], dtype=torch.float64)
    assert floor.population_angle(*given, cells=4000).item() == pytest.approx(expected.x, abs=1e-4)


def test_many_responses_come_near_the_population():
    batch = draw(200, N=1000)
    basis = floor.plane(batch)
    phi = floor.plane_angles(batch.bad.unsqueeze(1), basis)[:, 0]
    limit = floor.population_angle(phi, batch.bad.norm(dim=-1) / batch.good.norm(dim=-1))
    found = floor.minimiser_angle(floor.plane_angles(batch.responses, basis))
    assert (found - limit).abs().mean() < 0.02


def test_the_quadrature_is_the_mean_over_the_sampler():
    batch = draw(4000, N=2)
    phi = floor.plane_angles(batch.bad.unsqueeze(1), floor.plane(batch))[:, 0]
    ratio = batch.bad.norm(dim=-1) / batch.good.norm(dim=-1)
    errors = 1 - floor.population_angle(phi, ratio, cells=200).cos()
    expected = floor.expected_population_floor(5, nodes=20, cells=200)
    assert abs(errors.mean() - expected) < 4 * errors.std() / 4000**0.5
    assert floor.expected_population_floor(5, nodes=30, cells=200) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("d", [2, 5, 20])
def test_the_difference_error_is_the_mean_over_the_sampler(d):
    batch = draw(20_000, N=2, d=d)
    errors = cosine_error(batch.good - batch.bad, batch.good)
    assert abs(errors.mean() - floor.expected_difference_error(d)) < 4 * errors.std() / 20_000**0.5


def test_squared_descent_follows_the_gradient_and_runs_past_the_good_answer():
    batch = draw()
    path = floor.squared_descent(batch, batch.responses.mean(1), 2000)
    leaf = path[0].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        pl_loss(squared_distance_reward(leaf, batch.responses), batch.rewards).sum(), leaf
    )
    step = (path[1] - path[0]) / -gradient
    torch.testing.assert_close(step.amax(-1), step.amin(-1))
    ahead = batch.good - batch.bad
    position = ((path - batch.bad) * ahead).sum(-1) / ahead.square().sum(-1)
    assert (position.diff(dim=0) > 0).all() and (position[-1] > 1).float().mean() > 0.8
    torch.testing.assert_close(path, batch.bad + position.unsqueeze(-1) * ahead)
    from_zero = floor.squared_descent(batch, torch.zeros_like(ahead), 50)
    assert cosine_error(from_zero[1:], ahead).max() < 1e-12


@pytest.mark.usefixtures("as_users_call")
def test_bad_input_is_named():
    half = torch.tensor([1.0])
    with pytest.raises(ValueError, match="angles must hold n >= 2"):
        floor.minimiser_angle(torch.ones(3, 1))
    with pytest.raises(ValueError, match="angles must lie between 0 and pi"):
        floor.minimiser_angle(torch.tensor([[0.5, -0.1]]))
    with pytest.raises(ValueError, match="seen must hold lengths from 2 to N = 20"):
        floor.minimisers(draw(2), torch.tensor([2, 21]))
    with pytest.raises(ValueError, match="d >= 2 features"):
        floor.plane(draw(2, d=1))
    with pytest.raises(ValueError, match="phi must lie strictly"):
        floor.population_angle(0 * half, half)
    with pytest.raises(ValueError, match="ratio must be"):
        floor.population_angle(half, 0 * half)
    with pytest.raises(ValueError, match="d must be a whole number of at least 2"):
        floor.expected_population_floor(1)
    with pytest.raises(ValueError, match="start must have shape"):
        floor.squared_descent(draw(2), torch.zeros(1, 5), 3)
