"""A query for each response: closed form against autograd, the lift, and where the loss is convex."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.theory import own_queries as oq
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.plackett_luce import plackett_luce
from ica.theory.descent import prompt_loss
from ica.theory.prompts import Prompts, default_gap

BATCH = 4


def drawn(N: int, d: int, p: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    prompts = oq.sample_own(BATCH, N, d, p, generator)
    return prompts, torch.randn(BATCH, d, p, generator=generator, dtype=torch.float64) / 2


@given(N=st.integers(2, 6), d=st.integers(1, 4), p=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_closed_form_is_the_gradient(N, d, p, seed):
    prompts, W = drawn(N, d, p, seed)
    step = oq.own_descent(W, prompts, 0.1, 1)[1] - W
    torch.testing.assert_close(step, 0.2 * oq.own_direction(W, prompts), rtol=1e-10, atol=1e-12)
    scores = -oq.residuals(W, prompts).square().sum(-1)
    assert oq.step_weights(scores, prompts.rewards).sum(-1).abs().max() <= 1e-12


def test_with_one_query_it_is_the_usual_loss():
    prompts, W = drawn(4, 3, 2, 0)
    one = oq.OwnQueries(prompts.queries[:, :1].expand(-1, 4, -1), prompts.responses, prompts.rewards)
    usual = Prompts(prompts.queries[:, 0], prompts.responses, prompts.rewards)
    torch.testing.assert_close(oq.own_loss(W, one), prompt_loss(W, usual))


@settings(max_examples=15)
@given(N=st.integers(2, 6), d=st.integers(1, 3), p=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_blocks_take_the_step_on_lifted_prompts(N, d, p, seed):
    prompts, W = drawn(N, d, p, seed)
    A = Assumptions(eta=0.3 / N, gap=0.999 * default_gap(N))
    model = plackett_luce(torch.zeros(d * p, 1, dtype=torch.float64), N, A)
    with torch.no_grad():
        found = model(oq.lifted(W, prompts).tokens()).unflatten(-1, (d, p))
    wanted = oq.own_descent(W, prompts, 0.3 / N, 1)[1] - W
    torch.testing.assert_close(found, wanted.unsqueeze(1).expand_as(found), rtol=0, atol=1e-12)


def test_parallel_queries_are_convex_and_others_are_not():
    prompts, W = drawn(5, 2, 3, 1)
    signs = torch.tensor([1.0, -1, 1, 1, -1], dtype=torch.float64).view(1, 5, 1)
    parallel = oq.OwnQueries(signs * prompts.queries[:, :1], prompts.responses, prompts.rewards)
    assert oq.least_curvature(W, parallel).min() >= -1e-10
    assert oq.least_curvature(W, prompts).max() < -1e-3


@pytest.mark.parametrize(("longer", "convex"), [(0, True), (1, False)])
def test_of_two_multiples_the_better_must_be_the_longer(longer, convex):
    queries = torch.ones(1, 2, 1, dtype=torch.float64)
    queries[0, longer] = 2.0
    zero = torch.zeros(1, 2, 1, dtype=torch.float64)
    pair = oq.OwnQueries(queries, zero, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    curvature = oq.least_curvature(zero[:, :1], pair).item()
    assert curvature == pytest.approx(3 if convex else -3)


def test_the_proofs_example_for_more_responses():
    """Other responses far away: the curvature along w v tends to that of the two."""
    queries = torch.eye(3, dtype=torch.float64).unsqueeze(0)
    v = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    rewards = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    responses = torch.tensor([[[0.0, 0.0], [0.0, 9.0], [0.0, 9.0]]], dtype=torch.float64)
    prompts = oq.OwnQueries(queries, responses, rewards)
    at = torch.zeros(1, 2, 3, dtype=torch.float64)
    losses = []
    for b in (-1e-3, 0.0, 1e-3):
        moved = at.clone()
        moved[0, 0] = b * v
        losses.append(oq.own_loss(moved, prompts).item())
    assert (losses[0] - 2 * losses[1] + losses[2]) / 1e-6 == pytest.approx(-1, abs=1e-3)


ONE, W1 = drawn(3, 2, 2, 2)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oq.OwnQueries(ONE.queries[:, :2], ONE.responses, ONE.rewards), "queries must have shape"),
        (lambda: oq.OwnQueries(ONE.queries, ONE.responses, ONE.rewards * 0), "rewards must be distinct"),
        (lambda: oq.OwnQueries(ONE.queries.float(), ONE.responses, ONE.rewards), "queries.dtype must be"),
        (
            lambda: oq.lifted(W1, oq.OwnQueries(2 * ONE.queries, ONE.responses, ONE.rewards)),
            "queries must have norm 1",
        ),
        (lambda: oq.sample_own(1, 1, 2, 2, torch.Generator()), "N must be a whole number of at least 2"),
        (lambda: oq.own_descent(W1, ONE, 0.0, 1), "eta must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
