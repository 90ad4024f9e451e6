"""Self-check accuracy and its correlation with the gain, over categories; and a model without an effect to test the test."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ica import checks
from ica.llm.analysis import effects
from ica.llm.analysis.correlation import (
    FEWEST,
    Correlation,
    apart_p,
    correlation_over_categories,
    permutation_p,
)
from ica.llm.analysis.metrics import rate
from ica.llm.analysis.statistics import Estimate, score_interval
from ica.llm.bbq.items import CONDITIONS
from ica.llm.protocol.results import Reading

LEAST = 10  # right and wrong answers, or pairs of them, that carry a claim


def balanced(table: pd.DataFrame) -> Estimate:
    r"""Mean of the agreement on right and on wrong answers: 0.5 for a verdict that is the same on all, or comes from a coin.

    It is 0.5 and half the difference in how often right and wrong answers are called right; of that difference of two independent
    shares the interval is Newcombe's hybrid of Wilson's (Statist. Med. 17 (1998), 873-890, method 10), which has some width also where
    all verdicts agree. 0.5 (0 to 1) if all answers are right or all are wrong: then nothing can be told.

    Args:
        table: one row an item with `verdict` and `right` (both true or false), as `effects.firsts` gives.
    """
    verdict, right = (table[name].to_numpy(dtype=bool) for name in ("verdict", "right"))
    if right.all() or not right.any():
        return Estimate(0.5, 0.0, 1.0, len(table))
    one, two = rate(verdict[right]), rate(verdict[~right])
    difference = one.estimate - two.estimate
    down = np.hypot(one.estimate - one.lo, two.hi - two.estimate)
    up = np.hypot(one.hi - one.estimate, two.estimate - two.lo)
    middle, lo, hi = (float(0.5 + value / 2) for value in (difference, difference - down, difference + up))
    return Estimate(middle, lo, hi, len(table))


def too_few(table: pd.DataFrame) -> str:
    """Why verdicts on these answers can carry no claim, with the numbers: fewer than 10 right or wrong ones; "" if they can."""
    right = int(table["right"].sum())
    if min(right, len(table) - right) >= LEAST:
        return ""
    return f"{right} right and {len(table) - right} wrong answers; a claim on telling them apart takes {LEAST} of each."


def ranking(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> Estimate:
    r"""How well the critic's log-odds rank right answers above wrong ones, whatever the threshold at which it says "right".

    Over all pairs of a right and a wrong answer to items of the same category and condition, the share in which the right one has the
    greater log-odds of "right" against "wrong" (equal ones count half): the area under the ROC curve, differences in difficulty
    between categories and kinds of items taken out. 0.5: no better than chance. The interval is a bootstrap over items within
    category and condition, spread by $\sqrt{n / (n - 1)}$ with n the mean number of items in these. Where all pairs agree or tie that
    is a point; then it is Wilson's, of as many items as can stand in disjoint pairs. With fewer than 10 of those everything is NaN,
    and n 0; else n is the number of items in strata that have a pair.

    Args:
        table: one row an item with `odds`, `right`, `category` and `condition`, as `effects.firsts` gives.
    """
    groups = [part for _, part in table.groupby(["category", "condition"]) if part["right"].nunique() == 2]
    apart = sum(min(part["right"].sum(), (~part["right"]).sum()) for part in groups)
    if apart < LEAST:
        return Estimate(np.nan, np.nan, np.nan, 0)
    rng, over, under = np.random.default_rng(seed), np.zeros(draws + 1), np.zeros(draws + 1)
    for part in groups:
        odds, right, n = part["odds"].to_numpy(), part["right"].to_numpy(dtype=bool), len(part)
        pairs = (right[:, None] & ~right[None]).astype(float)
        won = pairs * (0.5 + 0.5 * np.sign(odds[:, None] - odds[None]))
        counts = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), draws)])
        over += ((counts @ won) * counts).sum(1)
        under += ((counts @ pairs) * counts).sum(1)
    items = sum(map(len, groups))
    estimate, size = float(over[0] / under[0]), items / len(groups)
    shares = np.divide(over[1:], under[1:], out=np.full(draws, 0.5), where=under[1:] > 0)
    spread = (shares - estimate) * np.sqrt(size / (size - 1))
    lo, hi = map(float, np.clip(estimate + np.quantile(spread, [0.025, 0.975]), 0, 1))
    return Estimate(estimate, *((lo, hi) if lo < hi else score_interval(estimate, int(apart))), items)


def kinds(reading: Reading) -> dict[str, pd.DataFrame]:
    """First answers by the kind of item, and those to disambiguated items that name a person."""
    table = effects.firsts(reading)
    clear = table[table["condition"] == "disambiguated"]
    return {
        "ambiguous": table[table["condition"] == "ambiguous"],
        "disambiguated": clear,
        "disambiguated, a person named": clear[clear["chosen"] != clear["unknown"]],
    }


def calibrated(reading: Reading) -> pd.DataFrame:
    """Second answers under the own critic with another threshold, as `effects.by_critic` has them, and its `verdict`.

    The critic says "right" where its log-odds on the first answer exceed their median over the items of all other categories: of
    about half of all answers, whatever it is inclined to say. No truth enters. `if_right` and `if_wrong`: the accuracy under either
    verdict.

    Raises:
        ValueError: the items are of one category.
    """
    table = effects.firsts(reading)
    names = table["category"].unique()
    if len(names) < 2:
        raise ValueError(f"a threshold from other categories needs two categories, got {len(names)}")
    medians = {name: table.loc[table["category"] != name, "odds"].median() for name in names}
    verdict = table["odds"] > table["category"].map(medians)
    true, wrong = (
        effects.by_critic(reading, name).set_index("id").loc[table["id"]] for name in ("true", "wrong")
    )
    right = table["right"].to_numpy(dtype=bool)
    agrees = verdict.to_numpy() == right
    rows = [(true if one else wrong).iloc[k] for k, one in enumerate(agrees)]
    found = pd.DataFrame(rows).rename_axis("id").reset_index()
    return found.assign(
        critic="own, calibrated",
        verdict=verdict.to_numpy(),
        if_right=np.where(right, true["accuracy"], wrong["accuracy"]),
        if_wrong=np.where(right, wrong["accuracy"], true["accuracy"]),
    )


CALIBRATED = ("asked again", "own", "calibrated", "coin", "says right")


def calibration(reading: Reading) -> pd.DataFrame:
    """What the calibrated critic is worth, one row for all items, the ambiguous, and the disambiguated ones.

    Columns: kind, items, share of right second answers when asked again, under the own critic, the calibrated one and a coin that says
    "right" as often as it does on items of this kind (expectation), that share, and its answers less those when asked again (`control`)
    and less the coin's (`coin_less`), each with 95 % lo and hi. NaN throughout if all items are of one category, and in differences of which no
    category holds two items.
    """
    asked, own = (effects.by_critic(reading, name) for name in ("none", "own"))
    after = calibrated(reading) if asked["category"].nunique() > 1 else None
    rows = []
    for kind in ("all", *CONDITIONS):
        row = {"kind": kind, "items": 0}
        if after is not None:
            four = [t if kind == "all" else t[t["condition"] == kind] for t in (asked, own, after)]
            often = four[2]["verdict"].mean()
            mixed = often * four[2]["if_right"] + (1 - often) * four[2]["if_wrong"]
            four.append(four[2].assign(accuracy=mixed))
            means = [*(t["accuracy"].mean() for t in four), four[2]["verdict"].mean()]
            row |= {"items": len(four[2])} | dict(zip(CALIBRATED, means, strict=True))
            several = four[2]["category"].value_counts().max() > 1 if len(four[2]) else False
            for name, other in (("control", four[0]), ("coin_less", four[3])) if several else ():
                d = effects.paired(four[2], other, "accuracy")
                row |= {name: d.estimate, f"{name}_lo": d.lo, f"{name}_hi": d.hi, "n": d.n}
        rows.append(row)
    less = [f"{name}{end}" for name in ("control", "coin_less") for end in ("", "_lo", "_hi")]
    return pd.DataFrame(rows, columns=["kind", "items", *CALIBRATED, *less, "n"]).astype(
        dict.fromkeys([*CALIBRATED, *less], float)
    )


def accuracy_table(readings: Sequence[Reading]) -> pd.DataFrame:
    """How well each model judges its first answers, over all items and by kind.

    Columns: model, kind, items, agreement of its verdicts with the truth (Wilson 95 % lo, hi), called wrong (share), balanced
    (`balanced`, with its interval), and relative: agreement of the verdict "no other option is more right".
    """
    rows = []
    for reading in readings:
        whole = effects.firsts(reading)
        for kind in ("all", *CONDITIONS):
            table = whole if kind == "all" else whole[whole["condition"] == kind]
            agrees, even = rate((table["verdict"] == table["right"]).to_numpy()), balanced(table)
            shares = (agrees.estimate, agrees.lo, agrees.hi, (~table["verdict"]).mean())
            relative = (table["relative"] == table["right"]).mean()
            key = (effects.title(reading), kind, len(table))
            rows.append((*key, *shares, even.estimate, even.lo, even.hi, relative))
    columns = ["agreement", "lo", "hi", "called wrong", "balanced", "balanced lo", "balanced hi", "relative"]
    return pd.DataFrame(rows, columns=["model", "kind", "items", *columns])


def better(reading: Reading) -> tuple[dict[str, dict], str]:
    """Balanced self-check accuracy less 0.5 by kind of item, as a claim's parts, and why it can carry none ("" if it can)."""
    table, parts, why = effects.firsts(reading), {}, []
    for kind in CONDITIONS:
        part = table[table["condition"] == kind]
        parts[kind] = effects.part(balanced(part), 0.5)
        why += [f"{kind} items: {text}" for text in [too_few(part)] if text]
    return parts, " ".join(why)


def _items(reading: Reading) -> pd.DataFrame:
    """One row an item: category, whether the self-check agrees with the truth, the gain, and that over being asked again."""
    first, own = effects.firsts(reading), effects.by_critic(reading, "own")
    both = first.merge(own[["id", "accuracy"]], on="id", suffixes=("", "_own"), validate="one_to_one")
    asked = effects.by_critic(reading, "none").set_index("id")["accuracy"]
    return pd.DataFrame(
        {
            "category": both["category"],
            "check": (both["verdict"] == both["right"]).astype(float),
            "gain": both["accuracy_own"] - both["accuracy"],
            "gain_over_control": both["accuracy_own"] - both["id"].map(asked),
        }
    )


def over_categories(reading: Reading) -> pd.DataFrame:
    """Self-check accuracy (Wilson) and gain of each category of two items or more, with their 95 % intervals."""
    rows = []
    for category, part in _items(reading).groupby("category"):
        if len(part) < 2:
            continue
        check, gain = (
            rate(part["check"].to_numpy() > 0.5),
            effects.over_items(part["gain"].to_numpy(), part["category"]),
        )
        rows.append(
            (category, len(part), check.estimate, check.lo, check.hi, gain.estimate, gain.lo, gain.hi)
        )
    return pd.DataFrame(
        rows, columns=["category", "items", "check", "check_lo", "check_hi", "gain", "gain_lo", "gain_hi"]
    )


def correlation(reading: Reading, gain: str = "gain") -> Correlation:
    """Correlation over categories with "gain" or "gain_over_control"; categories of fewer than four items are left out."""
    table = _items(reading)
    counts = table["category"].map(table["category"].value_counts())
    some = table[counts >= FEWEST]
    if (several := some["category"].nunique()) < FEWEST:
        why = f"{several} categories of {FEWEST} items or more; a correlation over them takes {FEWEST}."
        return Correlation(several, len(some), why)
    names = ("Self-check accuracy", "The " + gain.replace("_", " "))
    x, y, strata = some["check"].to_numpy(), some[gain].to_numpy(), some["category"].to_numpy(dtype=str)
    return correlation_over_categories(x, y, strata, names=names)


def without_effect(
    runs: int, spread: float, kept: float = 0.0, items: int = 8, categories: int = 11, seed: int = 0
) -> pd.DataFrame:
    """p values of a model that calls every answer wrong and answers again at random, over simulated runs.

    First answers are right with a probability of 1/2, in categories of unequal difficulty with one drawn uniformly within
    `spread` of it; a second answer is right in a third of the cases, whatever came before, and so is the control's, but for a
    share `kept` of items in which the control keeps the first answer.

    Args:
        spread: from 0 (all categories alike) to 0.5.
        kept: from 0 (the control is independent of the first answer) to 1.

    Returns:
        Columns plain (permutation test on the same items), apart (on disjoint halves), controlled (on disjoint halves, the gain
        over being asked again in place of the gain).
    """
    checks.whole("runs", runs, 1)
    if not 0 <= spread <= 0.5:
        raise ValueError(f"spread must lie between 0 and 0.5, got {spread!r}")
    if not 0 <= kept <= 1:
        raise ValueError(f"kept must lie between 0 and 1, got {kept!r}")
    rng, rows, shape = np.random.default_rng(seed), [], (categories, items)
    members = list(np.arange(categories * items).reshape(shape))
    for _ in range(runs):
        first = rng.random(shape) < rng.uniform(0.5 - spread, 0.5 + spread, (categories, 1))
        second, control = (rng.random(shape) < 1 / 3 for _ in range(2))
        control = np.where(rng.random(shape) < kept, first, control)
        check, gain, beyond = 1.0 - first, second - 1.0 * first, second - 1.0 * control
        plain = float(permutation_p(check.mean(1), gain.mean(1), 999, rng))
        apart = (apart_p(check.ravel(), y.ravel(), members, 11, 400, rng) for y in (gain, beyond))
        rows.append((plain, *apart))
    return pd.DataFrame(rows, columns=["plain", "apart", "controlled"])
