"""The house: where things live, which way imports point, and how long files, functions and cells are.

`ica/__init__.py` draws the map. `pytest tests -k imports` runs the rules of imports alone.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from ica.build import imports, notebooks
from ica.record import claims, paper

ROOT = Path(__file__).parents[1]
SOURCES = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in ("ica", "tests", "book/_ext", ".ci")}
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))
GROUND = ("checks", "intervals", "minimiser", "objectives", "transformer")
BELOW = ("ica", "ica.record", "ica.build")  # what every part may import
# Folder -> the folders that it may import besides itself.
ARROWS = {
    "ica": (),
    "ica.record": ("ica",),
    "ica.build": ("ica", "ica.record"),
    "ica.theory": BELOW,
    "ica.theory.constructions": (*BELOW, "ica.theory"),
    "ica.synthetic.task": BELOW,
    "ica.synthetic.training": (*BELOW, "ica.synthetic.task"),
    "ica.synthetic.analysis": (*BELOW, "ica.synthetic.task", "ica.synthetic.training"),
    "ica.llm.model": BELOW,
    "ica.llm.bbq": BELOW,
    "ica.llm.protocol": (*BELOW, "ica.llm.model", "ica.llm.bbq"),
    "ica.llm.analysis": (*BELOW, "ica.llm.model", "ica.llm.bbq", "ica.llm.protocol"),
    "ica.llm.jailbreak": (*BELOW, "ica.llm.model", "ica.llm.bbq", "ica.llm.protocol", "ica.llm.analysis"),
    "ica.llm.paper": (
        *BELOW,
        *(f"ica.llm.{name}" for name in ("model", "bbq", "protocol", "analysis", "jailbreak")),
    ),
    "ica.llm.taught": (
        *BELOW,
        *(f"ica.llm.{name}" for name in ("model", "bbq", "protocol", "analysis", "jailbreak")),
    ),
}
ARROWS["ica.bench"] = tuple(ARROWS)  # it measures all of it, and nothing imports it
FILE, FUNCTION, CELL, WIDTH = 400, 60, 30, 88


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules_in(sources: list[str], package: str = "") -> set[str]:
    """Modules that the sources import by themselves, without the packages that only hold them."""
    found = set().union(*(imports.direct(source, ROOT, package) for source in sources))
    return {name for name in found if imports.module_file(ROOT, name).name != "__init__.py"}


# Module -> modules that it imports. Packages hold a docstring alone, which a test below sees to.
GRAPH = {
    name_of(path): modules_in(
        [path.read_text(encoding="utf-8")], name_of(path.parent / "x").rpartition(".")[0]
    )
    for path in SOURCES["ica"]
    if path.name != "__init__.py"
}


def folder(module: str) -> str:
    return module.rpartition(".")[0]


# Imports


def test_imports_of_modules_make_no_circle():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail("circle: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize("room", sorted({folder(module) for module in GRAPH}))
def test_imports_point_down(room):
    assert room in ARROWS, f"{room} is no folder of the map in ica/__init__.py: {', '.join(ARROWS)}"
    wrong = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if folder(module) == room and folder(other) not in (room, *ARROWS[room])
    ]
    assert not wrong, f"{room} may import {', '.join(ARROWS[room]) or 'nothing'}, and not:\n" + "\n".join(
        wrong
    )


def test_imports_of_the_three_parts_are_apart():
    wrong = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in sorted(others)
        if len({module.split(".")[1], other.split(".")[1]} & set(claims.PARTS)) == 2
    ]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def parts() -> dict[str, str]:
    """The part of the book that each notebook belongs to, as its claims say."""
    return {claim.notebook: claim.part for claim in claims.load().values()}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_imports_of_a_notebook_are_from_its_part_the_ground_and_the_record(path, parts):
    part = parts.get(path.stem)
    if part is None:
        pytest.skip(f"no claim says which part of the book {path.stem} belongs to")
    cells = notebooks.python_cells(notebooks.read(ROOT, path.stem))
    allowed = (*GROUND, "record", part)
    wrong = [name for name in sorted(modules_in(cells)) if name.split(".")[1] not in allowed]
    assert not wrong, f"{path.stem} may import {', '.join(allowed)}, and not: {', '.join(wrong)}"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_imports_of_a_notebook_are_of_names_that_there_are(path):
    for source in notebooks.python_cells(nbformat.read(path, as_version=4)):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ica":
                file = imports.module_file(ROOT, node.module)
                defined = _defined(ast.parse(file.read_text(encoding="utf-8")))
                for alias in node.names:
                    found = alias.name in defined or imports.module_file(ROOT, f"{node.module}.{alias.name}")
                    assert found, f"{node.module} defines no {alias.name}"


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module defines by itself at its top."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
    return found


def test_imports_rules_see_what_they_forbid(tmp_path):
    """The rules above rest on `direct`, which must see imports in functions and relative ones."""
    for name in ("one", "two"):
        (tmp_path / "ica" / name).mkdir(parents=True)
        (tmp_path / "ica" / name / "__init__.py").touch()
        (tmp_path / "ica" / name / "deep.py").touch()
    source = "def f():\n    from ..two import deep\n"
    assert "ica.two.deep" in imports.direct(source, tmp_path, "ica.one")
    assert "ica.llm.model.load" in modules_in(["import ica.llm.model.load as load"])


# Files


def test_every_package_is_one_docstring():
    wrong = [
        relative(path)
        for path in SOURCES["ica"]
        if path.name == "__init__.py" and (len(read(path).body) != 1 or not ast.get_docstring(read(path)))
    ]
    missing = [
        relative(path.parent) for path in SOURCES["ica"] if not (path.parent / "__init__.py").is_file()
    ]
    assert not wrong and not missing, f"not one docstring: {wrong}; no __init__.py: {missing}"


def test_every_module_says_what_it_is():
    silent = [
        relative(path) for folder in SOURCES.values() for path in folder if not ast.get_docstring(read(path))
    ]
    assert not silent, ", ".join(silent)


def test_files_are_short():
    long = [
        f"{relative(path)}: {lines}"
        for folder in SOURCES.values()
        for path in folder
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE
    ]
    assert not long, f"longer than {FILE} lines: " + ", ".join(long)


def test_functions_are_short():
    long = [
        f"{relative(path)}: {node.name}, {node.end_lineno - node.lineno + 1}"
        for folder in SOURCES.values()
        for path in folder
        for node in ast.walk(read(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > FUNCTION
    ]
    assert not long, f"longer than {FUNCTION} lines: " + ", ".join(long)


def folders(root: Path) -> set[str]:
    return {path.parent.name for path in root.glob("*/*.py")}


@pytest.mark.slow  # a process of its own imports every test
def test_every_file_of_tests_is_collected():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found == {relative(path) for path in (ROOT / "tests").rglob("test_*.py")}


def test_tests_mirror_the_folders():
    assert folders(ROOT / "tests") == folders(ROOT / "ica")
    loose = {f"test_{name}.py" for name in (*GROUND, "house", "environment", "documents")}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} <= loose


# Notebooks


def code_cells() -> Iterator[tuple[str, list[str]]]:
    for path in STORED:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                yield f"{path.stem}, cell {cell.id}", cell.source.splitlines()


def test_code_cells_are_short():
    long = [f"{where}: {len(lines)}" for where, lines in code_cells() if len(lines) > CELL]
    assert not long, f"longer than {CELL} lines:\n" + "\n".join(long)


def test_code_cells_are_narrow():
    wide = [f"{where}: {line}" for where, lines in code_cells() for line in lines if len(line) > WIDTH]
    assert not wide, f"wider than {WIDTH} characters:\n" + "\n".join(wide)


# Documents


def test_map_of_the_package_names_every_folder_and_the_ground():
    drawn = ast.get_docstring(read(ROOT / "ica/__init__.py"))
    loose = {path.stem for path in (ROOT / "ica").glob("*.py")} - {"__init__"}
    assert loose == set(GROUND)
    assert loose | folders(ROOT / "ica") <= set(re.findall(r"`(\w+)`", drawn))
    deeper = {path.parent.name for path in (ROOT / "ica").glob("*/*/*.py")}
    assert deeper <= set(re.findall(r"`(?:\w+\.)?(\w+)`", drawn))
    assert {room.split(".")[-1] for room in ARROWS} == {"ica"} | folders(ROOT / "ica") - {
        "llm",
        "synthetic",
    } | deeper


def test_layout_of_the_readme_is_that_map():
    layout = (ROOT / "README.md").read_text(encoding="utf-8").split("## Layout")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", layout, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(?:ica/)?([\w.]+)/?`", row)}
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    top = {name for name in top if not name.endswith(".egg-info")} - {"ica"}
    assert folders(ROOT / "ica") | set(GROUND) | top - {"build"} <= named


def test_first_page_holds_the_papers_claims_and_each_points_at_a_page():
    """With the test of the small project, in which the directive shows every claim, each of the registry stands there."""
    items = paper.load(claims.load())
    if not items:
        pytest.skip("ica/record/paper.yml is not there")
    first = notebooks.pages(ROOT)[0]
    assert "```{paper-claims}" in (ROOT / f"{first}.md").read_text(encoding="utf-8")
    pages = set(notebooks.pages(ROOT))
    assert not [f"{item.id}: {item.page}" for item in items if item.page not in pages]
    for item in items:
        if item.figure:
            text = (ROOT / f"{item.page}.ipynb").read_text(encoding="utf-8")
            assert f"{{recorded-figure}} {item.figure}" in text, (
                f"{item.id}: {item.page} shows no {item.figure}"
            )
