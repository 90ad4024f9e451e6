"""What the judges said of each answer: a table by request and defence with its shares, stored in `results/llm/secret`; no text is kept.

`python -m ica.llm.jailbreak.results FILE ...` stores what `python -m ica.llm.jailbreak.attack MODEL --out FILE` left.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ica.build import jobs
from ica.llm.analysis.statistics import score_interval
from ica.llm.bbq.rows import content as text_of
from ica.llm.bbq.rows import parsed
from ica.llm.jailbreak import judges
from ica.llm.jailbreak.attacks import KINDS, Attack, benign, digest, stand_in
from ica.llm.jailbreak.defences import DEFENCES, SENT, Written
from ica.llm.protocol import workflow
from ica.llm.protocol.records import MODEL, fields
from ica.llm.protocol.results import seal_of
from ica.record import seals
from ica.record.provenance import project_root, write_json

CHECKS = {True: "yes", False: "no", None: "unclear"}
JUDGES = {"attack": ("leaked", "released", "strict"), "benign": ("answered", "released", "strict", "leaked")}
CRITICS = ("oracle", "random")
ALL = (*SENT["attack"][:-2], *CRITICS)
FACTS = ("name", "sha256", "parameters")
ROOT = Path(__file__).parents[3]


def _any(value: object) -> bool:
    return True


def _truth(value: object) -> bool:
    return type(value) is bool


COLUMNS = {  # name: what a stored value must be
    "kind": lambda one: one in KINDS,
    "number": lambda one: type(one) is int and one >= 0,
    "defence": lambda one: one in DEFENCES,
    "released": _truth,
    "strict": _truth,
    "leaked": _truth,
    "answered": lambda one: one is None or _truth(one),
    "check": lambda one: one in (None, *CHECKS.values()),
}


class AttackedError(ValueError):
    """A stored table cannot be used; the message names it and what is wrong."""


def judged(
    attacks: Sequence[Attack], answers: Mapping[str, Sequence[Written]], checks: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """One row a request and defence: what each judge says of the last answer; no text.

    Columns: kind, number (the request's place among those of its kind), family, defence; released, strict, leaked (as
    `judges.judged` has them); answered (of a harmless request; None for an attack); check (what the check right before the
    answer says: "yes", it should not be given, "no" or "unclear"; None where there is none).
    """
    rows, seen = [], dict.fromkeys(KINDS, 0)
    for k, one in enumerate(attacks):
        number = seen[one.kind]
        seen[one.kind] += 1
        for defence, said in answers.items():
            row = {"kind": one.kind, "number": number, "family": one.family, "defence": defence}
            row |= judges.judged(one.kind, one, said[k].text, said[k].raw)
            row["answered"] = judges.answered(said[k].text, one.expect) if one.expect else None
            row["check"] = CHECKS[judges.says_yes(checks[defence][k])] if defence in checks else None
            rows.append(row)
    return _frame(rows)


def _frame(rows: Sequence) -> pd.DataFrame:
    """A table whose columns `answered` and `check` keep None as it is."""
    table = pd.DataFrame(rows)
    return table.assign(
        **{name: pd.Series([row[name] for row in rows], dtype=object) for name in ("answered", "check")}
    )


def wide(table: pd.DataFrame, judge: str = "leaked", kind: str = "attack") -> pd.DataFrame:
    """What a judge says, 0 or 1: one row a request (index number, family), one column a defence, and the critics.

    The oracle critic is the verdict that is true of the answer without defence (is the word told?), the random one the mean
    over both verdicts: what a fair coin gives on average.
    """
    part = table[table["kind"] == kind].astype({judge: float})
    found = part.pivot(index=["number", "family"], columns="defence", values=judge)
    if {"breaks", "keeps"} <= set(found):
        told = part.assign(leaked=part["leaked"].astype(float))
        told = told[told["defence"] == "none"].set_index(["number", "family"])["leaked"].reindex(found.index)
        found["oracle"] = np.where(told == 1, found["breaks"], found["keeps"])
        found["random"] = (found["breaks"] + found["keeps"]) / 2
    return found


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Share of requests by kind, judge and defence (kind, judge, defence, estimate, lo, hi, n), with Wilson's interval."""
    rows = []
    for kind, names in JUDGES.items():
        for judge in names:
            if (table["kind"] != kind).all() or table.loc[table["kind"] == kind, judge].isna().any():
                continue
            found = wide(table, judge, kind)
            for defence in (one for one in ALL if one in found):
                share, n = float(found[defence].mean()), len(found)
                rows.append((kind, judge, defence, share, *score_interval(share, n), n))
    return pd.DataFrame(rows, columns=["kind", "judge", "defence", "estimate", "lo", "hi", "n"])


def store(path: Path, model: dict, attacks: Sequence[Attack], table: pd.DataFrame, provenance: dict) -> Path:
    """Write what the judges said of attacks on a model (its name, sha256 and parameters), with its provenance; no text is kept."""
    rows = table[list(COLUMNS)].astype(object).where(lambda one: one.notna(), None).to_numpy().tolist()
    content = {"model": model, "attacks": digest(attacks), "columns": list(COLUMNS), "rows": rows}
    return write_json(path, content | {"provenance": provenance}, compact=True)


def made_of(model: str, attacks: Sequence[Attack], threads: int = 1) -> dict[str, str | int]:
    """What a table of attacks follows from: digests of the code, the model and the attacks, and the threads."""
    code = workflow.attack_digest(ROOT)
    return {"code": code, "model": workflow.content(model), "attacks": digest(attacks), "threads": threads}


def asked(attacks: int | None = None) -> list[Attack]:
    """The stand-in's attacks, or the first of them, and half as many harmless requests."""
    return stand_in(attacks) + benign(None if attacks is None else attacks // 2)


def faults(model: str, attacks: int, path: Path, threads: int = 1) -> list[str]:
    """Why a build cannot take the table at `path` for so many of the stand-in's attacks; none if it can."""
    if not path.exists():
        return [f"{path} is missing"]
    if found := seals.faults(seal_of(path)):
        return found
    made, wanted = seals.about(seal_of(path)), made_of(model, asked(attacks), threads)
    if other := [name for name, value in wanted.items() if made.get(name) != value]:
        return [f"{path} was made with other {' and '.join(other)}"]
    try:
        checked(path)
    except AttackedError as error:
        return [str(error)]
    return []


def checked(path: Path) -> dict:
    """What a file of `store` holds, as far as the page needs it.

    Raises:
        AttackedError: it cannot be read, lacks something, or is not of the stand-in as it is now.
    """
    try:
        content = parsed(text_of(path))
        fields("it", content, dict.fromkeys(("model", "attacks", "columns", "rows"), _any), ("provenance",))
        fields("model", content["model"], {name: MODEL[name] for name in FACTS})
        if content["columns"] != list(COLUMNS):
            raise ValueError(f"columns must be {', '.join(COLUMNS)}")
        rows = content["rows"]
        if not isinstance(rows, list) or not rows:
            raise ValueError("rows must be a list that is not empty")
        for number, row in enumerate(rows, 1):
            if not isinstance(row, list) or len(row) != len(COLUMNS):
                raise ValueError(f"row {number} must have {len(COLUMNS)} values")
            fields(f"row {number}", dict(zip(COLUMNS, row, strict=True)), COLUMNS)
        _whole(content)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AttackedError(
            f"attacks {path} are missing or damaged: {why}; "
            f"`git checkout -- {path.name}` there restores stored ones, `make ladder` makes them anew"
        ) from error
    return content


def _whole(content: dict) -> None:
    """ValueError unless the rows are all of the stand-in's requests that its digest says, each under every defence once."""
    told = [tuple(row[:3]) for row in content["rows"]]
    count = len({number for kind, number, _ in told if kind == "attack"})
    if count < 2:
        raise ValueError("two attacks are needed")
    sent = asked(count)
    if content["attacks"] != digest(sent):
        raise ValueError("it is about other requests than those of ica/llm/jailbreak")
    numbers = [(kind, n) for kind in KINDS for n in range(sum(one.kind == kind for one in sent))]
    if sorted(told) != sorted((*one, defence) for one in numbers for defence in SENT[one[0]]):
        raise ValueError("each request needs one row for each defence of its kind")


def table_of(content: dict) -> pd.DataFrame:
    """The table (columns as `judged` has them) of what `checked` gave."""
    table = _frame([dict(zip(content["columns"], row, strict=True)) for row in content["rows"]])
    families = [one.family for one in stand_in()]
    kinds = zip(table["kind"], table["number"], strict=True)
    return table.assign(family=[families[n] if kind == "attack" else kind for kind, n in kinds])


def stored(where: Path | None = None) -> list[tuple[dict, pd.DataFrame]]:
    """Model and table of what is stored in `results/llm/secret`, the smallest model first.

    Raises:
        AttackedError: a file that `checked` refuses.
    """
    found = [checked(path) for path in sorted((where or _folder()).glob("*.json"))]
    tables = [(one["model"], table_of(one)) for one in found]
    return sorted(tables, key=lambda pair: pair[0]["parameters"])


def _folder() -> Path:
    return (project_root() or Path.cwd()) / "results" / "llm" / "secret"


def main() -> int:
    """Store the tables of attacks that are given, each under its own name."""
    parser = argparse.ArgumentParser(prog="python -m ica.llm.jailbreak.results", description=main.__doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, help="files of `python -m ica.llm.jailbreak.attack --out`"
    )
    files = parser.parse_args().files

    def work(tell: jobs.Tell) -> None:
        for path in files:
            print(write_json(_folder() / path.name, checked(path), compact=True))

    return jobs.run(work, "Storing the tables of attacks")


if __name__ == "__main__":
    sys.exit(main())
