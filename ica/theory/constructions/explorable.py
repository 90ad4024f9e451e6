r"""Constructed transformers as numbers that a browser can multiply, for the page "The theorem, to play with".

The constructors make the models; here their weights become JSON: sparse matrices, equal ones stored once. An
entry that depends on the inverse temperature $c$ is a list with the value of each stop in `STOPS`: the
constructor ran once for each stop, and the browser chooses, it does not compute weights. `evaluate` multiplies
the JSON with NumPy alone; the page's JavaScript does the same in the browser.
"""

import json
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.constant_depth import constant_depth, constant_depth_layout
from ica.theory.constructions.layout import Layout
from ica.theory.constructions.paper import PaperScales, paper_construction, paper_layout, paper_tokens
from ica.theory.constructions.paper_errors import average_gap
from ica.theory.constructions.plackett_luce import pl_layout, plackett_luce
from ica.theory.prompts import Prompts
from ica.transformer import Block, Transformer

CONSTRUCTIONS = ("ours", "paper", "constant depth")
SIZES = (2, 3, 4, 5, 6)
STOPS = (1, 2, 3, 5, 10, 20, 30, 50, 75, 100, 150, 175, 200, 300, 1000)
"""Inverse temperatures to choose from, per unit of reward."""
GAP, PAPER_GAP, RADIUS = 0.05, 0.2, 6.0
"""Smallest gap of ours; gap of the even ladder that sets the paper's epsilon_0; radius R."""
W = torch.tensor([[-0.9, 0.3], [0.4, 0.2]], dtype=torch.float64)
QUERY = torch.tensor([0.6, 0.8], dtype=torch.float64)
HEADS = {
    "ours": ("A: selects a response", "B: averages the remaining", "C: selects the reward"),
    "paper": ("1: selects a response", "2: averages the remaining", "3: selects the reward"),
    "constant depth": ("sees rewards up to its own",),
}
TOKENS = {
    "ours": ("x", "y", "s", "r"),
    "paper": ("x", "y", "r", "position", "slots"),
    "constant depth": ("x", "y", "s", "r"),
}
MOVED = {"ours": {"yhat": 1, "acc": 1}, "paper": {"y": -1}, "constant depth": {"yhat": 1}}
"""Places whose change, by these factors, is what the prediction has moved by."""
GONE = {"ours": ("mark", 0.5), "paper": ("copy", 3.0), "constant depth": None}
"""A response is eliminated once this place has changed by more than the number."""


def step_size(N: int) -> float:
    """Learning rate of the page for N responses, 1 / (2 N)."""
    return 0.5 / checks.whole("N", N, 2)


def build(construction: str, N: int, stop: int) -> Transformer:
    """The page's model for N responses at `STOPS[stop]`; ValueError for an unknown construction or a bad N."""
    checks.one_of("construction", construction, CONSTRUCTIONS)
    c, eta = float(STOPS[stop]), step_size(N)
    if construction == "paper":
        scales = PaperScales(eta, gamma=c, epsilon_0=average_gap(c, PAPER_GAP, N))
        return paper_construction(W, N, scales)
    assumptions = Assumptions(eta, gap=GAP, radius=RADIUS, sharpness=c)
    if construction == "ours":
        return plackett_luce(W, N, assumptions)
    return constant_depth(W, N, assumptions)


def layout(construction: str, N: int) -> Layout:
    """Places of its residual stream."""
    if construction == "paper":
        return paper_layout(2, 2, N, "slots")
    if construction == "ours":
        return pl_layout(2, 2)
    K = (build(construction, N, 0).config.width - constant_depth_layout(2, 2, 0).width) // 2
    return constant_depth_layout(2, 2, K)


def tokens(construction: str, prompts: Prompts) -> Float[Tensor, "batch N inputs"]:
    """The tokens of prompts with the page's query, as the construction takes them."""
    return paper_tokens(prompts, W, "slots") if construction == "paper" else prompts.tokens()


def prompt(
    responses: Float[Tensor, "*batch N 2"] | Sequence, rewards: Float[Tensor, "*batch N"] | Sequence
) -> Prompts:
    """Prompts in the plane with the page's query; ValueError as `Prompts`."""
    responses, rewards = (torch.as_tensor(v, dtype=torch.float64) for v in (responses, rewards))
    responses, rewards = responses.reshape(-1, *responses.shape[-2:]), rewards.reshape(-1, rewards.shape[-1])
    return Prompts(QUERY.expand(len(rewards), 2), responses, rewards)


def example(N: int) -> Prompts:
    """The prompt that the page begins with: responses on a circle about the prediction, rewards 0.2 apart."""
    angle = 0.5 + 2 * torch.pi * torch.arange(N, dtype=torch.float64) / N
    size = 1.0 + 0.25 * (torch.arange(N) % 2)
    responses = torch.stack([size * angle.cos(), size * angle.sin()], dim=-1)
    order = torch.tensor([2, 0, 3, 1, 4, 5])[:N].argsort().argsort()
    return prompt(responses.round(decimals=2), order.double() / 5)


@torch.no_grad()
def follow(
    construction: str, given: Float[Tensor, "batch N inputs"], stop: int
) -> tuple[Float[Tensor, "states batch 2"], Bool[Tensor, "states batch N"]]:
    """Where the prediction stands, and which responses are eliminated, before the first block and after each.

    As the page shows it, of tokens that may lie outside of what the model was built for.
    """
    N = given.shape[1]
    places, streams = (
        layout(construction, N),
        build(construction, N, stop).trace(given, unchecked=True).streams,
    )
    change = torch.stack(streams) - streams[0]
    gone = torch.zeros(change.shape[:3], dtype=torch.bool)
    if GONE[construction] is not None:
        name, above = GONE[construction]
        gone = places.get(change, name)[..., 0].abs() > above
    moved = sum(factor * places.get(change, name) for name, factor in MOVED[construction].items())
    return W @ QUERY + moved[:, :, 0], gone


def _matrices(block: Block) -> list[Tensor]:
    """Weights of a block in the order of the JSON; biases as one column."""
    attention, feed = block.attention, block.feed_forward
    maps = [getattr(attention, name).weight for name in ("W_Q", "W_K", "W_V", "W_O")]
    return [*maps, feed.W_1.weight, feed.W_1.bias[:, None], feed.W_2.weight, feed.W_2.bias[:, None]]


def sparse(stops: Sequence[Tensor]) -> dict:
    """A matrix by its entries that are not zero at every stop: {"shape", "at", "values"}, "at" counted row by row."""
    stacked = torch.stack([m.detach().double() for m in stops]).flatten(1)
    at = stacked.any(dim=0).nonzero().flatten().tolist()
    columns = (stacked[:, k].tolist() for k in at)
    values = [column[0] if len(set(column)) == 1 else column for column in columns]
    return {"shape": list(stops[0].shape), "at": at, "values": values}


def _names(construction: str, block: Block) -> list[str]:
    """What each head of a block does; empty for a head that writes nothing."""
    size = block.attention.config.head_width
    writes = [part.any() for part in block.attention.W_O.weight.split(size, dim=1)]
    uniform = not block.attention.W_Q.weight.any()
    names = HEADS[construction]
    return [
        ("uniform: sees all equally" if uniform else name) * bool(w)
        for name, w in zip(names, writes, strict=True)
    ]


def exported(construction: str, N: int) -> dict:
    """The construction for N responses at every stop, as plain lists, numbers and texts.

    Equal matrices stand once under "matrices"; "embed" (weight, bias), "blocks" and "readout" hold their numbers.
    """
    models = [build(construction, N, stop) for stop in range(len(STOPS))]
    found: dict[str, int] = {}
    matrices: list[dict] = []

    def number(stops: Sequence[Tensor]) -> int:
        matrix = sparse(stops)
        key = json.dumps(matrix)
        if key not in found:
            found[key] = len(matrices)
            matrices.append(matrix)
        return found[key]

    blocks = []
    for same in zip(*(m.blocks for m in models), strict=True):
        numbers = [number(stops) for stops in zip(*map(_matrices, same), strict=True)]
        blocks.append({"matrices": numbers, "heads": _names(construction, same[-1])})
    config, places = models[0].config, layout(construction, N).slices
    gone = GONE[construction]
    return {
        "construction": construction,
        "N": N,
        "eta": step_size(N),
        "W": W.tolist(),
        "query": QUERY.tolist(),
        "stops": list(STOPS),
        "example": {"responses": example(N).responses[0].tolist(), "rewards": example(N).rewards[0].tolist()},
        "gap": PAPER_GAP if construction == "paper" else GAP,
        "radius": None if construction == "paper" else RADIUS,
        "low": 0 if construction == "constant depth" else None,
        "tokens": list(TOKENS[construction]),
        "places": {name: [place.start, place.stop] for name, place in places.items()},
        "moved": MOVED[construction],
        "gone": None if gone is None else {"place": gone[0], "above": gone[1]},
        "heads": config.heads,
        "embed": [number([m.embed.weight for m in models]), number([m.embed.bias[:, None] for m in models])],
        "blocks": blocks,
        "readout": number([m.readout.weight for m in models]),
        "matrices": matrices,
    }


def as_json(construction: str, N: int) -> str:
    """`exported` as one line of JSON; numbers read back the same."""
    return json.dumps(exported(construction, N), separators=(",", ":"), allow_nan=False)


def dense(matrix: dict, stop: int) -> Float[np.ndarray, "rows columns"]:
    """The matrix at a stop."""
    values = [v[stop] if isinstance(v, list) else v for v in matrix["values"]]
    full = np.zeros(matrix["shape"][0] * matrix["shape"][1])
    full[matrix["at"]] = values
    return full.reshape(matrix["shape"])


def evaluate(
    model: dict, stop: int, given: Float[np.ndarray, "batch N inputs"]
) -> Float[np.ndarray, "batch N 2"]:
    """What the exported model reads out at each token, with NumPy alone."""
    matrices = [dense(matrix, stop) for matrix in model["matrices"]]
    weight, bias = (matrices[k] for k in model["embed"])
    h = given @ weight.T + bias.T
    for block in model["blocks"]:
        W_Q, W_K, W_V, W_O, W_1, b_1, W_2, b_2 = (matrices[k] for k in block["matrices"])
        q, k, v = (np.split(h @ M.T, model["heads"], axis=-1) for M in (W_Q, W_K, W_V))
        mixed = []
        for head in range(model["heads"]):
            scores = q[head] @ k[head].swapaxes(-1, -2) / np.sqrt(q[head].shape[-1])
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed.append(weights / weights.sum(axis=-1, keepdims=True) @ v[head])
        h = h + np.concatenate(mixed, axis=-1) @ W_O.T
        h = h + np.maximum(h @ W_1.T + b_1.T, 0) @ W_2.T + b_2.T
    return h @ matrices[model["readout"]].T
