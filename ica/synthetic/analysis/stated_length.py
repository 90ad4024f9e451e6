r"""What length the stated loss gives a prediction: the multiple of the target of least expected loss, and predictions put to length.

With the squared distance the loss depends on the prediction through $2 \hat y^\top y_i$ alone, so that the length of $\hat y$ is an
inverse temperature: the longer, the surer the order. Its best value is set by how noisy the responses are, not by $\lVert y^* \rVert$ (ours).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from scipy import optimize
from torch import Tensor

from ica import checks
from ica.intervals import mean_interval
from ica.objectives import squared_distance_reward
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import SyntheticBatch, sample_batch
from ica.synthetic.task.prefixes import prefix_pl_slopes
from ica.synthetic.task.tokens import read_at, tokens
from ica.transformer import Transformer

FIT_SEED = 3_000_000_019  # of the prompts on which factors are fitted, which judge nothing


def loss_slopes(batch: SyntheticBatch, multiple: float) -> Float[Tensor, " batch"]:
    r"""Derivative in c, at c = `multiple`, of each prompt's squared-distance loss over all N of the prediction $c\, y^*$.

    Raises:
        ValueError: a multiple that is not finite and positive.
    """
    checks.positive("multiple", multiple)
    good, responses = batch.good.double(), batch.responses.double()
    scores = squared_distance_reward(multiple * good, responses).unsqueeze(1)
    slopes = prefix_pl_slopes(scores, batch.rewards, torch.tensor([responses.shape[1]]))[:, 0]
    return 2 * torch.einsum(
        "bn,bnd,bd->b", slopes, responses, good
    )  # the slopes sum to 0: what all scores share cancels


def best_multiple(batch: SyntheticBatch) -> tuple[float, float, float]:
    r"""The c of least mean loss of $c\, y^*$ over the law of the prompts, with its 95 % interval over prompts (c, lo, hi).

    The loss is convex in c, so its mean slope has one zero; the interval divides that of the mean slope by the slope's derivative.

    Raises:
        ValueError: no zero between 0.01 and 10.
    """
    if not loss_slopes(batch, 0.01).mean() < 0 < loss_slopes(batch, 10.0).mean():
        raise ValueError("batch must have a multiple of least mean loss between 0.01 and 10")
    best = optimize.brentq(lambda c: loss_slopes(batch, c).mean().item(), 0.01, 10.0)
    slope = (loss_slopes(batch, best * 1.01) - loss_slopes(batch, best * 0.99)).mean().item() / (0.02 * best)
    _, lo, hi = mean_interval(loss_slopes(batch, best).unsqueeze(0))
    return best, best + lo.item() / slope, best + hi.item() / slope


@torch.no_grad()
def put_to_length(
    models: Sequence[Transformer], config: RunConfig, batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]
) -> tuple[
    Float[Tensor, "seeds batch prefixes d"],
    Float[Tensor, "seeds batch prefixes d"],
    Float[Tensor, "seeds prefixes"],
]:
    """Predictions of each model; the same times one factor for each n, of least squared error on prompts of their own; the factors."""
    generator = torch.Generator().manual_seed(FIT_SEED)
    own = sample_batch(len(batch.query), config.N, config.d, generator, config.critic, noise=config.noise)

    def predictions(prompts: SyntheticBatch) -> Float[Tensor, "seeds batch prefixes d"]:
        inputs, at = tokens(prompts, config.form), read_at(seen, config.form)
        return torch.stack([model(inputs)[:, at] for model in models])

    fitted, good = predictions(own), own.good.unsqueeze(1)
    factors = (fitted * good).sum((1, 3)) / fitted.square().sum((1, 3))
    found = predictions(batch)
    return found, factors.unsqueeze(1).unsqueeze(-1) * found, factors
