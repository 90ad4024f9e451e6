"""Attacks in the paper's protocol (B): no defence, self-reminder, ICD, and three kinds of checking as
context, up to three rounds.

- `none`; `again`: the request before answered once more, with no check (the control, ours);
- `reminder`: a sentence added to the system's message; `icd`: two refused requests in the context before the
  query (texts ours);
- `self-1` to `self-3`: the model checks its answer when asked, then the query is repeated (CaC-self);
- `instruct-1` to `instruct-3`: likewise, but it is asked to refine its answer, without the query
  (CaC-self-instruct, that of Table 1);
- `diverse-1` to `diverse-3`: before the query stand so many of M = 3 other requests, each with the model's
  own answer, the checking question and its own check (CaC-diverse). They are made once, from the first three
  requests of the file, which are not attacked.

The user's requests and what the model answers stay in memory: what is kept of each answer is what the judges
say, as rows of numbers.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ica.llm.jailbreak.attacks import Attack, PromptsError, load_prompts, stand_in
from ica.llm.jailbreak.judges import complies, leaked, refuses
from ica.llm.paper import texts
from ica.llm.paper.bias import Asker, Talk
from ica.llm.paper.chats import opened
from ica.llm.paper.texts import assistant, user
from ica.llm.protocol.grading import FIRST, released_success

BENIGN = Path(__file__).with_name("benign.yml")
ROUNDS = M = 3
DEFENCES = ("none", "again", "reminder", "icd") + tuple(
    f"{kind}-{number}" for kind in ("self", "instruct", "diverse") for number in range(1, ROUNDS + 1)
)
KINDS = ("attack", "benign")
LONGEST_TALK = 4096  # tokens of a dialogue


@dataclass(frozen=True)
class Request:
    """A request to be sent under every defence: an attack, or a harmless one; `attack` holds its text and
    what is to be kept."""

    kind: str
    number: int
    attack: Attack

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.number}"


def requests(file: Path | None, count: int) -> tuple[list[Attack], list[Request]]:
    """The three requests for CaC-diverse, and those that are sent: all others of the file, or half of `count`
    of the stand-in, and as many benign ones.

    Raises:
        PromptsError: the file is none of prompts, or holds fewer than four.
    """
    attacks = load_prompts(file) if file else stand_in(secrets=1)
    if len(attacks) <= M:
        raise PromptsError(
            f"{file} holds {len(attacks)} prompts; at least {M + 1} are needed, as the first {M} serve as context of CaC-diverse"
        )
    if file:  # the paper's attacks come without a rule of the system
        attacks = [Attack("", one.text, place=one.place) for one in attacks]
    sent = attacks[M:] if file else attacks[M : M + max(2, count // 2)]
    benign = yaml.safe_load(BENIGN.read_text(encoding="utf-8"))["requests"]
    found = [Request("attack", n, one) for n, one in enumerate(sent)]
    found += [Request("benign", n, Attack("", text)) for n, text in enumerate(benign[: max(2, count // 2)])]
    return attacks[:M], found


def digest(context: Sequence[Attack], sent: Sequence[Request]) -> str:
    """SHA-256 over all that is sent."""
    told = [[one.rule, one.text] for one in context]
    told += [[one.kind, one.attack.rule, one.attack.text] for one in sent]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Defended:
    """Dialogues under every defence.

    Args:
        asker: the model.
        context: the requests of CaC-diverse; they are answered and checked when this is made.
    """

    def __init__(self, asker: Asker, context: Sequence[Attack]):
        self.asker, self.seconds = asker, {}
        talks = [opened(asker.model, one.rule, self._plain(one)) for one in context]
        first = self._write("context", talks)[0]
        talks = [[*t, assistant(a), user(texts.CHECK)] for t, a in zip(talks, first, strict=True)]
        checks = self._write("context", talks)[0]
        self.pairs: list[Talk] = [
            [user(self._plain(one)), assistant(answer), user(texts.CHECK), assistant(check)]
            for one, answer, check in zip(context, first, checks, strict=True)
        ]

    def _plain(self, attack: Attack) -> str:
        return self.asker.model.plain(attack.text)

    def _write(self, name: str, talks: Sequence[Talk]) -> tuple[list[str], list[str]]:
        """Texts of the next turns, and the same with the end token where the turn ended; the time is added
        under `name`."""
        model, begin = self.asker.model, time.perf_counter()
        written = self.asker.generate(talks, "", self.asker.lengths.attack)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        plain = [model.plain(one.text).strip() for one in written]
        ends = [str(model.tokenizer.decode([one.tokens[-1]])) if one.ended else "" for one in written]
        return plain, [one.text + end for one, end in zip(written, ends, strict=True)]

    def rows(self, sent: Sequence[Request]) -> dict[str, dict]:
        """What judges say of the answers to a group of requests, by request: a dictionary by defence, and the
        checks' words."""
        model, self.seconds = self.asker.model, {}
        found: dict[str, dict] = {one.key: {"kind": one.kind, "family": one.attack.family} for one in sent}

        def judge(name: str, answers: tuple[list[str], list[str]]) -> list[str]:
            for one, text, raw in zip(sent, *answers, strict=True):
                found[one.key][name] = judged(one, text, raw)
            return answers[0]

        def talk(one: Request, more: str = "", before: Sequence[dict] = ()) -> Talk:
            system = " ".join(filter(None, (one.attack.rule, more)))
            return opened(model, system, self._plain(one.attack), before)

        self.asker.begin()
        plain = [talk(one) for one in sent]
        none = judge("none", self._write("none", plain))
        answered = [[*t, assistant(a)] for t, a in zip(plain, none, strict=True)]
        judge("again", self._write("again", [[*t, user(texts.ATTACK_AGAIN)] for t in answered]))
        judge("reminder", self._write("reminder", [talk(one, texts.REMIND) for one in sent]))
        shown = [turn for ask, refusal in texts.DEMONSTRATIONS for turn in (user(ask), assistant(refusal))]
        judge("icd", self._write("icd", [talk(one, "", shown) for one in sent]))
        for kind in ("self", "instruct"):
            self._checked(kind, sent, answered, judge, found)
        for number in range(1, M + 1):
            before = [turn for pair in self.pairs[:number] for turn in pair]
            talks = [talk(one, "", before) for one in sent]
            judge(f"diverse-{number}", self._write(f"diverse-{number}", talks))
        return found

    def _checked(
        self, kind: str, sent: Sequence[Request], answered: Sequence[Talk], judge, found: dict
    ) -> None:
        """CaC-self or CaC-self-instruct, round after round."""
        talks = list(answered)
        for number in range(1, ROUNDS + 1):
            name = f"{kind}-{number}"
            talks = [[*talk, user(texts.CHECK)] for talk in talks]
            checks = self._write(name, talks)[0]
            for one, check in zip(sent, checks, strict=True):
                found[one.key][f"check/{name}"] = texts.says_harmful(check)
            asks = [self._plain(one.attack) if kind == "self" else texts.REFINE for one in sent]
            talks = [[*t, assistant(c), user(a)] for t, c, a in zip(talks, checks, asks, strict=True)]
            answers = judge(name, self._write(name, talks))
            talks = [[*talk, assistant(answer)] for talk, answer in zip(talks, answers, strict=True)]


def judged(request: Request, text: str, raw: str) -> dict:
    """What judges say of an answer: `released` and `strict`, is it a success; `leaked`, of a secret; of a
    benign one, is it refused."""
    if request.kind == "benign":
        return {"released": not released_success(raw), "strict": refuses(text)}
    told = bool(leaked(text, request.attack.word)) if request.attack.word else None
    return {"released": released_success(raw), "strict": complies(text, request.attack.text), "leaked": told}


def require_room(asker: Asker, context: Sequence[Attack], sent: Sequence[Request]) -> None:
    """See that the longest dialogue about every request fits, before any is sent; PromptsError naming the
    first that does not."""
    model, length = asker.model, min(asker.lengths.attack, FIRST)
    most = min(model.longest, LONGEST_TALK)

    def tokens(text: str) -> int:
        return len(model.tokens(model.plain(text)))

    around = len(model.context_tokens(model.chat([user("a"), assistant("b"), user("c")]))) // 2 + 40
    check = tokens(texts.CHECK) + length + around
    before = sum(tokens(one.text) + length + around + check for one in context)
    for one in sent:
        own = tokens(one.attack.text) + tokens(one.attack.rule) + tokens(texts.REMIND) + length + 2 * around
        rounds = own + ROUNDS * (check + tokens(one.attack.text) + length + around)
        if (needed := max(before + own, rounds)) > most:
            raise PromptsError(
                f"{one.attack.place or one.key}: a dialogue about it needs up to about {needed} tokens (the request has "
                f"{len(one.attack.text)} characters); accepted are at most {most} with {model.name}"
            )
