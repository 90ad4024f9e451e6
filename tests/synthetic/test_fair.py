"""The rules of the fair test with their derivatives, what they explain of models, and imitators."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica import minimiser
from ica.objectives import pl_direction, pl_loss, squared_distance_reward
from ica.synthetic.analysis import controls, fair, fair_rules, rules
from ica.synthetic.task.baselines import best_response
from ica.synthetic.task.bayes import posterior_mean, precisions
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch

TINY = RunConfig(
    noise="own",
    form="triplet",
    layers=1,
    heads=1,
    width=12,
    hidden=24,
    d=2,
    N=4,
    steps=60,
    batch=16,
    rate=1e-2,
)
SMOOTH = ("least expected loss", "Bayes", "mean response", "covariance", "GD, 5 steps", "exact minimiser")


def prompts(count: int = 6, seed: int = 0, n: int = 9, d: int = 3):
    return sample_batch(count, n, d, torch.Generator().manual_seed(seed), dtype=torch.float64, noise="own")


def solved(count: int = 12, seed: int = 0, n: int = 9, d: int = 3):
    return rules.double(fair.solvable(prompts(4 * count, seed, n, d)), count)


def plain_descent(batch, steps, rate, size):
    """One step after the other, by the gradient of `objectives`."""
    n = batch.rewards.shape[1]
    v, y = torch.zeros_like(batch.good), batch.responses / size.view(-1, 1, 1)
    for _ in range(steps):
        v = v + 2 * rate / (n - 1) * pl_direction(v, y, batch.rewards)
    return v * size.unsqueeze(-1)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 6),
    rate=st.sampled_from((0.05, 0.3)),
    unit=st.sampled_from(fair_rules.UNITS),
)
def test_descent_is_gradient_descent_after_every_prefix(seed, steps, rate, unit):
    batch, seen = prompts(4, seed), torch.tensor([2, 5, 9])
    size = {"stated": torch.ones(4).double(), "query": batch.query.norm(dim=-1)}
    size["feature"] = size["query"] * 3**0.5
    rule = fair_rules.Descent(steps, rate, unit)
    found = rule.at(batch, seen)
    for k, n in enumerate(seen.tolist()):
        plain = plain_descent(controls.cut(batch, n), steps, rate, size[unit])
        torch.testing.assert_close(found[:, k], plain, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(rule(batch), found[:, -1])


def test_descent_ends_at_the_minimiser_and_never_leaves_differences_of_responses():
    batch = solved(n=14)
    far = fair_rules.Descent(3000, 0.2)(batch)
    exact = fair_rules.exact_minimiser(batch)
    off = (far - exact).norm(dim=-1)
    assert off.median() < 1e-8 and off.max() < 0.1 * exact.norm(dim=-1).max()
    ordered = batch.responses.gather(
        1, batch.rewards.argsort(1, descending=True).unsqueeze(-1).expand(-1, -1, 3)
    )
    inside = torch.ones(len(ordered), 1, 14, dtype=torch.bool)
    given_ = fair_rules._coefficients(exact.unsqueeze(1) / 10, ordered, inside)
    assert given_.sum(-1).abs().max() < 1e-12
    assert given_[..., 0].min() > 0 > given_[..., -1].max()
    alike = replace(batch, responses=batch.responses[:, :1].expand_as(batch.responses))
    assert fair_rules.Descent(5, 0.2)(alike).abs().max() < 1e-12
    assert fair_rules.Descent(1, 0.2).at(batch, torch.tensor([1])).abs().max() < 1e-12


def test_means_weigh_as_their_names_say():
    batch = prompts()
    r, y = batch.rewards, batch.responses
    best = best_response(batch, torch.tensor([9]))[:, 0]
    mean = fair_rules.weighted_mean
    torch.testing.assert_close(mean("exponential", 0.0)(batch), y.mean(1))
    torch.testing.assert_close(mean("exponential", 1e5)(batch), best)
    given_ = (r**3).unsqueeze(-1)
    torch.testing.assert_close(mean("power", 3.0)(batch), (given_ * y).sum(1) / given_.sum(1))
    given_ = (2 * r).exp().unsqueeze(-1)
    torch.testing.assert_close(mean("exponential", 2.0)(batch), (given_ * y).sum(1) / given_.sum(1))


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_agree_with_differences(name):
    batch, step = solved(2, seed=1), 1e-5
    rule = fair_rules.fixed_rules(9, 12, 0)[name]
    found = rules.derivatives(rule, batch, direction=False)[0]
    order = batch.rewards.argsort(1, descending=True)
    for i, k in ((0, 1), (8, 2)):
        here = torch.nn.functional.one_hot(order[:, i], 9).double().unsqueeze(-1)
        shift = step * here * torch.eye(3)[k].double()
        ends = [rule(replace(batch, responses=batch.responses + s * shift)) for s in (1, -1)]
        change = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found[:, i, k], change, atol=2e-6, rtol=1e-4)


def test_without_direction_the_derivative_is_of_the_length_too():
    batch = prompts()
    rule = fair_rules.weighted_mean("exponential", 2.0)
    whole, unit = (rules.derivatives(rule, batch, direction=found)[0] for found in (False, True))
    assert (torch.einsum("bnij,bj->bni", unit, rule(batch)).abs() < 1e-12).all()
    assert torch.einsum("bnij,bj->bni", whole, rule(batch)).abs().max() > 0.1


def test_the_minimiser_moves_along_when_all_responses_are_shifted():
    batch = solved()
    slopes = rules.derivatives(fair_rules.exact_minimiser, batch, direction=False)[0]
    torch.testing.assert_close(slopes.sum(1), torch.eye(3).double().expand(len(slopes), 3, 3))
    few = rules.derivatives(fair_rules.Descent(1, 1e-6), batch, direction=False)[0]
    assert few.sum(1).abs().max() < 1e-4


def test_least_expected_loss_is_the_minimiser_when_nothing_is_to_come():
    batch = solved()
    found = fair_rules.least_expected_loss(9, 2, 0)(batch)
    torch.testing.assert_close(found, fair_rules.exact_minimiser(batch), atol=1e-6, rtol=1e-6)


def test_least_expected_loss_is_below_other_predictions_on_draws_of_its_own():
    batch = controls.cut(prompts(200, n=12), 6)
    whole = prompts(200, n=12)
    rule = fair_rules.least_expected_loss(12, 32, 0)

    def loss(prediction):
        return pl_loss(squared_distance_reward(prediction, whole.responses), whole.rewards)

    for other in (posterior_mean(batch, 6), posterior_mean(batch, 6) / 2, fair_rules.Descent(5, 0.2)(batch)):
        gap = loss(other) - loss(rule(batch))
        assert gap.mean() > 3 * gap.std() / 200**0.5


def test_completions_are_what_is_still_to_come():
    whole, generator = prompts(4000, n=3), torch.Generator().manual_seed(1)
    batch, last = controls.cut(whole, 2), whole.responses[:, 2]
    drawn = fair_rules.completions(batch, 3, 4, generator)
    new = drawn.sum(2) - batch.responses.sum(1, keepdim=True)
    for weigh in (lambda y: y.square().sum(-1), lambda y: (y * posterior_mean(batch, 2)).sum(-1)):
        told = torch.stack([weigh(new[:, k]) for k in range(4)]).mean(0)
        gap = told - weigh(last)
        assert gap.mean().abs() < 4 * gap.std() / 4000**0.5
    assert (new.std(1) > 0).all()
    again = fair_rules.completions(whole, 3, 2, generator)
    order = whole.rewards.argsort(1, descending=True).unsqueeze(-1).expand_as(whole.responses)
    torch.testing.assert_close(again[:, 1], whole.responses.gather(1, order))


def test_prompts_are_kept_where_the_loss_has_a_minimiser():
    batch = prompts(40, n=6)
    kept = minimiser.exists(batch.responses, batch.rewards)
    assert 0 < kept.sum() < 40
    assert torch.equal(fair.solvable(batch).query, batch.query[kept])
    with pytest.raises(ValueError, match="every prompt must have a minimiser"):
        fair_rules.exact_minimiser(batch)
    assert len(fair.solvable(prompts(20, n=4)).query) == 0


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), times=st.floats(0.2, 3))
def test_a_rule_explains_all_of_itself_up_to_a_factor(seed, times):
    rule = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)).double()
    models = torch.stack([times * rule, rule + rule.roll(1, 0)])
    found = fair.factor(models, rule)
    assert found[0].item() == pytest.approx(times)
    left = fair.unexplained(models, rule, found).mean(1)
    assert left[0] < 1e-12
    assert all(left[1] < fair.unexplained(models, rule, found + e).mean(1)[1] for e in (-1e-3, 1e-3))
    assert fair.unexplained(models, 0 * rule).mean(1).tolist() == pytest.approx([1.0, 1.0])


def test_fits_find_what_made_the_predictions():
    batch = prompts(40)
    for kind, sharpness in (("exponential", 3.0), ("power", 2.5)):
        made = 0.7 * fair_rules.weighted_mean(kind, sharpness)(batch).unsqueeze(0)
        assert fair.fitted_mean(made, batch, kind) == pytest.approx(sharpness, rel=1e-3)
    wanted = fair_rules.Descent(5, 0.1, "query")
    made = 1.4 * wanted(batch).unsqueeze(0)
    assert fair.fitted_descent(made, batch) == wanted
    bent = batch.rewards - (batch.rewards - 0.3).clamp(min=0) * 2  # linear but for a corner at 0.3
    made = (bent.unsqueeze(-1) * batch.responses).sum(1).unsqueeze(0)
    other = prompts(5, seed=7)
    wanted = other.rewards - (other.rewards - 0.3).clamp(min=0) * 2
    wanted = (wanted.unsqueeze(-1) * other.responses).sum(1)
    torch.testing.assert_close(fair.fitted_sum(made, batch)(other), wanted)


def test_fitted_rules_are_named():
    batch = prompts(40)
    made = fair_rules.Descent(5, 0.1, "query")(batch).unsqueeze(0)
    named, sharp = fair.fitted_rules(made, batch)
    assert named["GD, n steps"].steps == 9 and named["GD, n steps"].unit == "stated"
    torch.testing.assert_close(
        named["power mean"](batch), fair_rules.weighted_mean("power", sharp["power"])(batch)
    )


def test_answers_tell_a_mean_from_gradient_descent():
    own, batch = solved(40, seed=3), solved(20)
    mean, bayes = fair_rules.weighted_mean("exponential", 2.0), lambda b: posterior_mean(b, 9)
    asked = {
        "mean": mean,
        "Bayes": bayes,
        "GD": fair_rules.Descent(5, 0.2),
        "minimiser": fair_rules.exact_minimiser,
    }
    found = {name: fair.Answers.of([rule], own, batch, batch) for name, rule in asked.items()}
    best_first = batch.rewards.sort(1, descending=True).values
    torch.testing.assert_close(found["mean"].weights[0], (2 * best_first).softmax(-1))
    heavy = best_first / (1 - best_first).square() / (1 + precisions(best_first).sum(1, keepdim=True))
    torch.testing.assert_close(found["Bayes"].weights[0], heavy)
    assert found["GD"].weights[0, :, -1].mean() < 0 < found["mean"].weights[0, :, -1].min()
    assert (found["mean"].weights_share - 1).abs().max() < 1e-9
    assert found["GD"].weights_share.mean() < 0.9
    for name, answers in found.items():
        left = {other: answers.distances(rule) for other, rule in found.items()}
        assert set(left[name]) == {"as it stands", "prediction", "weights", "Jacobian"}
        for kind in left[name]:
            assert min(left, key=lambda other, k=kind: left[other][k].mean()) == name
            assert left[name][kind].mean() < 1e-9
    blind = fair.Answers.of([mean], own, batch, batch, smooth=False)
    assert blind.slopes is None and set(found["GD"].distances(blind)) == {"as it stands", "prediction"}


def test_weights_by_reward_are_means_of_parts():
    rewards = torch.tensor([[0.1, 0.9], [0.3, 0.6]])
    found = fair.by_reward(torch.tensor([[[1.0, 5.0], [2.0, 7.0]]]), rewards, 2)
    assert found.tolist() == [[1.5, 6.0]]
    with pytest.raises(ValueError, match="rewards must lie in all 10 parts, none does in part 0"):
        fair.by_reward(torch.zeros(1, 2, 2), rewards, 10)


def test_shifts_are_relative_to_the_predictions():
    before = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert fair.moved(before, before * 2).tolist() == pytest.approx([9 / 12.5, 16 / 12.5])
    assert fair.moved(before, before).tolist() == [0, 0]


def test_imitation_learns_the_rule_it_is_asked_for():
    def mean(batch, seen):
        return torch.stack([batch.responses[:, :n].mean(1) for n in seen.tolist()], dim=1)

    models, losses = fair.imitate(TINY, (0, 1), mean)
    assert losses.shape == (60, 2) and not torch.equal(losses[:, 0], losses[:, 1])
    assert (losses[-5:].mean(0) < 0.5 * losses[:5].mean(0)).all()
    again = fair.imitate(TINY, (0, 1), mean)
    assert torch.equal(again[1], losses)
    batch = controls.cut(prompts(64, n=5, d=2), 4)
    said = torch.stack([rules.model_predictor(model.double(), "triplet")(batch) for model in models])
    other = fair.fitted_rules(said, batch)[0]["GD, best fit"](batch)
    left = [
        fair.unexplained(said, v.detach(), fair.factor(said, v)).mean()
        for v in (batch.responses.mean(1), other)
    ]
    assert left[0] < left[1]


def test_bad_input_is_named():
    for broken in ({"steps": 0}, {"rate": 0.0}, {"unit": "width"}):
        with pytest.raises(ValueError, match=next(iter(broken))):
            fair_rules.Descent(**{"steps": 1, "rate": 0.1} | broken)
    with pytest.raises(ValueError, match="kind must be one of exponential, power"):
        fair_rules.weighted_mean("linear", 1.0)
    with pytest.raises(ValueError, match="N - n must be"):
        fair_rules.completions(prompts(), 8, 1, torch.Generator())
    with pytest.raises(ValueError, match="form must be one of triplet"):
        fair.imitate(replace(TINY, form="test-token"), (0,), lambda batch, seen: batch.good)
