"""Attacks in the paper's protocol (B): no defence, self-reminder, ICD, and three kinds of checking as
context, up to three rounds; `ica.llm.jailbreak.defences` leads the dialogues, in the wording of
`ica.llm.paper.texts`.

- `none`; `again`: the request before answered once more, with no check (the control, ours);
- `reminder`: a sentence added to the system's message; `icd`: two refused requests in the context before the
  query (texts ours);
- `self-1` to `self-3`, `instruct-1` to `instruct-3` (that of Table 1), `diverse-1` to `diverse-3`: CaC-self,
  CaC-self-instruct, CaC-diverse. The M = 3 other requests of CaC-diverse are answered and checked once: the
  first three of a file, which are not attacked, or those of the stand-in.

The user's requests and what the model answers stay in memory: what is kept of each answer is what the judges
say, as rows of numbers.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ica.llm.jailbreak import defences
from ica.llm.jailbreak.attacks import Attack, PromptsError, benign, context, load_prompts, stand_in
from ica.llm.jailbreak.defences import ROUNDS, M, Talk, Wording, Written
from ica.llm.jailbreak.judges import judged, says_yes
from ica.llm.paper import texts
from ica.llm.paper.bias import Asker
from ica.llm.paper.chats import opened
from ica.llm.protocol.grading import FIRST

DEFENCES = ("none", "again", "reminder", "icd") + tuple(
    f"{kind}-{number}" for kind in ("self", "instruct", "diverse") for number in range(1, ROUNDS + 1)
)
LED = tuple("again-1" if name == "again" else name for name in DEFENCES)
KINDS = ("attack", "benign")
LONGEST_TALK = 4096  # tokens of a dialogue
WORDING = Wording(
    check=texts.CHECK,
    refine=texts.REFINE,
    again=texts.ATTACK_AGAIN,
    reminder=(texts.REMIND, "{text}"),
    refusals=texts.DEMONSTRATIONS,
)


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
    """The three requests for CaC-diverse, and those that are sent: all others of the file, or up to half of
    `count` of the stand-in, and as many benign ones.

    Raises:
        PromptsError: the file is none of prompts, or holds fewer than four.
    """
    if file is None:
        before, sent = context(), stand_in(max(2, count // 2))
    else:  # the paper's attacks come without a rule of the system
        attacks = [Attack("", one.text, place=one.place) for one in load_prompts(file)]
        if len(attacks) <= M:
            raise PromptsError(
                f"{file} holds {len(attacks)} prompts; at least {M + 1} are needed, as the first {M} serve as context of CaC-diverse"
            )
        before, sent = attacks[:M], attacks[M:]
    harmless = [Attack("", one.text) for one in benign(max(2, count // 2))]
    found = [Request("attack", n, one) for n, one in enumerate(sent)]
    return before, found + [Request("benign", n, one) for n, one in enumerate(harmless)]


def digest(context: Sequence[Attack], sent: Sequence[Request]) -> str:
    """SHA-256 over all that is sent."""
    told = [[one.rule, one.text] for one in context]
    told += [[one.kind, one.attack.rule, one.attack.text] for one in sent]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class Defended:
    """Dialogues under every defence, and the seconds that they take.

    Args:
        asker: the model.
        context: the requests of CaC-diverse; they are answered and checked when this is made.
    """

    def __init__(self, asker: Asker, context: Sequence[Attack]):
        self.asker, self.seconds = asker, {}
        begin = lambda system, text, before: opened(asker.model, system, text, before)
        self.talks = defences.Defended(begin, self._write, WORDING, self._plain(context), LED)

    def _plain(self, attacks: Sequence[Attack]) -> list[Attack]:
        return [replace(one, text=self.asker.model.plain(one.text)) for one in attacks]

    def _write(self, name: str, talks: Sequence[Talk]) -> list[Written]:
        """The next turns; the time is added under `name`."""
        model, begin = self.asker.model, time.perf_counter()
        written = self.asker.generate(talks, "", self.asker.lengths.attack)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        return [defences.written(model, one) for one in written]

    def rows(self, sent: Sequence[Request]) -> dict[str, dict]:
        """What judges say of the answers to a group of requests, by request: a dictionary by defence, and the
        checks' words."""
        self.seconds = {}
        self.asker.begin()
        answers, checks = self.talks.answers(self._plain([one.attack for one in sent]))
        answers["again"] = answers.pop("again-1")
        self.seconds["again"], check = self.seconds.pop("again-1"), self.seconds.pop("check")
        for name in ("self-1", "instruct-1"):  # the first check is the same
            self.seconds[name] += check
        found: dict[str, dict] = {}
        for k, one in enumerate(sent):
            row = {
                name: judged(one.kind, one.attack, said[k].text, said[k].raw)
                for name, said in answers.items()
            }
            told = {f"check/{name}": says_yes(said[k]) for name, said in checks.items()}
            found[one.key] = {"kind": one.kind, "family": one.attack.family} | row | told
        return found


def require_room(asker: Asker, context: Sequence[Attack], sent: Sequence[Request]) -> None:
    """See that the longest dialogue about every request fits, before any is sent; PromptsError naming the
    first that does not."""
    model, length = asker.model, min(asker.lengths.attack, FIRST)
    most = min(model.longest, LONGEST_TALK)
    defences.require_room(model, WORDING, context, [(one.key, one.attack) for one in sent], length, most)
