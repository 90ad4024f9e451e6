r"""What a trained transformer holds between its layers, and what else could have given its predictions.

A *readout* of layer l at n triplets is a direction taken from the residual stream at the token of n: directly (the model's
own final norm and readout matrix), or by a linear probe fitted by least squares on prompts of its own. Hypotheses are
functions of a prompt, whose directions and sensitivities can be laid beside the model's.
"""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import cosine_reward, pl_direction, pl_loss
from ica.synthetic.baselines import bayes
from ica.synthetic.data import SyntheticBatch
from ica.synthetic.tokens import read_at, tokens
from ica.transformer import Transformer

Predictor = Callable[[SyntheticBatch], Float[Tensor, "batch d"]]
unit = torch.nn.functional.normalize


def first(batch: SyntheticBatch, n: int) -> SyntheticBatch:
    """The prompts with their first n triplets only; ValueError unless 2 <= n <= N."""
    if not 2 <= checks.whole("n", n, 2) <= batch.responses.shape[1]:
        raise ValueError(f"n must lie between 2 and N = {batch.responses.shape[1]}, got {n}")
    names = ("responses", "quality", "rewards", "shown")
    return replace(batch, **{name: getattr(batch, name)[:, :n] for name in names})


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
    inputs: Float[Tensor, "batch width"], targets: Float[Tensor, "batch d"]
) -> Callable[[Float[Tensor, "*more width"]], Float[Tensor, "*more d"]]:
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


def explained(found: Float[Tensor, "batch d"], targets: Float[Tensor, "batch d"]) -> float:
    """Share of the variance of the targets that is explained, 1 at best."""
    residual = (targets.double() - found).square().sum()
    return 1 - (residual / (targets.double() - targets.double().mean(0)).square().sum()).item()


def descent(
    batch: SyntheticBatch, steps: int, size: float = 0.1, start: Float[Tensor, "batch d"] | None = None
) -> Float[Tensor, "steps_and_start batch d"]:
    """Gradient descent on the cosine-reward loss over all the triplets, on the unit sphere, float64.

    Each step moves along minus the gradient in the direction (the loss divided by n - 1) and returns to unit length.

    Args:
        start: first direction; default the mean of the responses.
    """
    checks.whole("steps", steps, 0)
    checks.positive("size", size)
    v = unit(batch.responses.double().mean(1) if start is None else start.double(), dim=-1)
    responses, ranks, path = batch.responses.double(), batch.rewards.double(), [v]
    for _ in range(steps):
        v = v.detach().requires_grad_(True)
        loss = pl_loss(cosine_reward(v, responses), ranks, "stable").sum() / (responses.shape[1] - 1)
        v = unit(v - size * torch.autograd.grad(loss, v)[0], dim=-1).detach()
        path.append(v)
    return torch.stack(path)


def hypotheses(steps: int = 200) -> dict[str, Predictor]:
    """Named functions from a prompt (its first n triplets) to a direction.

    "constructed step" is what the theorem's constructed transformer adds from the prediction 0 (squared-distance reward);
    "minimiser" is `descent` run for `steps` steps: unlike the exact formula it is defined off the line as well.
    """

    def best(batch: SyntheticBatch) -> Tensor:
        return batch.responses[torch.arange(len(batch.rewards)), batch.rewards.argmax(1)]

    def spread(batch: SyntheticBatch) -> Tensor:
        return best(batch) - batch.responses[torch.arange(len(batch.rewards)), batch.rewards.argmin(1)]

    def weighted(batch: SyntheticBatch) -> Tensor:
        return (batch.rewards.unsqueeze(-1) * batch.responses).sum(1)

    return {
        "minimiser": lambda batch: descent(batch, steps, size=0.5)[-1],
        "ten steps of descent": lambda batch: descent(batch, 10)[-1],
        "constructed step": lambda batch: pl_direction(
            torch.zeros_like(batch.good), batch.responses, batch.rewards, "stable"
        ),
        "best less worst": spread,
        "Bayes": lambda batch: bayes(batch, torch.tensor([batch.rewards.shape[1]]))[:, 0],
        "best response": best,
        "reward-weighted mean": weighted,
        "mean response": lambda batch: batch.responses.mean(1),
    }


def model_predictor(model: Transformer, form: str) -> Predictor:
    """The model's prediction after the triplets given, in the precision of the model.

    Raises:
        ValueError: interleaved tokens, which predict at the query of one more triplet.
    """
    checks.one_of("form", form, ("triplet",))

    @torch.no_grad()
    def predict(batch: SyntheticBatch) -> Tensor:
        n = batch.rewards.shape[1]
        return model(tokens(batch, form))[:, int(read_at(torch.tensor([n]), form)[0])]

    return predict


def sensitivity(
    predict: Predictor, batch: SyntheticBatch, step: float = 1e-4
) -> Float[Tensor, "batch n d d"]:
    """Derivative of the unit prediction in each coordinate of each response (central differences).

    Entry (b, i, k): how the direction moves with coordinate k of response i, the responses ordered by reward, best first.

    Raises:
        ValueError: prompts that are not float64, where the differences would be rounding.
    """
    if batch.responses.dtype != torch.float64:
        raise ValueError(f"batch must be float64, got {batch.responses.dtype}")
    B, n, d = batch.responses.shape
    order = batch.rewards.argsort(1, descending=True)
    every = torch.arange(n * d)
    shifts = torch.zeros(n * d, B, n, d, dtype=torch.float64)
    shifts[every.unsqueeze(1), torch.arange(B), order.T[every // d], (every % d).unsqueeze(1)] = step
    ends = []
    for sign in (1, -1):
        moved = (batch.responses + sign * shifts).flatten(0, 1)
        others = {
            field.name: getattr(batch, field.name).repeat(n * d, *[1] * (getattr(batch, field.name).ndim - 1))
            for field in fields(batch)
            if field.name != "responses"
        }
        ends.append(unit(predict(SyntheticBatch(responses=moved, **others)).double(), dim=-1))
    return ((ends[0] - ends[1]) / (2 * step)).view(n, d, B, d).permute(2, 0, 1, 3)


def same_order(rewards: Float[Tensor, "batch n"], power: float) -> Float[Tensor, "batch n"]:
    """Other rewards in [0, 1] in the same order, r to a power; ValueError for a power that is not positive."""
    return rewards ** checks.positive("power", power)
