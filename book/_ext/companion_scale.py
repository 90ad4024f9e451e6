"""Directives of the page "Running at scale": `training-cost`, what the scales cost, and `job-memory`, what the jobs of this build took."""

from typing import ClassVar

from companion_data import Directive, Ours, number, read, text
from docutils import nodes
from sphinx.application import Sphinx

from ica.build import peaks

GPU = 2e12  # operations a second


def power(value: float) -> Ours:
    """A large number, as $1.2 \\cdot 10^{15}$."""
    digits, exponent = f"{value:.1e}".split("e")
    return Ours(rf"${digits} \cdot 10^{{{int(exponent)}}}$")


def hours(value: float) -> str:
    """Hours, in minutes where they are few."""
    if value < 1 / 60:
        return "< 1 min"
    return f"{60 * value:.0f} min" if value < 2 else f"{value:.0f} h"


class TrainingCost(Directive):
    """`{training-cost}`: operations of each scale, hours of one core, and GPU minutes by an estimate."""

    HEAD: ClassVar = (
        "Runs",
        "Configurations × seeds",
        "Operations",
        "One core, measured",
        "One core, all of it",
        "A GPU, estimated",
    )

    def run(self) -> list[nodes.Node]:
        from ica.synthetic.training import cost  # and torch, which no other page needs

        found = cost.table()
        rates = sorted(rate / 1e9 for one, _ in found.values() for rate in one.rates) or [None]
        said = (
            f"Measured: {sum(len(one.rates) for one, _ in found.values())} stored files, each of one thread, from "
            f"{number(rates[0], '.0f')} to {number(rates[-1], '.0f')} billion operations a second. What was not measured is reckoned at the "
            "median of its scale, else of its sweep; the scale paper, whose model is the same, at that of full. "
            f"Estimated: {number(GPU / 1e12, '.0f')} trillion operations a second on a GPU, a tenth of what the data sheet of an A100 "
            "gives for float32; no GPU was at hand for this version."
        )
        body = [self.row(name, *one) for name, one in found.items()]
        return [self.table(self.HEAD, body, [False, *[True] * 5]), text(said)]

    def row(self, name: str, one, rate: float | None) -> list[list[nodes.Node]]:
        measured = f"{hours(one.hours)} ({one.measured / one.operations:.0%} of it)" if one.measured else "–"
        whole = hours(one.hours + (one.operations - one.measured) / rate / 3600) if rate else "–"
        cells = [
            f"{one.runs} × {one.seeds}",
            power(one.operations),
            measured,
            whole,
            hours(one.operations / GPU / 3600),
        ]
        return [[text(name)], *([self.paragraph(cell)] for cell in cells)]


class JobMemory(Directive):
    """`{job-memory}`: the jobs of this profile's builds by kind, with the largest of each; nothing where none was recorded."""

    def run(self) -> list[nodes.Node]:
        found = read(self.records / "peaks.json")
        if not found:
            return [text("No peak was recorded in this build.")]
        body = [
            [[text(row.name)], [text(str(row.count))], [text(number(row.peak, ",d"))], [text(row.largest)]]
            for row in peaks.kinds(found)
        ]
        both = f"The two largest at once: {number(peaks.together(found), '.1f')} GiB."
        head = ("Jobs", "How many", "Most memory, MiB", "Which")
        return [self.table(head, body, [False, True, True, False]), text(both)]


def setup(app: Sphinx) -> None:
    app.add_directive("training-cost", TrainingCost)
    app.add_directive("job-memory", JobMemory)
