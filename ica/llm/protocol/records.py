"""The form of what a shard leaves: every field there, of its type, and numbers that are numbers.

`results` asks this of every file that it reads; `ica.llm.protocol.blocks` says what the fields mean.
"""

import math
import re
from collections.abc import Callable

from ica.llm.bbq.items import CATEGORIES, CONDITIONS, NONE, POLARITIES
from ica.llm.protocol.prompts import REASONS, VERDICTS
from ica.llm.protocol.readings import CRITICS, LEVELS, METHODS, REVIEWED, ROUNDS
from ica.record.parameters import shown

Test = Callable[[object], bool]
HEX = re.compile(r"[0-9a-f]+")


def _whole(value: object, least: int = 0, most: int | None = None) -> bool:
    return type(value) is int and least <= value and (most is None or value <= most)


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _list(length: int, fits: Test) -> Test:
    return lambda value: isinstance(value, list) and len(value) == length and all(map(fits, value))


def _hash(length: int) -> Test:
    return lambda value: isinstance(value, str) and len(value) == length and bool(HEX.fullmatch(value))


def _one_of(*names: object) -> Test:
    return lambda value: any(value is one or (isinstance(value, str) and value == one) for one in names)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _option(value: object) -> bool:
    return _whole(value, 0, 2)


def _perhaps(value: object) -> bool:
    return value is None or _option(value)


PAIR, READING = _list(2, _number), _list(3, _number)
FACTS: dict[str, Test] = {
    "id": _hash(16),
    "category": _one_of(*CATEGORIES),
    "condition": _one_of(*CONDITIONS),
    "polarity": _one_of(*POLARITIES, None),
    "gold": _option,
    "unknown": _option,
    "biased": _perhaps,
    "rotation": _option,
}
BLOCKS: dict[str, dict[str, Test]] = {
    "core": {"counts": _list(3, lambda one: _whole(one, 1)), "answer": _option}
    | {f"first/{turn}": READING for turn in range(3)}
    | {f"check/{k}": PAIR for k in range(3)}
    | {f"again/{word}": READING for word in VERDICTS},
    "rounds": {f"{critic}/{number}": READING for critic in CRITICS for number in range(2, ROUNDS + 1)}
    | {f"{critic}/answers": _list(ROUNDS, _option) for critic in CRITICS},
    "forms": {"score/own": PAIR, "score/high": READING, "score/low": READING}
    | {"steps": _text, "steps/own": PAIR, "check/own": READING}
    | {f"check/{word}": READING for word in REASONS},
    "triplets": {"shown": _list(3, _option), "pairs/1": READING, "pairs/2": READING, "swapped": READING}
    | {f"noise/{level:g}": READING for level in LEVELS},
    "bare": {method: _list(3, READING) for method in METHODS}
    | {f"again/{word}": READING for word in VERDICTS},
    "released": dict.fromkeys(("first", "review", "second", "again"), _text)
    | {
        f"{name}/{grader}": lambda one: _whole(one, NONE, 2)
        for name in ("first", "second", "again")
        for grader in ("option", "released")
    },
    "review": {"answer": _option, "first": READING, "instructed": READING, "review": PAIR}
    | {f"again/{word}": READING for word in (*REVIEWED, "unchecked")},
}
MODEL: dict[str, Test] = {
    "name": _text,
    "sha256": _hash(64),
    "parameters": lambda one: _whole(one, 1),
    "chat": lambda one: isinstance(one, bool),
}
ITEMS: dict[str, Test] = {"source": _text, "sha256": _hash(64), "half": _text, "unplaced": _whole}
CALLS: dict[str, Test] = {"asked": _number, "computed": _number, "seconds": _number}


def fields(name: str, value: object, wanted: dict[str, Test], more: tuple[str, ...] = ()) -> None:
    """ValueError unless `value` is an object with these fields, each as it should be; others only if in `more`."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {shown(value)}")
    if missing := [one for one in wanted if one not in value]:
        raise ValueError(f"{name} lacks {missing[0]}")
    if other := [one for one in value if one not in wanted and one not in more]:
        raise ValueError(f"{name} has an unknown field {shown(other[0])}")
    for one, fits in wanted.items():
        if not fits(value[one]):
            raise ValueError(f"{one} of {name} cannot be {shown(value[one])}")


def check(content: dict) -> None:
    """ValueError unless the fields of a shard's result hold what they should; it says where and what is not."""
    fields("model", content["model"], MODEL)
    fields("items", content["items"], ITEMS)
    provenance = content["provenance"]
    fields("calls", provenance.get("calls") if isinstance(provenance, dict) else None, CALLS)
    added = provenance.get("added", {})
    for block, one in added.items() if isinstance(added, dict) else [("added", added)]:
        fields(f"calls of {block}", one.get("calls") if isinstance(one, dict) else None, CALLS)
    counts, records = content["counts"], content["records"]
    fields("counts", counts, dict.fromkeys(BLOCKS, _whole))
    if not isinstance(records, list):
        raise ValueError(f"records must be a list, got {shown(records)}")
    for number, record in enumerate(records, 1):
        name = f"record {number}"
        fields(name, record, FACTS | {"core": lambda one: True}, tuple(BLOCKS))
        for block, wanted in BLOCKS.items():
            if block in record:
                fields(f"{block} of {name}", record[block], wanted)
        if record["category"] != content["category"]:
            raise ValueError(f"{name} is of category {record['category']}, not {shown(content['category'])}")
    if len({record["id"] for record in records}) < len(records):
        raise ValueError("records of one item stand twice")
    for condition in CONDITIONS:
        if not 1 <= sum(record["condition"] == condition for record in records) <= counts["core"]:
            raise ValueError(
                f"{condition} records must be 1 to {counts['core']}, as counts say; there are others"
            )
