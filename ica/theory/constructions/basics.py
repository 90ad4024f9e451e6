r"""What every construction shares: the assumptions that its scales rest on, and the embedding of a triplet."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.layout import Layout, zero_
from ica.theory.contract import BuiltFor
from ica.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class Assumptions:
    r"""What a construction may rely on; outside of it a model refuses to run (`ica.theory.contract`).

    Besides, $\|y\|^2$ is given with each token: the squared-distance reward needs it, and the paper takes slots
    and one more attention layer, or an FFN that approximates it, for it (App. E.4, E.5).

    Args:
        eta: step size of the gradient descent to follow. The step on $\hat y$ is $2 \eta \|x\|^2 (\ldots)$: the constructions
            write $2 \eta$, so queries have unit norm, or $\|x\|^2$ is absorbed in eta.
        gap: smallest difference of two rewards of one prompt.
        spread: largest difference of two rewards of one prompt.
        radius: largest distance of a prediction from a response at the start of a step; the norms of both may
            sum to twice as much.
        dtype: floating type of the weights; it sets how sharp the attention must be.
        sharpness: factor c of the reward in the scores of a selecting head; 0 means: so large that the responses not
            selected weigh less than the rounding of `dtype`, together.

    Raises:
        ValueError: a number that is not finite and positive (sharpness may be 0), an unknown dtype, gap above spread.
    """

    eta: float
    gap: float
    spread: float = 1.0
    radius: float = 10.0
    dtype: torch.dtype = torch.float64
    sharpness: float = 0.0

    def __post_init__(self):
        for name in ("eta", "gap", "spread", "radius"):
            checks.positive(name, getattr(self, name))
        checks.dtype("dtype", self.dtype)
        if self.sharpness != 0:
            checks.positive("sharpness", self.sharpness)
        if self.gap > self.spread:
            raise ValueError(f"gap must be at most spread = {self.spread}, got {self.gap}")

    def margin(self, N: int) -> float:
        """Score difference behind which N tokens weigh less than the rounding of `dtype`, with a quarter to spare."""
        return 1.25 * math.log(N / torch.finfo(self.dtype).eps)

    def c(self, N: int) -> float:
        """Sharpness in force for N responses, per unit of reward."""
        return self.sharpness or self.margin(N) / self.gap


def start(W: Float[Tensor, "d p"], assumptions: Assumptions) -> Float[Tensor, "d p"]:
    """The initial linear map, checked, in the precision of the assumptions."""
    checks.finite("W", checks.shape("W", W, (None, None)))
    return W.detach().to(assumptions.dtype)


def blank(layout: Layout, W: Float[Tensor, "d p"], assumptions: Assumptions, **kinds) -> Transformer:
    r"""A transformer of zeros but for the embedding and readout.

    The embedding puts the token $(x, y, \|y\|^2, r)$ into the places x, y, s, r of the layout, a 1 into "one" and the
    first prediction $W x$ into "yhat", which is also what is read out.

    Args:
        kinds: further fields of `TransformerConfig` (layers, heads, head_width, hidden, mask).
    """
    d, p = W.shape
    config = TransformerConfig(inputs=p + d + 2, outputs=d, width=layout.width, **kinds)
    model = zero_(Transformer(config).to(assumptions.dtype))
    with torch.no_grad():
        first = 0
        for name in ("x", "y", "s", "r"):
            place = layout.slices[name]
            size = layout.size(name)
            model.embed.weight[place, first : first + size] = torch.eye(size, dtype=assumptions.dtype)
            first += size
        model.embed.weight[layout.slices["yhat"], :p] = W
        model.embed.bias[layout.slices["one"]] = 1.0
        model.readout.weight[:] = layout.read({"yhat": 1.0}, dtype=assumptions.dtype)
    return model


def promise(
    model: Transformer, W: Float[Tensor, "d p"], assumptions: Assumptions, steps: int, N: int, **more
) -> Transformer:
    """The model, carrying what it was built for.

    Args:
        N: most responses that it is right for.
        more: further fields of `BuiltFor`, and those that differ from the assumptions.
    """
    told = {name: getattr(assumptions, name) for name in ("eta", "gap", "radius", "dtype")}
    told |= {"resolution": 64 * torch.finfo(assumptions.dtype).eps}
    model.built_for = BuiltFor(W.double(), steps=steps, N=N, **(told | more))
    return model
