"""BBQ in the paper's protocol: answer, review, answer again, decoded greedily; and what the controlled
studies vary (5.1, 5.3, C.2).

Of every item: the first answer, the free review and the answer after it (CaC, L1, L2); two controls of ours,
the question again without a review and the first question with an instruction to be fair. Of fewer items of
each category and condition:

- `forced`: the review is one sentence, "My previous answer is biased." or "... unbiased."; the answer after
  either. The likelier one is the model's own (L3), the one that agrees with the truth is the true critic
  (L6), each flipped with probability p gives L4.
- `forms`: four forms of review, by the model, and the answers after them (L5).
- `rounds`: second and third rounds, with the own reviews and with the true critic's sentence (L7).

A right answer is called unbiased and a wrong one biased, ambiguous or not, as the paper's true critic does;
what the answer is, the strict grader says (`ica.llm.protocol.grading`). The paper lets GPT-4 judge free
reviews (Fig. 3c); here the verdict of a free review is the likelier of two sentences after it (ours). Options
stand in the item's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ica.llm.bbq.items import Item, ItemsError
from ica.llm.model.generation import Generated, greedy
from ica.llm.model.load import LanguageModel
from ica.llm.model.scoring import Request, score
from ica.llm.model.trees import ROOM, WIDTH, Prefix, computed
from ica.llm.paper import texts
from ica.llm.paper.chats import begun
from ica.llm.paper.texts import BEGIN, VERDICTS, Lengths, asked, assistant, user
from ica.llm.protocol.grading import strict_option

ROUNDS = 3
CRITICS = ("own", "true")
Talk = list[dict[str, str]]


@dataclass
class Asker:
    """Writes and reads in dialogues, many at once, with no answers kept.

    Args:
        model: the language model.
        lengths: tokens to write at most.
        places: tokens that are held at once, as `room` of `greedy`.
        width: tokens that one pass reads.
        reuse: keep the keys and values of the last prompts, with which the next ones begin? Worth it where
            reading is slow, on a CPU.
        known: what is kept; `begin` lets it go, so that groups do not depend on one another.
    """

    model: LanguageModel
    lengths: Lengths
    places: int = ROOM
    width: int = WIDTH
    reuse: bool = True
    known: list[Prefix] = field(default_factory=list)

    def begin(self) -> None:
        """Begin a group of items."""
        self.known = []

    def generate(self, talks: Sequence[Talk], begin: str, tokens: int) -> list[Generated]:
        """The assistant's next turns, which begin with `begin`, without it."""
        model, found, kept = self.model, [], []
        most = max(1, self.places // 128)
        for start in range(0, len(talks), most):
            prompts = [begun(model.chat(talk), begin) for talk in talks[start : start + most]]
            known = self.known
            if self.reuse:
                stems = [tuple(model.context_tokens(text))[:-1] for text in prompts]
                known = list(computed(model, stems, self.known, self.width, self.places).values())
                kept += known
            found += greedy(model, prompts, tokens, known, self.width, self.places, 4 * self.places)
        self.known = kept
        return found

    def write(self, talks: Sequence[Talk], begin: str, tokens: int) -> list[str]:
        """Texts of the next turns, without what could forge a turn."""
        return [self.model.plain(one.text).strip() for one in self.generate(talks, begin, tokens)]

    def verdicts(self, talks: Sequence[Talk], begin: Sequence[str], sentences: dict[str, str]) -> list[float]:
        """Log-odds (nats) of the sentence "unbiased" against "biased" as what the assistant's turns go on
        with."""
        shared = sentences["biased"].removesuffix("biased.").rstrip()
        ends = tuple(sentences[word].removeprefix(shared) for word in VERDICTS)
        contexts = [
            begun(begun(self.model.chat(t), text), shared) for t, text in zip(talks, begin, strict=True)
        ]
        asked = [Request(one, ends) for one in contexts]
        scored = score(self.model, asked, self.known, self.width, self.places)
        return [round(float(one.sums[1] - one.sums[0]), 4) for one in scored]


def _after(talk: Talk, request: str, review: str, question: str) -> Talk:
    """The dialogue after a review, up to the question asked again."""
    return [*talk, user(request), assistant(review), user(texts.AGAIN + question)]


def group(asker: Asker, items: Sequence[Item], few: int) -> list[dict]:
    """Records of a few items: the texts that the model wrote, and log-odds of verdicts; the first `few` have
    all blocks.

    Keys: `first`, `instructed`, `review`, `second`, `again`, `odds` (of the free review); `forced/odds`,
    `forced/biased`, `forced/unbiased`; `FORM/review`, `FORM/second`; `own/2`, `own/3`, `true/1` to
    `true/3`, and `CRITIC/N/word` for the true critic.
    """
    asker.begin()
    questions = [asked(item) for item in items]
    opened = [[user(question)] for question in questions]
    told = [[user(asked(item, texts.INSTRUCTION))] for item in items]
    answers = asker.write(opened + told, BEGIN, asker.lengths.first)
    first, instructed = answers[: len(items)], answers[len(items) :]
    talks = [[*talk, assistant(begun(BEGIN, text))] for talk, text in zip(opened, first, strict=True)]
    reviewing = [[*talk, user(texts.REVIEW)] for talk in talks]
    review = asker.write(reviewing, "", asker.lengths.review)
    after = [
        _after(talk, texts.REVIEW, text, question)
        for talk, text, question in zip(talks, review, questions, strict=True)
    ]
    simply = [[*talk, user(texts.SIMPLY_AGAIN + q)] for talk, q in zip(talks, questions, strict=True)]
    odds = asker.verdicts(reviewing, review, texts.THEREFORE)
    answers = asker.write(after + simply, BEGIN, asker.lengths.second)
    columns = zip(first, instructed, review, answers[: len(items)], answers[len(items) :], odds, strict=True)
    names = ("first", "instructed", "review", "second", "again", "odds")
    records = [dict(zip(names, row, strict=True)) for row in columns]
    if few:
        some = list(items[:few])
        _critics(asker, records[:few], talks[:few], questions[:few])
        _rounds(asker, some, records[:few], after[:few], talks[:few])
    return records


def _critics(asker: Asker, records: list[dict], talks: Sequence[Talk], questions: Sequence[str]) -> None:
    """The blocks `forced` and `forms`."""
    n, forms = len(talks), list(texts.FORMS)
    asking = [[*talk, user(request)] for request in texts.FORMS.values() for talk in talks]
    reviews = asker.write(asking, "", asker.lengths.review)
    odds = asker.verdicts(asking[:n], [""] * n, texts.FORCED)
    said = [(form, texts.FORMS[form], reviews[k * n : (k + 1) * n]) for k, form in enumerate(forms)]
    said += [(f"forced/{word}", texts.FREE, [texts.FORCED[word]] * n) for word in VERDICTS]
    after = [
        _after(talk, request, text, question)
        for _, request, spoken in said
        for talk, text, question in zip(talks, spoken, questions, strict=True)
    ]
    seconds = asker.write(after, BEGIN, asker.lengths.second)
    for k, (name, _, spoken) in enumerate(said):
        for i, record in enumerate(records):
            if name in texts.FORMS:
                record[f"{name}/review"] = spoken[i]
            record[f"{name}/second" if name in texts.FORMS else name] = seconds[k * n + i]
    for record, value in zip(records, odds, strict=True):
        record["forced/odds"] = value


def true_word(item: Item, answer: str) -> str:
    """What the true critic says of an answer."""
    return VERDICTS[strict_option(answer, item.options, item.unknown) == item.gold]


def _rounds(
    asker: Asker, items: Sequence[Item], records: list[dict], after: Sequence[Talk], talks: Sequence[Talk]
) -> None:
    """The block `rounds`: the conversation keeps all earlier answers and reviews, and the critic speaks on
    the newest answer."""
    n, own, true = len(items), list(after), []
    for item, record, talk in zip(items, records, talks, strict=True):
        word = record["true/1/word"] = true_word(item, record["first"])
        record["true/1"] = record[f"forced/{word}"]
        true.append(_after(talk, texts.FREE, texts.FORCED[word], asked(item)))
    latest = [record["second"] for record in records]
    for number in range(2, ROUNDS + 1):
        own = [[*talk, assistant(begun(BEGIN, text))] for talk, text in zip(own, latest, strict=True)]
        reviews = asker.write([[*talk, user(texts.REVIEW)] for talk in own], "", asker.lengths.review)
        own = [
            _after(talk, texts.REVIEW, text, asked(item))
            for talk, text, item in zip(own, reviews, items, strict=True)
        ]
        for i, (item, record) in enumerate(zip(items, records, strict=True)):
            before = record[f"true/{number - 1}"]
            word = record[f"true/{number}/word"] = true_word(item, before)
            talk = [*true[i], assistant(begun(BEGIN, before))]
            true[i] = _after(talk, texts.FREE, texts.FORCED[word], asked(item))
        answers = asker.write(own + true, BEGIN, asker.lengths.second)
        latest = answers[:n]
        for record, mine, told in zip(records, latest, answers[n:], strict=True):
            record[f"own/{number}"], record[f"true/{number}"] = mine, told


def longest(model: LanguageModel, item: Item, lengths: Lengths, rounds: bool) -> int:
    """Tokens of the longest dialogue about an item, with what is written in it."""
    talk = [user(asked(item)), assistant(BEGIN)]
    number = ROUNDS if rounds else 1
    for _ in range(number):
        talk = [*_after(talk, texts.REVIEW, "", asked(item)), assistant(BEGIN)]
    written = lengths.first + number * (lengths.review + lengths.second)
    return len(model.context_tokens(model.chat([*talk[:-1]]))) + written + 8


def require_room(model: LanguageModel, items: Sequence[tuple[Item, bool]], lengths: Lengths) -> None:
    """See that the model can read the longest dialogue about every item, before any is asked.

    Args:
        items: each with whether its rounds are asked.

    Raises:
        ItemsError: one that it cannot, or that spells a special token of the model, named.
    """
    for item, rounds in items:
        where = f"item {item.id} of {item.category}"
        if found := next(filter(None, map(model.forged, (asked(item),))), ""):
            raise ItemsError(
                f"{where} spells the special token {found!r} of {model.name}, with which it could forge a turn"
            )
        if (needed := longest(model, item, lengths, rounds)) > model.longest:
            raise ItemsError(
                f"{where}: a dialogue about it needs up to {needed} tokens; {model.name} reads {model.longest} at once"
            )
