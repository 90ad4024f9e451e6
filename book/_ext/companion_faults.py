"""Directive `faults`: what was broken on purpose, a folded table for each kind, from the marks at the tests."""

import re

from companion_claims import many
from companion_data import Directive, folded, outside, read, text
from docutils import nodes
from sphinx.application import Sphinx

from ica.build.faults import KINDS

CODE = re.compile(r"`([^`]+)`")


def sentence(words: str) -> nodes.paragraph:
    """A mark's text with its `code` set as such, the first letter large."""
    pieces = CODE.split(words[:1].upper() + words[1:])
    found = [nodes.literal("", part) if k % 2 else outside(part) for k, part in enumerate(pieces) if part]
    return nodes.paragraph("", "", *found)


class Faults(Directive):
    """`{faults}`: a table for each kind: what is done, what happens, and the test that does it."""

    def run(self) -> list[nodes.Node]:
        found = read(self.records / "faults.json")
        tests = len({one["test"] for one in found})
        boxes: list[nodes.Node] = [text(f"{many(len(found), 'fault')}, {many(tests, 'test')}.")]
        for kind, promise in KINDS.items():
            rows = [one for one in found if one["kind"] == kind]
            if rows:
                boxes.append(nodes.paragraph("", "", nodes.strong("", kind), nodes.Text(f": {promise}.")))
                boxes += folded(f"{len(rows)} of this kind", "faults", self.rows(rows))
        return boxes

    def rows(self, found: list[dict]) -> nodes.container:
        body = []
        for one in found:
            file, _, name = one["test"].partition("::")
            where = [
                text(name, "claim-id"),
                text(file + (", by make faults" if one["slow"] else ""), "place"),
            ]
            body.append([[sentence(one["done"])], [sentence(one["happens"])], where])
        table = self.table(("What is done", "What happens", "Test"), body)
        return nodes.container("", table, classes=["ledger", "faults"])


def setup(app: Sphinx) -> None:
    app.add_directive("faults", Faults)
