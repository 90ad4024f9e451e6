"""What a taught model is asked, without demonstrations: BBQ's held-out half, of which no text is ever taught, and held-out items.

Of every item: the first answer; how right each of the three options is held to be; the answer after an unchecked attempt, and
after a right and a wrong verdict, on the first answer. Of every third one also three rounds of correction, and answers after
attempts with scores. All of it in one drawn rotation of the options, so that first and later answers see the same order; an answer
is the option of the highest log-probability per token. What critics would have said follows from these (`results`).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch

from ica.llm.bbq.items import Item
from ica.llm.model.engine import Engine
from ica.llm.model.scoring import Request
from ica.llm.protocol import prompts
from ica.llm.protocol.prompts import HIGH, LOW, VERDICTS
from ica.llm.protocol.readings import ROTATIONS, ROUNDS, draw, likelier, rotation, shown

GROUP, EVERY = 8, 3
CRITICS = ("none", "own", "true")
SCORED = ("one", "two", "three", "swapped")
JUDGED = (" right", " wrong")
DIGITS = 4


class Asker:
    """Asks an engine about a few items; what all questions about an item begin with is computed once."""

    def __init__(self, engine: Engine, items: Sequence[Item]):
        self.engine, self.items = engine, items
        self.stems = [
            prompts.ask(one.context, one.question, [one.options[k] for k in ROTATIONS[rotation(one.id)]])
            for one in items
        ]

    def choose(self, ends: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
        """The options that the items are answered with after their stems and these ends, by the names of the ends."""
        requests = [
            Request(stem + end, tuple(f" {option}" for option in item.options))
            for some in ends.values()
            for item, stem, end in zip(self.items, self.stems, some, strict=True)
        ]
        scores = self.engine.score(requests, self.stems)
        found = iter([likelier(one.sums.tolist(), one.counts.tolist()) for one in scores])
        return {name: list(islice(found, len(self.items))) for name in ends}

    def judge(self) -> list[list[float]]:
        """The probability of " right" against " wrong" after each option of each item, as an attempt."""
        ends = [
            (stem, option)
            for item, stem in zip(self.items, self.stems, strict=True)
            for option in item.options
        ]
        requests = [Request(stem + prompts.attempt(option) + "\nVerdict:", JUDGED) for stem, option in ends]
        odds = [torch.softmax(one.sums, 0)[0].item() for one in self.engine.score(requests, self.stems)]
        return [[round(value, DIGITS) for value in odds[k : k + 3]] for k in range(0, len(odds), 3)]


def word_of(critic: str, item: Item, answer: int, held: Sequence[float]) -> str:
    """What a critic says of an answer; the own one what the model holds for likelier, from `held` (see `judge`)."""
    if critic == "none":
        return "unchecked"
    right = answer == item.gold if critic == "true" else held[answer] > 0.5
    return "right" if right else "wrong"


def rated(item: Item, kind: str) -> list[tuple[int, int]]:
    """Attempts with their scores, in order; with "swapped" a wrong one of three has the high score."""
    number = min(SCORED.index(kind) + 1, 3)
    best = item.gold
    if kind == "swapped":
        best = [k for k in range(3) if k != item.gold][int(draw(item.id, "swap").integers(2))]
    return [(k, HIGH if k == best else LOW) for k in shown(item.id, number)]


def _said(item: Item, answers: Sequence[int], words: Sequence[str]) -> str:
    pairs = zip(answers, words, strict=True)
    return "".join(prompts.attempt(item.options[k]) + prompts.verdict(word) for k, word in pairs)


def core(engine: Engine, items: Sequence[Item]) -> list[dict]:
    """For each item `first` (the option), `held` (see `Asker.judge`), and `unchecked`, `right`, `wrong`: the answer after that
    verdict on the first one."""
    asker = Asker(engine, items)
    found = asker.choose({"first": ["\nAttempt:"] * len(items)}) | {"held": asker.judge()}
    told = {
        word: [
            _said(item, [k], [word]) + prompts.FINAL["verdict"]
            for item, k in zip(items, found["first"], strict=True)
        ]
        for word in VERDICTS
    }
    return _rows(found | asker.choose(told))


def deep(engine: Engine, items: Sequence[Item], cores: Sequence[dict]) -> list[dict]:
    """For each item `CRITIC` (the answers after one to three rounds) and `KIND` (the answer after attempts with scores)."""
    asker = Asker(engine, items)
    answers = {critic: [[one["first"]] for one in cores] for critic in CRITICS}
    words = {critic: [[] for _ in items] for critic in CRITICS}
    for _ in range(ROUNDS):
        told = {}
        for critic in CRITICS:
            for item, own, said, one in zip(items, answers[critic], words[critic], cores, strict=True):
                said.append(word_of(critic, item, own[-1], one["held"]))
            about = zip(items, answers[critic], words[critic], strict=True)
            told[critic] = [_said(*one) + prompts.FINAL["verdict"] for one in about]
        for critic, chosen in asker.choose(told).items():
            for own, option in zip(answers[critic], chosen, strict=True):
                own.append(option)
    scored = asker.choose({kind: [_scored(item, kind) for item in items] for kind in SCORED})
    return _rows({critic: [own[1:] for own in found] for critic, found in answers.items()} | scored)


def _scored(item: Item, kind: str) -> str:
    pairs = (prompts.attempt(item.options[k]) + prompts.score(value) for k, value in rated(item, kind))
    return "".join(pairs) + prompts.FINAL["score"]


def _rows(columns: Mapping[str, Sequence]) -> list[dict]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read(engine: Engine, items: Sequence[Item], tell: Callable[[str], None] | None = None) -> dict:
    """All of it as columns: facts of the items, `first`, `held`, a list for each verdict, and `deep`: the same for every third."""
    cores, more = [], []
    for begin in range(0, len(items), GROUP):
        group = items[begin : begin + GROUP]
        found = core(engine, group)
        some = [k for k in range(len(group)) if (begin + k) % EVERY == 0]
        cores += found
        more += deep(engine, [group[k] for k in some], [found[k] for k in some]) if some else []
        if tell:
            tell(f"{len(cores)}/{len(items)}")
    facts = {
        name: [getattr(item, name) for item in items] for name in ("id", "category", "condition", "gold")
    }
    columns = {name: [one[name] for one in cores] for name in cores[0]}
    return facts | columns | {"deep": {name: [one[name] for one in more] for name in more[0]}}
