"""What a training run is: every choice in one validated record, and the hash that names the run."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from ica import checks
from ica.objectives import REWARDS
from ica.synthetic.task.data import Critic
from ica.transformer import TransformerConfig

FORMS = ("interleaved", "triplet")
TEACHERS = ("critic", "truth")


@dataclass(frozen=True)
class RunConfig:
    """One training run on the synthetic task; the defaults are the released settings.

    Args:
        form: "interleaved" (x, y and r are tokens of their own, 3 N in all, as released; the prediction is read at the
            x token that follows the triplets seen) or "triplet" (one token per triplet, as in the theorem).
        reward: "cosine" (as released) or "squared_distance".
        critic: the critic that rates the training prompts.
        teacher: who ranks the responses for the loss, "critic" (as released) or "truth" (the model reads the critic,
            and learns from the true order).
        layers, heads, width, hidden, attention, mask, post_norm: of the transformer (GELU, pre-norm, learned
            positions); hidden = 0 means no feed-forward network.
        d, N: features of a response, triplets of a prompt.
        steps, batch, rate: Adam updates, prompts in each, learning rate.

    Raises:
        ValueError: a field out of its range, named.
    """

    form: str = "interleaved"
    reward: str = "cosine"
    critic: Critic = field(default_factory=Critic)
    teacher: str = "critic"
    layers: int = 20
    heads: int = 3
    width: int = 96
    hidden: int = 384
    attention: str = "softmax"
    mask: str = "causal"
    post_norm: bool = False
    d: int = 5
    N: int = 20
    steps: int = 3000
    batch: int = 256
    rate: float = 1e-4

    def __post_init__(self):
        checks.one_of("form", self.form, FORMS)
        checks.one_of("reward", self.reward, tuple(REWARDS))
        for name, least in (("d", 1), ("N", 3), ("steps", 1), ("batch", 1)):
            checks.whole(name, getattr(self, name), least)
        checks.positive("rate", self.rate)
        if not isinstance(self.critic, Critic):
            raise ValueError(f"critic must be a Critic, got {type(self.critic).__name__}")
        checks.one_of("teacher", self.teacher, TEACHERS)
        if self.form == "interleaved" and self.critic.raters > self.d:
            raise ValueError(
                f"critic.raters must be at most d = {self.d} with interleaved tokens, got {self.critic.raters}"
            )
        self.transformer()

    def transformer(self) -> TransformerConfig:
        """Configuration of the model."""
        interleaved = self.form == "interleaved"
        return TransformerConfig(
            inputs=self.d if interleaved else 2 * self.d + self.critic.raters,
            outputs=self.d,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            attention=self.attention,
            activation="gelu",
            mask=self.mask,
            pre_norm=True,
            post_norm=self.post_norm,
            positions=3 * self.N if interleaved else self.N,
        )

    def as_dict(self) -> dict:
        """All fields, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "RunConfig":
        """The configuration that `as_dict` gave; ValueError for fields that there are not."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"configuration has no field {unknown[0]!r}; fields: {', '.join(sorted(known))}")
        critic = values.get("critic", {})
        return cls(**{**values, "critic": critic if isinstance(critic, Critic) else Critic(**critic)})

    def hash(self, seeds: tuple[int, ...] = ()) -> str:
        """Twelve hexadecimal digits that name this configuration, with the seeds if given."""
        text = json.dumps([self.as_dict(), list(seeds)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
