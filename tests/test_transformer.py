"""The ordinary transformer against PyTorch's own attention and layers, masks, and refusals."""

import dataclasses

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from ica.transformer import Transformer, TransformerConfig, count_parameters

CONFIG = TransformerConfig(inputs=4, outputs=2, width=12, layers=2, heads=3, hidden=16)


def tokens(n: int = 7) -> torch.Tensor:
    return torch.randn(5, n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_softmax_attention_equals_pytorch(mask):
    torch.manual_seed(1)
    attention = Transformer(dataclasses.replace(CONFIG, mask=mask)).double().blocks[0].attention
    h = torch.randn(5, 7, 12, dtype=torch.float64)
    q, k, v = (
        w(h).unflatten(-1, (3, 4)).transpose(1, 2) for w in (attention.W_Q, attention.W_K, attention.W_V)
    )
    ours = attention(h)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=mask == "causal")
    torch.testing.assert_close(ours, attention.W_O(theirs.transpose(1, 2).flatten(-2)))


@pytest.mark.parametrize("mask", ["full", "causal", "test-token"])
def test_attention_with_its_weights_copied_equals_multihead_attention(mask):
    torch.manual_seed(2)
    attention = Transformer(dataclasses.replace(CONFIG, mask=mask)).double().blocks[0].attention
    other = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True, dtype=torch.float64)
    own = attention.state_dict()
    stacked = torch.cat([own[f"W_{name}.weight"] for name in "QKV"])
    other.load_state_dict({"in_proj_weight": stacked, "out_proj.weight": own["W_O.weight"]})
    h = torch.randn(5, 7, 12, dtype=torch.float64)
    hidden = None if mask == "full" else ~torch.tensor([[j in row for j in range(7)] for row in SEEN])
    if mask == "causal":
        hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    theirs, weights = other(h, h, h, attn_mask=hidden, average_attn_weights=False)
    torch.testing.assert_close(attention(h), theirs)
    torch.testing.assert_close(attention.weights(h), weights)


def test_linear_attention_is_the_mean_of_unnormalised_scores():
    torch.manual_seed(1)
    attention = (
        Transformer(dataclasses.replace(CONFIG, heads=1, head_width=12, attention="linear"))
        .double()
        .blocks[0]
        .attention
    )
    h = torch.randn(1, 3, 12, dtype=torch.float64)
    q, k, v = (w(h)[0] for w in (attention.W_Q, attention.W_K, attention.W_V))
    expected = sum((q[1] @ k[j]) * v[j] for j in range(3)) / (3 * 12**0.5)
    torch.testing.assert_close(attention(h)[0, 1], attention.W_O(expected))


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_causal_mask_hides_the_future(attention, pre_norm):
    torch.manual_seed(2)
    config = dataclasses.replace(CONFIG, mask="causal", attention=attention, pre_norm=pre_norm, positions=7)
    model = Transformer(config).double()
    seen = tokens()
    changed = seen.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(model(seen)[:, :4], model(changed)[:, :4], rtol=0, atol=0)
    assert (model(seen)[:, 4:] - model(changed)[:, 4:]).abs().min() > 0


SEEN = [[0], [1], [1, 2], [1, 3], [1, 3, 4], [1, 3, 5], [1, 3, 5, 6]]  # by each of seven tokens


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_the_test_token_mask_hides_test_tokens_and_the_future(attention):
    torch.manual_seed(2)
    config = dataclasses.replace(CONFIG, mask="test-token", attention=attention, positions=4, layers=1)
    model = Transformer(config).double()
    weights = model.trace(tokens()).attention[0]
    assert weights.shape == (5, 3, 7, 7)
    for k, seen in enumerate(SEEN):
        found = weights[:, :, k].abs().amax((0, 1)) > 0
        assert found.nonzero().flatten().tolist() == seen
    if attention == "softmax":
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3, 7).double())
    else:  # the same scores as without a mask, over the number of tokens seen
        free = Transformer(dataclasses.replace(config, mask="full", positions=0)).double()
        state = {name: one for name, one in model.state_dict().items() if "positions" not in name}
        free.load_state_dict(state)
        whole = free.blocks[0].attention.weights(free.blocks[0].norm_1(model.stream(tokens())))
        for k, seen in enumerate(SEEN):
            torch.testing.assert_close(weights[:, :, k, seen], whole[:, :, k, seen] * 7 / len(seen))


def test_a_test_token_has_the_position_of_the_triplet_in_whose_place_it_stands():
    model = Transformer(dataclasses.replace(CONFIG, mask="test-token", positions=4))
    found = model.stream(torch.zeros(1, 8, 4)) - model.embed.bias
    torch.testing.assert_close(found[0], model.positions.weight.repeat_interleave(2, 0))


def test_full_mask_without_positions_is_equivariant():
    torch.manual_seed(3)
    model = Transformer(CONFIG).double()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(model(tokens())[:, order], model(tokens()[:, order]))


def test_trace_ends_where_forward_ends():
    torch.manual_seed(4)
    model = Transformer(dataclasses.replace(CONFIG, pre_norm=True, activation="gelu")).double()
    trace = model.trace(tokens())
    torch.testing.assert_close(model.readout(model.norm(trace.streams[-1])), model(tokens()), rtol=0, atol=0)
    assert len(trace.streams) == 3 and trace.attention[0].shape == (5, 3, 7, 7)
    torch.testing.assert_close(trace.attention[1].sum(-1), torch.ones(5, 3, 7, dtype=torch.float64))


def test_parameters_are_counted():
    expected = (4 + 1) * 12 + 2 * (4 * 12 * 12 + (12 + 1) * 16 + (16 + 1) * 12) + 12 * 2
    assert count_parameters(Transformer(CONFIG)) == expected


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("heads", 5),
        ("attention", "cosine"),
        ("activation", "tanh"),
        ("mask", "none"),
        ("layers", 1.5),
    ],
)
def test_bad_configurations_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, head_width=0, **{field: value})


@pytest.mark.usefixtures("as_users_call")
def test_bad_tokens_are_named():
    model = Transformer(dataclasses.replace(CONFIG, positions=3))
    with pytest.raises(ValueError, match=r"tokens must have shape \(any, any, 4\)"):
        model(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="tokens: at most 3 have a learned position, got 4"):
        model(torch.zeros(1, 4, 4))
    pairs = Transformer(dataclasses.replace(CONFIG, positions=3, mask="test-token"))
    assert pairs(torch.zeros(1, 6, 4)).shape == (1, 6, 2)
    with pytest.raises(ValueError, match="tokens: at most 6 have a learned position, got 7"):
        pairs(torch.zeros(1, 7, 4))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("run", ["forward", "trace", "stream"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda z: z.index_fill(1, torch.tensor([2]), torch.nan),
            r"tokens must be finite; 20 of 140.*\(0, 2, 0\)",
        ),
        (lambda z: z.index_fill(2, torch.tensor([3]), torch.inf), "tokens must be finite; 35 of 140"),
        (lambda z: z.float(), "tokens.dtype must be one of torch.float64; got torch.float32"),
        (lambda z: z.long(), "tokens.dtype must be one of torch.float64; got torch.int64"),
    ],
)
def test_tokens_that_are_not_finite_or_of_another_type_are_named(run, change, message):
    model = Transformer(CONFIG).double()
    with pytest.raises(ValueError, match=message):
        getattr(model, run)(change(tokens()))


def test_training_by_vmap_runs_and_still_refuses_types():
    models = [Transformer(CONFIG).double() for _ in range(2)]
    weights, _ = stack_module_state(models)
    apply = vmap(lambda weight, z: functional_call(models[0], weight, (z,)))
    both = torch.stack([tokens(), tokens() + 1])
    torch.testing.assert_close(apply(weights, both)[1], models[1](tokens() + 1))
    with pytest.raises(ValueError, match="tokens.dtype"):
        apply(weights, both.float())
