r"""One ordinary transformer, for trained and for constructed weights alike.

A block adds attention to the residual stream $h$, then a feed-forward network:

$$h \leftarrow h + \sum_{heads} A(h)\, h W_V^\top W_O^\top, \qquad h \leftarrow h + W_2\, \phi(W_1 h + b_1) + b_2$$

with $A = \mathrm{softmax}(h W_Q^\top W_K h^\top / \sqrt{d_{head}})$, or, with linear attention, the same scores divided by the
number of visible tokens instead of the softmax. `W_Q`, `W_K`, `W_V` map the stream to all heads (heads side by side),
`W_O` maps back. Layer norms come before each part (pre-norm), at the end of the block (post-norm), both, or not at all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ica import checks

MASKS = ("full", "causal", "test-token")


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and kinds of a transformer; every field is validated.

    Args:
        inputs: features of a raw token.
        outputs: features read out at each token.
        width: features of the residual stream.
        layers: number of blocks.
        heads: attention heads per block.
        head_width: features per head; 0 means `width // heads`.
        hidden: hidden units of the feed-forward network; 0 means none.
        attention: "softmax" or "linear".
        activation: "relu" or "gelu".
        mask: "full" (every token sees all), "causal" (itself and earlier ones) or "test-token" (tokens at odd places see
            the odd places up to their own; tokens at even places, from 0, are test tokens: they see the odd places before
            them and themselves, and nobody sees them).
        pre_norm: layer norm before attention, feed-forward and readout.
        post_norm: one more layer norm at the end of each block, over the whole stream.
        positions: number of learned positions; 0 means none. With the mask "test-token" the tokens at 2 i and 2 i + 1
            both have position i, as each would in a pass of its own.

    Raises:
        ValueError: a field out of its range, named.
    """

    inputs: int
    outputs: int
    width: int
    layers: int
    heads: int = 1
    head_width: int = 0
    hidden: int = 0
    attention: str = "softmax"
    activation: str = "relu"
    mask: str = "full"
    pre_norm: bool = False
    positions: int = 0
    post_norm: bool = False

    def __post_init__(self):
        for name, least in (("inputs", 1), ("outputs", 1), ("width", 1), ("layers", 0), ("heads", 1)):
            checks.whole(name, getattr(self, name), least)
        for name in ("head_width", "hidden", "positions"):
            checks.whole(name, getattr(self, name), 0)
        checks.one_of("attention", self.attention, ("softmax", "linear"))
        checks.one_of("activation", self.activation, ("relu", "gelu"))
        checks.one_of("mask", self.mask, MASKS)
        if not self.head_width:
            if self.width % self.heads:
                raise ValueError(
                    f"width must be a multiple of heads when head_width is 0: {self.width}, {self.heads}"
                )
            object.__setattr__(self, "head_width", self.width // self.heads)


class Attention(nn.Module):
    """Multi-head self-attention without biases, scores scaled by 1/sqrt(head_width)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        inner = config.heads * config.head_width
        self.config = config
        self.W_Q = nn.Linear(config.width, inner, bias=False)
        self.W_K = nn.Linear(config.width, inner, bias=False)
        self.W_V = nn.Linear(config.width, inner, bias=False)
        self.W_O = nn.Linear(inner, config.width, bias=False)

    def _split(self, z: Float[Tensor, "batch n inner"]) -> Float[Tensor, "batch heads n head_width"]:
        return z.unflatten(-1, (self.config.heads, self.config.head_width)).transpose(-3, -2)

    def _visible(self, n: int, device) -> Bool[Tensor, "n n"]:
        everything = torch.ones(n, n, dtype=torch.bool, device=device)
        if self.config.mask == "full":
            return everything
        if self.config.mask == "causal":
            return everything.tril()
        odd = torch.arange(n, device=device) % 2 == 1
        return everything.tril() & odd | torch.eye(n, dtype=torch.bool, device=device)

    def weights(self, h: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch heads n n"]:
        """Attention of each token (second last axis) to each token (last axis)."""
        scores = self._split(self.W_Q(h)) @ self._split(self.W_K(h)).transpose(-2, -1)
        scores = scores / self.config.head_width**0.5
        visible = self._visible(h.shape[-2], h.device)
        if self.config.attention == "softmax":
            return scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        return scores.masked_fill(~visible, 0) / visible.sum(dim=-1, keepdim=True)

    def forward(self, h: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        mixed = self.weights(h) @ self._split(self.W_V(h))
        return self.W_O(mixed.transpose(-3, -2).flatten(-2))


class FeedForward(nn.Module):
    """Two linear maps with an activation between, applied to each token alone."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.W_1 = nn.Linear(config.width, config.hidden)
        self.W_2 = nn.Linear(config.hidden, config.width)
        self.activation = nn.ReLU() if config.activation == "relu" else nn.GELU()

    def forward(self, h: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        return self.W_2(self.activation(self.W_1(h)))


class Block(nn.Module):
    """Attention, then the feed-forward network, each added to the residual stream."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        norm = (lambda: nn.LayerNorm(config.width)) if config.pre_norm else nn.Identity
        self.norm_1, self.attention = norm(), Attention(config)
        self.norm_2 = norm() if config.hidden else nn.Identity()
        self.feed_forward = FeedForward(config) if config.hidden else None
        self.norm_3 = nn.LayerNorm(config.width) if config.post_norm else nn.Identity()

    def forward(self, h: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        h = h + self.attention(self.norm_1(h))
        if self.feed_forward is not None:
            h = h + self.feed_forward(self.norm_2(h))
        return self.norm_3(h)


@dataclass(frozen=True)
class Trace:
    """What a forward pass leaves to look at: the stream before and after each block, and each block's attention."""

    streams: list[Float[Tensor, "batch n width"]]
    attention: list[Float[Tensor, "batch heads n n"]]


class Transformer(nn.Module):
    """Embedding, blocks, readout at every token.

    `built_for` is what a constructed model was built for: an object whose `check(tokens)` raises ValueError for
    tokens outside of it. Every pass calls it, unless `unchecked=True` asks for the result all the same.

    Raises:
        ValueError: tokens of another width or type than the model's, more than the learned positions, or not
            finite (not checked inside `torch.func.vmap`, which hides values); or as `built_for` says.
    """

    built_for = None

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.inputs, config.width)
        self.positions = nn.Embedding(config.positions, config.width) if config.positions else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()
        self.readout = nn.Linear(config.width, config.outputs, bias=False)

    def stream(
        self, tokens: Float[Tensor, "batch n inputs"], unchecked: bool = False
    ) -> Float[Tensor, "batch n width"]:
        """The residual stream before the first block; `unchecked`: whatever the model was built for."""
        checks.shape("tokens", tokens, (None, None, self.config.inputs))
        checks.one_of("tokens.dtype", tokens.dtype, (self.embed.weight.dtype,))
        if checks.readable(tokens):
            checks.finite("tokens", tokens)
        if self.built_for is not None and not unchecked:
            self.built_for.check(tokens)
        h = self.embed(tokens)
        if self.positions is None:
            return h
        each = 2 if self.config.mask == "test-token" else 1  # tokens at a position
        if tokens.shape[1] > each * self.config.positions:
            raise ValueError(
                f"tokens: at most {each * self.config.positions} have a learned position, got {tokens.shape[1]}"
            )
        return h + self.positions.weight.repeat_interleave(each, 0)[: tokens.shape[1]]

    def forward(
        self, tokens: Float[Tensor, "batch n inputs"], unchecked: bool = False
    ) -> Float[Tensor, "batch n outputs"]:
        h = self.stream(tokens, unchecked)
        for block in self.blocks:
            h = block(h)
        return self.readout(self.norm(h))

    def trace(self, tokens: Float[Tensor, "batch n inputs"], unchecked: bool = False) -> Trace:
        """The same pass, keeping what happens on the way."""
        streams, attention = [self.stream(tokens, unchecked)], []
        for block in self.blocks:
            attention.append(block.attention.weights(block.norm_1(streams[-1])))
            streams.append(block(streams[-1]))
        return Trace(streams, attention)


def count_parameters(model: nn.Module, nonzero: bool = False) -> int:
    """Number of weights of a model; with `nonzero`, only those that are not zero."""
    return sum(int(p.count_nonzero()) if nonzero else p.numel() for p in model.parameters())


@torch.no_grad()
def initial(config: TransformerConfig, seed: int, dtype: torch.dtype = torch.float32) -> Transformer:
    """A transformer with Gaussian weights of variance 1 / fan-in, biases zero, norms as they are made.

    What is written back to the residual stream (W_O, W_2) is smaller by the root of the number of such writes.
    """
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config).to(dtype)
    writes = config.layers * (2 if config.hidden else 1)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            fan_in = weight.shape[1] * (writes if "W_O" in name or "W_2" in name else 1)
            weight.copy_(drawn / fan_in**0.5)
        elif "norm" not in name:
            weight.zero_()
    return model
