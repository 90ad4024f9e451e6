"""Forward passes over a tree of tokens: what sequences share is computed once, and nothing is padded.

Sequences that begin alike are paths of one tree, whose nodes are tokens. Nodes that are not known yet are read in passes, as one
row each: a node's position is its depth, and a mask lets it attend to its ancestors and itself alone. So a pass costs what its
nodes cost, however many sequences they belong to. The result depends on the sequences, the known prefixes and the limits alone,
not on earlier calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import DynamicCache

from ica.llm.model.load import LanguageModel

Tokens = tuple[int, ...]
WIDTH = 256
ROOM = 8192


@dataclass(frozen=True)
class Prefix:
    """Tokens with their keys and values: per layer a pair of tensors (heads, tokens, head_width)."""

    tokens: Tokens = ()
    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def cut(self, n: int) -> Prefix:
        """The first `n` tokens, as views."""
        return Prefix(self.tokens[:n], tuple((k[:, :n], v[:, :n]) for k, v in self.layers))


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two sequences share from the beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def portions(sequences: Sequence[Tokens], room: int) -> Iterator[list[Tokens]]:
    """The distinct sequences, those that begin alike together, in portions of at most `room` different tokens."""
    portion: list[Tokens] = []
    held = 0
    for sequence in sorted(set(sequences)):
        more = len(sequence) - (common(portion[-1], sequence) if portion else 0)
        if portion and held + more > room:
            yield portion
            portion, held, more = [], 0, len(sequence)
        portion.append(sequence)
        held += more
    if portion:
        yield portion


class Tree:
    """A tree that grows by sequences and is then read.

    Args:
        model: the language model; its attention must take a mask of its own (see `scoring.probe`).
        known: prefixes that need not be read again.
        width: nodes that one pass reads at most.
    """

    def __init__(self, model: LanguageModel, known: Sequence[Prefix] = (), width: int = WIDTH):
        self.model, self.width = model, width
        self._nodes: dict[tuple[int, int], int] = {}  # (parent or -1, token): node
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._depths: list[int] = []
        columns = []
        for prefix in known:
            before = len(self._tokens)
            fresh = sum(node >= before for node in self.grow(prefix.tokens))  # always the last ones
            if fresh:
                columns.append([(k[:, -fresh:], v[:, -fresh:]) for k, v in prefix.layers])
        self._layers = [
            tuple(torch.cat(part, dim=1) for part in zip(*layer, strict=True))
            for layer in zip(*columns, strict=True)
        ]
        self._read = len(self._tokens)

    def grow(self, sequence: Tokens) -> list[int]:
        """The nodes of a sequence, those that are new added to the tree."""
        path, node = [], -1
        for depth, token in enumerate(sequence):
            parent, node = node, self._nodes.setdefault((node, token), len(self._tokens))
            if node == len(self._tokens):
                self._tokens.append(token)
                self._parents.append(parent)
                self._depths.append(depth)
            path.append(node)
        return path

    @torch.inference_mode()
    def read(self, wanted: Sequence[tuple[int, int]] = ()) -> list[float]:
        """Read all new nodes; log-probability (float32, nats) of each wanted (node, token that follows it).

        Raises:
            ValueError: a wanted node was read before, so its logits are gone.
        """
        if old := [node for node, _ in wanted if node < self._read]:
            raise ValueError(f"wanted nodes must be new, got {old[0]} of {self._read} that are read")
        sees, found, read = self._sight(), {}, self._read
        for begin in range(self._read, len(self._tokens), self.width):
            end = min(begin + self.width, len(self._tokens))
            pairs = sorted({pair for pair in wanted if begin <= pair[0] < end})
            found |= dict(
                zip(pairs, self._pass(begin, end, sees[begin - read : end - read], pairs), strict=True)
            )
        self._read = len(self._tokens)
        return [found[pair] for pair in wanted]

    def prefix(self, path: Sequence[int]) -> Prefix:
        """The sequence of a path of read nodes, as a prefix to be kept."""
        at = torch.tensor(path, dtype=torch.long, device=self.model.device)
        layers = tuple((k[:, at], v[:, at]) for k, v in self._layers)
        return Prefix(tuple(self._tokens[node] for node in path), layers)

    def _sight(self) -> Bool[Tensor, "new nodes"]:
        """Which nodes are ancestors of each new node, or the node itself."""
        read = self._read
        sees = torch.zeros(len(self._tokens) - read, len(self._tokens), dtype=torch.bool)
        for row, parent in enumerate(self._parents[read:]):
            if parent >= read:
                sees[row] = sees[parent - read]
            while 0 <= parent < read:
                sees[row, parent] = True
                parent = self._parents[parent]
            sees[row, read + row] = True
        return sees

    def _pass(
        self, begin: int, end: int, sees: Bool[Tensor, "new nodes"], pairs: Sequence[tuple[int, int]]
    ) -> list[float]:
        """Read the nodes from `begin` to before `end`, of which `sees` has a row each; see `read`."""
        device = self.model.device
        used = sees[:, :begin].any(0).nonzero()[:, 0]
        columns = torch.cat([used, torch.arange(begin, end)])
        cache = DynamicCache()
        if len(used):
            for layer, (k, v) in enumerate(self._layers):
                at = used.to(device)
                cache.update(k[None, :, at], v[None, :, at], layer)
        depths = torch.tensor(self._depths)
        distance = depths[begin:end, None] - depths[columns]
        rows = sorted({node for node, _ in pairs}) or [end - 1]
        out = self.model.network(
            input_ids=torch.tensor([self._tokens[begin:end]], device=device),
            attention_mask=masks(self.model, sees[:, columns], distance),
            position_ids=depths[None, begin:end].to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(rows, device=device) - begin,
        )
        new = [
            (one.keys[0, :, len(used) :], one.values[0, :, len(used) :]) for one in out.past_key_values.layers
        ]
        if begin:
            new = [
                tuple(map(torch.cat, zip(old, fresh, strict=True), (1, 1)))
                for old, fresh in zip(self._layers, new, strict=True)
            ]
        self._layers = new
        return picked(out.logits[0], [(rows.index(node), token) for node, token in pairs])


def masks(
    model: LanguageModel, sees: Bool[Tensor, "new columns"], distance: Tensor
) -> Tensor | dict[str, Tensor]:
    """What is added to the attention's scores, in the way the model takes it: 0 where a node is seen, else the lowest number of its type.

    Layers with a sliding window see nodes at a distance below the window only.
    """
    config = model.network.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())

    def added(seen: Tensor) -> Tensor:
        zeros = torch.zeros(seen.shape, dtype=model.network.dtype)
        return zeros.masked_fill(~seen, torch.finfo(zeros.dtype).min)[None, None].to(model.device)

    near = sees & (distance < window) if window else sees
    if "sliding_attention" in kinds:
        return {"full_attention": added(sees), "sliding_attention": added(near)}
    return added(sees if kinds else near)


def picked(logits: Tensor, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Log-softmax (float32) at each (row, token) of logits (rows, vocabulary)."""
    if not pairs:
        return []
    row, token = torch.tensor(pairs, device=logits.device).T
    logits = logits.float()
    return (logits[row, token] - logits.logsumexp(-1)[row]).tolist()


def computed(
    model: LanguageModel,
    sequences: Sequence[Tokens],
    known: Sequence[Prefix] = (),
    width: int = WIDTH,
    room: int = ROOM,
) -> dict[Tokens, Prefix]:
    """Keys and values of every sequence (an empty one gives an empty prefix).

    Args:
        known, width: as for `Tree`; of known prefixes only what the sequences share with them is held.
        room: different tokens that are read at once (or one sequence).
    """
    found: dict[Tokens, Prefix] = {}
    for portion in portions(sequences, room):
        shared = [max(common(prefix.tokens, one) for one in portion) for prefix in known]
        tree = Tree(model, [prefix.cut(n) for prefix, n in zip(known, shared, strict=True)], width)
        paths = {sequence: tree.grow(sequence) for sequence in portion}
        tree.read()
        found |= {sequence: tree.prefix(path) if path else Prefix() for sequence, path in paths.items()}
    return found
