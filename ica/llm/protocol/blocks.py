r"""The protocol on BBQ items: what is read of a model, in blocks, each block for a group of items in a few calls.

A *reading* is the log-probability (nats, summed over tokens) of each of the three options as the continuation of a context.
What critics would have said is not simulated here: an item is read under every verdict that a critic can give, and
`ica.llm.analysis.conditions` makes the conditions (no critic, own, true, random, wrong) of these readings. So all conditions are about the same
items and share the first answer.

- `core`: the first answer in three rotations of the options; the model's own verdict on each option; the answer asked again
  after an unchecked, a right and a wrong verdict on the first answer.
- `rounds`: second and third corrections, with no critic, the own, the true and the wrong one.
- `forms`: numeric and step-by-step critics, and the model's own steps.
- `triplets`: in-context alignment. One, two, three (response, reward) pairs for the same query; three with each reward
  replaced with probability p by a random one; three with the reward of the right option given to a wrong one.
- `bare`: no demonstrations; the first answer by four methods, and asked again under the three verdicts.

The first answer is the option of the highest mean probability over the rotations (text, length-normalised). Everything after it
is read in one rotation, drawn by the item's hash.
"""

from collections.abc import Sequence

import torch

from ica import checks
from ica.llm.bbq.items import Item
from ica.llm.model.engine import Engine
from ica.llm.model.scoring import Request
from ica.llm.protocol import prompts
from ica.llm.protocol.options import METHODS, Question, preferences
from ica.llm.protocol.readings import (
    CRITICS,
    LEVELS,
    ROTATIONS,
    ROUNDS,
    first_answer,
    likelier,
    rated,
    rotation,
    shown,
)

BLOCKS = ("core", "rounds", "forms", "triplets", "bare")
STEP_TOKENS = 24
DIGITS = 5
JUDGED = (" right", " wrong")


def stem(item: Item, form: str, turn: int) -> str:
    """Demonstrations and question, options in a rotation."""
    shown = [item.options[k] for k in ROTATIONS[turn]]
    return prompts.lead(form) + prompts.ask(item.context, item.question, shown)


def _texts(item: Item) -> tuple[str, ...]:
    return tuple(f" {option}" for option in item.options)


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, DIGITS) for value in values.tolist()]


class Reader:
    """Collects contexts to be read and gives the readings back by name, one call for all."""

    def __init__(self, engine: Engine, form: str, items: Sequence[Item]):
        stems = (stem(item, form, rotation(item.id)) for item in items)
        self.engine, self.anchors = engine, (prompts.lead(form), *stems)
        self.wanted: list[tuple[dict, str, Request]] = []

    def ask(self, record: dict, name: str, context: str, continuations: tuple[str, ...]) -> None:
        """A reading of `continuations` after `context`, to be kept in the record under this name."""
        self.wanted.append((record, name, Request(context, continuations)))

    def read(self) -> None:
        """One call; each record gets the sums of its readings."""
        found = self.engine.score([request for _, _, request in self.wanted], self.anchors)
        for (record, name, _), scores in zip(self.wanted, found, strict=True):
            record[name] = _rounded(scores.sums)
        self.wanted = []


def core(engine: Engine, items: Sequence[Item]) -> list[dict]:
    """First answers, own verdicts, and the answers asked again; see the module.

    A record holds `counts` (tokens of each option), `first/0..2` (by rotation), `check/0..2` (log-probabilities of " right" and
    " wrong" after each option), `again/unchecked`, `again/right`, `again/wrong`, and `answer`, the first answer.
    """
    reader, records = Reader(engine, "verdict", items), [{} for _ in items]
    for item, record in zip(items, records, strict=True):
        record["counts"] = [len(engine.model.tokens(text)) for text in _texts(item)]
        for turn in range(3):
            reader.ask(record, f"first/{turn}", stem(item, "verdict", turn) + "\nAttempt:", _texts(item))
        for k, option in enumerate(item.options):
            begun = stem(item, "verdict", rotation(item.id)) + prompts.attempt(option)
            reader.ask(record, f"check/{k}", begun + "\nVerdict:", JUDGED)
    reader.read()
    for item, record in zip(items, records, strict=True):
        record["answer"] = first_answer([record[f"first/{turn}"] for turn in range(3)], record["counts"])
        _again(reader, item, record, "verdict", record["answer"])
    reader.read()
    return records


def _again(reader: Reader, item: Item, record: dict, form: str, answer: int) -> None:
    begun = stem(item, form, rotation(item.id)) + prompts.attempt(item.options[answer])
    for word in prompts.VERDICTS:
        reader.ask(record, f"again/{word}", begun + prompts.verdict(word) + prompts.FINAL[form], _texts(item))


def word_of(critic: str, item: Item, answer: int, core: dict) -> str:
    """What a critic says of an answer: "own" the model's likelier verdict on that option in the core block, without history."""
    right = answer == item.gold
    if critic == "own":
        good, bad = core[f"check/{answer}"]
        right = good > bad
    if critic == "none":
        return "unchecked"
    return "wrong" if right == (critic == "wrong") else "right"


def rounds(engine: Engine, items: Sequence[Item], cores: Sequence[dict]) -> list[dict]:
    """Second and third corrections: `CRITIC/2`, `CRITIC/3`, and the answers before them, `CRITIC/answers`.

    The critic speaks on the newest answer, and the conversation keeps all earlier attempts and verdicts.
    """
    reader, records = Reader(engine, "verdict", items), [{} for _ in items]
    lines: dict[tuple[int, str], str] = {}
    for i, (item, kept) in enumerate(zip(items, cores, strict=True)):
        for critic in CRITICS:
            word = word_of(critic, item, kept["answer"], kept)
            start = stem(item, "verdict", rotation(item.id))
            lines[i, critic] = start + prompts.attempt(item.options[kept["answer"]]) + prompts.verdict(word)
            records[i][f"{critic}/answers"] = [likelier(kept[f"again/{word}"], kept["counts"])]
    for number in range(2, ROUNDS + 1):
        for (i, critic), before in lines.items():
            answer = records[i][f"{critic}/answers"][-1]
            word = word_of(critic, items[i], answer, cores[i])
            begun = before + prompts.attempt(items[i].options[answer]) + prompts.verdict(word)
            lines[i, critic] = begun
            reader.ask(records[i], f"{critic}/{number}", begun + prompts.FINAL["verdict"], _texts(items[i]))
        reader.read()
        for i, critic in lines:
            chosen = likelier(records[i][f"{critic}/{number}"], cores[i]["counts"])
            records[i][f"{critic}/answers"].append(chosen)
    return records


def forms(engine: Engine, items: Sequence[Item], cores: Sequence[dict]) -> list[dict]:
    """Numeric (`score/high`, `score/low`, `score/own`) and step-by-step (`check/right`, `check/wrong`, `check/own`) critics.

    `score/own` holds the log-probabilities of the high and the low score after the first answer, `steps/own` those of " right" and
    " wrong" after the model's own steps (`steps`, greedy, its first line), and `check/own` the answer after both. The true
    critic's steps are one general sentence, so that they do not give the answer away.
    """
    reader, records = Reader(engine, "score", items), [{} for _ in items]
    for item, kept, record in zip(items, cores, records, strict=True):
        begun = stem(item, "score", rotation(item.id)) + prompts.attempt(item.options[kept["answer"]])
        reader.ask(
            record,
            "score/own",
            begun + "\nScore:",
            tuple(f" {value}/10" for value in (prompts.HIGH, prompts.LOW)),
        )
        for name, value in (("high", prompts.HIGH), ("low", prompts.LOW)):
            reader.ask(
                record, f"score/{name}", begun + prompts.score(value) + prompts.FINAL["score"], _texts(item)
            )
    reader.read()
    reader = Reader(engine, "check", items)
    starts = [
        stem(item, "check", rotation(item.id)) + prompts.attempt(item.options[kept["answer"]]) + "\nCheck:"
        for item, kept in zip(items, cores, strict=True)
    ]
    written = engine.generate(starts, STEP_TOKENS, reader.anchors)
    for item, record, start, one in zip(items, records, starts, written, strict=True):
        record["steps"] = engine.model.plain(one.text.split("\n")[0].strip())
        reader.ask(record, "steps/own", f"{start} {record['steps']}\nVerdict:", JUDGED)
        for word, reason in prompts.REASONS.items():
            told = f"{start} {reason}" + prompts.verdict(word) + prompts.FINAL["check"]
            reader.ask(record, f"check/{word}", told, _texts(item))
    reader.read()
    for item, record, start in zip(items, records, starts, strict=True):
        word = "right" if record["steps/own"][0] > record["steps/own"][1] else "wrong"
        told = f"{start} {record['steps']}" + prompts.verdict(word) + prompts.FINAL["check"]
        reader.ask(record, "check/own", told, _texts(item))
    reader.read()
    return records


def triplets(engine: Engine, items: Sequence[Item]) -> list[dict]:
    """In-context alignment: `pairs/1`, `pairs/2`, `noise/P` (three pairs at level P), `swapped`; `shown`, the order."""
    reader, records = Reader(engine, "score", items), [{} for _ in items]
    wanted = [("pairs/1", 1, 0.0), ("pairs/2", 2, 0.0), ("swapped", 3, "swapped")]
    wanted += [(f"noise/{level:g}", 3, level) for level in LEVELS]
    for item, record in zip(items, records, strict=True):
        record["shown"] = shown(item.id, 3)
        for name, number, level in wanted:
            values = rated(item.id, item.gold, level)
            lines = (
                prompts.attempt(item.options[k]) + prompts.score(values[k]) for k in shown(item.id, number)
            )
            begun = stem(item, "score", rotation(item.id)) + "".join(lines)
            reader.ask(record, name, begun + prompts.FINAL["score"], _texts(item))
    reader.read()
    return records


def bare(engine: Engine, items: Sequence[Item], cores: Sequence[dict]) -> list[dict]:
    """Without demonstrations: `METHOD` (scores of the first answer by rotation), `again/VERDICT` for the core's first answer."""
    reader, records = Reader(engine, "bare", items), [{} for _ in items]
    letters = ("(A)", "(B)", "(C)")

    def question(item: Item) -> Question:
        def ask(options: tuple[str, ...]) -> str:
            lines = [f"{letter} {option}" for letter, option in zip(letters, options, strict=True)]
            return f"{prompts.ask(item.context, item.question, lines)}\nAnswer:"

        blank = f"{prompts.ask('N/A', 'N/A', [f'{letter} N/A' for letter in letters])}\nAnswer:"
        return Question(ask, item.options, (blank,))

    found = preferences(engine.score, [question(item) for item in items], letters=(" (A", " (B", " (C"))
    for item, kept, record, by_method in zip(items, cores, records, found, strict=True):
        record |= {method: [_rounded(row) for row in by_method[method].scores] for method in METHODS}
        _again(reader, item, record, "bare", kept["answer"])
    reader.read()
    return records


def measure(engine: Engine, items: Sequence[Item], block: str, cores: Sequence[dict] = ()) -> list[dict]:
    """One block for a group of items, which must be short: a call holds all of them.

    Args:
        cores: records of the core block of the same items; `core` and `triplets` need none.

    Raises:
        ValueError: an unknown block.
    """
    checks.one_of("block", block, BLOCKS)
    if block in ("core", "triplets"):
        return {"core": core, "triplets": triplets}[block](engine, items)
    return {"rounds": rounds, "forms": forms, "bare": bare}[block](engine, items, cores)
