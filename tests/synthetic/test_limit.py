"""The limit of the minimiser for many responses, against quadrature and samples."""

import math

import pytest
import torch
from scipy import integrate, optimize

from ica.synthetic.task import limit
from ica.synthetic.task.data import sample_batch


@pytest.mark.parametrize(("target2", "query2", "d"), [(25.0, 5.0, 5), (2.0, 1.0, 2)])
def test_the_limit_minimises_the_double_integral(target2, query2, d):
    def inner(c, r):
        def density(z):
            q = 1 + 2 * (1 - z) ** 2 * query2
            return q ** (-d / 2) * math.exp(-((c - z) ** 2) * target2 / q)

        return math.log(integrate.quad(density, 0, r, epsabs=1e-12)[0] / r) + (c - r) ** 2 * target2

    found = optimize.minimize_scalar(
        lambda c: integrate.quad(lambda r: inner(c, r), 0, 1, epsabs=1e-10)[0],
        bounds=(0, 2),
        method="bounded",
        options={"xatol": 1e-8},
    ).x
    own = limit.limit_factor(torch.tensor([target2]).double(), torch.tensor([query2]).double(), d, 2000)
    assert own.item() == pytest.approx(found, abs=1e-5)


def test_the_minimiser_of_many_sampled_responses_is_near_the_limit():
    generator, n, d = torch.Generator().manual_seed(0), 100_000, 5
    target = torch.full((d,), 2.0, dtype=torch.float64)
    r = torch.rand(n, 1, generator=generator, dtype=torch.float64).sort(0).values
    y = r * target + (1 - r) * 2 * torch.randn(n, d, generator=generator, dtype=torch.float64)

    def value(c):
        scores = -(c * target - y).square().sum(-1)
        return (scores.logcumsumexp(0) - scores).mean().item()

    found = optimize.minimize_scalar(value, bounds=(0, 2), method="bounded").x
    own = limit.limit_factor(target.square().sum()[None], torch.tensor([4.0]).double(), d)
    assert own.item() == pytest.approx(found, abs=0.01)


def test_expected_limit_error_is_the_mean_over_the_sampler():
    drawn = sample_batch(1000, 2, 5, torch.Generator().manual_seed(3), dtype=torch.float64, noise="own")
    target2 = drawn.good.square().sum(-1)
    off = (limit.limit_factor(target2, drawn.query.square().sum(-1), 5, 100) - 1).square()
    assert (off * target2).mean() / target2.mean() == pytest.approx(
        limit.expected_limit_error(5, 12, 100), abs=0.005
    )


def test_refusals_name_the_argument():
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="finite numbers above 0"):
        limit.limit_factor(0 * one, one, 5)
    for wrong in ({"d": 0}, {"d": 5, "nodes": 1}, {"d": 5, "cells": 1}):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} must be a whole number"):
            limit.expected_limit_error(**wrong)
