r"""The closed loop: a corrector's own outputs are rated and re-enter its context, round after round.

A prompt starts with a few sampler triplets. In each round the corrector reads the context and gives a direction, the
direction is given a length, a judge rates the result, and the triplet enters a window of at most `window` triplets. The
quality of any response, on the line of the sampler or not, is

$$q(y) = 1 - \frac{\lVert y - y^* \rVert}{\lVert e - y^* \rVert},$$

which is $r$ at $r y^* + (1 - r) e$ for $r \le 1$, and 1 at $y^*$ alone. Source: ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ica import checks
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.training.results import Result

JUDGES = ("exact", "own", "displaced", "growing", "drifting")
LENGTHS = ("best", "mean")
LEAVES = ("oldest", "worst", "own")


@dataclass(frozen=True)
class Context:
    """What a corrector reads: triplets in the order in which they came, `count` of them; later slots are empty.

    `own` says which responses are the corrector's; it reads the rest, not that.
    """

    query: Float[Tensor, "batch d"]
    responses: Float[Tensor, "seeds batch slots d"]
    ratings: Float[Tensor, "seeds batch slots"]
    own: Bool[Tensor, "seeds batch slots"]
    count: Int[Tensor, "seeds batch"]

    def of(self, prompts: Int[Tensor, " some"]) -> "Context":
        """The contexts of some prompts."""
        rest = (tensor[:, prompts] for tensor in (self.responses, self.ratings, self.own, self.count))
        return Context(self.query[prompts], *rest)

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
    r"""The critic of the loop.

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
        responses: Float[Tensor, "seeds batch slots d"],
        own: Bool[Tensor, "seeds batch slots"],
        batch: SyntheticBatch,
        toward: Float[Tensor, "batch d"],
        round: int,
    ) -> Float[Tensor, "seeds batch slots"]:
        """Ratings given at a round (the start is round 0); `toward`: where the target of a prompt is displaced to."""
        scale = (batch.bad - batch.good).norm(dim=-1, keepdim=True)
        moved = self.off(round) if self.kind in ("displaced", "drifting") else 0.0
        bonus = self.off(round) if self.kind in ("own", "growing") else 0.0
        target = (batch.good + moved * scale * toward).unsqueeze(1)
        return 1 - (responses - target).norm(dim=-1) / scale + bonus * own.to(responses.dtype)


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
    models = result.models()

    @torch.inference_mode()
    def correct(context: Context) -> Float[Tensor, "seeds batch d"]:
        most = int(context.count.max())
        responses, ratings = context.responses[:, :, :most], context.ratings[:, :, :most]
        query = context.query[None, :, None].expand_as(responses)
        inputs = torch.cat([query, responses, ratings.unsqueeze(-1)], dim=-1)
        outputs = torch.stack([model(one) for model, one in zip(models, inputs, strict=True)])
        return pick(outputs, context.count - 1)

    return correct


def descent(steps: int, small: bool = False) -> Corrector:
    r"""Gradient descent on the direction, from the best-rated response, on the cosine Plackett-Luce loss of the context.

    After each step it returns to unit length. With D the largest distance between two of the n responses, each made of
    unit length, no second derivative of the loss exceeds $n D^2 / 4$ (a variance for each term). Steps are $4 / (n D^2)$, or,
    `small`, $1 / n$, which is that for the largest possible D.

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
        if not small:
            apart = torch.cdist(units, units) * (filled.unsqueeze(-1) & filled.unsqueeze(-2))
            size = size * (4 / apart.flatten(2).amax(-1, keepdim=True).square().clamp_min(1e-6))
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
        leaves: which triplet leaves a full window before the new one enters: the "oldest", the "worst" rated, or the oldest
            of the corrector's "own" (so that the start stays).
        gate: an output enters only if it is rated above all before it.
        anew: all ratings in context are given anew in each round, by the critic of that round; else they stay as given.
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
    anew: bool = False
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
    own: bool,
    allowed: Bool[Tensor, "seeds batch"],
    leaves: str = "oldest",
) -> Context:
    """The context with one more triplet at its end where that is allowed; from a full one another leaves."""
    slots = context.ratings.shape[-1]
    full = (context.count == slots).unsqueeze(-1)
    victims = {"oldest": torch.zeros_like(context.count), "worst": context.ratings.argmin(-1)}
    victim = victims.get(leaves, context.own.int().argmax(-1))
    place = torch.arange(slots).expand(context.ratings.shape)
    source = (place + (full & (place >= victim.unsqueeze(-1)))).clamp_max(slots - 1)
    source = torch.where(allowed.unsqueeze(-1), source, place)
    new = (place == context.count.clamp_max(slots - 1).unsqueeze(-1)) & allowed.unsqueeze(-1)
    shifted = context.responses.gather(2, source.unsqueeze(-1).expand_as(context.responses))
    return Context(
        context.query,
        torch.where(new.unsqueeze(-1), response.unsqueeze(2), shifted),
        torch.where(new, rating.unsqueeze(-1), context.ratings.gather(-1, source)),
        torch.where(new, torch.tensor(own), context.own.gather(-1, source)),
        torch.where(allowed, (context.count + 1).clamp_max(slots), context.count),
    )


def begin(batch: SyntheticBatch, rules: Rules, seeds: int) -> Context:
    """The first `start` sampler triplets of each prompt with their quality as rating; the same for all seeds.

    Raises:
        ValueError: a batch of fewer responses than the start needs.
    """
    B, N, d = batch.responses.shape
    if rules.start > N:
        raise ValueError(f"batch must hold at least start = {rules.start} responses a prompt, got {N}")
    responses = torch.zeros(seeds, B, rules.window, d, dtype=batch.good.dtype)
    ratings = torch.zeros(seeds, B, rules.window, dtype=batch.good.dtype)
    responses[:, :, : rules.start] = batch.responses[:, : rules.start]
    ratings[:, :, : rules.start] = batch.quality[:, : rules.start]
    own = torch.zeros(seeds, B, rules.window, dtype=torch.bool)
    return Context(batch.query, responses, ratings, own, torch.full((seeds, B), rules.start))


def propose(correct: Corrector, context: Context, length: str = "best") -> Float[Tensor, "seeds batch d"]:
    """The corrector's output for each context, with the length that the rules give it."""
    norms = context.responses.norm(dim=-1)  # 0 in empty slots
    wanted = context.best().norm(dim=-1) if length == "best" else norms.sum(-1) / context.count
    return torch.nn.functional.normalize(correct(context), dim=-1) * wanted.unsqueeze(-1)


@torch.inference_mode()
def run(
    correct: Corrector,
    batch: SyntheticBatch,
    judge: Judge,
    rules: Rules,
    generator: torch.Generator,
    seeds: int = 1,
) -> Path:
    """Run the loop on every prompt of the batch, with a corrector of that many seeds.

    The generator draws where targets are displaced to and, for an open loop, the qualities of the fresh responses; the
    same one gives the same to every corrector, judge and rule. The corrector must be deterministic: where no triplet
    entered and no rating changed it is not asked again.

    Raises:
        ValueError: a batch of fewer responses than the start needs.
    """
    toward = directions(batch, generator)
    fresh = torch.rand(rules.rounds, len(batch.good), generator=generator, dtype=torch.float64)
    fresh = torch.lerp(batch.bad, batch.good, fresh.to(batch.good.dtype).unsqueeze(-1))

    def rate(response: Tensor, own: Tensor, t: int) -> Tensor:
        return judge.rate(response.unsqueeze(2), own.unsqueeze(2), batch, toward, t).squeeze(2)

    context = begin(batch, rules, seeds)
    given = judge.rate(context.responses, context.own, batch, toward, 0)
    context = replace(context, ratings=given.masked_fill(~context.filled(), 0))
    output, record = context.best(), context.seen().amax(-1)
    latest, top, ratings, accepted = [output], [output], [], []
    own, mine = (
        torch.zeros(output.shape[:2], dtype=torch.bool),
        torch.ones(output.shape[:2], dtype=torch.bool),
    )
    changed = torch.arange(len(batch.good))
    for t in range(1, rules.rounds + 1):
        if rules.anew:
            given = judge.rate(context.responses, context.own, batch, toward, t)
            context = replace(context, ratings=given.masked_fill(~context.filled(), 0))
            record, changed = rate(top[-1], own, t), torch.arange(len(batch.good))
        output = output.clone()
        if len(changed):
            output[:, changed] = propose(correct, context.of(changed), rules.length)
        rating = rate(output, mine, t)
        higher = rating > record
        allowed = higher if rules.gate else mine
        if rules.fresh:
            entrant = fresh[t - 1].expand_as(output)
            context = enter(context, entrant, rate(entrant, ~mine, t), False, allowed, rules.leaves)
        else:
            context = enter(context, output, rating, True, allowed, rules.leaves)
        changed = allowed.any(0).nonzero().squeeze(-1)
        own, record = own | higher, torch.maximum(record, rating)
        latest.append(output)
        top.append(torch.where(higher.unsqueeze(-1), output, top[-1]))
        ratings.append(rating)
        accepted.append(allowed)
    return Path(*(torch.stack(found) for found in (latest, top, ratings, accepted)))
