r"""The closed loop: a corrector's own outputs are rated and re-enter its context, round after round.

A prompt starts with a few sampler triplets. In each round the corrector reads the context and gives a direction, the
direction is given a length, a judge rates the result, and the triplet enters a window of at most `window` triplets. The
quality of any response, on the line of the sampler or not, is

$$q(y) = 1 - \frac{\lVert y - y^* \rVert}{\lVert e - y^* \rVert},$$

which is $r$ at $r y^* + (1 - r) e$ for $r \le 1$, and 1 at $y^*$ alone. Source: ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from ica import checks
from ica.synthetic.data import SyntheticBatch
from ica.synthetic.results import Result
from ica.synthetic.training import forward

JUDGES = ("exact", "own", "displaced", "growing", "drifting")
LENGTHS = ("best", "mean", "own")
LEAVES = ("oldest", "worst")


@dataclass(frozen=True)
class Context:
    """What a corrector reads: triplets in the order in which they came, `count` of them; later slots are empty."""

    query: Float[Tensor, "batch d"]
    responses: Float[Tensor, "seeds batch slots d"]
    ratings: Float[Tensor, "seeds batch slots"]
    count: Int[Tensor, "seeds batch"]

    def filled(self) -> Bool[Tensor, "seeds batch slots"]:
        """Which slots hold a triplet."""
        return torch.arange(self.ratings.shape[-1]) < self.count.unsqueeze(-1)

    def seen(self) -> Float[Tensor, "seeds batch slots"]:
        """The ratings, with minus infinity in empty slots."""
        return self.ratings.masked_fill(~self.filled(), -torch.inf)

    def best(self) -> Float[Tensor, "seeds batch d"]:
        """The response of highest rating, the earliest among equals."""
        return pick(self.responses, self.seen().argmax(-1))


Corrector = Callable[[Context], Float[Tensor, "seeds batch d"]]


def pick(
    responses: Float[Tensor, "seeds batch slots d"], index: Int[Tensor, "seeds batch"]
) -> Float[Tensor, "seeds batch d"]:
    """The response in one slot of each context."""
    where = index[..., None, None].expand(*index.shape, 1, responses.shape[-1])
    return responses.gather(2, where).squeeze(2)


def quality(
    response: Float[Tensor, "*#batch d"], good: Float[Tensor, "*#batch d"], bad: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch"]:
    r"""$1 - \lVert y - y^* \rVert / \lVert e - y^* \rVert$ of any response: 1 at $y^*$, 0 as far from it as e."""
    return 1 - (response - good).norm(dim=-1) / (bad - good).norm(dim=-1)


@dataclass(frozen=True)
class Judge:
    r"""The critic of the loop; it rates an output when it enters, and ratings stay as given.

    Args:
        kind: "exact" gives the quality q. "own" adds `size` to the corrector's own outputs, "growing" adds `size` times
            the round. "displaced" measures the distance to $y^* + b \lVert e - y^* \rVert u$ instead of $y^*$, with b = `size` and
            u a fixed random direction of each prompt; for "drifting" b is `size` times the round.
        size: at least 0; 0 is the exact critic.

    Raises:
        ValueError: an unknown kind, a size below 0 or not finite, or other than 0 for the exact critic.
    """

    kind: str = "exact"
    size: float = 0.0

    def __post_init__(self):
        checks.one_of("kind", self.kind, JUDGES)
        if self.size:
            checks.positive("size", self.size)
        if self.size and self.kind == "exact":
            raise ValueError(f"size must be 0 for the exact critic, got {self.size!r}")

    def off(self, round: int) -> float:
        """Largest difference between rating and quality at a round: of an own output, or of any response."""
        return self.size * (round if self.kind in ("growing", "drifting") else 1)

    def rate(
        self,
        response: Float[Tensor, "*seeds batch d"],
        batch: SyntheticBatch,
        directions: Float[Tensor, "batch d"],
        round: int,
        own: bool,
    ) -> Float[Tensor, "*seeds batch"]:
        """Ratings of one response per prompt, given at a round (the start is round 0)."""
        scale = (batch.bad - batch.good).norm(dim=-1)
        moved = self.off(round) if self.kind in ("displaced", "drifting") else 0.0
        target = batch.good + moved * scale.unsqueeze(-1) * directions
        bonus = self.off(round) if own and self.kind in ("own", "growing") else 0.0
        return 1 - (response - target).norm(dim=-1) / scale + bonus


def directions(batch: SyntheticBatch, generator: torch.Generator) -> Float[Tensor, "batch d"]:
    """One random unit vector for each prompt: where the critic's target is displaced to."""
    drawn = torch.randn(batch.good.shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1).to(batch.good.dtype)


def reader(result: Result) -> Corrector:
    """The trained transformers of a run, all seeds at once, as a corrector; triplet tokens, causal.

    Raises:
        ValueError: a run of another form or mask, or with several raters; its empty slots or ratings would not fit.
    """
    config = result.config
    if (config.form, config.mask, config.critic.raters) != ("triplet", "causal", 1):
        raise ValueError(f"run {result.name} must have triplet tokens, a causal mask and one rater")
    models = [model.state_dict() for model in result.models()]
    weights = {name: torch.stack([model[name] for model in models]) for name in models[0]}
    apply = forward(config)

    @torch.no_grad()
    def correct(context: Context) -> Float[Tensor, "seeds batch d"]:
        most = int(context.count.max())
        responses, ratings = context.responses[:, :, :most], context.ratings[:, :, :most]
        query = context.query[None, :, None].expand_as(responses)
        outputs = apply(weights, torch.cat([query, responses, ratings.unsqueeze(-1)], dim=-1))
        return pick(outputs, context.count - 1)

    return correct


def descent(steps: int = 40) -> Corrector:
    """Gradient descent on the direction that minimises the cosine Plackett-Luce loss of the context.

    It starts at the best-rated response, with step 1 / n, and returns to unit length after each step.

    Raises:
        ValueError: steps < 1.
    """
    checks.whole("steps", steps, 1)

    def correct(context: Context) -> Float[Tensor, "seeds batch d"]:
        order = torch.sort(context.seen(), dim=-1, descending=True, stable=True).indices
        filled = context.filled()  # empty slots are rated last, so they stay at the end
        units = torch.nn.functional.normalize(context.responses, dim=-1)
        units = units.gather(2, order.unsqueeze(-1).expand_as(units))
        size = 1 / context.count.unsqueeze(-1)
        found = units[:, :, 0]
        for _ in range(steps):
            shares = torch.einsum("sbnd,sbd->sbn", units, found).exp() * filled
            remaining = shares.flip(-1).cumsum(-1).flip(-1)
            pulls = filled * (shares * (filled / remaining.clamp_min(1e-30)).cumsum(-1) - 1)
            gradient = torch.einsum("sbn,sbnd->sbd", pulls, units)
            found = torch.nn.functional.normalize(found - size * gradient, dim=-1)
        return found

    return correct


@dataclass(frozen=True)
class Rules:
    """How the loop runs.

    Args:
        rounds: corrections made.
        start, window: sampler triplets at the start, and triplets kept at most.
        length: of an output: that of the best-rated response in context ("best"), the mean of those in context, or the
            corrector's "own".
        leaves: which triplet leaves a full window, the "oldest" or the "worst" rated (of those before the new one).
        gate: an output enters only if it is rated above all before it.
        fresh: a new sampler response, rated by the critic, enters in place of the output (the loop is open).

    Raises:
        ValueError: a field out of its range, or a gate on an open loop.
    """

    rounds: int = 60
    start: int = 4
    window: int = 20
    length: str = "best"
    leaves: str = "oldest"
    gate: bool = False
    fresh: bool = False

    def __post_init__(self):
        for name, least in (("rounds", 1), ("start", 2), ("window", 2)):
            checks.whole(name, getattr(self, name), least)
        checks.one_of("length", self.length, LENGTHS)
        checks.one_of("leaves", self.leaves, LEAVES)
        if self.start > self.window:
            raise ValueError(f"start must be at most window = {self.window}, got {self.start}")
        if self.gate and self.fresh:
            raise ValueError("gate must be False in an open loop: no output enters it")


@dataclass(frozen=True)
class Path:
    """The answers after 0, 1, ..., `rounds` corrections; at round 0 all are the best-rated response of the start.

    `latest` is the last output, `top` the highest-rated response so far, whether or not it is still in the window;
    `accepted` whether the output entered.
    """

    latest: Float[Tensor, "rounds_and_start seeds batch d"]
    top: Float[Tensor, "rounds_and_start seeds batch d"]
    ratings: Float[Tensor, "rounds seeds batch"]
    accepted: Bool[Tensor, "rounds seeds batch"]


def enter(
    context: Context,
    response: Float[Tensor, "seeds batch d"],
    rating: Float[Tensor, "seeds batch"],
    allowed: Bool[Tensor, "seeds batch"],
    leaves: str = "oldest",
) -> Context:
    """The context with one more triplet at its end where that is allowed; from a full one another leaves."""
    slots = context.ratings.shape[-1]
    full = (context.count == slots).unsqueeze(-1)
    victim = (
        torch.zeros_like(context.count)
        if leaves == "oldest"
        else context.ratings.argmin(-1)
    )
    place = torch.arange(slots).expand(context.ratings.shape)
    moved = (place + (full & (place >= victim.unsqueeze(-1)))).clamp_max(slots - 1)
    new = place == context.count.clamp_max(slots - 1).unsqueeze(-1)
    ratings = torch.where(new, rating.unsqueeze(-1), context.ratings.gather(-1, moved))
    shifted = context.responses.gather(2, moved.unsqueeze(-1).expand_as(context.responses))
    responses = torch.where(new.unsqueeze(-1), response.unsqueeze(2), shifted)
    take = allowed.unsqueeze(-1)
    return Context(
        context.query,
        torch.where(take.unsqueeze(-1), responses, context.responses),
        torch.where(take, ratings, context.ratings),
        torch.where(allowed, (context.count + 1).clamp_max(slots), context.count),
    )


def begin(
    batch: SyntheticBatch, judge: Judge, toward: Float[Tensor, "batch d"], rules: Rules, seeds: int
) -> Context:
    """The first `start` sampler triplets of each prompt, rated by the judge; the same for all seeds."""
    B, _, d = batch.responses.shape
    responses = torch.zeros(seeds, B, rules.window, d, dtype=batch.good.dtype)
    ratings = torch.zeros(seeds, B, rules.window, dtype=batch.good.dtype)
    responses[:, :, : rules.start] = batch.responses[:, : rules.start]
    for k in range(rules.start):
        ratings[:, :, k] = judge.rate(batch.responses[:, k], batch, toward, 0, False)
    count = torch.full((seeds, B), rules.start)
    return Context(batch.query, responses, ratings, count)


def _lengthened(output: Tensor, context: Context, length: str) -> Tensor:
    """The output with the length that the rules give it."""
    if length == "own":
        return output
    norms = context.responses.norm(dim=-1)
    wanted = context.best().norm(dim=-1) if length == "best" else norms.sum(-1) / context.count
    return torch.nn.functional.normalize(output, dim=-1) * wanted.unsqueeze(-1)


@torch.no_grad()
def run(
    correct: Corrector,
    batch: SyntheticBatch,
    judge: Judge,
    rules: Rules,
    generator: torch.Generator,
    seeds: int = 1,
) -> Path:
    """Run the loop on every prompt of the batch, with a corrector of that many seeds.

    The generator draws the directions of displacement and, for an open loop, the qualities of the fresh responses; the
    same one gives the same prompts to every judge and rule.

    Raises:
        ValueError: a batch of fewer responses than the start needs.
    """
    if batch.responses.shape[1] < rules.start:
        raise ValueError(
            f"batch must hold at least start = {rules.start} responses a prompt, got {batch.responses.shape[1]}"
        )
    toward = directions(batch, generator)
    new = torch.rand(rules.rounds, len(batch.good), generator=generator, dtype=torch.float64)
    new = new.to(batch.good.dtype)
    context = begin(batch, judge, toward, rules, seeds)
    latest, top, record = [context.best()], [context.best()], context.seen().amax(-1)
    ratings, accepted = [], []
    for t in range(1, rules.rounds + 1):
        output = _lengthened(correct(context), context, rules.length)
        rating = judge.rate(output, batch, toward, t, True)
        higher = rating > record
        allowed = higher if rules.gate else torch.ones_like(higher)
        if rules.fresh:
            entrant = torch.lerp(batch.bad, batch.good, new[t - 1].unsqueeze(-1)).expand_as(output)
            context = enter(
                context, entrant, judge.rate(entrant, batch, toward, t, False), allowed, rules.leaves
            )
        else:
            context = enter(context, output, rating, allowed, rules.leaves)
        latest.append(output)
        top.append(torch.where(higher.unsqueeze(-1), output, top[-1]))
        record = torch.maximum(record, rating)
        ratings.append(rating)
        accepted.append(allowed)
    return Path(*(torch.stack(found) for found in (latest, top, ratings, accepted)))
