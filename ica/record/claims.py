"""The claims of this book: a registry of criteria, measurements checked against it, and the verdict between them.

The registry, `registry/<part>/<notebook>.yml`, fixes each claim and its criterion (FORMAT.md there). A run leaves
measurements; a verdict is never stored by a run but computed from them, by `ica.record.criteria`, and with it the sentence
that pages show.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ica.record.criteria import (
    BOUNDS,
    EFFECTS,
    OPEN,
    SCALES,
    SINGLE,
    SUPPORTED,
    UNTESTABLE,
    VERDICTS,
    Criterion,
    combine,
)

REGISTRY = Path(__file__).with_name("registry")
LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # the one in C, where it is there, takes a tenth of the time
PARTS = ("theory", "synthetic", "llm")
BASES = ("as stated", "as released", "analogue", "beyond the paper")
UNITS = ("seeds", "prompts", "items", "categories", "models", "simulations")
FEW = {"seeds": 3, "models": 3}  # fewer of these are shown, not judged
REQUIRED = ("id", "notebook", "statement", "basis", "measured", "criterion")
OPTIONAL = ("unit", "reason", "says", "setting", "fixed", "changed", "otherwise")
ID = re.compile(r"[a-z][a-z0-9-]*")
NOTEBOOK = re.compile(r"[a-z][a-z0-9_]*")
# What is said of a claim that has no words of its own for its verdict.
SAYS = {
    SUPPORTED: "{statement}",
    "contradicted": "Contradicted: {statement}",
    "negligible": "No effect that matters: {statement}",
    OPEN: "Open at this sample size: {statement}",
    "mixed": "Holds in {k} of {m} parts: {statement}",
    SINGLE: "Shown, not judged (single run): {statement}",
    UNTESTABLE: "Not testable here: {statement}",
}


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
class Measured:
    """One measured part as readers see it: `{x}` is value and interval, `{x:.2f}` the same to two places.

    Without a format the places are those of two digits of the interval's width.
    """

    value: float
    interval: tuple[float, float] | None = None

    def __format__(self, spec: str) -> str:
        given = [format(x, spec or self.places) for x in (self.value, *(self.interval or ()))]
        value, *ends = ((x if x.strip("-0.") else x.lstrip("-")).replace("-", "−") for x in given)
        return f"{value} [{ends[0]},\u00a0{ends[1]}]" if ends else value

    @property
    def places(self) -> str:
        """The format that fits the interval: 0.04 [-0.01, 0.10] of 0.0425 [-0.0105, 0.0955]."""
        width = self.interval[1] - self.interval[0] if self.interval else 0
        if not 1e-5 < width < 100:
            return ".3g"
        return f".{max(1, 1 - math.floor(math.log10(width)))}f"


class Parts(dict):
    """Measured parts by name, also where `str.format` took a name of digits for a number."""

    def __missing__(self, name):
        if isinstance(name, int) and str(name) in self:
            return self[str(name)]
        raise KeyError(name)


@dataclass(frozen=True)
class Claim:
    """A registered claim. `criteria`: part name -> condition; a single measurement is the part "value".

    `unit`, what was sampled, and `reason`, why the criterion's numbers are those that matter, go with stochastic claims.
    `fixed`, `changed`, `otherwise`: when the criterion was fixed, what changed after, and the verdict without that change.
    """

    id: str
    part: str
    notebook: str
    statement: str
    basis: str
    measured: str
    criteria: dict[str, Criterion]
    unit: str | None = None
    reason: str | None = None
    setting: str | None = None
    fixed: str | None = None
    changed: str | None = None
    otherwise: str | None = None
    says: dict[str, str] = field(default_factory=dict)

    @property
    def stochastic(self) -> bool:
        """Was something sampled, so that measurements need an interval?"""
        return self.unit is not None

    def outcome(self, name: str, part: dict) -> str:
        """Verdict on one part of a measurement."""
        least = FEW.get(self.unit, 0)
        if self.stochastic and part["n"].get(self.unit, least) < least:
            return SINGLE
        return self.criteria[name].judge(part["value"], part["interval"])

    def sentence(self, verdict: str, measurement: dict, outcomes: dict[str, str]) -> str:
        """What the claim's words for this verdict come to with these measurements.

        ValueError where the words name what there is not, as a value where nothing was measured. The reason why a claim
        is untestable is no part of it: it comes from a run, and pages show it as plain text.
        """
        parts = Parts({name: Measured(p["value"], p["interval"]) for name, p in measurement["parts"].items()})
        given = {"statement": self.statement, "parts": parts, "m": len(self.criteria)}
        given["k"] = sum(one == SUPPORTED for one in outcomes.values())
        if "value" in parts:
            given["value"] = parts["value"]
        words = self.says.get(verdict, SAYS[verdict])
        try:
            # A statement may hold braces of formulas; only the words' own are fields.
            return words.format(**given)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            there = f"{', '.join(given)} (parts: {', '.join(parts) or 'none'}); double the braces of formulas"
            raise ValueError(f"says {verdict!r} cannot be filled in: {error!r}; accepted: {there}") from error


def mapping(where: str, entry, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a mapping with keys {', '.join(required)}; got {entry!r}")
    if unknown := [k for k in entry if k not in required + optional]:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; accepted: {', '.join(required + optional)}")
    if missing := [k for k in required if k not in entry]:
        raise ValueError(f"{where}: {missing[0]} is missing; needed are {', '.join(required)}")
    return entry


def one_of(where: str, value, accepted: tuple) -> None:
    """ValueError, naming where, unless the value is among those accepted."""
    if value not in accepted:
        raise ValueError(f"{where} must be one of {', '.join(accepted)}; got {value!r}")


def _numbers(where: str, wanted: str, given, count: int) -> tuple[float, ...]:
    """So many finite numbers; ValueError that says what was wanted."""
    try:
        found = tuple(number("", x) for x in (given if count > 1 else [given]))
        if len(found) != count:
            raise ValueError
    except (TypeError, ValueError) as error:
        hint = " (YAML reads 1e-12 as text; write 1.0e-12)" if isinstance(given, str) else ""
        raise ValueError(f"{where} must be {wanted}; got {given!r}{hint}") from error
    return found


def _criterion(where: str, entry) -> Criterion:
    """A bound {op, bound} or an effect {op, at, sesoi[, scale]}."""
    effect = isinstance(entry, dict) and entry.get("op") in EFFECTS
    keys = (("op", "at", "sesoi"), ("scale",)) if effect else (("op", "bound"), ())
    if isinstance(entry, dict):
        one_of(f"{where}: op", entry.get("op"), (*BOUNDS, *EFFECTS))
    entry = mapping(f"{where}: criterion", entry, *keys)
    op = entry["op"]
    if effect:
        scale = entry.get("scale", "difference")
        one_of(f"{where}: scale", scale, SCALES)
        (at,) = _numbers(f"{where}: at", "a finite number", entry["at"], 1)
        (sesoi,) = _numbers(f"{where}: sesoi", "a finite number", entry["sesoi"], 1)
        if not (sesoi > 0 if scale == "difference" else sesoi > 1 and at > 0):
            raise ValueError(
                f"{where}: sesoi must be above 0 (of a ratio: a factor above 1, and at above 0), got {sesoi:g}"
            )
        return Criterion(op, at=at, sesoi=sesoi, scale=scale)
    if op != "within":
        return Criterion(op, *_numbers(f"{where}: bound of {op!r}", "a finite number", entry["bound"], 1))
    lo, hi = _numbers(f"{where}: bound of 'within'", "[lo, hi], two finite numbers", entry["bound"], 2)
    if lo > hi:
        raise ValueError(f"{where}: bound of 'within' must be [lo, hi] with lo <= hi, got {entry['bound']!r}")
    return Criterion(op, (lo, hi))


def _claim(path: Path, index: int, entry) -> Claim:
    where = f"{path.name}: claim {entry.get('id', index) if isinstance(entry, dict) else index}"
    entry = mapping(where, entry, REQUIRED, OPTIONAL)
    for key in (key for key in (*REQUIRED, *OPTIONAL) if key in entry and key not in ("criterion", "says")):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise ValueError(f"{where}: {key} must be text, got {entry[key]!r}")
    for key, pattern in (("id", ID), ("notebook", NOTEBOOK)):
        if not pattern.fullmatch(entry[key]):
            raise ValueError(f"{where}: {key} must match {pattern.pattern}, got {entry[key]!r}")
    one_of(f"{where}: basis", entry["basis"], BASES)
    if "unit" in entry:
        one_of(f"{where}: unit", entry["unit"], UNITS)
    given = entry["criterion"]
    parts = {"value": given}
    if isinstance(given, dict) and "parts" in given:
        parts = mapping(f"{where}: criterion", given, ("parts",))["parts"]
        if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts):
            raise ValueError(f"{where}: parts must map part names (text) to criteria, got {parts!r}")
        if wrong := [name for name in parts if set(name) & set("[]{}")]:
            raise ValueError(f"{where}: part names must do without brackets and braces, got {wrong[0]!r}")
    criteria = {
        name: _criterion(where if name == "value" else f"{where}, part {name}", c)
        for name, c in parts.items()
    }
    if "unit" in entry and "reason" not in entry:
        raise ValueError(
            f"{where}: reason is missing; a stochastic claim says why its criterion's numbers matter"
        )
    if "unit" not in entry and any(c.op in EFFECTS for c in criteria.values()):
        raise ValueError(f"{where}: unit is missing; an effect is judged over {', '.join(UNITS)}")
    claim = Claim(
        part=path.parent.name, criteria=criteria, **{k: v for k, v in entry.items() if k != "criterion"}
    )
    _check_words(where, claim)
    return claim


def _check_words(where: str, claim: Claim) -> None:
    """Every sentence of a claim must be for a verdict that there is, and be filled in by a measurement."""
    if not isinstance(claim.says, dict) or not all(isinstance(words, str) for words in claim.says.values()):
        raise ValueError(f"{where}: says must map verdicts to sentences, got {claim.says!r}")
    part = {"value": 1.0, "interval": (0.5, 1.5)}
    for verdict in claim.says:
        one_of(f"{where}: says", verdict, VERDICTS)
        parts = {} if verdict == UNTESTABLE else dict.fromkeys(claim.criteria, part)
        try:
            claim.sentence(verdict, {"parts": parts}, {})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def load(paths: list[Path] | None = None) -> dict[str, Claim]:
    """Return the registry, id -> `Claim`, in the order of parts and files (default: every registry/<part>/*.yml).

    ValueError naming file and claim for unknown keys, a missing criterion, a duplicate id, or a bad value.
    """
    registry: dict[str, Claim] = {}
    found = [path for part in PARTS for path in sorted(REGISTRY.glob(f"{part}/*.yml"))]
    for path in map(Path, found if paths is None else paths):
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER) or []
        if not isinstance(entries, list):
            raise ValueError(f"{path.name}: must hold a list of claims, got {type(entries).__name__}")
        for index, entry in enumerate(entries):
            claim = _claim(path, index, entry)
            if claim.id in registry:
                raise ValueError(
                    f"{path.name}: claim {claim.id}: id is already taken by notebook {registry[claim.id].notebook}"
                )
            registry[claim.id] = claim
    return registry


def _count(where: str, claim: Claim, n) -> dict[str, int] | None:
    """The sample size as {unit: count}; a bare number counts the cases of an exact claim."""
    if n is None and not claim.stochastic:
        return None
    counts = n if isinstance(n, dict) or claim.stochastic else {"cases": n}
    if not isinstance(counts, dict) or not counts or not all(isinstance(name, str) for name in counts):
        raise ValueError(
            f"{where}: n must map units to counts, as {{'{claim.unit or 'cases'}': 5}}; got {n!r}"
        )
    if claim.stochastic and not {claim.unit, "prompts"} & set(counts):  # a part may have no seed, as GD's
        raise ValueError(f"{where}: n must say how many {claim.unit} there are, got {n!r}")
    for name, count in counts.items():
        if not number(f"{where}: n of {name}", count).is_integer() or count < 1:
            raise ValueError(f"{where}: n of {name} must be a whole number of at least 1, got {count!r}")
    return {name: int(count) for name, count in counts.items()}


def check_part(claim: Claim, name: str, value, interval=None, n=None) -> dict:
    """Return one part {"value", "interval", "n"} in JSON types; ValueError if the claim does not allow it."""
    where = f"claim {claim.id}, part {name}"
    value = number(f"{where}: value", value)
    if interval is None and claim.stochastic:
        raise ValueError(f"{where}: interval is required for a stochastic claim, got None")
    if interval is not None:
        if not hasattr(interval, "__len__") or len(interval) != 2:
            raise ValueError(f"{where}: interval must be (lo, hi) or None, got {interval!r}")
        interval = [number(f"{where}: interval", x) for x in interval]
        if interval[0] > interval[1]:
            raise ValueError(f"{where}: interval must have lo <= hi, got {interval}")
    return {"value": value, "interval": interval, "n": _count(where, claim, n)}


def check(claim: Claim, measurement: dict) -> dict:
    """Return the measurement {"id", "parts", "untestable"}, checked; ValueError naming what is wrong."""
    entry = mapping(f"claim {claim.id}: measurement", measurement, ("id", "parts", "untestable"))
    why, parts = entry["untestable"], entry["parts"] or {}
    if why is not None:
        if not isinstance(why, str) or not why.strip() or parts:
            raise ValueError(
                f"claim {claim.id}: untestable must be the reason in words, and then no parts; got {why!r}"
            )
        return {"id": claim.id, "parts": {}, "untestable": why}
    if missing := [name for name in claim.criteria if name not in parts]:
        raise ValueError(f"claim {claim.id}: part {missing[0]} has a criterion but was not measured")
    if unknown := [name for name in parts if name not in claim.criteria]:
        raise ValueError(
            f"claim {claim.id}, part {unknown[0]}: not registered; accepted parts: {', '.join(claim.criteria)}"
        )
    checked = {name: check_part(claim, name, **parts[name]) for name in claim.criteria}
    return {"id": claim.id, "parts": checked, "untestable": None}


def row(claim: Claim, measurement: dict) -> dict:
    """Return one row of `build/claims.json`: the claim, its criteria, the measurement, verdict and sentence."""
    measurement = check(claim, measurement)
    outcomes = {name: claim.outcome(name, part) for name, part in measurement["parts"].items()}
    verdict = combine(list(outcomes.values())) if outcomes else UNTESTABLE
    judged = {k: p for k, p in measurement["parts"].items() if claim.stochastic and outcomes[k] != SINGLE}
    names = [key for key in (*REQUIRED, *OPTIONAL) if key not in ("criterion", "says")]
    return {
        **{name: getattr(claim, name) for name in ("part", *names)},
        "stochastic": claim.stochastic,
        "criteria": {k: {"op": c.op, "text": str(c)} for k, c in claim.criteria.items()},
        "order": list(claim.criteria),  # JSON files sort their keys
        "measurement": measurement,
        "outcomes": outcomes,
        "verdict": verdict,
        "says": claim.sentence(verdict, measurement, outcomes),
        "p": {k: claim.criteria[k].p_value(p["value"], p["interval"]) for k, p in judged.items()},
        "detectable": {
            k: claim.criteria[k].detectable(p["value"], p["interval"])
            for k, p in judged.items()
            if outcomes[k] == OPEN
        },
    }
