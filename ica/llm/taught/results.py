"""What a taught model answered, `results/taught/ARM-seedK.json`, read back with every field checked, and what critics make of it.

Accuracies are of every item, 0 or 1, or the chance of a right answer where the verdict is drawn. The *own* critic is: it says
"right" with the probability that the model gives to that word. So a critic that was taught with noise errs as often as it was
taught to, where its likelier verdict would not. A random critic says either word half of the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from ica import checks
from ica.llm.bbq.items import CONDITIONS
from ica.llm.bbq.rows import content as text_of
from ica.llm.bbq.rows import parsed
from ica.llm.protocol.prompts import VERDICTS
from ica.llm.taught.evaluate import EVERY
from ica.llm.taught.settings import ARMS, Arm, Recipe, stem
from ica.record.provenance import project_root, write_json

FOLDER = "taught"
SCHEMA = 2
KEYS = ("schema", "arm", "seed", "recipe", "model", "items", "losses", "asked", "provenance")
SETS = ("bbq", "templates")
CRITICS = ("first", "none", "own", "own_likelier", "true", "wrong", "random")


class TaughtError(ValueError):
    """A stored result cannot be used; the message names it, what is wrong, and what to do."""


@dataclass(frozen=True)
class Answers:
    """Answers of one model to one set of items; options by their positions.

    Args:
        first: first answers. after: by verdict ("unchecked", "right", "wrong"), the answers after it on the first one.
        held: how right each option is held to be, from 0 to 1.
        deep: of every third item, lists by critic (answers after one to three rounds) and by kind of scores (answers).
    """

    id: tuple[str, ...]
    condition: tuple[str, ...]
    gold: Int[np.ndarray, " items"]
    first: Int[np.ndarray, " items"]
    held: Float[np.ndarray, "items 3"]
    after: dict[str, Int[np.ndarray, " items"]]
    deep: dict[str, Int[np.ndarray, "some ..."]]

    def of(self, condition: str) -> Bool[np.ndarray, " items"]:
        """Which items are of a condition."""
        return np.array(self.condition) == checks.one_of("condition", condition, CONDITIONS)

    @property
    def some(self) -> Int[np.ndarray, " some"]:
        """The items that `deep` is about."""
        return np.arange(0, len(self.gold), EVERY)

    @property
    def first_right(self) -> Bool[np.ndarray, " items"]:
        """Which first answers are right."""
        return self.first == self.gold

    def says_right(
        self, critic: str = "own", held: Float[np.ndarray, "items 3"] | None = None
    ) -> Float[np.ndarray, " items"]:
        """Probability that a critic calls the first answer right; `held`: what another model holds, for its critic."""
        right = self.first_right.astype(float)
        if critic in ("true", "wrong"):
            return right if critic == "true" else 1 - right
        if critic == "random":
            return np.full(len(right), 0.5)
        odds = (self.held if held is None else held)[np.arange(len(right)), self.first]
        return (odds > 0.5).astype(float) if critic == "own_likelier" else odds

    def accuracy(
        self, critic: str, held: Float[np.ndarray, "items 3"] | None = None
    ) -> Float[np.ndarray, " items"]:
        """Chance of a right answer to each item: the first one, asked again ("none"), or after a critic's verdict.

        Raises:
            ValueError: an unknown critic.
        """
        checks.one_of("critic", critic, CRITICS)
        if critic == "first":
            return self.first_right.astype(float)
        right = {word: (answers == self.gold).astype(float) for word, answers in self.after.items()}
        if critic == "none":
            return right["unchecked"]
        p = self.says_right(critic, held)
        return p * right["right"] + (1 - p) * right["wrong"]

    def critic(self, likelier: bool = False) -> Float[np.ndarray, " items"]:
        """Balanced accuracy of the model's verdicts on the options of each item: half for the right option, half for the others.

        Args:
            likelier: of the likelier verdict; else of one that is drawn.
        """
        held = (self.held > 0.5).astype(float) if likelier else self.held
        rows = np.arange(len(self.gold))
        right = held[rows, self.gold]
        return right / 2 + (1 - (held.sum(1) - right) / 2) / 2

    def perfect(self) -> Float[np.ndarray, " items"]:
        """Accuracy that the true critic's one verdict allows without any knowledge: 1 where the first answer is right, else 1/2."""
        return np.where(self.first_right, 1.0, 0.5)


@dataclass(frozen=True)
class Taught:
    """A stored run; `losses` are of every step of the first stage, then of the second."""

    arm: Arm
    seed: int
    recipe: Recipe
    losses: tuple[float, ...]
    asked: dict[str, Answers]
    provenance: dict


def write(path: Path, content: dict) -> Path:
    """Write a result at once or not at all, after it was checked as a reader would."""
    _checked(content)
    return write_json(path, content, compact=True)


def read(path: Path) -> Taught:
    """One stored run.

    Raises:
        TaughtError: it is missing or damaged.
    """
    try:
        found = _checked(parsed(text_of(path)))
        if path.stem != stem(found.arm.name, found.seed):
            raise ValueError(f"it holds {stem(found.arm.name, found.seed)}")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise TaughtError(
            f"result {path} is missing or damaged ({why}); `git checkout -- results` restores a stored one, "
            f'`make taught RUNS="{path.stem}"` makes it anew'
        ) from error


def current(path: Path, arm: Arm, seed: int, recipe: Recipe, code: str) -> bool:
    """Is this very run stored, made with this code? A damaged one is not."""
    try:
        found = read(path)
    except TaughtError:
        return False
    return (found.arm, found.seed, found.recipe, found.provenance["code"]) == (arm, seed, recipe, code)


def stored(where: Path | None = None) -> dict[str, dict[int, Taught]]:
    """All stored runs, arm -> seed -> run, arms in the order of `settings.ARMS`; empty if there is none.

    Raises:
        TaughtError: a damaged file, or runs that were made with different recipes or code.
    """
    where = where or (project_root() or Path.cwd()) / "results" / FOLDER
    found = [read(path) for path in sorted(where.glob("*.json"))]
    made = {(one.recipe, one.provenance["code"]) for one in found}
    if len(made) > 1:
        raise TaughtError(
            f"runs in {where} were made with {len(made)} recipes or codes; accepted is one for all"
        )
    by_arm = {name: {one.seed: one for one in found if one.arm.name == name} for name in ARMS}
    return {name: dict(sorted(runs.items())) for name, runs in by_arm.items() if runs}


def _checked(content: object) -> Taught:
    """The run of a file's content; ValueError and the like for what is none."""
    if not isinstance(content, dict) or (missing := [name for name in KEYS if name not in content]):
        raise ValueError(f"{missing[0]} is missing" if isinstance(content, dict) else "it is no JSON object")
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has format {content['schema']!r}; accepted: {SCHEMA}")
    arm, recipe = Arm(**content["arm"]), Recipe(**content["recipe"])
    seed = checks.whole("seed", content["seed"], 0)
    losses = tuple(float(one) for one in content["losses"])
    if len(losses) != recipe.first + recipe.steps or not np.isfinite(losses).all():
        raise ValueError(f"losses must be {recipe.first + recipe.steps} numbers")
    asked = {name: _answers(content["asked"][name]) for name in SETS}
    checks.one_of("provenance", "code" in content["provenance"], (True,))
    return Taught(arm, seed, recipe, losses, asked, content["provenance"])


def _answers(columns: Mapping) -> Answers:
    """Answers of the columns that `evaluate.read` gives; ValueError for what they cannot be."""
    n = len(columns["id"])

    def options(name: str, values: list, rows: int = n) -> Int[np.ndarray, "rows ..."]:
        found = np.array(values)
        if found.dtype.kind != "i" or len(found) != rows or not np.isin(found, (0, 1, 2)).all():
            raise ValueError(f"{name} must be {rows} positions of options")
        return found

    held = np.array(columns["held"], dtype=float)
    if held.shape != (n, 3) or not ((held >= 0) & (held <= 1)).all():
        raise ValueError(f"held must be {n} triples of probabilities")
    if len(columns["condition"]) != n or set(columns["condition"]) - set(CONDITIONS):
        raise ValueError("condition must be one of " + ", ".join(CONDITIONS))
    some = len(range(0, n, EVERY))
    return Answers(
        tuple(columns["id"]),
        tuple(columns["condition"]),
        options("gold", columns["gold"]),
        options("first", columns["first"]),
        held,
        {word: options(word, columns[word]) for word in VERDICTS},
        {name: options(name, values, some) for name, values in columns["deep"].items()},
    )
