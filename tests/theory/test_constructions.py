"""Constructed transformers against autograd: any N, d, gap and step count, in the precision asked for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.objectives import predict
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.bradley_terry import bradley_terry
from ica.theory.constructions.layout import Layout
from ica.theory.constructions.plackett_luce import pl_layout, plackett_luce
from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts, default_gap, sample_prompts
from ica.transformer import Transformer

FLOAT64 = 1e-12
FLOAT32 = 1e-4


def setting(N: int, d: int, seed: int, *, p: int | None = None, share: float = 1.0, batch: int = 8):
    """Prompts with rewards at least `share` of the default gap apart, a first W, and assumptions that hold for them."""
    generator = torch.Generator().manual_seed(seed)
    gap = share * default_gap(N)
    prompts = sample_prompts(batch, N, d, p, gap=gap, generator=generator)
    W = torch.randn(d, p or d, generator=generator, dtype=torch.float64) / d**0.5
    return prompts, W, {"eta": 0.5 / N, "gap": 0.999 * gap}


def error(model: Transformer, prompts: Prompts, W: torch.Tensor, eta: float, steps: int) -> float:
    """Largest distance from autograd's path, relative to the step lengths that the path is made of."""
    path = gradient_descent(W.expand(len(prompts.query), *W.shape), prompts, eta, steps)
    predictions = predict(path, prompts.query.expand(steps + 1, *prompts.query.shape))
    length = predictions.diff(dim=0).norm(dim=-1).sum(0).clamp_min(0.01 * eta)
    outputs = model(prompts.to(model.readout.weight.dtype).tokens()).double()
    return ((outputs - predictions[-1].unsqueeze(1)).norm(dim=-1) / length.unsqueeze(1)).max().item()


@given(
    N=st.integers(2, 14),
    d=st.integers(1, 8),
    p=st.integers(1, 8),
    share=st.floats(1e-4, 1.0),
    steps=st.integers(1, 3),
    heads=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**31),
)
def test_plackett_luce_float64(N, d, p, share, steps, heads, seed):
    prompts, W, scales = setting(N, d, seed, p=p, share=share)
    model = plackett_luce(W, N, Assumptions(**scales), steps, heads)
    assert error(model, prompts, W, scales["eta"], steps) <= FLOAT64


@given(N=st.integers(2, 14), d=st.integers(1, 8), share=st.floats(0.05, 1.0), seed=st.integers(0, 2**31))
def test_plackett_luce_float32(N, d, share, seed):
    prompts, W, scales = setting(N, d, seed, share=share)
    model = plackett_luce(W, N, Assumptions(**scales, dtype=torch.float32))
    assert error(model, prompts, W, scales["eta"], 1) <= FLOAT32


@given(d=st.integers(1, 16), share=st.floats(1e-4, 1.0), steps=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_bradley_terry_float64(d, share, steps, seed):
    prompts, W, scales = setting(2, d, seed, share=share)
    assert error(bradley_terry(W, Assumptions(**scales), steps), prompts, W, scales["eta"], steps) <= FLOAT64


def test_error_falls_as_sharpness_grows_and_not_to_zero_before():
    prompts, W, scales = setting(2, 3, 0)
    errors = [
        error(
            bradley_terry(W, Assumptions(**scales, sharpness=z / scales["gap"])), prompts, W, scales["eta"], 1
        )
        for z in (2.0, 6.0, 12.0)
    ]
    assert errors[0] > 1e-2 > errors[1] > 1e-4 > errors[2] > 1e-9


@pytest.mark.parametrize("heads", [2, 3])
def test_every_head_of_the_plackett_luce_step_is_used(heads):
    model = plackett_luce(torch.eye(3).double(), 4, Assumptions(eta=0.1, gap=0.2), heads=heads)
    for block in model.blocks:
        outputs = block.attention.W_O.weight.unflatten(1, (block.attention.config.heads, -1))
        assert block.attention.config.heads == heads and (outputs != 0).any(0).any(-1).all()


def test_the_bradley_terry_step_has_the_size_of_the_theorem_and_says_what_it_is_for():
    """Two heads a layer, each as wide as a response and one more; two responses unless more are asked for."""
    W, scales = torch.eye(3, 4).double(), Assumptions(eta=0.1, gap=0.2)
    model = bradley_terry(W, scales, steps=5)
    made = model.blocks[0].attention.config
    assert (len(model.blocks), made.heads, made.head_width) == (5, 2, 4)
    assert (model.built_for.N, model.built_for.steps, model.built_for.first_term) == (2, 5, True)
    assert all(
        torch.equal(one, two)
        for one, two in zip(model.parameters(), bradley_terry(W, scales, 5, 2).parameters(), strict=True)
    )
    for more, named in (({"steps": 0}, "^steps must"), ({"N": 1}, "^N must")):
        with pytest.raises(ValueError, match=named):
            bradley_terry(W, scales, **more)


@pytest.mark.parametrize(
    "build", [lambda W, a: bradley_terry(W, a, N=4), lambda W, a: plackett_luce(W, 4, a)]
)
def test_a_construction_is_an_ordinary_transformer(build):
    prompts, W, scales = setting(4, 3, 1)
    model = build(W, Assumptions(**scales))
    assert type(model) is Transformer
    fresh = Transformer(model.config).double()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(prompts.tokens()), model(prompts.tokens()), rtol=0, atol=0)
    assert all(type(block) is type(fresh.blocks[0]) for block in model.blocks)


def test_block_by_block_selection_and_elimination():
    prompts, W, scales = setting(5, 3, 2, batch=1)
    trace = plackett_luce(W, 5, Assumptions(**scales)).trace(prompts.tokens())
    layout, order = pl_layout(3, 3), prompts.rewards[0].argsort(descending=True)
    for i in range(4):
        assert trace.attention[i][0, 0, 0].argmax() == order[i]
        gone = layout.get(trace.streams[i][0], "mark")[:, 0] > 0.5
        assert sorted(torch.nonzero(gone)[:, 0].tolist()) == sorted(order[:i].tolist())
    assert layout.get(trace.streams[-1], "mark").abs().max() == 0
    assert layout.get(trace.streams[-1], "acc").abs().max() == 0


GOOD = {"eta": 0.1, "gap": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": 0.0}, "eta must be a finite number above 0"),
        ({"gap": float("nan")}, "gap must be a finite number above 0"),
        ({"gap": 2.0}, "gap must be at most spread"),
        ({"radius": -1.0}, "radius must be"),
        ({"sharpness": -1.0}, "sharpness must be"),
        ({"dtype": torch.float16}, "dtype must be one of torch.float64, torch.float32, torch.bfloat16"),
    ],
)
def test_bad_assumptions_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Assumptions(**{**GOOD, **change})


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.full((2, 2), torch.inf, dtype=torch.float64), 3), "W must be finite"),
        ((torch.zeros(2, dtype=torch.float64), 3), r"W must have shape \(any, any\)"),
        ((torch.zeros(2, 2, dtype=torch.float64), 1), "N must be a whole number of at least 2"),
    ],
)
def test_bad_construction_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        plackett_luce(*arguments, Assumptions(**GOOD))


def test_layout_refuses_unknown_and_unequal_places():
    layout = Layout(x=2, r=1)
    assert layout.labels() == ["x1", "x2", "r"]
    with pytest.raises(ValueError, match="place must be one of x, r"):
        layout.read({"q": 1.0})
    with pytest.raises(ValueError, match="places of one size"):
        layout.read({"x": 1.0, "r": 1.0})
