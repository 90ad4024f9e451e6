r"""How far the paper's own construction is from the gradient step: its formulas evaluated directly, and a search of the best gamma.

`formula_path` follows Lemmas E.6 and E.7 for many values of gamma at once, in any floating type; it is what the weights of
`ica.theory.constructions.paper` compute (way 1, renewed by a layer), without the matrices. Errors are in units of the root mean square
displacement of the prediction over the prompts. Serves the page "The paper's own construction".
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, squared_distance_reward
from ica.theory.constructions.paper import PaperScales, paper_construction, paper_tokens
from ica.theory.prompts import Prompts
from ica.transformer import Transformer


def ladder_prompts(
    batch: int, N: int, d: int, gap: float, generator: torch.Generator, ratio: float = 1.0
) -> Prompts:
    """Unit queries, Gaussian responses of unit mean square norm, rewards in random order with given steps between neighbours.

    Args:
        gap: least difference of two rewards. The best reward is 1, the others go down from it, below 0 if they must.
        ratio: largest difference of neighbours over the least; each is uniform between the two. 1: evenly spaced.

    Raises:
        ValueError: a size below its least value, gap not positive, ratio below 1.
    """
    for name, value, least in (("batch", batch, 1), ("N", N, 2), ("d", d, 1)):
        checks.whole(name, value, least)
    if checks.positive("ratio", ratio) < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    query = torch.randn(batch, d, generator=generator, dtype=torch.float64)
    responses = torch.randn(batch, N, d, generator=generator, dtype=torch.float64) / d**0.5
    share = torch.rand(batch, N - 1, generator=generator, dtype=torch.float64)
    steps = checks.positive("gap", gap) * (1 + (ratio - 1) * share)
    rewards = 1 - torch.cat([torch.zeros(batch, 1, dtype=torch.float64), steps.cumsum(dim=-1)], dim=-1)
    order = torch.rand(batch, N, generator=generator).argsort(dim=-1)
    return Prompts(query / query.norm(dim=-1, keepdim=True), responses, rewards.gather(-1, order))


def average_gap(gamma: float, gap: float, N: int) -> float:
    r"""The $\epsilon$ of Lemma E.7 for N evenly spaced rewards: the largest less their softmax average.

    $$\epsilon = \frac{\sum_k k g\, e^{-\gamma k g}}{\sum_k e^{-\gamma k g}}, \qquad k = 0, \ldots, N - 1$$
    """
    k = torch.arange(N, dtype=torch.float64)
    return float(gap * (k * (-gamma * gap * k).exp()).sum() / (-gamma * gap * k).exp().sum())


@dataclass(frozen=True)
class Path:
    """What the formulas give, for each setting (first axis) and prompt.

    Args:
        shift: what every response has moved by; the exact value is $-\\Delta W x$.
        epsilons: in each block that eliminates, the best remaining reward less the average; what relu sees of it.
        pushed: number of responses that were never pushed before and are pushed in the block.
    """

    shift: Float[Tensor, "settings batch d"]
    epsilons: Float[Tensor, "settings batch blocks"]
    pushed: Float[Tensor, "settings batch blocks"]

    @property
    def underflow(self) -> Bool[Tensor, "settings batch"]:
        """In some block nothing new is pushed."""
        return (self.pushed == 0).any(dim=-1)

    @property
    def together(self) -> Bool[Tensor, "settings batch"]:
        """In some block two responses or more are pushed for the first time."""
        return (self.pushed > 1).any(dim=-1)


def formula_path(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    gamma: Float[Tensor, " settings"],
    epsilon_0: Float[Tensor, " settings"],
    lift: float = 0.0,
) -> Path:
    """Lemmas E.6 and E.7, N - 1 times, in the prompts' type; the last elimination, which nothing reads, is left out.

    Args:
        gamma, epsilon_0, lift: as in `PaperScales`, a pair of the first two for each setting.

    Raises:
        ValueError: gamma and epsilon_0 of different length.
    """
    dtype = prompts.rewards.dtype
    checks.shape("epsilon_0", epsilon_0, tuple(gamma.shape))
    gamma, scale = (v.to(dtype)[:, None, None] for v in (gamma, gamma / epsilon_0))
    prediction = (prompts.query @ W.to(dtype).T).expand(len(gamma), -1, -1)
    copy = prompts.responses.expand(len(gamma), *prompts.responses.shape)
    r = prompts.rewards.expand(len(gamma), *prompts.rewards.shape)
    before, shift = torch.zeros_like(r, dtype=torch.bool), torch.zeros_like(prediction)
    epsilons, pushed = [], []
    N = r.shape[-1]
    for k in range(N - 1):
        select = (gamma * r).softmax(dim=-1)
        average = squared_distance_reward(prediction, copy).softmax(dim=-1)
        shift = shift + 2 * eta * ((average - select).unsqueeze(-2) @ copy).squeeze(-2)
        if k == N - 2:
            break
        r = r - (select * r).sum(dim=-1, keepdim=True)
        epsilons.append(r.amax(dim=-1))
        hit = (r + lift).relu()
        new = (hit > 0) & ~before
        before = before | new
        pushed.append(new.sum(dim=-1).double())
        r = r - scale * hit
        copy = copy - (scale * hit).unsqueeze(-1)
    empty = torch.zeros(*r.shape[:2], 0, dtype=torch.float64)
    stack = [torch.stack(v, dim=-1) if v else empty for v in (epsilons, pushed)]
    return Path(shift, *stack)


def exact_shift(prompts: Prompts, W: Float[Tensor, "d p"], eta: float) -> Float[Tensor, "batch d"]:
    r"""$-\Delta W_{PL}\, x$ in closed form; queries of unit norm."""
    return -2 * eta * pl_direction(prompts.query @ W.T, prompts.responses, prompts.rewards)


def relative(
    shift: Float[Tensor, "*settings batch d"], exact: Float[Tensor, "batch d"]
) -> Float[Tensor, "*settings batch"]:
    """Distance of each shift from the exact one, in RMS displacements; infinite where the shift is not a number."""
    error = (shift.to(exact.dtype) - exact).norm(dim=-1) / exact.norm(dim=-1).square().mean().sqrt()
    return error.nan_to_num(math.inf, posinf=math.inf)


@torch.no_grad()
def model_shift(
    model: Transformer, prompts: Prompts, W: Float[Tensor, "d p"], way: str
) -> Float[Tensor, "batch n d"]:
    """By how much the transformer moves each token's response, in its own type."""
    dtype = model.readout.weight.dtype
    cast = prompts.to(dtype)
    return model(paper_tokens(cast, W, way)) - cast.responses


def model_error(
    prompts: Prompts, W: Float[Tensor, "d p"], scales: PaperScales, terms: int | None = None
) -> Float[Tensor, " batch"]:
    """Error of the transformer itself against the closed form, worst token of each prompt; all N - 1 terms by default."""
    model = paper_construction(W, prompts.responses.shape[1], scales, terms)
    shift = model_shift(model, prompts, W, scales.way)
    return relative(shift.transpose(0, 1), exact_shift(prompts, W, scales.eta)).amax(dim=0)


@dataclass(frozen=True)
class Best:
    """The best setting that a search found: gamma, epsilon_0, the error it reaches and whether it ends the range of gamma."""

    gamma: float
    epsilon_0: float
    error: float
    at_end: bool


def settings(
    N: int, gap: float, products: Float[Tensor, " products"], pushes: Float[Tensor, " pushes"]
) -> tuple[Float[Tensor, " settings"], Float[Tensor, " settings"]]:
    """Pairs of gamma = product / gap and epsilon_0 = `average_gap` / push, all combinations."""
    gamma = (products / gap).repeat_interleave(len(pushes))
    epsilon = torch.tensor([average_gap(float(g), gap, N) for g in products / gap], dtype=torch.float64)
    return gamma, epsilon.repeat_interleave(len(pushes)) / pushes.repeat(len(products))


def errors_over_gamma(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    gamma: Float[Tensor, " settings"],
    epsilon_0: Float[Tensor, " settings"],
    dtype: torch.dtype = torch.float64,
    lift: float = 0.0,
) -> tuple[Float[Tensor, " settings"], Path]:
    """Largest error over the prompts for each setting, computed in `dtype` against the closed form in float64."""
    path = formula_path(prompts.to(dtype), W, eta, gamma, epsilon_0, lift)
    return relative(path.shift, exact_shift(prompts, W, eta)).amax(dim=-1), path


def best_setting(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    gap: float,
    dtype: torch.dtype,
    products: Float[Tensor, " products"],
    pushes: Float[Tensor, " pushes"],
    lift: float = 0.0,
) -> Best:
    """The pair of gamma and epsilon_0 with the least largest error over the prompts, among all combinations."""
    gamma, epsilon_0 = settings(prompts.responses.shape[1], gap, products, pushes)
    if lift:
        epsilon_0 = torch.full_like(gamma, lift)
    errors, _ = errors_over_gamma(prompts, W, eta, gamma, epsilon_0, dtype, lift)
    k = int(errors.argmin())
    return Best(float(gamma[k]), float(epsilon_0[k]), float(errors[k]), k >= len(errors) - len(pushes))


def scales_at(best: Best, scales: PaperScales) -> PaperScales:
    """The scales of a model at the setting that a search found."""
    return replace(scales, gamma=best.gamma, epsilon_0=best.epsilon_0)
