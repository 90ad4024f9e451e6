"""The hypotheses about a prediction, their derivatives, and the weights that they give to the responses."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.objectives import cosine_reward, pl_direction, pl_loss
from ica.synthetic.analysis import rules
from ica.synthetic.task import floor
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.transformer import initial

TINY = RunConfig(form="triplet", layers=2, heads=1, width=8, hidden=8, d=4, N=6)
NAMES = tuple(rules.hypotheses())
COUNTED = ("covariance", "reward-weighted mean", "Bayes")  # rules that use the rewards' values


def prompts(count: int = 6, seed: int = 0, n: int = 6, d: int = 4):
    return sample_batch(count, n, d, torch.Generator().manual_seed(seed), dtype=torch.float64)


def off_the_line(batch, size: float = 0.1, seed: int = 9):
    noise = torch.randn(batch.responses.shape, generator=torch.Generator().manual_seed(seed)).double()
    return replace(batch, responses=batch.responses + size * noise)


def other_rewards(batch, seed: int = 3):
    fresh = torch.rand(
        batch.rewards.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return rules.by_rank(batch, fresh)


def direction(rule, batch):
    return rules.unit(rule(batch), dim=-1)


def test_the_minimiser_is_the_exact_one_and_descent_ends_there_in_the_plane():
    batch = prompts()
    exact = floor.minimisers(batch, torch.tensor([6]))[:, 0]
    torch.testing.assert_close(rules.minimiser(batch), exact, atol=1e-12, rtol=0)
    path = rules.descent(batch, 800, size=0.5)
    assert (1 - torch.cosine_similarity(path[-1], exact, dim=-1)).max() < 1e-6
    assert torch.einsum("bkl,sbl->sbk", rules._off_plane(batch), path).abs().max() < 1e-12


def test_the_minimiser_off_the_line_has_no_lower_neighbour():
    batch = off_the_line(prompts())
    v = rules.minimiser(batch)
    value = pl_loss(cosine_reward(v, batch.responses), batch.rewards)
    for seed in range(20):
        step = torch.randn(v.shape, generator=torch.Generator().manual_seed(seed)).double()
        near = cosine_reward(v + 1e-3 * step, batch.responses)
        assert (pl_loss(near, batch.rewards) > value).all()


def test_rules_are_what_their_names_say():
    batch, named = prompts(), rules.hypotheses()
    every, best = torch.arange(6), batch.quality.argmax(1)
    torch.testing.assert_close(named["best-of-n"](batch), batch.responses[every, best])
    torch.testing.assert_close(named["Bayes"](batch), batch.good)
    along = rules.unit(batch.good - batch.bad, dim=-1)
    for name in (
        "best less worst",
        "constructed step",
        "step at equal logits",
        "rank covariance",
        "covariance",
    ):
        torch.testing.assert_close(direction(named[name], batch), along)


def test_equal_logits_are_the_limit_of_a_small_scale():
    batch = off_the_line(prompts())
    small = pl_direction(torch.zeros_like(batch.good), batch.responses * 1e-5, batch.rewards) / 1e-5
    torch.testing.assert_close(rules.hypotheses()["step at equal logits"](batch), small, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_agree_with_differences(name):
    batch, rule, step = off_the_line(prompts(2)), rules.hypotheses()[name], 1e-5
    found, in_rewards = rules.derivatives(rule, batch)
    order = batch.rewards.argsort(1, descending=True)
    for i, k in ((0, 1), (5, 3)):
        here = torch.nn.functional.one_hot(order[:, i], 6).double()
        shift = step * here.unsqueeze(-1) * torch.eye(4)[k].double()
        for entry, changed in (
            (found[:, i, k], [replace(batch, responses=batch.responses + s * shift) for s in (1, -1)]),
            (in_rewards[:, i], [replace(batch, rewards=batch.rewards + s * step * here) for s in (1, -1)]),
        ):
            ends = [direction(rule, other) for other in changed]
            torch.testing.assert_close(entry, (ends[0] - ends[1]) / (2 * step), atol=1e-6, rtol=1e-5)


@settings(max_examples=12)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10**6), n=st.integers(3, 8))
def test_weights_reproduce_the_prediction(name, seed, n):
    batch, rule = prompts(4, seed, n), rules.hypotheses()[name]
    jacobian, _ = rules.derivatives(rule, batch)
    order = batch.rewards.argsort(1, descending=True).unsqueeze(-1).expand(4, n, 4)
    again = torch.einsum("bn,bnd->bd", rules.weights(jacobian, batch), batch.responses.gather(1, order))
    torch.testing.assert_close(again, direction(rule, batch), atol=1e-8, rtol=1e-6)
    whole = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(rules.weights_share(jacobian, batch), whole, atol=1e-8, rtol=0)


@settings(max_examples=12)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 10**6))
def test_rules_turn_with_the_prompt(name, seed):
    batch, rule = off_the_line(prompts(4, seed)), rules.hypotheses()[name]
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    moved = {key: getattr(batch, key) @ matrix.T for key in ("query", "good", "bad", "responses")}
    turned = direction(rule, replace(batch, **moved))
    torch.testing.assert_close(turned, direction(rule, batch) @ matrix.T, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_which_rules_know_the_order_only(name):
    batch, rule = off_the_line(prompts()), rules.hypotheses()[name]
    other = other_rewards(batch)
    assert torch.equal(other.rewards.argsort(1), batch.rewards.argsort(1))
    same = torch.allclose(direction(rule, batch), direction(rule, other), atol=1e-9, rtol=0)
    assert same != (name in COUNTED)


def test_on_the_line_the_covariance_rule_hides_that_it_uses_values():
    batch, rule = prompts(), rules.hypotheses()["covariance"]
    other = other_rewards(batch)
    torch.testing.assert_close(direction(rule, batch), direction(rule, other))
    before, after = (rules.weights(rules.derivatives(rule, part)[0], part) for part in (batch, other))
    assert (1 - torch.cosine_similarity(before, after, dim=-1)).min() > 1e-4


def test_the_released_baseline_ends_near_the_minimiser():
    batch = prompts(8)
    near = torch.cosine_similarity(rules.adam(batch, [1, 150], seed=0), rules.minimiser(batch), dim=-1)
    assert near.mean(1)[1] > 0.999 > near.mean(1)[0]


def test_a_transformer_is_differentiated_as_it_stands():
    model, batch = initial(TINY.transformer(), 0).double(), prompts()
    jacobian, in_rewards = rules.derivatives(rules.model_predictor(model, "triplet"), batch)
    assert jacobian.shape == (6, 6, 4, 4) and in_rewards.shape == (6, 6, 4)
    assert (rules.weights_share(jacobian, batch) < 1).all() and in_rewards.abs().min() > 0


def test_bad_input_is_named():
    single = sample_batch(2, 6, 4, torch.Generator().manual_seed(0))
    for refuse in (rules.minimiser, lambda b: rules.derivatives(lambda c: c.responses.mean(1), b)):
        with pytest.raises(ValueError, match="batch must be float64, got torch.float32"):
            refuse(single)
    many = prompts(64, d=5)
    unfit = replace(many, rewards=many.rewards[:, torch.tensor([3, 4, 5, 0, 1, 2])])
    with pytest.raises(ValueError, match=r"one minimiser in every prompt; in prompt \d+ none was reached"):
        rules.minimiser(unfit)
    with pytest.raises(ValueError, match="d >= 3 features to have directions off the plane, got d = 2"):
        rules.weights(torch.zeros(6, 6, 2, 2).double(), prompts(d=2))
    with pytest.raises(ValueError, match="form must be one of triplet"):
        rules.model_predictor(initial(TINY.transformer(), 0), "interleaved")
    with pytest.raises(ValueError, match="size must be a finite number above 0"):
        rules.descent(prompts(), 1, size=0.0)


def test_interventions_change_the_order_only_where_rewards_are_exchanged():
    batch = prompts(4)
    best = batch.responses[torch.arange(4), batch.rewards.argmax(1)]
    changes = rules.interventions(batch, torch.Generator().manual_seed(0))
    for name, other in changes.items():
        now = other.responses[torch.arange(4), other.rewards.argmax(1)]
        assert torch.equal(now, best) == (name != "exchanged")
        assert torch.equal(other.shown.squeeze(-1), other.rewards)
    assert not (changes["prompt reordered"].responses == batch.responses).all(-1).any()
