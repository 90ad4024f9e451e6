r"""When the squared-distance loss of responses off a line has a minimiser; how far it is from the target.

For the notebook "floor", on the task as stated: each response has noise of its own. Errors: normalised MSE.
"""

import math
from dataclasses import fields

import matplotlib.pyplot as plt
import pandas as pd
import scipy  # loads a part where it is used first
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from ica import checks, minimiser
from ica.intervals import mean_interval, median_interval
from ica.objectives import pl_direction, pl_gradient, pl_loss, predict, squared_distance_reward
from ica.record import figures
from ica.synthetic.task import bayes
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.metrics import linearised, normalised_mse

COLUMNS = {
    "panel": "left: share of prompts; right: error",
    "label": "the curve",
    "d": "features of a response",
    "n": "responses seen",
    "share": "share of prompts whose loss has a minimiser",
    "statistic": "mean or median over prompts",
    "error": "normalised MSE, squared error over the mean squared norm of the target",
    "lo": "lower end of the 95 % interval over prompts (share: Wilson)",
    "hi": "upper end of the 95 % interval over prompts",
    "prompts": "prompts; none: exact, no sampling",
}


def proportion(hits: Bool[Tensor, " prompts"]) -> dict:
    """Share of prompts with its 95 % interval (Wilson), as a claim takes it: {"value", "interval", "n"}."""
    count, found = len(hits), int(hits.sum())
    lo, hi = scipy.stats.binomtest(found, count).proportion_ci(method="wilson")
    return {"value": found / count, "interval": (float(lo), float(hi)), "n": {"prompts": count}}


def shares(first: Int[Tensor, " prompts"], d: int, N: int) -> pd.DataFrame:
    """Share of prompts with a minimiser at n = 2 to N, from the least n of each; of random ranks, exact."""
    rows, count = [], len(first)
    for n in range(2, N + 1):
        found = proportion(first <= n)
        rows.append((f"d = {d}", d, n, found["value"], *found["interval"], count))
        exact = 1 - minimiser.orders(n, d) / math.factorial(n)
        rows.append((f"d = {d}, random ranks", d, n, exact, None, None, None))
    return pd.DataFrame(rows, columns=["label", "d", "n", "share", "lo", "hi", "prompts"])


def minimisers(
    batch: SyntheticBatch, first: Int[Tensor, " batch"], sizes: list[int]
) -> Float[Tensor, "sizes batch d"]:
    """The exact minimiser of the first n responses, n in `sizes`; NaN where n is below the prompt's least."""
    found = torch.full((len(sizes), *batch.good.shape), torch.nan, dtype=torch.float64)
    for row, n in enumerate(sizes):
        some = first <= n
        ranked = minimiser.ranked(batch.responses[some, :n], batch.rewards[some, :n])
        found[row, some] = minimiser.newton(ranked)
    return found


def split(
    prediction: Float[Tensor, "batch d"], good: Float[Tensor, "batch d"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The two parts of the normalised MSE: from the component along the target, and from that across it."""
    along = (prediction * good).sum(-1, keepdim=True) / good.square().sum(-1, keepdim=True) * good
    return normalised_mse(along, good), normalised_mse(prediction - along + good, good)


def over_prompts(error: Float[Tensor, " batch"], good: Float[Tensor, "batch d"]) -> Float[Tensor, "1 batch"]:
    """Values of the mean of `error` for intervals and claims: the denominator is drawn with the prompts."""
    return linearised(error.unsqueeze(-1), good).T


def row(label: str, n: int, error: Float[Tensor, " batch"], good: Float[Tensor, "batch d"]) -> dict:
    """Mean of an error over prompts with its 95 % interval, as a row of a figure's data."""
    mean, lo, hi = (value.item() for value in mean_interval(over_prompts(error, good)))
    return {
        "label": label,
        "n": n,
        "statistic": "mean",
        "error": mean,
        "lo": lo,
        "hi": hi,
        "prompts": len(error),
    }


def curve(
    label: str,
    predictions: Float[Tensor, "sizes batch d"],
    good: Float[Tensor, "batch d"],
    sizes: list[int],
    statistic: str = "mean",
) -> list[dict]:
    """Normalised MSE at each n over the prompts with a prediction, if 20 have one: rows of a figure's data.

    The "median" is of the same values: few prompts carry the mean where the minimiser has just come to exist.
    """
    rows = []
    for n, found in zip(sizes, predictions, strict=True):
        some = found.isfinite().all(-1)
        if some.sum() < 20:
            continue
        error = normalised_mse(found[some], good[some])
        rows.append(row(label, n, error, good[some]))
        if checks.one_of("statistic", statistic, ("mean", "median")) == "median":
            middle = dict(zip(("error", "lo", "hi"), median_interval(error.tolist()), strict=True))
            rows[-1] |= {"statistic": "median"} | middle
    return rows


def exact_curves(sizes: list[int]) -> list[dict]:
    """Expected error of the Bayes-optimal prediction and of best-of-n, without sampling."""
    rules = {"best-of-n": bayes.expected_best_of_n, "Bayes": bayes.expected_error}
    return [
        {"label": label, "n": n, "statistic": "mean", "error": rule(n)}
        for label, rule in rules.items()
        for n in sizes
    ]


def told(batch: SyntheticBatch, N: int, sets: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
    r"""The c for which $c\, y^*$ has the least expected loss of N drawn responses, $y^*$ and x given.

    No prediction has less: the expected loss is convex and unchanged by rotations about $y^*$. It is taken
    over `sets` fresh draws of N responses; bisection of its derivative in c.

    Raises:
        ValueError: fewer than two responses, no sets, a factor outside -16 to 16.
    """
    (B, d), shape = (
        batch.good.shape,
        (len(batch.good), checks.whole("sets", sets, 1), checks.whole("N", N, 2)),
    )
    quality = torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(*shape, d, generator=generator, dtype=torch.float64)
    good, size = batch.good.double(), batch.query.double().norm(dim=-1)
    responses = torch.lerp(noise * size[:, None, None, None], good[:, None, None].expand_as(noise), quality)

    def rises(c: Float[Tensor, " batch"]) -> Tensor:
        prediction = (c.unsqueeze(-1) * good).unsqueeze(1).expand(B, sets, d)
        falls = pl_direction(prediction, responses, quality.squeeze(-1)).mean(1)
        return (falls * good).sum(-1) < 0

    lo, hi = torch.full((B,), -16.0, dtype=torch.float64), torch.full((B,), 16.0, dtype=torch.float64)
    if rises(lo).any() or not rises(hi).all():
        raise ValueError("sets must be enough for a least expected loss between c = -16 and 16")
    for _ in range(20):
        middle = (lo + hi) / 2
        over = rises(middle)
        lo, hi = torch.where(over, lo, middle), torch.where(over, middle, hi)
    return (lo + hi) / 2


def head(batch: SyntheticBatch, count: int) -> SyntheticBatch:
    """The first prompts of a batch."""
    return SyntheticBatch(*(getattr(batch, field.name)[:count] for field in fields(batch)))


def start(batch: SyntheticBatch, generator: torch.Generator) -> Float[Tensor, "batch d d"]:
    """Weights from which GD begins: Gaussian of variance 1/d, as in `baselines.descend`."""
    B, d = batch.query.shape
    return torch.randn(B, 1, d, d, generator=generator, dtype=torch.float64)[:, 0] / d**0.5


def adam_path(
    batch: SyntheticBatch, n: int, generator: torch.Generator, steps: int, rate: float = 0.1
) -> Float[Tensor, "steps_and_start batch d"]:
    """Predictions of GD as stated (Adam on W, one for each prompt, the first n triplets), from the start on.

    The k-th are those of `baselines.descend` with k steps, the same generator and no other prefix.

    Raises:
        ValueError: steps < 1, or as `objectives.ranking` says.
    """
    checks.whole("steps", steps, 1)
    W = start(batch, generator)
    query, y, r = batch.query.double(), batch.responses[:, :n].double(), batch.rewards[:, :n]
    optimiser, path = torch.optim.Adam([W], lr=rate), [predict(W, query)]
    for _ in range(steps):
        W.grad = pl_gradient(W, query, y, r)
        optimiser.step()
        path.append(predict(W, query))
    return torch.stack(path)


def losses(
    predictions: Float[Tensor, "*steps batch d"], batch: SyntheticBatch, n: int
) -> Float[Tensor, "*steps batch"]:
    """Squared-distance Plackett-Luce loss of the first n responses (nats)."""
    scores = squared_distance_reward(predictions, batch.responses[:, :n].double())
    return pl_loss(scores, batch.rewards[:, :n].double().expand(scores.shape))


def plain_path(
    batch: SyntheticBatch,
    n: int,
    generator: torch.Generator,
    steps: int,
    rate: float = 0.1,
    terms: bool = False,
) -> Float[Tensor, "steps_and_start batch d"]:
    """As `adam_path` from the same start, by plain gradient descent; `terms`: on the mean of the terms."""
    query = batch.query.double()
    rates = rate * query.square().sum(-1) / (n - 1 if terms else 1)
    begin = predict(start(batch, generator), query)
    return minimiser.plain_descent(batch.responses[:, :n].double(), batch.rewards[:, :n], begin, rates, steps)


def reached(excess: Float[Tensor, "steps_and_start batch"], within: float) -> Float[Tensor, " batch"]:
    """Steps until a loss is first so near its minimum; infinite for prompts that never are."""
    near = excess <= within
    return near.double().argmax(0).double().masked_fill(~near.any(0), torch.inf)


def draw(share: pd.DataFrame, error: pd.DataFrame, limit: float) -> tuple[Figure, pd.DataFrame]:
    """Figure and data: share of prompts with a minimiser, and errors with their limit, against n.

    Args:
        share: as `shares` gives it, of several d.
        error: columns label, n, statistic, error, lo, hi, prompts; labels are names of `ica.record.styles`.
        limit: normalised MSE of the minimiser for n to infinity.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9), width_ratios=[1, 1.15])
    for d, group in share.groupby("d"):
        sampled, exact = group[group["prompts"].notna()], group[group["prompts"].isna()]
        (line,) = left.plot(sampled["n"], sampled["share"], label=f"d = {d}", markersize=4, linestyle="-")
        figures.band(left, sampled["n"], sampled["lo"], sampled["hi"], colour=line.get_color())
        thin = {"color": line.get_color(), "marker": "", "linewidth": 1.4}
        left.plot(exact["n"], exact["share"], ":", **thin)
    left.plot([], [], ":", marker="", color=figures.MUTED, linewidth=1.4, label="random ranks")
    left.set(xlabel="responses seen, n", ylabel="share of prompts with a minimiser", ylim=(-0.03, 1.35))
    left.set(xticks=[2, 5, 10, 15, 20], yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    left.legend(loc="upper center", ncols=2)
    left.set_title("when there is a minimiser", loc="left")
    names = {("gradient descent", "mean"): "GD, 50 steps", ("exact minimiser", "median"): "its median"}
    for (label, statistic), group in error.groupby(["label", "statistic"], sort=False):
        style, name = figures.style_of(label), names.get((label, statistic), label)
        if statistic == "median":
            style |= {"linestyle": ":", "markerfacecolor": figures.BACKGROUND}
        right.plot(group["n"], group["error"], label=name, markersize=4, **style)
        if group["lo"].notna().all():
            figures.band(right, group["n"], group["lo"], group["hi"], colour=style["color"])
    right.axhline(limit, label="minimiser, n → ∞", **figures.style_of("bound"))
    right.set(xscale="log", yscale="log", xlabel="responses seen, n", ylabel="normalised MSE")
    sizes, powers = [2, 5, 10, 20, 50, 200], ["0.00001", "0.0001", "0.001", "0.01", "0.1", "1", "10"]
    right.set_xticks(sizes, map(str, sizes))
    right.set_yticks([*map(float, powers)], powers)
    right.set_ylim(2e-6, 12)
    right.minorticks_off()
    right.legend(loc="lower left")
    right.set_title("how far it is from y* (d = 5)", loc="left")
    data = pd.concat([share.assign(panel="left"), error.assign(panel="right", d=5)], ignore_index=True)
    return fig, data.astype(object).where(data.notna(), None)[[name for name in COLUMNS if name in data]]
