"""What a build found, small enough to keep: digests and a few cells of the data behind figures and tables, numbers, claims, verdicts.

`results/reference.json` holds that of one build, and `compare` holds another against it. A build of the same kind of processor must
agree bit by bit, any other within the tolerances of `ica.build.alike`; a verdict that moved is a finding on any.
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

from ica.build import alike
from ica.record import seals

REFERENCE, STORED, LAST = "results/reference.json", "results/verified.json", "build/verify.json"
IDENTICAL, WITHIN, DIFFERS, MISSING, NEW = STATES = ("identical", "within", "differs", "missing", "new")
KINDS = ("figures", "tables", "numbers", "claims")
CELLS = 120  # of a data file that are kept, at most
LONG = 60  # characters of a text; longer ones count by the digest of their file alone
LEFT_OUT = "(a long text)"
WHERE = ("commit", "machine", "s per step")  # columns that say where a run was made, not what it found


def _kept(cell: str) -> str:
    if alike.is_number(cell):
        return cell if len(cell) <= 12 else format(float(cell), ".10g")
    return cell if len(cell) <= LONG else LEFT_OUT


def data_file(content: bytes) -> dict:
    """A CSV file in short: its SHA-256, the number of its rows, and by column some cells, evenly spaced over the rows.

    Of a column of numbers of which rows are left out `ends` holds least, largest and mean. Columns of `WHERE` do not count.
    """
    head, *rows = csv.reader(io.StringIO(content.decode("utf-8")))
    if set(head) & set(WHERE):
        places = [place for place, name in enumerate(head) if name not in WHERE]
        head, *rows = ([row[place] for place in places] for row in (head, *rows))
        content = json.dumps([head, *rows]).encode()
    count = min(len(rows), max(2, CELLS // max(len(head), 1)))
    picked = [rows[k * (len(rows) - 1) // max(count - 1, 1)] for k in range(count)]
    ends = {}
    for place, name in enumerate(head) if count < len(rows) else ():
        cells = [row[place] for row in rows if row[place]]
        if cells and all(map(alike.is_number, cells)):
            values = [float(cell) for cell in cells]
            ends[name] = [f"{x:.10g}" for x in (min(values), max(values), sum(values) / len(values))]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": len(rows),
        "columns": head,
        "cells": {name: [_kept(row[place]) for row in picked] for place, name in enumerate(head)},
        "ends": ends,
    }


def ran(out: Path, name: str) -> bool:
    """Did the notebook run to its end in this build, and is all there that it left?"""
    return (out / "record" / name / "run.json").is_file() and not seals.faults(out / f"{name}.seal.json")


def notebook(record: Path) -> dict:
    """What the record of one run holds: when it began, `figures`, `tables` and `numbers` by name. Tables of wall-clock times are left out."""
    found = {
        kind: {file.stem: data_file(file.read_bytes()) for file in sorted((record / kind).glob("[a-z]*.csv"))}
        for kind in ("figures", "tables")
    }
    found["numbers"] = json.loads((record / "numbers.json").read_text(encoding="utf-8"))
    return found | {"started": json.loads((record / "run.json").read_text(encoding="utf-8"))["started"]}


def claims_of(rows: list[dict]) -> dict[str, dict]:
    """Of the ledger's rows by claim: notebook, verdict, outcomes of the parts, and their values, intervals and sample sizes."""
    return {
        row["id"]: {
            "notebook": row["notebook"],
            "verdict": row["verdict"],
            "outcomes": row["outcomes"],
            "parts": row["measurement"]["parts"],
        }
        for row in rows
    }


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _data(new: dict, old: dict, tolerance: alike.Tolerance) -> str:
    """What of a data file is not within the tolerance, in words; nothing where all is."""
    for key in ("columns", "rows"):
        if new[key] != old[key]:
            return f"{key}: {_words(new[key])}, not {_words(old[key])}"
    for name, cells in old["cells"].items():
        numbers = [float(cell) for cell in cells + old["ends"].get(name, []) if alike.is_number(cell)]
        spread = max(numbers) - min(numbers) if numbers else 0.0
        pairs = [*zip(new["cells"][name], cells, strict=True)]
        pairs += zip(new["ends"].get(name, []), old["ends"].get(name, []), strict=False)
        for a, b in pairs:
            if not alike.near(a, b, tolerance, spread, printed=not alike.is_number(b)):
                return f"{name}: {a or 'nothing'}, not {b or 'nothing'}"
    return ""


def _number(new: object, old: object, tolerance: alike.Tolerance) -> str:
    printed = isinstance(old, str)
    if isinstance(new, str) == printed and alike.near(_words(new), _words(old), tolerance, printed=printed):
        return ""
    return f"{_words(new)}, not {_words(old)}"


def _claim(new: dict, old: dict, tolerance: alike.Tolerance) -> str:
    for name, part in old["parts"].items():
        other = new["parts"].get(name)
        if other is None or other["n"] != part["n"] or bool(other["interval"]) != bool(part["interval"]):
            return f"{name}: another sample or none"
        lo, hi = part["interval"] or (0.0, 0.0)
        room = max(tolerance.absolute, tolerance.interval * (hi - lo) / 2)
        wide = dataclasses.replace(tolerance, absolute=room)
        for a, b in zip(
            [other["value"], *(other["interval"] or ())],
            [part["value"], *(part["interval"] or ())],
            strict=True,
        ):
            if not alike.near(_words(a), _words(b), wide):
                return f"{name}: {a:.6g}, not {b:.6g}"
    return ""


def _same(kind: str, new: dict, old: dict) -> bool:
    return new["sha256"] == old["sha256"] if kind in ("figures", "tables") else new == old


def moved(reference: dict, found: dict) -> list[dict]:
    """Claims of both whose verdict, or that of a part, is another: id, `was`, `now`."""
    pairs = (
        (id, old, found["claims"][id]) for id, old in reference["claims"].items() if id in found["claims"]
    )
    rows = []
    for id, old, new in pairs:
        parts = sorted(name for name, was in old["outcomes"].items() if new["outcomes"].get(name, was) != was)
        if new["verdict"] != old["verdict"]:
            rows.append({"claim": id, "was": old["verdict"], "now": new["verdict"]})
        elif parts:
            told = [f"{one['outcomes'][parts[0]]} ({parts[0]})" for one in (old, new)]
            rows.append({"claim": id, "was": told[0], "now": told[1]})
    return rows


def _flat(content: dict, kind: str) -> dict[tuple[str, str], object]:
    """All things of a kind by (notebook, name)."""
    if kind == "claims":
        return {(one["notebook"], id): one for id, one in content["claims"].items()}
    return {
        (book, name): one for book, found in content["notebooks"].items() for name, one in found[kind].items()
    }


JUDGE = {"figures": _data, "tables": _data, "numbers": _number, "claims": _claim}


def _held(kind: str, reference: dict, found: dict, kinds: dict[str, str]) -> tuple[dict[str, int], list[str]]:
    """All things of one kind against the reference: how many of each state, and a line for each that is not as it must be."""
    old, new = _flat(reference, kind), _flat(found, kind)
    tally, lines = Counter(dict.fromkeys(STATES, 0)), []
    for key in sorted(old.keys() | new.keys()):
        book, where = key[0], f"{kind[:-1]} {key[0]}/{key[1]}"
        if key not in new:
            state = MISSING
            if book in found["notebooks"] or book not in kinds:  # of one that did not run a line says so
                lines.append(f"{where}: is missing")
        elif key not in old:
            state = NEW
            lines.append(f"{where}: is not in the reference")
        elif _same(kind, new[key], old[key]):
            state = IDENTICAL
        else:
            wrong = JUDGE[kind](new[key], old[key], alike.TOLERANCES[kinds.get(book, "exact")])
            state = DIFFERS if wrong else WITHIN
            if wrong or found["machine"] == reference["machine"]:
                lines.append(f"{where}: {wrong or 'not bit for bit, on the same kind of machine'}")
        tally[state] += 1
    return dict(tally), lines


def compare(reference: dict, found: dict, kinds: dict[str, str]) -> dict:
    """Hold a build against the reference.

    Args:
        reference, found: as `ica.build.verify.measured` makes them.
        kinds: of every notebook of the book, the row of `alike.TOLERANCES` for its numbers.

    Returns the report, JSON types: machine and commit of both, `same` (kind of machine), `again` (no run is one of the reference
    itself), `notebooks`, `counts` by kind and state, `moved`, and `findings`, a line each; none: all is as it must be.
    """
    gone = [name for name in kinds if name not in found["notebooks"]]
    changed, counts = moved(reference, found), {}
    lines = [f"notebook {name}: did not run to its end" for name in gone]
    lines += [f"claim {one['claim']}: verdict {one['now']}, not {one['was']}" for one in changed]
    for kind in KINDS:
        counts[kind], more = _held(kind, reference, found, kinds)
        lines += more
    begun = {name: one["started"] for name, one in reference["notebooks"].items()}
    return {
        **{key: found[key] for key in ("machine", "commit", "dirty")},
        "reference": {key: reference[key] for key in ("machine", "commit")},
        "same": found["machine"] == reference["machine"],
        "again": not any(begun.get(name) == one["started"] for name, one in found["notebooks"].items()),
        "notebooks": {"listed": len(kinds), "ran": len(kinds) - len(gone), "not": gone},
        "counts": counts,
        "moved": changed,
        "findings": lines,
    }


def whole(report: object) -> bool:
    """Is this a report of `compare`, as pages show it?"""
    try:
        texts = [report["commit"] or "", *report["machine"].values(), *report["findings"]]
        texts += [one[key] for one in report["moved"] for key in ("claim", "was", "now")]
        numbers = [report["counts"][kind][state] for kind in KINDS for state in STATES]
        numbers += [report["notebooks"][key] for key in ("listed", "ran")]
        flags = [report[key] for key in ("same", "again", "fresh", "dirty")]
        kinds = ((str, texts), (int, numbers), (bool, flags))
        return all(type(one) is kind for kind, found in kinds for one in found)
    except (KeyError, TypeError, AttributeError):
        return False


def shown(root: Path) -> dict:
    """What the page shows: `last`, the report of the last comparison in this checkout (None: there is none), and `stored` ones.

    Raises:
        ValueError: the stored ones are damaged.
    """
    try:
        last = json.loads((root / LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        last = None
    return {"last": last if whole(last) else None, "stored": stored(root)}


def stored(root: Path) -> list[dict]:
    """The stored reports, one a kind of machine; ValueError where the file is damaged."""
    path = root / STORED
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        if not isinstance(records, list) or not all(map(whole, records)):
            raise ValueError("fields")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{STORED} is damaged ({error}); `git checkout -- results` restores it") from error
    return records
