"""Losses against plain double loops and choix, gradients against autograd, refusals by name."""

import math

import choix
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica import objectives
from ica.theory.prompts import sample_prompts

SIZES = {"N": st.integers(2, 12), "d": st.integers(1, 6), "seed": st.integers(0, 2**31)}


def loop_loss(scores: list[float], rewards: list[float]) -> float:
    """Plackett-Luce by its definition: one ratio per term, nothing shared or vectorised."""
    order = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    total = 0.0
    for i in range(len(order) - 1):
        below = sum(math.exp(scores[j]) for j in order[i:])
        total -= math.log(math.exp(scores[order[i]]) / below)
    return total


def draw(N: int, d: int, seed: int, batch: int = 3):
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(batch, N, d, generator=generator)
    return prompts, torch.randn(batch, d, d, generator=generator, dtype=torch.float64)


@given(**SIZES)
def test_pl_loss_equals_double_loop(N, d, seed):
    prompts, W = draw(N, d, seed)
    scores = objectives.squared_distance_reward(objectives.predict(W, prompts.query), prompts.responses)
    ours = objectives.pl_loss(scores, prompts.rewards)
    loops = [loop_loss(s, r) for s, r in zip(scores.tolist(), prompts.rewards.tolist(), strict=True)]
    torch.testing.assert_close(ours, torch.tensor(loops, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(N=SIZES["N"], seed=SIZES["seed"], spread=st.floats(0.1, 50))
def test_pl_loss_and_gradient_equal_choix(N, seed, spread):
    """choix takes rankings as lists of items, best first; the loss is minus its log-likelihood."""
    rng = np.random.default_rng(seed)
    scores, rewards = rng.normal(size=(4, N)) * spread, rng.normal(size=(4, N))
    leaf = torch.tensor(scores, requires_grad=True)
    ours = objectives.pl_loss(leaf, torch.tensor(rewards))
    (slope,) = torch.autograd.grad(ours.sum(), leaf)
    for k, order in enumerate((-rewards).argsort(-1).tolist()):
        theirs = -choix.log_likelihood_rankings([order], scores[k])
        assert ours[k].item() == pytest.approx(theirs, rel=1e-12, abs=1e-12)
        minus = choix.opt.Top1Fcts.from_rankings([order], penalty=0.0).gradient(scores[k])
        assert slope[k].numpy() == pytest.approx(minus, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("N", [3, 6, 9])
def test_the_estimate_from_many_rankings_is_that_of_choix(N):
    """Newton steps on our loss end where Luce spectral ranking, another algorithm, ends."""
    generator = torch.Generator().manual_seed(N)
    noise = -torch.rand(400, N, generator=generator, dtype=torch.float64).log().neg().log()
    rewards = torch.randn(N, generator=generator, dtype=torch.float64) + noise
    found = torch.zeros(N, dtype=torch.float64)

    def total(scores):
        return objectives.pl_loss(scores.expand_as(rewards), rewards).sum()

    for _ in range(12):
        curve = torch.func.hessian(total)(found)
        found = found - torch.linalg.pinv(curve, rtol=1e-9) @ torch.func.grad(total)(found)
    orders = (-rewards).argsort(-1).tolist()
    theirs = choix.ilsr_rankings(N, orders, max_iter=1000, tol=1e-11)
    assert (found - found.mean()).numpy() == pytest.approx(theirs - theirs.mean(), abs=1e-8)
    assert found.std() > 0.3


@given(d=SIZES["d"], seed=SIZES["seed"])
def test_bt_is_pl_with_two_responses(d, seed):
    prompts, W = draw(2, d, seed)
    scores = objectives.squared_distance_reward(objectives.predict(W, prompts.query), prompts.responses)
    bt, pl = (loss(scores, prompts.rewards) for loss in (objectives.bt_loss, objectives.pl_loss))
    torch.testing.assert_close(bt, pl, rtol=1e-12, atol=1e-14)


@given(**SIZES)
def test_closed_form_gradient_equals_autograd(N, d, seed):
    prompts, W = draw(N, d, seed)
    leaf = W.requires_grad_(True)
    scores = objectives.squared_distance_reward(objectives.predict(leaf, prompts.query), prompts.responses)
    (autograd,) = torch.autograd.grad(objectives.pl_loss(scores, prompts.rewards).sum(), leaf)
    closed = objectives.pl_gradient(W.detach(), prompts.query, prompts.responses, prompts.rewards)
    torch.testing.assert_close(closed, autograd, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 3, 4)])
def test_weights_of_the_race_are_softmaxes_of_who_is_left(batch):
    scores = torch.randn(*batch, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = objectives.remaining_weights(scores)
    assert found.shape == (*batch, 4, 5)
    for i in range(4):
        assert (found[..., i, :i] == 0).all()
        torch.testing.assert_close(found[..., i, i:], scores[..., i:].softmax(-1))


def test_step_is_a_data_transformation():
    prompts, W = draw(5, 3, 0)
    step = -0.1 * objectives.pl_gradient(W, prompts.query, prompts.responses, prompts.rewards)
    shift = objectives.predict(step, prompts.query)
    moved = objectives.squared_distance_reward(objectives.predict(W + step, prompts.query), prompts.responses)
    data = objectives.squared_distance_reward(
        objectives.predict(W, prompts.query), prompts.responses - shift.unsqueeze(1)
    )
    torch.testing.assert_close(moved, data, rtol=1e-12, atol=1e-12)


def test_loss_is_finite_where_scores_are_extreme():
    scores = torch.tensor([[-1e6, 0.0, 1e6]], dtype=torch.float64)
    loss = objectives.pl_loss(scores, torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(loss, torch.tensor([3e6], dtype=torch.float64))


def far(truth: list[mpmath.mpf], found: torch.Tensor) -> float:
    """Distance from numbers of 60 digits, relative to their norm (below the range of float64, 0 is right)."""
    off = [mpmath.mpf(f) - t for f, t in zip(found.flatten().tolist(), truth, strict=True)]
    norm = mpmath.norm(truth)
    return float(mpmath.norm(off) / norm) if norm > 1e-290 else float(mpmath.norm(off)) * 1e290


def exact_weights(scores: list[mpmath.mpf]) -> list[list[mpmath.mpf]]:
    """Weight of response j in term i, for scores ranked best first, all exact."""
    rows = [[mpmath.exp(s - scores[i]) if j >= i else mpmath.mpf(0) for j, s in enumerate(scores)]
            for i in range(len(scores) - 1)]  # fmt: skip
    return [[w / mpmath.fsum(row) for w in row] for row in rows]


MARGINS = {"N": st.integers(2, 7), "power": st.floats(-1, 4), "seed": st.integers(0, 2**31)}


@given(**MARGINS, shape=st.sampled_from(["any", "right order", "wrong order"]))
def test_losses_keep_twelve_digits_at_margins_up_to_1e4(N, power, seed, shape):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(N, generator=generator, dtype=torch.float64) * 10**power
    if shape != "any":
        scores = scores.sort(descending=shape == "right order").values
    leaf, ranks = scores.requires_grad_(True), torch.arange(N, 0, -1, dtype=torch.float64)
    with mpmath.workdps(60):
        s = [mpmath.mpf(v) for v in scores.tolist()]
        beta = exact_weights(s)
        rest = [mpmath.fsum(mpmath.exp(v - s[i]) for v in s[i + 1 :]) for i in range(N - 1)]
        slopes = [mpmath.fsum(row[k] for row in beta) - (k < N - 1) for k in range(N)]
        losses = [objectives.pl_loss(leaf, ranks)] + ([objectives.bt_loss(leaf, ranks)] if N == 2 else [])
        for loss in losses:
            assert far([mpmath.fsum(map(mpmath.log1p, rest))], loss) <= 1e-12
            assert far(slopes, torch.autograd.grad(loss, leaf)[0]) <= 1e-12


@given(**MARGINS, d=st.integers(1, 3), ranked=st.booleans())
def test_gradients_keep_twelve_digits_at_margins_up_to_1e4(N, power, seed, d, ranked):
    generator = torch.Generator().manual_seed(seed)
    W, x = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((d, d), (d,)))
    y = torch.randn(N, d, generator=generator, dtype=torch.float64)
    y = y / y.norm(dim=-1, keepdim=True).amax() * 10 ** (power / 2)
    y = y[y.norm(dim=-1).argsort()] if ranked else y
    ranks = torch.arange(N, 0, -1, dtype=torch.float64)
    with mpmath.workdps(60):
        W_, x_, y_ = (mpmath.matrix(z.tolist()) for z in (W, x, y))
        guess = W_ * x_
        beta = exact_weights([-(mpmath.norm(guess - y_[i, :].T) ** 2) for i in range(N)])
        move = mpmath.zeros(d, 1)
        for i in range(N - 1):
            for j in range(i + 1, N):
                move += beta[i][j] * (y_[i, :] - y_[j, :]).T
        assert far(list(-2 * move * x_.T), objectives.pl_gradient(W, x, y, ranks)) <= 1e-12
        assert far(list(move), objectives.pl_direction(W @ x, y, ranks)) <= 1e-12


def test_stable_ties_keep_the_order_of_the_prompt():
    rewards = torch.tensor([0.5, 0.9, 0.5])
    assert objectives.ranking(rewards, ties="stable").tolist() == [1, 0, 2]
    scores = torch.tensor([0.3, -0.2, 1.1])
    expected = loop_loss(scores.tolist(), rewards.tolist())
    assert objectives.pl_loss(scores, rewards, ties="stable").item() == pytest.approx(expected, rel=1e-6)
    level = torch.tensor([0.5, 0.5])
    assert objectives.bt_loss(scores[:2], level, "stable") == objectives.pl_loss(scores[:2], level, "stable")
    W, x, y = torch.eye(2), torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    distinct = torch.tensor([0.5, 0.9, 0.4])
    assert torch.equal(
        objectives.pl_gradient(W, x, y, rewards, "stable"), objectives.pl_gradient(W, x, y, distinct)
    )
    for call in (
        lambda: objectives.bt_loss(scores[:2], level),
        lambda: objectives.pl_gradient(W, x, y, rewards),
    ):
        with pytest.raises(ValueError, match="rewards must be distinct"):
            call()


def test_cosine_reward_is_the_cosine():
    value = objectives.cosine_reward(
        torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0]])
    )
    torch.testing.assert_close(value, torch.tensor([1.0, 0.0, -(0.5**0.5)]))


@given(power=st.floats(-300, 150), other=st.floats(-300, 150), angle=st.floats(0, math.pi))
def test_the_cosine_does_not_depend_on_norms(power, other, angle):
    prediction = 10.0**power * torch.tensor([1.0, 0.0], dtype=torch.float64)
    ray = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    leaf = (10.0**other * torch.stack([ray, -ray])).requires_grad_(True)
    value = objectives.cosine_reward(prediction, leaf)
    torch.testing.assert_close(value, torch.stack([ray[0], -ray[0]]), rtol=0, atol=1e-14)
    (slope,) = torch.autograd.grad(value[0] * 10.0**other, leaf)
    torch.testing.assert_close(slope[0], torch.tensor([ray[1] ** 2, -ray[0] * ray[1]]), rtol=0, atol=1e-12)


def test_vectors_of_very_different_size_have_their_cosines():
    """Each is divided by its own largest entry, whatever the others in the batch are."""
    rays = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 1.0]]])
    sizes = torch.tensor([[[1e-20], [1e20]], [[1.0], [1e-30]]])
    value = objectives.cosine_reward(torch.tensor([[1e-25, 0.0], [1e25, 0.0]]), sizes * rays)
    torch.testing.assert_close(value, torch.tensor([[0.5**0.5, 1.0], [-1.0, 0.0]]))


def test_the_cosine_of_zero_is_refused_and_moderate_vectors_keep_their_bits():
    ordinary = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="prediction must not be zero"):
        objectives.cosine_reward(torch.zeros(4, 5), ordinary)
    with pytest.raises(ValueError, match="responses must not be zero"):
        objectives.cosine_reward(torch.ones(4, 5), ordinary * 0)
    plain = torch.nn.functional.cosine_similarity(ordinary[:, :1], ordinary, dim=-1)
    assert torch.equal(objectives.cosine_reward(ordinary[:, 0], ordinary), plain)
    assert torch.equal(torch.func.vmap(objectives.cosine_reward)(ordinary[:, 0], ordinary), plain)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (torch.tensor([1.0, 1.0]), "rewards must be distinct"),
        (torch.tensor([1.0, torch.nan]), "rewards must be finite"),
        (torch.tensor([1.0, torch.inf]), "rewards must be finite"),
        (torch.tensor([1.0]), "rewards must hold N >= 2"),
        (
            torch.tensor([1.0, 2.0], dtype=torch.float16),
            "dtype must be one of torch.float64, torch.float32, torch.bfloat16",
        ),
    ],
)
def test_bad_rewards_are_named(rewards, message):
    with pytest.raises(ValueError, match=message):
        objectives.pl_loss(torch.zeros_like(rewards), rewards)


@pytest.mark.usefixtures("as_users_call")
def test_bad_scores_are_named():
    rewards = torch.tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="scores must be finite"):
        objectives.pl_loss(torch.tensor([torch.nan, 0.0]), rewards)
    with pytest.raises(ValueError, match="^scores must be finite"):
        objectives.bt_loss(torch.tensor([torch.nan, 0.0]), rewards)
    with pytest.raises(ValueError, match="^scores must have shape"):
        objectives.bt_loss(torch.zeros(3), rewards)
    with pytest.raises(ValueError, match="ties must be one of error, stable"):
        objectives.pl_loss(rewards, rewards, ties="first")
