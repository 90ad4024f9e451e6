r"""Several queries in one prompt, told apart by positional encodings (ours; App. F.1 of the paper takes inner products).

A prompt holds Q queries $x_q$ with N ranked responses each. There is one linear map W, and the loss is the
sum of the queries' Plackett-Luce losses. A step of gradient descent moves the prediction of query q by all
groups, weighted with the queries' Gram matrix:

$$\hat y_q \leftarrow \hat y_q + 2 \eta \sum_{q'} (x_q \cdot x_{q'})\, D_{q'}$$

with $D_q = \sum_{i<N} ( y_{\tau(i)} - \sum_{j \ge i} \beta^i_j y_{\tau(j)} )$ of group q.

* Position codes (one feature per group) add $-M(1 - \langle p_i, p_j \rangle)$ to every score: exactly 0
  inside a group, and so low outside that the softmax weight is exactly 0. The N-1 Plackett-Luce blocks
  serve all groups.
* One more block weights the groups by K pairs of heads with scores $\pm k \epsilon\, x_i \cdot x_j$ and a
  start token of score L and value 0 as a sink, which makes the softmax an exponential: $e^{z - L}$ up to a
  factor $1 + O(n e^{-L})$. The central difference of order 2K of $e^{tz}$ at t = 0 is z, but for at most
  `truncation`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, pl_loss, squared_distance_reward
from ica.theory.compare import predictions_along, reference_tokens
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, Unit, carry, set_head, set_units
from ica.theory.constructions.plackett_luce import eliminate
from ica.theory.constructions.thresholds import clear_units
from ica.theory.prompts import default_gap, spaced_rewards
from ica.transformer import Attention, Transformer


@dataclass(frozen=True)
class SeveralQueries:
    """A batch of prompts of Q queries with N responses each, validated.

    Args:
        queries: Q >= 1 queries per prompt.
        responses: N >= 2 responses per query.
        rewards: the critic's values, distinct within the group of a query.

    Raises:
        ValueError: shapes that do not fit, N < 2, mixed or unknown types, values not finite, tied rewards.
    """

    queries: Float[Tensor, "batch Q p"]
    responses: Float[Tensor, "batch Q N d"]
    rewards: Float[Tensor, "batch Q N"]

    def __post_init__(self):
        checks.shape("responses", self.responses, (None, None, None, None))
        batch, Q, N, _ = self.responses.shape
        checks.whole("responses: N", N, 2)
        checks.shape("queries", self.queries, (batch, Q, None))
        checks.shape("rewards", self.rewards, (batch, Q, N))
        for name in ("queries", "responses", "rewards"):
            checks.finite(name, getattr(self, name))
            checks.one_of(f"{name}.dtype", getattr(self, name).dtype, (self.responses.dtype,))
        checks.distinct("rewards", self.rewards)

    def to(self, dtype: torch.dtype) -> "SeveralQueries":
        """The same prompts in another floating type."""
        checks.dtype("dtype", dtype)
        return SeveralQueries(self.queries.to(dtype), self.responses.to(dtype), self.rewards.to(dtype))

    def tokens(self) -> Float[Tensor, "batch n inputs"]:
        r"""A start token of zeros, then $(x_q, y_i, \|y_i\|^2, r_i)$ group by group: n = 1 + Q N tokens."""
        query = self.queries.unsqueeze(2).expand(*self.responses.shape[:3], -1)
        norms = self.responses.square().sum(dim=-1, keepdim=True)
        triplets = torch.cat([query, self.responses, norms, self.rewards.unsqueeze(-1)], dim=-1)
        return with_start(triplets.flatten(1, 2))

    def at_queries(self, outputs: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch Q N d"]:
        """Outputs at the tokens of each group."""
        return outputs[:, 1:].unflatten(1, self.responses.shape[1:3])


def with_start(tokens: Float[Tensor, "batch n inputs"]) -> Float[Tensor, "batch n_and_start inputs"]:
    """The tokens behind a start token of zeros (no query, no response; its position alone marks it)."""
    return torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)


def sample_several(
    batch: int,
    Q: int,
    N: int,
    d: int,
    p: int | None = None,
    *,
    gap: float | None = None,
    orthonormal: bool = False,
    generator: torch.Generator,
) -> SeveralQueries:
    """Prompts with unit queries (p features; default d), responses of unit mean square norm, rewards in 0..1.

    Args:
        gap: smallest difference of two rewards of a group; default `default_gap(N)`.
        orthonormal: make the queries of a prompt orthogonal to each other.
        generator: the only source of randomness.

    Raises:
        ValueError: a size below its least value, a gap that does not fit, orthonormal with Q > p.
    """
    p = d if p is None else p
    for name, value, least in (("batch", batch, 1), ("Q", Q, 1), ("N", N, 2), ("d", d, 1), ("p", p, 1)):
        checks.whole(name, value, least)
    if orthonormal and Q > p:
        raise ValueError(f"Q must be at most p = {p} for orthonormal queries, got {Q}")
    queries = torch.randn(batch, Q, p, generator=generator, dtype=torch.float64)
    if orthonormal:
        queries = torch.linalg.qr(queries.transpose(1, 2)).Q.transpose(1, 2)
    queries = queries / queries.norm(dim=-1, keepdim=True)
    responses = torch.randn(batch, Q, N, d, generator=generator, dtype=torch.float64) / d**0.5
    rewards = spaced_rewards(batch * Q, N, default_gap(N) if gap is None else gap, generator)
    return SeveralQueries(queries, responses, rewards.unflatten(0, (batch, Q)))


def predictions(W: Float[Tensor, "batch d p"], prompts: SeveralQueries) -> Float[Tensor, "batch Q d"]:
    r"""Prediction $W x_q$ of each query."""
    return prompts.queries @ W.transpose(-2, -1)


def summed_loss(W: Float[Tensor, "batch d p"], prompts: SeveralQueries) -> Float[Tensor, " batch"]:
    """Sum over queries of their Plackett-Luce losses; one linear map per prompt, squared-distance reward."""
    scores = squared_distance_reward(predictions(W, prompts), prompts.responses)
    return pl_loss(scores, prompts.rewards).sum(dim=-1)


def summed_descent(
    W: Float[Tensor, "batch d p"], prompts: SeveralQueries, eta: float, steps: int
) -> Float[Tensor, "steps_and_start batch d p"]:
    """Weights along plain gradient descent on `summed_loss` by automatic differentiation, the start included.

    Raises:
        ValueError: W of a shape that does not fit the prompts, not finite; eta or steps out of range.
    """
    checks.finite("W", checks.shape("W", W, (len(W), prompts.responses.shape[-1], prompts.queries.shape[-1])))
    checks.positive("eta", eta)
    path = [W.detach().clone()]
    for _ in range(checks.whole("steps", steps, 0)):
        leaf = path[-1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(summed_loss(leaf, prompts).sum(), leaf)
        path.append(path[-1] - eta * gradient)
    return torch.stack(path)


def query_distances(
    model: Transformer,
    prompts: SeveralQueries,
    W: Float[Tensor, "d p"],
    eta: float,
    steps: int,
    unchecked: bool = False,
) -> tuple[Float[Tensor, "steps batch Q"], Float[Tensor, "steps batch Q"]]:
    """Distance of the model's predictions from autograd's after 1, ..., `steps` steps (worst token of each
    group), and the way that the latter have gone; the quotient is the relative error.

    The model computes in its own type; the reference is autograd on the prompts as given. Every prompt starts
    from the same W. Raises ValueError for a depth that is no multiple of `steps`; as `reference_tokens` says.
    """
    tokens = reference_tokens(model, prompts, W, eta, steps, unchecked)
    path = summed_descent(W.expand(len(prompts.queries), *W.shape), prompts, eta, steps)
    reference = torch.stack([predictions(each, prompts) for each in path])
    read = predictions_along(model, tokens, len(model.blocks) // steps, unchecked)[1:].to(path.dtype)
    moved = torch.stack([prompts.at_queries(each) for each in read])
    distance = (moved - reference[1:].unsqueeze(3)).norm(dim=-1).amax(dim=-1)
    return distance, (reference[1:] - reference[:1]).norm(dim=-1)


def directions(W: Float[Tensor, "batch d p"], prompts: SeveralQueries) -> Float[Tensor, "batch Q d"]:
    r"""The vector $D_q$ of each group: half of minus the gradient of its loss in its own prediction."""
    return pl_direction(predictions(W, prompts), prompts.responses, prompts.rewards)


def gram(prompts: SeveralQueries) -> Float[Tensor, "batch Q Q"]:
    """Inner products of the queries of a prompt."""
    return prompts.queries @ prompts.queries.transpose(-2, -1)


def extinction(dtype: torch.dtype) -> float:
    """Score difference behind which a softmax weight of this type is exactly zero, with a tenth to spare."""
    info = torch.finfo(dtype)
    return -1.1 * (math.log(info.smallest_normal) + math.log(info.eps))


def difference_weights(pairs: int) -> list[float]:
    r"""Weights $c_1, \ldots, c_K$ of the central difference of order 2K for a first derivative.

    $$f'(0) \approx \frac{1}{\epsilon} \sum_{k=1}^{K} c_k \big( f(k\epsilon) - f(-k\epsilon) \big), \qquad
    c_k = (-1)^{k+1} \frac{(K!)^2}{k\,(K-k)!\,(K+k)!}$$

    Exact for polynomials of degree at most 2K. Raises ValueError for pairs < 1.
    """
    K = checks.whole("pairs", pairs, 1)
    top = math.factorial(K) ** 2
    return [
        (-1) ** (k + 1) * top / (k * math.factorial(K - k) * math.factorial(K + k)) for k in range(1, K + 1)
    ]


def truncation(z: Float[Tensor, "*shape"], pairs: int, epsilon: float) -> Float[Tensor, "*shape"]:
    r"""Bound on the error of the central difference of $e^{tz}$ at t = 0, for K = `pairs` and step epsilon.

    $$\frac{(K!)^2}{(2K+1)!}\, \epsilon^{2K} |z|^{2K+1} e^{K \epsilon |z|}$$

    Raises:
        ValueError: pairs < 1 or epsilon not above 0.
    """
    K, z = checks.whole("pairs", pairs, 1), z.abs()
    constant = math.factorial(K) ** 2 / math.factorial(2 * K + 1)
    return (
        constant * checks.positive("epsilon", epsilon) ** (2 * K) * z ** (2 * K + 1) * (K * epsilon * z).exp()
    )


def rounding(n: int, assumptions: Assumptions) -> float:
    r"""Relative rounding error of a weight $e^{z-L}$: that of its score, L times half the machine epsilon."""
    return assumptions.margin(n) * torch.finfo(assumptions.dtype).eps / 2


def balanced_epsilon(pairs: int, n: int, assumptions: Assumptions) -> float:
    r"""The $\epsilon$ at which truncation (for |z| = 1) plus rounding$/\epsilon$ is least, for n tokens."""
    K = checks.whole("pairs", pairs, 1)
    constant = 2 * K * math.factorial(K) ** 2 / math.factorial(2 * K + 1)
    return (rounding(n, assumptions) / constant) ** (1 / (2 * K + 1))


def several_layout(d: int, p: int, Q: int) -> Layout:
    """Places of the stream: those of the Plackett-Luce construction, the group code and the start flag."""
    return Layout(x=p, y=d, s=1, r=1, mark=1, yhat=d, acc=d, top=1, one=1, start=1, group=Q)


def several_queries(
    W: Float[Tensor, "d p"],
    Q: int,
    N: int,
    assumptions: Assumptions,
    steps: int = 1,
    pairs: int = 6,
    epsilon: float | None = None,
    lead: float | None = None,
) -> Transformer:
    r"""Softmax transformer that takes gradient steps on the summed loss of Q queries with N responses each.

    Tokens as in `SeveralQueries.tokens`; the prediction of query q is read at each token of its group.
    Assumed besides: rewards in [0, spread]; queries of norm at most 1 (orthonormal if pairs is 0).

    Args:
        pairs: pairs K of mixing heads, one block of them per step after N-1 blocks; 0 leaves the groups apart
            (N-1 blocks per step), which is right for orthonormal queries; for other unit queries it is the
            step of one W for each query, which the check does not take (`unchecked=True`).
        epsilon: scale of the mixing scores; default `balanced_epsilon`. The error falls as $\epsilon^{2K}$
            until rounding, which grows as $1/\epsilon$, stops it.
        lead: by how much more than the margin keys of other groups trail; default `extinction`, which makes
            their weights exactly 0. With 0 the codes have the least strength of the theorem.

    Raises:
        ValueError: W not a finite matrix; Q < 1, N < 2, steps < 1, pairs < 0; epsilon not above 0; lead < 0.
    """
    W = start(W, assumptions)
    d, p = W.shape
    terms, n = checks.whole("N", N, 2) - 1, 1 + checks.whole("Q", Q, 1) * N
    per_step = terms + (checks.whole("pairs", pairs, 0) > 0)
    layout = several_layout(d, p, Q)
    sizes = {"heads": max(2, 2 * pairs), "head_width": max(d + Q + 2, p + 1), "hidden": 2 * d + 5}
    layers = checks.whole("steps", steps, 1) * per_step
    model = blank(layout, W, assumptions, layers=layers, positions=n, **sizes)
    _write_positions(model, layout, Q, N)
    if pairs and epsilon is None:
        epsilon = balanced_epsilon(pairs, n, assumptions)
    lead = extinction(assumptions.dtype) if lead is None else lead
    if not lead >= 0:
        raise ValueError(f"lead must be at least 0, got {lead}")
    marks = clear_units(layout, "mark")
    for i, block in enumerate(model.blocks):
        term = i % per_step
        if term == terms:
            _write_mixing(
                block.attention, layout, N, n, pairs, checks.positive("epsilon", epsilon), assumptions
            )
            units = marks + carry(layout, "acc")
        else:
            _write_group_heads(block.attention, layout, n, assumptions, lead)
            ends = term == per_step - 1
            units = (
                marks + step_units(layout, assumptions.eta) if ends else _eliminate(layout, assumptions.gap)
            )
        set_units(block.feed_forward, units + carry(layout, "top"))
    kept = {"fewest": N, "spread": assumptions.spread, "low": 0.0, "mixing": pairs > 0}
    return promise(model, W, assumptions, steps, N, layout="groups", Q=Q, start_token=True, **kept)


@torch.no_grad()
def _write_positions(model: Transformer, layout: Layout, Q: int, N: int) -> None:
    """Learned positions: the start flag, then the group codes."""
    table = model.positions.weight
    table[0, layout.slices["start"]] = 1.0
    table[1:, layout.slices["group"]] = torch.eye(Q, dtype=table.dtype).repeat_interleave(N, dim=0)


def _same_group(layout: Layout, strength: float) -> tuple[Tensor, Tensor]:
    """Query and key rows: score 0 for two tokens of one group (the start is a group too), else -strength."""
    codes = torch.cat([layout.read({"group": 1.0}), layout.read({"start": 1.0})])
    others = codes.clone()
    others[:, layout.slices["one"]] = -1.0
    return codes, strength * others


def step_units(layout: Layout, eta: float) -> list[Unit]:
    """Hidden units that move acc to yhat, 2 eta times, and clear it.

    In acc the terms of the heads have factors 1 and -1, so that equal ones cancel without rounding.
    """
    moves = [(sign, {"acc": -sign, "yhat": 2 * eta * sign}) for sign in (1.0, -1.0)]
    return [(layout.read({"acc": sign}), 0.0, layout.read(write)) for sign, write in moves]


def _eliminate(layout: Layout, gap: float) -> list:
    """Units of the Plackett-Luce construction that mark the best response; never the start token."""
    never = layout.read({"start": -4.0})
    return [(read + never, bias, write) for read, bias, write in eliminate(layout, gap)]


def _write_group_heads(
    attention: Attention, layout: Layout, n: int, assumptions: Assumptions, lead: float
) -> None:
    """Within each group, heads A (best remaining response and its reward) and B (the model's preference)."""
    read, c = layout.read, assumptions.c(n)
    margin = assumptions.margin(n)
    strength = c * assumptions.spread + margin
    query, key = _same_group(layout, strength + lead)
    set_head(
        attention,
        0,
        query=torch.cat([read({"one": 1.0}), query]),
        key=torch.cat([read({"r": c, "mark": -strength}), key]),
        value=read({"y": 1.0}, {"r": 1.0}),
        output=read({"acc": 1.0}, {"top": 1.0}),
    )
    strength = assumptions.radius**2 + margin
    query, key = _same_group(layout, strength + lead)
    set_head(
        attention,
        1,
        query=torch.cat([read({"yhat": 2.0}, {"one": 1.0}), query]),
        key=torch.cat([read({"y": 1.0}, {"s": -1.0, "mark": -strength}), key]),
        value=read({"y": 1.0}),
        output=read({"acc": -1.0}),
    )


def _write_mixing(
    attention: Attention, layout: Layout, N: int, n: int, pairs: int, epsilon: float, assumptions: Assumptions
) -> None:
    """Head pairs that add 2 eta (x_q . x_q') acc_q', summed over q', to yhat; the start is the sink."""
    sink = assumptions.margin(n)
    key = layout.read({"x": 1.0}, {"start": sink})
    for k, weight in enumerate(difference_weights(pairs), start=1):
        scale = 2 * assumptions.eta * weight * math.exp(sink) / (N * epsilon)
        for head, sign in ((2 * k - 2, 1.0), (2 * k - 1, -1.0)):
            set_head(
                attention,
                head,
                query=layout.read({"x": sign * k * epsilon}, {"one": 1.0}),
                key=key,
                value=layout.read({"acc": 1.0}),
                output=layout.read({"yhat": sign * scale}),
            )
