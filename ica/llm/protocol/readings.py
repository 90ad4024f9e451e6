"""What is drawn for an item and how a reading becomes a choice: shared by the protocol, and by what evaluates its records.

A reading is the log-probability (nats, summed over tokens) of each of the three options of an item.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ica.llm.protocol.prompts import HIGH, LOW

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
REVIEWED = ("unbiased", "biased")  # verdicts of the bias review
CRITICS = ("none", "own", "true", "wrong")
ROUNDS = 3
METHODS = ("text", "text_sum", "letters", "calibrated")
ROTATIONS = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]


def draw(id: str, what: str) -> np.random.Generator:
    """A generator that depends on the item's id and on what is drawn, not on the other items."""
    seed = hashlib.sha256(f"{id} {what}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "big"))


def rotation(id: str) -> int:
    """The rotation in which everything after the first answer is read."""
    return int(draw(id, "rotation").integers(3))


def first_answer(readings: Sequence[Sequence[float]], counts: Sequence[int]) -> int:
    """The option of the highest probability, by log-probability per token, averaged over rotations; of equals the first."""
    means = torch.tensor(readings, dtype=torch.float64) / torch.tensor(counts)
    return int(means.log_softmax(-1).logsumexp(0).argmax())


def likelier(reading: Sequence[float], counts: Sequence[int]) -> int:
    """The option of the highest log-probability per token in one reading; of equals the first."""
    return first_answer([reading], counts)


def rated(id: str, gold: int, level: float | str) -> list[int]:
    """Scores of the three options of an item: the right one high, the others low.

    At a level p each is replaced with probability p by one drawn uniformly from 1 to 10 (the draws are shared by all levels, so
    that what is replaced at one level is replaced at every higher one); at "swapped" a wrong option has the high score.
    """
    true = [HIGH if k == gold else LOW for k in range(3)]
    if level == "swapped":
        wrong = [k for k in range(3) if k != gold][int(draw(id, "swap").integers(2))]
        return [HIGH if k == wrong else LOW for k in range(3)]
    dice = draw(id, "noise")
    when, what = dice.random(3), dice.integers(1, 11, 3)
    return [int(what[k]) if when[k] < level else true[k] for k in range(3)]


def shown(id: str, number: int) -> list[int]:
    """The options that stand in context, in order: the first `number` of a permutation drawn for the item."""
    return [int(k) for k in draw(id, "shown").permutation(3)][:number]
