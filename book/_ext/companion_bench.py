"""The directive of the page "How fast, against what": `{bench} PART`, what the stored reports of `make bench` say of a part."""

from typing import ClassVar

from companion_data import Directive, number, text
from docutils import nodes
from sphinx.application import Sphinx

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    """Seconds in the unit in which they are read most easily; none as a dash."""
    if not seconds:
        return "–"
    size, unit = next((one for one in UNITS if seconds >= one[0]), UNITS[-1])
    return f"{number(seconds / size)} {unit}"


def ranged(values: dict, shown=number) -> str:
    """A median, with least and largest where they differ from it as they are shown."""
    low, middle, high = (shown(values[name]) for name in ("min", "median", "max"))
    return middle if low == middle == high else f"{middle} ({low} to {high})"


class Bench(Directive):
    """`{bench} PART`: for each processor of which a report is stored, its rows and how times grow; else how to measure it."""

    required_arguments = 1
    HEAD: ClassVar = ("Case", "Way", "Time", "Floor", "Times faster", "Goal")

    def run(self) -> list[nodes.Node]:
        from ica.bench import report, settings  # and torch, which no other page needs

        name = self.arguments[0]
        if name not in settings.PARTS:
            raise self.error(f"bench: {name!r} is no part; accepted: {', '.join(settings.PARTS)}")
        found = [one["parts"][name] for one in report.all_stored() if name in one["parts"]]
        body = [node for part in found for node in self.measured(part)]
        more = "RELEASED=folder " if name == "training" else ""
        return body or [
            text(f'Not measured for this version; make bench RUNS="{name}" {more}STORE=yes measures it.')
        ]

    def measured(self, part: dict) -> list[nodes.Node]:
        """What it was measured on, the rows, and the growth."""
        about = part["provenance"]
        rates = (
            f"{number(rate / 1e9, '.0f')} billion a second ({key})" for key, rate in part["rates"].items()
        )
        machine = about["hardware"]
        said = (
            f"{', '.join([machine['cpu'], *machine['gpus']])}; threads: {about['threads']['torch']}; PyTorch {about['versions']['torch']}; "
            f"commit {(about['commit'] or 'unknown')[:10]}{' with changes' if about['dirty'] else ''}; {about['started'][:10]}. "
            f"It had {about['processor_seconds'] / about['seconds']:.0%} of a processor on average. "
            f"Operations of a matrix product: {', '.join(rates)}."
        )
        rows = [cells for row in part["rows"] for cells in self.rows(row)]
        found = [text(said), self.table(self.HEAD, rows, [False, False, *[True] * 4])]
        if part["growth"]:
            body = [[text(words) for words in self.grows(one)] for one in part["growth"]]
            cells = [[[node] for node in row] for row in body]
            head = ("Along", "Way", "Exponent of time", "Exponent of counted operations")
            found.append(self.table(head, cells, [False, False, True, True]))
        return found

    @staticmethod
    def grows(one: dict) -> tuple[str, str, str, str]:
        slope = ranged(one["time"], lambda value: number(value, ".2f"))
        return one["series"], one["way"], slope, number(one["operations"], ".2f")

    @staticmethod
    def rows(row: dict) -> list[list[list[nodes.Node]]]:
        """A row of the table for each way; the case stands in the first."""
        found, alone = [], len(row["ways"]) == 1
        for k, way in enumerate(row["ways"]):
            took = ranged(way["seconds"], duration)
            if row["unit"] == "item":
                took += f", {number(60 / way['seconds']['median'])} a minute"
            last = way is row["ways"][-1]
            goal = (
                (f"at most {duration(way['goal'])}" if alone else number(way["goal"])) if way["goal"] else "–"
            )
            cells = [
                f"{row['case']}, a {row['unit']}" if k == 0 else "",
                way["name"],
                took,
                duration(way["floor"]),
                "–" if last else ranged(way["faster"]),
                goal,
            ]
            found.append([[text(words)] for words in cells])
        return found


def setup(app: Sphinx) -> None:
    app.add_directive("bench", Bench)
