"""The evaluation prompts of the synthetic task, and what models do on them: what the panels of Part II plot.

With `train` this holds what the numbers of a result stand on: `run.code_digest` covers these two modules and all that they import.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, SyntheticBatch, sample_batch
from ica.synthetic.task.metrics import cosine_error, normalised_mse
from ica.synthetic.task.tokens import loss, prefixes, read_at, tokens
from ica.synthetic.training.train import Weights, forward

EVALUATION_SEED = 1_000_000_007
PROMPTS, LOOK_PROMPTS = 256, 128
DIGITS = 5
LEVELS = (0.25, 0.5, 0.75, 1.0)  # of random rewards at test time, App. C.1 (Reward noise), beside 0


def evaluation_prompts(
    config: RunConfig, critic: Critic | None = None, count: int = PROMPTS
) -> SyntheticBatch:
    """Prompts that no run trains on; the same for every run with this N, d and noise, rated by the run's own critic or another.

    Another count gives other prompts.
    """
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    rated = config.critic if critic is None else critic
    return sample_batch(count, config.N, config.d, generator, rated, noise=config.noise)


def rounded(tensor: Float[Tensor, "..."]) -> list | float:
    """The entries as nested lists, rounded to what a JSON file needs to hold."""
    return tensor.double().round(decimals=DIGITS).tolist()


@torch.no_grad()
def evaluate(
    config: RunConfig, weights: Weights, count: int, critic: Critic | None = None
) -> dict[str, Tensor]:
    """Errors (seeds, prompts, prefixes) on `count` evaluation prompts, and the loss of every seed (nats), on the CPU.

    The prompts are rated by the run's own critic or another.
    """
    batch = evaluation_prompts(config, critic, count)
    seen, inputs = prefixes(config), tokens(batch, config.form)
    one = next(iter(weights.values()))
    outputs = forward(config)(weights, inputs.to(one.device).expand(len(one), *inputs.shape)).cpu()
    predictions, good = outputs[:, :, read_at(seen, config.form)], batch.good.view(1, count, 1, -1)
    return {
        "error": cosine_error(predictions, good),
        "nmse": normalised_mse(predictions, good),
        "loss": torch.stack([loss(output, batch, config) for output in outputs]),
    }


def noisy(config: RunConfig, weights: Weights) -> dict:
    """Errors on the evaluation prompts with random rewards of each of `LEVELS`, as JSON holds them."""
    found = {level: evaluate(config, weights, PROMPTS, Critic("replace", level)) for level in LEVELS}
    return {
        str(level): {key: rounded(errors[key]) for key in ("error", "nmse")}
        for level, errors in found.items()
    }


def look(config: RunConfig, step: int, weights: Weights) -> dict:
    """Means over evaluation prompts after `step` updates, as JSON holds them."""
    found = evaluate(config, weights, LOOK_PROMPTS)
    means = {"error": found["error"].mean(1), "nmse": found["nmse"].mean(1), "loss": found["loss"]}
    return {"step": step} | {key: rounded(value) for key, value in means.items()}
