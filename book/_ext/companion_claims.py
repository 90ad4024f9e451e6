"""Directives of the claims ledger: `claims`, `verdicts`, `all-claims` and `claims-summary`."""

from collections import Counter

from companion_data import Directive, number, parts, read, text
from docutils import nodes
from sphinx.application import Sphinx

# Sign and words, so that colour is never the only carrier.
VERDICTS = {"reproduced": "✔", "partly": "◐", "not reproduced": "✘", "not testable here": "–"}
SIGNS = (("<=", "≤"), (">=", "≥"))
NBSP = "\u00a0"


def criterion(words: str) -> str:
    """The criterion as readers see it: `<= 1e-12` as `≤ 1e−12`."""
    for ascii_sign, sign in SIGNS:
        words = words.replace(ascii_sign, sign)
    words = words.replace("e-", "e−").replace(" -", " −").replace("[-", "[−")
    return words.replace(" ", NBSP)  # a sign stays with its number


def measured(part: dict) -> str:
    """Value, interval and sample size of one measured part."""
    words = number(part["value"])
    if part["interval"]:
        low, high = (number(end) for end in part["interval"])
        words += f" [{low},{NBSP}{high}]"
    return words + (f", n{NBSP}={NBSP}{part['n']}" if part["n"] else "")


def by_part(values: dict[str, str]) -> list[nodes.Node]:
    """One line for each part of a claim; a claim of one part needs no name."""
    return [text(words if name == "value" else f"{name}: {words}") for name, words in values.items()]


def badge(verdict: str) -> nodes.paragraph:
    css = verdict.replace(" ", "-")
    return text(f"{VERDICTS[verdict]} {verdict}", "verdict", f"verdict-{css}")


class Ledger(Directive):
    """Common to the tables: the collected claims, and their cells."""

    def claims(self, notebook: str | None = None) -> list[dict]:
        """All collected claims, or those of one notebook."""
        rows = read(self.records / "claims.json")
        return [row for row in rows if notebook in (None, row["notebook"])]

    def claim_link(self, row: dict) -> list[nodes.Node]:
        """The id of the claim, linked to the cell that records it (or to its page), and the statement."""
        targets = read(self.records / row["notebook"] / "page.json")["targets"]
        role = f"{{ref}}`{row['id']} <claim-{row['id']}>`"
        page = f"{{doc}}`{row['id']} </notebooks/{row['notebook']}>`"
        link = self.paragraph(role if row["id"] in targets else page)
        link["classes"].append("claim-id")
        return [link, self.paragraph(row["statement"])]

    def criteria(self, row: dict) -> list[nodes.Node]:
        return by_part({name: criterion(c["text"]) for name, c in row["criteria"].items()})

    def values(self, row: dict) -> list[nodes.Node]:
        measurement = row["measurement"]
        if measurement["untestable"]:
            return [self.paragraph(measurement["untestable"])]
        return by_part({name: measured(part) for name, part in measurement["parts"].items()})

    def titled(self, title: str, css: str, table: nodes.table) -> list[nodes.Node]:
        """The table in a box of its own, under a title."""
        box = nodes.container("", nodes.rubric("", title), table, classes=["ledger", css])
        return [box]


class Claims(Ledger):
    """`{claims}`: what this notebook tests, by which criteria."""

    def run(self) -> list[nodes.Node]:
        rows = [
            [
                self.claim_link(row),
                [text(row["source"])],
                [self.paragraph(row["measured"])],
                self.criteria(row),
            ]
            for row in self.claims(self.notebook)
        ]
        if not rows:
            raise self.error(f"claims: notebook {self.notebook} has no claims")
        table = self.table(("Claim", "Source", "What is measured", "Criterion"), rows)
        return self.titled("What is tested, and by which criterion", "claims", table)


class Verdicts(Ledger):
    """`{verdicts}`: what came out for the claims of this notebook."""

    def run(self) -> list[nodes.Node]:
        rows = [
            [self.claim_link(row), self.criteria(row), self.values(row), [badge(row["verdict"])]]
            for row in self.claims(self.notebook)
        ]
        if not rows:
            raise self.error(f"verdicts: notebook {self.notebook} has no claims")
        table = self.table(("Claim", "Criterion", "Measured", "Verdict"), rows)
        return self.titled("What came out", "verdicts", table)


class AllClaims(Ledger):
    """`{all-claims}`: the whole ledger, a table for each part of the book."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for caption, names in parts(self.env.app):
            rows = [self.row(row) for name in names for row in self.claims(name)]
            if rows:
                table = self.table(("Claim", "What is measured, criterion", "Measured", "Verdict"), rows)
                found += self.titled(caption, "all-claims", table)
        return found or [text("No claims are recorded.")]

    def row(self, row: dict) -> list[list[nodes.Node]]:
        claim = [*self.claim_link(row), text(f"Source: {row['source']}", "source")]
        test = [self.paragraph(row["measured"]), *self.criteria(row)]
        return [claim, test, self.values(row), [badge(row["verdict"])]]


class Summary(Ledger):
    """`{claims-summary}`: counts of verdicts for each notebook, by parts."""

    def run(self) -> list[nodes.Node]:
        rows, every = [], Counter(row["verdict"] for row in self.claims())
        for caption, names in parts(self.env.app):
            for name in names:
                count = Counter(row["verdict"] for row in self.claims(name))
                link = self.paragraph(f"{{doc}}`/notebooks/{name}`")
                rows.append([[text(caption)], [link], *self.counts(count)])
        rows.append([[text("All")], [text("")], *self.counts(every)])
        head = ("Part", "Notebook", *(f"{sign} {verdict}" for verdict, sign in VERDICTS.items()))
        table = self.table(head, rows, (False, False, *(True for _ in VERDICTS)))
        said = ", ".join(f"{every[verdict]} {verdict}" for verdict in VERDICTS if every[verdict])
        total = sum(every.values())
        first = text(f"{total} claims: {said}." if total else "No claims are recorded.", "summary")
        return [nodes.container("", first, table, classes=["ledger", "claims-summary"])]

    @staticmethod
    def counts(count: Counter) -> list[list[nodes.Node]]:
        return [[text(str(count[verdict]) if count[verdict] else "·")] for verdict in VERDICTS]


def setup(app: Sphinx) -> None:
    app.add_directive("claims", Claims)
    app.add_directive("verdicts", Verdicts)
    app.add_directive("all-claims", AllClaims)
    app.add_directive("claims-summary", Summary)
