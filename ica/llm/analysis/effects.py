r"""Paired effects on the same items, for the pages on language models: differences with intervals, per model and condition.

Everything is a mean over items of a difference within the item, with a bootstrap over items within category
(`statistics.bootstrap_difference`). Categories of one item are left out, and counted.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ica.llm.analysis import conditions
from ica.llm.analysis.metrics import rate, signs
from ica.llm.analysis.statistics import Estimate, bootstrap_difference, score_interval, share_difference
from ica.llm.bbq.items import CONDITIONS
from ica.llm.protocol.readings import ROUNDS
from ica.llm.protocol.results import Reading

NAMES = {
    "smollm2": "SmolLM2 135M",
    "gemma3-270m": "Gemma 3 270M (base)",
    "qwen-coder-0.5b": "Qwen2.5-Coder 0.5B",
    "qwen-coder-1.5b": "Qwen2.5-Coder 1.5B",
}
LONGEST = 22  # characters of a model's name in figures and tables

CRITICS = {
    "first answer": "first answer",
    "none": "re-answer control",
    "own": "self-critique",
    "own_relative": "relative self-critique",
    "true": "oracle critic",
    "wrong": "inverted critic",
    "random-0.5": "random critic, p = 0.5",
    "random-1": "random critic, p = 1",
}


def model_title(name: str, live: bool) -> str:
    """A model's name for figures, cut to `LONGEST`; "this build" is said where it was evaluated there."""
    name = NAMES.get(name, Path(name).name)
    name = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    return f"{name}, this build" if live else name


def title(reading: Reading) -> str:
    """The title of the model of an evaluation."""
    return model_title(reading.name, reading.scale == "live")


def named(readings: Sequence[Reading], name: str) -> Reading:
    """The evaluation of the model of this name; ValueError if there is none."""
    for reading in readings:
        if reading.name == name:
            return reading
    raise ValueError(f"results/llm holds no {name}; `make ladder MODELS={name}` evaluates it")


def p_text(p: float) -> str:
    """A p value as tables show it."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def over_items(values: Float[np.ndarray, " items"], categories: pd.Series, shares: bool = False) -> Estimate:
    """Mean of differences over items with its interval; categories of one item are left out.

    Differences of right and wrong (-1, 0, 1) are few and often all alike within a category, where a resample finds no spread: for
    them, and for other differences of shares within an item (`shares`, from -1 to 1), it is `statistics.share_difference`.

    Raises:
        ValueError: no category has two items.
    """
    some, names = _counted(values, categories)
    if shares or np.isin(some, (-1, 0, 1)).all():
        return share_difference(some, names)
    return bootstrap_difference(some, names)


def share(values: Float[np.ndarray, " items"], categories: pd.Series) -> Estimate:
    """Mean over items of what lies from 0 to 1, with Wilson's interval; of expectations that are not all alike with the bootstrap's."""
    values = np.asarray(values, dtype=float)
    if np.isin(values, (0, 1)).all():
        return rate(values > 0.5)
    found, mean = bootstrap_difference(*_counted(values, categories)), float(values.mean())
    if found.lo == found.hi:
        return Estimate(mean, *score_interval(mean, len(values)), len(values))
    return Estimate(mean, max(0.0, min(mean, found.lo)), min(1.0, max(mean, found.hi)), len(values))


def _counted(values: Float[np.ndarray, " items"], categories: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values and categories without the items that are alone in their category."""
    names = np.asarray(categories, dtype=str)
    several = pd.Series(names).map(pd.Series(names).value_counts()).to_numpy() > 1
    return np.asarray(values, dtype=float)[several], names[several]


def paired(after: pd.DataFrame, before: pd.DataFrame, column: str) -> Estimate:
    """Mean of `column` after less before, on the items that both tables hold (each once)."""
    both = after.merge(before, on=["id", "category"], suffixes=("_after", "_before"), validate="one_to_one")
    values = (both[f"{column}_after"] - both[f"{column}_before"]).to_numpy()
    return over_items(values, both["category"], shares=column == "accuracy")


def part(found: Estimate, less: float = 0.0) -> dict:
    """As the parts of a claim are given, `less` taken off; n by unit, items if the estimate names no other.

    Raises:
        ValueError: the interval has no width: nothing is known of the spread, so no claim can rest on it.
    """
    if not found.lo < found.hi:
        raise ValueError(
            f"an estimate must have an interval of some width to carry a claim, got {found}; record it as untestable"
        )
    interval = (found.lo - less, found.hi - less)
    return {"value": found.estimate - less, "interval": interval, "n": found.units or {"items": found.n}}


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """The readings without those whose weights and items stand once more later in the list, as this build's model in the suite."""
    keys = [(one.model["sha256"], one.items["sha256"]) for one in readings]
    return [one for k, one in enumerate(readings) if keys[k] not in keys[k + 1 :]]


def averaged(tables: Sequence[pd.DataFrame], column: str) -> pd.DataFrame:
    """Mean of `column` over models for each item: models read the same items, so an item counts once."""
    if not tables:
        return pd.DataFrame({"id": [], "category": [], column: []})
    return pd.concat(tables).groupby(["id", "category"], as_index=False)[column].mean()


def pooled(after: Sequence[pd.DataFrame], before: Sequence[pd.DataFrame], column: str) -> dict | None:
    """Mean over models of the paired differences, each item once, as a claim takes it; None where nothing was read."""
    if not after or averaged(after, column).empty:
        return None
    return part(paired(averaged(after, column), averaged(before, column), column))


def by_kind(after: Sequence[pd.DataFrame], before: Sequence[pd.DataFrame]) -> dict[str, dict]:
    """Paired differences of accuracy on ambiguous and on disambiguated items, each item once as its mean over models, as a claim's parts."""
    found = {}
    for kind in CONDITIONS:
        one, two = ([t[t["condition"] == kind] for t in tables] for tables in (after, before))
        found[kind] = part(paired(averaged(one, "accuracy"), averaged(two, "accuracy"), "accuracy"))
    return found


def _numbers(block: object) -> list[float | int]:
    """All numbers in a block of a record, in order of its keys."""
    if isinstance(block, dict):
        return [x for key in sorted(block) for x in _numbers(block[key])]
    if isinstance(block, list):
        return [x for one in block for x in _numbers(one)]
    return [block] if isinstance(block, (float, int)) and not isinstance(block, bool) else []


def agreement(here: Reading, readings: Sequence[Reading]) -> dict[str, dict] | str:
    """How far this build's evaluation agrees with the precomputed one of the same model and items, as parts of a claim, or why not.

    On the items and blocks that both hold: the largest absolute difference of a log-probability (nats), and the number of items of
    which a chosen option differs (first answers, answers of rounds, options named in dialogues).
    """
    keys = [(one.model["sha256"], one.items["sha256"]) for one in readings]
    if (own := (here.model["sha256"], here.items["sha256"])) not in keys:
        return f"{title(here)} is none of the precomputed models, or its items are others."
    twin = {record["id"]: record for record in readings[keys.index(own)].records}
    worst, other, items, compared = 0.0, 0, 0, 0
    for record in (one for one in here.records if one["id"] in twin):
        blocks = [k for k, v in record.items() if isinstance(v, dict) and k in twin[record["id"]]]
        one, two = (_numbers({k: r[k] for k in blocks}) for r in (record, twin[record["id"]]))
        items, differs = items + 1, len(one) != len(two)
        for a, b in zip(one, two, strict=False):
            if isinstance(a, float) and isinstance(b, float):
                worst, compared = max(worst, abs(a - b)), compared + 1
            else:
                differs |= a != b
        other += differs
    if not items:
        return f"No item of {title(here)} is among the precomputed ones."
    return {
        "log-probabilities": {"value": worst, "n": {"log-probabilities": compared, "items": items}},
        "chosen options": {"value": other, "n": {"items": items}},
    }


def text(value: float | None, spec: str = ".2f") -> str:
    """A number for the prose; "not read" where there is none."""
    return "not read" if value is None or np.isnan(value) else format(value, spec)


def firsts(reading: Reading) -> pd.DataFrame:
    """First answers with their `accuracy`, as `conditions.again` has it."""
    table = conditions.first(reading.records)
    return table.assign(accuracy=table["right"].astype(float))


def by_critic(reading: Reading, critic: str) -> pd.DataFrame:
    """Second answers under one critic."""
    table = conditions.again(reading.records)
    return table[table["critic"] == critic].reset_index(drop=True)


def answers(reading: Reading, name: str) -> pd.DataFrame:
    """First or second answers under the critic of this name in `CRITICS`, as tables show it."""
    keys = {shown: key for key, shown in CRITICS.items()}
    return firsts(reading) if keys[name] == "first answer" else by_critic(reading, keys[name])


def contrast(reading: Reading, block: str = "core") -> pd.DataFrame:
    """The primary outcome per item, `contrast`: log-probability of the first answer after right less after wrong (nats)."""
    table = conditions.shifts([record for record in reading.records if block in record], block)
    return table.assign(
        contrast=table["right"] - table["wrong"],
        praise=table["right"] - table["unchecked"],
        blame=table["wrong"] - table["unchecked"],
    )


def own_rounds(reading: Reading) -> pd.DataFrame:
    """After as many own reviews less after being asked again as often, on the same items, by round and kind of item.

    Columns: model, round, kind (all, or a condition), items, difference (of right answers, with 95 % lo and hi), and unknown: the
    difference in the share of answers that are the unknown option. Kinds of which no category holds two items are left out.
    """
    table, rows = conditions.rounds(reading.records), []
    for number in range(1, ROUNDS + 1) if len(table) else ():
        this = table[table["round"] == number]
        for kind in ("all", *CONDITIONS):
            some = this if kind == "all" else this[this["condition"] == kind]
            own, none = (some[some["critic"] == critic] for critic in ("own", "none"))
            if own["category"].value_counts().max() > 1:
                d, unknown = (paired(own, none, name) for name in ("accuracy", "unknown"))
                rows.append((title(reading), number, kind, d.n, d.estimate, d.lo, d.hi, unknown.estimate))
    return pd.DataFrame(
        rows, columns=["model", "round", "kind", "items", "difference", "lo", "hi", "unknown"]
    )


def main_table(readings: Sequence[Reading]) -> pd.DataFrame:
    """Model by condition: share of right answers, abstention and bias by kind of item, and the primary outcome.

    Columns: model, condition (first answer, and each critic of it), items, accuracy (lo, hi), ambiguous and disambiguated
    accuracy, abstention on disambiguated items, bias of ambiguous items, and kept: the mean log-probability (nats) of the first answer.
    """
    rows = []
    for reading in readings:
        tables = {"first answer": firsts(reading).assign(kept=np.nan)}
        tables |= {name: by_critic(reading, name) for name in conditions.VERBAL}
        tables |= {name: by_critic(reading, name) for name in ("random-0.5", "random-1")}
        for name, table in tables.items():
            accuracy = share(table["accuracy"].to_numpy(), table["category"])
            dis, amb = (table[table["condition"] == kind] for kind in ("disambiguated", "ambiguous"))
            coin = name.startswith("random")
            rows.append(
                {
                    "model": title(reading),
                    "condition": CRITICS[name],
                    "items": len(table),
                    "accuracy": accuracy.estimate,
                    "lo": accuracy.lo,
                    "hi": accuracy.hi,
                    "ambiguous": amb["accuracy"].mean(),
                    "disambiguated": dis["accuracy"].mean(),
                    "abstention": np.nan if coin else (dis["chosen"] == dis["unknown"]).mean(),
                    "bias": np.nan if coin else signs(table)["sign"].mean(),
                    "kept": table["kept"].mean(),
                }
            )
    return pd.DataFrame(rows)


def sources(readings: Sequence[Reading]) -> pd.DataFrame:
    """Where the records of each model come from."""
    rows = []
    for reading in readings:
        first = reading.provenance[0]
        rows.append(
            {
                "model": title(reading),
                "parameters": reading.model["parameters"],
                "weights (SHA-256)": reading.model["sha256"][:16],
                "items": len(reading.records),
                "items a minute": round(reading.rate, 2) if reading.rate == reading.rate else np.nan,
                "commit": (first["commit"] or "")[:10] + ("+" if first["dirty"] else ""),
                "processor": first["hardware"]["cpu"],
                "peak memory, GiB": max(one["peak_gib"] for one in reading.provenance),
            }
        )
    return pd.DataFrame(rows)
