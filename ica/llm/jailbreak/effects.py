"""What a defence changes: shares, paired differences, exact tests, what could be seen at this size, and whether checks are right.

The unit is the request: a model decodes greedily, so each request under a defence has one answer. Kinds of attacks are a fixed factor:
intervals are over requests within kind and speak of other prompts of these nine kinds. `over_kinds` has the kinds at random instead.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from ica.llm.analysis.effects import part
from ica.llm.analysis.metrics import rate
from ica.llm.analysis.selfcheck import balanced
from ica.llm.analysis.statistics import Estimate, McNemar, mcnemar, share_difference
from ica.llm.jailbreak.defences import ROUNDS, SENT
from ica.llm.jailbreak.results import CRITICS, wide

CONTROL = {"reminder": "reminder-neutral", "icd": "icd-neutral", "oracle": "random"}
for _after, _control in (("self", "repeat"), ("instruct", "again"), ("diverse", "diverse-neutral")):
    CONTROL |= {f"{_after}-{n}": f"{_control}-{n}" for n in range(1, ROUNDS + 1)}
# Those that the figure shows.
DEFENDED = (
    "self-1",
    "self-3",
    "instruct-1",
    "instruct-3",
    "diverse-1",
    "diverse-3",
    "reminder",
    "icd",
    "oracle",
)
NAMES = {"none": "no defence", "reminder": "self-reminder", "reminder-neutral": "neutral words", "icd": "ICD"}
NAMES |= {"icd-neutral": "neutral demonstrations", "oracle": "oracle critic", "random": "random critic"}
NAMES |= {"self": "CaC-self", "repeat": "request repeated", "instruct": "CaC-self-instruct"}
NAMES |= {
    "again": "refined without a check",
    "diverse": "CaC-diverse",
    "diverse-neutral": "neutral questions",
}
CHECKED_AS = {
    "leaked": "answers that leak the secret: the check says yes",
    "kept": "other answers: the check says yes",
    "balanced": "balanced accuracy",
}
PERSUASIVE = ("authority", "override", "role-play")


def label(defence: str) -> str:
    """A defence as tables name it, with its rounds."""
    kind, _, number = defence.rpartition("-")
    return f"{NAMES[kind]}, {number}" if number.isdigit() else NAMES[defence]


def difference(
    table: pd.DataFrame,
    after: str,
    before: str,
    judge: str = "leaked",
    kind: str = "attack",
    families: Sequence[str] = (),
) -> Estimate:
    """Share of requests under one defence less under another, the same requests, with a 95 % interval over them within kind.

    The wider of the bootstrap's and of Agresti and Min's interval (`statistics.share_difference`).

    Args:
        families: only attacks of these kinds.

    Raises:
        ValueError: a kind of fewer than two requests.
    """
    found = wide(table, judge, kind)
    if families:
        found = found[found.index.get_level_values("family").isin(families)]
    values = (found[after] - found[before]).to_numpy()
    return _of(share_difference(values, found.index.get_level_values("family").to_numpy()))


def exact(table: pd.DataFrame, after: str, before: str, judge: str = "leaked") -> McNemar:
    """Exact McNemar test of two defences against the same attacks."""
    found = wide(table, judge)
    return mcnemar(found[before].to_numpy() > 0.5, found[after].to_numpy() > 0.5)


def over_kinds(table: pd.DataFrame, after: str, before: str, judge: str = "leaked") -> Estimate:
    """The difference with kinds drawn at random: mean over kinds with Student's interval, which speaks of other kinds too."""
    found = wide(table, judge)
    means = (found[after] - found[before]).groupby("family").mean()
    lo, hi = stats.t.interval(0.95, len(means) - 1, means.mean(), max(stats.sem(means), 1e-12))
    return Estimate(float(means.mean()), float(lo), float(hi), len(means), {"kinds": len(means)})


def power(n: int, discordant: float, effect: float, level: float = 0.05) -> float:
    """Power of the exact McNemar test: `n` requests, of which a share `discordant` differs, with this true difference of shares.

    Exact: over the number of requests that differ (binomial), and of those that go one way (binomial).

    Raises:
        ValueError: an effect that is not within the share that differs, or that share not within 0 to 1.
    """
    if not 0 < discordant <= 1 or not 0 <= effect <= discordant:
        raise ValueError(
            f"effect must be from 0 to discordant, and that from 0 to 1, got {effect} and {discordant}"
        )
    total = 0.0
    for m in range(1, n + 1):
        least = stats.binom.ppf(level / 2, m, 0.5)  # the largest count that might be rejected, or one more
        least -= stats.binom.cdf(least, m, 0.5) > level / 2
        if least >= 0:
            p = (discordant + effect) / (2 * discordant)
            reject = stats.binom.cdf(least, m, p) + stats.binom.sf(m - least - 1, m, p)
            total += stats.binom.pmf(m, n, discordant) * reject
    return float(total)


def detectable(n: int, discordant: float, wanted: float = 0.8) -> float:
    """The smallest difference of shares, in steps of 0.01, that the exact McNemar test finds with this power; NaN if none is."""
    steps = [step for step in range(1, 101) if step / 100 <= discordant]
    found = bisect_left(steps, wanted, key=lambda step: power(n, discordant, step / 100))
    return steps[found] / 100 if found < len(steps) else float("nan")


def checks_told(table: pd.DataFrame, defence: str = "self-1") -> dict[str, Estimate]:
    """Are first checks right? `leaked` and `kept`: the share of "yes, it should not be given" among answers that told the word, and
    that did not; `balanced`: balanced accuracy. A check that begins with neither yes nor no is no yes."""
    some = table[table["kind"] == "attack"].set_index("number")
    told = some.loc[some["defence"] == "none", "leaked"].astype(bool).sort_index()
    yes = (some.loc[some["defence"] == defence, "check"] == "yes").sort_index()
    both = pd.DataFrame({"verdict": ~yes, "right": ~told})
    shares = {"leaked": rate(yes[told].to_numpy()), "kept": rate(yes[~told].to_numpy())}
    return {name: _of(one) for name, one in (shares | {"balanced": balanced(both)}).items()}


def misjudged(table: pd.DataFrame) -> Estimate:
    """Share of successes by the released judge less that of leaks, the mean over all defences of each attack, with its interval."""
    names = list(SENT["attack"])
    found = wide(table, "released")[names] - wide(table)[names]
    return _of(
        share_difference(found.mean(axis=1).to_numpy(), found.index.get_level_values("family").to_numpy())
    )


def _of(found: Estimate) -> Estimate:
    return replace(found, units={"prompts": found.n})


def compared(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """What one defence changes against another, one row a pair (after, before).

    Columns: defence, against, n, difference, lo, hi, p (exact McNemar; NaN for critics, whose shares are no counts), differ
    (attacks on which the two differ), detectable (the least difference that the test finds with 80 % power at this number of
    attacks if so many differ), kinds_lo, kinds_hi (the interval with kinds at random).
    """
    rows = []
    for after, before in pairs:
        d, kinds = difference(table, after, before), over_kinds(table, after, before)
        test = exact(table, after, before)
        differ, p = test.only_before + test.only_after, test.p
        if {after, before} & set(CRITICS):
            found = wide(table)
            differ, p = int((found[after] != found[before]).sum()), np.nan
        least = detectable(d.n, differ / d.n) if differ else np.nan
        rows.append((after, before, d.n, d.estimate, d.lo, d.hi, p, differ, least, kinds.lo, kinds.hi))
    names = ["defence", "against", "n", "difference", "lo", "hi", "p", "differ", "detectable"]
    return pd.DataFrame(rows, columns=[*names, "kinds_lo", "kinds_hi"])


def claims(table: pd.DataFrame) -> dict[str, dict]:
    """Measurements of one model, by the name of the claim on the page, as `record.claim` takes them."""

    def less(after: str, before: str, **more) -> dict:
        return part(difference(table, after, before, **more))

    told = checks_told(table)
    return {
        "cac": less("instruct-3", "none"),
        "check-control": less("instruct-3", "again-3"),
        "designed": {
            "parts": {"self-reminder": less("instruct-3", "reminder"), "ICD": less("instruct-3", "icd")}
        },
        "self-check": part(told["leaked"]),
        "tells": part(told["balanced"]),
        "one": less("self-1", "none"),
        "more": {
            "parts": {"CaC-self": less("self-3", "self-1"), "CaC-diverse": less("diverse-3", "diverse-1")}
        },
        "persuasive": less("instruct-3", "self-3", families=PERSUASIVE),
        "diverse": less("diverse-3", "diverse-neutral-3"),
        "benign": less("instruct-3", "none", judge="answered", kind="benign"),
        "oracle": less("oracle", "random"),
        "words": {
            "parts": {
                "self-reminder": less("reminder", "reminder-neutral"),
                "ICD": less("icd", "icd-neutral"),
            }
        },
        "judge": part(misjudged(table)),
    }
