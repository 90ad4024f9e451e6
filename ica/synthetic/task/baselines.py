"""What a transformer on the synthetic task is compared with: gradient descent, its converged minimiser, and Bayes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.objectives import REWARDS, predict
from ica.synthetic.task.bayes import posterior_mean
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.prefixes import prefix_pl_slopes


def descend(
    batch: SyntheticBatch,
    seen: Int[Tensor, " prefixes"],
    generator: torch.Generator,
    *,
    steps: int = 50,
    rate: float = 0.1,
    reward: str = "cosine",
) -> Float[Tensor, "batch prefixes d"]:
    """Predictions of linear maps trained from scratch by Adam, one for every prompt and prefix, all at once.

    The defaults are the released setting; App. C.1 has the squared distance and names no optimiser. Each map starts from
    Gaussian entries of variance 1/d (ours: the cosine reward needs a start other than zero). In float64: where a ranking
    can be met exactly the gradient vanishes, and Adam would blow up what rounding leaves of it.

    Raises:
        ValueError: a parameter out of its range, an unknown reward.
    """
    checks.whole("steps", steps, 1)
    checks.positive("rate", rate)
    score = REWARDS[checks.one_of("reward", reward, tuple(REWARDS))]
    (B, d), P = batch.query.shape, len(seen)
    W = torch.randn(B, P, d, d, generator=generator, dtype=torch.float64) / d**0.5
    optimiser = torch.optim.Adam([W], lr=rate)
    responses, query = batch.responses.double(), batch.query.double().unsqueeze(1).expand(B, P, d)
    for _ in range(steps):
        prediction = predict(W, query)
        slopes = prefix_pl_slopes(score(prediction, responses.unsqueeze(1)), batch.rewards, seen)
        W.grad = _pull(prediction, responses, slopes, reward).unsqueeze(-1) * query.unsqueeze(-2)
        optimiser.step()
    return predict(W, query).to(batch.query.dtype)


def _pull(
    prediction: Float[Tensor, "batch prefixes d"],
    responses: Float[Tensor, "batch N d"],
    slopes: Float[Tensor, "batch prefixes N"],
    reward: str,
) -> Float[Tensor, "batch prefixes d"]:
    """Gradient of a loss in the prediction, for its slopes in the rewards of the responses."""
    if reward == "squared_distance":
        return 2 * (slopes @ responses - slopes.sum(-1, keepdim=True) * prediction)
    unit = torch.nn.functional.normalize
    along = slopes @ unit(responses, dim=-1)
    towards = unit(prediction, dim=-1)
    return (along - (along * towards).sum(-1, keepdim=True) * towards) / prediction.norm(dim=-1, keepdim=True)


def best_response(batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
    """Of the first n responses, n in `seen`, the one of highest reward: what is free to whoever keeps what was rated."""
    every = torch.arange(len(batch.query))
    return torch.stack([batch.responses[every, batch.rewards[:, :n].argmax(1)] for n in seen.tolist()], dim=1)


def bayes(batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
    r"""The Bayes-optimal prediction of the target from the triplets seen, for a critic taken to be true.

    Shared noise: least squares for $y_i = r_i\, y^* + (1 - r_i)\, e$; two noiseless triplets determine $y^*$ exactly, so the error
    is 0 from n = 2 on. Own noise: `bayes.posterior_mean`. (With a critic that errs both are only a fit.)
    """
    if batch.noise == "own":
        return torch.stack([posterior_mean(batch, n) for n in seen.tolist()], dim=1)
    found = []
    for n in seen.tolist():
        weights = torch.stack([batch.rewards[:, :n], 1 - batch.rewards[:, :n]], dim=-1)
        found.append(torch.linalg.lstsq(weights, batch.responses[:, :n]).solution[:, 0])
    return torch.stack(found, dim=1)
