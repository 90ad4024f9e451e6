"""How far a prediction is from the good answer."""

import torch
from jaxtyping import Float
from torch import Tensor


def cosine_error(
    prediction: Float[Tensor, "*#batch d"], good: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch"]:
    r"""$1 - \cos(\hat y, y^*)$, from 0 to 2. The released figures call this axis "Normalized MSE"."""
    return 1 - torch.nn.functional.cosine_similarity(prediction, good, dim=-1)


def normalised_mse(
    prediction: Float[Tensor, "*#batch d"], good: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch"]:
    r"""$\|\hat y - y^*\|^2 / \|y^*\|^2$: a mean squared error that deserves the name; 1 for predicting 0."""
    return (prediction - good).square().sum(dim=-1) / good.square().sum(dim=-1)
