"""Named places in the residual stream, and the writing of heads and hidden units by those names."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ica.transformer import Attention, FeedForward, Transformer

Group = dict[str, float]
"""Places of one size, each with a factor: {"r": 5.0, "mark": -9.0} stands for 5 r - 9 mark."""


class Layout:
    """Where each named quantity lives in the residual stream.

    Args:
        sizes: number of features of each name, in order.
    """

    def __init__(self, **sizes: int):
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        self.slices = {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}
        self.width = ends[-1]

    def size(self, name: str) -> int:
        """Number of features of `name`; ValueError if the layout has no such place."""
        if name not in self.slices:
            raise ValueError(f"place must be one of {', '.join(self.slices)}; got {name!r}")
        return self.slices[name].stop - self.slices[name].start

    def labels(self) -> list[str]:
        """One label per feature of the stream, for figures: "y1", "y2", "r", ..."""
        sizes = {name: self.size(name) for name in self.slices}
        return [name if k == 1 else f"{name}{i + 1}" for name, k in sizes.items() for i in range(k)]

    def get(self, stream: Float[Tensor, "*batch width"], name: str) -> Float[Tensor, "*batch size"]:
        """The features of `name` in a stream."""
        self.size(name)
        return stream[..., self.slices[name]]

    def read(self, *groups: Group, dtype: torch.dtype = torch.float64) -> Float[Tensor, "rows width"]:
        """Matrix that reads sums of places out of the stream, the groups one below the other.

        Raises:
            ValueError: a group whose places differ in size, or an unknown place.
        """
        rows = []
        for group in groups:
            sizes = {self.size(name) for name in group}
            if len(sizes) != 1:
                raise ValueError(
                    f"group must name places of one size, got {group} with sizes {sorted(sizes)}"
                )
            matrix = torch.zeros(sizes.pop(), self.width, dtype=dtype)
            for name, factor in group.items():
                matrix[:, self.slices[name]] = factor * torch.eye(matrix.shape[0], dtype=dtype)
            rows.append(matrix)
        return torch.cat(rows)


def zero_(model: Transformer) -> Transformer:
    """Set every weight to zero, so that what is not written does nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@torch.no_grad()
def set_head(
    attention: Attention,
    head: int,
    *,
    query: Float[Tensor, "k width"],
    key: Float[Tensor, "k width"],
    value: Float[Tensor, "v width"],
    output: Float[Tensor, "v width"],
) -> None:
    """Write one head: its score of tokens (i, j) becomes (query h_i) . (key h_j), its result output^T value h_j.

    The factor 1/sqrt(head_width) of the attention is undone in W_Q.
    """
    size = attention.config.head_width
    if max(len(query), len(value)) > size:
        raise ValueError(
            f"head_width must be at least {max(len(query), len(value))} for this head, got {size}"
        )
    start = head * size
    attention.W_Q.weight[start : start + len(query)] = (query * size**0.5).to(attention.W_Q.weight.dtype)
    attention.W_K.weight[start : start + len(key)] = key.to(attention.W_K.weight.dtype)
    attention.W_V.weight[start : start + len(value)] = value.to(attention.W_V.weight.dtype)
    attention.W_O.weight[:, start : start + len(output)] = output.T.to(attention.W_O.weight.dtype)


Unit = tuple[Float[Tensor, "_k width"], float, Float[Tensor, "_k width"]]


@torch.no_grad()
def set_units(feed_forward: FeedForward, units: Sequence[Unit]) -> None:
    """Write hidden units (read, bias, write): each adds write^T relu(read h + bias) to the stream.

    Raises:
        ValueError: more units than the network has.
    """
    read = torch.cat([unit[0] for unit in units])
    hidden = feed_forward.W_1.out_features
    if len(read) > hidden:
        raise ValueError(f"hidden must be at least {len(read)} for these units, got {hidden}")
    bias = torch.cat([torch.full((len(unit[0]),), unit[1], dtype=torch.float64) for unit in units])
    write = torch.cat([unit[2] for unit in units])
    feed_forward.W_1.weight[: len(read)] = read.to(feed_forward.W_1.weight.dtype)
    feed_forward.W_1.bias[: len(read)] = bias.to(feed_forward.W_1.bias.dtype)
    feed_forward.W_2.weight[:, : len(read)] = write.T.to(feed_forward.W_2.weight.dtype)


def carry(layout: Layout, source: str, target: str | None = None) -> list[Unit]:
    """Units that clear the place `source`, adding its content to `target` if one is named (relu(z) - relu(-z) = z)."""
    units = []
    for sign in (1.0, -1.0):
        written = {source: -sign} if target is None else {source: -sign, target: sign}
        units.append((layout.read({source: sign}), 0.0, layout.read(written)))
    return units
