r"""Rounds of self-correction: an answer becomes the next token, gets a critic's reward, and is answered again (ours).

Page "Rounds of self-correction as one trajectory". A dialogue holds n given responses, a first answer, and one more
answer for each round. `descent_dialogue` is online gradient descent by automatic differentiation; the constructed
transformer that is asked again after each round stands in `ica.theory.constructions.dialogue`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, predict
from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts

STARTS = ("last answer", "first map")
CRITICS = ("true", "replaced", "reversed")
PACES = ("same rate", "same length", "rate by terms")
Critic = Callable[[Float[Tensor, "batch k d"]], Float[Tensor, "batch k"]]
"""Rates k responses of each prompt."""


@dataclass
class TargetCritic:
    r"""Rates by the distance from a target: $1 / (1 + \|y - y^*\|^2)$, in (0, 1], largest at the target.

    Args:
        target: $y^*$ of each prompt.
        kind: "true"; "replaced": a fresh U(0, 1) number instead with probability p; "reversed": 1 less the truth.
        p: probability of a replacement.
        generator: of the replacements.

    Raises:
        ValueError: an unknown kind, "replaced" without a generator.
    """

    target: Float[Tensor, "batch d"]
    kind: str = "true"
    p: float = 0.5
    generator: torch.Generator | None = None

    def __post_init__(self):
        if checks.one_of("kind", self.kind, CRITICS) == "replaced" and self.generator is None:
            raise ValueError("generator must be given for replaced rewards")

    def __call__(self, responses: Float[Tensor, "batch k d"]) -> Float[Tensor, "batch k"]:
        distance = (responses - self.target.unsqueeze(1).to(responses.dtype)).square().sum(dim=-1)
        truth = 1 / (1 + distance)
        if self.kind == "replaced":
            gone = torch.rand(truth.shape, generator=self.generator, dtype=torch.float64) < self.p
            fresh = torch.rand(truth.shape, generator=self.generator, dtype=torch.float64)
            return torch.where(gone, fresh.to(truth.dtype), truth)
        return 1 - truth if self.kind == "reversed" else truth


@dataclass(frozen=True)
class Dialogue:
    """n given responses, then the answers 0, 1, ..., all rated but perhaps the last answer."""

    prompts: Prompts
    answers: Float[Tensor, "rounds_and_first batch d"]
    given: int


def opening(
    query: Float[Tensor, "batch p"],
    given: Float[Tensor, "batch n d"],
    first: Float[Tensor, "batch d"],
    critic: Critic,
) -> Prompts:
    """The prompt before round 1: the given responses and the first answer, rated."""
    responses = torch.cat([given, first.unsqueeze(1)], dim=1)
    return Prompts(query, responses, critic(responses))


def append(prompts: Prompts, answer: Float[Tensor, "batch d"], critic: Critic) -> Prompts:
    """The prompt with one more response, rated; ValueError for a reward that ties with another."""
    answer = answer.unsqueeze(1)
    responses = torch.cat([prompts.responses, answer], dim=1)
    return Prompts(prompts.query, responses, torch.cat([prompts.rewards, critic(answer)], dim=1))


def descent_dialogue(
    W: Float[Tensor, "d p"],
    query: Float[Tensor, "batch p"],
    given: Float[Tensor, "batch n d"],
    critic: Critic,
    eta: float,
    rounds: int,
    start: str = "last answer",
) -> Dialogue:
    r"""Online gradient descent by autograd: in round t one step on the loss of all responses so far.

    Args:
        start: "last answer": from $W_t$, so that steps add; "first map": from $W_0$ in every round.

    Raises:
        ValueError: rounds < 1, an unknown start; answers whose rewards tie.
    """
    checks.one_of("start", start, STARTS)
    first = W.to(query.dtype).expand(len(query), *W.shape)
    prompts = opening(query, given, predict(first, query), critic)
    now, answers = first, [predict(first, query)]
    for t in range(checks.whole("rounds", rounds, 1)):
        now = gradient_descent(now if start == "last answer" else first, prompts, eta, 1)[1]
        answers.append(predict(now, query))
        if t < rounds - 1:
            prompts = append(prompts, answers[-1], critic)
    return Dialogue(prompts, torch.stack(answers), given.shape[1])


def descent_without_own(
    W: Float[Tensor, "d p"],
    query: Float[Tensor, "batch p"],
    given: Float[Tensor, "batch n d"],
    critic: Critic,
    eta: float,
    own: Dialogue,
    pace: str = "same rate",
) -> Dialogue:
    r"""Gradient descent on the loss of the opening alone, as many rounds as a dialogue with own answers has.

    Args:
        own: that dialogue, on the same prompts and from the same map.
        pace: "same rate": $\eta$ in every round; "same length": each step as long as that of `own` in the same round, prompt
            by prompt; "rate by terms": $\eta$ times the number of terms of `own`'s loss, $n + t$, over that of the
            opening, $n$.

    Raises:
        ValueError: an unknown pace; rewards that tie.
    """
    checks.one_of("pace", pace, PACES)
    now = W.to(query.dtype).expand(len(query), *W.shape)
    prompts, answers = opening(query, given, predict(now, query), critic), [predict(now, query)]
    lengths = own.answers.diff(dim=0).norm(dim=-1)
    for t, length in enumerate(lengths):
        move = gradient_descent(now, prompts, eta, 1)[1] - now
        factor = torch.ones_like(length)
        if pace == "same length":
            factor = length / predict(move, query).norm(dim=-1)
        elif pace == "rate by terms":
            factor = factor * (own.given + t) / own.given
        now = now + factor[:, None, None] * move
        answers.append(predict(now, query))
    return Dialogue(prompts, torch.stack(answers), given.shape[1])


def exact_steps(dialogue: Dialogue, eta: float) -> Float[Tensor, "rounds batch d"]:
    """What one exact step from each answer gives on the dialogue as it stands, rankings and all (closed form)."""
    prompts, steps = dialogue.prompts, []
    for t, answer in enumerate(dialogue.answers[:-1].double()):
        seen = dialogue.given + 1 + t
        responses, rewards = prompts.responses[:, :seen].double(), prompts.rewards[:, :seen].double()
        steps.append(answer + 2 * eta * pl_direction(answer, responses, rewards))
    return torch.stack(steps)


def gain(
    prediction: Float[Tensor, "batch d"], prompts: Prompts, target: Float[Tensor, "batch d"]
) -> Float[Tensor, " batch"]:
    r"""$\langle u, y^* - \hat y \rangle$ as half the weighted sum over pairs of reward gap less model margin.

    $$\tfrac12 \sum_{i<j} \beta^i_j \big[ (\|y_{\tau(j)} - y^*\|^2 - \|y_{\tau(i)} - y^*\|^2)
    - (\ell_{\tau(i)} - \ell_{\tau(j)}) \big]$$
    """
    tau = prompts.rewards.argsort(dim=-1, descending=True)
    ranked = prompts.responses.gather(1, tau.unsqueeze(-1).expand_as(prompts.responses))
    truth = -(ranked - target.unsqueeze(1)).square().sum(dim=-1)
    own = -(ranked - prediction.unsqueeze(1)).square().sum(dim=-1)
    total = torch.zeros_like(truth[:, 0])
    for i in range(truth.shape[1] - 1):
        beta = own[:, i:].softmax(dim=-1)
        total = total + (beta * (truth[:, i : i + 1] - truth[:, i:] - own[:, i : i + 1] + own[:, i:])).sum(-1)
    return total / 2


def off_the_span(
    points: Float[Tensor, "rounds batch d"], corners: Float[Tensor, "batch k d"]
) -> Float[Tensor, "rounds batch"]:
    """Distance of points from the affine span of the corners of each prompt."""
    frame = (corners[:, 1:] - corners[:, :1]).mT
    if frame.shape[1] <= frame.shape[2]:
        return torch.zeros(points.shape[:2], dtype=points.dtype)
    basis = torch.linalg.qr(frame).Q
    away = (points - corners[:, 0]).unsqueeze(-1)
    return (away - basis @ (basis.mT @ away)).squeeze(-1).norm(dim=-1)
