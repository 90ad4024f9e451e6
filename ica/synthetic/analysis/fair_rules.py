r"""The rules that a model trained as the paper states may follow, with the magnitude of their predictions.

Behind the page "mechanism". Where each response has noise of its own the responses do not lie on a line, so
that rules which agree on a line predict different things. Gradient descent (GD) is on the Plackett-Luce loss
of the triplets seen, squared-distance reward, of the prediction itself, from 0 (Thm 3.3):

$$\hat y \leftarrow \hat y - \frac{\eta}{n - 1} \nabla L(\hat y), \qquad
-\nabla L = 2 \sum_{i<n} \Big( y_{\tau(i)} - \sum_{j \ge i} \beta^i_j y_{\tau(j)} \Big)$$
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ica import checks, minimiser
from ica.objectives import pl_direction, ranking
from ica.synthetic.analysis.rules import Predictor, hypotheses
from ica.synthetic.task.baselines import descend
from ica.synthetic.task.bayes import posterior_mean
from ica.synthetic.task.data import SyntheticBatch

UNITS = ("stated", "query", "feature")
MEANS = ("exponential", "power")
NEWTON, HALVINGS = 40, 30
DRAWS, ADAM = 32, "GD, 50 Adam steps"


def _unit(batch: SyntheticBatch, unit: str) -> Float[Tensor, "batch 1 1"]:
    checks.one_of("unit", unit, UNITS)
    size = batch.query.norm(dim=-1) if unit != "stated" else torch.ones_like(batch.query[:, 0])
    if unit == "feature":
        size = size * batch.query.shape[-1] ** 0.5
    return size.view(-1, 1, 1)


@dataclass(frozen=True)
class Descent:
    r"""GD of so many steps: `at` predicts after some prefixes of a prompt, a call after all its triplets.

    Args:
        steps, rate: number of steps, and $\eta$.
        unit: length by which responses are divided before, and the prediction multiplied after: 1 ("stated"),
            $\lVert x \rVert$ ("query", as the theory has $\lVert x \rVert = 1$), or
            $\lVert x \rVert \sqrt d$ ("feature", which makes the mean square of $y^*$ 1). The larger it is,
            the less the scores of a first step differ.

    Raises:
        ValueError: steps below 1, a rate that is not positive, an unknown unit.
    """

    steps: int
    rate: float
    unit: str = "stated"

    def __post_init__(self):
        checks.whole("steps", self.steps, 1)
        checks.positive("rate", self.rate)
        checks.one_of("unit", self.unit, UNITS)

    def at(self, batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]) -> Float[Tensor, "batch prefixes d"]:
        """Predictions after the first `seen` triplets each; differentiable in the responses."""
        return self.path(batch, seen)[-1]

    def path(
        self, batch: SyntheticBatch, seen: Int[Tensor, " prefixes"]
    ) -> Float[Tensor, "steps_and_start batch prefixes d"]:
        """Predictions before the first step and after each."""
        size = _unit(batch, self.unit)
        tau = ranking(batch.rewards.detach(), "stable")
        ordered = (batch.responses / size).gather(1, tau.unsqueeze(-1).expand_as(batch.responses))
        inside = tau.unsqueeze(1) < seen.view(-1, 1)
        terms = (seen - 1).clamp(min=1).view(-1, 1).to(ordered.dtype)
        found = [ordered.new_zeros(len(tau), len(seen), ordered.shape[-1])]
        for _ in range(self.steps):
            push = torch.einsum("bpn,bnd->bpd", _coefficients(found[-1], ordered, inside), ordered)
            found.append(found[-1] + 2 * self.rate / terms * push)
        return torch.stack(found) * size

    def __call__(self, batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
        return self.at(batch, torch.tensor([batch.rewards.shape[1]]))[:, 0]


# What the positive control of the page imitates.
IMITATED = Descent(5, 0.2, "feature")


def _coefficients(
    prediction: Float[Tensor, "batch prefixes d"],
    ordered: Float[Tensor, "batch N d"],
    inside: Bool[Tensor, "batch prefixes N"],
) -> Float[Tensor, "batch prefixes N"]:
    r"""$1 - \sum_{i \le j} \beta^i_j$ of response j, best first, among those inside; they sum to 0."""
    scores = 2 * torch.einsum("bpd,bnd->bpn", prediction, ordered) - ordered.square().sum(-1).unsqueeze(1)
    scores = scores.masked_fill(~inside, -torch.inf)
    shifted = scores - scores.amax(-1, keepdim=True).detach()
    rest = shifted.clamp(min=-1e30).flip(-1).logcumsumexp(-1).flip(-1)
    chances = (-rest).masked_fill(~inside, -1e30).logcumsumexp(-1)
    return inside * (1 - (shifted.clamp(min=-1e30) + chances).exp())


def weighted_mean(kind: str, sharpness: float) -> Predictor:
    r"""Mean of the responses, weights $e^{\beta r_i}$ ("exponential") or $r_i^k$ ("power") over their sum.

    Raises:
        ValueError: an unknown kind.
    """
    checks.one_of("kind", kind, MEANS)

    def predict(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
        r = batch.rewards
        logits = sharpness * (r if kind == "exponential" else r.log())
        return (logits.softmax(-1).unsqueeze(-1) * batch.responses).sum(1)

    return predict


def completions(
    batch: SyntheticBatch, N: int, draws: int, generator: torch.Generator
) -> Float[Tensor, "batch draws N d"]:
    """All N responses, best first, as they may turn out given the triplets seen, in so many draws.

    Target, further rewards and noise come from the posterior. Differentiable in the responses; float64.
    Source: the sampler of App. C.1 and `bayes.posterior_mean`.

    Raises:
        ValueError: shared noise, or fewer than 0 triplets to come.
    """
    (B, n), d = batch.rewards.shape, batch.query.shape[-1]
    checks.whole("N - n", N - n, 0)
    size = batch.query.norm(dim=-1)
    spread = size / (1 + (batch.rewards / (1 - batch.rewards)).square().sum(-1)).sqrt()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    good = posterior_mean(batch, n).unsqueeze(1) + spread.view(-1, 1, 1) * normal(B, draws, d)
    quality = torch.rand(B, draws, N - n, generator=generator, dtype=torch.float64)
    bad = size.view(-1, 1, 1, 1) * normal(B, draws, N - n, d)
    coming = torch.lerp(bad, good.unsqueeze(2).expand_as(bad), quality.unsqueeze(-1))
    responses = torch.cat([batch.responses.unsqueeze(1).expand(-1, draws, -1, -1), coming], dim=2)
    rewards = torch.cat([batch.rewards.detach().unsqueeze(1).expand(-1, draws, -1), quality], dim=2)
    order = rewards.argsort(-1, descending=True)
    return responses.gather(2, order.unsqueeze(-1).expand_as(responses))


def _implicit(
    prediction: Float[Tensor, "batch d"],
    responses: Float[Tensor, "batch draws N d"],
    hessian: Float[Tensor, "batch d d"],
) -> Float[Tensor, "batch d"]:
    """The prediction, a minimiser, with its derivative in the responses (implicit function theorem)."""
    ranks = torch.arange(responses.shape[2], 0, -1, dtype=torch.float64).expand(responses.shape[:3])
    spread = prediction.unsqueeze(1).expand(-1, responses.shape[1], -1)
    pull = 2 * pl_direction(spread, responses, ranks).mean(1)
    moved = torch.linalg.solve(hessian, pull)
    return prediction + moved - moved.detach()


@torch.enable_grad()
def exact_minimiser(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
    """The minimiser of the loss over all the triplets; differentiable in the responses.

    Raises:
        ValueError: a prompt whose loss has none.
    """
    found = minimiser.minimiser(batch.responses.detach(), batch.rewards.detach(), "stable")
    order = ranking(batch.rewards.detach(), "stable").unsqueeze(-1).expand_as(batch.responses)
    hessian = minimiser.expansion(found, batch.responses.detach().gather(1, order))[2]
    return _implicit(found, batch.responses.gather(1, order).unsqueeze(1), hessian)


def _mean_expansion(prediction: Tensor, responses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient and Hessian, means over the draws."""
    B, draws = responses.shape[:2]
    found = minimiser.expansion(prediction.repeat_interleave(draws, 0), responses.flatten(0, 1))[:3]
    return tuple(part.unflatten(0, (B, draws)).mean(1) for part in found)


def least_expected_loss(N: int, draws: int, seed: int) -> Predictor:
    """What training asks for: the prediction of least expected loss over all N responses, given those seen.

    The expectation is a mean over `draws` completions. Newton's method with halved steps; differentiable in
    the responses.

    Raises:
        RuntimeError: no convergence.
    """

    @torch.enable_grad()
    def predict(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
        whole = completions(batch, N, draws, torch.Generator().manual_seed(seed))
        fixed, v = whole.detach(), posterior_mean(batch, batch.rewards.shape[1]).detach() / 2
        loss, gradient, hessian = _mean_expansion(v, fixed)
        for _ in range(NEWTON):
            step = -torch.linalg.solve(hessian, gradient)
            if not (step.norm(dim=-1) > 1e-9 * v.norm(dim=-1)).any():
                return _implicit(v, whole, hessian)
            new = _mean_expansion(v + step, fixed)
            for _ in range(HALVINGS):
                higher = new[0] > loss + 1e-12 * loss.abs()
                if not higher.any():
                    break
                step = torch.where(higher.unsqueeze(-1), step / 2, step)
                new = _mean_expansion(v + step, fixed)
            v, (loss, gradient, hessian) = v + step, new
        raise RuntimeError(f"Newton's method must converge within {NEWTON} steps")

    return predict


def fixed_rules(n: int, N: int, seed: int) -> dict[str, Predictor]:
    """Named rules with nothing to fit, from a prompt of n of N triplets to a prediction.

    Args:
        seed: of the completions of the least expected loss, and of the start of GD with Adam.
    """
    known, at = hypotheses(), torch.tensor([n])

    def with_adam(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
        return descend(batch, at, torch.Generator().manual_seed(seed), reward="squared_distance")[:, 0]

    return {
        "least expected loss": least_expected_loss(N, DRAWS, seed),
        "Bayes": lambda batch: posterior_mean(batch, n),
        **{name: known[name] for name in ("best-of-n", "mean response", "covariance")},
        "GD, 5 steps": IMITATED,
        ADAM: with_adam,
        "constructed step": known["constructed step"],
        "exact minimiser": exact_minimiser,
    }
