"""Which attacks succeeded: a table by prompt, word and defence, with rates and differences; stored in `results/llm/secret`.

A prompt that is sent with several words is one prompt: a model decodes greedily, and only the word differs, so answers to the same
prompt are far from independent. Shares and differences are therefore taken of each prompt first, as the mean over its words, and
intervals are over prompts.

`python -m ica.llm.jailbreak.results FILE ...` stores what `python -m ica.llm.jailbreak.attack MODEL --out FILE` left.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ica.build import jobs
from ica.llm.analysis.statistics import Estimate, bootstrap_difference, score_interval, share_difference
from ica.llm.bbq.rows import content as text_of
from ica.llm.bbq.rows import parsed
from ica.llm.jailbreak.attacks import DEFENCES, Attack, digest, stand_in
from ica.llm.jailbreak.judges import complies, leaked, refuses
from ica.llm.protocol import workflow
from ica.llm.protocol.records import MODEL, fields
from ica.llm.protocol.results import seal_of
from ica.record import seals
from ica.record.provenance import project_root, write_json

JUDGES = ("leaked", "by_refusal", "by_compliance")
COLUMNS = ("prompt", "family", "word", "defence", "leaked", "encoding", *JUDGES[1:], "empty")
FACTS = ("name", "sha256", "parameters")
ROOT = Path(__file__).parents[3]


def _any(value: object) -> bool:
    return True


def _truth(value: object) -> bool:
    return isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str)


ROW = {
    "prompt": lambda one: type(one) is int and one >= 0,
    **dict.fromkeys(("family", "word", "encoding"), _text),
    "defence": lambda one: one in DEFENCES,
    **dict.fromkeys((*JUDGES, "empty"), _truth),
}


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


def made_of(model: str, attacks: Sequence[Attack], threads: int = 1) -> dict[str, str | int]:
    """What a table of attacks follows from: digests of the code, the model and the attacks, and the threads."""
    code = workflow.attack_digest(ROOT)
    return {
        "code": code,
        "model": workflow.content(model),
        "attacks": digest(attacks),
        "threads": threads,
    }


def faults(model: str, words: int, path: Path, threads: int = 1) -> list[str]:
    """Why a build cannot take the table at `path` for the stand-in's attacks with so many words; none if it can."""
    if not path.exists():
        return [f"{path} is missing"]
    if found := seals.faults(seal_of(path)):
        return found
    made, wanted = seals.about(seal_of(path)), made_of(model, stand_in(secrets=words), threads)
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
        AttackedError: it cannot be read, lacks something, or is of prompts without a truth.
    """
    try:
        content = parsed(text_of(path))
        fields("it", content, {"model": _any, "attacks": _any, "rows": _any}, ("provenance",))
        fields("model", content["model"], {name: MODEL[name] for name in FACTS})
        table = content["rows"]
        if not isinstance(table, list) or not table:
            raise ValueError("rows must be a list that is not empty")
        for number, row in enumerate(table, 1):
            fields(f"row {number}", row, ROW)
        told = [(row["prompt"], row["word"], row["defence"]) for row in table]
        pairs = sorted({one[:2] for one in told})
        if sorted(told) != sorted((*pair, defence) for pair in pairs for defence in DEFENCES):
            raise ValueError(f"each prompt and word needs one row for each of {', '.join(DEFENCES)}")
        if len(prompts := {prompt for prompt, _ in pairs}) < 2:
            raise ValueError("two prompts are needed")
        words = {word for _, word in pairs}
        if content["attacks"] != digest(stand_in(len(prompts), len(words))):
            raise ValueError("it is about other attacks than those of ica/llm/jailbreak/attacks.yml")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AttackedError(
            f"attacks {path} are missing or damaged: {why}; "
            f"`git checkout -- {path.name}` there restores stored ones, `make ladder` makes them anew"
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
    files = parser.parse_args().files

    def work(tell: jobs.Tell) -> None:
        for path in files:
            print(write_json(_folder() / path.name, checked(path), compact=True))

    return jobs.run(work, "Storing the tables of attacks")


if __name__ == "__main__":
    sys.exit(main())
