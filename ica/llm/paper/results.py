"""What a run leaves, `results/paper-llm/MODEL.json`: graded answers and verdicts as numbers, read back with
every field checked.

These files have a schema of their own and lie in a folder of their own: no reader of the stored ladder sees
them, so they are never pooled with it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ica.llm.bbq.items import CATEGORIES, CONDITIONS, NONE, POLARITIES, Item
from ica.llm.bbq.rows import content as text_of
from ica.llm.bbq.rows import parsed
from ica.llm.model.load import LanguageModel
from ica.llm.paper import defence, settings, texts
from ica.llm.paper.settings import Asked
from ica.llm.protocol.grading import released_option, strict_option
from ica.llm.protocol.records import fields
from ica.record.provenance import project_root, write_json

FOLDER = "paper-llm"
SCHEMA = 1
GRADERS = ("released", "strict")
FACTS = ("id", "category", "condition", "polarity", "gold", "unknown", "biased")
CORE = ("first", "instructed", "second", "again")
SECONDS = tuple(f"{form}/second" for form in texts.FORMS)
ALL = (
    *CORE,
    *(f"forced/{word}" for word in texts.VERDICTS),
    *SECONDS,
    "own/2",
    "own/3",
    "true/1",
    "true/2",
    "true/3",
)
EXAMPLES = 3
KEYS = (
    "schema",
    "small",
    "trial",
    "model",
    "items",
    "settings",
    "attacks",
    "records",
    "examples",
    "defended",
    "seconds",
    "provenance",
)


class PaperResultError(ValueError):
    """A result cannot be used; the message names it and what is wrong."""


def graded(item: Item, record: Mapping[str, object]) -> dict:
    """An item's answers by both graders, [released, strict] by name, and the verdicts on them; no text."""
    answers = {
        name: [
            released_option(record[name], item.options),
            strict_option(record[name], item.options, item.unknown),
        ]
        for name in ALL
        if name in record
    }
    found = {name: getattr(item, name) for name in FACTS} | {"answers": answers, "odds": record["odds"]}
    if "forced/odds" in record:
        said = {form: texts.verdict(record[f"{form}/review"]) for form in texts.FORMS}
        found |= {"forced": record["forced/odds"], "said": said}
    return found


def made(asked: Asked, model: LanguageModel, records: Mapping[str, dict], provenance: dict) -> dict:
    """The content of a result, from the records of a checkpoint."""
    items = [item for pairs in asked.items.values() for item, _ in pairs]
    every = [graded(item, records[f"item/{item.id}"]) for item in items]
    shown = [
        {"question": texts.asked(item)}
        | {n: records[f"item/{item.id}"][n] for n in ("first", "review", "second")}
        for item in items[:EXAMPLES]
    ]
    size = model.network.num_parameters()
    seconds = {
        key.removeprefix("seconds/"): one for key, one in records.items() if key.startswith("seconds/")
    }
    return {
        "schema": SCHEMA,
        "small": asked.count < settings.SMALL,
        "trial": asked.lengths != texts.RELEASED,
        "model": {
            "name": Path(model.name).name,
            "sha256": model.hash,
            "parameters": size,
            "template": asked.template_name,
        },
        "items": asked.source | {"count": asked.count, "read": len(items)},
        "settings": {"lengths": asdict(asked.lengths), "device": asked.device, "dtype": asked.dtype},
        "attacks": {"source": asked.attacks, "sha256": defence.digest(asked.context, asked.sent)},
        "records": every,
        "examples": shown,
        "defended": [{"number": one.number} | records[one.key] for one in asked.sent],
        "seconds": seconds,
        "provenance": provenance,
    }


def write(path: Path, content: dict) -> Path:
    """Write a result at once or not at all, after it was checked as a reader would."""
    check(content)
    return write_json(path, content, compact=True)


def _option(value: object) -> bool:
    return type(value) is int and NONE <= value <= 2


def check(content: object) -> None:
    """ValueError unless this is a result with every field as it should be."""
    if not isinstance(content, dict) or (missing := [name for name in KEYS if name not in content]):
        raise ValueError(f"{missing[0]} is missing" if isinstance(content, dict) else "it is no JSON object")
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has format {content['schema']!r}; accepted: {SCHEMA}")
    text = lambda one: isinstance(one, str)
    number = lambda one: type(one) in (int, float)
    model = {
        "name": text,
        "sha256": text,
        "template": text,
        "parameters": lambda one: type(one) is int and one > 0,
    }
    fields("model", content["model"], model)
    wanted = {
        "id": text,
        "category": lambda one: one in CATEGORIES,
        "condition": lambda one: one in CONDITIONS,
        "polarity": lambda one: one in (*POLARITIES, None),
        "gold": lambda one: _option(one) and one >= 0,
        "unknown": lambda one: _option(one) and one >= 0,
        "biased": lambda one: one is None or _option(one),
        "odds": number,
        "answers": lambda one: isinstance(one, dict) and set(CORE) <= set(one) <= set(ALL),
    }
    if not isinstance(content["records"], list) or not content["records"]:
        raise ValueError("records must be a list that is not empty")
    for k, record in enumerate(content["records"], 1):
        fields(f"record {k}", record, wanted, ("forced", "said"))
        for name, pair in record["answers"].items():
            if not (isinstance(pair, list) and len(pair) == len(GRADERS) and all(map(_option, pair))):
                raise ValueError(f"{name} of record {k} must be an option by each grader, got {pair!r}")
        if ("forced" in record) != (set(record["answers"]) == set(ALL)):
            raise ValueError(f"record {k} has some of the further blocks and not others")
    for k, row in enumerate(content["defended"], 1):
        if (
            not isinstance(row, dict)
            or row.get("kind") not in defence.KINDS
            or not set(defence.DEFENCES) <= set(row)
        ):
            raise ValueError(f"row {k} of defended lacks a kind or a defence")


def read(path: Path) -> dict:
    """What a file of `write` holds.

    Raises:
        PaperResultError: it is missing or damaged.
    """
    try:
        content = parsed(text_of(path))
        check(content)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise PaperResultError(
            f"result {path} is missing or damaged: {why}; `git checkout -- {path.name}` there restores a stored one, "
            "`make paper-llm MODEL=...` makes it anew"
        ) from error
    return content


def stored(where: Path | None = None) -> list[dict]:
    """All results of the folder, the smallest model first; empty if there is none.

    Raises:
        PaperResultError: a file that `read` refuses.
    """
    where = where or (project_root() or Path.cwd()) / "results" / FOLDER
    found = [read(path) for path in sorted(where.glob("*.json"))]
    return sorted(found, key=lambda one: (one["model"]["parameters"], one["model"]["name"]))
