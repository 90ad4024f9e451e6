"""Imitation of a gradient step, the bounds that no training beats, and the intervals over seeds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies

from ica.intervals import median_interval, ratio_interval
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.bradley_terry import bradley_terry
from ica.theory.constructions.one_head import reward_path
from ica.theory.imitation import GradientStep, Schedule, perturbed, train
from ica.theory.limits import (
    blind_direction,
    linear_attention_bound,
    linear_attention_features,
    one_head_bound,
    opposed_prompts,
    polynomial_bound,
)
from ica.theory.prompts import Prompts, sample_prompts
from ica.transformer import TransformerConfig, initial

W = torch.tensor([[0.5, -0.4], [0.4, 0.5]], dtype=torch.float64)
BT = GradientStep(W, N=2, gap=0.2, scale=1.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_layer(attention="softmax", heads=1, hidden=0, layers=1):
    return TransformerConfig(6, 2, 12, layers, heads=heads, head_width=4, hidden=hidden, attention=attention)


def trained(models, seeds, steps=30, dtype=torch.float64, **schedule):
    pool, held_out = (BT.sample(size, generator(size), dtype) for size in (512, 256))
    return train(
        models, seeds, pool, held_out, Schedule(steps, batch=16, warm_up=5, checkpoints=3, **schedule)
    )


def test_answers_are_autograd_steps():
    prompts = sample_prompts(50, 2, 2, gap=0.2, generator=generator())
    leaf = W.clone().expand(50, 2, 2).clone().requires_grad_(True)
    scores = -((leaf @ prompts.query.unsqueeze(-1)).mT - prompts.responses).square().sum(dim=-1)
    better = prompts.rewards.argmax(dim=-1, keepdim=True)
    loss = -(scores.gather(1, better) - scores.gather(1, 1 - better)).sigmoid().log().sum()
    stepped = leaf - BT.eta * torch.autograd.grad(loss, leaf)[0]
    wanted = (stepped @ prompts.query.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(BT.on(prompts, torch.float64).moved, wanted, rtol=1e-12, atol=1e-12)


def test_no_step_has_error_one_and_the_construction_none():
    examples = BT.sample(500, generator(), torch.float64)
    start = (examples.moved - examples.move).unsqueeze(1).expand(-1, 2, -1)
    assert examples.relative_error(start) == pytest.approx(1, abs=1e-12)
    model = bradley_terry(W, Assumptions(eta=BT.eta, gap=0.2))
    assert examples.relative_error(model(examples.tokens)) < 1e-25


@pytest.mark.parametrize(("attention", "heads", "hidden"), [("softmax", 2, 0), ("linear", 1, 8)])
def test_together_is_as_one_by_one(attention, heads, hidden):
    config = one_layer(attention, heads, hidden)
    models = [initial(config, seed, torch.float64) for seed in range(3)]
    together = trained(models, [7, 8, 9])
    for k, model in enumerate(models):
        alone = trained([model], [7 + k])
        torch.testing.assert_close(together.curve[:, k], alone.curve[:, 0], rtol=1e-9, atol=0)
        for a, b in zip(together.models[k].parameters(), alone.models[0].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert len(set(together.errors)) == 3


def test_training_repeats_bit_by_bit_and_leaves_its_input_alone():
    models = [initial(one_layer(), seed) for seed in range(2)]
    before = [model.embed.weight.clone() for model in models]
    first, second = (trained(models, [1, 2], dtype=torch.float32) for _ in range(2))
    assert torch.equal(first.curve, second.curve) and first.steps == [0, 10, 20, 30]
    assert all(torch.equal(model.embed.weight, w) for model, w in zip(models, before, strict=True))
    held_out = BT.sample(256, generator(256))
    assert held_out.relative_error(first.models[0](held_out.tokens)).item() == pytest.approx(
        first.errors[0], rel=1e-5
    )


def test_two_heads_return_from_a_disturbance():
    model = bradley_terry(W, Assumptions(eta=BT.eta, gap=0.2, sharpness=40.0, dtype=torch.float32))
    disturbed = [perturbed(model, 1e-3, seed) for seed in range(2)]
    found = trained(disturbed, [0, 1], steps=200, dtype=torch.float32, rate=3e-4)
    assert (found.curve[-1] < found.curve[0] / 20).all() and max(found.errors) < 1e-5


def test_an_overflow_does_not_spoil_a_model():
    config = one_layer("linear", hidden=4, layers=3)
    wild = initial(config, 0)
    with torch.no_grad():
        for weight in wild.parameters():
            weight.mul_(20)
    found = trained([wild], [0], dtype=torch.float32)
    assert all(torch.isfinite(weight).all() for weight in found.models[0].parameters())


@pytest.mark.usefixtures("as_users_call")
def test_refusals():
    model = initial(one_layer(), 0)
    examples = BT.sample(8, generator())
    schedule = Schedule(1)
    with pytest.raises(ValueError, match="seeds"):
        train([model], [1, 2], examples, examples, schedule)
    with pytest.raises(ValueError, match="models"):
        train([model, initial(one_layer(heads=2), 0)], [1, 2], examples, examples, schedule)
    with pytest.raises(ValueError, match="rate"):
        Schedule(1, rate=0.0)
    with pytest.raises(ValueError, match="steps"):
        Schedule(0)
    with pytest.raises(ValueError, match=r"W\.dtype"):
        GradientStep(W.float(), 2, 0.2)
    with pytest.raises(ValueError, match="gap"):
        GradientStep(W, 4, 0.5).sample(3, generator())
    with pytest.raises(ValueError, match="size"):
        perturbed(model, 0.0, 0)
    with pytest.raises(ValueError, match="examples"):
        linear_attention_bound(examples)
    with pytest.raises(ValueError, match="degree"):
        polynomial_bound(np.zeros(3), np.zeros(3), -1)
    with pytest.raises(ValueError, match="values"):
        polynomial_bound(np.arange(3.0), np.zeros(3), 2)
    with pytest.raises(ValueError, match="direction"):
        opposed_prompts(W, 2, 1.0, torch.zeros(2))
    with pytest.raises(ValueError, match="W must have at least two columns"):
        opposed_prompts(W[:, :1], 2, 1.0, torch.ones(2))
    with pytest.raises(ValueError, match="reward_path"):
        blind_direction(torch.ones(1))
    with pytest.raises(ValueError, match="values"):
        median_interval([1.0] * 5)
    with pytest.raises(ValueError, match="below"):
        ratio_interval([1.0, 2.0], [1.0, 0.0])


def test_features_span_what_linear_attention_gives():
    """Random layers, any heads, are linear in the features; a softmax layer is not."""
    tokens = BT.sample(400, generator(), torch.float64).tokens
    features = linear_attention_features(tokens).flatten(0, 1)
    for attention, largest, smallest in (("linear", 1e-9, 0.0), ("softmax", 1.0, 1e-3)):
        outputs = initial(one_layer(attention, heads=3), 5, torch.float64)(tokens).flatten(0, 1).detach()
        fitted = features @ torch.linalg.lstsq(features, outputs, driver="gelsd").solution
        assert smallest <= (fitted - outputs).norm() / outputs.norm() <= largest


def test_linear_training_stays_above_its_bound():
    held_out = BT.sample(1024, generator(1), torch.float64)
    bound = linear_attention_bound(held_out)
    found = train(
        [initial(one_layer("linear", heads=3), 0, torch.float64)],
        [0],
        BT.sample(2048, generator(2), torch.float64),
        held_out,
        Schedule(300, batch=64),
    )
    assert 0.1 < bound <= found.errors[0] < 0.9


def test_polynomial_bound_against_chebyshev():
    """The best polynomial of degree n - 1 misses t^n by 2^(1 - n); a polynomial is not missed at all."""
    t = np.cos(np.linspace(0, np.pi, 401))
    for n in (3, 6):
        bound, best = polynomial_bound(t, t**n, n - 1)
        assert bound == pytest.approx(2.0 ** (1 - n), rel=1e-4)
        assert np.abs(best - t**n).max() == pytest.approx(bound, rel=1e-6)
    assert polynomial_bound(t, 2 * t**3 - t, 3)[0] < 1e-9


@pytest.mark.parametrize("N", [2, 3, 5])
def test_opposed_prompts_are_as_stated(N):
    v = torch.tensor([3.0, 4.0], dtype=torch.float64)
    prompts = opposed_prompts(W, N, 1.7, v)
    move = GradientStep(W, N, 0.1).on(prompts, torch.float64).move @ (v / 5)
    best, worst = 2 * 1.7 * (N - 1) / N, -2 * 1.7 * sum(1 / k for k in range(2, N + 1))
    torch.testing.assert_close(
        move, torch.tensor([best, worst, 0, 0], dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    assert one_head_bound(N, 1.7, eta=0.5) == pytest.approx(min(best, -worst) / 2)


@given(
    N=strategies.integers(2, 6),
    seed=strategies.integers(0, 10_000),
    size=strategies.floats(0.01, 10),
    sharp=strategies.floats(0.1, 30),
)
def test_every_one_head_layer_errs_on_opposed_prompts(N, seed, size, sharp):
    """The proposition: any weights, however scaled, at the first token."""
    model = initial(one_layer(), seed, torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(sharp ** torch.rand((), generator=generator(seed)).item())
    direction = blind_direction(reward_path(model).detach())
    examples = GradientStep(W, N, 0.1).on(opposed_prompts(W, N, size, direction), torch.float64)
    worst = (model(examples.tokens)[:, 0] - examples.moved).norm(dim=-1).max()
    assert worst >= one_head_bound(N, size, eta=0.5) * (1 - 1e-9)


def test_two_heads_do_not_err_on_opposed_prompts():
    model = bradley_terry(W, Assumptions(eta=0.5, gap=1.0))
    examples = BT.on(opposed_prompts(W, 2, 2.0, torch.ones(2, dtype=torch.float64)), torch.float64)
    assert (model(examples.tokens)[:, 0] - examples.moved).norm(dim=-1).max() < 1e-12


def test_network_on_linear_attention_leaves_the_span():
    """With a network the outputs are no longer polynomials of low degree: they bend along a line of prompts."""
    t = torch.linspace(-4, 4, 200, dtype=torch.float64)
    responses = torch.zeros(200, 2, 2, dtype=torch.float64)
    responses[:, 0, 0] = t
    query = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(200, 2)
    prompts = Prompts(query, responses, torch.tensor([1.0, 0.0], dtype=torch.float64).expand(200, 2))
    for hidden, bends in ((0, False), (8, True)):
        values = initial(one_layer("linear", hidden=hidden), 3, torch.float64)(prompts.tokens())[:, 0, 0]
        bound, _ = polynomial_bound(t.numpy(), values.detach().numpy(), 6)
        assert (bound / values.abs().max().item() > 1e-4) is bends


def test_median_interval_covers_as_it_says():
    assert median_interval([6.0, 1.0, 2.0, 3.0, 4.0, 5.0]) == (3.5, 1.0, 6.0)
    assert median_interval([float(k) for k in range(10)]) == (4.5, 1.0, 8.0)
    drawn = torch.rand(4000, 10, generator=generator()).tolist()
    covered = np.mean([lo <= 0.5 <= hi for _, lo, hi in map(median_interval, drawn)])
    assert covered == pytest.approx(1 - 2 * 11 / 1024, abs=0.01)


def test_ratio_interval_on_logarithms():
    ratio, lo, hi = ratio_interval([2.0, 8.0], [1.0, 4.0])
    assert ratio == pytest.approx(2) and lo * hi == pytest.approx(4) and lo < 1 < hi
    ratio, lo, hi = ratio_interval([1.0, 1.1, 0.9], [0.1, 0.11, 0.09])
    assert 5 < lo < ratio < hi < 20 and math.isclose(ratio, 10, rel_tol=1e-9)
