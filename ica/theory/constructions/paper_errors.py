r"""How far the paper's own construction is from the gradient step: its formulas evaluated directly, and a
search of the best gamma.

`formula_path` follows Lemmas E.6 and E.7 for many values of gamma at once, in any floating type; it is what
the weights of `ica.theory.constructions.paper` compute (way 1, renewed by a layer), without the matrices.
Errors are in units of the root mean square displacement of the prediction over the prompts. Serves the page
"The paper's own construction".
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, squared_distance_reward
from ica.theory.constructions.online import prefix
from ica.theory.constructions.paper import PaperScales, given, paper_construction, paper_tokens
from ica.theory.constructions.paper_causal import CausalScales, causal_construction, causal_tokens
from ica.theory.constructions.several_queries import SeveralQueries, directions
from ica.theory.prompts import Prompts
from ica.transformer import Transformer


def ladder_prompts(
    batch: int, N: int, d: int, gap: float, generator: torch.Generator, ratio: float = 1.0
) -> Prompts:
    """Unit queries, Gaussian responses of unit mean square norm, rewards in random order with given steps
    between neighbours.

    Args:
        gap: least difference of two rewards. The best reward is 1, the others go down from it, below 0 if
            they must.
        ratio: largest difference of neighbours over the least; each is uniform between the two. 1: evenly
            spaced.

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
        epsilons: in each block that eliminates, the best remaining reward less the average; what relu sees
            of it.
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
    """Lemmas E.6 and E.7, N - 1 times, in the prompts' type; the last elimination, which nothing reads, is
    left out.

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
    r"""$-\Delta W_{PL}\, x$ in closed form; ValueError for queries that have not norm 1 (the construction's $2 \eta$
    stands for $2 \eta \|x\|^2$)."""
    _accept(prompts)
    return -2 * eta * pl_direction(prompts.query @ W.T, prompts.responses, prompts.rewards)


def _accept(prompts: Prompts) -> None:
    """What the weights take for granted and cannot see."""
    off = (prompts.query.norm(dim=-1) - 1).abs()
    if (off > 1e-6).any():
        raise ValueError(
            f"norm of x must be 1, off by {off.max():.3g} in prompt {int(off.argmax())}; scale x"
        )


def first_term_shift(prompts: Prompts, W: Float[Tensor, "d p"], eta: float) -> Float[Tensor, "batch d"]:
    r"""$-\Delta W x$ for the first Plackett-Luce term alone: InfoNCE, its positive the best response; refuses as
    `exact_shift` does."""
    _accept(prompts)
    best = prompts.rewards.argmax(dim=-1)
    beta = squared_distance_reward(prompts.query @ W.T, prompts.responses).softmax(dim=-1)
    average = (beta.unsqueeze(1) @ prompts.responses).squeeze(1)
    return 2 * eta * (average - prompts.responses[torch.arange(len(best)), best])


def relative(
    shift: Float[Tensor, "*settings batch d"], exact: Float[Tensor, "batch d"]
) -> Float[Tensor, "*settings batch"]:
    """Distance of each shift from the exact one, in RMS displacements; infinite where it is not a number."""
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
    """Error of the transformer itself against the closed form, worst token of each prompt.

    Raises:
        ValueError: terms neither 1 (InfoNCE) nor the default, all of the loss.
    """
    checks.one_of("terms", terms, (None, 1))
    model = paper_construction(W, prompts.responses.shape[1], scales, terms)
    shift = model_shift(model, prompts, W, scales.way)
    exact = exact_shift if terms is None else first_term_shift
    return relative(shift.transpose(0, 1), exact(prompts, W, scales.eta)).amax(dim=0)


@dataclass(frozen=True)
class Best:
    """What a search found: gamma, epsilon_0, the error they reach, and whether gamma ends the range."""

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
    """Largest error over the prompts for each setting, computed in `dtype`, the closed form in float64."""
    path = formula_path(prompts.to(dtype), W, eta, gamma, epsilon_0, lift)
    return relative(path.shift, exact_shift(prompts, W, eta)).amax(dim=-1), path


def window(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    gap: float,
    products: Float[Tensor, " products"],
    pushes: Float[Tensor, " pushes"],
    dtype: torch.dtype = torch.float64,
    lift: float = 0.0,
) -> list[dict[str, float | bool]]:
    """For each gamma the best epsilon_0: "gamma", "epsilon_0", "error", and how the elimination failed, if
    so.

    "together": some prompt had two responses pushed at once; "underflow": in some block nothing was pushed.
    With a lift epsilon_0 is the lift.
    """
    gamma, epsilon_0 = settings(prompts.responses.shape[1], gap, products, pushes)
    if lift:
        epsilon_0 = torch.full_like(gamma, lift)
    errors, path = errors_over_gamma(prompts, W, eta, gamma, epsilon_0, dtype, lift)
    columns = {
        "gamma": gamma,
        "epsilon_0": epsilon_0,
        "error": errors,
        "together": path.together.any(dim=-1),
        "underflow": path.underflow.any(dim=-1),
    }
    best = errors.unflatten(0, (len(products), len(pushes))).argmin(dim=1)
    chosen = best + len(pushes) * torch.arange(len(products))
    return [{name: values[k].item() for name, values in columns.items()} for k in chosen]


def best_setting(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    scales: PaperScales,
    gap: float,
    products: Float[Tensor, " products"],
    pushes: Float[Tensor, " pushes"],
    tries: int = 4,
) -> Best:
    """The gamma and epsilon_0 at which the *transformer* has the least largest error over prompts and tokens.

    The formulas choose `tries` pairs, of as many values of gamma; the transformer, which rounds differently
    where little is left of epsilon, decides among them. Gamma and epsilon_0 of `scales` do not matter.
    """
    rows = window(prompts, W, scales.eta, gap, products, pushes, scales.dtype)
    found = []
    for row in sorted(rows, key=lambda row: row["error"])[: checks.whole("tries", tries, 1)]:
        told = replace(scales, gamma=row["gamma"], epsilon_0=row["epsilon_0"])
        at_end = row["gamma"] == rows[-1]["gamma"]
        found.append(Best(told.gamma, told.epsilon_0, float(model_error(prompts, W, told).max()), at_end))
    return min(found, key=lambda best: best.error)


def median_best(
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    dtype: torch.dtype,
    gammas: Float[Tensor, " gammas"],
    epsilons: Float[Tensor, " epsilons"],
) -> Best:
    """The pair with the least *median* error over the prompts: for gaps that no pair can serve."""
    gamma, epsilon_0 = torch.cartesian_prod(gammas, epsilons).unbind(dim=1)
    path = formula_path(prompts.to(dtype), W, eta, gamma, epsilon_0)
    errors = relative(path.shift, exact_shift(prompts, W, eta)).median(dim=-1).values
    k = int(errors.argmin())
    return Best(float(gamma[k]), float(epsilon_0[k]), float(errors[k]), k >= len(errors) - len(epsilons))


def uniform_rewards(prompts: Prompts, generator: torch.Generator) -> Prompts:
    """The same prompts with rewards uniform on [0, 1], as in the paper's experiment."""
    rewards = torch.rand(prompts.rewards.shape, generator=generator, dtype=torch.float64)
    return Prompts(prompts.query, prompts.responses, rewards.to(prompts.rewards.dtype))


def alike_queries(
    batch: int, M: int, N: int, d: int, inner: float, gap: float, generator: torch.Generator
) -> SeveralQueries:
    """Prompts of M unit queries, any two with one inner product, N evenly spaced rewards each, on levels
    that differ by up to 1/2.

    Raises:
        ValueError: M > d, inner outside of [0, 1).
    """
    if checks.whole("M", M, 1) > d:
        raise ValueError(f"M must be at most d = {d}, got {M}")
    if not 0 <= inner < 1:
        raise ValueError(f"inner must be at least 0 and below 1, got {inner}")
    gram = torch.full((M, M), float(inner), dtype=torch.float64).fill_diagonal_(1.0)
    frame = torch.linalg.qr(torch.randn(batch, d, d, generator=generator, dtype=torch.float64)).Q[..., :M]
    queries = (frame @ torch.linalg.cholesky(gram).T).transpose(1, 2)
    groups = [ladder_prompts(batch, N, d, gap, generator) for _ in range(M)]
    level = torch.rand(batch, M, 1, generator=generator, dtype=torch.float64) / 2
    rewards = torch.stack([group.rewards for group in groups], dim=1) - level
    return SeveralQueries(queries, torch.stack([group.responses for group in groups], dim=1), rewards)


@torch.no_grad()
def queries_error(
    prompts: SeveralQueries, W: Float[Tensor, "d p"], scales: PaperScales
) -> Float[Tensor, "batch M"]:
    r"""Error of App. F.1, worst token of each group: every group should take the step of its own loss,
    $-2\eta D_q$.

    The unit is the RMS displacement over all groups. N - 1 blocks serve all groups; way 1 has a slot for
    each of the M N tokens.
    """
    batch, M, N, _ = prompts.responses.shape
    query = prompts.queries.repeat_interleave(N, dim=1)
    responses = prompts.responses.flatten(1, 2)
    triplets = torch.cat([query, responses, prompts.rewards.flatten(1).unsqueeze(-1)], dim=-1)
    tokens = torch.cat([triplets, *given(query, responses, W, scales.way)], dim=-1).to(scales.dtype)
    model = paper_construction(W, M * N, scales, N - 1)
    shift = (model(tokens).to(responses.dtype) - responses).unflatten(1, (M, N))
    exact = -2 * scales.eta * directions(W.expand(batch, *W.shape), prompts)
    unit = exact.norm(dim=-1).square().mean().sqrt()
    return ((shift - exact.unsqueeze(2)).norm(dim=-1).amax(dim=-1) / unit).nan_to_num(math.inf, math.inf)


@torch.no_grad()
def causal_error(
    prompts: Prompts, W: Float[Tensor, "d p"], scales: CausalScales, sink: bool = False
) -> Float[Tensor, "batch prefixes"]:
    """Error of App. F.2.1 at tokens 2, ..., N against the step of their prefix, in its RMS displacement."""
    N, d = prompts.responses.shape[1:]
    model = causal_construction(d, prompts.query.shape[-1], N, scales)
    tokens = causal_tokens(prompts, W, scales, sink).to(scales.dtype)
    shift = model(tokens)[:, -N:].to(prompts.responses.dtype) - prompts.responses
    exact = [exact_shift(prefix(prompts, i), W, scales.eta) for i in range(2, N + 1)]
    return torch.stack([relative(shift[:, i + 1], one) for i, one in enumerate(exact)], dim=-1)
