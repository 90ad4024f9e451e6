"""Bayes with a known noise level: closed forms, quadrature, importance sampling, its account of its error."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import integrate

from ica.synthetic.task import noisy_bayes
from ica.synthetic.task.bayes import posterior_mean
from ica.synthetic.task.data import Critic, sample_batch

MANY = {"groups": 16, "particles": 64}  # where the prompts are few


def draw(count=20, N=8, d=5, level=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return sample_batch(count, N, d, generator, Critic("replace", level), torch.float64, "own")


def after(batch, last, level, seed=1, **rules):
    return noisy_bayes.known(batch, last, level, torch.Generator().manual_seed(seed), **rules)


def test_a_critic_known_to_be_true_gives_the_closed_form():
    batch = draw()
    for n, found in enumerate(after(batch, 8, 0.0, groups=2, particles=1, sweeps=1), start=1):
        torch.testing.assert_close(found.mean, posterior_mean(batch, n), rtol=1e-12, atol=1e-12)
        assert found.error.max() < 1e-12


def test_a_critic_known_to_say_nothing_is_not_read():
    batch = draw()
    other = batch.judged_by(Critic("replace", 1.0), torch.Generator().manual_seed(9))
    one, two = (after(prompts, 4, 1.0)[-1] for prompts in (batch, other))
    assert torch.equal(one.mean, two.mean) and not torch.equal(batch.rewards, other.rewards)
    known = after(other, 4, 0.5)[-1]
    assert (known.mean - two.mean).norm(dim=-1).median() > 0.05


def likelihood(m: float, y: float, r: float, level: float) -> float:
    """Density of a response in one dimension given the target m, by adaptive quadrature over its quality."""

    def given(rho: float) -> float:
        return math.exp(-0.5 * ((y - rho * m) / (1 - rho)) ** 2) / (1 - rho)

    peak = 1 - min(max(abs(y - m), 1e-9), 1.0)  # near here the integrand is largest
    whole = integrate.quad(given, 0, peak, limit=200)[0] + integrate.quad(given, peak, 1, limit=200)[0]
    return (1 - level) * given(r) + level * whole


@pytest.mark.parametrize("level", [0.3, 1.0])
def test_one_dimension_agrees_with_quadrature_over_target_and_quality(level):
    batch = draw(2, 3, 1, level, seed=3)
    found = after(batch, 3, level, **MANY)[-1]
    assert found.error.max() < 0.03
    for b in range(2):
        size = batch.query[b].norm().item()
        y, r = (batch.responses[b, :, 0] / size).tolist(), batch.rewards[b].tolist()

        def weight(m, power, y=y, r=r):
            seen = (likelihood(m, *one, level) for one in zip(y, r, strict=True))
            return m**power * math.exp(-0.5 * m * m) * math.prod(seen)

        # the likelihood is infinite at each response, and narrow where a good reward points to
        ends = sorted({-6.0, 6.0, *y, *(a / s for a, s in zip(y, r, strict=True) if abs(a / s) < 6)})
        total, first = (
            sum(integrate.quad(weight, *piece, args=(k,), epsrel=1e-3)[0] for piece in pairwise(ends))
            for k in (0, 1)
        )
        off = found.mean[b, 0].item() - size * first / total
        assert abs(off) < 4 * found.error[b].item() + 1e-3 * size


def test_two_dimensions_agree_with_importance_sampling_from_the_prior_of_the_qualities():
    batch, level, draws = draw(3, 3, 2, seed=5), 0.5, 200_000
    found = after(batch, 3, level, **MANY)[-1]
    generator = torch.Generator().manual_seed(6)
    for b in range(3):
        size = batch.query[b].norm()
        chance, fresh = torch.rand(2, draws, 3, generator=generator, dtype=torch.float64)
        rho = torch.where(chance < level, fresh, batch.rewards[b])
        # with the target integrated out the responses are Gaussian in each feature, of this covariance
        covariance = rho.unsqueeze(2) * rho.unsqueeze(1) + torch.diag_embed((1 - rho).square())
        y = batch.responses[b] / size
        solved = torch.linalg.solve(covariance, y.expand(draws, 3, 2))
        logs = -0.5 * ((y * solved).sum((1, 2)) + 2 * torch.linalg.slogdet(covariance).logabsdet)
        weights, means = logs.softmax(0), torch.einsum("sn,snd->sd", rho, solved)
        expected = weights @ means
        spread = (weights.square() @ (means - expected).square()).sum().sqrt()
        off = (found.mean[b] / size - expected).norm()
        assert off < 4 * (spread + found.error[b] / size) and spread < 0.02


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_in_five_dimensions_it_knows_its_own_error_and_leaves_nothing_to_correct(level):
    batch = draw(400, 7, level=level, seed=7)
    for found in after(batch, 7, level)[::3]:
        gap = batch.good - found.mean
        excess = gap.square().sum(-1) - found.variance - found.error.square()
        across = (gap * found.mean).sum(-1)
        for values in (excess, across):
            assert values.mean().abs() < 4 * values.std() / 400**0.5
    worse = batch.responses.mean(1)  # of a predictor that is not Bayes the same mean is not 0
    across = ((batch.good - worse) * worse).sum(-1)
    assert across.mean().abs() > 4 * across.std() / 400**0.5


def test_the_standard_error_is_that_of_another_seed():
    batch = draw(300, 5, seed=8)
    for one, two in zip(after(batch, 5, 0.5, seed=1), after(batch, 5, 0.5, seed=2), strict=True):
        between = (one.mean - two.mean).square().sum(-1).mean()
        said = (one.error.square() + two.error.square()).mean()
        assert 0.7 < between / said < 1.4


def test_nodes_integrate_over_the_quality():
    t, weights = noisy_bayes.nodes()
    for power in range(5):
        assert weights @ (t / (1 + t)) ** power == pytest.approx(1 / (power + 1), abs=2e-5)
    # the density of a response in five dimensions, given a mean of precision 50, against adaptive quadrature
    own, apart, total = 3.0, 0.2, 50.0

    def density(rho):
        spread = (1 - rho) ** 2 + rho**2 / total
        return spread**-2.5 * math.exp(-0.5 * ((1 - rho) ** 2 * own + rho**2 * apart) / spread)

    expected = integrate.quad(density, 0, 1, epsrel=1e-10)[0]
    found = sum(w * density(rho) for w, rho in zip(weights.tolist(), (t / (1 + t)).tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_target_at_a_response_is_no_singularity():
    batch = draw(6, 6, seed=11)
    batch.responses[:, :3] = batch.good.unsqueeze(1)  # three of them at the target
    batch.rewards[:, 0] = 1.0
    for level in (0.5, 1.0):
        found = after(batch, 6, level)[-1]
        assert found.mean.isfinite().all() and found.variance.isfinite().all()
        assert ((found.mean - batch.good).norm(dim=-1) < 1e-3 * batch.good.norm(dim=-1)).all()


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: after(draw(), 3, 1.5), "level must lie between 0 and 1"),
        (lambda: after(draw(), 3, True), "level must lie between 0 and 1"),
        (lambda: after(draw(), 9, 0.5), "last must be at most N = 8, got 9"),
        (lambda: after(draw(), 3, 0.5, groups=1), "groups must be a whole number of at least 2"),
        (lambda: after(draw(), 3, 0.5, sweeps=0), "sweeps must be a whole number of at least 1"),
        (lambda: after(draw(), 3, 0.5, count=42), "count must be a multiple of 4, got 42"),
        (lambda: after(sample_batch(4, 8, 5, torch.Generator()), 3, 0.5), "batch must have own noise"),
    ],
)
def test_refusals_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
