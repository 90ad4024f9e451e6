r"""Which option of a question a model prefers: by the options' text, by letters, and by calibrated letters.

With $\ell_i$ the log-probability of option $i$ in the shown order $\pi$:

- `text`: $s_i$ is $\ell_i$ of the text divided by its number of tokens (length-normalised; Brown et al. 2020, section 2.4);
- `text_sum`: $s_i = \ell_i$ of the text;
- `letters`: $s_i = \ell_i$ of the letter that stands before the option;
- `calibrated`: the letter's probability among the letters, divided by that after content-free prompts (the mean over
  them), $s_i = \log p_i - \log \bar p_i$: contextual calibration with $W = \mathrm{diag}(\bar p)^{-1}, b = 0$ (Zhao et al.
  2021, section 4). A letter that the model favours whatever it is asked gains nothing.

The scores of an order become probabilities $\mathrm{softmax}(s)$ over the options; these are averaged over the orders in which
the options are shown, so that no option gains by its place (Zheng et al. 2024, "Large language models are not robust multiple
choice selectors", equation 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.llm.model.scoring import Request, Scores
from ica.llm.protocol.readings import METHODS

ORDERS = ("given", "cyclic", "all")
Scorer = Callable[[list[Request]], list[Scores]]


@dataclass(frozen=True)
class Question:
    """A question with options.

    Args:
        ask: makes the context from the options in the order in which they are to be shown.
        options: their texts.
        blanks: content-free contexts that also end where a letter is due; needed for `calibrated`.
    """

    ask: Callable[[tuple[str, ...]], str]
    options: tuple[str, ...]
    blanks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preference:
    """Scores $s$ (see the module) of the options, in the order of the question, for each order in which they were shown."""

    scores: Float[Tensor, "orders options"]

    @property
    def log_probabilities(self) -> Float[Tensor, " options"]:
        """Log of the mean over the orders of the probabilities over the options (nats)."""
        by_order = self.scores.log_softmax(-1)
        return by_order.logsumexp(0) - torch.tensor(len(by_order)).log()


def orders(n: int, kind: str) -> list[tuple[int, ...]]:
    """Orders of `n` options: as "given", the `n` rotations ("cyclic"), or "all" permutations."""
    checks.one_of("order", kind, ORDERS)
    if kind == "all":
        return list(permutations(range(n)))
    return [tuple((i + k) % n for i in range(n)) for k in range(n if kind == "cyclic" else 1)]


def preferences(
    scorer: Scorer,
    questions: Sequence[Question],
    methods: Sequence[str] = METHODS,
    order: str = "cyclic",
    letters: Sequence[str] = (" A", " B", " C"),
    lead: str = " ",
) -> list[dict[str, Preference]]:
    """Preferences by each method, for all questions in one call of the scorer.

    Args:
        scorer: scores requests, as `Engine.score` does.
        questions: what is asked.
        methods: of `METHODS`.
        order: of `ORDERS`.
        letters: the continuations that stand for the first, second, ... shown option.
        lead: what a text continuation begins with, before the option.

    Raises:
        ValueError: an unknown method or order, fewer than two options, more options than letters, calibration without a
            content-free prompt, an option twice.
    """
    for method in methods:
        checks.one_of("method", method, METHODS)
    for question in questions:
        _check(question, methods, letters)
    asked = [
        _requests(question, orders(len(question.options), order), methods, letters, lead)
        for question in questions
    ]
    scored = iter(scorer([request for requests in asked for request in requests]))
    return [
        _folded(question, orders(len(question.options), order), methods, [next(scored) for _ in requests])
        for question, requests in zip(questions, asked, strict=True)
    ]


def _check(question: Question, methods: Sequence[str], letters: Sequence[str]) -> None:
    n = len(question.options)
    if n < 2 or len(set(question.options)) < n:
        raise ValueError(f"options must be two or more different texts, got {question.options}")
    if n > len(letters):
        raise ValueError(f"there are {n} options and only {len(letters)} letters")
    if "calibrated" in methods and not question.blanks:
        raise ValueError("calibrated letters need at least one content-free prompt in `blanks`")


def _by_letters(methods: Sequence[str]) -> bool:
    return "letters" in methods or "calibrated" in methods


def _requests(
    question: Question,
    shown: list[tuple[int, ...]],
    methods: Sequence[str],
    letters: Sequence[str],
    lead: str,
) -> list[Request]:
    """One request for each order, texts before letters, then one for each content-free prompt."""
    letters = tuple(letters[: len(question.options)])
    texts = tuple(lead + option for option in question.options) if {"text", "text_sum"} & set(methods) else ()
    after = texts + (letters if _by_letters(methods) else ())
    asked = [Request(question.ask(tuple(question.options[i] for i in one)), after) for one in shown]
    return asked + ([Request(blank, letters) for blank in question.blanks] if "calibrated" in methods else [])


def _folded(
    question: Question, shown: list[tuple[int, ...]], methods: Sequence[str], scored: list[Scores]
) -> dict[str, Preference]:
    n, orders = len(question.options), scored[: len(shown)]
    found = {
        "text": [scores.means[:n] for scores in orders],
        "text_sum": [scores.sums[:n] for scores in orders],
    }
    if _by_letters(methods):
        places = [torch.tensor(one).argsort() for one in shown]  # where each option was shown
        letters = [scores.sums[-n:].log_softmax(-1) for scores in orders]
        found["letters"] = [scores.sums[-n:][at] for scores, at in zip(orders, places, strict=True)]
        blanks = [scores.sums.softmax(-1) for scores in scored[len(shown) :]]
        if blanks:
            prior = torch.stack(blanks).mean(0).log()
            found["calibrated"] = [(one - prior)[at] for one, at in zip(letters, places, strict=True)]
    return {method: Preference(torch.stack(found[method])) for method in methods}
