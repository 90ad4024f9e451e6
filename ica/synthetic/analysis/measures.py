"""What readers of noisy critics are measured by, against the truth of fixed prompts: error, loss, side, and rank agreement."""

import scipy  # loads a part where it is used first
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica.objectives import cosine_reward
from ica.synthetic.task import floor
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.prefixes import prefix_pl_losses


def true_losses(
    predictions: Float[Tensor, "prompts prefixes d"], batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]
) -> Float[Tensor, "prompts prefixes"]:
    """Plackett-Luce loss (nats, cosine reward) against the order of the quality, whatever the critic says."""
    scores = cosine_reward(predictions, batch.responses.unsqueeze(1))
    return prefix_pl_losses(scores, batch.quality, seen)


def measured(
    predictions: Float[Tensor, "seeds prompts prefixes d"],
    batch: SyntheticBatch,
    seen: Int[Tensor, " prefixes"],
) -> dict[str, Float[Tensor, "seeds prompts *prefixes"]]:
    """Measures of the predictions after n triplets, n in `seen`.

    Returns:
        "error": 1 - cos to the good answer; "loss": loss against the true order above its least (nats), mean over `seen`;
        "side": 1 where the prediction is on the bad answer's side of the good one, else 0. The least loss is that of the
        exact minimisers, mean over the prompts, so a single prompt's may lie below 0.

    Raises:
        ValueError: lengths outside 2 to N, d < 2.
    """
    least = true_losses(floor.minimisers(batch, seen).to(batch.good.dtype), batch, seen).mean()
    basis = floor.plane(batch)
    return {
        "error": cosine_error(predictions, batch.good.unsqueeze(1)).double(),
        "loss": torch.stack([true_losses(one, batch, seen).mean(-1) for one in predictions]).double() - least,
        "side": torch.stack([floor.plane_angles(one, basis) > 0 for one in predictions]).double(),
    }


def rank_agreement(
    first: Float[Tensor, "prompts n"], second: Float[Tensor, "prompts n"]
) -> Float[Tensor, " prompts"]:
    """Kendall's rank correlation (tau-b) of two ratings of each prompt's responses, from -1 to 1."""
    pairs = zip(first.double().numpy(), second.double().numpy(), strict=True)
    return torch.tensor(
        [scipy.stats.kendalltau(one, other).statistic for one, other in pairs], dtype=torch.float64
    )
