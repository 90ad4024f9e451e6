"""The sentence that a page's answer begins with: in plain words, and only while the verdicts are those for which it was written."""

import re
from collections.abc import Mapping, Sequence

from ica.record.criteria import VERDICTS

WHEN, SHORT = "when", "short"
STANDING = re.compile(rf"(?:{'|'.join(VERDICTS)})(?: \((?:none|[1-9]\d*) of [1-9]\d* parts\))?")


def of_parts(row: Mapping) -> str:
    """How many parts of a claim hold, where the whole is mixed or open: "2 of 4 parts", "none of 2 parts"; else nothing."""
    outcomes = list(row["outcomes"].values())
    held = outcomes.count("supported")
    if row["verdict"] not in ("mixed", "open") or len(outcomes) == 1:
        return ""
    return f"{held or 'none'} of {len(outcomes)} parts"


def standing(row: Mapping) -> str:
    """Verdict of a claim as its badge words it: "supported", "mixed (2 of 4 parts)"."""
    parts = of_parts(row)
    return f"{row['verdict']} ({parts})" if parts else row["verdict"]


def short(options: Mapping[str, str], rows: Sequence[Mapping]) -> str:
    """The sentence of an answer's options, or nothing where the claims no longer stand as it needs.

    Args:
        options: of the directive `answer`: `short`, the sentence, and `when`, how the first of its claims stand, apart by commas.
        rows: the claims that the answer names, in order.

    Raises:
        ValueError: one option without the other, more in `when` than claims, or something in it that is no verdict.
    """
    if not {WHEN, SHORT} & set(options):
        return ""
    if not all(options.get(name, "").strip() for name in (WHEN, SHORT)):
        raise ValueError(
            "`short` needs the verdicts that it holds for, as `when`, and `when` needs a `short`"
        )
    needed = [one.strip() for one in options[WHEN].split(",")]
    if wrong := [one for one in needed if not STANDING.fullmatch(one)]:
        known = ", ".join(VERDICTS)
        raise ValueError(f"`when` has {wrong[0]!r}; accepted: {known}, some with (2 of 4 parts)")
    if len(needed) > len(rows):
        raise ValueError(f"`when` names {len(needed)} verdicts, the answer only {len(rows)} claims")
    held = all(standing(row) == one for row, one in zip(rows, needed, strict=False))
    return options[SHORT].strip() if held else ""
