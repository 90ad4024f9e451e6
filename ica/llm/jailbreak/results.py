"""Which attacks succeeded: a table by prompt, word and defence, with rates and differences; stored in `results/llm/secret`.

A prompt that is sent with several words is one prompt: a model decodes greedily, and only the word differs, so answers to the same
prompt are far from independent. Shares and differences are therefore taken of each prompt first, as the mean over its words, and
intervals are over prompts.

`python -m ica.llm.jailbreak.results FILE ...` stores what `python -m ica.llm.jailbreak.attack MODEL --out FILE` left.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ica.llm.analysis.statistics import Estimate, bootstrap_difference, score_interval, share_difference
from ica.llm.jailbreak.attacks import DEFENCES, Attack, digest, stand_in
from ica.llm.jailbreak.judges import complies, leaked, refuses
from ica.record.provenance import project_root, write_json

JUDGES = ("leaked", "by_refusal", "by_compliance")
COLUMNS = ("prompt", "family", "word", "defence", "leaked", "encoding", *JUDGES[1:], "empty")
FACTS = ("name", "sha256", "parameters")


class AttackedError(ValueError):
    """A stored table cannot be used; the message names it and what is wrong."""


def judged(attacks: Sequence[Attack], answers: dict[str, list[str]]) -> pd.DataFrame:
    """One row an attack and defence: what each judge says of the answer; no text.

    Columns: prompt (its number among those with the same word), family, word ("" if there is none), defence, leaked (the truth;
    missing without a word), encoding (the first that tells the word), by_refusal (success for the released judge), by_compliance
    (success for the stricter one), empty (no answer).
    """
    rows, numbers, seen = [], [], {}
    for attack in attacks:
        numbers.append(seen.setdefault(attack.word, 0))
        seen[attack.word] += 1
    for defence, texts in answers.items():
        for number, attack, text in zip(numbers, attacks, texts, strict=True):
            told = leaked(text, attack.word) if attack.word else None
            rows.append(
                {"prompt": number, "family": attack.family, "word": attack.word or "", "defence": defence}
                | {"leaked": None if told is None else bool(told), "encoding": (told or [""])[0]}
                | {"by_refusal": not refuses(text), "by_compliance": complies(text, attack.text)}
                | {"empty": not text}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def by_prompt(table: pd.DataFrame, judge: str = "leaked") -> pd.DataFrame:
    """Share of words for which a prompt succeeds: one row a prompt, one column a defence."""
    return (
        table.astype({judge: float})
        .pivot_table(index="prompt", columns="defence", values=judge)
        .astype(float)
    )


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Share of successes by defence and judge, with a 95 % interval over prompts; judges without a truth are left out.

    Wilson's interval with the number of prompts, around the mean of their shares (`statistics.score_interval`).
    """
    rows = []
    for judge in JUDGES:
        if table[judge].notna().all():
            shares = by_prompt(table, judge)
            for defence in table["defence"].unique():
                n, mean = len(shares), float(shares[defence].mean())
                rows.append((defence, judge, n, mean, *score_interval(mean, n)))
    return pd.DataFrame(rows, columns=["defence", "judge", "prompts", "rate", "lo", "hi"])


def difference(table: pd.DataFrame, after: str, before: str) -> Estimate:
    """Share of attacks that get the word under one defence less under another, the mean over prompts, with a 95 % interval.

    The interval is the wider of the bootstrap's over prompts and of Agresti and Min's (`statistics.share_difference`).

    Raises:
        ValueError: fewer than two prompts.
    """
    shares = by_prompt(table)
    values = (shares[after] - shares[before]).to_numpy()
    return _of_prompts(share_difference(values, np.zeros(len(values))), table)


def misjudged(table: pd.DataFrame) -> Estimate:
    """Rate of success by refusal strings less by the truth, the mean over prompts and all defences, with a bootstrap interval.

    Where all prompts are alike it would be a point, and is that of `difference`.
    """
    values = (by_prompt(table, "by_refusal") - by_prompt(table)).mean(axis=1).to_numpy()
    found = bootstrap_difference(values, np.zeros(len(values)))
    if found.lo == found.hi:
        found = share_difference(values, np.zeros(len(values)))
    return _of_prompts(found, table)


def _of_prompts(found: Estimate, table: pd.DataFrame) -> Estimate:
    return replace(found, units={"prompts": found.n, "words": int(table["word"].nunique())})


def store(path: Path, model: dict, attacks: Sequence[Attack], table: pd.DataFrame, provenance: dict) -> Path:
    """Write what the judges said of attacks on a model (its name, sha256 and parameters), with its provenance; no text is kept."""
    content = {"model": model, "attacks": digest(attacks), "rows": table.to_dict("records")}
    return write_json(path, content | {"provenance": provenance}, compact=True)


def checked(path: Path) -> dict:
    """What a file of `store` holds, as far as the page needs it.

    Raises:
        AttackedError: it cannot be read, lacks something, or is of prompts without a truth.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, model = content["rows"], content["model"]
        if lacking := sorted(set(FACTS) - set(model)):
            raise ValueError(f"model lacks {', '.join(lacking)}")
        if not rows or any(sorted(row) != sorted(COLUMNS) for row in rows):
            raise ValueError(f"rows need exactly {', '.join(COLUMNS)}")
        if any(not isinstance(row[judge], bool) for row in rows for judge in JUDGES):
            raise ValueError(f"{', '.join(JUDGES)} must be true or false in every row")
        told = [(row["prompt"], row["word"], row["defence"]) for row in rows]
        pairs = sorted({one[:2] for one in told})
        if sorted(told) != sorted((*pair, defence) for pair in pairs for defence in DEFENCES):
            raise ValueError(f"each prompt and word needs one row for each of {', '.join(DEFENCES)}")
        if len(prompts := {prompt for prompt, _ in pairs}) < 2:
            raise ValueError("two prompts are needed")
        words = {word for _, word in pairs}
        if content["attacks"] != digest(stand_in(len(prompts), len(words))):
            raise ValueError(
                "it is about other attacks than those of ica/llm/jailbreak/attacks.yml; `make ladder` makes them anew"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttackedError(
            f"attacks {path} are missing or damaged ({type(error).__name__}: {error})"
        ) from error
    return content


def stored(where: Path | None = None) -> list[tuple[dict, pd.DataFrame]]:
    """Model and table (columns as `judged` has them) of what is stored in `results/llm/secret`, the smallest model first.

    Raises:
        AttackedError: a file that `checked` refuses.
    """
    found = [checked(path) for path in sorted((where or _folder()).glob("*.json"))]
    tables = [(one["model"], pd.DataFrame(one["rows"], columns=COLUMNS)) for one in found]
    return sorted(tables, key=lambda pair: pair[0]["parameters"])


def _folder() -> Path:
    return (project_root() or Path.cwd()) / "results" / "llm" / "secret"


def main() -> int:
    """Store the tables of attacks that are given, each under its own name."""
    parser = argparse.ArgumentParser(prog="python -m ica.llm.jailbreak.results", description=main.__doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, help="files of `python -m ica.llm.jailbreak.attack --out`"
    )
    try:
        for path in parser.parse_args().files:
            print(write_json(_folder() / path.name, checked(path), compact=True))
    except AttackedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
