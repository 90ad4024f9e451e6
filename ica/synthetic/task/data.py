r"""The synthetic task: prompts whose responses lie between a target and distractors, and critics that rate them.

One query $x \sim N(0, I_d)$ per prompt and a matrix $W \sim N(0, 1)^{d \times d}$, the target $y^* = x W$, and
$y_i = r_i y^* + (1 - r_i) e_i$ with $r_i \sim U(0, 1)$ and $e_i = x W_i$, $W_i$ as $W$. The *noise* is a prompt's: with
"own" noise each response has its own $W_i$ (the paper, sec. 4 and App. C.1), with "shared" noise there is one for the
prompt (the released code's sampler), so that all responses lie on a line. One generator draws all; the released code
draws rewards outside of its seeded one.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks

CRITICS = ("replace", "gaussian", "flip")
NOISES = ("shared", "own")


@dataclass(frozen=True)
class SyntheticBatch:
    """A batch of prompts.

    `good` is the target, `bad` the distractor of the prompt (shared noise) or those of its responses (own noise).
    `quality` is how good a response really is, `shown` what its raters say of it, and `rewards`, which rank the
    responses, the mean over the raters.
    """

    query: Float[Tensor, "batch d"]
    good: Float[Tensor, "batch d"]
    bad: Float[Tensor, "batch *N d"]
    responses: Float[Tensor, "batch N d"]
    quality: Float[Tensor, "batch N"]
    rewards: Float[Tensor, "batch N"]
    shown: Float[Tensor, "batch N raters"]

    def to(self, device: torch.device | str) -> "SyntheticBatch":
        """The same prompts on a device."""
        return SyntheticBatch(*(getattr(self, field.name).to(device) for field in fields(self)))

    def judged_by(self, critic: "Critic", generator: torch.Generator) -> "SyntheticBatch":
        """The same prompts, rated by another critic."""
        shown = critic.rate(self.quality, generator)
        return replace(self, shown=shown, rewards=shown.mean(-1))

    @property
    def noise(self) -> str:
        """ "own" where each response has a distractor of its own, else "shared"."""
        return "own" if self.bad.ndim == self.responses.ndim else "shared"

    def on_a_line(self) -> "SyntheticBatch":
        """The batch itself if its noise is shared.

        Raises:
            ValueError: each response has its own noise, so that the prompts have no line, plane or one distractor.
        """
        if self.noise == "own":
            raise ValueError("batch must have shared noise (responses on a line), got own noise")
        return self


@dataclass(frozen=True)
class Critic:
    """How the rewards shown differ from the quality.

    Args:
        kind: "replace" (with probability `level` a fresh U(0, 1), as released), "gaussian" (additive noise of standard
            deviation `level`), or "flip" (with probability `level` the opposite, 1 - r: an adversary).
        level: a probability in [0, 1], or for "gaussian" any number of at least 0; 0 is the true critic.
        raters: independent raters of this kind; with several the critic is multi-dimensional.
        grades: 0 shows the number itself; g >= 2 shows which of g equal parts of [0, 1] it lies in, by the middle of
            that part (an ordinal critic).

    Raises:
        ValueError: an unknown kind, a level, raters or grades out of range.
    """

    kind: str = "replace"
    level: float = 0.0
    raters: int = 1
    grades: int = 0

    def __post_init__(self):
        checks.one_of("kind", self.kind, CRITICS)
        highest = float("inf") if self.kind == "gaussian" else 1.0
        if isinstance(self.level, bool) or not 0 <= self.level <= highest or self.level == float("inf"):
            raise ValueError(
                f"level must lie between 0 and {highest:g} for critic {self.kind}, got {self.level!r}"
            )
        checks.whole("raters", self.raters, 1)
        if checks.whole("grades", self.grades, 0) == 1:
            raise ValueError("grades must be 0 (none) or at least 2, got 1")

    def rate(
        self, quality: Float[Tensor, "batch N"], generator: torch.Generator
    ) -> Float[Tensor, "batch N raters"]:
        """What the raters say. Every kind draws the same amount, so later draws do not depend on it."""
        said = torch.stack([self._one(quality, generator) for _ in range(self.raters)], dim=-1)
        if not self.grades:
            return said
        return ((said * self.grades).floor().clamp(0, self.grades - 1) + 0.5) / self.grades

    def _one(self, quality: Float[Tensor, "batch N"], generator: torch.Generator) -> Float[Tensor, "batch N"]:
        chance = torch.rand(quality.shape, generator=generator, dtype=torch.float64)
        fresh = torch.rand(quality.shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(quality.shape, generator=generator, dtype=torch.float64)
        if self.kind == "gaussian":
            return quality + self.level * noise.to(quality.dtype)
        other = fresh.to(quality.dtype) if self.kind == "replace" else 1 - quality
        return torch.where(chance < self.level, other, quality)


def sample_batch(
    batch: int,
    N: int,
    d: int,
    generator: torch.Generator,
    critic: Critic | None = None,
    dtype: torch.dtype = torch.float32,
    noise: str = "shared",
) -> SyntheticBatch:
    """Prompts of the synthetic task; drawn in float64, so that the same seed gives the same prompts in any type.

    Raises:
        ValueError: a size below its least value (batch 1, N 2, d 1), an unknown dtype or noise.
    """
    checks.one_of("noise", noise, NOISES)
    for name, value, least in (("batch", batch, 1), ("N", N, 2), ("d", d, 1)):
        checks.whole(name, value, least)
    checks.dtype("dtype", dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, W, W_bad = normal(batch, d), normal(batch, d, d), normal(batch, *(N,) * (noise == "own"), d, d)
    quality = torch.rand(batch, N, generator=generator, dtype=torch.float64)
    good, bad = (torch.einsum("bi,b...ij->b...j", query, matrix) for matrix in (W, W_bad))
    ends = bad if noise == "own" else bad.unsqueeze(1)
    responses = torch.lerp(ends, good.unsqueeze(1).expand_as(ends), quality.unsqueeze(-1))
    shown = (critic or Critic()).rate(quality, generator)
    tensors = (query, good, bad, responses, quality, shown.mean(-1), shown)
    return SyntheticBatch(*(tensor.to(dtype) for tensor in tensors))
