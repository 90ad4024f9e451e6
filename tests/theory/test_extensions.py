"""Several queries and the online loss: constructions against autograd, masks, and what softmax cannot do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.objectives import pl_loss, squared_distance_reward
from ica.theory.constructions import online as on
from ica.theory.constructions import several_queries as sq
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.online import MARKS, online
from ica.theory.constructions.several_queries import several_queries
from ica.theory.prompts import default_gap, sample_prompts
from ica.transformer import Transformer

FLOAT64, FLOAT32 = 1e-12, 1e-4
WORST = 1e-2
"""Ways shorter than this share of the typical one count as that: their direction is rounding already."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(d: int, p: int, seed: int) -> torch.Tensor:
    return torch.randn(d, p, generator=generator(seed), dtype=torch.float64) / p**0.5


def worst(distance: torch.Tensor, way: torch.Tensor) -> float:
    """Largest relative error; very short ways are lengthened to `WORST` of the typical way."""
    typical = way.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return (distance / way.clamp_min(WORST * typical)).max().item()


def groups(Q: int, N: int, d: int, seed: int, *, p: int, dtype=torch.float64, share=1.0, orthonormal=False):
    """Prompts of several queries, a first W, and assumptions that hold for them."""
    gap = share * default_gap(N)
    prompts = sq.sample_several(6, Q, N, d, p, gap=gap, orthonormal=orthonormal, generator=generator(seed))
    return prompts, start(d, p, seed), Assumptions(eta=0.5 / (N * Q), gap=0.999 * gap, dtype=dtype)


def prefixes(N: int, d: int, seed: int, dtype=torch.float64, share=1.0):
    """Prompts of one query, a first W, and assumptions that hold for them."""
    gap = share * default_gap(N)
    prompts = sample_prompts(6, N, d, gap=gap, generator=generator(seed))
    return prompts, start(d, d, seed), Assumptions(eta=0.5 / N, gap=0.999 * gap, dtype=dtype)


@given(Q=st.integers(1, 4), N=st.integers(2, 8), d=st.integers(1, 6), extra=st.integers(0, 3),
       share=st.floats(1e-3, 1.0), steps=st.integers(1, 3), seed=st.integers(0, 2**31))  # fmt: skip
def test_orthonormal_queries_do_not_mix(Q, N, d, extra, share, steps, seed):
    prompts, W, scales = groups(Q, N, d, seed, p=Q + extra, share=share, orthonormal=True)
    model = several_queries(W, Q, N, scales, steps, pairs=0)
    assert len(model.blocks) == steps * (N - 1)
    assert worst(*sq.query_distances(model, prompts, W, scales.eta, steps)) <= FLOAT64


@given(Q=st.integers(1, 4), N=st.integers(2, 8), d=st.integers(1, 6), p=st.integers(1, 6),
       share=st.floats(1e-3, 1.0), steps=st.integers(1, 3), seed=st.integers(0, 2**31))  # fmt: skip
def test_general_queries_mix_by_their_gram_matrix(Q, N, d, p, share, steps, seed):
    prompts, W, scales = groups(Q, N, d, seed, p=p, share=share)
    model = several_queries(W, Q, N, scales, steps)
    assert len(model.blocks) == steps * N
    assert worst(*sq.query_distances(model, prompts, W, scales.eta, steps)) <= 10 * FLOAT64


@pytest.mark.parametrize(("pairs", "orthonormal"), [(0, True), (6, False)])
def test_several_queries_float32(pairs, orthonormal):
    prompts, W, scales = groups(3, 5, 4, 0, p=4, dtype=torch.float32, orthonormal=orthonormal)
    model = several_queries(W, 3, 5, scales, 2, pairs)
    assert worst(*sq.query_distances(model, prompts, W, scales.eta, 2)) <= FLOAT32


def test_groups_never_see_each_other():
    prompts, W, scales = groups(3, 4, 3, 1, p=3)
    trace = several_queries(W, 3, 4, scales).trace(prompts.tokens())
    group = torch.cat([torch.tensor([-1]), torch.arange(3).repeat_interleave(4)])
    apart = group[:, None] != group[None, :]
    for weights in trace.attention[:3]:
        assert weights[:, :2, apart].abs().max() == 0


def test_without_mixing_general_queries_are_wrong():
    prompts, W, scales = groups(3, 4, 3, 2, p=3)
    model = several_queries(W, 3, 4, scales, pairs=0)
    assert worst(*sq.query_distances(model, prompts, W, scales.eta, 1, unchecked=True)) > 0.1


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_mixing_error_falls_with_its_order_and_stays_below_the_bound(pairs):
    prompts, W, scales = groups(3, 4, 3, 3, p=3)
    D = sq.directions(W.expand(len(prompts.queries), *W.shape), prompts).norm(dim=-1)
    distances = []
    for epsilon in (0.2, 0.1):
        model = several_queries(W, 3, 4, scales, 1, pairs, epsilon)
        distance, _ = sq.query_distances(model, prompts, W, scales.eta, 1)
        bound = (
            2 * scales.eta * (sq.truncation(sq.gram(prompts), pairs, epsilon) @ D.unsqueeze(-1)).squeeze(-1)
        )
        assert (distance[0] <= bound).all()
        distances.append(distance)
    slopes = (distances[0] / distances[1]).log2()
    assert (slopes - 2 * pairs).abs().max() < 0.1


@given(pairs=st.integers(1, 8))
def test_difference_weights_are_exact_for_polynomials(pairs):
    weights, k = sq.difference_weights(pairs), torch.arange(1, pairs + 1, dtype=torch.float64)
    for power in range(1, 2 * pairs, 2):
        terms = 2 * torch.tensor(weights, dtype=torch.float64) * k**power
        assert abs(terms.sum().item() - (power == 1)) <= 1e-13 * terms.abs().sum().item()


def test_summed_loss_is_the_sum_of_single_losses():
    prompts, W, _ = groups(3, 4, 2, 4, p=5)
    single = 0
    for q in range(3):
        prediction = prompts.queries[:, q] @ W.T
        scores = squared_distance_reward(prediction, prompts.responses[:, q])
        single = single + pl_loss(scores, prompts.rewards[:, q])
    torch.testing.assert_close(sq.summed_loss(W.expand(6, *W.shape), prompts), single)


@settings(max_examples=20)
@given(marks=st.sampled_from(MARKS), N=st.integers(2, 10), d=st.integers(1, 6), share=st.floats(0.3, 1.0),
       steps=st.integers(1, 3), seed=st.integers(0, 2**31))  # fmt: skip
def test_every_prefix_descends_on_its_own_loss(marks, N, d, share, steps, seed):
    prompts, W, scales = prefixes(N, d, seed, share=share)
    model = online(W, N, scales, steps, marks)
    assert len(model.blocks) == steps * (N - 1) and model.config.mask == "causal"
    distance, way = on.prefix_distances(model, prompts, W, scales.eta, steps, marks)
    assert worst(distance[..., 1:], way[..., 1:]) <= FLOAT64
    assert distance[..., 0].max() <= 1e-14 * (1 + W.norm())


@pytest.mark.parametrize("marks", MARKS)
def test_online_float32(marks):
    prompts, W, scales = prefixes(6, 4, 5, torch.float32)
    model = online(W, 6, scales, 2, marks)
    distance, way = on.prefix_distances(model, prompts, W, scales.eta, 2, marks)
    assert worst(distance[..., 1:], way[..., 1:]) <= FLOAT32


@pytest.mark.parametrize("marks", MARKS)
def test_running_mean(marks):
    prompts, W, scales = prefixes(7, 3, 6)
    moved = on.online_descent(W.expand(6, *W.shape), prompts, scales.eta, 1)
    steps = moved[1] - moved[0]
    wanted = steps.cumsum(dim=1) / torch.arange(1, 8, dtype=torch.float64).unsqueeze(-1)
    outputs = online(W, 7, scales, marks=marks, mean=True)(on.online_tokens(prompts, marks))[:, -7:]
    error = (outputs - moved[0] - wanted).norm(dim=-1)
    assert (error / wanted.norm(dim=-1).amax(dim=1, keepdim=True)).max() <= FLOAT64


@pytest.mark.parametrize("marks", MARKS)
def test_each_prefix_eliminates_in_its_own_order(marks):
    N = 6
    prompts, W, scales = prefixes(N, 3, 7)
    trace = online(W, N, scales, marks=marks).trace(on.online_tokens(prompts, marks))
    first = marks == "positions"
    for i in range(2, N + 1):
        order = prompts.rewards[:, :i].argsort(dim=1, descending=True)
        for block in range(min(i, N - 1)):
            looked_at = trace.attention[block][:, 0, i - 1 + first, first:].argmax(dim=1)
            assert (looked_at == order[:, block]).all()


@pytest.mark.parametrize("marks", MARKS)
def test_exhausted_prefixes_look_twice_at_one_token(marks):
    N = 6
    prompts, W, scales = prefixes(N, 3, 8)
    trace = online(W, N, scales, marks=marks).trace(on.online_tokens(prompts, marks))
    first = marks == "positions"
    for block, weights in enumerate(trace.attention):
        rows = weights[:, :, first : block + 1 + first]
        torch.testing.assert_close(rows[:, 0], rows[:, 1], rtol=0, atol=1e-14)
        assert rows.shape[2] == 0 or rows.amax(dim=-1).min() > 1 - 1e-14


@pytest.mark.parametrize(
    "build",
    [
        lambda W, a: several_queries(W, 2, 3, a),
        lambda W, a: online(W, 3, a),
        lambda W, a: online(W, 3, a, marks="positions"),
    ],
)
def test_extensions_are_ordinary_transformers(build):
    scales = Assumptions(eta=0.1, gap=0.1)
    model = build(torch.ones(2, 2, dtype=torch.float64), scales)
    assert type(model) is Transformer
    fresh = Transformer(model.config).double()
    fresh.load_state_dict(model.state_dict())
    n = model.config.positions or 3
    tokens = torch.rand(1, n, model.config.inputs, dtype=torch.float64)
    torch.testing.assert_close(fresh(tokens), model(tokens, unchecked=True), rtol=0, atol=0)


def test_softmax_grows_at_most_linearly_but_the_step_does_not():
    prompts, _, scales = groups(2, 3, 2, 9, p=2)
    W = torch.zeros(2, 2, dtype=torch.float64)
    model, ways, outputs = several_queries(W, 2, 3, scales, 1, pairs=1, epsilon=0.1), [], []
    for length in (1e5, 1e6):
        longer = sq.SeveralQueries(length * prompts.queries, prompts.responses, prompts.rewards)
        path = sq.summed_descent(W.expand(6, 2, 2), longer, scales.eta, 1)
        ways.append(sq.predictions(path[1], longer).norm())
        outputs.append(model(longer.tokens(), unchecked=True).norm())
    assert ways[1] / ways[0] == pytest.approx(100) and outputs[1] / outputs[0] < 10.1


X = torch.ones(1, 2, 2, dtype=torch.float64)
Y = torch.rand(1, 2, 3, 2, generator=generator(0), dtype=torch.float64)
R = torch.tensor([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]], dtype=torch.float64)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:, :1], Y, R), r"queries must have shape \(1, 2, any\)"),
        ((X, Y[0], R), r"responses must have shape \(any, any, any, any\)"),
        ((X, Y[:, :, :1], R[:, :, :1]), "responses: N must be a whole number of at least 2"),
        ((X, Y, R.float()), "rewards.dtype must be one of torch.float64"),
        ((X * torch.nan, Y, R), "queries must be finite"),
        ((X, Y, R * 0), "rewards must be distinct"),
    ],
)
def test_bad_prompts_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sq.SeveralQueries(*arguments)


GOOD = Assumptions(eta=0.1, gap=0.1)
EYE = torch.eye(2, dtype=torch.float64)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: several_queries(EYE, 0, 3, GOOD), "Q must be a whole number of at least 1"),
        (lambda: several_queries(EYE, 2, 1, GOOD), "N must be a whole number of at least 2"),
        (lambda: several_queries(EYE, 2, 3, GOOD, pairs=-1), "pairs must be a whole number of at least 0"),
        (lambda: several_queries(EYE, 2, 3, GOOD, epsilon=0.0), "epsilon must be a finite number above 0"),
        (
            lambda: sq.sample_several(1, 3, 2, 2, orthonormal=True, generator=generator(0)),
            "Q must be at most p",
        ),
        (lambda: online(EYE, 1, GOOD), "N must be a whole number of at least 2"),
        (lambda: online(EYE, 3, GOOD, marks="keys"), "marks must be one of thresholds, positions"),
        (lambda: online(EYE, 3, GOOD, steps=2, mean=True), "steps must be 1 if mean is True"),
        (lambda: online(EYE, 3, Assumptions(eta=0.1, gap=1e-5, dtype=torch.float32)), "gap must be at least"),
        (lambda: on.prefix(sample_prompts(1, 3, 2, generator=generator(0)), 4), "i must be at most N = 3"),
    ],
)
def test_bad_extension_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
