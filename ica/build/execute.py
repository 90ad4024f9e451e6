"""Run one notebook in its own process and keep what it leaves only where it ran to the end.

`python -m ica.build.execute NAME --profile ci --out DIR` writes DIR/executed/NAME.ipynb and
DIR/record/NAME/ on success. On failure it leaves both as they were, and its stderr ends with the
notebook's name, the cell and the traceback (also kept as DIR/status/NAME.failure).
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from ica.build import notebooks
from ica.record.provenance import write_json

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# One thread and fixed dispatch: the same machine gives the same bits again.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_CBWR": "AUTO",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
}


class Failed(Exception):
    """A notebook did not run to its end; the message is the report to show."""


def plain(text: str, stream: object = None) -> str:
    """The text, without colour codes unless the stream is a terminal."""
    return text if stream is not None and stream.isatty() else ANSI.sub("", text)


def _prepare_environment(root: Path, name: str, profile: str, output: Path, scratch: Path) -> None:
    """Environment of the kernel: this checkout's `ica`, no settings of the user's own Jupyter or IPython."""
    os.environ.pop("JUPYTER_PATH", None)
    os.environ.update(ENVIRONMENT)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update(
        PYTHONPATH=os.pathsep.join(paths),
        IPYTHONDIR=str(scratch / "ipython"),
        ICA_OUTPUT=str(output),
        ICA_PROFILE=profile,
    )


def _failing_cell(partial: Path, source: nbformat.NotebookNode) -> tuple[str, str, str]:
    """Where the run stopped: a phrase naming the cell, its source, and the traceback stored with it."""
    if not partial.is_file():
        return "before its first cell", "", ""
    order = [cell.id for cell in source.cells]
    for cell in nbformat.read(partial, as_version=4).cells:
        status = cell.metadata.get("papermill", {}).get("status")
        if cell.cell_type != "code" or status not in ("failed", "running"):
            continue
        where = (
            f"cell {order.index(cell.id) + 1} of {len(order)}" if cell.id in order else "the injected cell"
        )
        errors = [output for output in cell.outputs if output.output_type == "error"]
        return (
            f"in {where} (id {cell.id})",
            cell.source,
            "\n".join(line for e in errors for line in e.traceback),
        )
    return "outside its cells", "", ""


def _report(name: str, source: nbformat.NotebookNode, partial: Path, error: BaseException) -> str:
    where, code, traceback = _failing_cell(partial, source)
    lines = [f"Notebook notebooks/{name}.ipynb failed {where}."]
    if code:
        lines += ["", *(f"    {line}" for line in code.splitlines())]
    return "\n".join([*lines, "", traceback or f"{type(error).__name__}: {error}"]).rstrip() + "\n"


def _run(root: Path, name: str, values: notebooks.Parameters, scratch: Path) -> Path:
    """Papermill the notebook into the scratch folder; the executed file. Raises Failed with the report."""
    import papermill  # takes a second to load; the argument checks above it should not wait

    source, target = notebooks.read(root, name), scratch / f"{name}.ipynb"
    try:
        papermill.execute_notebook(
            str(notebooks.path(root, name)),
            str(target),
            parameters=values,
            kernel_name=notebooks.KERNEL,
            progress_bar=False,
            log_output=False,
            cwd=str(root / "notebooks"),
            start_timeout=180,
        )
    except Exception as error:  # any end but success is reported alike: an error, a dead kernel, no kernel
        raise Failed(_report(name, source, target, error)) from error
    return target


def execute(root: Path, name: str, profile: str, out: Path, values: notebooks.Parameters) -> float:
    """Run the notebook with the parameter values that differ from its own; the wall time in seconds.

    Raises Failed with the report where a cell fails; nothing of such a run is kept.
    """
    started = time.time()
    status = out / "status" / f"{name}.json"
    failure = status.with_suffix(".failure")
    failure.unlink(missing_ok=True)
    write_json(status, {"state": "running", "started": started})
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
    try:
        record = scratch / "record"
        record.mkdir()
        _prepare_environment(root, name, profile, record, scratch)
        executed = _run(root, name, values, scratch)
        _keep(record, out / "record" / name)
        (out / "executed").mkdir(exist_ok=True)
        os.replace(executed, out / "executed" / f"{name}.ipynb")
    except BaseException as error:
        if isinstance(error, Failed):
            failure.write_text(str(error), encoding="utf-8")
        write_json(status, {"state": "failed", "started": started, "seconds": time.time() - started})
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.time() - started
    write_json(status, {"state": "done", "started": started, "seconds": seconds})
    return seconds


def _keep(record: Path, final: Path) -> None:
    """Put the finished record in the place of the one before."""
    final.parent.mkdir(exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(record, final)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ica.build.execute", description="Run one notebook.")
    parser.add_argument("name", help="name of the notebook, without folder and suffix")
    parser.add_argument("--profile", default="ci", help=f"one of {', '.join(notebooks.PROFILES)}")
    parser.add_argument(
        "--out", type=Path, help="output folder (default: build/alone, which no build of the book reads)"
    )
    parser.add_argument("--set", default="", metavar="'name=value ...'", help="parameters to override")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        changes = notebooks.overrides(root, options.profile, options.set)
        if options.name not in changes:
            raise ValueError(f"name: no notebook {options.name!r}; there are: {', '.join(changes)}")
        out = (options.out or root / "build" / "alone").resolve()
        out.mkdir(parents=True, exist_ok=True)
        seconds = execute(root, options.name, options.profile, out, changes[options.name])
    except (ValueError, Failed) as error:
        print(plain(str(error), sys.stderr), file=sys.stderr)
        return 1
    print(f"{options.name}: {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
