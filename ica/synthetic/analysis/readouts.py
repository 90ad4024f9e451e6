r"""What a trained transformer holds between its layers.

A *readout* of layer l at n triplets is a direction taken from the residual stream at the token of n: directly (the model's
own final norm and readout matrix), or by a linear probe fitted by least squares on prompts of its own.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.tokens import read_at, tokens
from ica.transformer import Transformer

unit = torch.nn.functional.normalize


@torch.no_grad()
def streams(
    model: Transformer, batch: SyntheticBatch, n: int, form: str
) -> Float[Tensor, "layers batch width"]:
    """The residual stream at the token that predicts after n triplets, before the first block and after each."""
    where = int(read_at(torch.tensor([n]), form)[0])
    return torch.stack([h[:, where] for h in model.trace(tokens(batch, form)).streams])


@torch.no_grad()
def direct(
    model: Transformer, stream: Float[Tensor, "layers batch width"]
) -> Float[Tensor, "layers batch d"]:
    """Unit vectors that the model's own norm and readout give at each layer; the last is its prediction."""
    return unit(model.readout(model.norm(stream)), dim=-1)


def fit(
    inputs: Float[Tensor, "batch width"], targets: Float[Tensor, "batch outputs"]
) -> Callable[[Float[Tensor, "*more width"]], Float[Tensor, "*more outputs"]]:
    """Least squares with an intercept, float64; the fitted map.

    Raises:
        ValueError: fewer examples than weights to fit.
    """
    if len(inputs) <= inputs.shape[1] + 1:
        raise ValueError(f"inputs must hold more than {inputs.shape[1] + 1} examples, got {len(inputs)}")

    def extended(h: Tensor) -> Tensor:
        return torch.cat([h.double(), torch.ones_like(h[..., :1]).double()], dim=-1)

    weights = torch.linalg.lstsq(extended(inputs), targets.double(), driver="gelsd").solution
    return lambda h: extended(h) @ weights


def explained(
    found: Float[Tensor, "*more batch d"], targets: Float[Tensor, "*more batch d"]
) -> Float[Tensor, "*more batch"]:
    """Each prompt's part in the share of the targets' variance that is explained: the mean over prompts is the share.

    The variance is taken over these prompts and all coordinates; 1 is a perfect fit, and a fit worse than the mean of the
    targets has a share below 0.
    """
    wanted = targets.double()
    spread = (wanted - wanted.mean(-2, keepdim=True)).square().sum(-1).mean(-1, keepdim=True)
    return 1 - (wanted - found).square().sum(-1) / spread


def probed(
    own: Float[Tensor, "layers batch width"],
    test: Float[Tensor, "layers others width"],
    wanted: Float[Tensor, "targets batch d"],
) -> Float[Tensor, "layers targets others d"]:
    """What probes of each layer, fitted on `own` to each of the targets, read on other prompts."""
    flat = wanted.transpose(0, 1).flatten(1)
    found = torch.stack([fit(a, flat)(b) for a, b in zip(own, test, strict=True)])
    return found.unflatten(-1, wanted.shape[::2]).transpose(1, 2)
