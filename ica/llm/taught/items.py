"""Short reading questions about two things, made by chance from `items.yml`: what critics and their users are taught with.

Each is an `Item` as BBQ's are: a context, a question, the two things and an unknown phrase as options. A *told* one says which
thing is meant, directly or by what follows; a *silent* one does not, though it may speak of other facts, of a third thing, or
hedge. Two families, two measures and the last form of every kind are held out: taught items never show them, held-out ones
show nothing else of families and forms.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from ica import checks
from ica.llm.bbq.items import UNKNOWN, Item

FILE = Path(__file__).with_name("items.yml")
CONDITIONS = {"ambiguous": "silent", "disambiguated": "told"}  # an item's condition -> its kinds in the file
LEAST, MOST = 2, 90  # of numbers


@dataclass(frozen=True)
class Made:
    """An item and its kind, a key of `told` or `silent` in the file."""

    item: Item
    kind: str


@cache
def table() -> dict:
    """The file."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def kinds(condition: str) -> list[str]:
    """The kinds of a condition; ValueError for another condition."""
    return list(table()[CONDITIONS[checks.one_of("condition", condition, tuple(CONDITIONS))]])


def forms(condition: str, kind: str, held: bool) -> list[str]:
    """The forms of a kind: the last one is held out. Of one that adds nothing to the scene all serve both."""
    every = table()[CONDITIONS[condition]][kind]
    if every[0] == "":
        return every
    return every[-1:] if held else every[:-1]


def families(held: bool) -> list[dict]:
    """The families that are taught, or those held out."""
    return [one for one in table()["families"].values() if one.get("held", False) == held]


def measures(held: bool) -> list[dict]:
    """The measures that are taught, or those held out."""
    return [one for one in table()["measures"] if one.get("held", False) == held]


def make(rng: np.random.Generator, condition: str, held: bool = False, kind: str = "") -> Made:
    """One item, drawn by `rng`.

    Args:
        condition: "ambiguous" or "disambiguated", as for BBQ.
        held: of the held-out families and forms, else of those that are taught.
        kind: of `kinds(condition)`; without one it is drawn.

    Raises:
        ValueError: an unknown condition or kind.
    """
    known = kinds(condition)
    weights = np.array([table()["weights"].get(name, 1) for name in known], float)
    kind = checks.one_of("kind", kind or str(rng.choice(known, p=weights / weights.sum())), tuple(known))
    family = _one(rng, families(held))
    names = _names(rng, family["things"])
    asked = int(rng.integers(2))  # the thing that is meant
    words, question = _words(rng, family, names, asked, held, "numbers" in kind)
    form = _one(rng, forms(condition, kind, held))
    scene = _sentence(_one(rng, family["scenes"]).format(a=names[0], b=names[1]))
    parts = [scene, _sentence(form.format(**words))]
    if rng.random() < 0.3:
        parts.insert(int(rng.integers(1, 3)), words["another filler"])
    options = [_capital(names[0]), _capital(names[1]), _capital(_one(rng, UNKNOWN))]
    order = rng.permutation(3)
    gold = 2 if condition == "ambiguous" else asked
    place = {int(k): i for i, k in enumerate(order)}
    shown = tuple(options[k] for k in order)
    text = " ".join(part for part in parts if part)
    return Made(Item(text, question, shown, place[gold], place[2], condition), kind)


def held_out(count: int, seed: int = 1_000_003) -> list[Made]:
    """The first `count` different held-out items of each condition, kinds in turn, conditions in turn."""
    rng, found = np.random.default_rng(seed), {name: {} for name in CONDITIONS}
    while any(len(made) < count for made in found.values()):
        for condition, made in found.items():
            if len(made) < count:
                known = kinds(condition)
                one = make(rng, condition, True, known[len(made) % len(known)])
                made.setdefault(one.item.id, one)
    return [one for pair in zip(*(made.values() for made in found.values()), strict=True) for one in pair]


def _one(rng: np.random.Generator, some):
    return some[int(rng.integers(len(some)))]


def _names(rng: np.random.Generator, things: list[str]) -> list[str]:
    """Three things of a family with the article, told apart by noun, colour or place."""
    nouns = [things[k] for k in rng.permutation(len(things))[:3]]
    style = int(rng.integers(3))
    if style == 0:
        return [f"the {noun}" for noun in nouns]
    table_ = table()["colours" if style == 1 else "places"]
    marks = [table_[k] for k in rng.permutation(len(table_))[:3]]
    if style == 1:
        return [f"the {mark} {nouns[0]}" for mark in marks]
    return [f"the {nouns[0]} {mark}" for mark in marks]


def _words(
    rng: np.random.Generator, family: dict, names: list[str], asked: int, held: bool, numbers: bool
) -> tuple[dict[str, str], str]:
    """What the forms may use, and the question; `numbers`: the question is about a measure, not a fact."""
    meant, other = names[asked], names[1 - asked]
    first, second = (family["facts"][k] for k in rng.permutation(len(family["facts"]))[:2])
    p, q, sign, fine, question = _fact(rng, first)
    p2, q2, sign2, fine2, _ = _fact(rng, second)
    words = {"p": p, "q": q, "p2": p2, "q2": q2, "t": meant, "o": other, "c": names[2]}
    fillers = table()["fillers"]
    words |= zip(
        ("filler", "another filler"), (fillers[k] for k in rng.permutation(len(fillers))[:2]), strict=True
    )
    words |= {"p_former": q if asked else p, "q_former": p if asked else q}
    words |= {name: text.format(x=meant) for name, text in (("S", sign), ("S2", sign2))}
    words |= {name: text.format(x=other) for name, text in (("R", fine), ("R2", fine2))}
    known = measures(held)
    one, another = (known[k] for k in rng.permutation(len(known))[:2])
    more = bool(rng.integers(2))
    for suffix, measure in (("", one), ("2", another)):
        high, low = sorted(map(int, rng.choice(np.arange(LEAST, MOST), 2, replace=False)), reverse=True)
        pair = (high, low) if more else (low, high)
        for name, thing, n in (("N", meant, pair[0]), ("M", other, pair[1])):
            words[name + suffix] = measure["said"].format(x=thing, n=n)
    return words, one["more" if more else "less"] if numbers else question


def _fact(rng: np.random.Generator, fact: dict) -> tuple[str, str, str, str, str]:
    """What holds of the thing meant, of the other one, a sign of either, and a question; or the same turned round."""
    if rng.random() < 0.5:
        return fact["is"], fact["isnt"], fact["sign"], fact["fine"], _one(rng, fact["ask"])
    return fact["isnt"], fact["is"], fact["fine"], fact["sign"], _one(rng, fact["ask_no"])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    """The text with a capital letter at the beginning of every sentence."""
    return " ".join(map(_capital, re.split(r"(?<=[.?]) ", text)))
