r"""The paper's own construction of Thm 3.2 and Thm 3.3 as weights of our ordinary transformer (App. E.2 to
E.7, F.1).

Our other constructions move a prediction with coordinates of its own; here the response of every token moves
by $-\Delta W x$, as the theorems are written. The stream holds x, y, r, a constant, a second copy of y, and,
by the way in which the averaging head gets its scores $-\|W x - y_j\|^2$:

* "slots" (way 1, Lemmas E.3, E.4): one-hot positions, $y_j$ in slot j of N, and N more slots that a layer of
  uniform attention fills with all responses;
* "ffn" (way 2, Lemma E.5): a feature that a ReLU network of finite width approximates;
* "exact": the same feature in the token, as if that network had no error (to see the other limits alone).

The proof takes limits; here gamma and epsilon_0 are finite numbers. Serves the page "The paper's own
construction".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.layout import Layout, Unit, carry, set_head, set_units, zero_
from ica.theory.contract import BuiltFor
from ica.theory.prompts import Prompts
from ica.transformer import Attention, Block, Transformer, TransformerConfig, count_parameters

WAYS = ("slots", "ffn", "exact")
PAIRS = ("printed", "short")
RENEWALS = ("layer", "never", "row")


@dataclass(frozen=True)
class PaperScales:
    r"""The numbers that the proof leaves open; its limit is gamma to infinity.

    Args:
        eta: step size.
        gamma: factor of the reward in the logits of the selecting heads, and the push of Lemma E.7.
        epsilon_0: the weights of the elimination are -gamma / epsilon_0. In the proof it is epsilon, the
            distance of the best remaining reward from its average, which depends on the prompt; weights
            cannot.
        way: where the scores of the averaging head come from, one of `WAYS`.
        pair: keys and queries of way 1, one of `PAIRS`, see `_averaging_scores`.
        renewal: how the scores of way 1 come to know of the pushed copies, which the slots of the *queries*
            hold too; the proof prepares them once and does not say. "layer": the uniform layer again before
            every block but the first (our reading); "never"; "row" (ours): one row more that the FFN pushes
            and the keys of the averaging head read.
        lift: bias of the eliminating unit, relu(r_j - r+ + lift). The paper has 0; half a gap removes its
            limits (ours).
        inner: factor gamma_1 of <x_i, x_j> in all logits (App. F.1); 0: one query.
        spread: more than any r_j - r+; gates the push of the slots (ours).
        radius: way 2: the network interpolates the square on [-radius, radius] in each coordinate.
        pieces: way 2: linear pieces of the square on [0, radius].
        dtype: floating type of the weights.

    Raises:
        ValueError: a number that is not finite and positive (lift and inner may be 0), an unknown way, pair,
            renewal or dtype.
    """

    eta: float
    gamma: float
    epsilon_0: float
    way: str = "slots"
    pair: str = "printed"
    renewal: str = "layer"
    lift: float = 0.0
    inner: float = 0.0
    spread: float = 4.0
    radius: float = 8.0
    pieces: int = 64
    dtype: torch.dtype = torch.float64

    def __post_init__(self):
        for name in ("eta", "gamma", "epsilon_0", "spread", "radius"):
            checks.positive(name, getattr(self, name))
        for name in ("lift", "inner"):
            if getattr(self, name) != 0:
                checks.positive(name, getattr(self, name))
        checks.one_of("way", self.way, WAYS)
        checks.one_of("pair", self.pair, PAIRS)
        checks.one_of("renewal", self.renewal, RENEWALS)
        checks.whole("pieces", self.pieces, 1)
        checks.dtype("dtype", self.dtype)


def paper_layout(d: int, p: int, n: int, way: str, renewal: str = "layer") -> Layout:
    """Places of the stream for n tokens: x, y, r, one, copy (the second y), and those of the way.

    "away" is 1 less the one-hot position: 0 in the own slot, so that a gate that uses it adds an exact 0
    there.
    """
    common = {"x": p, "y": d, "r": 1, "one": 1, "copy": d}
    if checks.one_of("way", way, WAYS) == "slots":
        row = {"feature": 1} if checks.one_of("renewal", renewal, RENEWALS) == "row" else {}
        return Layout(**common, away=n, slots=n * d, all=n * d, **row)
    return Layout(**common, feature=1)


def paper_tokens(prompts: Prompts, W: Float[Tensor, "d p"], way: str) -> Float[Tensor, "batch n inputs"]:
    r"""Tokens (x, y_i, r_i), and what the way assumes to be given besides.

    "slots": a one-hot position and the response spread over n slots (the paper assumes both); "ffn": nothing;
    "exact": $-\|W x - y_i\|^2$.
    """
    query = prompts.query.unsqueeze(1).expand(-1, prompts.responses.shape[1], -1)
    parts = [query, prompts.responses, prompts.rewards.unsqueeze(-1)]
    return torch.cat([*parts, *given(query, prompts.responses, W, way)], dim=-1)


def given(
    query: Float[Tensor, "batch n p"],
    responses: Float[Tensor, "batch n d"],
    W: Float[Tensor, "d p"],
    way: str,
) -> list[Float[Tensor, "batch n more"]]:
    """What a token holds besides (x, y, r), by way; ValueError for an unknown way."""
    if checks.one_of("way", way, WAYS) == "ffn":
        return []
    if way == "exact":
        return [-(query @ W.to(query.dtype).T - responses).square().sum(dim=-1, keepdim=True)]
    batch, n, _ = responses.shape
    position = torch.eye(n, dtype=responses.dtype).expand(batch, n, n)
    return [position, (position.unsqueeze(-1) * responses.unsqueeze(-2)).flatten(-2)]


@dataclass(frozen=True)
class FromPaperTokens(BuiltFor):
    """The contract of tokens (x, y, r) and what a way assumes to be given besides; no squared norm among them."""

    def _read(self, tokens: Float[Tensor, "batch n inputs"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        d, p = self.W.shape
        x, y, r = tokens[..., : p + d + 1].split([p, d, 1], dim=-1)
        return super()._read(torch.cat([x, y, y.double().square().sum(dim=-1, keepdim=True), r], dim=-1))


def paper_construction(
    W: Float[Tensor, "d p"], n: int, scales: PaperScales, terms: int | None = None
) -> Transformer:
    r"""Transformer that does, in the limit, one Plackett-Luce step on n tokens; every token reads out its
    response.

    One preparing block (uniform attention in way 1, the FFN that writes the constant and, in way 2, the
    feature), then a block for each term, with a layer of uniform attention between two of them in way 1 with
    `renewal` "layer".

    Args:
        W: the linear model whose step is taken; part of the weights of the averaging head.
        n: tokens; the dummy token counts (`with_dummy`).
        terms: terms of the loss, default n - 1; 1 is the first term alone, InfoNCE, and Bradley-Terry for n
            = 2.

    The model refuses prompts of another number of tokens or type, queries that differ or are not of norm 1, and in
    way 2 predictions out of the network's radius (`ica.theory.contract`); with `inner`, which is for several queries,
    it refuses nothing. Gaps are free: how the error depends on them is what the page measures.

    Raises:
        ValueError: W not a finite matrix, n < 2, terms < 1.
    """
    W = checks.finite("W", checks.shape("W", W, (None, None))).detach().to(scales.dtype)
    d, p = W.shape
    terms = checks.whole("n", n, 2) - 1 if terms is None else checks.whole("terms", terms, 1)
    slots = scales.way == "slots"
    refreshed = slots and scales.renewal == "layer"
    layout = paper_layout(d, p, n, scales.way, scales.renewal)
    model = _blank(layout, d, 1 + terms + (terms - 1) * refreshed, scales)
    if slots:
        _write_uniform(model.blocks[0].attention, layout, n)
    _write_preparation(model.blocks[0], layout, W, scales)
    step = 2 if refreshed else 1
    for block in model.blocks[1::step]:
        _write_heads(block.attention, layout, W, n, scales)
        set_units(block.feed_forward, _elimination(layout, d, n, scales))
    for block in model.blocks[2::2] if refreshed else ():
        _write_uniform(block.attention, layout, n)
    if not scales.inner:
        radius = scales.radius if scales.way == "ffn" else math.inf
        kept = {"fewest": n, "first_term": terms == 1}
        model.built_for = FromPaperTokens(W.double(), scales.eta, 1, 0.0, radius, scales.dtype, n, **kept)
    return model


@torch.no_grad()
def _blank(layout: Layout, d: int, layers: int, scales: PaperScales) -> Transformer:
    """Zeros but for the embedding (y goes to its copy too) and the readout of y; no constant yet."""
    names = ["x", "y", "r"] + {"slots": ["away", "slots"], "ffn": [], "exact": ["feature"]}[scales.way]
    n = layout.size("away") if scales.way == "slots" else 0
    of_slots = {"layer": 1 + n + 2 * n * d, "never": 1 + n, "row": 1}[scales.renewal]
    hidden = {"slots": of_slots, "ffn": 1 + 2 * scales.pieces * d, "exact": 1}[scales.way]
    features = n + (2 if scales.pair == "printed" else 1)
    score = features * d + (scales.renewal == "row") if scales.way == "slots" else 1
    extra = layout.size("x") if scales.inner else 0
    config = TransformerConfig(
        inputs=sum(layout.size(name) for name in names),
        outputs=d,
        width=layout.width,
        layers=layers,
        heads=3,
        head_width=max(max(score, 1) + extra, d, n * d),
        hidden=hidden,
    )
    model = zero_(Transformer(config).to(scales.dtype))
    first = 0
    for name in names:
        size = layout.size(name)
        each = torch.eye(size, dtype=scales.dtype) * (-1 if name == "away" else 1)
        for target in (name, "copy") if name == "y" else (name,):
            model.embed.weight[layout.slices[target], first : first + size] = each
        first += size
    if scales.way == "slots":
        model.embed.bias[layout.slices["away"]] = 1.0
    model.readout.weight[:] = layout.read({"y": 1.0}, dtype=scales.dtype)
    return model


def _write_uniform(attention: Attention, layout: Layout, n: int) -> None:
    """Lemma E.4: W_Q = W_K = 0 and n times "slots" to "all"; each token then holds every response."""
    nothing = torch.zeros(1, layout.width)
    value, output = layout.read({"slots": 1.0}), layout.read({"all": float(n)})
    set_head(attention, 0, query=nothing, key=nothing, value=value, output=output)


@torch.no_grad()
def _write_preparation(block: Block, layout: Layout, W: Float[Tensor, "d p"], scales: PaperScales) -> None:
    """Lemma E.2: the constant, by the bias b_2; in way 2 also the feature."""
    if scales.way == "ffn":
        set_units(block.feed_forward, square_units(layout, W, scales.radius, scales.pieces))
    block.feed_forward.W_2.bias[layout.slices["one"]] = 1.0


def square_units(layout: Layout, W: Float[Tensor, "d p"], radius: float, pieces: int) -> list[Unit]:
    r"""Way 2: units that add about $-\|W x - y\|^2$ to the feature (the width is ours; Lemma E.5 gives none).

    In each coordinate the square is interpolated at multiples of h = radius / pieces, from above and by at
    most $h^2/4$, on [-radius, radius]; beyond, the last slope goes on. Equal errors cancel in the softmax,
    so the scores are right up to $d h^2 / 8$ on either side of a common shift.
    """
    h, d = radius / pieces, len(W)
    distance = layout.read({"y": -1.0})
    distance[:, layout.slices["x"]] = W.double()
    write = layout.read({"feature": 1.0}).expand(d, -1)
    units = []
    for k in range(pieces):
        slope = h if k == 0 else 2 * h
        units += [(sign * distance, -k * h, -slope * write) for sign in (1.0, -1.0)]
    return units


def _write_heads(
    attention: Attention, layout: Layout, W: Float[Tensor, "d p"], n: int, scales: PaperScales
) -> None:
    """Lemma E.6: H1 and H3 select, response and reward; H2 averages; all values from the second copy."""
    read = layout.read
    tell = read({"x": scales.inner}), read({"x": 1.0})

    def scores(query: Tensor, key: Tensor) -> dict[str, Tensor]:
        if not scales.inner:
            return {"query": query, "key": key}
        return {"query": torch.cat([query, tell[0]]), "key": torch.cat([key, tell[1]])}

    select = scores(read({"one": scales.gamma}), read({"r": 1.0}))
    average = scores(*_averaging_scores(layout, W.double(), n, scales))
    copy, reward = read({"copy": 1.0}), read({"r": 1.0})
    set_head(attention, 0, **select, value=copy, output=read({"y": -2 * scales.eta}))
    set_head(attention, 1, **average, value=copy, output=read({"y": 2 * scales.eta}))
    set_head(attention, 2, **select, value=reward, output=read({"r": -1.0}))


def _averaging_scores(
    layout: Layout, W: Float[Tensor, "d p"], n: int, scales: PaperScales
) -> tuple[Float[Tensor, "k width"], Float[Tensor, "k width"]]:
    r"""Query and key of the averaging head, with the inner product $-\|W x - y_j\|^2$ for key j.

    Way 1, "printed": query $-(W x - y_1, \ldots, W x - y_n, W x, \sum_i (W x - y_i))$ from x and "all"; key
    with $W x - y_j$ in slot j, $W x$ in the others, then $W x - y_j$ and $-W x$, from x and "slots". The
    rows are those of Lemma E.3 as far as its print can be read; there the product has the sign +, so the
    minus of the query is ours, and so is the last but one row of the key, where the print cannot be read.
    "short" (ours) leaves out what cancels: query $(-y_1, \ldots, -y_n, 2 W x)$, key $y_j$ in slot j and once
    more; the inner product lacks the constant $\|W x\|^2$. Way 2: query 1, key the feature.
    """
    if scales.way != "slots":
        return layout.read({"one": 1.0}), layout.read({"feature": 1.0})
    d = len(W)
    prediction = torch.zeros(d, layout.width, dtype=torch.float64)
    prediction[:, layout.slices["x"]] = W
    total = {name: layout.read({name: 1.0}).unflatten(0, (n, d)).sum(dim=0) for name in ("slots", "all")}
    slots, everyone = layout.read({"slots": 1.0}), layout.read({"all": 1.0})
    each = prediction.repeat(n, 1)
    query = torch.cat([everyone - each, -prediction, total["all"] - n * prediction])
    key = torch.cat([each - slots, prediction - total["slots"], -prediction])
    if scales.pair == "short":
        query, key = torch.cat([-everyone, 2 * prediction]), torch.cat([slots, total["slots"]])
    if scales.renewal == "row":
        query, key = (
            torch.cat([query, layout.read({"one": 1.0})]),
            torch.cat([key, layout.read({"feature": 1.0})]),
        )
    return query, key


def _elimination(layout: Layout, d: int, n: int, scales: PaperScales) -> list[Unit]:
    """Lemma E.7: relu(r_j - r+) times -gamma / epsilon_0 into the reward and every coordinate of the second
    copy.

    Ours: the same push in slot j of the slots (its unit is gated by the position), clearing "all" before it
    is filled again, and in way 2 (and for the renewal "row") a push of the feature, d gamma times as much:
    so much does the squared norm of a copy grow that is pushed by gamma.
    """
    push = -scales.gamma / scales.epsilon_0
    read, write = layout.read({"r": 1.0}), layout.read({"r": push})
    write[:, layout.slices["copy"]] = push
    if "feature" in layout.slices:
        write[:, layout.slices["feature"]] = push * scales.gamma * d
        return [(read, scales.lift, write)]
    gated = read.repeat(n, 1)
    gated[:, layout.slices["away"]] = -scales.spread * torch.eye(n, dtype=gated.dtype)
    to_slots = torch.zeros_like(gated)
    to_slots[:, layout.slices["slots"]] = push * torch.eye(n, dtype=gated.dtype).repeat_interleave(d, dim=1)
    clear = carry(layout, "all") if scales.renewal == "layer" else []
    return [(read, scales.lift, write), (gated, scales.lift, to_slots), *clear]


def with_dummy(prompts: Prompts, W: Float[Tensor, "d p"], below: float) -> Prompts:
    r"""The prompts with one token more: the dummy $(x, W x, r_N)$, its reward `below` the lowest.

    It takes part in the loss, ranked last. Its response moves by $-\Delta W x$ as all others do, so it ends
    at $W x - \Delta W x$: the prediction of the updated model, $W x + \Delta W x$, is read with the opposite
    sign (`at_dummy`).
    """
    guess = (prompts.query @ W.to(prompts.query.dtype).T).unsqueeze(1)
    lowest = prompts.rewards.amin(dim=-1, keepdim=True) - checks.positive("below", below)
    return Prompts(
        prompts.query,
        torch.cat([prompts.responses, guess], dim=1),
        torch.cat([prompts.rewards, lowest], dim=1),
    )


def at_dummy(
    read: Float[Tensor, "batch n d"], prompts: Prompts, W: Float[Tensor, "d p"]
) -> Float[Tensor, "batch d"]:
    """The updated model's prediction: 2 W x minus what the last token reads out (ours, see `with_dummy`)."""
    return 2 * prompts.query @ W.to(prompts.query.dtype).T - read[:, -1]


def paper_counts(model: Transformer, claimed: int) -> dict[str, int]:
    """What a construction takes, beside the number of blocks that the theorem counts: whatever does
    something is counted.

    Raises:
        ValueError: claimed < 1.
    """
    attends = [bool(block.attention.W_O.weight.count_nonzero()) for block in model.blocks]
    feeds = [
        bool(block.feed_forward.W_2.weight.count_nonzero() + block.feed_forward.W_2.bias.count_nonzero())
        for block in model.blocks
    ]
    config = model.config
    return {
        "blocks in the theorem": checks.whole("claimed", claimed, 1),
        "blocks": len(model.blocks),
        "attention layers": sum(attends),
        "FFNs": sum(feeds),
        "heads": config.heads,
        "head width": config.head_width,
        "width": config.width,
        "hidden": config.hidden,
        "parameters": count_parameters(model),
        "parameters not zero": count_parameters(model, nonzero=True),
    }
