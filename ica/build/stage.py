"""Lay out the folder that the site is built from: sources, executed notebooks and records in one place.

The staged folder mirrors the repository (`_config.yml`, `_toc.yml`, `book/`, `notebooks/`), so that links to
sources keep their true paths. Its notebooks are the stored ones, prose and all, with the outputs of the last
run; what the runs recorded lies under `_record/`, where the Sphinx extension reads it.
"""

import ast
import copy
import json
import shutil
import tomllib
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

from ica.build import notebooks
from ica.record.provenance import git, write_json

CLAIM_CALLS = ("claim", "untestable")
IGNORED = shutil.ignore_patterns("__pycache__", ".*")


def claims_in(source: str) -> list[str]:
    """Ids of the claims that a cell records by a literal `record.claim("id"` or `.untestable("id"`."""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    except SyntaxError:  # a cell with IPython's own syntax
        return []
    found = []
    for call in calls:
        name, first = call.func, call.args[0]
        if not (
            isinstance(name, ast.Attribute) and name.attr in CLAIM_CALLS and isinstance(first, ast.Constant)
        ):
            continue
        if isinstance(name.value, ast.Name) and name.value.id == "record" and isinstance(first.value, str):
            found.append(first.value)
    return found


def changed_parameters(
    source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str
) -> dict[str, dict]:
    """Parameters whose value in the run is not that of the notebook's cell: {name: {"cell", "run"}}."""
    own = notebooks.declared(source, name)
    used = executed.metadata.get("papermill", {}).get("parameters", {})
    return {key: {"cell": own[key], "run": value} for key, value in used.items() if value != own.get(key)}


def page_facts(source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str) -> dict:
    """What the page says beyond the record: changed parameters, claims with a cell, wall time in s."""
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    return {
        "changed": changed_parameters(source, executed, name),
        "targets": sorted({claim for cell in code for claim in claims_in(cell)}),
        "seconds": executed.metadata.get("papermill", {}).get("duration"),
    }


def _check_targets(name: str, targets: list[str], measured: list[dict]) -> None:
    """Every claim must be recorded under its literal id, or the ledger could not link to the cell."""
    if missing := sorted({claim["id"] for claim in measured} - set(targets)):
        raise ValueError(
            f"notebook {name}: no cell records claim {missing[0]!r} by its literal id, as in "
            f'record.claim("{missing[0]}", ...), so nothing could link to it'
        )


def _directive(name: str, cell_id: str) -> nbformat.NotebookNode:
    return new_markdown_cell(f"```{{{name}}}\n```", id=cell_id)


def merge(source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The stored notebook with the outputs of its run, targets at claims, and boxes on how it was run.

    The injected parameters never appear; where they differ from the cell shown, a note lists them.
    Raises ValueError where the run was of other code.
    """
    ran = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    page = copy.deepcopy(source)
    page.metadata.update({key: executed.metadata[key] for key in ("kernelspec", "language_info")})
    cells, seen = [], set()
    for cell in page.cells:
        if cell.cell_type == "code":
            if cell.id not in ran or ran[cell.id].source != cell.source:
                raise ValueError(f"notebook {name}: cell {cell.id} is not the one that was run; run it again")
            cell.outputs, cell.execution_count = ran[cell.id].outputs, None
            for claim in claims_in(cell.source):
                if claim not in seen:
                    cells.append(new_markdown_cell(f"(claim-{claim})=", id=f"target-{claim}"[:64]))
                    seen.add(claim)
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []) and changed_parameters(source, executed, name):
            cells.append(_directive("run-parameters", "run-parameters"))
    page.cells = [*cells, _directive("run-record", "run-record")]
    return page


def version(root: Path) -> str:
    """Version of the project, from `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def state(root: Path) -> dict:
    """Version, commit (None outside git), and whether the sources differ from that commit."""
    return {
        "version": version(root),
        "commit": git(root, "rev-parse", "--verify", "HEAD"),
        "dirty": bool(git(root, "status", "--porcelain")),
    }


def stage(root: Path, out: Path) -> Path:
    """Write `out`/site from the sources in `root` and the runs in `out`; the staged folder.

    Raises ValueError where a run is missing or of other code.
    """
    site = out / "site"
    shutil.rmtree(site, ignore_errors=True)
    (site / "notebooks").mkdir(parents=True)
    for file in ("_config.yml", "_toc.yml"):
        shutil.copy(root / file, site / file)
    shutil.copytree(root / "book", site / "book", ignore=IGNORED)
    for name in notebooks.listed(root):
        record = site / "_record" / name
        shutil.copytree(out / "record" / name, record)
        source = notebooks.read(root, name)
        executed = nbformat.read(out / "executed" / f"{name}.ipynb", as_version=4)
        shutil.copy(notebooks.path(root, name), record / "source.ipynb")
        facts = page_facts(source, executed, name)
        _check_targets(name, facts["targets"], read_json(record / "claims.json"))
        write_json(record / "page.json", facts)
        nbformat.write(merge(source, executed, name), site / "notebooks" / f"{name}.ipynb")
    shutil.copy(out / "claims.json", site / "_record" / "claims.json")
    shutil.copy(out / "paper_claims.json", site / "_record" / "paper.json")
    write_json(site / "_record" / "site.json", state(root) | {"profile": out.name})
    return site


def read_json(path: Path) -> object:
    """The JSON value in the file."""
    return json.loads(path.read_text(encoding="utf-8"))
