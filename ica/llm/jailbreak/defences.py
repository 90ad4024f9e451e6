"""The defences, and for each its control: which dialogues they are, whatever the wording and whoever writes the answers.

Defences, as in the paper (App. B), each beside a control of ours that differs from it in what is under test only:

- `none`: the request and its answer.
- `self-1` to `self-3` (CaC-self): the model checks its answer when asked, then the request is repeated; `repeat-1` to `repeat-3`:
  the request is repeated without a check.
- `instruct-1` to `instruct-3` (CaC-self-instruct): after the check the model is asked to refine its answer, without the request;
  `again-1` to `again-3`: it is asked to refine its answer without a check.
- `diverse-1` to `diverse-3` (CaC-diverse): before the request stand so many other requests, each with the model's own answer, the
  checking question and the model's own check; `diverse-neutral-1` to `-3`: the same with a question about something else.
- `reminder`: a reminder of the rule; `reminder-neutral`: as many words about something else in the same places.
- `icd`: requests that are refused before the request; `icd-neutral`: as many requests that are answered.
- `breaks`, `keeps`: in place of the model's check stands a verdict, "breaks the rule" or "keeps the rule", and then the answer is
  refined. The oracle critic is the one that is true of the answer, the random critic the mean of the two
  (`ica.llm.jailbreak.effects`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ica.llm.jailbreak.attacks import Attack, PromptsError
from ica.llm.model.generation import Generated
from ica.llm.model.load import LanguageModel

ROUNDS = M = 3  # rounds of checking; other requests of CaC-diverse
CHECKED, UNCHECKED, AHEAD = ("self", "instruct"), ("repeat", "again"), ("diverse", "diverse-neutral")
IN_ROUNDS = tuple(
    f"{kind}-{number}" for kind in (*CHECKED, *UNCHECKED, *AHEAD) for number in range(1, ROUNDS + 1)
)
VERDICTS = ("breaks", "keeps")
DEFENCES = ("none", "reminder", "reminder-neutral", "icd", "icd-neutral", *IN_ROUNDS, *VERDICTS)
# What the stand-in is sent under: an attack, and a harmless request.
SENT = {
    "attack": tuple(name for name in DEFENCES if name not in ("diverse-2", "diverse-neutral-2")),
    "benign": (
        *("none", "reminder", "icd", "self-1", "instruct-1", "instruct-2", "instruct-3"),
        *("again-1", "again-2", "again-3", "diverse-3"),
    ),
}
# What a build sends a few attacks under.
FEW = ("none", "self-1", "instruct-1", "repeat-1", "again-1", *VERDICTS, "reminder", "icd", "diverse-1")
Turn = dict[str, str]
Talk = list[Turn]


@dataclass(frozen=True)
class Written:
    """An assistant's turn: what may enter a later prompt, and the same with the end token where the turn ended."""

    text: str
    raw: str


@dataclass(frozen=True)
class Wording:
    """What the user's turns say; pairs are (request, answer).

    Args:
        check, note: the checking question, and one about something else in its place.
        refine, again: a request to refine the answer on the ground of the check, and one without a check.
        reminder, neutral: what is added to the system's message, and what is put around the request at {text}.
        refusals, replies: demonstrations of ICD, refused, and of its control, answered.
        verdicts: what stands in place of the model's check for each of `VERDICTS`.
    """

    check: str
    refine: str
    again: str
    reminder: tuple[str, str]
    refusals: Sequence[tuple[str, str]]
    note: str = ""
    neutral: tuple[str, str] = ("", "{text}")
    replies: Sequence[tuple[str, str]] = ()
    verdicts: tuple[str, str] = ("", "")


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def last_round(kind: str, defences: Sequence[str]) -> int:
    """The last round of this kind that is asked for; 0 for none."""
    return max((n for n in range(1, ROUNDS + 1) if f"{kind}-{n}" in defences), default=0)


class Defended:
    """Dialogues under defences.

    Args:
        begin: a dialogue up to the user's request, from the system's message, the request and the turns before it.
        write: the assistant's next turns of several dialogues, for a defence by name.
        wording: what the user's turns say.
        context: the requests of CaC-diverse; they are answered and checked when this is made, if `defences` need it.
        defences: of `DEFENCES`.
    """

    def __init__(
        self,
        begin: Callable[[str, str, Sequence[Turn]], Talk],
        write: Callable[[str, Sequence[Talk]], list[Written]],
        wording: Wording,
        context: Sequence[Attack],
        defences: Sequence[str] = DEFENCES,
    ):
        self.begin, self.write, self.wording, self.defences = begin, write, wording, defences
        self.before: dict[str, list[list[Turn]]] = {}
        asked = {"diverse": wording.check, "diverse-neutral": wording.note}
        wanted = {kind: question for kind, question in asked.items() if last_round(kind, defences)}
        if not wanted:
            return
        talks = [self.talk(one) for one in context]
        talks = answered(talks, write("context", talks))
        for kind, question in wanted.items():
            checks = write("context", [[*talk, user(question)] for talk in talks])
            self.before[kind] = [
                [user(one.text), talk[-1], user(question), assistant(check.text)]
                for one, talk, check in zip(context, talks, checks, strict=True)
            ]

    def talk(self, one: Attack, more: str = "", wrap: str = "{text}", before: Sequence[Turn] = ()) -> Talk:
        system = " ".join(filter(None, (one.rule, more)))
        return self.begin(system, wrap.replace("{text}", one.text), before)

    def answers(self, sent: Sequence[Attack]) -> tuple[dict[str, list[Written]], dict[str, list[str]]]:
        """Last answers by defence, those of the rounds before included, and the checks before them.

        Dialogues that begin alike come one after another, for writers that keep what they have read.
        """
        words, plain = self.wording, [self.talk(one) for one in sent]
        found = {"none": self.write("none", plain)}
        checks: dict[str, list[str]] = {}
        talks = answered(plain, found["none"])
        self._rounds(sent, talks, found, checks)
        for name, verdict in zip(VERDICTS, words.verdicts, strict=True):
            if name in self.defences:
                told = [user(words.check), assistant(verdict), user(words.refine)]
                found[name] = self.write(name, [[*talk, *told] for talk in talks])
        for name, (more, wrap) in (("reminder", words.reminder), ("reminder-neutral", words.neutral)):
            if name in self.defences:
                found[name] = self.write(name, [self.talk(one, more, wrap) for one in sent])
        ahead = {"icd": words.refusals, "icd-neutral": words.replies}
        before = {
            name: [turn for ask, reply in shown for turn in (user(ask), assistant(reply))]
            for name, shown in ahead.items()
        }
        for kind, triplets in self.before.items():
            for number in range(1, ROUNDS + 1):
                before[f"{kind}-{number}"] = [turn for triplet in triplets[:number] for turn in triplet]
        for name, turns in before.items():
            if name in self.defences:
                found[name] = self.write(name, [self.talk(one, before=turns) for one in sent])
        return found, checks

    def _rounds(
        self,
        sent: Sequence[Attack],
        first: Sequence[Talk],
        found: dict[str, list[Written]],
        checks: dict[str, list[str]],
    ) -> None:
        """Second answers with and without checks, round after round; the first check is the same for both kinds."""
        words, asks = self.wording, {"instruct": self.wording.refine, "again": self.wording.again}
        asking, opening = [[*talk, user(words.check)] for talk in first], None
        for kind in (*CHECKED, *UNCHECKED):
            talks = first
            for number in range(1, last_round(kind, self.defences) + 1):
                name = f"{kind}-{number}"
                if kind in CHECKED:
                    if number == 1:
                        said = opening = opening or self.write("check", asking)
                    else:
                        said = self.write(name, talks := [[*talk, user(words.check)] for talk in talks])
                    checks[name] = [one.text for one in said]
                    talks = answered(asking if number == 1 else talks, said)
                talks = [
                    [*talk, user(asks.get(kind, one.text))] for talk, one in zip(talks, sent, strict=True)
                ]
                found[name] = self.write(name, talks)
                talks = answered(talks, found[name])


def answered(talks: Sequence[Talk], said: Sequence[Written]) -> list[Talk]:
    """The dialogues with the assistant's next turns."""
    return [[*talk, assistant(one.text)] for talk, one in zip(talks, said, strict=True)]


def written(model: LanguageModel, one: Generated) -> Written:
    """What a model wrote, as a turn."""
    end = str(model.tokenizer.decode([one.tokens[-1]])) if one.ended else ""
    return Written(model.plain(one.text).strip(), one.text + end)


def require_room(
    model: LanguageModel,
    wording: Wording,
    context: Sequence[Attack],
    sent: Sequence[tuple[str, Attack]],
    length: int,
    most: int,
) -> None:
    """See that the longest dialogue about every request fits, before anything is generated.

    Args:
        sent: requests, each with a name for messages.
        length: tokens of an answer, at most.
        most: tokens of a dialogue that are accepted.

    Raises:
        PromptsError: one that does not fit, with its place, its tokens and those that are accepted.
        ModelError: the model has no chat template, or one that refuses the roles.
    """
    count = lambda text: len(model.tokens(model.plain(text)))
    about = len(model.context_tokens(model.chat([user("a"), assistant("b"), user("c")])))
    around = about // 2 + 10  # tokens of the template about a turn, at most
    ask = max(map(count, (wording.check, wording.note, wording.refine, wording.again)))
    turn = length + 2 * around
    shown = max(
        sum(count(text) + around for pair in pairs for text in pair)
        for pairs in (wording.refusals, wording.replies)
    )
    before = max(shown, sum(count(one.text) + ask + 2 * turn for one in context))
    added = sum(max(map(count, pair)) for pair in zip(wording.reminder, wording.neutral, strict=True))
    for name, one in sent:
        text = count(one.text)
        rounds = ROUNDS * (ask + max(text, ask) + 2 * turn)
        needed = count(one.rule) + text + turn + max(added, before, rounds)
        if needed > min(most, model.longest):
            raise PromptsError(
                f"{one.place or name}: a dialogue about it needs up to about {needed} tokens (the request has "
                f"{len(one.text)} characters); accepted are at most {min(most, model.longest)} with {model.name}"
            )
