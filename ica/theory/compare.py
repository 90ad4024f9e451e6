"""Constructed transformers beside gradient descent: predictions after every step, and their distance."""

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import predict
from ica.theory.contract import BuiltFor
from ica.theory.descent import gradient_descent, relative_errors
from ica.theory.prompts import Prompts
from ica.transformer import Transformer


def reference_tokens(
    model: Transformer, prompts, W: Float[Tensor, "d p"], eta: float, steps: int, unchecked: bool = False
) -> Float[Tensor, "batch n inputs"]:
    """Tokens of prompts (of one query or several) in the model's type, to be compared with gradient descent.

    Raises:
        ValueError: a constructed model with prompts of other widths d or p, or a reference with another W, eta
            or number of steps, than it was built for, unless unchecked; rewards that collide in its type.
    """
    if isinstance(model.built_for, BuiltFor) and not unchecked:
        model.built_for.follows(W, eta, steps)
        query = prompts.query if isinstance(prompts, Prompts) else prompts.queries
        d, p = W.shape
        checks.shape("responses", prompts.responses, (None,) * (prompts.responses.ndim - 1) + (d,))
        checks.shape("query", query, (None,) * (query.ndim - 1) + (p,))
    return prompts.to(model.readout.weight.dtype).tokens()


@torch.no_grad()
def predictions_along(
    model: Transformer,
    tokens: Float[Tensor, "batch n inputs"],
    blocks_per_step: int,
    unchecked: bool = False,
) -> Float[Tensor, "steps_and_start batch n outputs"]:
    """What the model would read out before the first block and after every `blocks_per_step` blocks.

    Raises:
        ValueError: the model's depth is no multiple of `blocks_per_step`; tokens outside of what a constructed
            model was built for, unless unchecked.
    """
    checks.whole("blocks_per_step", blocks_per_step, 1)
    if len(model.blocks) % blocks_per_step:
        raise ValueError(f"blocks_per_step must divide the depth {len(model.blocks)}, got {blocks_per_step}")
    h = model.stream(tokens, unchecked)
    read = [model.readout(model.norm(h))]
    for i, block in enumerate(model.blocks, start=1):
        h = block(h)
        if i % blocks_per_step == 0:
            read.append(model.readout(model.norm(h)))
    return torch.stack(read)


def descent_predictions(
    W: Float[Tensor, "d p"], prompts: Prompts, eta: float, steps: int
) -> Float[Tensor, "steps_and_start batch d"]:
    """Predictions along gradient descent by autograd, every prompt starting from the same W, in the prompts' type."""
    each = W.to(prompts.query.dtype).expand(len(prompts.query), *W.shape)
    path = gradient_descent(each, prompts, eta, steps)
    return predict(path, prompts.query.expand(steps + 1, *prompts.query.shape))


def step_errors(
    model: Transformer,
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    steps: int,
    unit: str = "own",
    unchecked: bool = False,
) -> Float[Tensor, "steps batch"]:
    """`step_errors_by_unit` in one unit, "own" or "typical"."""
    checks.one_of("unit", unit, ("own", "typical"))
    return step_errors_by_unit(model, prompts, W, eta, steps, unchecked)[unit]


def step_errors_by_unit(
    model: Transformer,
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    steps: int,
    unchecked: bool = False,
) -> dict[str, Float[Tensor, "steps batch"]]:
    """Relative error of the model's prediction after 1, ..., `steps` steps, worst token of each prompt.

    The model computes in its own type; the reference is autograd on the prompts as given (float64).

    Returns:
        The errors in two units. "own" divides by the way that gradient descent went on the same prompt, which may
        be arbitrarily short (a model that ranks the responses as the critic does hardly moves); "typical" by the
        root mean square of those ways over the prompts.

    Raises:
        ValueError: a depth that is no multiple of `steps`; as `reference_tokens`, `predictions_along` say.
    """
    checks.whole("steps", steps, 1)
    if len(model.blocks) % steps:
        raise ValueError(f"steps must divide the model's depth {len(model.blocks)}, got {steps}")
    tokens = reference_tokens(model, prompts, W, eta, steps, unchecked)
    moved = predictions_along(model, tokens, len(model.blocks) // steps, unchecked)[1:]
    moved = moved.to(prompts.query.dtype)
    reference = descent_predictions(W, prompts, eta, steps)
    own = relative_errors(moved, reference[1:].unsqueeze(2), reference[:1].unsqueeze(2)).amax(dim=-1)
    ways = (reference[1:] - reference[0]).norm(dim=-1)
    return {"own": own, "typical": own * ways / ways.square().mean(dim=1, keepdim=True).sqrt()}
