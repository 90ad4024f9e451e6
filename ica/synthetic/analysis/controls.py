"""Controlled pairs of training runs, interventions on what a prediction may see, and what single runs can resolve.

Behind the page "Reading the released code": a comparison in which more than one thing changes stands beside the one in
which only the thing named changes.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, special
from torch import Tensor

from ica import checks
from ica.synthetic.task.data import SyntheticBatch, sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.tokens import read_at, tokens
from ica.synthetic.training.results import Result
from ica.synthetic.training.train import train
from ica.transformer import Transformer

OWN_PROMPTS = 256  # prompts on which the released code evaluates a model, drawn anew for each curve
RESOLVED = special.ndtri(0.975) * math.sqrt(
    2
)  # standard deviations of one run that two single runs tell apart
QUANTILES = 4000
TRIPLETS = ("responses", "quality", "rewards", "shown")


def anew(run: Result, steps: int) -> Float[Tensor, "steps seeds"]:
    """Training losses of the first steps of a run, trained again, less those of the run (nats)."""
    with tempfile.TemporaryDirectory() as folder:
        state = train(replace(run.config, steps=steps), run.seeds, Path(folder), every=steps)
    return torch.tensor(state.losses) - run.losses[:steps]


@torch.no_grad()
def predictions(
    models: Sequence[Transformer], batch: SyntheticBatch, n: int, form: str, whole: bool = True
) -> Float[Tensor, "seeds batch d"]:
    """What each model predicts after n triplets.

    Args:
        whole: give the whole prompt; otherwise only its tokens up to the one where the prediction is read.

    Raises:
        ValueError: n at which the prompts have no prediction.
    """
    inputs, at = tokens(batch, form), int(read_at(torch.tensor([n]), form)[0])
    if not 0 <= at < inputs.shape[1]:
        raise ValueError(f"n must have a prediction in prompts of {inputs.shape[1]} tokens ({form}), got {n}")
    given = inputs if whole else inputs[:, : at + 1]
    return torch.stack([model(given)[:, at] for model in models])


def by_triplet(batch: SyntheticBatch) -> tuple[str, ...]:
    """The fields that hold one entry a triplet; the distractors are among them where each response has its own."""
    return (*TRIPLETS, "bad") if batch.noise == "own" else TRIPLETS


def cut(batch: SyntheticBatch, n: int) -> SyntheticBatch:
    """The prompts with their first n triplets only; ValueError unless 1 <= n <= N."""
    checks.whole("n", n, 1)
    N = batch.responses.shape[1]
    if n > N:
        raise ValueError(f"n must be at most the N = {N} triplets of the prompts, got {n}")
    return replace(batch, **{name: getattr(batch, name)[:, :n] for name in by_triplet(batch)})


def other_tail(batch: SyntheticBatch, n: int) -> SyntheticBatch:
    """The prompts with the responses and rewards after the n-th exchanged for those of the next prompt.

    Raises:
        ValueError: a single prompt, or as `cut` says.
    """
    if len(batch.query) < 2:
        raise ValueError(f"batch must hold at least two prompts to exchange, got {len(batch.query)}")
    head = cut(batch, n)
    changed = {
        name: torch.cat([getattr(head, name), getattr(batch, name)[:, n:].roll(1, dims=0)], dim=1)
        for name in by_triplet(batch)
    }
    return replace(batch, **changed)


def redrawn_tail(batch: SyntheticBatch, n: int, generator: torch.Generator) -> SyntheticBatch:
    """The prompts with new qualities, and the responses and true rewards that go with them, after the n-th triplet.

    Raises:
        ValueError: own noise, or as `cut` says.
    """
    head = cut(batch.on_a_line(), n)
    fresh = torch.rand(batch.quality.shape, generator=generator, dtype=torch.float64).to(batch.quality.dtype)
    quality = torch.cat([head.quality, fresh[:, n:]], dim=1)
    later = torch.lerp(batch.bad.unsqueeze(1), batch.good.unsqueeze(1), fresh[:, n:].unsqueeze(-1))
    rewards = torch.cat([head.rewards, fresh[:, n:]], dim=1)
    shown = torch.cat([head.shown, fresh[:, n:, None].expand(-1, -1, head.shown.shape[-1])], dim=1)
    responses = torch.cat([head.responses, later], dim=1)
    return replace(batch, responses=responses, quality=quality, rewards=rewards, shown=shown)


def tail_effects(
    models: Sequence[Transformer], batch: SyntheticBatch, n: int, form: str, generator: torch.Generator
) -> dict[str, Float[Tensor, "seeds batch"]]:
    """What predictions after n triplets make of the later ones: 1 - cos, by what is done to those.

    The first two are between the prediction before and after the later triplets are exchanged for those of another
    prompt, or redrawn with the same ends; the others to the target, with the whole prompt and with it cut after n.
    """
    whole = predictions(models, batch, n, form)

    def moved(changed: SyntheticBatch) -> Float[Tensor, "seeds batch"]:
        after = predictions(models, changed, n, form)
        return cosine_error(whole.double(), after.double()).clamp(min=0)

    return {
        "later triplets of another prompt": moved(other_tail(batch, n)),
        "later triplets redrawn": moved(redrawn_tail(batch, n, generator)),
        "whole prompt": cosine_error(whole, batch.good),
        "cut after n": cosine_error(predictions(models, batch, n, form, whole=False), batch.good),
    }


def own_errors(run: Result, n: int, first: int, count: int = OWN_PROMPTS) -> Float[Tensor, " seeds"]:
    """Mean of 1 - cos after n triplets, each seed's model on `count` prompts of its own.

    That is what one training run and one evaluation show; the models' prompts come from the seeds first, first + 1, ...
    """
    found = []
    for k, model in enumerate(run.models()):
        generator = torch.Generator().manual_seed(first + k)
        batch = sample_batch(
            count, run.config.N, run.config.d, generator, run.config.critic, noise=run.config.noise
        )
        answer = predictions([model], batch, n, run.config.form)[0]
        found.append(cosine_error(answer, batch.good).double().mean())
    return torch.stack(found)


def effect_size(
    first: Float[Tensor, " runs"], second: Float[Tensor, " others"], level: float = 0.95
) -> tuple[float, float, float]:
    r"""Difference of the means of single runs in their pooled standard deviation, with an exact interval (d, lo, hi).

    $d = (\bar a - \bar b) / s$; for Gaussian runs of one variance $d / \sqrt{1/m + 1/n}$ is noncentral t with
    $m + n - 2$ degrees of freedom, and the interval holds every noncentrality that does not make it extreme. A
    magnitude above `RESOLVED` is one that two single runs tell apart at 5 %.

    Raises:
        ValueError: fewer than two runs on a side, entries not finite, no spread at all, a level outside (0, 1).
    """
    for name, sample in (("first", first), ("second", second)):
        checks.finite(name, sample)
        if len(sample) < 2:
            raise ValueError(f"{name} must hold at least two runs, got {len(sample)}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    a, b = first.double(), second.double()
    free, scale = len(a) + len(b) - 2, math.sqrt(1 / len(a) + 1 / len(b))
    pooled = math.sqrt(((a - a.mean()).square().sum() + (b - b.mean()).square().sum()).item() / free)
    if pooled == 0:
        raise ValueError("first and second must have some spread; all runs of a side are equal")
    size = (a.mean() - b.mean()).item() / pooled
    t, tail = size / scale, (1 - level) / 2
    roots = np.sqrt(special.chdtri(free, 1 - (np.arange(QUANTILES) + 0.5) / QUANTILES) / free)
    reach = 10 + 3 * abs(t)

    def end(probability: float) -> float:
        # P(T <= t) = E Phi(t sqrt(q / free) - shift), q chi-square: scipy's own noncentral t gives NaN at large t
        return optimize.brentq(
            lambda shift: special.ndtr(t * roots - shift).mean() - probability, t - reach, t + reach
        )

    return size, end(1 - tail) * scale, end(tail) * scale


def magnitude(estimate: tuple[float, float, float]) -> dict:
    """Size of an estimate (value, lo, hi) whatever its sign, as a claim takes it; an interval over 0 starts at 0."""
    value, lo, hi = estimate
    least = 0.0 if lo <= 0 <= hi else min(abs(lo), abs(hi))
    return {"value": abs(value), "interval": (least, max(abs(lo), abs(hi)))}


def single_runs(first: Float[Tensor, " runs"], second: Float[Tensor, " others"]) -> dict[str, float]:
    """What pairs of single runs show: mean and largest size of their difference, share in which the first is higher.

    The same runs on both sides: every pair of two of them once, and no share.
    """
    gaps = first.unsqueeze(1) - second.unsqueeze(0)
    if torch.equal(first, second):
        one, other = torch.triu_indices(len(first), len(first), 1)
        gaps = gaps[one, other]
        return {
            "mean size": gaps.abs().mean().item(),
            "largest": gaps.abs().max().item(),
            "first higher": math.nan,
        }
    share = (gaps > 0).double().mean().item()
    return {"mean size": gaps.abs().mean().item(), "largest": gaps.abs().max().item(), "first higher": share}
