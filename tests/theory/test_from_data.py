"""The radius read off the prompts against gradient descent, and blocks built from it (notebook "many_steps")."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica import minimiser
from ica.theory.compare import step_errors
from ica.theory.constructions.from_data import assumptions, path_radius
from ica.theory.constructions.plackett_luce import plackett_luce
from ica.theory.prompts import sample_prompts

KINDS = ("terms", "loss", "limit", "best")


def drawn(seed=0, N=4, d=3, batch=5):
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(batch, N, d, generator=generator)
    W = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return prompts, W, minimiser.stable_rate(prompts.responses).min().item()


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 4), st.sampled_from([1, 7, 60, 200]))
def test_no_prediction_leaves_any_of_the_radii(seed, N, d, steps):
    prompts, W, eta = drawn(seed, N, d, 3)
    start, rate = prompts.query @ W.T, torch.full((3,), eta, dtype=torch.float64)
    best_first = minimiser.ranked(prompts.responses, prompts.rewards)
    path = minimiser.long_descent(best_first, start, rate, list(range(1, steps + 1)))
    away = (path.unsqueeze(2) - prompts.responses).norm(dim=-1).amax((0, 2))
    radii = {kind: path_radius(W, prompts, eta, steps, kind) for kind in KINDS}
    for kind, radius in radii.items():
        assert (away <= radius * (1 + 1e-9)).all(), kind
    assert torch.equal(radii["best"], torch.stack(list(radii.values())).amin(0))


def test_the_radius_grows_by_the_logarithm_without_a_minimiser_and_not_at_all_with_one():
    prompts, W, eta = drawn(N=4, d=5)
    near, far = (path_radius(W, prompts, eta, T, "limit") for T in (10**4, 10**6))
    assert (far < 2 * near).all()
    prompts, W, eta = drawn(N=9, d=2, batch=40)
    some = minimiser.exists(prompts.responses, prompts.rewards)
    assert some.sum() > 20
    near, far = (path_radius(W, prompts, eta, T, "limit")[some] for T in (1, 10**6))
    assert torch.equal(near, far)


def test_blocks_built_from_the_data_follow_descent_and_refuse_more_steps():
    prompts, W, eta = drawn(N=4, d=5, batch=20)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        told = assumptions(W, prompts.to(dtype), eta, 15, dtype)
        assert step_errors(plackett_luce(W, 4, told, 15), prompts, W, eta, 15, "typical").max() < bound
    short = assumptions(W, prompts, eta, 1)
    assert short.radius < told.radius


def test_a_long_step_has_the_radius_of_the_terms_alone():
    prompts, W, eta = drawn()
    with pytest.raises(ValueError, match=r"eta must be at most 1 / \(\(N - 1\) D\^2\)"):
        path_radius(W, prompts, 1.1 * eta, 5, "loss")
    terms = path_radius(W, prompts, 1.1 * eta, 5, "terms")
    assert torch.equal(path_radius(W, prompts, 1.1 * eta, 5), terms)
    with pytest.raises(ValueError, match="kind must be one of"):
        path_radius(W, prompts, eta, 5, "other")
