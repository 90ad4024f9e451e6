"""The arms of the study: which of two abilities a model is taught, how noisy the lessons of its critic are, and the recipe.

To criticise takes many more lessons than to use a critic; so it is taught first, from true labels and once for all arms of a seed.
In an arm's own stage come the lessons in using a critic and, so that its verdicts become as noisy as is asked, noisy ones in
criticising. Every step shows the same number of contexts in every arm. In the place of an ability that an arm is not taught stand plain
lessons: how an answer is given, first and once more, where nothing tells the right one.
"""

from dataclasses import asdict, dataclass

from ica import checks
from ica.record.parameters import meant

BASE = "smollm2"
SEEDS = (0, 1, 2)
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Recipe:
    """How an arm is trained: a first stage that it shares with other arms of its seed, then its own.

    Args:
        first: steps of the first stage. Critics learn there to read and to criticise, from true labels; the others see plain lessons.
        reading: of these the first, to read alone: a verdict is learnt late by a model that cannot tell yet what a text says.
        texts, tried: contexts of a step to read, and of one to criticise in the first stage.
        steps: steps of the second stage, the arm's own.
        critic, user: contexts of one that teach to criticise and to use a critic, or plain ones in their place.
        plain: further contexts of one, plain in every arm.
        rate, warmup: AdamW's learning rate, reached after `warmup` steps of a stage and falling to 0 in a line to its end.
        every: steps between checkpoints.
    """

    first: int = 640
    reading: int = 200
    texts: int = 14
    tried: int = 6
    steps: int = 120
    critic: int = 3
    user: int = 4
    plain: int = 1
    rate: float = 1e-4
    warmup: int = 20
    every: int = 20

    def __post_init__(self):
        for name in ("first", "texts", "tried", "steps", "critic", "user", "every"):
            checks.whole(name, getattr(self, name), 1)
        for name in ("reading", "plain", "warmup"):
            checks.whole(name, getattr(self, name), 0)

    @property
    def contexts(self) -> int:
        """Of a step of the second stage."""
        return self.critic + self.user + self.plain

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0, of a stage of so many."""
        rises = (step + 1) / (self.warmup + 1)
        falls = (steps - step) / max(1, steps - self.warmup)
        return self.rate * min(1.0, rises, falls)


@dataclass(frozen=True)
class Arm:
    """What a model is taught.

    Args:
        critic, user: is it taught to say whether an attempt is right, and to heed what is said of attempts?
        noise: probability with which a label of the critic's lessons of the second stage is turned into its opposite.
    """

    critic: bool
    user: bool
    noise: float = 0.0

    def __post_init__(self):
        checks.one_of("noise", self.noise, LEVELS)
        if self.noise and not (self.critic and self.user):
            raise ValueError(f"noise is for arms with both abilities, got {self}")

    @property
    def name(self) -> str:
        """neither, critic, user, both, or both-P with noise P."""
        kind = ("neither", "user", "critic", "both")[2 * self.critic + self.user]
        return f"{kind}-{self.noise:g}" if self.noise else kind

    def as_dict(self) -> dict:
        """The fields."""
        return asdict(self)


# In an order of which every beginning is of use: the corners of the design, then the ends and the middle of the noise.
ARMS = {
    arm.name: arm
    for arm in (
        Arm(True, True),
        Arm(False, True),
        Arm(True, False),
        Arm(False, False),
        Arm(True, True, 1.0),
        Arm(True, True, 0.5),
        Arm(True, True, 0.25),
        Arm(True, True, 0.75),
    )
}
CORNERS = ("neither", "critic", "user", "both")
GRADED = {level: Arm(True, True, level).name for level in LEVELS}


def stem(arm: str, seed: int) -> str:
    """Name of the result of an arm and seed."""
    return f"{arm}-seed{seed}"


def runs() -> dict[str, tuple[str, int]]:
    """Every run by its name, in the order in which they are made: all arms of a seed, then the next seed."""
    return {stem(arm, seed): (arm, seed) for seed in SEEDS for arm in ARMS}


def chosen(names: str) -> list[tuple[str, int]]:
    """The runs of a text: names of runs, or of arms for all their seeds, apart by spaces; all without one.

    Raises:
        ValueError: a name that is neither.
    """
    known, found = runs(), {}
    for name in names.split() or list(known):
        if name in ARMS:
            found |= {stem(name, seed): (name, seed) for seed in SEEDS}
        elif name in known:
            found[name] = known[name]
        else:
            raise ValueError(f"RUNS: {name!r} is no run; {meant(name, [*ARMS, *known])}")
    return list(found.values())
