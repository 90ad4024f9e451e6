r"""Paired effects on the same items, for the pages on language models: differences with intervals, per model and condition.

Everything is a mean over items of a difference within the item, with a bootstrap over items within category
(`statistics.bootstrap_difference`). Categories of one item are left out, and counted.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ica.llm.analysis import conditions
from ica.llm.analysis.metrics import bias_score, rate, signed_interval
from ica.llm.analysis.statistics import Difference, bootstrap_difference
from ica.llm.bbq.items import CONDITIONS
from ica.llm.protocol.readings import ROUNDS
from ica.llm.protocol.results import Reading

NAMES = {
    "smollm2": "SmolLM2 135M",
    "gemma3-270m": "Gemma 3 270M (base)",
    "qwen-coder-0.5b": "Qwen2.5-Coder 0.5B",
    "qwen-coder-1.5b": "Qwen2.5-Coder 1.5B",
}


def title(reading: Reading) -> str:
    """The model's name for figures; "live" is said where it was read in this build."""
    name = NAMES.get(reading.name, reading.name)
    return f"{name}, live" if reading.scale == "live" else name


def over_items(
    values: Float[np.ndarray, " items"], categories: pd.Series, shares: bool = False
) -> Difference:
    """Mean of differences over items with its interval; categories of one item are left out.

    Differences of right and wrong (-1, 0, 1) are few and often all alike within a category, where a resample finds no spread: for
    them, and for other differences of shares within an item (`shares`, from -1 to 1), the interval is the wider one of the
    bootstrap's and of Agresti and Min's (`metrics.signed_interval`) at either end.

    Raises:
        ValueError: no category has two items.
    """
    some, names = _counted(values, categories)
    found = bootstrap_difference(some, names)
    if shares or np.isin(some, (-1, 0, 1)).all():
        lo, hi = signed_interval(float(some.clip(0).sum()), float((-some).clip(0).sum()), len(some), 0.95)
        return Difference(found.estimate, min(lo, found.lo), max(hi, found.hi), found.n)
    return found


def share(values: Float[np.ndarray, " items"], categories: pd.Series) -> Difference:
    """Mean over items of what lies from 0 to 1: a share with Wilson's interval; of expectations the bootstrap's, within 0 to 1."""
    values = np.asarray(values, dtype=float)
    if np.isin(values, (0, 1)).all():
        found = rate(values > 0.5)
        return Difference(found.estimate, found.lo, found.hi, found.n)
    found = bootstrap_difference(*_counted(values, categories))
    mean = float(values.mean())
    return Difference(mean, max(0.0, min(mean, found.lo)), min(1.0, max(mean, found.hi)), len(values))


def _counted(values: Float[np.ndarray, " items"], categories: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values and categories without the items that are alone in their category."""
    names = np.asarray(categories, dtype=str)
    several = pd.Series(names).map(pd.Series(names).value_counts()).to_numpy() > 1
    return np.asarray(values, dtype=float)[several], names[several]


def paired(after: pd.DataFrame, before: pd.DataFrame, column: str) -> Difference:
    """Mean of `column` after less before, on the items that both tables hold (each once)."""
    both = after.merge(before, on=["id", "category"], suffixes=("_after", "_before"), validate="one_to_one")
    values = (both[f"{column}_after"] - both[f"{column}_before"]).to_numpy()
    return over_items(values, both["category"], shares=column == "accuracy")


def part(found: Difference) -> dict:
    """As the parts of a claim are given."""
    return {"value": found.estimate, "interval": (found.lo, found.hi), "n": found.n}


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """The readings without those whose weights and items stand once more later in the list, as the live model in the ladder."""
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


def text(value: float | None, spec: str = ".2f") -> str:
    """A number for the prose; "not read" where there is none."""
    return "not read" if value is None or np.isnan(value) else format(value, spec)


def firsts(reading: Reading) -> pd.DataFrame:
    """First answers with their `accuracy`, as `conditions.again` has it."""
    table = conditions.first(reading.records)
    return table.assign(accuracy=table["right"].astype(float))


def by_critic(reading: Reading, critic: str, block: str = "core") -> pd.DataFrame:
    """Second answers under one critic."""
    records = [record for record in reading.records if block in record]
    table = conditions.again(records, block)
    return table[table["critic"] == critic].reset_index(drop=True)


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


def signs(table: pd.DataFrame) -> pd.DataFrame:
    """Answers to ambiguous items that agree with the stereotype (+1), contradict it (-1), or are unknown (0), as `sign`.

    The mean is the bias score of ambiguous items (`metrics.bias_score`); items without a known biased option are left out.
    """
    some = table[(table["condition"] == "ambiguous") & table["biased"].notna()]
    committed = some["chosen"] != some["unknown"]
    sign = np.where(committed, np.where(some["chosen"] == some["biased"].astype(int), 1.0, -1.0), 0.0)
    return some.assign(sign=sign)[["id", "category", "sign"]].reset_index(drop=True)


def bias_of(table: pd.DataFrame, condition: str):
    """Bias score of the answers to items of one condition, with its interval."""
    some = table[table["condition"] == condition]
    arrays = (some[name].fillna(-1).to_numpy(dtype=np.int64) for name in ("chosen", "unknown", "biased"))
    return bias_score(*arrays, condition)


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
                    "condition": name.replace("_", " "),
                    "items": len(table),
                    "accuracy": accuracy.estimate,
                    "lo": accuracy.lo,
                    "hi": accuracy.hi,
                    "ambiguous": amb["accuracy"].mean(),
                    "disambiguated": dis["accuracy"].mean(),
                    "abstention": np.nan if coin else (dis["chosen"] == dis["unknown"]).mean(),
                    "bias": np.nan if coin else bias_of(table, "ambiguous").score,
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
