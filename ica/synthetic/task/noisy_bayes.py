r"""The Bayes-optimal prediction under own noise, critic erring with a known probability p (page `critics`).

With probability p a shown reward is a fresh U(0, 1) number, else the quality $\rho_i$. In units of
$\lVert x \rVert$ the posterior is

$$N(y^*; 0, I) \prod_i \Big[ (1-p)\, N(y_i;\, r_i y^*, (1-r_i)^2 I)
+ p \int_0^1 N(y_i;\, \rho y^*, (1-\rho)^2 I)\, d\rho \Big],$$

no Gaussian, and infinite (but integrable) at $y^* = y_i$, where the integral is of order
$\lVert y_i - y^* \rVert^{1-d}$. So $y^*$ is integrated out first: given all odds
$t_i = \rho_i / (1 - \rho_i)$ it is Gaussian, with precision $\Lambda = 1 + \sum_i t_i^2$ and mean
$\sum_i t_i (1 + t_i) y_i / \Lambda$ (`bayes`). Given the other qualities,
$\rho_i$ has a density proportional to

$$\big[(1-p)\, \delta(\rho - r_i) + p\big]\,
N\big(y_i;\, \rho \mu_{-i}, ((1-\rho)^2 + \rho^2 / \Lambda_{-i}) I\big),$$

finite everywhere, and analytic in $-\log(1 - \rho)$: it is drawn by inverse distribution function on
Gauss-Legendre nodes, whose sums stand for the integrals to the quadrature's precision. Its integral is the
evidence of $y_i$, by which particles are resampled when response i enters (the collapsed filter of Chen and
Liu, J. R. Stat. Soc. B 62 (2000), 493-508); Gibbs sweeps over all responses follow. Source: ours; the
sampler is that of App. C.1.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.synthetic.task.bayes import NEAREST, precisions
from ica.synthetic.task.data import SyntheticBatch

LAST = 12.0  # largest -log(1 - rho) of a node: the prior has 6e-6 of its mass beyond
NODES, PANELS = 40, 4


@dataclass(frozen=True)
class Cloud:
    """Particles of several independent groups: what the qualities of all responses so far may be.

    In units of the query's norm: `y` are the responses; `odds` what each one's t can be, that of the reward
    shown last; `prior` the logarithm of its prior times (1 + t)^d; `t` what it is in each particle. `size`
    is the query's norm, `level` the known p.
    """

    size: Float[Tensor, " batch"]
    level: float
    y: Float[Tensor, "batch n d"]
    odds: Float[Tensor, "batch n states"]
    prior: Float[Tensor, "batch n states"]
    t: Float[Tensor, "batch groups particles n"]

    def given(
        self,
    ) -> tuple[Float[Tensor, "batch groups particles d"], Float[Tensor, "batch groups particles 1"]]:
        """Mean and precision of the target in each particle."""
        total = 1 + self.t.square().sum(-1, keepdim=True)
        return (self.t * (1 + self.t)) @ self.y.unsqueeze(1) / total, total


@dataclass(frozen=True)
class Posterior:
    r"""What the particles say of $y^*$.

    Its `mean`; `variance`, the expected $\lVert y^* - mean \rVert^2$; and `error`, the Monte Carlo standard
    error of the mean (root of its sum of squares over the features), from the spread of the groups.
    """

    mean: Float[Tensor, "batch d"]
    variance: Float[Tensor, " batch"]
    error: Float[Tensor, " batch"]


def nodes(count: int = NODES) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    r"""Odds $t = \rho / (1 - \rho)$ of `count` nodes, and weights that integrate over the quality $\rho$.

    Gauss-Legendre in $-\log(1 - \rho)$, in panels.

    Raises:
        ValueError: a count that is no multiple of the number of panels.
    """
    if checks.whole("count", count, PANELS) % PANELS:
        raise ValueError(f"count must be a multiple of {PANELS}, got {count}")
    x, w = np.polynomial.legendre.leggauss(count // PANELS)
    width = LAST / PANELS
    places = torch.tensor(np.concatenate([width * (k + (x + 1) / 2) for k in range(PANELS)]))
    weights = torch.tensor(np.tile(w * width / 2, PANELS)) * (-places).exp()
    return places.expm1(), weights / weights.sum()


def begin(
    query: Float[Tensor, "batch d"], level: float, *, groups: int = 8, particles: int = 8, count: int = NODES
) -> Cloud:
    """A cloud that has seen nothing; ValueError for a number out of its range."""
    if isinstance(level, bool) or not 0 <= level <= 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    checks.whole("groups", groups, 2)
    checks.whole("particles", particles, 1)
    (B, d), states = query.shape, len(nodes(count)[0]) + 1
    size = checks.finite("query", query).double().norm(dim=-1)
    empty = torch.zeros(B, 0, states, dtype=torch.float64)
    t = torch.zeros(B, groups, particles, 0, dtype=torch.float64)
    return Cloud(size, float(level), torch.zeros(B, 0, d, dtype=torch.float64), empty, empty, t)


def _draw(
    cloud: Cloud, i: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch groups particles"], Float[Tensor, "batch groups particles"]]:
    """The odds of response i drawn given those of the others, and its log evidence up to a constant."""
    t, d = cloud.t.clone(), cloud.y.shape[-1]
    t[..., i] = 0  # leaves the response out of the sums
    mean, total = replace(cloud, t=t).given()
    own, odds = (tensor[:, i, None, None] for tensor in (cloud.y, cloud.odds))
    # in units of 1 - rho: y - rho mean = own + odds * (own - mean), of variance 1 + odds^2 / total a feature
    apart, squares = own - mean, own.square().sum(-1, keepdim=True)
    linear, square = 2 * (own * apart).sum(-1, keepdim=True), apart.square().sum(-1, keepdim=True)
    spread = (odds.square() / total).add_(1)
    residual = (square * odds).add_(linear).mul_(odds).add_(squares).div_(spread)
    sums = spread.log_().mul_(-d / 2).sub_(residual, alpha=0.5).add_(cloud.prior[:, i, None, None])
    highest = sums.amax(-1, keepdim=True)
    sums = sums.sub_(highest).exp_().cumsum_(-1)
    uniform = torch.rand(t.shape[:-1], generator=generator, dtype=torch.float64).unsqueeze(-1)
    index = torch.searchsorted(sums, uniform * sums[..., -1:], right=True).clamp_max(odds.shape[-1] - 1)
    found = odds.expand(*t.shape[:-1], -1).gather(-1, index).squeeze(-1)
    return found, (highest + sums[..., -1:].log()).squeeze(-1)


def _survivors(
    evidence: Float[Tensor, "batch groups particles"], generator: torch.Generator
) -> Int[Tensor, "batch groups particles"]:
    """Which particles go on, in proportion to their evidence (systematic resampling in each group)."""
    P = evidence.shape[-1]
    sums = evidence.softmax(-1).cumsum(-1)
    start = torch.rand(*evidence.shape[:-1], 1, generator=generator, dtype=torch.float64)
    places = (torch.arange(P) + start) / P * sums[..., -1:]
    return torch.searchsorted(sums, places, right=True).clamp_max(P - 1)


@torch.no_grad()
def enter(
    cloud: Cloud,
    response: Float[Tensor, "batch d"],
    reward: Float[Tensor, " batch"],
    generator: torch.Generator,
    sweeps: int = 2,
) -> tuple[Cloud, Posterior]:
    """The cloud after one more response, with what it says of the target.

    Raises:
        ValueError: a reward outside [0, 1], responses that are not finite, fewer than one sweep.
    """
    precisions(reward)
    checks.whole("sweeps", sweeps, 1)
    places, weights = nodes(cloud.odds.shape[-1] - 1)
    own = (checks.finite("response", response).double() / cloud.size.unsqueeze(-1)).unsqueeze(1)
    shown = reward.double().clamp(max=NEAREST).unsqueeze(-1)
    shown = shown / (1 - shown)
    odds = torch.cat([places.expand(len(shown), -1), shown], dim=-1).unsqueeze(1)
    chances = torch.cat([cloud.level * weights, torch.tensor([1 - cloud.level], dtype=torch.float64)])
    joined = zip(
        (cloud.y, cloud.odds, cloud.prior), (own, odds, chances.log() + own.shape[-1] * odds.log1p())
    )
    y, odds, prior = (torch.cat(pair, dim=1) for pair in joined)
    cloud = Cloud(cloud.size, cloud.level, y, odds, prior, torch.nn.functional.pad(cloud.t, (0, 1)))
    n, means, totals = y.shape[1], [], []
    found, evidence = _draw(cloud, n - 1, generator)
    cloud.t[..., -1] = found
    chosen = _survivors(evidence, generator).unsqueeze(-1).expand_as(cloud.t)
    cloud = replace(cloud, t=cloud.t.gather(2, chosen))
    for _ in range(sweeps):
        for i in range(n):
            cloud.t[..., i] = _draw(cloud, i, generator)[0]
        for kept, one in zip((means, totals), cloud.given(), strict=True):
            kept.append(one)
    return cloud, _summary(cloud.size, torch.cat(means, 2), torch.cat(totals, 2))


def _summary(
    size: Float[Tensor, " batch"],
    means: Float[Tensor, "batch groups draws d"],
    totals: Float[Tensor, "batch groups draws 1"],
) -> Posterior:
    """The draws, in units of the query's norm, as `Posterior` says."""
    G, d = means.shape[1], means.shape[-1]
    mean = means.mean((1, 2))
    around = (means - mean[:, None, None]).square().mean((1, 2)).sum(-1)
    between = means.mean(2).var(1).sum(-1) / G
    variance = ((d / totals).mean((1, 2, 3)) + around) * size.square()
    return Posterior(mean * size.unsqueeze(-1), variance, between.sqrt() * size)


def known(
    batch: SyntheticBatch,
    last: int,
    level: float,
    generator: torch.Generator,
    *,
    sweeps: int = 2,
    **rules: int,
) -> list[Posterior]:
    """The posteriors after 1, 2, ... `last` triplets of prompts with own noise and one rater, p = `level`.

    With level 0 the means are `bayes.posterior_mean`; with level 1 the rewards do not enter. `rules` go to
    `begin`, `sweeps` to `enter`.

    Raises:
        ValueError: shared noise, several raters, `last` outside 1 to N, or as `begin` and `enter` say.
    """
    N, raters = batch.responses.shape[1], batch.shown.shape[-1]
    if batch.noise != "own" or raters != 1:
        raise ValueError(f"batch must have own noise and one rater, got {batch.noise} noise and {raters}")
    if checks.whole("last", last, 1) > N:
        raise ValueError(f"last must be at most N = {N}, got {last}")
    cloud, found = begin(batch.query, level, **rules), []
    for n in range(last):
        cloud, one = enter(cloud, batch.responses[:, n], batch.rewards[:, n], generator, sweeps)
        found.append(one)
    return found
