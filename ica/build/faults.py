"""What was broken on purpose, read from the tests that do it: each carries `@pytest.mark.fault(kind, done, happens)`.

The sources are read, nothing is imported or run; so a row of the page cannot outlive its test. `python -m ica.build.faults` prints them.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from ica.record.provenance import project_root

KINDS = {
    "Text from outside": "what a model, a file or a machine says is shown as text and never obeyed",
    "Settings": "what a user sets reaches the notebooks as it was typed, or is refused before anything runs",
    "Results": "a result is complete or it is none; damage is named, and mended where it can be",
    "Ends": "however a process ends, nothing goes on behind it and the next call is right",
    "Input": "a wrong file, model or argument is named in one line, with what is accepted",
    "Surroundings": "other systems, folders, programs and users around the project change nothing, or are named",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is broken by a test: its kind, what is done, what happens, and the test (file::name); slow: by `make faults`."""

    kind: str
    done: str
    happens: str
    test: str
    slow: bool


def _mark(decorator: ast.expr) -> tuple[str, list[ast.expr]]:
    """Name and arguments of a pytest mark; ("", []) for any other decorator."""
    call = decorator if isinstance(decorator, ast.Call) else None
    name = ast.unparse(call.func if call else decorator)
    return (
        (name.removeprefix("pytest.mark."), call.args if call else []) if "pytest.mark." in name else ("", [])
    )


def _of(function: ast.FunctionDef, where: str) -> list[Fault]:
    marks = [_mark(decorator) for decorator in function.decorator_list]
    slow, found = any(name == "slow" for name, _ in marks), []
    for name, arguments in marks:
        if name != "fault":
            continue
        try:
            words = [ast.literal_eval(argument) for argument in arguments]
        except ValueError:
            words = []
        if len(words) != 3 or not all(isinstance(one, str) and one.strip() for one in words):
            raise ValueError(
                f"{where}::{function.name}: mark fault must have three literal texts: kind, done, happens"
            )
        if words[0] not in KINDS:
            raise ValueError(f"{where}::{function.name}: kind {words[0]!r}; accepted: {', '.join(KINDS)}")
        found.append(Fault(*words, f"{where}::{function.name}", slow))
    return found


def read(root: Path) -> list[Fault]:
    """All faults that the tests of a checkout close, by kind, then in the order of the files.

    Raises:
        ValueError: a mark that is malformed, or of a kind that there is not.
    """
    found = []
    for file in sorted((root / "tests").rglob("test_*.py")):
        where = file.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found += _of(node, where)
    return sorted(found, key=lambda fault: list(KINDS).index(fault.kind))


def main() -> int:
    for fault in read(project_root() or Path.cwd()):
        print(
            f"{fault.kind}: {fault.done} -> {fault.happens}\n    {fault.test}{' (slow)' if fault.slow else ''}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
