"""How far a prediction is from the good answer, and how sure we are of a mean over prompts and seeds."""

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks


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


def bootstrap(
    errors: Float[Tensor, "seeds prompts points"],
    generator: torch.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Mean over seeds and prompts with a percentile interval (mean, lo, hi), both resampled.

    Seeds and prompts are crossed (all seeds see the same prompts), so each draw resamples the seeds and, independently,
    the prompts. With one seed the interval speaks of prompts only.

    Raises:
        ValueError: draws < 2, a level outside (0, 1), errors not finite.
    """
    checks.finite("errors", errors)
    checks.whole("draws", draws, 2)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    S, P, _ = errors.shape
    means = torch.empty(draws, errors.shape[-1], dtype=errors.dtype)
    for k in range(draws):
        seeds = torch.randint(S, (S,), generator=generator).bincount(minlength=S)
        prompts = torch.randint(P, (P,), generator=generator).bincount(minlength=P)
        weights = seeds[:, None] * prompts[None, :] / (S * P)
        means[k] = torch.einsum("sp,spk->k", weights.to(errors.dtype), errors)
    tail = (1 - level) / 2
    lo, hi = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=errors.dtype), dim=0)
    return errors.mean(dim=(0, 1)), lo, hi
