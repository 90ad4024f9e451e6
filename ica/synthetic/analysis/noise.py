r"""What a critic that says nothing, or the opposite, leaves of a prompt; answers without it (page `critics`).

With shared noise the responses $y_i = r_i y^* + (1 - r_i) e$ have the same law when $y^*$ and $e$ change
places and $r_i$ becomes $1 - r_i$. So under a critic whose rewards do not depend on $r$, a prediction is as
near to $e$ as to $y^*$ in law; and under one that shows $1 - r_i$ it is the prediction for the prompt with
the ends exchanged.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.synthetic.task.data import Critic, SyntheticBatch
from ica.synthetic.task.metrics import cosine_error, linearised, normalised_mse
from ica.synthetic.task.tokens import read_at, tokens
from ica.synthetic.training.evaluation import evaluation_prompts
from ica.synthetic.training.results import Result


def exchanged(batch: SyntheticBatch) -> SyntheticBatch:
    """The same responses and rewards, with the good and the bad answer in each other's place."""
    return replace(batch, good=batch.bad, bad=batch.good, quality=1 - batch.quality)


def response_mean(batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
    r"""Mean of the first n responses: what answers without looking at the critic.

    For $n \to \infty$ it tends to $(y^* + e)/2$, whose expected $1 - \cos$ to $y^*$ is, by the symmetry of
    $e$, that of $y^* - e$ (`floor.expected_difference_error`).

    Raises:
        ValueError: a length outside 1 to N.
    """
    N = batch.responses.shape[1]
    if len(seen) == 0 or seen.min() < 1 or seen.max() > N:
        raise ValueError(f"seen must hold lengths from 1 to N = {N}, got {seen.tolist()}")
    sums = batch.responses.cumsum(dim=1)[:, seen - 1]
    return sums / seen.unsqueeze(-1)


def linear_reader(batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
    r"""With own noise the best answer that is linear in the responses and ignores the critic.

    The mean of n responses times $6 n / (3 n + 5)$, as $\mathbb E\, y_i = y^* / 2$, and the quality and the
    distractors add a variance of 5/12 in each feature in units of the prior's. Its normalised error is
    $5 / (3 n + 5)$. Source: ours.

    Raises:
        ValueError: shared noise, or as `response_mean` says.
    """
    if batch.noise != "own":
        raise ValueError("batch must have own noise, got shared noise")
    return response_mean(batch, seen) * (6 * seen / (3 * seen + 5)).unsqueeze(-1).to(batch.responses.dtype)


def against_target(
    predictions: Float[Tensor, "seeds prompts points d"], batch: SyntheticBatch
) -> dict[str, Float[Tensor, "seeds prompts points"]]:
    """How far predictions are from the good answers.

    Returns:
        "nmse": normalised MSE, as values whose mean is the ratio of means and whose spread is its own
        (`metrics.linearised`); "scaled": the same for the predictions of each seed and point times the one
        number that makes its mean least (what is left if lengths do not count); "error": 1 - cos.
    """
    good, found = batch.good.double().unsqueeze(1), predictions.double()
    across, squares = (found * good).sum(-1).mean(1), found.square().sum(-1).mean(1)
    scaled = found * (across / squares.clamp_min(1e-30))[:, None, :, None]
    nmse, least = (linearised(normalised_mse(one, good), batch.good) for one in (found, scaled))
    return {"nmse": nmse, "scaled": least, "error": cosine_error(found, good)}


def end_cosines(
    prediction: Float[Tensor, "*seeds batch d"], batch: SyntheticBatch
) -> tuple[Float[Tensor, "*seeds batch"], Float[Tensor, "*seeds batch"]]:
    """Cosines of the predictions with the good and with the bad answer; ValueError for entries not finite."""
    checks.finite("prediction", prediction)
    cosine = torch.nn.functional.cosine_similarity
    return cosine(prediction, batch.good, dim=-1), cosine(prediction, batch.bad, dim=-1)


@torch.no_grad()
def errors_under(
    run: Result, critic: Critic, seen: Int[Tensor, " prefixes"]
) -> Float[Tensor, "seeds prompts prefixes"]:
    """1 - cos of every seed's model of a run on its evaluation prompts, by another critic, after `seen`.

    Raises:
        ResultError: the run's weights are not there.
    """
    batch, form = evaluation_prompts(run.config, critic), run.config.form
    outputs = [model(tokens(batch, form))[:, read_at(seen, form)] for model in run.models()]
    return torch.stack([cosine_error(found, batch.good.unsqueeze(1)) for found in outputs])
