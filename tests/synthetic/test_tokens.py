"""Tokens and the loss: one masked pass against separate ones, loss and gradient against plain loops."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.synthetic.task.config import FORMS, SCOPES, RunConfig
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.tokens import lengths, loss, prefixes, read_at, tokens
from ica.synthetic.training import train
from ica.transformer import Transformer

STATED = RunConfig(
    noise="own",
    form="test-token",
    reward="squared_distance",
    scope="all",
    layers=3,
    heads=2,
    width=16,
    hidden=32,
)
STATED = replace(STATED, N=8, steps=6, batch=16, rate=1e-2)


def prompts(config: RunConfig, dtype: torch.dtype = torch.float64, count: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return sample_batch(count, config.N, config.d, generator, config.critic, dtype, noise=config.noise)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Transformer]:
    """Models of the test-token form, as they start and after a few steps of training."""
    found = {}
    for attention in ("softmax", "linear"):
        config = replace(STATED, attention=attention)
        (found[f"{attention}, new"],) = train.models(config, train.start(config, (0,)))
        state = train.train(config, (0,), tmp_path_factory.mktemp(attention))
        (found[f"{attention}, trained"],) = train.models(config, state)
    return found


KINDS = [f"{attention}, {age}" for attention in ("softmax", "linear") for age in ("new", "trained")]


# The test-token form


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_with_test_tokens_equals_a_pass_for_each_number_of_triplets(kind, dtype, off, models):
    """Each separate pass is causal, over the first n triplets and one token (x, 0, 0), as App. C.1 has it."""
    model = models[kind].to(dtype)
    plain = Transformer(replace(model.config, mask="causal")).to(dtype)
    plain.load_state_dict(model.state_dict())
    batch = prompts(STATED, dtype)
    triplets = torch.cat([tokens(batch, "triplet"), torch.zeros(6, 1, 11, dtype=dtype)], dim=1)
    with torch.no_grad():
        together = model(tokens(batch, "test-token"))
        for n in range(STATED.N):
            alone = triplets[:, : n + 1].clone()
            alone[:, n] = 0
            alone[:, n, : STATED.d] = batch.query
            torch.testing.assert_close(plain(alone)[:, n], together[:, 2 * n], rtol=0, atol=off)
        # What the triplets themselves read is no prediction, and larger: 1.6e-6 apart in float32 with AVX2.
        torch.testing.assert_close(plain(triplets[:, :-1]), together[:, 1::2], rtol=0, atol=4 * off)
    assert together[:, ::2].std(1).max() > 1e-2  # predictions differ from n to n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 6, 7, 15])
def test_nobody_sees_a_test_token_and_what_follows_sees_a_triplet(at, kind, models):
    model = models[kind].double()
    given_tokens = tokens(prompts(STATED), "test-token")
    changed = given_tokens.clone()
    changed[:, at] += 1
    with torch.no_grad():
        moved = (model(given_tokens) - model(changed)).abs().amax((0, 2))
    sees = [at] if at % 2 == 0 else range(at, 2 * STATED.N)
    assert [k for k, by in enumerate(moved.tolist()) if by > 0] == list(sees)


def test_tokens_are_laid_out_as_the_docstring_says():
    critic = Critic("replace", 0.5, raters=2)
    batch = prompts(replace(STATED, critic=critic))
    x, y, r = batch.query, batch.responses, batch.shown
    triplets, mixed, three = (tokens(batch, form) for form in ("triplet", "test-token", "interleaved"))
    for k in range(STATED.N):
        assert torch.equal(triplets[:, k], torch.cat([x, y[:, k], r[:, k]], -1))
        assert torch.equal(mixed[:, 2 * k], torch.cat([x, torch.zeros(6, 7).double()], -1))
        assert torch.equal(mixed[:, 2 * k + 1], triplets[:, k])
        assert torch.equal(three[:, 3 * k], x) and torch.equal(three[:, 3 * k + 1], y[:, k])
        assert torch.equal(three[:, 3 * k + 2], torch.cat([r[:, k], torch.zeros(6, 3).double()], -1))
    with pytest.raises(ValueError, match="form must be one of interleaved, triplet, test-token"):
        tokens(batch, "pairs")


def test_a_test_token_needs_the_causal_mask():
    with pytest.raises(ValueError, match='mask must be "causal" with form "test-token"'):
        replace(STATED, mask="full")


# Numbers of triplets with a loss

LENGTHS = {
    ("interleaved", "seen"): [2, 3, 4, 5],
    ("test-token", "seen"): [2, 3, 4, 5],
    ("triplet", "seen"): [2, 3, 4, 5, 6],
    ("interleaved", "all"): [0, 1, 2, 3, 4, 5],
    ("test-token", "all"): [0, 1, 2, 3, 4, 5],
    ("triplet", "all"): [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize(("form", "scope"), LENGTHS)
def test_lengths_of_every_form_and_scope(form, scope):
    assert lengths(6, form, scope).tolist() == LENGTHS[form, scope]
    config = RunConfig(form=form, scope=scope, N=6)
    assert prefixes(config).tolist() == LENGTHS[form, scope]
    batch = prompts(config)
    inputs, at = tokens(batch, form), read_at(prefixes(config), form)
    assert 0 <= at.min() and at.max() < inputs.shape[1]
    for n, place in zip(prefixes(config).tolist(), at.tolist(), strict=True):
        whole = inputs[
            :, : place + 1
        ]  # what a causal prediction sees: n triplets, and the query alone if there is one
        seen = {"interleaved": 3 * n + 1, "test-token": 2 * n + 1, "triplet": n}[form]
        assert whole.shape[1] == seen
    assert lengths(6, form).tolist() == LENGTHS[form, "seen"]


@pytest.mark.parametrize(("form", "scope", "word"), [("pairs", "all", "form"), ("triplet", "none", "scope")])
def test_unknown_forms_and_scopes_are_named(form, scope, word):
    with pytest.raises(ValueError, match=f"{word} must be one of"):
        lengths(6, form, scope)


# The loss


def rewards_of(prediction: list, responses: list, reward: str) -> list:
    """Reward of each response, element by element, for autograd to follow."""
    found = []
    for y in responses:
        if reward == "squared_distance":
            found.append(-sum((a - b) ** 2 for a, b in zip(prediction, y, strict=True)))
        else:
            dot = sum(a * b for a, b in zip(prediction, y, strict=True))
            norms = [sum(a * a for a in one).sqrt() for one in (prediction, y)]
            found.append(dot / (norms[0] * norms[1]))
    return found


def plackett_luce(scores: list, ranks: list) -> torch.Tensor:
    r"""$-\log \prod_i e^{s_{\tau(i)}} / \sum_{j \ge i} e^{s_{\tau(j)}}$ over those given (App. C.1)."""
    order = sorted(range(len(ranks)), key=lambda i: -ranks[i])
    probability = torch.ones((), dtype=torch.float64)
    for i in range(len(order)):
        left = sum(scores[j].exp() for j in order[i:])
        probability = probability * scores[order[i]].exp() / left
    return -probability.log()


def in_loops(outputs: torch.Tensor, batch, config: RunConfig) -> torch.Tensor:
    """The loss of C.1 (scope "all") or of the released code ("seen"): mean over prompts and positions."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    ranks = (batch.rewards if config.teacher == "critic" else batch.quality).tolist()
    for b in range(len(outputs)):
        for n in lengths(config.N, config.form, config.scope).tolist():
            place = {"interleaved": 3 * n, "test-token": 2 * n, "triplet": n - 1}[config.form]
            among = config.N if config.scope == "all" else n
            scores = rewards_of(list(outputs[b, place]), list(batch.responses[b, :among]), config.reward)
            total, count = total + plackett_luce(scores, ranks[b][:among]), count + 1
    return total / count


@pytest.mark.parametrize("reward", ["squared_distance", "cosine"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scope", SCOPES)
@given(
    N=st.integers(3, 5),
    d=st.integers(1, 3),
    noise=st.sampled_from(["own", "shared"]),
    teacher=st.sampled_from(["critic", "truth"]),
    seed=st.integers(0, 2**31),
)
def test_loss_and_gradient_equal_plain_loops(scope, form, reward, N, d, noise, teacher, seed):
    config = RunConfig(noise=noise, form=form, reward=reward, scope=scope, teacher=teacher, N=N, d=d)
    config = replace(config, critic=Critic("replace", 0.5))
    batch = prompts(config, count=2, seed=seed)
    count = tokens(batch, form).shape[1]
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(2, count, d, generator=generator, dtype=torch.float64, requires_grad=True)
    ours, plain = loss(outputs, batch, config), in_loops(outputs, batch, config)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(one, outputs)[0] for one in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)
    read = read_at(prefixes(config), form)
    others = torch.ones(count, dtype=torch.bool)
    others[read] = False
    assert (gradients[0][:, others] == 0).all()


def test_the_scope_says_which_responses_count():
    """Later responses teach the prediction after n triplets with scope "all", and not with "seen"."""
    for scope, taught in (("all", True), ("seen", False)):
        config = replace(STATED, scope=scope)
        batch = prompts(config)
        outputs = torch.randn(6, 2 * STATED.N, STATED.d, dtype=torch.float64, requires_grad=True)
        later = replace(batch, responses=batch.responses.clone())
        later.responses[:, 5:] += 1
        before, after = (torch.autograd.grad(loss(outputs, b, config), outputs)[0] for b in (batch, later))
        moved = (before - after).abs().amax((0, 2))[read_at(torch.arange(2, 6), "test-token")]
        assert (moved > 0).all() if taught else (moved == 0).all()
