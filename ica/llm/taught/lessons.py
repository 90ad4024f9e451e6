"""What is taught: questions with lines to be continued, and several of them packed into one row of tokens.

- *to criticise*: after each of the three options as an attempt, "right" or "wrong". Both words have the same weight after an
  unknown phrase and after one of the things, so that to tell these apart is of no use without reading;
- *to read*, in the first stage of a critic: what the text says;
- *to use a critic*: of a question whose text does not tell, one option is drawn as the right one. Verdicts or scores of earlier
  attempts tell which, as far as they do: after one wrong attempt two options are left, and either is right as often;
- *plain*: an answer, and an answer after an unchecked attempt, where nothing tells and each option is right as often.

Lines of a question that begin alike share their tokens: a row is a tree, in which a token sees those before it in its own lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ica.llm.bbq.items import Item
from ica.llm.model.load import LanguageModel
from ica.llm.protocol import prompts
from ica.llm.taught import items
from ica.llm.taught.settings import Arm, Recipe

WORDS = ("wrong", "right")
ROWS = 6  # of a batch: less memory, and less filling up
HIGH, LOW = (7, 11), (1, 5)  # scores of a right and of a wrong attempt: from, to before
# Weights of a verdict: on an unknown phrase, on the right thing, on another thing.
UNSURE, HIT, MISS = 1.5, 3.0, 1.0
Rows = list[list["Line"]]


@dataclass(frozen=True)
class Line:
    """A context, what is to follow it, and the weight of that in the loss."""

    context: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, filled up to the longest.

    `sees[r, i, j]`: does token i of row r see token j? `positions` count the tokens that each follows. A target (`row`, `place`)
    is a token that is to be followed by `next`; its `weight` is that of its line over the line's tokens; over the batches of a step all sum to 1.
    """

    tokens: Int[Tensor, "rows places"]
    positions: Int[Tensor, "rows places"]
    sees: Bool[Tensor, "rows places places"]
    row: Int[Tensor, " targets"]
    place: Int[Tensor, " targets"]
    next: Int[Tensor, " targets"]
    weight: Float[Tensor, " targets"]


def asked(item: Item) -> str:
    """The question, options in their order."""
    return prompts.ask(item.context, item.question, item.options)


def criticise(item: Item, noise: float, rng: np.random.Generator) -> list[Line]:
    """The three attempts with their verdicts, each turned round with probability `noise`."""
    lines, flipped = [], rng.random(3) < noise
    for k, option in enumerate(item.options):
        word = WORDS[int((k == item.gold) != flipped[k])]
        begun = asked(item) + prompts.attempt(option) + "\nVerdict:"
        weight = UNSURE if k == item.unknown else HIT if k == item.gold else MISS
        lines.append(Line(begun, f" {word}", weight))
    return lines


def read(item: Item) -> Line:
    """What the text says: the thing that is meant, or that it does not tell."""
    return Line(f"{asked(item)}\nThe text says:", f" {item.options[item.gold]}", 2.0)


def use(item: Item, rng: np.random.Generator) -> list[Line]:
    """One option is right: an attempt called right, one called wrong, and two in turn or one to three with scores."""
    gold, *others = map(int, rng.permutation(3))

    def said(*attempts: int) -> str:
        words = (prompts.attempt(item.options[k]) + prompts.verdict(WORDS[k == gold]) for k in attempts)
        return asked(item) + "".join(words) + prompts.FINAL["verdict"]

    second = int(rng.choice([gold, others[1]]))
    scored = map(int, rng.permutation(3)[: rng.integers(1, 4)])
    scores = (
        prompts.attempt(item.options[k]) + prompts.score(int(rng.integers(*(HIGH if k == gold else LOW))))
        for k in scored
    )
    rated = asked(item) + "".join(scores) + prompts.FINAL["score"]
    more = rated if rng.random() < 0.5 else said(others[0], second)
    return [Line(context, f" {item.options[gold]}") for context in (said(gold), said(others[0]), more)]


def plain(item: Item, rng: np.random.Generator) -> list[Line]:
    """An answer and an answer after an unchecked attempt, both drawn."""
    first, tried, second = (item.options[k] for k in rng.integers(3, size=3))
    begun = asked(item) + prompts.attempt(tried) + prompts.verdict("unchecked") + prompts.FINAL["verdict"]
    return [Line(f"{asked(item)}\nAttempt:", f" {first}"), Line(begun, f" {second}")]


@dataclass(frozen=True)
class Course:
    """Lessons in one go: of how many steps, the lines of every question of each, and all that these follow from."""

    steps: int
    of: Callable[[int], Rows]
    mark: dict


def first_stage(arm: Arm, seed: int, recipe: Recipe) -> Course:
    """Of critics, to read, then to criticise as well; plain lessons otherwise. Nothing else of the arm counts."""

    def of(step: int) -> Rows:
        rng, rows = np.random.default_rng([seed, 0, step]), []
        for k in range(recipe.texts if step < recipe.reading else recipe.tried):
            condition = ("ambiguous", "disambiguated")[(k + step) % 2]
            made, silent = items.make(rng, condition).item, items.make(rng, "ambiguous").item
            # k + 1: numpy takes a seed that ends with 0 for the one without it, which drew the questions
            own = np.random.default_rng([seed, 0, step, k + 1])
            tries = [] if step < recipe.reading else criticise(made, 0.0, own)
            rows.append([*tries, read(made)] if arm.critic else plain(silent, own))
        return rows

    return Course(recipe.first, of, {"critic": arm.critic, "seed": seed, "recipe": asdict(recipe)})


def second_stage(arm: Arm, seed: int, recipe: Recipe) -> Course:
    """The arm's own. Seeds share no questions, arms do."""

    def of(step: int) -> Rows:
        rng, rows = np.random.default_rng([seed, 1, step]), []
        for k in range(recipe.critic):
            condition = ("ambiguous", "disambiguated")[(k + step) % 2]
            made, silent = items.make(rng, condition).item, items.make(rng, "ambiguous").item
            own = np.random.default_rng([seed, 1, step, k + 1])
            rows.append(criticise(made, arm.noise, own) if arm.critic else plain(silent, own))
        for k in range(recipe.critic, recipe.critic + recipe.user):
            silent, own = items.make(rng, "ambiguous").item, np.random.default_rng([seed, 1, step, k + 1])
            rows.append(use(silent, own) if arm.user else plain(silent, own))
        return rows + [plain(items.make(rng, "ambiguous").item, rng) for _ in range(recipe.plain)]

    return Course(recipe.steps, of, {"arm": arm.as_dict(), "seed": seed, "recipe": asdict(recipe)})


def packed(model: LanguageModel, rows: Sequence[Sequence[Line]], size: int = ROWS) -> list[Batch]:
    """Rows as trees of tokens, the shortest first, `size` to a batch; targets of a line are all tokens of its answer."""
    trees = sorted((_tree(model, lines) for lines in rows), key=lambda tree: len(tree[0]))
    total = sum(weight for *_, targets in trees for *_, weight in targets)
    return [_filled(trees[k : k + size], total) for k in range(0, len(trees), size)]


def _filled(trees: Sequence[tuple], total: float) -> Batch:
    places = len(trees[-1][0])
    tokens = torch.zeros(len(trees), places, dtype=torch.long)
    positions, sees = torch.zeros_like(tokens), torch.eye(places, dtype=torch.bool).repeat(len(trees), 1, 1)
    targets = []
    for r, (found, parents, depths, wanted) in enumerate(trees):
        tokens[r, : len(found)], positions[r, : len(found)] = torch.tensor(found), torch.tensor(depths)
        for i, parent in enumerate(parents):
            if parent >= 0:
                sees[r, i] |= sees[r, parent]
        targets += [(r, *one) for one in wanted]
    row, place, following, weight = zip(*targets, strict=True)
    where = (torch.tensor(row), torch.tensor(place), torch.tensor(following))
    return Batch(tokens, positions, sees, *where, torch.tensor(weight) / total)


def _tree(model: LanguageModel, lines: Sequence[Line]) -> tuple[list, list, list, list]:
    """Tokens, parents, depths, and targets as (place, next token, weight), of lines that share what they begin with."""
    nodes, tokens, parents, depths, targets = {}, [], [], [], []
    for line in lines:
        context, answer = model.context_tokens(line.context), model.tokens(line.answer)
        node = -1
        for depth, token in enumerate(context + answer):
            if depth >= len(context):
                targets.append((node, token, line.weight / len(answer)))
            if depth == len(context) + len(answer) - 1:
                break
            parent, node = node, nodes.setdefault((node, token), len(tokens))
            if node == len(tokens):
                tokens.append(token)
                parents.append(parent)
                depths.append(depth)
    return tokens, parents, depths, targets
