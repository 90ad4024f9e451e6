"""Assumptions of a construction read off prompts and first W, none set by hand (notebook "many_steps")."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks, minimiser
from ica.objectives import pl_loss, squared_distance_reward
from ica.theory.constructions.basics import Assumptions
from ica.theory.prompts import Prompts

SHARES = 200  # lengths s that the radius is minimised over


def path_radius(
    W: Float[Tensor, "d p"], prompts: Prompts, eta: float, steps: int, kind: str = "best"
) -> Float[Tensor, " batch"]:
    r"""Bound of the distance between responses and prediction along `steps` steps of gradient descent (ours).

    Proof: notebook "many_steps", prop-radius. With $R_0$ the largest distance at the start, unit queries:

    * "terms": $R_0 + 2 \eta T (N - 1) D$;
    * "loss": $R_0 + \sqrt{2 \eta T L(\hat y_0)}$;
    * "limit": $R_0 + \min_s s + \sqrt{s^2 + 2 \eta T L(\hat y_0 + s u)}$, u the direction of largest margin;
      where the loss has a minimiser, the largest distance of it from a response plus that from $\hat y_0$;
    * "best": the least of these; "terms" for a longer step.

    Raises:
        ValueError: an unknown kind, eta above $1 / ((N - 1) D^2)$ for "loss" and "limit", steps < 0.
    """
    checks.one_of("kind", kind, ("best", "terms", "loss", "limit"))
    T, y = checks.whole("steps", steps, 0), prompts.responses.double()
    begin = prompts.query.double() @ W.double().T
    first = (begin.unsqueeze(1) - y).norm(dim=-1).amax(1)
    widest = torch.cdist(y, y).amax((1, 2))
    terms = first + 2 * checks.positive("eta", eta) * T * (y.shape[1] - 1) * widest
    most = minimiser.stable_rate(y).min().item()
    if kind == "terms" or (kind == "best" and eta > most * (1 + 1e-9)):
        return terms
    if eta > most * (1 + 1e-9):
        raise ValueError(f"eta must be at most 1 / ((N - 1) D^2) = {most:.6g}, got {eta}")
    some = minimiser.exists(y, prompts.rewards)
    length, along = torch.zeros(SHARES, len(y)).double(), torch.zeros_like(begin)
    if kind != "loss" and not some.all():
        along[~some], margin = minimiser.runaway(y[~some], prompts.rewards[~some])
        length[:, ~some] = torch.linspace(0, 1, SHARES).double().unsqueeze(1) * math.log(2 + T) / margin
    there = begin + length.unsqueeze(-1) * along
    scores = squared_distance_reward(there, y.expand(SHARES, *y.shape))
    losses = pl_loss(scores, prompts.rewards.double().expand(SHARES, *prompts.rewards.shape))
    found = first + (length + (length.square() + 2 * eta * T * losses).sqrt()).amin(0)
    if kind == "loss":
        return found
    end = minimiser.newton(minimiser.ranked(y[some], prompts.rewards[some]))
    ever = (end.unsqueeze(1) - y[some]).norm(dim=-1).amax(1) + (end - begin[some]).norm(dim=-1)
    limit = found.clone()
    limit[some] = ever
    return limit if kind == "limit" else torch.minimum(torch.minimum(terms, limit), found)


def assumptions(
    W: Float[Tensor, "d p"],
    prompts: Prompts,
    eta: float,
    steps: int,
    dtype: torch.dtype = torch.float64,
    allowed: float = 1e-6,
) -> Assumptions:
    """Gap, spread and radius for `steps` steps from W on these prompts.

    Args:
        allowed: by how much the blocks may be off gradient descent on the way; added to the radius.

    Raises:
        ValueError: as `path_radius` says.
    """
    rewards = prompts.rewards.double().sort(dim=1).values
    radius = path_radius(W, prompts, eta, max(checks.whole("steps", steps, 1) - 1, 0)) + allowed
    reach = prompts.responses.double().norm(dim=-1).amax(1)
    return Assumptions(
        eta=eta,
        gap=rewards.diff(dim=1).min().item(),
        spread=(rewards[:, -1] - rewards[:, 0]).max().item(),
        radius=torch.maximum(radius, reach + radius / 2).max().item(),  # so sized that scores round little
        dtype=dtype,
    )
