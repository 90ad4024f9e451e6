"""The engine against plain passes: trees, their passes and known beginnings change nothing but the time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_language_model import KINDS, language_model, network
from transformers import BloomConfig, BloomForCausalLM

from ica.llm.model.engine import Engine
from ica.llm.model.generation import batches, greedy
from ica.llm.model.load import LanguageModel, ModelError
from ica.llm.model.scoring import (
    Request,
    plain_log_probabilities,
    probe,
    score,
)
from ica.llm.model.trees import Prefix, Tree, computed, masks, picked, portions

MODELS = {(kind, start): language_model(kind, start) for kind in KINDS for start in (False, True)}
PIECES = ["the ", "thing", " A", "er", "é", "</s>", "\n", " the the the answer is ", "0123456789" * 3]
WORDS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)


@st.composite
def texts(draw) -> list[tuple[str, tuple[str, ...]]]:
    """Contexts with continuations; the contexts share beginnings of several lengths, some being beginnings of others."""
    trunk = [draw(WORDS)]
    for _ in range(draw(st.integers(0, 5))):
        trunk.append(draw(st.sampled_from(trunk)) + draw(WORDS))
    chosen = draw(st.lists(st.sampled_from(trunk), min_size=1, max_size=6))
    return [(context, tuple(draw(st.lists(WORDS, min_size=1, max_size=4)))) for context in chosen]


def close(found, expected) -> bool:
    pairs = [
        (a, b) for x, y in zip(found.tokens, expected.tokens, strict=True) for a, b in zip(x, y, strict=True)
    ]
    return all(abs(a - b) < 1e-4 for a, b in pairs)


@settings(max_examples=40)
@given(
    which=st.sampled_from(sorted(MODELS)),
    asked=texts(),
    width=st.sampled_from([1, 7, 40, 256]),
    room=st.sampled_from([1, 60, 8192]),
    anchored=st.integers(0, 3),
)
def test_scores_equal_plain_passes(which, asked, width, room, anchored):
    model, asked = MODELS[which], [Request(*pair) for pair in asked]
    anchors = [
        tuple(model.context_tokens(one.context + one.continuations[0] * (anchored > 2)))
        for one in asked[:anchored]
    ]
    known = list(computed(model, anchors[:1]).values())
    known += list(computed(model, anchors[1:], known, width).values())
    found = score(model, asked, known, width, room)
    for request, scores in zip(asked, found, strict=True):
        assert close(scores, plain_log_probabilities(model, request.context, request.continuations))


@settings(max_examples=30)
@given(
    which=st.sampled_from(sorted(MODELS)),
    asked=texts(),
    slots=st.sampled_from([1, 60, 4096]),
    width=st.sampled_from([3, 256]),
    new_tokens=st.integers(1, 12),
)
def test_greedy_equals_generate(which, asked, slots, width, new_tokens):
    model = MODELS[which]
    prompts = [context for context, _ in asked]
    found = greedy(model, prompts, new_tokens, width=width, room=100, slots=slots)
    for prompt, one in zip(prompts, found, strict=True):
        ids = torch.tensor([model.context_tokens(prompt)])
        expected = model.network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False
        )
        assert list(one.tokens) == expected[0, ids.shape[1] :].tolist()
        assert one.ended == (one.tokens[-1] in model.ends) and "</s>" not in one.text


def test_rows_that_end_leave_the_batch_and_the_others_go_on():
    model = MODELS["llama", False]
    prompts = [f"{word} {i}" for i in range(40) for word in ("the", "A thing", "er")]
    lengths = {len(one.tokens) for one in greedy(model, prompts, 30)}
    assert min(lengths) < 30 and len(lengths) > 1


def test_a_shared_beginning_is_read_once(monkeypatch):
    model, read = MODELS["llama", False], []
    plain = model.network.forward

    def counting(input_ids, **options):
        read.append(input_ids.shape[1])
        return plain(input_ids=input_ids, **options)

    monkeypatch.setattr(model.network, "forward", counting)
    item = "0123456789" * 10
    asked = [Request(item + branch * 20, (" A", " B")) for branch in "abcde"]
    score(
        model, asked
    )  # the item, the branches, and the space of " B"; " A" is one token and follows the branch
    assert sum(read) == 100 + 5 * 20 + 5 and max(read) <= 256
    read.clear()
    anchor = list(computed(model, [tuple(model.context_tokens(item))]).values())
    assert sum(read) == 100
    score(model, asked, anchor)
    assert sum(read) == 100 + 5 * 20 + 5
    read.clear()
    score(model, asked, anchor, width=10)
    assert sum(read) == 5 * 20 + 5 and max(read) == 10


def test_a_model_that_ignores_the_mask_is_refused(monkeypatch):
    model = language_model("llama")
    probe(model)
    monkeypatch.setattr("ica.llm.model.trees.masks", lambda *_: None)
    with pytest.raises(ModelError, match="small llama of type llama cannot be read here.*differ by"):
        probe(model)
    half = LanguageModel("half", "0" * 64, network("gemma3").bfloat16(), model.tokenizer)
    with pytest.raises(ModelError, match="half of type gemma3_text cannot be read here.*differ by"):
        probe(half)
    monkeypatch.undo()
    probe(half)


def test_a_model_that_takes_no_such_mask_is_refused():
    sizes = {"vocab_size": 265, "hidden_size": 32, "n_head": 4, "n_layer": 2}
    bloom = LanguageModel(
        "bloom", "0" * 64, BloomForCausalLM(BloomConfig(**sizes)).eval(), MODELS["llama", False].tokenizer
    )
    with pytest.raises(ModelError, match="bloom of type bloom cannot be read here: it fails where"):
        Engine(bloom).score([Request("the", (" A",))])


def test_models_with_layers_of_other_kinds_are_refused():
    made = network("llama")
    for name, kinds, kind in (
        ("layer_types", ["full_attention", "chunked_attention"], "chunked_attention"),
        ("attention_layers", ["global", "local"], "local"),
    ):
        setattr(made.config, name, kinds)
        with pytest.raises(ModelError, match=f"one of type llama cannot be read here: .* of kind {kind}"):
            LanguageModel("one", "0" * 64, made, MODELS["llama", False].tokenizer)
        delattr(made.config, name)


def test_a_call_does_not_depend_on_those_before_it():
    model = MODELS["gemma3", True]
    calls = []
    for k in range(5):
        stems = [f"the lead {k // 3} " + word * 6 for word in ("thing", "er é")]
        calls.append(
            ([Request(stem + "A", (" the", " A A")) for stem in stems], [f"the lead {k // 3} ", *stems])
        )
    fresh = [Engine(model, width=20, room=60).score(*call) for call in calls]
    for order in (range(5), [4, 3, 2, 1, 0, 4, 2]):
        engine = Engine(model, width=20, room=60)
        assert all(engine.score(*calls[k]) == fresh[k] for k in order)


def test_a_window_is_kept_whichever_way_the_model_names_it():
    sees, distance = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[9, 8, 7]])
    shut = [[False, False, True]]
    gemma = masks(language_model("gemma3"), sees, distance)
    assert (gemma["sliding_attention"][0, 0] == 0).tolist() == shut
    assert (gemma["full_attention"] == 0).all() and (
        masks(language_model("llama"), sees, distance) == 0
    ).all()
    assert (masks(language_model("mistral"), sees, distance)[0, 0] == 0).tolist() == shut


def test_a_node_that_was_read_gives_no_logits_again():
    tree = Tree(MODELS["llama", False])
    path = tree.grow((5, 6, 7))
    assert len(tree.read([(path[0], 6)])) == 1
    with pytest.raises(ValueError, match="wanted nodes must be new, got 1 of 3 that are read"):
        tree.read([(path[1], 7)])


def test_the_same_requests_give_the_same_bits():
    model = MODELS["gemma3", True]
    asked = [Request("the thing " * n, (" A", " the", "er ing")) for n in range(1, 9)]
    assert score(model, asked) == score(model, asked)


def test_scores_carry_sums_counts_and_means():
    (found,) = score(MODELS["llama", False], [Request("the", (" A", " A A A"))])
    assert found.counts.tolist() == [1, 3]
    torch.testing.assert_close(found.sums, torch.tensor([sum(row) for row in found.tokens]).double())
    torch.testing.assert_close(found.means, found.sums / found.counts)


def test_the_boundary_stays_between_context_and_continuation():
    model = MODELS["llama", False]
    assert model.tokens("the") + model.tokens(" A") == model.tokens("the A")
    assert model.tokens("the th") + model.tokens("er") != model.tokens("the ther")
    with_start = MODELS["llama", True]
    assert (
        with_start.context_tokens("<s>the") == with_start.context_tokens("the") == [0, *model.tokens("the")]
    )


def test_logits_in_half_precision_are_normalised_in_single():
    logits = torch.randn(2, 3, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = logits.float().log_softmax(-1)
    found = picked(logits[0], [(0, 5), (1, 6), (2, 7)]) + picked(logits[1], [(0, 8)])
    torch.testing.assert_close(torch.tensor(found[:3]), expected[0, [0, 1, 2], [5, 6, 7]])
    torch.testing.assert_close(torch.tensor(found[3]), expected[1, 0, 8])
    assert picked(logits[0], []) == []


@given(
    lengths=st.lists(st.integers(1, 50), max_size=30),
    slots=st.integers(1, 300),
    new_tokens=st.integers(1, 30),
)
def test_batches_hold_every_row_once_within_the_limits(lengths, slots, new_tokens):
    rows = [(i, *[0] * length) for i, length in enumerate(lengths)]
    parts = list(batches(rows, new_tokens, slots))
    assert sorted(row for part in parts for row in part) == sorted(rows)
    for part in parts:
        assert len(part) == 1 or len(part) * (max(map(len, part)) + new_tokens) <= slots


def test_portions_keep_neighbours_together():
    stems = [(1, 2, 3, k) for k in range(10)] + [(4, k) for k in range(10)]
    parts = list(portions(stems + stems[::-1], 8))
    assert [s for part in parts for s in part] == sorted(stems) and len(parts) == 4
    assert all(len({stem[:n] for stem in part for n in range(1, 5)}) <= 8 for part in parts)


def test_a_prefix_is_cut_with_its_keys_and_values():
    model = MODELS["llama", False]
    stems = [tuple(model.tokens("0123456789" * 2 + tail * 12)) for tail in "ab"]
    prefix = computed(model, stems)[stems[0]]
    for n in (0, 5, 32, 40):
        cut = prefix.cut(n)
        assert len(cut.tokens) == min(n, 32) == cut.layers[0][0].shape[1] == cut.layers[1][1].shape[1]
    assert Prefix().cut(3) == Prefix()


@pytest.mark.usefixtures("as_users_call")
def test_what_cannot_be_scored_is_named():
    model = language_model(places=16)
    with pytest.raises(ValueError, match="context must have at least one token, got ''"):
        score(model, [Request("", (" A",))])
    with pytest.raises(ValueError, match="continuation must have at least one token"):
        score(model, [Request("the", ("",))])
    with pytest.raises(ValueError, match="need 20 places; small llama reads 16"):
        score(model, [Request("0" * 20, (" A",))])
    with pytest.raises(ValueError, match="prompt and answer need 17 places; small llama reads 16"):
        greedy(model, ["0" * 10], 8)
    with pytest.raises(ValueError, match="prompt must have at least one token"):
        greedy(model, [""], 8)
    with pytest.raises(ValueError, match="new_tokens must be a whole number of at least 1"):
        greedy(model, ["the"], 0)
    with pytest.raises(ValueError, match="slots must be a whole number of at least 1"):
        greedy(model, [], 3, slots=0)
    with pytest.raises(ValueError, match="width must be a whole number of at least 1"):
        score(model, [], width=0)
    assert score(model, []) == [] and greedy(model, [], 3) == []
