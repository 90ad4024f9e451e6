r"""Alignment objectives: rewards of a prediction, Bradley-Terry and Plackett-Luce losses, and their gradients.

Notation: a prompt has one query $x \in R^p$ and $N$ responses $y_i \in R^d$ with critic values $r_i$. The model predicts
$\hat y = W x$ and scores response $i$ by a reward $s_i = r_W(x, y_i)$. $\tau$ ranks the responses by $r$, best first.
The critic's values enter the losses through $\tau$ only.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from ica import checks


def squared_distance_reward(
    prediction: Float[Tensor, "*#batch d"], responses: Float[Tensor, "*#batch N d"]
) -> Float[Tensor, "*#batch N"]:
    r"""Reward $-\|\hat y - y_i\|^2$ of each response; with $\hat y = W x$ the linear, squared-error reward model."""
    return -(prediction.unsqueeze(-2) - responses).square().sum(dim=-1)


def cosine_reward(
    prediction: Float[Tensor, "*#batch d"], responses: Float[Tensor, "*#batch N d"]
) -> Float[Tensor, "*#batch N"]:
    r"""Reward $\cos(\hat y, y_i)$ of each response (the released code's reward), whatever their norms.

    Raises:
        ValueError: a prediction or response of norm 0, whose cosine is undefined. Inside `torch.func.vmap`,
            where values cannot be looked at, norms below 1e-8 count as 1e-8, as in PyTorch.
    """
    prediction = _moderate("prediction", prediction).unsqueeze(-2)
    return torch.nn.functional.cosine_similarity(prediction, _moderate("responses", responses), dim=-1)


def _moderate(name: str, vectors: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    """The vectors; those with a largest entry outside of 1e-8 to 1e8 divided by it, as squares would fail."""
    if not checks.readable(vectors):
        return vectors
    size = vectors.detach().abs().amax(dim=-1, keepdim=True)
    if (size == 0).any():
        raise ValueError(f"{name} must not be zero: a vector of norm 0 has no cosine with another")
    odd = (size < 1e-8) | (size > 1e8)
    return vectors / torch.where(odd, size, torch.ones_like(size)) if odd.any() else vectors


REWARDS = {"squared_distance": squared_distance_reward, "cosine": cosine_reward}


def ranking(rewards: Float[Tensor, "*batch N"], ties: str = "error") -> Int[Tensor, "*batch N"]:
    """Order of the responses, best reward first.

    Args:
        rewards: critic values, at least two per prompt, finite.
        ties: "error" refuses equal rewards; "stable" keeps their order in the prompt.

    Raises:
        ValueError: rewards not finite, fewer than two, or tied while `ties` is "error".
    """
    checks.one_of("ties", ties, ("error", "stable"))
    checks.finite("rewards", rewards)
    if rewards.shape[-1] < 2:
        raise ValueError(f"rewards must hold N >= 2 values per prompt, got N = {rewards.shape[-1]}")
    if ties == "error":
        checks.distinct("rewards", rewards)
    return torch.sort(rewards, dim=-1, descending=True, stable=True).indices


def pl_loss(
    scores: Float[Tensor, "*batch N"], rewards: Float[Tensor, "*batch N"], ties: str = "error"
) -> Float[Tensor, "*batch"]:
    r"""Plackett-Luce loss of the ranking by `rewards` under `scores`.

    $$L_{PL} = -\sum_{i<N} \log \frac{\exp s_{\tau(i)}}{\sum_{j \ge i} \exp s_{\tau(j)}}
    = \sum_{i<N} \log \Big( 1 + \sum_{j > i} e^{s_{\tau(j)} - s_{\tau(i)}} \Big)$$

    No term of the second form is a difference of large numbers: loss and gradient keep their digits at any margin.

    Args:
        scores: the model's reward of each response.
        rewards: the critic's value of each response; only their order matters.
        ties: see `ranking`.

    Returns:
        One loss per prompt, in nats.

    Raises:
        ValueError: shapes differ, or as `ranking` says.

    Source: Plackett (1975), Luce (1959); with N = 2 it is the Bradley-Terry loss.
    """
    checks.shape("scores", scores, tuple(rewards.shape))
    ordered = checks.finite("scores", scores).gather(-1, ranking(rewards, ties))
    above, *rest = ordered.unbind(-1)[::-1]  # from the worst response to the best
    excess, loss = torch.zeros_like(above), torch.zeros_like(above)
    for (
        score
    ) in rest:  # the largest score below this one is `above`, the log of the sum there `above + excess`
        gap = above - score + excess
        term = -logsigmoid(-gap)
        loss = loss + term
        higher = score >= above
        excess = torch.where(higher, term, excess - logsigmoid(gap))
        above = torch.where(higher, score, above)
    return loss


def bt_loss(
    scores: Float[Tensor, "*batch 2"], rewards: Float[Tensor, "*batch 2"], ties: str = "error"
) -> Float[Tensor, "*batch"]:
    r"""Bradley-Terry loss $-\log \sigma(s_{\tau(1)} - s_{\tau(2)})$, in nats per prompt.

    Raises:
        ValueError: not exactly two responses, or as `ranking` says.

    Source: Bradley and Terry (1952); written apart from `pl_loss` so that the two can check each other.
    """
    checks.shape("scores", scores, (*rewards.shape[:-1], 2))
    best, worst = checks.finite("scores", scores).gather(-1, ranking(rewards, ties)).unbind(-1)
    return -logsigmoid(best - worst)


def remaining_weights(scores: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch terms N"]:
    r"""The weights $\beta^i_j$ of each Plackett-Luce term for scores already ranked best first.

    Row $i$ (of $N-1$) is the softmax over the responses $j \ge i$ that are still in the race; zero elsewhere.
    """
    N = scores.shape[-1]
    gone = torch.ones(N - 1, N, dtype=torch.bool, device=scores.device).tril(-1)
    spread = scores.unsqueeze(-2).expand(*scores.shape[:-1], N - 1, N)
    return spread.masked_fill(gone, -torch.inf).softmax(dim=-1)


def pl_direction(
    prediction: Float[Tensor, "*batch d"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
    ties: str = "error",
) -> Float[Tensor, "*batch d"]:
    r"""Half of minus the gradient of the Plackett-Luce loss in the prediction, squared-distance reward.

    $$\sum_{i<N} \Big( y_{\tau(i)} - \sum_{j \ge i} \beta^i_j y_{\tau(j)} \Big)
    = \sum_{i<j} \beta^i_j (y_{\tau(i)} - y_{\tau(j)})$$

    The terms in the prediction itself cancel, because all responses share one query. Computed in the second form,
    from $s_j - s_i = \langle y_j - y_i, 2 \hat y - y_i - y_j \rangle$, so that small weights keep their digits.
    """
    tau = ranking(rewards, ties)
    ordered = responses.gather(-2, tau.unsqueeze(-1).expand_as(responses))
    N = ordered.shape[-2]
    i, j = torch.triu_indices(N, N, 1, device=ordered.device)
    better, worse = ordered[..., i, :], ordered[..., j, :]
    apart = better - worse
    towards = 2 * prediction.unsqueeze(-2) - (better + worse)
    scores = apart.new_full((*apart.shape[:-2], N, N), -torch.inf)
    scores.diagonal(dim1=-2, dim2=-1).zero_()
    scores[..., i, j] = -(apart * towards).sum(dim=-1)
    beta = scores.softmax(dim=-1)[..., i, j]
    return (beta.unsqueeze(-1) * apart).sum(dim=-2)


def pl_gradient(
    W: Float[Tensor, "*batch d p"],
    query: Float[Tensor, "*batch p"],
    responses: Float[Tensor, "*batch N d"],
    rewards: Float[Tensor, "*batch N"],
    ties: str = "error",
) -> Float[Tensor, "*batch d p"]:
    r"""Closed form of $\partial L_{PL} / \partial W$ for the reward $-\|W x - y\|^2$.

    $$\frac{\partial L}{\partial W} = 2 \sum_{i<N} \Big( \sum_{j \ge i} \beta^i_j y_{\tau(j)} - y_{\tau(i)} \Big) x^\top$$

    Raises:
        ValueError: as `ranking` says. Source: the paper's Eq. 9 and App. E.3; the notebook "In-context alignment" derives it.
    """
    direction = pl_direction(predict(W, query), responses, rewards, ties)
    return -2 * direction.unsqueeze(-1) * query.unsqueeze(-2)


def predict(W: Float[Tensor, "*batch d p"], query: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch d"]:
    r"""The linear model's prediction $\hat y = W x$."""
    return (W @ query.unsqueeze(-1)).squeeze(-1)
