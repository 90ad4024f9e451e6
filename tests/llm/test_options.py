"""Preferences among options, against a scorer whose every number is known."""

from math import log

import pytest
import torch
from small_language_model import language_model

from ica.llm.model.engine import Engine
from ica.llm.model.scoring import Scores
from ica.llm.protocol.options import Question, orders, preferences

TEXTS = {" cat": (log(0.5),), " a dog": (log(0.4), log(0.9)), " unknown": (log(0.1), log(0.9), log(0.8))}
BIAS = {" A": 0.7, " B": 0.2, " C": 0.1}
CONTENT = {"cat": 1.0, "a dog": 3.0, "unknown": 0.5}


def ask(options: tuple[str, ...]) -> str:
    return "|".join(options)


def known(requests) -> list[Scores]:
    """A model that prefers A whatever it is asked, times what it thinks of the option that A stands for."""
    found = []
    for request in requests:
        shown = dict(zip(BIAS, request.context.split("|"), strict=False)) if "|" in request.context else {}
        rows = [
            TEXTS.get(c) or (log(BIAS[c] * CONTENT.get(shown.get(c), 1.0) / 10),)
            for c in request.continuations
        ]
        found.append(Scores(tuple(rows)))
    return found


QUESTION = Question(ask, ("cat", "a dog", "unknown"), blanks=("N/A",))


@pytest.mark.parametrize("order", ["given", "cyclic", "all"])
def test_every_method_gives_its_formula(order):
    (found,) = preferences(known, [QUESTION], order=order)
    text = torch.tensor([log(0.5), log(0.36) / 2, log(0.072) / 3], dtype=torch.float64)
    torch.testing.assert_close(found["text"].log_probabilities, text.log_softmax(0))
    total = torch.tensor([0.5, 0.36, 0.072], dtype=torch.float64)
    torch.testing.assert_close(found["text_sum"].log_probabilities.exp(), total / total.sum())
    content = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found["calibrated"].log_probabilities.exp(), content / content.sum())
    assert found["calibrated"].log_probabilities.argmax() == 1
    by_letter = []
    for shown in orders(3, order):
        weights = (
            torch.tensor([list(BIAS.values())[shown.index(i)] for i in range(3)], dtype=torch.float64)
            * content
        )
        by_letter.append(weights / weights.sum())
    torch.testing.assert_close(found["letters"].log_probabilities.exp(), torch.stack(by_letter).mean(0))


def test_letters_follow_the_place_and_calibrated_ones_do_not():
    (found,) = preferences(known, [QUESTION], ["letters", "calibrated"], order="all")
    spread = {method: one.scores.log_softmax(-1).std(0).max() for method, one in found.items()}
    assert spread["letters"] > 0.5 and spread["calibrated"] < 1e-12


def test_orders_put_every_option_at_every_place_equally_often():
    assert orders(3, "given") == [(0, 1, 2)] and len(orders(3, "cyclic")) == 3 and len(orders(3, "all")) == 6
    for kind in ("cyclic", "all"):
        for place in range(3):
            shown = [order[place] for order in orders(3, kind)]
            assert len({shown.count(option) for option in range(3)}) == 1


def test_the_engine_is_a_scorer_and_questions_do_not_mix():
    engine = Engine(language_model())
    questions = [Question(lambda o, n=n: f"the {n} {o[0]} {o[1]}", ("er", "ing"), ("the",)) for n in range(3)]
    together = preferences(engine.score, questions, letters=(" A", " t"))
    for question, found in zip(questions, together, strict=True):
        (alone,) = preferences(engine.score, [question], letters=(" A", " t"))
        for method, one in found.items():
            assert torch.allclose(one.scores, alone[method].scores, atol=1e-4)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("question", "options", "said"),
    [
        (QUESTION, {"methods": ["words"]}, "method must be one of text, text_sum, letters, calibrated"),
        (QUESTION, {"order": "random"}, "order must be one of given, cyclic, all"),
        (Question(ask, ("cat",)), {"methods": ["text"]}, "options must be two or more different texts"),
        (Question(ask, ("cat", "cat")), {"methods": ["text"]}, "options must be two or more different texts"),
        (QUESTION, {"letters": (" A", " B")}, "there are 3 options and only 2 letters"),
        (Question(ask, ("cat", "dog")), {}, "calibrated letters need at least one content-free prompt"),
    ],
)
def test_bad_questions_are_named(question, options, said):
    with pytest.raises(ValueError, match=said):
        preferences(known, [question], **options)
