"""`make book` in a fresh clone: from nothing, with nothing changed, after one change of prose, after one of a notebook."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat

from ica.bench.settings import NAMES
from ica.bench.timing import Case, Way

# What a make around this one has set, and what is meant for this command alone.
OUTER = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKE_TERMOUT", "MAKE_TERMERR", *NAMES)
PAGE, NOTEBOOK = "book/glossary.md", "notebooks/alignment.ipynb"


def cases(source: Path) -> Iterator[Case]:
    """Clone the checkout's commit and build it there, each build a case of its own, in this order; the first installs the packages.

    Raises:
        ValueError: the clone cannot be made, or a build fails, with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        root = Path(place) / "clone"
        called(["git", "clone", "--quiet", str(source), str(root)], Path(place))
        yield from builds(root, ["make", "book"])


def builds(root: Path, command: Sequence[str], page: str = PAGE, notebook: str = NOTEBOOK) -> Iterator[Case]:
    """The builds of a clone; between two of them its page or notebook is changed."""
    yield once("from nothing", root, command, 420.0)
    yield once("nothing changed", root, command)
    with (root / page).open("a", encoding="utf-8") as file:
        file.write("\n\nOne more sentence.\n")
    yield once("one change of prose", root, command, 15.0)
    found = nbformat.read(root / notebook, as_version=4)
    [cell for cell in found.cells if cell.cell_type == "code"][-1].source += "\n_ = 0"
    nbformat.write(found, root / notebook)
    yield once("one change of a notebook", root, command)


def once(name: str, root: Path, command: Sequence[str], goal: float = 0.0) -> Case:
    """A case that runs the command once."""
    way = Way(" ".join(command[:2]), lambda: called(command, root), goal=goal)
    return Case(name, "build", (way,), repeats=1, warm=True)


def called(command: Sequence[str], root: Path) -> None:
    """Run it in the folder, answers of language models kept beside it; ValueError with its last line if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in OUTER}
    environment["ICA_CALLS"] = str(root.parent / "calls")
    done = subprocess.run(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stdout.strip().splitlines() or ["it says nothing"]
        raise ValueError(f"`{' '.join(command)}` failed in a clone: {said[-1]}")
