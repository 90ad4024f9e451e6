"""Run one notebook in its own process and keep what it leaves only where it ran to the end.

`python -m ica.build.execute NAME --profile ci --out DIR` writes DIR/executed/NAME.ipynb and
DIR/record/NAME/ on success. On failure it leaves both as they were, and its stderr ends with the
notebook's name, the cell and the traceback (also in the status file, if one is asked for).
"""

import argparse
import os
import secrets
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import nbformat
import psutil

from ica.build import jobs, notebooks, settings
from ica.record import seals
from ica.record.provenance import project_root

SEALS = "{name}.seal.json"  # in the output folder, over the executed notebook and its record
TOKEN = "ICA_JOB"  # what the kernel starts has this in its environment; nothing of it outlives the run
# Errors that say by themselves what was wrong with a file, a model or a value, and what is accepted: without code and traceback.
SAID = (
    "AssetError",
    "AttackedError",
    "CacheError",
    "ItemsError",
    "ModelError",
    "ParametersError",
    "PromptsError",
    "ResultError",
)
SMALL = 0.05  # GiB: less memory says nothing about why a process died


def _prepare_environment(root: Path, profile: str, output: Path, scratch: Path, token: str) -> None:
    """Environment of the kernel: this checkout's `ica`, no settings of the user's own Jupyter or IPython, no need of a home folder."""
    os.environ.pop("JUPYTER_PATH", None)
    os.environ.update(jobs.ENVIRONMENT)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update(
        PYTHONPATH=os.pathsep.join(paths),
        IPYTHONDIR=str(scratch / "ipython"),
        JUPYTER_PREFER_ENV_PATH="1",
        JUPYTER_PLATFORM_DIRS="1",
        ICA_OUTPUT=str(output),
        **{TOKEN: token},
        ICA_PROFILE=profile,
    )
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        os.environ[f"JUPYTER_{kind}_DIR"] = str(scratch / "jupyter" / kind.lower())


class _Memory(threading.Thread):
    """Watches how much memory the processes below this one hold together, in GiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            held = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    held += process.memory_info().rss
                except psutil.Error:
                    continue
            self.most = max(self.most, held / 2**30)

    def words(self) -> str:
        """What a kernel that died held, and what this machine has."""
        held = (
            f"it held {self.most:.1f} GiB at most" if self.most > SMALL else "how much it held is not known"
        )
        return f"{held}; {jobs.memory()}"


def _failing_cell(partial: Path, source: nbformat.NotebookNode) -> tuple[str, str, str]:
    """Where the run stopped: a phrase naming the cell, its source, and the traceback stored with it.

    The cell that failed, else the last one that was begun: papermill marks that as completed where the kernel died in it.
    """
    if not partial.is_file():
        return "before its first cell", "", ""
    order = [cell.id for cell in source.cells]
    begun = [
        (cell, cell.metadata.get("papermill", {}))
        for cell in nbformat.read(partial, as_version=4).cells
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    if not begun:
        return "before its first cell", "", ""
    cell = next((cell for cell, about in begun if about.get("status") == "failed"), begun[-1][0])
    where = f"cell {order.index(cell.id) + 1} of {len(order)}" if cell.id in order else "the injected cell"
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and errors[0].ename in SAID:
        return f"in {where} (id {cell.id})", "", f"{errors[0].ename}: {errors[0].evalue}"
    return (
        f"in {where} (id {cell.id})",
        cell.source,
        "\n".join(line for e in errors for line in e.traceback),
    )


def _why(error: BaseException, memory: _Memory) -> str:
    """What ended a run in which no cell raised."""
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, DeadKernelError):
        return (
            f"The kernel died in this cell: its process was killed or crashed; {memory.words()}. "
            "Where memory ran out, the system has killed it (`dmesg` tells)."
        )
    if isinstance(error, KeyboardInterrupt):
        return f"The run was stopped in this cell ({str(error) or 'interrupted'}); {memory.words()}."
    return f"{type(error).__name__}: {error}"


def _report(
    name: str, source: nbformat.NotebookNode, partial: Path, error: BaseException, memory: _Memory
) -> str:
    where, code, traceback = _failing_cell(partial, source)
    lines = [f"Notebook notebooks/{name}.ipynb failed {where}."]
    if code:
        lines += ["", *(f"    {line}" for line in code.splitlines())]
    return "\n".join([*lines, "", traceback or _why(error, memory)]).rstrip() + "\n"


def _literal(path: Path) -> str:
    """The path as papermill is to be given it, which would fill in parameters at braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _run(root: Path, name: str, values: notebooks.Parameters, scratch: Path) -> Path:
    """Papermill the notebook into the scratch folder; the executed file. Raises jobs.Failure with the report."""
    import papermill  # takes a second to load; the argument checks above it should not wait

    source, target = notebooks.read(root, name), scratch / f"{name}.ipynb"
    memory = _Memory()
    memory.start()
    try:
        papermill.execute_notebook(
            _literal(notebooks.path(root, name)),
            _literal(target),
            parameters=values,
            kernel_name=notebooks.KERNEL,
            progress_bar=False,
            log_output=False,
            cwd=str(root / "notebooks"),
            start_timeout=180,
        )
    except (Exception, KeyboardInterrupt) as error:  # any end but success is reported alike
        raise jobs.Failure(_report(name, source, target, error, memory)) from error
    finally:
        memory.over.set()
    if skipped := _skipped(target):
        where = f"cell {[cell.id for cell in source.cells].index(skipped) + 1} of {len(source.cells)}"
        raise jobs.Failure(
            f"Notebook notebooks/{name}.ipynb was left before its end: {where} (id {skipped}) did not run to its end. "
            "A cell must not end the kernel (exit, quit, sys.exit).\n"
        )
    return target


def _skipped(executed: Path) -> str:
    """Id of the first stored code cell that did not run to its end, though papermill saw no error; empty if all did."""
    for cell in nbformat.read(executed, as_version=4).cells:
        ours = (
            cell.cell_type == "code"
            and cell.source.strip()
            and "injected-parameters" not in cell.metadata.get("tags", [])
        )
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))
        if ours and (failed or cell.execution_count is None):
            return cell.id
    return ""


def execute(
    root: Path, name: str, profile: str, out: Path, values: notebooks.Parameters, digest: str = ""
) -> None:
    """Run the notebook with the parameter values that differ from its own; `digest` goes into the seal.

    Raises jobs.Failure with the report where a cell fails; nothing of such a run is kept.
    """
    scratch, token = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out)), secrets.token_hex(8)
    try:
        record = scratch / "record"
        record.mkdir()
        _prepare_environment(root, profile, record, scratch, token)
        executed = _run(root, name, values, scratch)
        _keep(name, digest, record, executed, out)
    finally:
        jobs.sweep(TOKEN, token)
        shutil.rmtree(scratch, ignore_errors=True)


def _keep(name: str, digest: str, record: Path, executed: Path, out: Path) -> None:
    """Put the finished record and notebook in the place of those before, then the seal that says that they are whole."""
    seal, final, target = (
        out / SEALS.format(name=name),
        out / "record" / name,
        out / "executed" / executed.name,
    )
    seal.unlink(missing_ok=True)
    for folder in (final.parent, target.parent):
        folder.mkdir(exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(record, final)
    os.replace(executed, target)
    files = [target, *(path for path in final.rglob("*") if path.is_file())]
    seals.write(seal, files, {"digest": digest})


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ica.build.execute", description="Run one notebook.")
    parser.add_argument("name", help="name of the notebook, without folder and suffix")
    parser.add_argument("--profile", default="ci", help=f"one of {', '.join(notebooks.PROFILES)}")
    parser.add_argument(
        "--out", type=Path, help="output folder (default: build/alone, which no build of the book reads)"
    )
    parser.add_argument("--set", default="", metavar="'name=value ...'", help="parameters to override")
    parser.add_argument("--settings", type=Path, help="a file of settings, as a build hands them over")
    parser.add_argument("--digest", default="", help="of all that the run stands on, as a build knows it")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the run is")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    root = project_root() or Path.cwd()

    def work(tell: jobs.Tell) -> None:
        if options.settings:
            asked = settings.read(options.settings)
            if asked.build != os.environ.get(jobs.BUILD, ""):
                raise ValueError(f"{options.settings} is of another build; `make book` writes it anew")
            profile, changes = asked.profile, notebooks.overrides(root, asked.profile, asked.parameters)
            if options.name not in changes:
                raise ValueError(f"no notebook {options.name!r}; there are: {', '.join(changes)}")
            values = changes[options.name]
        else:
            profile = options.profile
            values = notebooks.overrides_of(root, options.name, profile, options.set)
        out = (options.out or root / "build" / "alone").resolve()
        if not options.settings and out in [(root / "build" / one).resolve() for one in notebooks.PROFILES]:
            raise ValueError(f"--out: {out} is a folder of the book's builds; give another")
        out.mkdir(parents=True, exist_ok=True)
        execute(root, options.name, profile, out, values, options.digest)

    return jobs.run(work, f"Notebook {options.name}", options.status)


if __name__ == "__main__":
    sys.exit(main())
