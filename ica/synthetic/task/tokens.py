"""How a synthetic prompt becomes tokens, where its predictions are read, and the loss of these."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ica import checks
from ica.objectives import REWARDS, pl_loss
from ica.synthetic.task.config import FORMS, SCOPES, RunConfig
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.prefixes import prefix_pl_losses


def tokens(batch: SyntheticBatch, form: str) -> Float[Tensor, "batch tokens inputs"]:
    """The prompts as tokens; r is one number per rater.

    Interleaved: x, y, (r, 0, ..., 0) for each triplet. Triplet: one token (x, y, r). Test-token: (x, 0, 0), (x, y, r) for
    each triplet. With the transformer's mask "test-token" each (x, 0, 0) sees the triplets before it and itself, and is
    seen by nobody, so that one pass of 2 N tokens equals N passes, each over the first triplets and a test token (App. C.1).

    Raises:
        ValueError: an unknown form.
    """
    checks.one_of("form", form, FORMS)
    query = batch.query.unsqueeze(1).expand_as(batch.responses)
    if form == "interleaved":
        padded = pad(batch.shown, (0, query.shape[-1] - batch.shown.shape[-1]))
        return torch.stack([query, batch.responses, padded], dim=2).flatten(1, 2)
    triplets = torch.cat([query, batch.responses, batch.shown], dim=-1)
    if form == "triplet":
        return triplets
    test = pad(query, (0, triplets.shape[-1] - query.shape[-1]))
    return torch.stack([test, triplets], dim=2).flatten(1, 2)


def lengths(N: int, form: str, scope: str = "seen") -> Int[Tensor, " prefixes"]:
    """Numbers n of triplets seen after which there is a prediction that has a loss.

    Over the responses seen: n >= 2, to N - 1, with triplet tokens to N. Over all N: to N - 1, from 0 where the form reads a
    query before the first triplet, with triplet tokens from 1.
    """
    checks.one_of("form", form, FORMS)
    if checks.one_of("scope", scope, SCOPES) == "all":
        return torch.arange(form == "triplet", N)
    return torch.arange(2, N + (form == "triplet"))


def prefixes(config: RunConfig) -> Int[Tensor, " prefixes"]:
    """The lengths of a run."""
    return lengths(config.N, config.form, config.scope)


def read_at(seen: Int[Tensor, " prefixes"], form: str) -> Int[Tensor, " prefixes"]:
    """Index of the token whose output is the prediction after `seen` triplets."""
    return {"interleaved": 3 * seen, "test-token": 2 * seen, "triplet": seen - 1}[form]


def loss(
    outputs: Float[Tensor, "batch tokens d"], batch: SyntheticBatch, config: RunConfig
) -> Float[Tensor, ""]:
    """Plackett-Luce loss of the predictions, mean over prefixes and prompts (nats).

    Each is over the responses seen or over all N, which the teacher ranks: the critic's rewards, or the truth. Source: App. C.1
    (all, with the squared distance); the released code (seen, cosine).
    """
    seen = prefixes(config)
    predictions = outputs[:, read_at(seen, config.form)]
    scores = REWARDS[config.reward](predictions, batch.responses.unsqueeze(1))
    ranks = batch.rewards if config.teacher == "critic" else batch.quality
    if config.scope == "all":
        return pl_loss(scores, ranks.unsqueeze(1).expand_as(scores), "stable").mean()
    return prefix_pl_losses(scores, ranks, seen).mean()
