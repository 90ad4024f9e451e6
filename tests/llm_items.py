"""A few questions in the shape of BBQ items, and records as the protocol leaves them, for the tests."""

import numpy as np

from ica.llm.bbq.items import CATEGORIES, Item

LOW = -6.0


def item(k: int = 0, category: str = "Age", condition: str = "ambiguous") -> Item:
    """An item whose right option moves with k; texts are short."""
    unknown = k % 3
    gold = unknown if condition == "ambiguous" else (unknown + 1) % 3
    options = [f"cat {k}", f"dog {k}", f"fox {k}"]
    options[unknown] = "Unknown"
    people = [n for n in range(3) if n != unknown]
    texts = f"A cat and a dog, {k}.", f"Who ran {condition[:3]}?", tuple(options)
    return Item(*texts, gold, unknown, condition, category, "negative", people[0], 1)


def items(count: int, categories: tuple[str, ...] = CATEGORIES) -> list[Item]:
    """`count` items of each condition in each category."""
    return [
        item(100 * c + k, category, condition)
        for c, category in enumerate(categories)
        for k in range(count)
        for condition in ("ambiguous", "disambiguated")
    ]


def reading(best: int, lift: float = 2.0) -> list[float]:
    """Log-probabilities that favour one option by `lift` nats."""
    return [lift + LOW if k == best else LOW for k in range(3)]


def record(one: Item, first: int, praise: float, blame: float, verdict: bool, noise=None) -> dict:
    """A record in which the first answer gains `praise` nats when called right, and `blame` when called wrong."""
    shift = (lambda: 0.0) if noise is None else (lambda: float(noise.normal(0, 0.3)))
    base = reading(first)

    def moved(by: float) -> list[float]:
        return [value + (by + shift() if k == first else 0.0) for k, value in enumerate(base)]

    core = {"counts": [1, 1, 1], "answer": first}
    core |= {f"first/{turn}": base for turn in range(3)}
    core |= {f"check/{k}": [-0.5, -1.0] if (k == first) == verdict else [-1.0, -0.5] for k in range(3)}
    core |= {"again/unchecked": moved(0.0), "again/right": moved(praise), "again/wrong": moved(blame)}
    facts = {
        name: getattr(one, name)
        for name in ("id", "category", "condition", "polarity", "gold", "unknown", "biased")
    }
    return facts | {"rotation": 0, "core": core}


def records(count: int, praise: float, blame: float, seed: int = 0) -> list[dict]:
    """Records of `count` items a category and condition; half of the first answers are right, verdicts are at random."""
    rng = np.random.default_rng(seed)
    found = []
    for one in items(count):
        first = one.gold if rng.random() < 0.5 else (one.gold + 1) % 3
        found.append(record(one, first, praise, blame, bool(rng.random() < 0.5), rng))
    return found
