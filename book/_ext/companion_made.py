"""How this book is made: directives `workflow`, `pages-made` and `results-stored`."""

from pathlib import Path

from companion_data import Directive, number, parts, read, text
from companion_figures import VARIANTS, recorded_images, size
from companion_runs import duration, hardware
from docutils import nodes
from sphinx.application import Sphinx

from ica.build import graph, stored
from ica.record.provenance import project_root

DRAWING = "_figures/workflow"


class Workflow(Directive):
    """`{workflow}`: the rules of the Snakefile as a graph; the body is the caption."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        snakefile = ((project_root() or Path.cwd()) / "Snakefile").read_text(encoding="utf-8")
        out = Path(self.env.app.outdir)
        needs = "; ".join(
            f"{name} needs {', '.join(sorted(of))}" for name, of in graph.edges(snakefile).items() if of
        )
        images = []
        for suffix, drawing in graph.drawings(snakefile).items():
            file = out / f"{DRAWING}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(drawing, encoding="utf-8")
            css = next(name for name, end in VARIANTS.items() if end == suffix)
            url = "../" * self.env.docname.count("/") + f"{DRAWING}{suffix}"
            images.append({"class": css, "src": url, "alt": f"Rules of the workflow: {needs}.", **size(file)})
        figure = nodes.figure("", recorded_images(images=images), align="default", classes=["recorded"])
        figure += nodes.caption("", "", *self.inline(self.written()))
        self.set_source_info(figure)
        return [figure]


class PagesMade(Directive):
    """`{pages-made}`: of each notebook the time, the peak memory where it is recorded, and the seeds; what they ran on and with."""

    def run(self) -> list[nodes.Node]:
        rows, machines, versions = [], set(), set()
        for _, names in parts(self.env.app):
            for name in names:
                run, page = read(self.records / name / "run.json"), read(self.records / name / "page.json")
                machines.add(hardware(run["hardware"]))
                versions.add(", ".join(f"{key} {found}" for key, found in run["versions"].items() if found))
                peak = run.get("peak_gib", page.get("peak_gib"))
                rows.append((name, page["seconds"], peak, len(run["seeds"])))
        peaks = any(peak is not None for _, _, peak, _ in rows)
        head = ["Notebook", "Wall time", *(["Peak memory, GiB"] if peaks else []), "Seeds"]
        body = [
            [
                [self.paragraph(self.reference("doc", f"/notebooks/{name}"))],
                [text(duration(seconds))],
                *([[text(number(peak, ".1f"))]] if peaks else []),
                [text(str(seeds))],
            ]
            for name, seconds, peak, seeds in rows
        ]
        total = sum(seconds or 0 for _, seconds, _, _ in rows)
        return [
            text(
                f"{len(rows)} notebooks, {duration(total)} of one core together, without training runs and language models."
            ),
            text(f"Run on: {' / '.join(sorted(machines))}."),
            text(f"With: {' / '.join(sorted(versions))}."),
            self.table(head, body, [False, *[True] * (len(head) - 1)]),
        ]


class JobsMade(Directive):
    """`{jobs-made}`: the jobs of the build by kind: how many, their time, the longest, and the most memory that one took."""

    def run(self) -> list[nodes.Node]:
        groups: dict[str, list[tuple[str, dict]]] = {}
        for name, job in read(self.records / "peaks.json").items():
            groups.setdefault(job["kind"], []).append((name, job))
        if not groups:
            return [text("No job of this build is on record.")]
        rows = []
        for kind, jobs in groups.items():
            longest, slow = max(jobs, key=lambda one: one[1]["seconds"])
            cells = [kind, str(len(jobs)), duration(sum(job["seconds"] for _, job in jobs))]
            cells += [f"{longest}, {duration(slow['seconds'])}"]
            cells += [number(max(job["peak"] for _, job in jobs) / 1024, ".1f")]
            rows.append([[text(words)] for words in cells])
        head = ("Jobs", "Number", "Together", "Longest", "Peak memory of one, GiB")
        return [self.table(head, rows, [False, True, True, False, True])]


class ResultsStored(Directive):
    """`{results-stored}`: what `results/` holds, how large it is and how long it took."""

    def run(self) -> list[nodes.Node]:
        folder = (project_root() or Path.cwd()) / "results"
        rows = stored.summary(folder) if folder.is_dir() else []
        if not rows:
            return [text("Nothing is stored.")]
        head = ("Folder", "Files", "Size, MB", "Time", "Longest", "Processor")
        body = [
            [
                [nodes.paragraph("", "", nodes.literal("", f"results/{row['name']}"))],
                [text(str(row["files"]))],
                [text(number(row["bytes"] / 1e6, ".1f"))],
                [text(duration(row["seconds"]))],
                [text(duration(row["longest"]))],
                [text(", ".join(row["processors"]) or "not said")],
            ]
            for row in rows
        ]
        table = self.table(head, body, [False, True, True, True, True, False])
        total = sum(row["seconds"] for row in rows)
        return [text(f"Together {duration(total)}."), table]


def setup(app: Sphinx) -> None:
    app.add_directive("workflow", Workflow)
    app.add_directive("pages-made", PagesMade)
    app.add_directive("jobs-made", JobsMade)
    app.add_directive("results-stored", ResultsStored)
