"""The texts of the protocol: a question in plain lines, worked demonstrations before it, and what a critic writes.

Plain lines, not a chat: base models read them too, and every model sees the same characters. Each form has a lead (the
demonstrations, the same before every question) and lines that are added to the question as the correction goes on:

- `verdict`: an attempt, a verdict on it (right, wrong, or unchecked: no information), the final answer;
- `check`: the same with a sentence of reasons before the verdict;
- `score`: one to three attempts, each with a score from 1 to 10, the best answer;
- `bare`: no demonstrations, one instruction instead.

In the demonstrations the critic is always right, a right attempt is kept, a wrong one replaced; as many unchecked attempts are
right as wrong, so being unchecked says nothing by itself; and the unknown option is right in half of those of each verdict. One
thing is not balanced: attempts that are the unknown option are right in all of them, as a wrong attempt always names something.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ica import checks

DEMONSTRATIONS = Path(__file__).with_name("demonstrations.yml")
FORMS = ("verdict", "check", "score", "bare")
VERDICTS = ("unchecked", "right", "wrong")
HIGH, LOW = 9, 2
FINAL = {
    "verdict": "\nFinal answer:",
    "check": "\nFinal answer:",
    "score": "\nBest answer:",
    "bare": "\nFinal answer:",
}
INSTRUCTION = (
    "Answer the question with one of the options. An attempt may come with a verdict on it (right, wrong or unchecked); "
    "take the verdict into account in the final answer.\n\n"
)
REASONS = {"right": "The text supports this answer.", "wrong": "The text does not support this answer."}


@dataclass(frozen=True)
class Demonstration:
    """A worked question: positions of the right option and of a wrong one, a sentence about either; what the forms show of it.

    `tried` ("right" or "wrong") and `verdict` belong to the forms with verdicts, `scored` (positions) to the form with scores.
    """

    context: str
    question: str
    options: tuple[str, str, str]
    right: int
    wrong: int
    check: str
    doubt: str
    tried: str
    verdict: str
    scored: tuple[int, ...]


@cache
def demonstrations() -> tuple[Demonstration, ...]:
    """The committed demonstrations, in order."""
    rows = yaml.safe_load(DEMONSTRATIONS.read_text(encoding="utf-8"))
    return tuple(
        Demonstration(**{**row, "options": tuple(row["options"]), "scored": tuple(row["scored"])})
        for row in rows
    )


def ask(context: str, question: str, options: Sequence[str]) -> str:
    """The question in three lines, options in the order in which they are to be shown."""
    return f"Context: {context}\nQuestion: {question}\nOptions: {' / '.join(options)}"


def attempt(option: str) -> str:
    """The line of an attempt."""
    return f"\nAttempt: {option}"


def verdict(word: str) -> str:
    """The line of a verdict, one of `VERDICTS`."""
    return f"\nVerdict: {checks.one_of('verdict', word, VERDICTS)}"


def score(value: int) -> str:
    """The line of a score from 1 to 10."""
    if checks.whole("score", value, 1) > 10:
        raise ValueError(f"score must be 1 to 10, got {value}")
    return f"\nScore: {value}/10"


@cache
def lead(form: str) -> str:
    """What stands before every question of a form: its demonstrations, apart by an empty line.

    Raises:
        ValueError: an unknown form.
    """
    checks.one_of("form", form, FORMS)
    if form == "bare":
        return INSTRUCTION
    worked = _scored() if form == "score" else _judged(reasons=form == "check")
    return "".join(f"{text}\n\n" for text in worked)


def _judged(reasons: bool) -> list[str]:
    """One attempt each, with its verdict; a sentence of reasons before it, unless it is unchecked."""
    texts = []
    for demo in demonstrations():
        good = demo.tried == "right"
        said = (
            f"\nCheck: {demo.check if good else demo.doubt}"
            if reasons and demo.verdict != "unchecked"
            else ""
        )
        begun = ask(demo.context, demo.question, demo.options) + attempt(
            demo.options[demo.right if good else demo.wrong]
        )
        texts.append(begun + said + verdict(demo.verdict) + FINAL["verdict"] + f" {demo.options[demo.right]}")
    return texts


def _scored() -> list[str]:
    """One to three attempts with their scores; where none of them is right, the best answer is another one."""
    texts = []
    for demo in demonstrations():
        lines = (attempt(demo.options[k]) + score(HIGH if k == demo.right else LOW) for k in demo.scored)
        question = ask(demo.context, demo.question, demo.options)
        texts.append(question + "".join(lines) + FINAL["score"] + f" {demo.options[demo.right]}")
    return texts
