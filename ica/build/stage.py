"""Lay out the folder that the site is built from: sources, executed notebooks and records in one place.

The staged folder mirrors the repository (`_config.yml`, `_toc.yml`, `book/`, `notebooks/`), so that links to
sources keep their true paths. Its notebooks are the stored ones, prose and all, with the outputs of the last
run; what the runs recorded lies under `_record/`, where the Sphinx extension reads it.

Of a cell's outputs a page shows text, without what steers a terminal, and PNG drawings, and it knows the numbers that
the run glued. Anything else (HTML, markdown, LaTeX, scripts, widgets) would be obeyed by page or browser, so it is left
out where the cell gave its text too, and refused where it did not. Of a record the site gets the files of a Record.
"""

import ast
import base64
import binascii
import copy
import json
import re
import shutil
import tomllib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell, new_output

from ica.build import faults, mutants, notebooks, peaks, reference
from ica.record.outside import plain_text
from ica.record.provenance import git, no_repository, write_json

CLAIM_CALLS = ("claim", "untestable")
GLUED = "application/papermill.record/text/plain"
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# All that IPython says in words of HTML, markdown, LaTeX or a script.
NAMELESS = re.compile(r"<[\w.]+ object( at \w+)?>")
PNG = b"\x89PNG\r\n\x1a\n"
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
# The files of a Record, by their paths in its folder.
RECORDED = re.compile(
    r"(claims|numbers|run)\.json"
    r"|figures/[a-z][a-z0-9-]*(\.svg|\.dark\.svg|\.pdf|\.png|\.csv|\.json)"
    r"|(tables|timed)/[a-z][a-z0-9-]*(\.csv|\.json)"
)
IGNORED = shutil.ignore_patterns("__pycache__", ".*")


def claims_in(source: str) -> list[str]:
    """Ids of the claims that a cell records by a literal `record.claim("id"` or `.untestable("id"`, or hands after the
    record to a function of claims, `stated_claims.pair(record, "id", "other", ...)`."""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    except SyntaxError:  # a cell with IPython's own syntax
        return []
    found = []
    for call in calls:
        name, first = call.func, call.args[0]
        if isinstance(first, ast.Name) and first.id == "record" and "claims" in ast.unparse(name):
            texts = [isinstance(arg, ast.Constant) and isinstance(arg.value, str) for arg in call.args[1:]]
            found += [arg.value for arg in call.args[1 : 1 + [*texts, False].index(False)]]
            continue
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


def _is_png(content: object) -> bool:
    try:
        return base64.b64decode(content).startswith(PNG)
    except (TypeError, ValueError, binascii.Error):
        return False


def _text(content: object, where: str) -> str:
    """The words of an output; nbformat joins those that are stored as lines."""
    if not isinstance(content, str):
        raise ValueError(f"{where} has an output that is no text, but of type {type(content).__name__}")
    return plain_text(content)


def _glued(output: nbformat.NotebookNode, where: str) -> nbformat.NotebookNode:
    """A number or text that `Record.number` glued, and nothing beside it."""
    scrap, value = output.metadata["scrapbook"], None
    key = scrap.get("name") if isinstance(scrap, dict) else None
    with suppress(TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        value = ast.literal_eval(output.data.get(GLUED))
    if not (isinstance(key, str) and KEY.fullmatch(key) and isinstance(value, (int, float, str))):
        raise ValueError(f"{where} glues {key!r}, which is no number or text; glue with record.number")
    value = " ".join(plain_text(value).split("\n")) if isinstance(value, str) else value
    scrap = {"name": key, "mime_prefix": GLUED.removesuffix("text/plain")}
    return new_output("display_data", {GLUED: repr(value)}, metadata={"scrapbook": scrap})


def clean_output(output: nbformat.NotebookNode, where: str) -> nbformat.NotebookNode:
    """The output as a page may show it; ValueError naming `where` for what no page can show."""
    kind = output.output_type
    if kind == "stream":
        return new_output(
            "stream", name="stderr" if output.name == "stderr" else "stdout", text=_text(output.text, where)
        )
    if kind == "error":
        words = "\n".join(_text(line, where) for line in output.traceback)
        return new_output("stream", name="stderr", text=words)
    if "scrapbook" in output.get("metadata", {}):
        return _glued(output, where)
    if _is_png(output.data.get("image/png")):
        return new_output("display_data", {"image/png": output.data["image/png"]})
    words = _text(output.data.get("text/plain", ""), where)
    if not words or (len(output.data) > 1 and NAMELESS.fullmatch(words)):
        kinds = ", ".join(sorted(map(ascii, output.data))) or "nothing"
        raise ValueError(
            f"{where} shows {kinds}; a page takes text and PNG drawings. Print it, or record a figure or table"
        )
    return new_output("display_data", {"text/plain": words})


def _directive(name: str, cell_id: str) -> nbformat.NotebookNode:
    return new_markdown_cell(f"```{{{name}}}\n```", id=cell_id)


def merge(source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The stored notebook with the outputs of its run, targets at claims, and boxes on how it was run.

    The injected parameters never appear; where they differ from the cell shown, a note lists them.
    Raises ValueError where the run was of other code, or left an output that no page can show.
    """
    ran = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    page = copy.deepcopy(source)
    page.metadata["language_info"] = nbformat.from_dict(LANGUAGE)
    cells, seen = [], set()
    for cell in page.cells:
        if cell.cell_type == "code":
            if cell.id not in ran or ran[cell.id].source != cell.source:
                raise ValueError(f"notebook {name}: cell {cell.id} is not the one that was run; run it again")
            where = f"notebook {name}: cell {cell.id}"
            cell.outputs = [clean_output(output, where) for output in ran[cell.id].outputs]
            cell.execution_count = None
            for claim in claims_in(cell.source):
                if claim not in seen:
                    cells.append(new_markdown_cell(f"(claim-{claim})=", id=f"target-{claim}"[:64]))
                    seen.add(claim)
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []) and changed_parameters(source, executed, name):
            cells.append(_directive("run-parameters", "run-parameters"))
    page.cells = [*cells, _directive("run-record", "run-record")]
    return page


def copy_record(record: Path, target: Path) -> None:
    """Copy the files of a Record, and no other. Raises ValueError where there is none, and for a link, which could lead out."""
    if not (record / "run.json").is_file():
        raise ValueError(f"{record}: there is no record of a run here; build again")
    for file in (record, *sorted(record.rglob("*"))):
        if file.is_symlink():
            raise ValueError(f"{file}: a record holds files, not links; remove it and build again")
        name = file.relative_to(record).as_posix()
        if file.is_file() and RECORDED.fullmatch(name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)


def version(root: Path) -> str:
    """Version of the project, from `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def state(root: Path) -> dict:
    """Version, commit (None outside git), and whether the sources differ from that commit."""
    return {
        "version": version(root),
        "commit": git(root, "rev-parse", "--verify", "HEAD"),
        "no_commit": no_repository(root),
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
        copy_record(out / "record" / name, record)
        source = notebooks.read(root, name)
        executed = nbformat.read(out / "executed" / f"{name}.ipynb", as_version=4)
        shutil.copy(notebooks.path(root, name), record / "source.ipynb")
        facts = page_facts(source, executed, name)
        _check_targets(name, facts["targets"], read_json(record / "claims.json"))
        write_json(record / "page.json", facts)
        nbformat.write(merge(source, executed, name), site / "notebooks" / f"{name}.ipynb")
    shutil.copy(out / "claims.json", site / "_record" / "claims.json")
    shutil.copy(out / "paper_claims.json", site / "_record" / "paper.json")
    write_json(site / "_record" / "faults.json", [asdict(fault) for fault in faults.read(root)])
    write_json(site / "_record" / "peaks.json", peaks.gather(out))
    write_json(site / "_record" / "verified.json", reference.shown(root))
    write_json(site / "_record" / "mutants.json", mutants.kept(root))
    write_json(site / "_record" / "site.json", state(root) | {"profile": out.name})
    return site


def read_json(path: Path) -> object:
    """The JSON value in the file."""
    return json.loads(path.read_text(encoding="utf-8"))
