"""The paper's own construction: weights against an independent oracle of E.6 and E.7, limits, F.1, F.2.1."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.objectives import squared_distance_reward
from ica.theory.constructions import paper
from ica.theory.constructions import paper_errors as pe
from ica.theory.constructions.online import online_descent
from ica.theory.constructions.paper import PaperScales, paper_construction, paper_layout, paper_tokens
from ica.theory.constructions.paper_causal import CausalScales
from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts

DOUBLE = torch.float64
WAY_1 = [{"pair": pair, "renewal": renewal} for pair in paper.PAIRS for renewal in ("layer", "row")]


def problem(N: int, d: int = 3, gap: float = 0.05, ratio: float = 1.0, seed: int = 0, batch: int = 6):
    """Prompts with rewards on a ladder, and a W."""
    generator = torch.Generator().manual_seed(seed)
    prompts = pe.ladder_prompts(batch, N, d, gap, generator, ratio)
    return prompts, torch.randn(d, d, generator=generator, dtype=DOUBLE) / d**0.5


def at(N: int, product: float, gap: float = 0.05, **more) -> PaperScales:
    """Scales with gamma = product / gap and the epsilon of evenly spaced rewards."""
    gamma = product / gap
    return PaperScales(eta=0.5 / N, gamma=gamma, epsilon_0=pe.average_gap(gamma, gap, N), **more)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def oracle(x, Y, r, W, scales: PaperScales, terms: int):
    """Lemmas E.2 to E.7 for one prompt, from the paper: (first y, reward, second y) after each block."""
    first, second, r, states = Y.copy(), Y.copy(), r.copy(), []
    for _ in range(terms):
        weight = softmax(scales.gamma * r)
        top, best = (weight[:, None] * second).sum(0), (weight * r).sum()
        beta = softmax(-((W @ x - second) ** 2).sum(1))
        first = first - 2 * scales.eta * top + 2 * scales.eta * (beta[:, None] * second).sum(0)
        r = r - best
        push = scales.gamma / scales.epsilon_0 * np.maximum(r + scales.lift, 0)
        r, second = r - push, second - push[:, None]
        states.append((first, r, second))
    return states


@pytest.mark.parametrize("more", WAY_1)
def test_blocks_are_the_formulas_of_e6_and_e7_at_finite_gamma(more):
    """Block by block, where the limit is far: selection soft by 3 per cent and more, two pushed at once."""
    for product, lift in ((0.6, 0.0), (3.5, 0.0), (3.5, 0.025)):
        prompts, W = problem(5, ratio=1.5)
        scales = at(5, product, lift=lift, **more)
        model = paper_construction(W, 5, scales)
        streams = model.trace(paper_tokens(prompts, W, "slots")).streams
        layout = paper_layout(3, 3, 5, "slots", scales.renewal)
        after = streams[2::2] if scales.renewal == "layer" else streams[2:]
        assert len(after) == 4
        for b in range(len(prompts.query)):
            x, Y, r = (v[b].numpy() for v in (prompts.query, prompts.responses, prompts.rewards))
            for k, (stream, state) in enumerate(
                zip(after, oracle(x, Y, r, W.numpy(), scales, 4), strict=True)
            ):
                if (
                    scales.renewal == "row" and k
                ):  # the row stands for the norm of the pushed copy in the limit only
                    break
                for name, wanted in zip(("y", "r", "copy"), state, strict=True):
                    found = layout.get(stream[b], name).detach().numpy().reshape(wanted.shape)
                    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_preparation_writes_the_constant_and_every_response():
    prompts, W = problem(4)
    stream = paper_construction(W, 4, at(4, 10.0)).trace(paper_tokens(prompts, W, "slots")).streams[1]
    layout = paper_layout(3, 3, 4, "slots")
    assert (layout.get(stream, "one") == 1).all()
    everyone = layout.get(stream, "all").unflatten(-1, (4, 3))
    torch.testing.assert_close(everyone, prompts.responses.unsqueeze(1).expand(-1, 4, -1, -1))


@pytest.mark.parametrize("pair", paper.PAIRS)
@given(N=st.integers(2, 6), d=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_way_1_scores_are_the_squared_distances(pair, N, d, seed):
    prompts, W = problem(N, d, seed=seed, batch=2)
    model = paper_construction(W, N, at(N, 5.0, pair=pair))
    beta = model.trace(paper_tokens(prompts, W, "slots")).attention[1][:, 1]
    wanted = squared_distance_reward(prompts.query @ W.T, prompts.responses).softmax(dim=-1)
    torch.testing.assert_close(beta, wanted.unsqueeze(1).expand_as(beta), rtol=1e-12, atol=1e-12)


@given(pieces=st.integers(1, 40), radius=st.floats(2.0, 6.0), d=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_way_2_feature_is_right_to_its_bound(pieces, radius, d, seed):
    """-norm(Wx - y)^2 is approximated from below, by at most d h^2 / 4, within the radius."""
    prompts, W = problem(3, d, seed=seed, batch=4)
    scales = at(3, 5.0, way="ffn", pieces=pieces, radius=radius)
    stream = (
        paper_construction(W, 3, scales).trace(paper_tokens(prompts, W, "ffn"), unchecked=True).streams[1]
    )
    feature = paper_layout(d, d, 3, "ffn").get(stream, "feature")[..., 0]
    distance = (prompts.query @ W.T).unsqueeze(1) - prompts.responses
    short = -distance.square().sum(dim=-1) - feature
    inside = (distance.abs() <= radius).all(dim=-1)
    assert (short[inside] >= -1e-12).all()
    assert (short[inside] <= d * (radius / pieces) ** 2 / 4 + 1e-12).all()


def test_bradley_terry_layer_at_finite_gamma():
    """Two tokens: what is missing is the weight of the wrong response, a logistic function of gamma gap."""
    prompts, W = problem(2)
    order = prompts.rewards.argsort(dim=-1, descending=True)
    best, other = (prompts.responses[torch.arange(6), order[:, k]] for k in (0, 1))
    exact = pe.first_term_shift(prompts, W, 0.25)
    for product in (1.0, 5.0, 20.0):
        scales = at(2, product)
        shift = pe.model_shift(paper_construction(W, 2, scales, 1), prompts, W, "slots")
        missing = 2 * scales.eta * torch.sigmoid(torch.tensor(-product, dtype=DOUBLE)) * (best - other)
        torch.testing.assert_close(shift, (exact + missing).unsqueeze(1).expand_as(shift), rtol=0, atol=1e-14)


@pytest.mark.parametrize("N", [2, 3, 8])
def test_first_term_is_infonce_and_bradley_terry(N):
    prompts, W = problem(N)

    def infonce(V, batch: Prompts):
        scores = squared_distance_reward((V @ batch.query.unsqueeze(-1)).squeeze(-1), batch.responses)
        return -scores.log_softmax(dim=-1).gather(-1, batch.rewards.argmax(dim=-1, keepdim=True))[:, 0]

    loss = {"loss": infonce} if N > 2 else {}
    path = gradient_descent(W.expand(6, 3, 3), prompts, 0.5 / N, 1, **loss)
    wanted = -((path[1] - path[0]) @ prompts.query.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(pe.first_term_shift(prompts, W, 0.5 / N), wanted)
    assert pe.model_error(prompts, W, at(N, 40.0, pair="short"), terms=1).max() <= 1e-12
    assert pe.model_error(prompts, W, at(N, 2.0, pair="short"), terms=1).max() > 1e-2


@pytest.mark.parametrize("more", [*WAY_1, {"way": "exact"}])
def test_all_terms_are_the_gradient_step_by_autograd(more):
    prompts, W = problem(6)
    path = gradient_descent(W.expand(6, 3, 3), prompts, 0.5 / 6, 1)
    wanted = -((path[1] - path[0]) @ prompts.query.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(pe.exact_shift(prompts, W, 0.5 / 6), wanted)
    assert pe.model_error(prompts, W, at(6, 30.0, **more)).max() <= 1e-10


def test_formulas_and_weights_give_one_number():
    """`formula_path` is what the transformer computes, well inside the window and at its two ends."""
    prompts, W = problem(5, ratio=2.0)
    for product in (0.5, 1.5, 12.0):
        scales = at(5, product)
        gamma, epsilon_0 = (torch.tensor([v], dtype=DOUBLE) for v in (scales.gamma, scales.epsilon_0))
        path = pe.formula_path(prompts, W, scales.eta, gamma, epsilon_0)
        shift = pe.model_shift(paper_construction(W, 5, scales), prompts, W, "slots")
        torch.testing.assert_close(shift[:, 0], path.shift[0], rtol=1e-9, atol=1e-9)


def test_slots_prepared_once_do_not_eliminate():
    """The queries' slots hold the copies of before the push, and so no response of N >= 3 leaves the race."""
    prompts, W = problem(4)
    assert pe.model_error(prompts, W, at(4, 30.0, renewal="never")).max() > 1
    assert pe.model_error(prompts, W, at(4, 30.0)).max() < 1e-9
    two, V = problem(2)
    assert pe.model_error(two, V, at(2, 40.0, renewal="never")).max() <= 1e-12


@given(product=st.floats(1.0, 12.0), share=st.floats(0, 1), N=st.integers(3, 9), seed=st.integers(0, 2**31))
def test_epsilon_stays_between_its_bounds(product, share, N, seed):
    r"""The bounds of the page, with q = e^{-gamma g}, for gamma g >= 1; and epsilon < h, so one is pushed."""
    gap, gamma = 0.1, product / 0.1
    prompts, W = problem(N, gap=gap, ratio=1 + share, seed=seed)
    values = torch.tensor([gamma], dtype=DOUBLE), torch.tensor([1e-9], dtype=DOUBLE)
    path = pe.formula_path(prompts, W, 0.1, *values)
    ordered = prompts.rewards.sort(dim=-1, descending=True).values
    h = (ordered[:, :-1] - ordered[:, 1:])[:, : N - 2]
    q = math.exp(-product)
    low = (1 - q) * h * (-gamma * h).exp()
    high = (-gamma * h).exp() * (h / (1 - q) + h.amin() * q / (1 - q) ** 2)
    noise = 1e-14
    assert (path.epsilons[0] >= low - noise).all()
    assert (path.epsilons[0] <= high * (1 + 1e-9) + noise).all()
    assert (high < h).all()
    assert not path.together.any()


def test_average_gap_is_the_first_epsilon_of_a_ladder():
    prompts, W = problem(6, gap=0.1)
    gamma = torch.tensor([5.0, 30.0, 80.0], dtype=DOUBLE)
    epsilons = pe.formula_path(prompts, W, 0.1, gamma, torch.ones_like(gamma)).epsilons[:, :, 0]
    for row, g in zip(epsilons, gamma, strict=True):
        assert row == pytest.approx(pe.average_gap(float(g), 0.1, 6), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize(("dtype", "vanishes"), [(DOUBLE, 40.0), (torch.float32, 20.0)])
def test_the_two_ways_to_fail(dtype, vanishes):
    """gamma too small: the second is pushed with the first; too large: epsilon rounds to 0, none is."""
    prompts, W = problem(5)
    gamma = torch.tensor([0.5, 10.0, vanishes], dtype=DOUBLE) / 0.05
    epsilon_0 = torch.tensor([pe.average_gap(float(g), 0.05, 5) for g in gamma], dtype=DOUBLE)
    path = pe.formula_path(prompts.to(dtype), W, 0.1, gamma, epsilon_0)
    assert path.together.any(dim=1).tolist() == [True, False, False]
    assert path.underflow.any(dim=1).tolist() == [False, False, True]


PRODUCTS, PUSHES = torch.linspace(1, 44, 44, dtype=DOUBLE), torch.logspace(0, 10, 11, dtype=DOUBLE)


@pytest.mark.parametrize("N", [4, 8])
@pytest.mark.parametrize(("dtype", "rounding"), [(DOUBLE, 2.0**-52), (torch.float32, 2.0**-23)])
def test_least_error_is_the_rounding_to_the_power_of_least_over_largest_gap(N, dtype, rounding):
    for ratio in (1.0, 2.0, 3.0):
        prompts, W = problem(N, gap=0.05, ratio=ratio, batch=8)
        scales = PaperScales(0.5 / N, 1.0, 1.0, way="exact", dtype=dtype)
        best = pe.best_setting(prompts, W, scales, 0.05, PRODUCTS, PUSHES)
        assert not best.at_end
        assert 0.7 <= math.log(best.error) / math.log(rounding) * ratio <= 1.3
        told = replace(scales, gamma=best.gamma, epsilon_0=best.epsilon_0)
        assert pe.model_error(prompts, W, told).max() == best.error


@pytest.mark.parametrize(("dtype", "bound"), [(DOUBLE, 1e-12), (torch.float32, 1e-4)])
def test_half_a_gap_as_bias_removes_the_limits(dtype, bound):
    """relu(r_j - r+ + gap / 2), weights -2 gamma / gap: right for uneven rewards and any large gamma."""
    prompts, W = problem(5, ratio=4.0)
    for product in (36.0, 200.0, 2000.0):
        scales = PaperScales(0.1, product / 0.05, 0.025, lift=0.025, pair="short", renewal="row", dtype=dtype)
        assert pe.model_error(prompts, W, scales).max() <= bound
        assert not pe.model_error(prompts, W, replace(scales, lift=0.0)).max() <= 0.1


def test_dummy_token_is_ranked_last_and_read_with_the_other_sign():
    examples, W = problem(4)
    prompts = paper.with_dummy(examples, W, below=0.05)
    assert (prompts.rewards.argmin(dim=-1) == 4).all()
    scales = at(5, 30.0, pair="short")
    model = paper_construction(W, 5, scales)
    read = model(paper_tokens(prompts, W, "slots"))
    path = gradient_descent(W.expand(6, 3, 3), prompts, scales.eta, 1)
    updated = (path[1] @ prompts.query.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(paper.at_dummy(read, prompts, W), updated, rtol=0, atol=1e-10)
    assert (read[:, -1] - updated).norm(dim=-1).min() > 1e-3


def test_several_queries_by_inner_products_take_their_own_steps():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(4, 4, generator=generator, dtype=DOUBLE) / 2
    prompts = pe.alike_queries(4, 3, 3, 4, 0.5, 0.1, generator)
    inner = prompts.queries @ prompts.queries.transpose(1, 2)
    assert inner[:, 0, 1].tolist() == pytest.approx([0.5] * 4)
    scales = PaperScales(0.1, 300.0, pe.average_gap(300.0, 0.1, 3), pair="short", renewal="row")
    # the levels of the groups differ by up to 1/2: gamma_1 (1 - 1/2) must exceed gamma / 2 by a margin
    assert pe.queries_error(prompts, W, replace(scales, inner=600.0)).max() <= 1e-9
    assert pe.queries_error(prompts, W, replace(scales, inner=20.0)).max() > 0.1


@pytest.mark.parametrize("N", [3, 5, 8])
def test_causal_construction_serves_the_two_longest_prefixes_and_with_a_sink_all(N):
    prompts, W = problem(N, ratio=3.0)
    scales = CausalScales(0.5 / N, gamma_1=800.0, gamma_2=10.0)
    plain, mended = pe.causal_error(prompts, W, scales), pe.causal_error(prompts, W, scales, sink=True)
    assert mended.max() <= 1e-12
    assert plain[:, -2:].max() <= 1e-12
    assert N == 3 or plain[:, :-2].min() > 0.1
    path = online_descent(W.expand(6, 3, 3), prompts, 0.5 / N, 1)
    wanted = pe.exact_shift(prompts, W, 0.5 / N)
    torch.testing.assert_close(wanted, (path[0] - path[1])[:, -1])


def test_causal_construction_with_a_full_mask_is_thm_33_without_an_epsilon():
    prompts, W = problem(6, ratio=4.0)
    scales = CausalScales(0.5 / 6, gamma_1=2000.0, gamma_2=10.0, mask="full")
    assert pe.causal_error(prompts, W, scales)[:, -1].max() <= 1e-12


@pytest.mark.parametrize(("more", "blocks", "attention", "ffns"), [
    ({}, 2 * 5, 2 * 5, 1 + 5),
    ({"renewal": "row"}, 1 + 5, 1 + 5, 1 + 5),
    ({"way": "ffn"}, 1 + 5, 5, 1 + 5),
])  # fmt: skip
def test_counts(more, blocks, attention, ffns):
    counts = paper.paper_counts(paper_construction(problem(6)[1], 6, at(6, 5.0, **more)), claimed=5)
    assert (counts["blocks in the theorem"], counts["heads"]) == (5, 3)
    assert (counts["blocks"], counts["attention layers"], counts["FFNs"]) == (blocks, attention, ffns)


@pytest.mark.parametrize(("field", "value"), [
    ("gamma", 0.0), ("epsilon_0", -1.0), ("way", "norm"), ("pair", "long"), ("renewal", "no"), ("lift", -0.1),
    ("eta", float("nan")), ("pieces", 0),
])  # fmt: skip
def test_scales_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        replace(at(3, 5.0), **{field: value})


def test_window_takes_the_best_epsilon_for_each_gamma_and_says_how_it_failed():
    prompts, W = problem(5, ratio=2.0)
    products = torch.tensor([0.5, 12.0, 60.0], dtype=DOUBLE)
    rows = pe.window(prompts, W, 0.1, 0.05, products, PUSHES)
    assert [row["together"] for row in rows] == [True, False, False]
    assert [row["underflow"] for row in rows] == [False, False, True]
    assert rows[1]["error"] == min(row["error"] for row in rows)
    worse = pe.window(prompts, W, 0.1, 0.05, products, PUSHES[:1])
    assert all(row["error"] <= other["error"] for row, other in zip(rows, worse, strict=True))
    lifted = pe.window(prompts, W, 0.1, 0.05, products, PUSHES[:1], lift=0.025)
    assert lifted[2]["error"] <= 1e-12 and not lifted[2]["underflow"]


def test_uniform_rewards_are_out_of_reach():
    """As in the paper's experiment, 20 rewards uniform on [0, 1]: no pair serves all of their gaps."""
    generator = torch.Generator().manual_seed(1)
    prompts, W = problem(20, batch=12)
    prompts = pe.uniform_rewards(prompts, generator)
    gammas, epsilons = torch.logspace(0.5, 4, 15, dtype=DOUBLE), torch.logspace(-16, -1, 8, dtype=DOUBLE)
    assert pe.median_best(prompts, W, 0.025, DOUBLE, gammas, epsilons).error > 0.01


def test_prompts_that_the_weights_cannot_serve_are_refused():
    prompts, W = problem(3)
    with pytest.raises(ValueError, match="norm of x must be 1"):
        pe.exact_shift(Prompts(3 * prompts.query, prompts.responses, prompts.rewards), W, 0.1)


@pytest.mark.parametrize("way", ["slots", "exact"])
def test_the_model_refuses_what_it_was_not_built_for(way):
    prompts, W = problem(4)
    model = paper_construction(W, 4, at(4, 10.0, way=way))
    longer = Prompts(3 * prompts.query, prompts.responses, prompts.rewards)
    with pytest.raises(ValueError, match="norm of x must be 1"):
        model(paper_tokens(longer, W, way))
    with pytest.raises(ValueError, match="tokens.dtype must be one of torch.float64"):
        model(paper_tokens(prompts.to(torch.float32), W, way))
    if way == "exact":  # slots fix the width of a token
        fewer = Prompts(prompts.query, prompts.responses[:, :3], prompts.rewards[:, :3])
        with pytest.raises(ValueError, match="N must be 4"):
            model(paper_tokens(fewer, W, way))


def test_way_2_refuses_predictions_out_of_its_radius():
    prompts, W = problem(4)
    model = paper_construction(W, 4, at(4, 10.0, way="ffn", radius=1.0))
    far = Prompts(prompts.query, 5 * prompts.responses, prompts.rewards)
    with pytest.raises(ValueError, match="radius = 1"):
        model(paper_tokens(far, W, "ffn"))
