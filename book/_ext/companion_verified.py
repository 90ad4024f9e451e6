"""Directives of the page "The same again": `verified`, the builds held against the reference, `tolerances`, what they may differ by,
and `mutants`, how sharp the tests are.
"""

from collections.abc import Iterable

from companion_claims import many
from companion_data import Directive, folded, number, read, text
from docutils import nodes
from sphinx.application import Sphinx

from ica.build import alike, mutants, reference

COMMAND = "make verify"
SHOWN = 20  # findings of one build


def share(part: int, whole: int) -> str:
    """So many of how many, and the share of 100 that this is; never 100 % of what is not all."""
    percent = f" ({min(100 * part / whole, 100 if part == whole else 99.9):.3g} %)" if whole else ""
    return f"{part} of {whole}{percent}"


def machine(found: dict[str, str]) -> str:
    """The kind of machine in words."""
    words = [found["processor"], found["instructions"], found["switches"]]
    words += [f"{many(int(found['threads']), 'thread')}" if found["threads"].isdigit() else found["threads"]]
    return ", ".join(filter(None, [*words, f"Python {found['python']}", f"PyTorch {found['torch']}"]))


def states(counts: dict[str, int], *names: str) -> int:
    """How many things are in these states."""
    return sum(counts[name] for name in names)


class Verified(Directive):
    """`{verified}`: of each stored report and of the last one here the shares that ran, are identical, are within tolerance."""

    HEAD = (
        "Machine",
        "Commit",
        "Notebooks that ran",
        "Figures identical",
        "Figures within tolerance",
        "Claims identical or within",
        "Verdicts that moved",
    )

    def run(self) -> list[nodes.Node]:
        found = read(self.records / "verified.json")
        reports = [*found["stored"], *([found["last"]] if found["last"] else [])]
        last = nodes.paragraph("", "", nodes.literal("", COMMAND))
        last += nodes.Text(
            " has run in this checkout; its report is the last row."
            if found["last"]
            else " has not been run in this checkout."
        )
        if not reports:
            return [last, text("No report is stored yet.")]
        table = self.table(self.HEAD, map(self.row, reports), [False, False, *[True] * 5])
        boxes = [box for one in reports for box in self.open(one)]
        return [last, table, *boxes]

    def row(self, one: dict) -> list[list[nodes.Node]]:
        figures, claims = one["counts"]["figures"], one["counts"]["claims"]
        total = states(figures, *reference.STATES)
        how = "the reference's kind; " if one["same"] else "another kind than the reference's; "
        how += "a fresh environment" if one["fresh"] else "the environment at hand"
        good = (reference.IDENTICAL, reference.WITHIN)
        return [
            [text(machine(one["machine"])), text(how, "place")],
            [text((one["commit"] or "none")[:8] + (" and changes" if one["dirty"] else ""))],
            [text(share(one["notebooks"]["ran"], one["notebooks"]["listed"]))],
            [text(share(figures[reference.IDENTICAL], total))],
            [text(share(states(figures, *good), total))],
            [text(share(states(claims, *good), states(claims, *reference.STATES)))],
            [text(str(len(one["moved"])))],
        ]

    def open(self, one: dict) -> Iterable[nodes.Node]:
        """What is not as it must be, folded; nothing where all is."""
        lines = one["findings"]
        if not lines:
            return []
        more = [f"{len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        items = [nodes.list_item("", text(line)) for line in [*lines[:SHOWN], *more]]
        summary = f"{many(len(lines), 'finding')}: {machine(one['machine'])}"
        return folded(summary, "findings", nodes.bullet_list("", *items))


class Tolerances(Directive):
    """`{tolerances}`: the table of `ica.build.alike` with the reasons, and the notebooks of each kind."""

    def run(self) -> list[nodes.Node]:
        head = (
            "Numbers",
            "Relative",
            "Absolute",
            "Of the column's range",
            "Counts",
            "Of 1e-9 to 1e-4",
            "Why",
        )
        body = []
        for name, one in alike.TOLERANCES.items():
            sizes = [
                number(x, ".3g") for x in (one.relative, one.absolute, one.spread, one.counts, one.rounding)
            ]
            half = " A claim's value may move by half the width of its interval." if one.interval else ""
            body.append([[text(name)], *([text(size)] for size in sizes), [text(one.why + half)]])
        table = self.table(head, body, [False, *[True] * 5, False])
        return [table]


class Mutants(Directive):
    """`{mutants}`: of each module how many of its mutants a test noticed, and those that none did with the reason."""

    HEAD = ("Module", "Changes", "Noticed by a test", "Cannot be noticed", "Gaps")

    def run(self) -> list[nodes.Node]:
        found = read(self.records / "mutants.json")
        if not found:
            return [text("No report is stored yet.")]
        body = [self.row(name, one, found["survivors"]) for name, one in found["modules"].items()]
        total = {
            key: sum(one[key] for one in found["modules"].values()) for key in ("mutants", mutants.NOTICED)
        }
        body.append(self.row("all", total, found["survivors"]))
        made = found["provenance"]
        words = f"Made by mutmut {made['mutmut']} at commit {(made['commit'] or 'none')[:8]}."
        table = self.table(self.HEAD, body, [False, *[True] * 4])
        items = [nodes.list_item("", *self.survivor(one)) for one in found["survivors"]]
        summary = f"{many(len(items), 'change')} that no test noticed"
        return [table, text(words), *folded(summary, "findings", nodes.bullet_list("", *items))]

    def row(self, name: str, one: dict[str, int], survivors: list[dict]) -> list[list[nodes.Node]]:
        own = [found for found in survivors if name in ("all", found["module"])]
        explained = sum(bool(found["why"]) for found in own)
        numbers = (str(one["mutants"]), share(one[mutants.NOTICED], one["mutants"]), str(explained))
        return [[text(name)], *([text(words)] for words in (*numbers, str(len(own) - explained)))]

    def survivor(self, one: dict[str, str]) -> list[nodes.Node]:
        words = f"{one['module']}, {one['function']}: {one['why'] or 'a gap'}"
        return [text(words), nodes.literal_block("", one["change"], language="diff")]


def setup(app: Sphinx) -> None:
    app.add_directive("verified", Verified)
    app.add_directive("tolerances", Tolerances)
    app.add_directive("mutants", Mutants)
