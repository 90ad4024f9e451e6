r"""The closed loop on the task as stated: own predictions enter as rated responses (page `critics`).

Each response has its own noise, so that the quality $r$ of a response is no function of it and of $y^*$,
and a new response needs a rating of its own. Two are defined for every response, in units of the query's
norm:

- *distance*: $r^*(y) = 1 - \lVert y - y^* \rVert / \sqrt{2 d}$, at least 0. As
  $y_i - y^* = (1 - r_i)(e_i - y^*)$ and $\mathbb E \lVert e_i - y^* \rVert^2 = 2 d$, the mean of
  $(1 - r^*(y_i))^2$ is $(1 - r_i)^2$ but for the cut at 0; and it is 1 at $y^*$ alone.
- *likelihood*: the $r$ under which $y \sim N(r y^*, (1 - r)^2 I)$ is most likely; with $t = r / (1 - r)$ and
  $g = y - y^*$ the root of $(1 + t)(y \cdot g + t \lVert g \rVert^2) = d$ that is at least 0, or 0.

A reader is given responses one by one and says a prediction after each. Source: ours.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.synthetic.task import noisy_bayes
from ica.synthetic.task.bayes import NEAREST
from ica.synthetic.task.data import Critic, SyntheticBatch
from ica.synthetic.training.results import Result

HIGHEST = 1 - 1e-6  # a rating lies in [0, 1), as qualities do


# Takes one more response and its rating, for each seed and prompt, and gives the prediction.
Step = Callable[
    [Float[Tensor, "seeds batch d"], Float[Tensor, "seeds batch"]], Float[Tensor, "seeds batch d"]
]
Reader = Callable[[Float[Tensor, "batch d"]], Step]


def by_distance(
    response: Float[Tensor, "*#batch d"], query: Float[Tensor, "*#batch d"], good: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch"]:
    r"""$1 - \lVert y - y^* \rVert / (\sqrt{2 d} \lVert x \rVert)$, at least 0 and below 1."""
    unit = (2 * good.shape[-1]) ** 0.5 * query.norm(dim=-1)
    return (1 - (response - good).norm(dim=-1) / unit).clamp(0, HIGHEST)


def by_likelihood(
    response: Float[Tensor, "*#batch d"], query: Float[Tensor, "*#batch d"], good: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch"]:
    r"""The r of highest likelihood under $y \sim N(r y^*, (1 - r)^2 \lVert x \rVert^2 I)$, in [0, 1)."""
    size = query.double().norm(dim=-1, keepdim=True)
    y, gap = response.double() / size, (response.double() - good.double()) / size
    square, across = gap.square().sum(-1).clamp_min(1e-30), (y * gap).sum(-1)
    # square t^2 + (square + across) t + across - d = 0; the larger root, without cancellation
    half, rest = (square + across) / 2, across - good.shape[-1]
    root = (half.square() - square * rest).sqrt()  # at t = -1 the parabola is at -d, so both roots are real
    t = torch.where(half > 0, -rest / (half + root), (root - half) / square).clamp_min(0)
    return (t / (1 + t)).clamp(0, HIGHEST).to(response.dtype)


RATINGS = {"distance": by_distance, "likelihood": by_likelihood}


def transformer(result: Result) -> Reader:
    """The trained transformers of a run, one for each seed; triplet tokens, causal, one rater.

    Raises:
        ValueError: a run of another form or mask, or with several raters.
    """
    config = result.config
    if (config.form, config.mask, config.critic.raters) != ("triplet", "causal", 1):
        raise ValueError(f"run {result.name} must have triplet tokens, a causal mask and one rater")
    models = result.models()

    def begin(query: Tensor) -> Step:
        seen: list[Tensor] = []

        def step(response: Tensor, rating: Tensor) -> Tensor:
            seen.append(torch.cat([query.expand_as(response), response, rating.unsqueeze(-1)], dim=-1))
            inputs = torch.stack(seen, dim=2)
            return torch.stack([model(one)[:, -1] for model, one in zip(models, inputs, strict=True)])

        return step

    return begin


def trusting(query: Float[Tensor, "batch d"]) -> Step:
    """Bayes for a critic that is taken to be true: `bayes.posterior_mean`, one response after the other."""
    sums = [torch.zeros(()), torch.ones(())]

    def step(response: Tensor, rating: Tensor) -> Tensor:
        said = rating.double().clamp(max=NEAREST).unsqueeze(-1)
        t = said / (1 - said)
        sums[0], sums[1] = sums[0] + t * (1 + t) * response, sums[1] + t.square()
        return (sums[0] / sums[1]).to(response.dtype)

    return step


def best(query: Float[Tensor, "batch d"]) -> Step:
    """Best-of-n: the response rated highest so far, the earliest among equals."""
    kept: list[Tensor] = []

    def step(response: Tensor, rating: Tensor) -> Tensor:
        if not kept:
            kept[:] = response, rating
        higher = rating > kept[1]
        kept[:] = torch.where(higher.unsqueeze(-1), response, kept[0]), torch.maximum(rating, kept[1])
        return kept[0]

    return step


def bayes(level: float, generator: torch.Generator, **rules: int) -> Reader:
    """Bayes that knows how often a rating is replaced and takes every response for a sampler's; one seed."""

    def begin(query: Tensor) -> Step:
        cloud = [noisy_bayes.begin(query, level, **rules)]

        def step(response: Tensor, rating: Tensor) -> Tensor:
            cloud[0], found = noisy_bayes.enter(cloud[0], response[0], rating[0], generator)
            return found.mean.to(response.dtype).unsqueeze(0)

        return step

    return begin


@torch.no_grad()
def run(
    reader: Reader,
    batch: SyntheticBatch,
    critic: Critic,
    generator: torch.Generator,
    *,
    start: int = 4,
    rounds: int = 15,
    seeds: int = 1,
    fresh: bool = False,
    rating: str = "distance",
) -> Float[Tensor, "rounds_and_start seeds batch d"]:
    """Predictions after the first `start` triplets and after each of `rounds` more responses.

    These are the predictions themselves, each entering with its rating, or (`fresh`, an open loop) the next
    triplets of the prompt. The critic rates all, the sampler's responses by their quality, predictions by
    `rating`; the same generator state gives all readers the same errors of the critic.

    Raises:
        ValueError: shared noise, several raters, a rating that there is not, sizes below 1, or more
        responses than the prompts hold.
    """
    N, score = batch.responses.shape[1], RATINGS[checks.one_of("rating", rating, tuple(RATINGS))]
    if batch.noise != "own" or critic.raters != 1:
        raise ValueError(
            f"batch must have own noise and one rater, got {batch.noise} noise and {critic.raters}"
        )
    if checks.whole("start", start, 1) + checks.whole("rounds", rounds, 1) > N:
        raise ValueError(f"start and rounds must be at most N = {N} together, got {start} and {rounds}")
    shown, errors = critic.rate(batch.quality, generator).squeeze(-1), generator.get_state()
    step, found, shape = reader(batch.query), [], (seeds, *batch.query.shape)
    for k in range(start + rounds):
        response, said = batch.responses[:, k].expand(shape), shown[:, k].expand(shape[:-1])
        if k >= start and not fresh:
            response = found[-1]
            quality = score(response, batch.query, batch.good)
            said = torch.stack([_said(one, critic, errors, k, N) for one in quality])
        prediction = step(response, said)
        found += [prediction] * (k >= start - 1)
    return torch.stack(found)


def _said(
    quality: Float[Tensor, " batch"], critic: Critic, errors: Tensor, k: int, N: int
) -> Float[Tensor, " batch"]:
    """What the critic says of the response in place k of N; its errors depend on `errors` and k alone."""
    generator = torch.Generator()
    generator.set_state(errors)
    return critic.rate(quality.unsqueeze(-1).expand(-1, N), generator)[:, k, 0]
