"""Forward passes that compute a shared beginning once: keys and values of prefixes, kept in pieces and joined for a batch.

Sequences that begin alike form a tree. `computed` finds where they part, computes each piece of the tree once, level by level in
padded batches, and gives every sequence its keys and values. In a batch, what is already computed is padded on the left and
what is new on the right, so that the real tokens of a row are neighbours; positions count real tokens only. The result
depends on the sequences, the anchors and the limits alone, not on earlier calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from ica.llm.models import LanguageModel

Tokens = tuple[int, ...]
SLOTS = 4096
LEAST = 8


@dataclass(frozen=True)
class Prefix:
    """Tokens with their keys and values.

    `pieces` follow each other along the tokens; each holds, per layer, a pair of tensors (heads, n, head_width). Prefixes that
    begin alike share their first pieces.
    """

    tokens: Tokens = ()
    pieces: tuple[tuple[tuple[Tensor, Tensor], ...], ...] = ()

    def cut(self, n: int) -> Prefix:
        """The first `n` tokens, as views."""
        pieces, left = [], n
        for piece in self.pieces:
            if left <= 0:
                break
            pieces.append(tuple((k[:, :left], v[:, :left]) for k, v in piece))
            left -= piece[0][0].shape[1]
        return Prefix(self.tokens[:n], tuple(pieces))


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two sequences share from the beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batches(shapes: Sequence[tuple[int, int]], slots: int, new: int | None = None) -> Iterator[list[int]]:
    """Indices of rows (tokens known, tokens new) in batches, those of like length together, the longest first.

    New places cost computation also where they are padding, so rows go by them first. A batch has at most `slots` places (rows times longest known plus longest new) and, if `new` is given, at most that
    many new places; a row that exceeds them is a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(shapes)), key=lambda i: (-shapes[i][1], -shapes[i][0], i)):
        known, fresh = (max(shapes[j][part] for j in (*batch, i)) for part in (0, 1))
        rows = len(batch) + 1
        if batch and (rows * (known + fresh) > slots or (new is not None and rows * fresh > new)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def joined(prefixes: Sequence[Prefix]) -> DynamicCache:
    """A cache with one row for each prefix, padded on the left with zeros to the longest."""
    cache, longest = DynamicCache(), max(len(prefix.tokens) for prefix in prefixes)
    if not longest:
        return cache
    model = next(prefix for prefix in prefixes if prefix.tokens).pieces[0]
    for layer in range(len(model)):
        pair = []
        for part in (0, 1):
            like = model[layer][part]
            rows = like.new_zeros(len(prefixes), like.shape[0], longest, like.shape[2])
            for row, prefix in zip(rows, prefixes, strict=True):
                at = longest - len(prefix.tokens)
                for piece in prefix.pieces:
                    tensor = piece[layer][part]
                    row[:, at : at + tensor.shape[1]] = tensor
                    at += tensor.shape[1]
            pair.append(rows)
        cache.update(*pair, layer)
    return cache


@torch.inference_mode()
def forward(
    model: LanguageModel, prefixes: Sequence[Prefix], new: Sequence[Sequence[int]], keep: int
) -> tuple[Float[Tensor, "rows kept vocabulary"], DynamicCache]:
    """Logits at the last `keep` of the new places (0: all), and the keys and values of all places.

    Row i reads `new[i]` after `prefixes[i]`; known places are padded on the left, new ones on the right.
    """
    known, fresh = max(len(p.tokens) for p in prefixes), max(map(len, new))
    ids = torch.zeros(len(new), fresh, dtype=torch.long)
    mask = torch.zeros(len(new), known + fresh, dtype=torch.long)
    positions = torch.zeros(len(new), fresh, dtype=torch.long)
    for row, (prefix, tokens) in enumerate(zip(prefixes, new, strict=True)):
        begin = len(prefix.tokens)
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, known - begin : known + len(tokens)] = 1
        positions[row] = (begin + torch.arange(fresh)).clamp(max=begin + len(tokens) - 1)
    out = model.network(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=joined(prefixes),
        use_cache=True,
        logits_to_keep=keep,
    )
    return out.logits, out.past_key_values


def extended(model: LanguageModel, prefixes: Sequence[Prefix], wholes: Sequence[Tokens]) -> list[Prefix]:
    """Each of `wholes` with its keys and values, of which the prefix in the same place is known; one pass."""
    new = [whole[len(prefix.tokens) :] for prefix, whole in zip(prefixes, wholes, strict=True)]
    known = max(len(prefix.tokens) for prefix in prefixes)
    _, cache = forward(model, prefixes, new, keep=1)
    pieces = [
        tuple(
            (k[row, :, known : known + len(tokens)].clone(), v[row, :, known : known + len(tokens)].clone())
            for k, v in ((layer.keys, layer.values) for layer in cache.layers)
        )
        for row, tokens in enumerate(new)
    ]
    return [
        Prefix(whole, (*prefix.pieces, piece))
        for prefix, whole, piece in zip(prefixes, wholes, pieces, strict=True)
    ]


def _start(whole: Tokens, known: Sequence[Prefix]) -> Prefix:
    """The longest beginning of `whole` that a known prefix covers."""
    best, most = Prefix(), 0
    for prefix in known:
        if len(prefix.tokens) > most and (n := common(prefix.tokens, whole)) > most:
            best, most = prefix, n
    return best.cut(most)


def _tree(stems: Sequence[Tokens], known: Sequence[Prefix], least: int) -> list[tuple[Tokens, Tokens]]:
    """Pairs (node, node above it, or nothing) in an order in which the one above comes first.

    Nodes are the stems, and the places where two of them part if that saves at least `least` tokens beyond the node above.
    """
    ordered = sorted(set(stems))
    forks = {a[: common(a, b)] for a, b in pairwise(ordered)} - set(ordered)
    pairs: list[tuple[Tokens, Tokens]] = []
    for node in sorted({*ordered, *forks}, key=lambda node: (len(node), node)):
        above = max((other for other, _ in pairs if node[: len(other)] == other), key=len, default=())
        covered = max(len(above), *(common(prefix.tokens, node) for prefix in known), 0)
        if node in forks and len(node) - covered < least:
            continue
        pairs.append((node, above))
    return pairs


def computed(
    model: LanguageModel,
    stems: Sequence[Tokens],
    known: Sequence[Prefix] = (),
    slots: int = SLOTS,
    least: int = LEAST,
) -> dict[Tokens, Prefix]:
    """Keys and values of every stem (a sequence of tokens), what they share computed once.

    Args:
        model: the language model.
        stems: sequences of tokens; an empty one gives an empty prefix.
        known: prefixes computed before, which may be used as far as they agree.
        slots: places of a batch (rows times padded length).
        least: a piece shared by several stems is computed apart if it is at least this long.
    """
    done: dict[Tokens, Prefix] = {(): Prefix()}
    waiting = [pair for pair in _tree(stems, known, least) if pair[0]]
    while waiting:
        ready = [pair for pair in waiting if pair[1] in done]
        waiting = [pair for pair in waiting if pair[1] not in done]
        starts = [_start(node, [done[above], *known]) for node, above in ready]
        for (node, _), start in zip(ready, starts, strict=True):
            if len(start.tokens) == len(node):
                done[node] = start
        rest = [i for i, (node, _) in enumerate(ready) if node not in done]
        shapes = [(len(starts[i].tokens), len(ready[i][0]) - len(starts[i].tokens)) for i in rest]
        for batch in batches(shapes, slots):
            rows = [rest[j] for j in batch]
            nodes = [ready[i][0] for i in rows]
            done |= dict(zip(nodes, extended(model, [starts[i] for i in rows], nodes), strict=True))
    return {stem: done[stem] for stem in stems}


def portions(stems: Sequence[Tokens], room: int) -> Iterator[list[Tokens]]:
    """The distinct stems, those that begin alike together, in portions of at most `room` different tokens."""
    portion: list[Tokens] = []
    held = 0
    for stem in sorted(set(stems)):
        more = len(stem) - (common(portion[-1], stem) if portion else 0)
        if portion and held + more > room:
            yield portion
            portion, held, more = [], 0, len(stem)
        portion.append(stem)
        held += more
    if portion:
        yield portion
