"""The claims ledger: criteria in a registry, measurements recorded by runs, and the verdicts between
them.

The registry, `ica/record/registry/<notebook>.yml`, fixes each claim and its criterion. A run leaves measurements in
`claims.json`. A verdict is never stored by a run; it is computed here: a part of a claim *holds* if its
criterion holds at the value and over the whole interval, *fails* if it fails at the value and over the whole
interval, and else *straddles*. All parts hold: reproduced; all fail: not reproduced; otherwise: partly.
"excludes 0" speaks of the interval itself: it holds if 0 lies outside and fails if 0 lies inside.
"""

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from ica.record.provenance import write_json

REGISTRY = Path(__file__).with_name("registry")
SOURCES = ("paper", "released code", "ours")
BELOW, ABOVE = ("<=", "<"), (">=", ">")
EXCLUDES = "excludes 0"
OPS = (*BELOW, *ABOVE, "within", EXCLUDES)
REQUIRED = ("id", "notebook", "statement", "source", "measured", "criterion")
ID = re.compile(r"[a-z][a-z0-9-]*")
NOTEBOOK = re.compile(r"[a-z][a-z0-9_]*")
VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")


def number(name: str, value) -> float:
    """Return a Python, NumPy or one-element torch number as a float; ValueError unless finite."""
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        try:
            value = value.item()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name} must be a single number, got an array of several") from error
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class Criterion:
    """One condition: `op` and its `bound`, a number, (lo, hi) for "within", None for "excludes 0"."""

    op: str
    bound: float | tuple[float, float] | None

    def __str__(self) -> str:
        if self.op == "within":
            return f"within [{self.bound[0]:g}, {self.bound[1]:g}]"
        return self.op if self.bound is None else f"{self.op} {self.bound:g}"

    def holds(self, value: float) -> bool:
        """Does the condition hold at one value?"""
        match self.op:
            case "<=":
                return value <= self.bound
            case "<":
                return value < self.bound
            case ">=":
                return value >= self.bound
            case ">":
                return value > self.bound
            case "within":
                return self.bound[0] <= value <= self.bound[1]
        return value != 0

    def judge(self, value: float, interval: tuple[float, float] | None) -> str:
        """Return "holds", "fails" or "straddles" for a value and its interval (None: the value alone)."""
        lo, hi = (value, value) if interval is None else interval
        if self.op == EXCLUDES:
            return "fails" if lo <= 0 <= hi else "holds"
        at = [self.holds(x) for x in (value, lo, hi)]
        if all(at):
            return "holds"
        spans = self.op == "within" and min(lo, value) < self.bound[0] and max(hi, value) > self.bound[1]
        return "straddles" if any(at) or spans else "fails"


@dataclass(frozen=True)
class Claim:
    """A registered claim. `criteria`: part name -> condition; a single measurement is the part "value"."""

    id: str
    part: str
    notebook: str
    statement: str
    source: str
    measured: str
    criteria: dict[str, Criterion]
    stochastic: bool = False

    def needs_interval(self, part: str) -> bool:
        """Must a measurement of this part carry an interval?"""
        return self.stochastic or self.criteria[part].op == EXCLUDES


def _mapping(where: str, entry, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a mapping with keys {', '.join(required)}; got {entry!r}")
    if unknown := [k for k in entry if k not in required + optional]:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; accepted: {', '.join(required + optional)}")
    if missing := [k for k in required if k not in entry]:
        raise ValueError(f"{where}: {missing[0]} is missing; every claim needs {', '.join(required)}")
    return entry


def _criterion(where: str, entry) -> Criterion:
    entry = _mapping(f"{where}: criterion", entry, ("op",), ("bound",))
    op, bound = entry["op"], entry.get("bound")
    if op not in OPS:
        raise ValueError(f"{where}: op must be one of {', '.join(OPS)}; got {op!r}")
    if op == EXCLUDES:
        if bound is not None:
            raise ValueError(f"{where}: op {EXCLUDES!r} takes no bound, got {bound!r}")
        return Criterion(op, None)
    hint = " (YAML reads 1e-12 as text; write 1.0e-12)" if isinstance(bound, str) else ""
    try:
        if op != "within":
            return Criterion(op, number("bound", bound))
        lo, hi = (number("bound", b) for b in bound)
    except (TypeError, ValueError) as error:
        wanted = "[lo, hi], two finite numbers" if op == "within" else "a finite number"
        raise ValueError(f"{where}: bound of {op!r} must be {wanted}; got {bound!r}{hint}") from error
    if lo > hi:
        raise ValueError(f"{where}: bound of 'within' must be [lo, hi] with lo <= hi, got {bound!r}")
    return Criterion(op, (lo, hi))


def _claim(path: Path, index: int, entry) -> Claim:
    where = f"{path.name}: claim {entry.get('id', index) if isinstance(entry, dict) else index}"
    entry = _mapping(where, entry, REQUIRED, ("stochastic",))
    for key in set(REQUIRED) - {"criterion"}:
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise ValueError(f"{where}: {key} must be text, got {entry[key]!r}")
    for key, pattern in (("id", ID), ("notebook", NOTEBOOK)):
        if not pattern.fullmatch(entry[key]):
            raise ValueError(f"{where}: {key} must match {pattern.pattern}, got {entry[key]!r}")
    if entry["source"] not in SOURCES:
        raise ValueError(f"{where}: source must be one of {', '.join(SOURCES)}; got {entry['source']!r}")
    if not isinstance(entry.get("stochastic", False), bool):
        raise ValueError(f"{where}: stochastic must be true or false, got {entry['stochastic']!r}")
    given = entry["criterion"]
    parts = {"value": given}
    if isinstance(given, dict) and "parts" in given:
        parts = _mapping(f"{where}: criterion", given, ("parts",))["parts"]
        if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts):
            raise ValueError(f"{where}: parts must map part names (text) to criteria, got {parts!r}")
    criteria = {
        name: _criterion(where if name == "value" else f"{where}, part {name}", c)
        for name, c in parts.items()
    }
    rest = {k: v for k, v in entry.items() if k != "criterion"}
    return Claim(part=path.stem, criteria=criteria, **rest)


def load(paths: list[Path] | None = None) -> dict[str, Claim]:
    """Return the registry, id -> `Claim`, in the order of the files (default: every `ica/record/registry/*.yml`).

    ValueError naming file and claim for unknown keys, a missing criterion, a duplicate id, or a bad source,
    op or bound.
    """
    registry: dict[str, Claim] = {}
    for path in map(Path, sorted(REGISTRY.glob("*.yml")) if paths is None else paths):
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        if not isinstance(entries, list):
            raise ValueError(f"{path.name}: must hold a list of claims, got {type(entries).__name__}")
        for index, entry in enumerate(entries):
            claim = _claim(path, index, entry)
            if claim.id in registry:
                raise ValueError(
                    f"{path.name}: claim {claim.id}: id is already taken in {registry[claim.id].part}.yml"
                )
            registry[claim.id] = claim
    return registry


def check_part(claim: Claim, name: str, value, interval=None, n=None) -> dict:
    """Return one part {"value", "interval", "n"} in JSON types; ValueError if the claim does not allow it."""
    where = f"claim {claim.id}, part {name}"
    if name not in claim.criteria:
        raise ValueError(f"{where}: not registered; accepted parts: {', '.join(claim.criteria)}")
    value = number(f"{where}: value", value)
    if interval is None and claim.needs_interval(name):
        raise ValueError(f"{where}: interval is required (stochastic claim or {EXCLUDES!r}), got None")
    if interval is not None:
        if not hasattr(interval, "__len__") or len(interval) != 2:
            raise ValueError(f"{where}: interval must be (lo, hi) or None, got {interval!r}")
        interval = [number(f"{where}: interval", x) for x in interval]
        if interval[0] > interval[1]:
            raise ValueError(f"{where}: interval must have lo <= hi, got {interval}")
    n = n.item() if hasattr(n, "item") else n
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"{where}: n must be a whole number of at least 1 or None, got {n!r}")
    return {"value": value, "interval": interval, "n": n}


def check(claim: Claim, measurement: dict) -> dict:
    """Return the measurement {"id", "parts", "untestable"}, checked; ValueError naming what is wrong."""
    entry = _mapping(f"claim {claim.id}: measurement", measurement, ("id", "parts", "untestable"))
    why, parts = entry["untestable"], entry["parts"] or {}
    if why is not None:
        if not isinstance(why, str) or not why.strip() or parts:
            raise ValueError(
                f"claim {claim.id}: untestable must be the reason in words, and then no parts; got {why!r}"
            )
        return {"id": claim.id, "parts": {}, "untestable": why}
    if missing := [name for name in claim.criteria if name not in parts]:
        raise ValueError(f"claim {claim.id}: part {missing[0]} has a criterion but was not measured")
    return {
        "id": claim.id,
        "parts": {k: check_part(claim, k, **v) for k, v in parts.items()},
        "untestable": None,
    }


def judge_parts(claim: Claim, measurement: dict) -> dict[str, str]:
    """Return "holds", "fails" or "straddles" for every part of a measurement."""
    parts = check(claim, measurement)["parts"]
    return {name: claim.criteria[name].judge(p["value"], p["interval"]) for name, p in parts.items()}


def judge(claim: Claim, measurement: dict) -> str:
    """Return the verdict, one of `VERDICTS`; ValueError for a measurement that does not fit the claim."""
    outcomes = set(judge_parts(claim, measurement).values())
    if not outcomes:
        return "not testable here"
    return {frozenset({"holds"}): "reproduced", frozenset({"fails"}): "not reproduced"}.get(
        frozenset(outcomes), "partly"
    )


def row(claim: Claim, measurement: dict) -> dict:
    """Return one row of `build/claims.json`: the claim, its criteria, the measurement, and the verdict."""
    measurement = check(claim, measurement)
    criteria = {k: {"op": c.op, "bound": c.bound, "text": str(c)} for k, c in claim.criteria.items()}
    fields = ("id", "part", "notebook", "statement", "source", "measured", "stochastic")
    return {
        **{name: getattr(claim, name) for name in fields},
        "criteria": criteria,
        "measurement": measurement,
        "outcomes": judge_parts(claim, measurement),
        "verdict": judge(claim, measurement),
    }


def collect(record_folders: list[Path], registry: dict[str, Claim]) -> list[dict]:
    """Return the rows of all runs in registry order; a folder holds one notebook's `run.json`, `claims.json`.

    ValueError for an id that is not registered, is recorded by another notebook than its own or twice, for a
    value that is not finite, and for a registered claim that its notebook ran without recording. Claims of
    notebooks without a folder are left out.
    """
    found: dict[str, dict] = {}
    ran: set[str] = set()
    for folder in map(Path, record_folders):
        notebook = json.loads((folder / "run.json").read_text(encoding="utf-8"))["notebook"]
        if notebook in ran:
            raise ValueError(f"{folder}: a second record of notebook {notebook}; give each notebook once")
        ran.add(notebook)
        for measurement in json.loads((folder / "claims.json").read_text(encoding="utf-8")):
            id = measurement["id"]
            if id not in registry:
                raise ValueError(
                    f"notebook {notebook}: claim {id} is not registered in ica/record/registry/*.yml"
                )
            if registry[id].notebook != notebook:
                raise ValueError(
                    f"notebook {notebook}: claim {id} belongs to notebook {registry[id].notebook}"
                )
            if id in found:
                raise ValueError(f"notebook {notebook}: claim {id} is recorded twice")
            found[id] = row(registry[id], measurement)
    if forgotten := [c for c in registry.values() if c.notebook in ran and c.id not in found]:
        raise ValueError(f"notebook {forgotten[0].notebook} ran but did not record claim {forgotten[0].id}")
    return [found[id] for id in registry if id in found]


def main(arguments: list[str] | None = None) -> int:
    """Collect record folders into one file: python -m ica.record.claims RECORD_DIR... --out FILE."""
    parser = argparse.ArgumentParser(
        prog="python -m ica.record.claims", description="Collect claims and give verdicts."
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RECORD_DIR")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        registry = load()
        rows = collect(options.folders, registry)
    except (ValueError, OSError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 1
    write_json(options.out, rows)
    left_out = len(registry) - len(rows)
    print(
        f"{len(rows)} claims of {len(options.folders)} notebooks"
        + (f"; {left_out} not run" if left_out else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
