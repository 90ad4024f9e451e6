"""Random prompts for the theory: one query, N responses, N distinct rewards."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, validated.

    Args:
        query: one common query per prompt.
        responses: N >= 2 responses per prompt.
        rewards: the critic's value of each response, distinct within a prompt.

    Raises:
        ValueError: shapes that do not fit, N < 2, mixed or unknown types, values not finite, tied rewards.
    """

    query: Float[Tensor, "batch p"]
    responses: Float[Tensor, "batch N d"]
    rewards: Float[Tensor, "batch N"]

    def __post_init__(self):
        checks.shape("responses", self.responses, (None, None, None))
        batch, N, _ = self.responses.shape
        if N < 2:
            raise ValueError(f"responses must hold N >= 2 responses per prompt, got N = {N}")
        checks.shape("query", self.query, (batch, None))
        checks.shape("rewards", self.rewards, (batch, N))
        for name in ("query", "responses", "rewards"):
            checks.finite(name, getattr(self, name))
        for name in ("query", "rewards"):
            checks.one_of(f"{name}.dtype", getattr(self, name).dtype, (self.responses.dtype,))
        checks.distinct("rewards", self.rewards)

    def to(self, dtype: torch.dtype) -> "Prompts":
        """The same prompts in another floating type (rewards that collide there are refused)."""
        checks.dtype("dtype", dtype)
        return Prompts(self.query.to(dtype), self.responses.to(dtype), self.rewards.to(dtype))

    def tokens(self) -> Float[Tensor, "batch N inputs"]:
        r"""Tokens $(x, y_i, \|y_i\|^2, r_i)$: the triplet, with the squared norm of the response as a feature.

        That the norm is given is an assumption of every construction (the paper takes a layer or an FFN for it).
        Only the squared-distance reward needs it; if all responses have one norm, it drops out of every softmax
        and the feature may be dropped with it.
        """
        norms = self.responses.square().sum(dim=-1, keepdim=True)
        query = self.query.unsqueeze(1).expand(-1, self.responses.shape[1], -1)
        return torch.cat([query, self.responses, norms, self.rewards.unsqueeze(-1)], dim=-1)


def spaced_rewards(
    batch: int, N: int, gap: float, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "batch N"]:
    """Rewards uniform on [0, 1] given that any two differ by at least `gap`, in random order.

    Raises:
        ValueError: N values with that gap do not fit into [0, 1].
    """
    free = 1 - checks.positive("gap", gap) * (N - 1)
    if free <= 0:
        raise ValueError(
            f"gap must be below 1/(N-1) = {1 / (N - 1):.4g} for N = {N} rewards in [0, 1], got {gap}"
        )
    spread = torch.rand(batch, N, generator=generator, dtype=torch.float64).sort(dim=-1).values
    ladder = spread * free + gap * torch.arange(N, dtype=torch.float64)
    order = torch.rand(batch, N, generator=generator).argsort(dim=-1)
    return ladder.gather(-1, order).to(dtype)


def default_gap(N: int) -> float:
    """A quarter of the largest possible smallest gap between N rewards in [0, 1]."""
    return 0.25 / (N - 1)


def sample_prompts(
    batch: int,
    N: int,
    d: int,
    p: int | None = None,
    *,
    gap: float | None = None,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Prompts:
    """Prompts with a unit query (p features; default d), responses of unit mean square norm, rewards in [0, 1].

    Args:
        gap: smallest difference of two rewards of a prompt; default `default_gap(N)`.
        generator: the only source of randomness.

    Raises:
        ValueError: a size below its least value, a gap that does not fit, an unknown dtype.
    """
    for name, value, least in (("batch", batch, 1), ("N", N, 2), ("d", d, 1), ("p", p or d, 1)):
        checks.whole(name, value, least)
    checks.dtype("dtype", dtype)
    query = torch.randn(batch, p or d, generator=generator, dtype=torch.float64)
    query = query / query.norm(dim=-1, keepdim=True)
    responses = torch.randn(batch, N, d, generator=generator, dtype=torch.float64) / d**0.5
    rewards = spaced_rewards(batch, N, default_gap(N) if gap is None else gap, generator)
    return Prompts(query.to(dtype), responses.to(dtype), rewards.to(dtype))
