r"""Causal attention and the online Plackett-Luce loss (App. F.2 of the paper; weights, thresholds and proofs are ours).

Token i sees the first i triplets and is updated with the gradient of their loss $L_i$ (zero for i = 1).
Every prefix has its own order of elimination, so the token that asks must know which keys are taken, not the
key. Two ways:

* "thresholds": each token carries a limit; keys with a reward above it are masked by threshold features
  (module `thresholds`). A block finds the best reward below the limit, and the network moves the limit
  just below it. No positions, no start token; width grows as spread / gap. When all keys are masked, the
  mask grows with the reward: heads A and B both look at the lowest one, and what they add cancels.
* "positions" (after App. F.2.1): keys carry a position code, and each token a mark per position, written by head A
  itself, which adds the code of the key that it selects. A start token (ours), whose score lies between live and
  masked keys, takes over when a prefix is exhausted, and adds nothing. The network only ends a step; width grows
  as N.

Both take N-1 blocks of two heads for each step.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import predict
from ica.theory.compare import predictions_along, reference_tokens
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, carry, set_head, set_units
from ica.theory.constructions.several_queries import step_units, with_start
from ica.theory.constructions.thresholds import Grid, clear_units, key_units, mask_strength, query_units
from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts
from ica.transformer import Attention, Transformer

MARKS = ("thresholds", "positions")


def prefix(prompts: Prompts, i: int) -> Prompts:
    """The first i responses of each prompt; ValueError for i outside of 2..N."""
    N = prompts.responses.shape[1]
    if checks.whole("i", i, 2) > N:
        raise ValueError(f"i must be at most N = {N}, got {i}")
    return Prompts(prompts.query, prompts.responses[:, :i], prompts.rewards[:, :i])


def online_descent(
    W: Float[Tensor, "batch d p"], prompts: Prompts, eta: float, steps: int
) -> Float[Tensor, "steps_and_start batch N d"]:
    r"""Prediction after each step of gradient descent on the loss $L_i$ of each prefix i = 1..N, by autograd.

    Every prefix has its own trajectory from W. The loss of a prefix of one response is zero: it stays.
    """
    N = prompts.responses.shape[1]
    paths = [gradient_descent(W, prefix(prompts, i), eta, steps) for i in range(2, N + 1)]
    moved = [predict(path, prompts.query.expand(steps + 1, -1, -1)) for path in paths]
    return torch.stack([moved[0][:1].expand_as(moved[0]), *moved], dim=2)


def prefix_distances(
    model: Transformer,
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    steps: int,
    marks: str = "thresholds",
    unchecked: bool = False,
) -> tuple[Float[Tensor, "steps batch N"], Float[Tensor, "steps batch N"]]:
    """Distance of the model's prediction for each prefix from autograd's after 1, ..., `steps` steps, and the
    way that the latter has gone; the quotient is the relative error. The first prefix goes no way at all.

    The model computes in its own type; the reference is autograd on the prompts as given. Every prompt starts
    from the same W. Raises ValueError for a depth that is no multiple of `steps`; as `reference_tokens` says.
    """
    tokens = reference_tokens(model, prompts, W, eta, steps, unchecked)
    tokens = with_start(tokens) if checks.one_of("marks", marks, MARKS) == "positions" else tokens
    path = online_descent(W.expand(len(prompts.query), *W.shape), prompts, eta, steps)
    read = predictions_along(model, tokens, len(model.blocks) // steps, unchecked)[1:].to(path.dtype)
    moved = read[:, :, read.shape[2] - path.shape[2] :]
    return (moved - path[1:]).norm(dim=-1), (path[1:] - path[:1]).norm(dim=-1)


def online_tokens(prompts: Prompts, marks: str = "thresholds") -> Float[Tensor, "batch n inputs"]:
    """Tokens for `online`: those of the prompts, behind a start token if marks is "positions"."""
    checks.one_of("marks", marks, MARKS)
    return with_start(prompts.tokens()) if marks == "positions" else prompts.tokens()


def online_grid(assumptions: Assumptions) -> Grid:
    """Grid for rewards in [0, spread] and limits down to one gap below, which tells 7/8 of the gap apart."""
    return Grid(-assumptions.gap, assumptions.spread, 7 / 8 * assumptions.gap).check(assumptions.dtype)


def online_layout(d: int, p: int, N: int, assumptions: Assumptions, marks: str = "thresholds") -> Layout:
    """Places of the stream: x, y, s, r, yhat, acc, one, and those of the bookkeeping chosen by `marks`."""
    common = {"x": p, "y": d, "s": 1, "r": 1, "yhat": d, "acc": d, "one": 1}
    if checks.one_of("marks", marks, MARKS) == "positions":
        return Layout(**common, start=1, position=N, marks=N)
    size = online_grid(assumptions).size
    return Layout(**common, top=1, key=size, limit=size)


def online(
    W: Float[Tensor, "d p"],
    N: int,
    assumptions: Assumptions,
    steps: int = 1,
    marks: str = "thresholds",
    mean: bool = False,
) -> Transformer:
    r"""Causal transformer of steps * (N-1) blocks: token i takes gradient steps on the loss of prefix i.

    Tokens by `online_tokens`; the prediction of prefix i is read at its last token. Assumed besides:
    rewards in [0, spread]; predictions at most `radius` from the origin.

    Args:
        N: number of responses of the longest prefix.
        marks: how a token knows which keys it has taken, "thresholds" or "positions".
        mean: take the gradient of the mean $\frac1i \sum_{n \le i} L_n$ instead, by one more block of uniform
            attention; one step only, as a second would need all prefixes' gradients at each token's
            prediction.

    Raises:
        ValueError: W not a finite matrix, N < 2, steps < 1, unknown marks, mean with more than one step, a
            gap too small for the dtype.
    """
    W = start(W, assumptions)
    d, p = W.shape
    terms, steps = checks.whole("N", N, 2) - 1, checks.whole("steps", steps, 1)
    if mean and steps != 1:
        raise ValueError(f"steps must be 1 if mean is True, got {steps}")
    layout = online_layout(d, p, N, assumptions, marks)
    by_position = marks == "positions"
    n = N + by_position
    spare = layout.size("marks" if by_position else "key")
    sizes = {"heads": 2, "head_width": d + 1 + spare, "hidden": 2 * d + 2 + 2 * spare}
    layers = steps * terms + bool(mean)
    model = blank(layout, W, assumptions, layers=layers, mask="causal", positions=n * by_position, **sizes)
    if by_position:
        _write_positions(model, layout, N)
    write = _write_position_block if by_position else _write_threshold_block
    for i, block in enumerate(model.blocks[: steps * terms]):
        write(block, layout, n, assumptions, first=i == 0, last=i % terms == terms - 1 and not mean)
    if mean:
        _write_mean(model.blocks[-1].attention, layout, n, assumptions, by_position)
    kept = {"spread": assumptions.spread, "low": 0.0, "start_token": by_position, "centred": by_position}
    return promise(model, W, assumptions, steps, N, layout="prefixes", **kept)


def _write_heads(
    attention: Attention,
    layout: Layout,
    best: dict,
    beta: dict,
    mask: tuple[Tensor, Tensor],
    found: tuple[str, str],
) -> None:
    """Heads A and B, scores `best` and `beta` (key's places of the key) less the mask; A reports `found`."""
    read, (query, key) = layout.read, mask
    source, target = found
    set_head(
        attention,
        0,
        query=torch.cat([read({"one": 1.0}), query]),
        key=torch.cat([read(best["score"]), -best["mask"] * key]),
        value=read({"y": 1.0}, {source: 1.0}),
        output=read({"acc": 1.0}, {target: 1.0}),
    )
    set_head(
        attention,
        1,
        query=torch.cat([read({"yhat": 2.0}, {"one": 1.0}), query]),
        key=torch.cat([read({"y": 1.0}, beta["score"]), -beta["mask"] * key]),
        value=read({"y": 1.0}),
        output=read({"acc": -1.0}),
    )


def _write_threshold_block(
    block, layout: Layout, n: int, assumptions: Assumptions, first: bool, last: bool
) -> None:
    """Mask by limits; the network writes the key features once, the limit's features anew in each block."""
    c, margin, grid = assumptions.c(n), assumptions.margin(n), online_grid(assumptions)
    best = {"score": {"r": c}, "mask": mask_strength(c * assumptions.spread, margin)}
    beta = {"score": {"s": -1.0}, "mask": mask_strength(assumptions.radius**2, margin)}
    mask = layout.read({"limit": 1.0}), layout.read({"key": 1.0})
    _write_heads(block.attention, layout, best, beta, mask, ("r", "top"))
    units = key_units(layout, {"r": 1.0}, "key", grid) if first else clear_units(layout, "limit")
    if last:
        units = units + step_units(layout, assumptions.eta)
    else:
        units = units + query_units(layout, {"top": 1.0}, "limit", grid, offset=-15 / 16 * assumptions.gap)
    set_units(block.feed_forward, units + carry(layout, "top"))


def _write_position_block(
    block, layout: Layout, n: int, assumptions: Assumptions, first: bool, last: bool
) -> None:
    """Mask by marks; the start token's score lies a margin below live keys and a margin above masked ones."""
    c, margin, reach = assumptions.c(n), assumptions.margin(n), assumptions.radius**2
    best = {
        "score": {"r": c, "start": -margin},
        "mask": mask_strength(c * assumptions.spread + margin, margin),
    }
    beta = {"score": {"s": -1.0, "start": -reach - margin}, "mask": mask_strength(2 * reach + margin, margin)}
    mask = layout.read({"marks": 1.0}), layout.read({"position": 1.0})
    _write_heads(block.attention, layout, best, beta, mask, ("position", "marks"))
    if last:
        set_units(block.feed_forward, step_units(layout, assumptions.eta) + clear_units(layout, "marks"))


@torch.no_grad()
def _write_positions(model: Transformer, layout: Layout, N: int) -> None:
    """Learned positions: the start flag, then one code per position."""
    table = model.positions.weight
    table[0, layout.slices["start"]] = 1.0
    table[1:, layout.slices["position"]] = torch.eye(N, dtype=table.dtype)


def _write_mean(
    attention: Attention, layout: Layout, n: int, assumptions: Assumptions, by_position: bool
) -> None:
    """One head of uniform attention over the triplets seen: adds the mean of acc to the prediction."""
    flag = {"start": -assumptions.margin(n)} if by_position else {"one": 0.0}
    key, query = layout.read(flag), layout.read({"one": 1.0})
    set_head(
        attention,
        0,
        query=query,
        key=key,
        value=layout.read({"acc": 1.0}),
        output=layout.read({"yhat": 2 * assumptions.eta}),
    )
