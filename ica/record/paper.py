"""The paper's own claims, each with the claims of this book that bear on it, and the verdict that follows from those.

The registry is `paper.yml` beside this file. Tests come in four bases: as the paper states it, as its released code does it,
an analogue (the same question with other models, data or prompts), and beyond the paper. A claim's verdict is that of its
tests on the first of these bases that has any; what lies beyond the paper never decides. A test may speak against the claim:
where it is supported, the claim is contradicted. A test that is a single run counts only where no other on its basis does.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from ica.record.claims import BASES, UNITS, Claim, mapping, one_of
from ica.record.criteria import CONTRADICTED, SINGLE, SUPPORTED, combine

FILE = Path(__file__).with_name("paper.yml")
KINDS = ("theorem", "experiment", "statement")
UNTESTED = "not tested"
OPPOSITE = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}
ID = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")
REQUIRED = ("id", "kind", "place", "claim", "scale", "tests", "page")


@dataclass(frozen=True)
class Test:
    """A claim of this book that bears on one of the paper, for or against it, with those of its parts that do (none: all)."""

    claim: str
    basis: str
    parts: tuple[str, ...] = ()
    against: bool = False


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper: where it stands, at which scale, which tests bear on it, where the book treats it."""

    id: str
    kind: str
    place: str
    claim: str
    scale: str
    tests: tuple[Test, ...]
    page: str
    figure: str | None = None
    note: str | None = None


def _test(where: str, entry, registry: dict[str, Claim]) -> Test:
    entry = mapping(f"{where}: test", entry, ("claim", "basis"), ("parts", "against"))
    one_of(f"{where}: basis", entry["basis"], BASES)
    if entry["claim"] not in registry:
        raise ValueError(f"{where}: test {entry['claim']!r} is no registered claim")
    parts = _list(f"{where}: parts of {entry['claim']}", entry.get("parts"))
    for name in parts:
        one_of(f"{where}: part of {entry['claim']}", name, tuple(registry[entry["claim"]].criteria))
    against = entry.get("against", False)
    if not isinstance(against, bool):
        raise ValueError(f"{where}: against of {entry['claim']} must be true or false, got {against!r}")
    return Test(entry["claim"], entry["basis"], tuple(parts), against)


def _tests(where: str, entries, registry: dict[str, Claim]) -> tuple[Test, ...]:
    """The tests of one claim; no measured part may count twice."""
    tests = [_test(where, entry, registry) for entry in _list(f"{where}: tests", entries)]
    counted = [(test.claim, part) for test in tests for part in test.parts or registry[test.claim].criteria]
    if twice := [pair for pair in counted if counted.count(pair) > 1]:
        raise ValueError(f"{where}: part {twice[0][1]} of test {twice[0][0]} is given twice")
    return tuple(tests)


def _list(where: str, given) -> list:
    """The list, or an empty one for None; ValueError for anything else."""
    if given is not None and not isinstance(given, list):
        raise ValueError(f"{where} must be a list, got {given!r}")
    return given or []


def load(registry: dict[str, Claim], file: Path = FILE) -> list[PaperClaim]:
    """Return the paper's claims in order; ValueError naming claim and key for what does not fit, or an id given twice."""
    if not file.is_file():
        return []
    found: dict[str, PaperClaim] = {}
    for index, entry in enumerate(_list(file.name, yaml.safe_load(file.read_text(encoding="utf-8")))):
        where = f"{file.name}: {entry.get('id', index) if isinstance(entry, dict) else index}"
        entry = mapping(where, entry, REQUIRED, ("figure", "note"))
        one_of(f"{where}: kind", entry["kind"], KINDS)
        for key in (key for key in entry if key != "tests"):
            if not isinstance(entry[key], str) or not entry[key].strip():
                raise ValueError(f"{where}: {key} must be text, got {entry[key]!r}")
        if not ID.fullmatch(entry["id"]):
            raise ValueError(f"{where}: id must match {ID.pattern}, got {entry['id']!r}")
        if entry["id"] in found:
            raise ValueError(f"{where}: id is taken already")
        tests = _tests(where, entry["tests"], registry)
        found[entry["id"]] = PaperClaim(**{**entry, "tests": tests})
    return list(found.values())


def counts(n: dict[str, int] | None) -> str:
    """A sample size in words, in the order of `UNITS`: "5 seeds, 256 prompts"."""
    one = {unit: unit.removesuffix("s") for unit in n or {}} | {"categories": "category"}
    order = sorted(n or {}, key=lambda unit: UNITS.index(unit) if unit in UNITS else len(UNITS))
    return ", ".join(f"{n[unit]:,} {one[unit] if n[unit] == 1 else unit}" for unit in order)


def _here(rows: list[dict]) -> str:
    """Setting and sample sizes of tests, each once."""
    said = []
    for row in rows:
        sizes = [counts(part["n"]) for part in row["measurement"]["parts"].values()]
        words = "; ".join(dict.fromkeys(filter(None, [row["setting"], *sizes[:1]])))
        said += [words] if words else []
    return " / ".join(dict.fromkeys(said))


def _row(item: PaperClaim, by_id: dict[str, dict]) -> dict:
    """One row of `build/paper_claims.json`."""
    tests, outcomes = [], {basis: [] for basis in BASES}
    for test in item.tests:
        if test.claim not in by_id:  # its notebook is not in this book
            continue
        row = by_id[test.claim]
        own = [row["outcomes"][name] for name in test.parts] if test.parts and row["outcomes"] else []
        verdict = combine(own) if own else row["verdict"]
        found = own or list(row["outcomes"].values()) or [verdict]
        outcomes[test.basis] += [OPPOSITE.get(one, one) for one in found] if test.against else found
        tests.append(
            {"claim": test.claim, "parts": list(test.parts), "basis": test.basis, "verdict": verdict}
            | {"notebook": row["notebook"], "against": test.against}
        )
    for basis, found in outcomes.items():
        outcomes[basis] = [one for one in found if one != SINGLE] or found
    by_basis = {basis: combine(found) for basis, found in outcomes.items() if found}
    basis = next((basis for basis in BASES[:-1] if basis in by_basis), None)
    used = [by_id[test["claim"]] for test in tests if test["basis"] == basis]
    names = ("id", "kind", "place", "claim", "scale", "page", "figure", "note")
    return {
        **{name: getattr(item, name) for name in names},
        "verdict": by_basis[basis] if basis else UNTESTED,
        "basis": basis,
        "by_basis": by_basis,
        "supported": sum(one == "supported" for one in outcomes[basis]) if basis else 0,
        "of": len(outcomes[basis]) if basis else 0,
        "here": _here(used),
        "tests": tests,
    }


def judge(items: list[PaperClaim], rows: list[dict]) -> list[dict]:
    """Return one row for each of the paper's claims, in order, from the rows of the ledger."""
    by_id = {row["id"]: row for row in rows}
    return [_row(item, by_id) for item in items]
