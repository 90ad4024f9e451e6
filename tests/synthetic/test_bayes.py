"""The Bayes-optimal prediction against a joint Gaussian solve, Monte Carlo and other quadratures."""

import math

import numpy as np
import pytest
import torch

from ica.synthetic.task import bayes
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.metrics import linearised, normalised_mse

SEEN = (1, 2, 5, 19)


def draw(batch=40, N=20, d=3, seed=0, **more):
    return sample_batch(
        batch, N, d, torch.Generator().manual_seed(seed), dtype=torch.float64, noise="own", **more
    )


@pytest.mark.parametrize("n", SEEN)
def test_posterior_mean_is_the_conditional_mean_of_the_joint_gaussian(n):
    batch = draw()
    for i in range(8):
        r, y = batch.rewards[i, :n].numpy(), batch.responses[i, :n].numpy()
        # a coordinate of y* has variance 1, those of the responses the covariance r r' + diag (1 - r)^2
        covariance = np.outer(r, r) + np.diag((1 - r) ** 2)
        expected = r @ np.linalg.solve(covariance, y)
        assert np.abs(bayes.posterior_mean(batch, n)[i].numpy() - expected).max() < 1e-6


def test_posterior_mean_leaves_nothing_that_a_response_could_tell():
    generator = torch.Generator().manual_seed(1)
    r = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    target, noise = (torch.randn(400_000, k, generator=generator, dtype=torch.float64) for k in (1, 3))
    y = r * target + (1 - r) * noise
    batch = draw(batch=2, N=3, d=1)
    unit = [bayes.posterior_mean(with_one(batch, r, i), 3)[0, 0] for i in range(3)]
    rest = target[:, 0] - y @ torch.stack(unit)
    for values in (rest[:, None] * y).T:
        assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    error = rest.square()
    expected = 1 / (1 + bayes.precisions(r).sum())
    assert abs(error.mean() - expected) < 4 * error.std() / len(error) ** 0.5


def with_one(batch, r, i):
    """The batch with those rewards, and of the responses the i-th 1 and the others 0."""
    fields = {name: getattr(batch, name) for name in ("query", "good", "bad", "quality", "shown")}
    responses = torch.zeros_like(batch.responses)
    responses[:, i] = 1
    return type(batch)(**fields, responses=responses, rewards=r.expand(2, 3))


@pytest.mark.parametrize("n", [1, 2, 5, 19])
def test_errors_of_the_sampler_are_the_expected_ones(n):
    batch = draw(batch=20_000, d=2, seed=2)
    best = batch.responses[torch.arange(20_000), batch.rewards[:, :n].argmax(1)]
    found = {"expected_error": bayes.posterior_mean(batch, n), "expected_best_of_n": best}
    for name, prediction in found.items():
        error = linearised(normalised_mse(prediction, batch.good)[:, None], batch.good)[:, 0]
        assert abs(error.mean() - getattr(bayes, name)(n)) < 4 * error.std() / 20_000**0.5, name


def test_expected_error_in_closed_form_for_none_and_one():
    assert bayes.expected_error(0) == pytest.approx(1, abs=1e-9)
    assert bayes.expected_error(1) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_expected_error_is_the_product_quadrature_over_the_rewards(n):
    nodes, weights = np.polynomial.legendre.leggauss(120)
    r, w = (nodes + 1) / 2, weights / 2
    precision = (r / (1 - r)) ** 2
    total = sum(np.meshgrid(*[precision] * n, indexing="ij"))
    mass = math.prod(np.meshgrid(*[w] * n, indexing="ij"))
    assert bayes.expected_error(n) == pytest.approx(float((mass / (1 + total)).sum()), abs=1e-6)


def test_errors_fall_with_the_square_of_n():
    assert bayes.expected_error(1000) * 1000**2 == pytest.approx(2 / math.pi, rel=0.03)
    assert bayes.expected_best_of_n(1000) * 1000**2 == pytest.approx(4, rel=0.01)


def test_the_order_alone_tells_more_than_the_best_and_less_than_the_values():
    batch = draw(batch=4000, d=5, seed=3)
    order, values, best = (
        normalised_mse(prediction, batch.good).mean()
        for prediction in (
            bayes.from_order(batch, 19),
            bayes.posterior_mean(batch, 19),
            batch.responses[torch.arange(4000), batch.rewards[:, :19].argmax(1)],
        )
    )
    assert values < order < best
    squeezed = bayes.from_order(type(batch)(**vars(batch) | {"rewards": batch.rewards**3}), 19)
    assert torch.equal(squeezed, bayes.from_order(batch, 19))


def test_a_reward_that_float32_rounds_to_one_is_the_target():
    batch = draw(batch=2, N=3)
    batch.rewards[:, 1] = 1.0
    torch.testing.assert_close(bayes.posterior_mean(batch, 3), batch.responses[:, 1], rtol=1e-6, atol=1e-6)


def test_refusals_name_what_was_wrong(as_users_call):
    batch = draw(batch=2, N=3)
    shared = sample_batch(2, 3, 3, torch.Generator().manual_seed(0), dtype=torch.float64)
    for predict in (bayes.posterior_mean, bayes.from_order):
        with pytest.raises(ValueError, match="own noise"):
            predict(shared, 2)
        with pytest.raises(ValueError, match="at most N = 3, got 4"):
            predict(batch, 4)
        with pytest.raises(ValueError, match="n must be a whole number"):
            predict(batch, -1)
    for bad in (1.5, -0.1):
        with pytest.raises(ValueError, match=r"rewards must lie in \[0, 1\]"):
            bayes.precisions(torch.tensor([0.5, bad]))
    with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
        bayes.expected_best_of_n(0)
    with pytest.raises(ValueError, match="n must be a whole number of at least 0"):
        bayes.expected_error(-1)
