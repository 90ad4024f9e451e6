r"""Paired effects on the same items, for the pages on language models: differences with intervals, per model and condition.

Everything is a mean over items of a difference within the item, with a bootstrap over items within category
(`statistics.bootstrap_difference`). Categories of one item are left out, and counted.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ica.llm import conditions
from ica.llm.metrics import bias_score, signed_interval
from ica.llm.results import Reading
from ica.llm.statistics import Difference, bootstrap_difference

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


def over_items(values: Float[np.ndarray, " items"], categories: pd.Series) -> Difference:
    """Mean over items with its interval; ValueError if no category has two items.

    Where every item has the same -1, 0 or 1, a resample would too and the bootstrap would claim certainty; the interval is then
    that of Agresti and Min (`metrics.signed_interval`).
    """
    names = np.asarray(categories, dtype=str)
    counted = pd.Series(names).map(pd.Series(names).value_counts()).to_numpy() > 1
    some = np.asarray(values, dtype=float)[counted]
    found = bootstrap_difference(some, names[counted])
    if len(some) and np.ptp(some) == 0 and some[0] in (-1, 0, 1):
        lo, hi = signed_interval(int((some > 0).sum()), int((some < 0).sum()), len(some), 0.95)
        return Difference(found.estimate, min(lo, found.estimate), max(hi, found.estimate), found.n)
    return found


def paired(after: pd.DataFrame, before: pd.DataFrame, column: str) -> Difference:
    """Mean of `column` after less before, on the items that both tables hold (each once)."""
    both = after.merge(before, on=["id", "category"], suffixes=("_after", "_before"), validate="one_to_one")
    return over_items((both[f"{column}_after"] - both[f"{column}_before"]).to_numpy(), both["category"])


def part(found: Difference) -> dict:
    """As the parts of a claim are given."""
    return {"value": found.estimate, "interval": (found.lo, found.hi), "n": found.n}


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
            accuracy = over_items(table["accuracy"].to_numpy(), table["category"])
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
