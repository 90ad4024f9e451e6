r"""The Plackett-Luce loss at every prefix of a prompt, all prompts and prefixes at once.

A prediction that has seen the first $n$ triplets is scored by the loss of the ranking of these $n$ responses alone.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ica import checks
from ica.objectives import ranking

OUTSIDE = -1e30


def prefix_pl_losses(
    scores: Float[Tensor, "batch prefixes N"],
    rewards: Float[Tensor, "batch N"],
    lengths: Int[Tensor, " prefixes"],
    ties: str = "stable",
) -> Float[Tensor, "batch prefixes"]:
    r"""Plackett-Luce loss of each prefix, in nats.

    $$L_n = -\sum_{i<n} \log \frac{\exp s_{\tau_n(i)}}{\sum_{j \ge i} \exp s_{\tau_n(j)}}$$

    where $\tau_n$ ranks the first $n$ responses by the critic's values.

    Args:
        scores: reward of every response under the prediction of each prefix; those after the prefix are ignored.
        rewards: the critic's values.
        lengths: number $n \ge 2$ of responses in each prefix.
        ties: "stable" keeps the order of the prompt among equal rewards, "error" refuses them.

    Raises:
        ValueError: shapes that do not fit, scores not finite, a length outside 2 to N, or as `objectives.ranking` says.
    """
    ordered, inside, _ = _ordered(scores, rewards, lengths, ties)
    remaining = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - ordered).masked_fill(~inside, 0).sum(dim=-1)


def prefix_pl_slopes(
    scores: Float[Tensor, "batch prefixes N"],
    rewards: Float[Tensor, "batch N"],
    lengths: Int[Tensor, " prefixes"],
    ties: str = "stable",
) -> Float[Tensor, "batch prefixes N"]:
    r"""Derivative of `prefix_pl_losses` in the scores, in closed form; 0 after the prefix.

    $$\frac{\partial L_n}{\partial s_{\tau_n(j)}} = \sum_{i \le j} \frac{\exp s_{\tau_n(j)}}{\sum_{k \ge i} \exp s_{\tau_n(k)}} - 1$$

    Arguments and errors as there.
    """
    ordered, inside, tau = _ordered(scores, rewards, lengths, ties)
    remaining = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    # a place outside has no term of its own: its sum over the remaining is put out of the way
    taken = (-remaining.masked_fill(~inside, -OUTSIDE)).logcumsumexp(-1)
    slopes = ((ordered + taken).exp() - 1).masked_fill(~inside, 0)
    return torch.empty_like(slopes).scatter_(-1, tau, slopes)


def _ordered(
    scores: Float[Tensor, "batch prefixes N"],
    rewards: Float[Tensor, "batch N"],
    lengths: Int[Tensor, " prefixes"],
    ties: str,
) -> tuple[
    Float[Tensor, "batch prefixes N"], Bool[Tensor, "batch prefixes N"], Int[Tensor, "batch prefixes N"]
]:
    """Scores by rank, best first, those outside of the prefix out of the way; which are inside; and the ranking."""
    batch, N = rewards.shape
    checks.finite("scores", checks.shape("scores", scores, (batch, len(lengths), N)))
    if len(lengths) and (lengths.min() < 2 or lengths.max() > N):
        raise ValueError(f"lengths must lie between 2 and N = {N}, got {lengths.min()} to {lengths.max()}")
    tau = ranking(rewards, ties).unsqueeze(1).expand(scores.shape)
    inside = tau < lengths.unsqueeze(-1)
    return scores.gather(-1, tau).masked_fill(~inside, OUTSIDE), inside, tau
