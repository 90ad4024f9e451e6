"""What a training run is: every choice in one validated record, and the hash that names the run."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from ica import checks
from ica.objectives import REWARDS
from ica.synthetic.task.data import NOISES, Critic
from ica.transformer import TransformerConfig

FORMS = ("interleaved", "triplet", "test-token")
SCOPES = ("seen", "all")
PRODUCTS = ("float32", "bfloat16")
TEACHERS = ("critic", "truth")
# Fields that came later: at these values, which are what was before, they do not enter the hash that names a run.
LATER = {"noise": "shared", "scope": "seen", "products": "float32"}


@dataclass(frozen=True)
class RunConfig:
    """One training run on the synthetic task; the defaults are the released settings.

    Args:
        noise: "shared" (one distractor a prompt, as released) or "own" (one a response, as stated in App. C.1).
        form: "interleaved" (x, y and r are tokens of their own, 3 N in all, as released; the prediction is read at the
            x token that follows the triplets seen), "test-token" (one token a triplet and after each number of
            triplets a test token (x, 0, 0), as stated; `tokens` says how one pass holds all) or "triplet" (one token a
            triplet, as in the theorem; the prediction is read at the last triplet seen).
        reward: "cosine" (as released) or "squared_distance" (as stated).
        scope: the loss of a prediction is over the responses "seen" (as released) or over "all" N (as stated).
        critic: the critic that rates the training prompts.
        teacher: who ranks the responses for the loss, "critic" (as released) or "truth" (the model reads the critic,
            and learns from the true order).
        layers, heads, width, hidden, attention, mask, post_norm: of the transformer (GELU, pre-norm, learned
            positions); hidden = 0 means no feed-forward network.
        d, N: features of a response, triplets of a prompt.
        steps, batch, rate: Adam updates, prompts in each, learning rate.
        products: precision of the matrix products of training; all else, and every evaluation, is in float32.

    Raises:
        ValueError: a field out of its range, named.
    """

    noise: str = "shared"
    form: str = "interleaved"
    reward: str = "cosine"
    scope: str = "seen"
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
    products: str = "float32"

    def __post_init__(self):
        checks.one_of("noise", self.noise, NOISES)
        checks.one_of("form", self.form, FORMS)
        checks.one_of("scope", self.scope, SCOPES)
        checks.one_of("products", self.products, PRODUCTS)
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
        if self.form == "test-token" and self.mask != "causal":
            raise ValueError(f'mask must be "causal" with form "test-token", got {self.mask!r}')
        return TransformerConfig(
            inputs=self.d if interleaved else 2 * self.d + self.critic.raters,
            outputs=self.d,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            attention=self.attention,
            activation="gelu",
            mask="test-token" if self.form == "test-token" else self.mask,
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
        fields = {key: value for key, value in self.as_dict().items() if LATER.get(key) != value}
        text = json.dumps([fields, list(seeds)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
