r"""Placing a BBQ item by the official templates: which template, polarity, condition and person it is made of.

A template is a text with slots (`{{NAME1}}`, `{{WORD1}}`, ...) and the words that may fill them. For each template, condition and
polarity the text (context, question, answer to the negative question, answer to the other one) becomes one regular expression, in
which a slot must hold the same word throughout. An item fits if the expression matches it whole. Articles are
compared without regard to a or an, since the official generator mends them.
"""

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ica.llm.bbq.groups import names_of, plain
from ica.llm.bbq.items import CATEGORIES, CONDITIONS, POLARITIES, Item

MANY = 200
SLOT = re.compile(r"\{\{(\w+)\}\}")
STOP = "\x1f"
GENDERS = {"male": "M", "female": "F"}


@dataclass(frozen=True)
class Placement:
    """Where an item fits; `stereotyped` is an option's position, None if both people or neither belong to the group."""

    category: str
    template: int
    polarity: str
    stereotyped: int | None


def same_article(text: str) -> str:
    """The text with every "an" as "a", and "Latina" as "Latino" where the generator mended it."""
    return re.sub(r"\b([Aa])n(?= )", r"\1", text.strip()).replace("Latina woman", "Latino woman")


def listed(text: str) -> dict[str, list[str]]:
    """Slot -> words of a cell such as "NAME1: [rich, wealthy]; NAME2: [poor]"; braces around the slot may be there."""
    found = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        slot, _, words = part.partition(":")
        found[slot.strip(" {}")] = [w.strip() for w in words.replace("[", "").replace("]", "").split(",")]
    return found


class Vocabulary:
    """The words of the official vocabulary files, and the group of each."""

    def __init__(self, folder: Path):
        words = pd.read_csv(folder / "vocabulary.csv", na_filter=False)
        self.words = words[words.Pilot_include != "No"]
        self.names = pd.read_csv(folder / "vocabulary_proper_names.csv", na_filter=False)

    def of(self, category: str, subcategory: str = "") -> dict[str, str]:
        """Word -> its group (often itself) in one category."""
        rows = self.words[self.words.Category == category]
        if subcategory:
            rows = rows[rows.SubCat == subcategory]
        return {w: info or w for w, info in zip(rows.Name, rows.Info, strict=True)}

    @cached_property
    def full_names(self) -> dict[str, str]:
        """First and last name of one ethnicity -> gender and ethnicity, as in "F-Black"."""
        first = self.names[self.names.First_last == "first"]
        last = self.names[self.names.First_last == "last"]
        return {
            f"{a.Name} {b.Name}": f"{a.gender}-{a.ethnicity}"
            for a in first.itertuples()
            for b in last[last.ethnicity == a.ethnicity].itertuples()
        }

    @cached_property
    def first_names(self) -> dict[str, str]:
        """First name without an ethnicity -> gender."""
        rows = self.names[self.names.First_last == "first_only"]
        return dict(zip(rows.Name, rows.gender, strict=True))


class Template:
    """One row of the official templates of a category.

    Args:
        category: one of `CATEGORIES`.
        row: cell of each column.
        vocabulary: the words for its slots.
    """

    def __init__(self, category: str, row: dict[str, str], vocabulary: Vocabulary):
        self.category, self.row, self.number = category, row, int(row["Q_id"])
        self.crossed = "_x_" in category
        self.groups = {
            plain(g)
            for g in ast.literal_eval(
                row["Known_stereotyped_race" if self.crossed else "Known_stereotyped_groups"]
            )
        }
        self.people = self._people(vocabulary)
        self.second = self._second(vocabulary) if self.crossed else {}
        self.words = (
            listed(row.get("Lexical_diversity", "")) if len(row.get("Lexical_diversity", "")) > 1 else {}
        )

    def _people(self, vocabulary: Vocabulary) -> dict[str, dict[str, str]]:
        """Slot -> word -> group of the two people."""
        row, category = self.row, self.category
        if not self.crossed and len(row.get("Names", "")) > 1:
            return {
                slot: {w: row.get(f"{slot}_info") or GENDERS.get(w, w) for w in words}
                for slot, words in listed(row["Names"]).items()
            }
        if row.get("Proper_nouns_only") == "TRUE":
            by_race = self.crossed or category == "Race_ethnicity"
            words = vocabulary.full_names if by_race else vocabulary.first_names
        else:
            words = vocabulary.of(
                "Race_ethnicity" if self.crossed else category, row.get("Subcategory", "").strip()
            )
        return {
            slot: {w: self._group(slot, info) for w, info in words.items()} for slot in ("NAME1", "NAME2")
        }

    def _group(self, slot: str, group: str) -> str:
        """The group of a word from the vocabulary; a group that the template states for the slot goes first."""
        stated = self.row.get(f"{slot}_info", "")
        return f"{stated}_{group}" if stated else group

    def _second(self, vocabulary: Vocabulary) -> dict[str, str]:
        """Word -> gender or status, of the second variable of a template of two."""
        if len(self.row["Names"]) > 1:
            words = ast.literal_eval(self.row["Names"])
            info = ast.literal_eval(self.row["Var2_info"])
            lists = [[w] if isinstance(w, str) else w for w in words]
            return {w: group for ws, group in zip(lists, info, strict=True) for w in ws}
        return vocabulary.of("SES") if self.category == "Race_x_SES" else {}

    def _choices(self, slot: str) -> list[str]:
        if slot in self.people:
            return list(self.people[slot])
        if slot.startswith(("GEN", "OCC")):
            return list(self.second)
        return self.words.get(slot, [])

    @cached_property
    def patterns(self) -> list[tuple[str, str, re.Pattern]]:
        """Condition, polarity and expression of the four kinds of item."""
        row, found = self.row, []
        contexts = (
            row["Ambiguous_Context"],
            f"{row['Ambiguous_Context'].strip()} {row['Disambiguating_Context']}",
        )
        questions = (row["Question_negative_stereotype"], row["Question_non_negative"])
        for condition, context in zip(CONDITIONS, contexts, strict=True):
            for polarity, question in zip(POLARITIES, questions, strict=True):
                parts = (context, question, row["Answer_negative"], row["Answer_non_negative"])
                found.append((condition, polarity, self._expression(STOP.join(map(same_article, parts)))))
        return found

    def _expression(self, text: str) -> re.Pattern:
        seen, pieces = set(), []
        for k, piece in enumerate(SLOT.split(text)):
            if k % 2 == 0:
                pieces.append(re.escape(piece))
            elif piece in seen:
                pieces.append(f"(?P={piece})")
            else:
                seen.add(piece)
                pieces.append(f"(?P<{piece}>{self._alternatives(piece)})")
        return re.compile("".join(pieces))

    @cached_property
    def spelled(self) -> dict[str, dict[str, str]]:
        """Slot -> word, as `same_article` spells it -> group of the two people."""
        return {
            slot: {same_article(word): group for word, group in words.items()}
            for slot, words in self.people.items()
        }

    def _alternatives(self, slot: str) -> str:
        """Expression for the words of a slot; for the many full names, two words that `place` looks up."""
        words = sorted(map(same_article, self._choices(slot)), key=len, reverse=True)
        if len(words) > MANY:
            return r"\S+ \S+?"
        return "|".join(map(re.escape, words)) or "(?!)"

    def _belongs(self, slot: str, filled: dict[str, str]) -> bool:
        """Whether the person in a slot belongs to the stereotyped group (of race and of gender or status, if crossed)."""
        word = filled[slot]
        group = self.spelled[slot][word]
        names = names_of(word, group)
        if any(name.startswith("trans") for name in names):
            names.add("trans")
        if not self.crossed:
            return bool(names & self.groups)
        number = slot[-1]
        other = next((filled[s] for s in (f"GEN{number}", f"OCC{number}") if s in filled), None)
        second = self.second[other] if other else group.split("-")[0]
        return bool(names & self.groups) and plain(second) == plain(self.row["Known_stereotyped_var2"])

    def place(self, item: Item) -> list[Placement]:
        """All ways in which the item fits this template; its condition and its answer must agree."""
        found = []
        a, b = (k for k in range(3) if k != item.unknown)
        for negative, other in ((a, b), (b, a)):
            texts = (item.context, item.question, item.options[negative], item.options[other])
            text = STOP.join(map(same_article, texts))
            for condition, polarity, pattern in self.patterns:
                if condition != item.condition or not (match := pattern.fullmatch(text)):
                    continue
                if any(match[s] not in self.spelled[s] for s in self.people if s in match.groupdict()):
                    continue
                asked = negative if polarity == "negative" else other
                if condition == "ambiguous" or item.gold == asked:
                    which = self._stereotyped(match, negative, other)
                    found.append(Placement(self.category, self.number, polarity, which))
        return found

    def _stereotyped(self, match: re.Match, negative: int, other: int) -> int | None:
        """Position of the stereotyped person's option: the slot that its template text names."""
        filled = {slot: word for slot, word in match.groupdict().items() if word is not None}
        members = [s for s in ("NAME1", "NAME2") if s in filled and self._belongs(s, filled)]
        if len(members) != 1:
            return None
        number = members[0][-1]
        own = {f"{kind}{number}" for kind in ("NAME", "GEN", "OCC")}
        texts = ((negative, self.row["Answer_negative"]), (other, self.row["Answer_non_negative"]))
        named = [position for position, text in texts if own & set(SLOT.findall(text))]
        return named[0] if len(named) == 1 else None


def load_templates(folder: Path) -> list[Template]:
    """All templates of the folder that holds "new_templates - CATEGORY.csv" and the two vocabulary files.

    Raises:
        ValueError: a file is missing or malformed, named.
    """
    files = {category: folder / f"new_templates - {category}.csv" for category in CATEGORIES}
    wanted = [*files.values(), folder / "vocabulary.csv", folder / "vocabulary_proper_names.csv"]
    if missing := [file.name for file in wanted if not file.is_file()]:
        raise ValueError(
            f"{folder} lacks {missing[0]}; expected the official templates of all {len(files)} categories"
        )
    file = folder
    try:
        vocabulary, found = Vocabulary(folder), []
        for category, file in files.items():
            rows = pd.read_csv(file, na_filter=False, dtype=str).to_dict("records")
            found += [Template(category, row, vocabulary) for row in rows if row["Ambiguous_Context"]]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SyntaxError, RecursionError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{file} is not as the official templates are ({why})") from error
    return found
