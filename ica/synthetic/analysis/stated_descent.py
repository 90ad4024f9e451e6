"""Gradient descent on the loss as stated, with start, rate and number of steps as favourable to it as they can be.

The paper names neither the optimiser nor the start, nor whether the terms of the loss are summed or averaged.
For the notebook "panel_a".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import minimiser
from ica.objectives import predict
from ica.synthetic.analysis import existence
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.metrics import linearised, normalised_mse

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)  # on the mean of the terms
STARTS = ("Gaussian", "zero")


@dataclass(frozen=True)
class Favourable:
    """The setting with the least mean error, chosen with the target known; nMSE of its prompts (a ratio of means)."""

    start: str
    rate: float
    steps: int
    nmse: Float[Tensor, "1 prompts"]


def favourable(
    batch: SyntheticBatch, n: int, generator: torch.Generator, steps: int, rates: tuple[float, ...] = RATES
) -> Favourable:
    """Plain GD on the mean of the terms of the first n triplets, its best start, rate and number of steps up to
    `steps`: each prompt has its own W, all share the three numbers.

    Args:
        generator: of the Gaussian start, entries of variance 1/d (the released code's); "zero" is W = 0 (ours).

    Raises:
        ValueError: as `existence.plain_path` and `minimiser.plain_descent` say.
    """
    query, good = batch.query.double(), batch.good.double()
    responses, rewards = batch.responses[:, :n].double(), batch.rewards[:, :n]
    gaussian = predict(existence.start(batch, generator), query)
    found = []
    for name, begin in zip(STARTS, (gaussian, torch.zeros_like(gaussian)), strict=True):
        for rate in rates:
            step = rate * query.square().sum(-1) / (n - 1)
            path = minimiser.plain_descent(responses, rewards, begin, step, steps)
            errors = torch.stack([normalised_mse(at, good) for at in path])
            k = int(errors.mean(dim=-1).nan_to_num(torch.inf).argmin())
            nmse = linearised(errors[k].unsqueeze(-1), good).squeeze(-1)
            found.append(Favourable(name, rate, k, nmse.unsqueeze(0)))
    return min(found, key=lambda one: float(one.nmse.mean()))
