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
    r"""$\|\hat y - y^*\|^2$ over the mean of $\|y^*\|^2$ over the prompts given; 1 on average for predicting 0.

    So the mean over the prompts is a ratio of means, which no prompt with a short target dominates. Source: sec. 4, which does not say
    whether the paper normalises each prompt's error or their mean.
    """
    return (prediction - good).square().sum(dim=-1) / good.square().sum(dim=-1).mean()


def linearised(
    nmse: Float[Tensor, "*seeds prompts prefixes"], good: Float[Tensor, "prompts d"]
) -> Float[Tensor, "*seeds prompts prefixes"]:
    r"""Values of the same mean over prompts as `nmse`, whose spread over prompts is that of the ratio of means.

    $v_i - R (w_i - 1)$ with $w_i$ the prompt's $\|y^*\|^2$ over its mean and R the mean of $v$ (the delta method): intervals and
    differences of these count that the denominator is drawn with the prompts.
    """
    size = good.double().square().sum(dim=-1, keepdim=True)
    values = nmse.double()
    return values - values.mean(-2, keepdim=True) * (size / size.mean() - 1)
