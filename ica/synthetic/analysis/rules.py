r"""What could have given a prediction: named rules from a prompt to a direction, their derivatives, and how they weigh the responses.

On this data all responses lie on a line, so that many rules give one direction. Their derivatives tell them apart: moved off
the plane of $y^*$ and $e$ by $\xi$, response i turns the unit prediction of a rotation-equivariant rule by $w_i \xi$, and
$\hat y / \lVert \hat y \rVert = \sum_i w_i y_i$ (proof: notebook "mechanism"). The $w_i$ are called the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import cosine_reward, pl_direction, pl_loss
from ica.synthetic.task import floor
from ica.synthetic.task.baselines import bayes, descend
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.tokens import tokens
from ica.transformer import Transformer

Predictor = Callable[[SyntheticBatch], Float[Tensor, "batch d"]]
unit = torch.nn.functional.normalize
TOWARDS, NEWTON, CONVERGED = 60, 6, 1e-9


def double(batch: SyntheticBatch, count: int | None = None) -> SyntheticBatch:
    """The first `count` prompts (default all) in float64."""
    return SyntheticBatch(*(getattr(batch, field.name)[:count].double() for field in fields(batch)))


def _gradient(
    v: Float[Tensor, "batch d"], batch: SyntheticBatch, graph: bool
) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch d"]]:
    """v as it entered the graph, and the gradient there of the cosine-reward loss over n - 1."""
    v = v if v.requires_grad else v.detach().requires_grad_(True)
    loss = pl_loss(cosine_reward(v, batch.responses), batch.rewards.detach(), "stable")
    scale = batch.responses.shape[1] - 1
    return v, torch.autograd.grad(loss.sum() / scale, v, create_graph=graph)[0]


@torch.enable_grad()
def descent(
    batch: SyntheticBatch, steps: int, size: float = 0.1, start: Float[Tensor, "batch d"] | None = None
) -> Float[Tensor, "steps_and_start batch d"]:
    """Gradient descent on the cosine-reward loss over all the triplets, on the unit sphere.

    Each step moves along minus the gradient in the direction (the loss divided by n - 1) and returns to unit length.
    Differentiable in the responses if they ask for it.

    Args:
        start: first direction; default the mean of the responses.

    Raises:
        ValueError: steps below 0, a size that is not positive.
    """
    checks.whole("steps", steps, 0)
    checks.positive("size", size)
    graph = batch.responses.requires_grad
    path = [unit(batch.responses.mean(1) if start is None else start, dim=-1)]
    for _ in range(steps):
        v, gradient = _gradient(path[-1], batch, graph)
        moved = unit(v - size * gradient, dim=-1)
        path.append(moved if graph else moved.detach())
    return torch.stack(path)


def _newton(v: Float[Tensor, "batch d"], batch: SyntheticBatch, graph: bool) -> Float[Tensor, "batch d"]:
    """One Newton step from v; with `graph` it keeps what differentiates it in the responses, at v and Hessian held."""
    fixed = replace(batch, responses=batch.responses.detach())
    here, gradient = _gradient(v.detach(), fixed, graph=True)
    rows = [torch.autograd.grad(g.sum(), here, retain_graph=True)[0] for g in gradient.unbind(-1)]
    # the loss is constant along v, which is given curvature 1 so that the system can be solved
    hessian = torch.stack(rows, dim=1) + here.detach().unsqueeze(-1) * here.detach().unsqueeze(-2)
    if graph:
        gradient = _gradient(v.detach(), batch, graph=batch.responses.requires_grad)[1]
    return v.detach() - torch.linalg.solve(hessian, gradient if graph else gradient.detach())


@torch.enable_grad()
def minimiser(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
    """Unit vector that minimises the cosine-reward loss over all the triplets: descent, then Newton steps.

    Unlike the exact formula of `floor` it is defined off the line as well. The last Newton step keeps the graph, which
    gives the derivative in the responses of the implicit function theorem.

    Raises:
        ValueError: prompts that are not float64, in which the steps would not converge; prompts where they do not, as where
            the rewards do not fit the places on the line: the minimisers then may lie off the plane, more than one.
    """
    if batch.responses.dtype != torch.float64:
        raise ValueError(f"batch must be float64, got {batch.responses.dtype}")
    fixed = replace(batch, responses=batch.responses.detach())
    v = descent(fixed, TOWARDS, size=0.5)[-1]
    for _ in range(NEWTON - 1):
        v = unit(_newton(v, fixed, graph=False), dim=-1)
    v = _newton(v, batch, graph=True)
    rest = _gradient(v.detach(), fixed, graph=False)[1].norm(dim=-1)
    if not (rest <= CONVERGED).all():
        stuck = int((~(rest <= CONVERGED)).nonzero()[0])
        raise ValueError(f"batch must have one minimiser in every prompt; in prompt {stuck} none was reached")
    return v


def adam(batch: SyntheticBatch, steps: Sequence[int], seed: int) -> Float[Tensor, "looks batch d"]:
    """Unit predictions of the released baseline (a linear map, Adam of rate 0.1, random start) after so many steps each."""
    n = torch.tensor([batch.rewards.shape[1]])
    looks = [descend(batch, n, torch.Generator().manual_seed(seed), steps=k)[:, 0] for k in steps]
    return unit(torch.stack(looks), dim=-1)


def _at(batch: SyntheticBatch, place: Tensor) -> Tensor:
    return batch.responses[torch.arange(len(place)), place]


def _covariance(batch: SyntheticBatch) -> Tensor:
    centred = batch.rewards - batch.rewards.mean(1, keepdim=True)
    return (centred.unsqueeze(-1) * batch.responses).sum(1)


def _step(batch: SyntheticBatch) -> Tensor:
    return pl_direction(torch.zeros_like(batch.good), batch.responses, batch.rewards.detach(), "stable")


def _ranked(batch: SyntheticBatch, given: Float[Tensor, " n"]) -> Float[Tensor, "batch d"]:
    """Sum of the responses with weights given by rank, best first."""
    order = batch.rewards.argsort(1, descending=True)
    return torch.einsum("n,bnd->bd", given, batch.responses[torch.arange(len(order)).unsqueeze(1), order])


def _flat(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
    n = batch.rewards.shape[1]
    gone = 1 / torch.arange(
        n, 1, -1, dtype=torch.float64
    )  # one share of each term that a response is still in
    chosen = torch.ones(n, dtype=torch.float64)
    chosen[-1] = 0
    return _ranked(batch, chosen - torch.cat([gone, gone.new_zeros(1)]).cumsum(0))


def _rank_covariance(batch: SyntheticBatch) -> Float[Tensor, "batch d"]:
    return _ranked(batch, torch.linspace(1, -1, batch.rewards.shape[1], dtype=torch.float64))


def hypotheses() -> dict[str, Predictor]:
    """Named rules from a prompt (its first n triplets, float64) to a direction.

    "constructed step" is what the theorem's constructed transformer adds from the prediction 0 (squared-distance reward);
    "step at equal logits" the same where all logits are equal, the limit of a reward of small scale; "covariance" that of
    rewards and responses, "rank covariance" that of ranks and responses.
    """
    return {
        "exact minimiser": minimiser,
        "ten GD steps": lambda batch: descent(batch, 10)[-1],
        "constructed step": _step,
        "step at equal logits": _flat,
        "rank covariance": _rank_covariance,
        "covariance": _covariance,
        "best less worst": lambda batch: (
            _at(batch, batch.rewards.argmax(1)) - _at(batch, batch.rewards.argmin(1))
        ),
        "Bayes": lambda batch: bayes(batch, torch.tensor([batch.rewards.shape[1]]))[:, 0],
        "best-of-n": lambda batch: _at(batch, batch.rewards.argmax(1)),
        "reward-weighted mean": lambda batch: (batch.rewards.unsqueeze(-1) * batch.responses).sum(1),
        "mean response": lambda batch: batch.responses.mean(1),
    }


def model_predictor(model: Transformer, form: str) -> Predictor:
    """The model's prediction after all the triplets given, in the precision of the model.

    Raises:
        ValueError: interleaved tokens, which predict at the query of one more triplet.
    """
    checks.one_of("form", form, ("triplet",))
    return lambda batch: model(tokens(batch, form))[:, -1]


def by_rank(batch: SyntheticBatch, values: Float[Tensor, "batch n"]) -> SyntheticBatch:
    """The prompts with other rewards in the same order: the largest of `values` for the best response, and so on."""
    places = batch.rewards.argsort(1).argsort(1)
    rewards = checks.shape("values", values, tuple(batch.rewards.shape)).sort(1).values.gather(1, places)
    return replace(batch, rewards=rewards, shown=rewards.unsqueeze(-1))


def interventions(batch: SyntheticBatch, generator: torch.Generator) -> dict[str, SyntheticBatch]:
    """The prompts with rewards squared; redrawn in the same order; their triplets reordered; rewards exchanged.

    Only the last changes which response is better. Permutations are one for all prompts and leave nothing in its place.
    """
    n = batch.rewards.shape[1]
    fresh = torch.rand(batch.rewards.shape, generator=generator, dtype=torch.float64)
    while True:
        mixed, replaced = (torch.randperm(n, generator=generator) for _ in range(2))
        if (mixed != torch.arange(n)).all() and (replaced != torch.arange(n)).all():
            break

    def rewarded(rewards: Float[Tensor, "batch n"]) -> SyntheticBatch:
        return replace(batch, rewards=rewards, shown=rewards.unsqueeze(-1))

    triplets = ("responses", "quality", "rewards", "shown")
    return {
        "squared": rewarded(batch.rewards.square()),
        "redrawn in order": by_rank(batch, fresh),
        "prompt reordered": replace(batch, **{name: getattr(batch, name)[:, mixed] for name in triplets}),
        "exchanged": rewarded(batch.rewards[:, replaced]),
    }


@torch.enable_grad()
def derivatives(
    predict: Predictor, batch: SyntheticBatch, *, direction: bool = True
) -> tuple[Float[Tensor, "batch n d d"], Float[Tensor, "batch n d"]]:
    """Derivatives of the unit prediction in the responses and in the rewards (one rater), by automatic differentiation.

    Entry (b, i, k): how the direction moves with coordinate k of response i, and (b, i): with reward i; the responses
    ordered by reward, best first. Zero where the rule does not look. Without `direction`, of the prediction itself.

    Raises:
        ValueError: prompts that are not float64.
    """
    if batch.responses.dtype != torch.float64:
        raise ValueError(f"batch must be float64, got {batch.responses.dtype}")
    responses = batch.responses.detach().clone().requires_grad_(True)
    rewards = batch.rewards.detach().clone().requires_grad_(True)
    given = replace(batch, responses=responses, rewards=rewards, shown=rewards.unsqueeze(-1))
    inputs = (responses, rewards)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    found = predict(given)
    found = unit(found, dim=-1) if direction else found
    moved = [torch.autograd.grad(out.sum(), inputs, **options) for out in found.unbind(-1)]
    in_responses, in_rewards = (torch.stack(parts, dim=-1) for parts in zip(*moved, strict=True))
    order = batch.rewards.argsort(1, descending=True)
    every = torch.arange(len(order)).unsqueeze(1)
    return in_responses[every, order], in_rewards[every, order]


def _off_plane(batch: SyntheticBatch) -> Float[Tensor, "batch d d"]:
    d = batch.good.shape[-1]
    if d < 3:
        raise ValueError(f"batch must have d >= 3 features to have directions off the plane, got d = {d}")
    along, across = floor.plane(batch)
    inside = along.unsqueeze(-1) * along.unsqueeze(-2) + across.unsqueeze(-1) * across.unsqueeze(-2)
    return torch.eye(d, dtype=torch.float64) - inside


def weights(in_responses: Float[Tensor, "batch n d d"], batch: SyntheticBatch) -> Float[Tensor, "batch n"]:
    r"""Weight $w_i = \operatorname{tr}(P J_i) / (d - 2)$ of each response, P the projection off the plane of $y^*$ and $e$.

    Args:
        in_responses: as `derivatives` gives them; the weights come in the same order. Units: one over that of a response.

    Raises:
        ValueError: d < 3, where nothing is off the plane.
    """
    return torch.einsum("bkl,bnkl->bn", _off_plane(batch), in_responses) / (batch.good.shape[-1] - 2)


def weights_share(
    in_responses: Float[Tensor, "batch n d d"], batch: SyntheticBatch
) -> Float[Tensor, " batch"]:
    """Share of the squared derivative off the plane that the weights account for; 1 for rotation-equivariant rules."""
    moved = torch.einsum("bkm,bnml->bnkl", _off_plane(batch), in_responses).square().sum((1, 2, 3))
    return weights(in_responses, batch).square().sum(1) * (batch.good.shape[-1] - 2) / moved
