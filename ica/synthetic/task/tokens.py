"""How a synthetic prompt becomes tokens, and where its predictions are read."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.objectives import REWARDS
from ica.synthetic.task.config import FORMS, RunConfig
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.prefixes import prefix_pl_losses


def tokens(batch: SyntheticBatch, form: str) -> Float[Tensor, "batch tokens inputs"]:
    """Interleaved: x, y, (r, 0, ..., 0) for each triplet; triplet: one token (x, y, r). r is one number per rater.

    Raises:
        ValueError: an unknown form.
    """
    checks.one_of("form", form, FORMS)
    query = batch.query.unsqueeze(1).expand_as(batch.responses)
    if form == "triplet":
        return torch.cat([query, batch.responses, batch.shown], dim=-1)
    padded = torch.nn.functional.pad(batch.shown, (0, query.shape[-1] - batch.shown.shape[-1]))
    return torch.stack([query, batch.responses, padded], dim=2).flatten(1, 2)


def lengths(N: int, form: str) -> Int[Tensor, " prefixes"]:
    """Numbers n >= 2 of triplets seen at which there is a prediction: to N - 1 interleaved, to N with triplet tokens."""
    checks.one_of("form", form, FORMS)
    return torch.arange(2, N if form == "interleaved" else N + 1)


def read_at(seen: Int[Tensor, " prefixes"], form: str) -> Int[Tensor, " prefixes"]:
    """Index of the token whose output is the prediction after `seen` triplets."""
    return 3 * seen if form == "interleaved" else seen - 1


def loss(
    outputs: Float[Tensor, "batch tokens d"], batch: SyntheticBatch, config: RunConfig
) -> Float[Tensor, ""]:
    """Plackett-Luce loss at every prefix of at least two triplets, mean over prefixes and prompts (nats).

    The responses are ranked by the teacher: the critic's rewards, or the truth.
    """
    seen = lengths(config.N, config.form)
    predictions = outputs[:, read_at(seen, config.form)]
    scores = REWARDS[config.reward](predictions, batch.responses.unsqueeze(1))
    ranks = batch.rewards if config.teacher == "critic" else batch.quality
    return prefix_pl_losses(scores, ranks, seen).mean()
