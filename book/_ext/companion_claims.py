"""Directives and roles of the claims ledger.

On a page: `question`, `answer` (sentences that the verdicts choose), `verdicts` (the folded table), and the roles `says`,
`verdict` and `measured`. On the first page and in the ledger: `paper-claims`, `all-claims`, `criteria-history`.
"""

from collections import Counter
from pathlib import Path
from typing import ClassVar

from companion_data import (
    Directive,
    Ours,
    Piece,
    folded,
    ours,
    outside,
    parts,
    read,
    records,
    text,
    without_html,
)
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from ica.build.answers import SHORT, WHEN, of_parts, short
from ica.record.claims import Measured
from ica.record.paper import counts

# Sign and words, so that colour is never the only carrier.
VERDICTS = {
    "supported": "✔",
    "contradicted": "✘",
    "negligible": "≈",
    "mixed": "◐",
    "open": "?",
    "single run": "1",
    "not testable here": "–",
    "not tested": "·",
}
SIGNS = (("<=", "≤"), (">=", "≥"))
NBSP = "\u00a0"
RATE = 0.05


def criterion(words: str) -> str:
    """The criterion as readers see it: `<= 1e-12` as `≤ 1e−12`."""
    for ascii_sign, sign in SIGNS:
        words = words.replace(ascii_sign, sign)
    return words.replace("e-", "e−").replace(" -", " −").replace("[-", "[−")


def measured(part: dict, size: bool = True) -> str:
    """Value, interval and sample size of one measured part."""
    words = format(Measured(part["value"], part["interval"]))
    return words + (f" ({counts(part['n'])})" if size and part["n"] else "")


def badge(verdict: str, how: str = "") -> nodes.inline:
    """The verdict in a frame, with what it rests on (2 of 4 parts) behind it."""
    css = verdict.replace(" ", "-")
    words = f"{VERDICTS[verdict]}{NBSP}{verdict}" + (f" ({how})" if how else "")
    return nodes.inline("", words, classes=["verdict", f"verdict-{css}"])


def many(count: int, what: str) -> str:
    """1 test, 2 tests."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def gap(item: dict) -> list[Piece]:
    """How the scale here lies to that of the paper, in sentences."""
    here = ["Here: ", ours(item, "here", "."), " "] if item["here"] else []
    note = [" ", ours(item, "note", ".")] if item["note"] else []
    return [*here, "Paper: ", ours(item, "scale", "."), *note]


def why(row: dict) -> list[nodes.Node]:
    """The reason why a claim is untestable, as plain text: it may hold the words of an error."""
    reason = row["measurement"]["untestable"]
    return [outside(f" Reason: {reason}")] if reason else []


def rows_of(folder: Path) -> dict[str, dict]:
    """The collected claims by id."""
    return {row["id"]: row for row in read(folder / "claims.json")}


class Ledger(Directive):
    """Common to all: the collected claims, and their cells."""

    def claims(self, notebook: str | None = None) -> list[dict]:
        """All collected claims, or those of one notebook."""
        return [row for row in rows_of(self.records).values() if notebook in (None, row["notebook"])]

    def link(self, row: dict, words: str) -> nodes.paragraph:
        """Words that lead to the cell that records the claim, or to its page."""
        targets = read(self.records / row["notebook"] / "page.json")["targets"]
        there = (
            ("ref", f"claim-{row['id']}")
            if row["id"] in targets
            else ("doc", f"/notebooks/{row['notebook']}")
        )
        return self.paragraph(self.reference(*there, words))

    def claim(self, row: dict) -> list[nodes.Node]:
        """The statement, and the id of the claim, linked, with what it is held against."""
        link = self.link(row, row["id"])
        link["classes"].append("claim-id")
        return [self.paragraph(ours(row, "statement")), link, text(row["basis"], "basis")]

    def test(self, row: dict) -> list[nodes.Node]:
        """What is measured, the criterion, and why it is the one that matters."""
        named = {name: criterion(row["criteria"][name]["text"]) for name in row["order"]}
        words = "; ".join(w if name == "value" else f"{name}: {w}" for name, w in named.items())
        if len(named) > 1 and len(set(named.values())) == 1:
            words = f"each {next(iter(named.values()))}"
        found = [self.paragraph(ours(row, "measured")), text(f"Criterion: {words}")]
        return found + ([self.paragraph("Why: ", ours(row, "reason"))] if row["reason"] else [])

    def values(self, row: dict) -> list[nodes.Node]:
        """What was measured, part by part, with what an open part could have shown."""
        if row["measurement"]["untestable"]:
            return [text(row["measurement"]["untestable"])]
        found, several = [], len(row["order"]) > 1
        for name in row["order"]:
            part = row["measurement"]["parts"][name]
            words = measured(part) if name == "value" else f"{name}: {measured(part)}"
            words += f" {VERDICTS[row['outcomes'][name]]}" if several else ""
            if name in row["detectable"]:
                words += f"; detectable with 80{NBSP}% power: {criterion(row['detectable'][name])}"
            found.append(text(words))
        return found

    def adjusted(self, row: dict) -> list[nodes.Node]:
        """Whether the decided parts stand after the adjustment for many tests (Benjamini-Hochberg)."""
        decided = [
            k
            for k, q in row["q"].items()
            if row["outcomes"][k] in ("supported", "contradicted", "negligible")
        ]
        held = sum(row["q"][name] <= RATE for name in decided)
        if not decided:
            return [text("–")]
        some = f"{held} of {len(decided)}" if held else "no"
        return [text("yes" if held == len(decided) else some)]

    def ledger(self, rows: list[dict], css: str) -> nodes.container:
        """The table of claims, in a box of its own."""
        head = ("Claim", "Test", "Measured", "Verdict", "After BH")
        body = [
            [
                self.claim(row),
                self.test(row),
                self.values(row),
                [nodes.paragraph("", "", badge(row["verdict"], of_parts(row)))],
                self.adjusted(row),
            ]
            for row in rows
        ]
        return nodes.container("", self.table(head, body), classes=["ledger", css])


class Question(Directive):
    """`{question} S1 S2`: the question of a page, with the paper's places that it is about."""

    optional_arguments = 40
    has_content = True

    def run(self) -> list[nodes.Node]:
        items = {item["id"]: item for item in read(self.records / "paper.json")}
        if unknown := [id for id in self.arguments if id not in items]:
            raise self.error(
                f"question: {unknown[0]!r} is no claim of the paper; accepted: {', '.join(items)}"
            )
        words = self.paragraph(nodes.strong("", "Question. "), self.written())
        places = "; ".join(f"{items[id]['place']} ({id})" for id in self.arguments)
        where = f"Paper: {places}." if places else "The paper does not ask this."
        return [nodes.container("", words, text(where, "place"), classes=["question"])]


class Answer(Ledger):
    """`{answer} claim-id ...`: what came out, in sentences that the verdicts choose; the body is the caveat.

    `short` is a sentence to begin with, shown while the first claims stand as `when` says (`ica.build.answers`).
    """

    required_arguments = 1
    optional_arguments = 8
    has_content = True
    option_spec: ClassVar = {SHORT: directives.unchanged, WHEN: directives.unchanged}

    def run(self) -> list[nodes.Node]:
        rows = rows_of(self.records)
        items = nodes.bullet_list()
        for id in self.arguments:
            if id not in rows:
                here = ", ".join(row["id"] for row in self.claims(self.notebook)) or "none"
                raise self.error(f"answer: no run recorded claim {id!r}; this page records: {here}")
            words = self.paragraph(ours(rows[id], "says"))
            words += [*why(rows[id]), nodes.Text(" "), badge(rows[id]["verdict"], of_parts(rows[id]))]
            items += nodes.list_item("", words)
        try:
            words = short(self.options, [rows[id] for id in self.arguments])
        except ValueError as error:
            raise self.error(f"answer: {error}") from error
        said = [nodes.Text(" "), *self.inline(Ours(words))] if words else []
        head = nodes.paragraph("", "", nodes.strong("", "Answer." if said else "Answer"), *said)
        box = nodes.container("", head, items, classes=["answer"])
        if self.content:
            holder = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, holder)
            box += holder.children
        return [box]


class Verdicts(Ledger):
    """`{verdicts}`: claims, criteria and measurements of this notebook, folded."""

    def run(self) -> list[nodes.Node]:
        rows = self.claims(self.notebook)
        if not rows:
            raise self.error(f"verdicts: notebook {self.notebook} has no claims")
        return folded(
            "Claims of this page, with criteria and measurements", "claims", self.ledger(rows, "verdicts")
        )


class AllClaims(Ledger):
    """`{all-claims}`: the whole ledger, a folded table for each page of the book."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for caption, names in parts(self.env.app):
            shown = [(name, rows) for name in names if (rows := self.claims(name))]
            found += [nodes.rubric("", caption)] if shown else []
            for name, rows in shown:
                words = ", ".join(
                    f"{n} {v}" for v in VERDICTS if (n := sum(row["verdict"] == v for row in rows))
                )
                found.append(self.paragraph(self.reference("doc", f"/notebooks/{name}"), f": {words}"))
                found += folded(
                    f"{many(len(rows), 'claim')} of {name}", "claims", self.ledger(rows, "all-claims")
                )
        return found or [text("No claims are recorded.")]


class PaperClaims(Ledger):
    """`{paper-claims}`: the paper's own claims, one row each, with what this book found."""

    def see(self, item: dict) -> nodes.paragraph:
        """Where the book treats the claim: page and figure."""
        links = [self.reference("doc", f"/{item['page']}", "page")]
        if figure := item["figure"]:
            folder = self.records / Path(item["page"]).name / "figures"
            if not (folder / f"{figure}.json").is_file():
                there = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
                where = f"paper-claims: {item['id']}: {item['page']}"
                raise self.error(f"{where} records no figure {figure!r}; accepted: {there}")
            links += [", ", self.reference("ref", f"fig-{figure}", "figure")]
        return self.paragraph(*links)

    def under(self, item: dict, rows: dict[str, dict]) -> list[nodes.Node]:
        """Folded: the scale here and in the paper, and the tests with what each came to."""
        tests = []
        for test in item["tests"]:
            link = self.link(rows[test["claim"]], test["claim"])
            link["classes"].append("claim-id")
            link += [
                nodes.Text(f" {test['basis']}{', against' if test['against'] else ''} "),
                badge(test["verdict"]),
            ]
            if test["basis"] == item["basis"]:
                link += self.inline(" ", ours(rows[test["claim"]], "says"))
            tests.append(link)
        summary = f"What {many(len(tests), 'test')} found, and the scale" if tests else "Why not tested"
        return folded(summary, "tests", self.paragraph(*gap(item)), *tests)

    def run(self) -> list[nodes.Node]:
        rows = rows_of(self.records)
        body = []
        for item in read(self.records / "paper.json"):
            how = item["basis"] or ""
            if item["verdict"] in ("mixed", "open") and item["of"] > 1:
                how += f": {item['supported']} of {item['of']} parts supported"
            where = [text(item["id"], "claim-id"), text(item["place"], "place")]
            claim = [self.paragraph(ours(item, "claim")), *self.under(item, rows)]
            verdict = [
                nodes.paragraph("", "", badge(item["verdict"])),
                *([text(how, "basis")] if how else []),
            ]
            body.append([where, claim, verdict, [self.see(item)]])
        if not body:
            return [text("No claims of the paper are registered.")]
        table = self.table(("Where", "The paper’s claim", "Verdict", "See"), body)
        return [text(self.tally()), nodes.container("", table, classes=["ledger", "paper-claims"])]

    def tally(self) -> str:
        """How many of the paper's claims have which verdict, in the order of `VERDICTS`."""
        found = Counter(item["verdict"] for item in read(self.records / "paper.json"))
        words = [f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict]]
        return f"Of {many(found.total(), 'claim')}: {', '.join(words)}."


class History(Ledger):
    """`{criteria-history}`: claims whose criterion changed after something had been seen."""

    def run(self) -> list[nodes.Node]:
        body = [
            [
                [self.link(row, row["id"])],
                [self.paragraph(ours(row, "fixed") or "with the page")],
                [self.paragraph(ours(row, "changed"))],
                [self.paragraph(ours(row, "otherwise") or "the same")],
                [nodes.paragraph("", "", badge(row["verdict"], of_parts(row)))],
            ]
            for row in self.claims()
            if row["changed"]
        ]
        if not body:
            return [text("No criterion changed.")]
        table = self.table(("Claim", "Fixed", "Change", "Verdict otherwise", "Verdict"), body)
        return [nodes.container("", table, classes=["ledger", "history"])]


class ClaimRole(SphinxRole):
    """Common to the roles: their text names a claim, or one of its parts as claim/part."""

    def show(self, row: dict, part: str | None) -> list[nodes.Node]:
        """What stands in the place of the role; ValueError where that cannot be said."""
        raise NotImplementedError

    def run(self) -> tuple[list[nodes.Node], list]:
        id, slash, part = self.text.partition("/")
        try:
            row = rows_of(records(self.env.app)).get(id)
            if row is None:
                raise ValueError(f"no run recorded claim {id!r}")
            if slash and part not in row["order"]:
                raise ValueError(f"claim {id} has no part {part!r}; accepted: {', '.join(row['order'])}")
            return self.show(row, part if slash else None), []
        except ValueError as error:
            return [], [self.inliner.reporter.error(f"{self.name}: {error}", line=self.lineno)]


class Says(ClaimRole):
    """`{says}`claim``: the sentence that the claim's verdict chose."""

    def show(self, row: dict, part: str | None) -> list[nodes.Node]:
        if part:
            raise ValueError(f"a sentence is of a whole claim, got {self.text!r}")
        words = ours(row, "says")
        found, messages = self.inliner.parse(words, self.lineno, self.inliner, self.inliner.parent)
        return [*without_html(found), *messages, *why(row)]


class Verdict(ClaimRole):
    """`{verdict}`claim`` or `{verdict}`claim/part``: the verdict in its frame."""

    def show(self, row: dict, part: str | None) -> list[nodes.Node]:
        return [badge(row["outcomes"].get(part, row["verdict"]), "" if part else of_parts(row))]


class MeasuredRole(ClaimRole):
    """`{measured}`claim`` or, of a claim of several parts, `{measured}`claim/part``: value and interval."""

    def show(self, row: dict, part: str | None) -> list[nodes.Node]:
        if part is None and len(row["order"]) > 1:
            raise ValueError(f"claim {row['id']} has several parts; name one of {', '.join(row['order'])}")
        found = row["measurement"]["parts"].get(part or row["order"][0])
        return [outside(measured(found, size=False) if found else "not measured")]


def setup(app: Sphinx) -> None:
    for name, directive in {
        "question": Question,
        "answer": Answer,
        "verdicts": Verdicts,
        "all-claims": AllClaims,
        "paper-claims": PaperClaims,
        "criteria-history": History,
    }.items():
        app.add_directive(name, directive)
    for name, role in {"says": Says, "verdict": Verdict, "measured": MeasuredRole}.items():
        app.add_role(name, role())
