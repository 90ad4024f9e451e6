"""Directives that staging adds to notebook pages: `run-parameters` and `run-record`."""

from companion_data import Directive, folded, outside, read, text
from docutils import nodes
from sphinx.application import Sphinx


def _fields(values: dict[str, str]) -> nodes.field_list:
    """A list of names and values, taken literally."""
    found = nodes.field_list()
    for name, words in values.items():
        found += nodes.field("", nodes.field_name("", "", outside(name)), nodes.field_body("", text(words)))
    return found


def duration(seconds: float | None) -> str:
    """A time as a reader takes it in."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def hardware(found: dict) -> str:
    """Processor, cores, memory and GPUs of a run, in words."""
    memory = f"{found['memory_gib']} GiB memory" if found["memory_gib"] else "memory unknown"
    gpus = ", ".join(found["gpus"]) or "no GPU"
    return f"{found['cpu']}; {found['cores']} cores; {memory}; {gpus}"


class RunParameters(Directive):
    """A note with the parameters that the run took otherwise than the cell above shows."""

    def run(self) -> list[nodes.Node]:
        changed = read(self.records / self.notebook / "page.json")["changed"]
        note = nodes.note("", text("This page was run with other values than the cell above shows:"))
        note["classes"].append("run-parameters")
        items = nodes.bullet_list()
        for name, value in changed.items():
            words = f"{name} = {value['run']!r} (in the cell: {value['cell']!r})"
            items += nodes.list_item("", text(words, "code"))
        note += items
        return [note]


class RunRecord(Directive):
    """The folded box "How this page was run", from the run's provenance."""

    def run(self) -> list[nodes.Node]:
        folder = self.records / self.notebook
        run, page = read(folder / "run.json"), read(folder / "page.json")
        none = f"none ({run['no_commit']})" if run.get("no_commit") else "none"
        commit = (run["commit"] or none) + (" with local changes" if run["dirty"] else "")
        versions = run["versions"]
        values = {
            "Notebook": f"notebooks/{run['notebook']}.ipynb",
            "Profile": run["profile"],
            "Parameters": ", ".join(f"{key} = {value!r}" for key, value in run["parameters"].items())
            or "none",
            "Seeds": ", ".join(map(str, run["seeds"])) or "none",
            "Wall time": duration(page["seconds"]),
            "Started": run["started"],
            "Commit": commit,
            "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            "Hardware": hardware(run["hardware"]),
            "Platform": run["platform"],
            "Threads": ", ".join(f"{name} {value}" for name, value in run["threads"].items()),
        }
        return folded("How this page was run", "run", _fields(values))


def setup(app: Sphinx) -> None:
    app.add_directive("run-parameters", RunParameters)
    app.add_directive("run-record", RunRecord)
