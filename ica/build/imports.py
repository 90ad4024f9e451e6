"""Which `ica` modules a notebook stands on, by reading the sources (nothing is imported or run)."""

import ast
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "ica"


def module_file(root: Path, module: str) -> Path | None:
    """File of a module below `root`, or None where the name is no module of the package."""
    base = root.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _with_packages(module: str) -> list[str]:
    """The module and the packages above it, whose `__init__` runs first: a.b.c -> a, a.b, a.b.c."""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Dotted names that one import statement may load; `package` resolves the leading dots."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parts = package.split(".") if node.level else []
    parts = parts[: len(parts) - (node.level - 1)] if node.level else []
    base = ".".join([*parts, *([node.module] if node.module else [])])
    # `from a import b` loads a, and a.b too where that is a module.
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def direct(source: str, root: Path, package: str = "") -> set[str]:
    """Modules of the package that `source` imports by itself, the packages above them included.

    A source that does not parse has no imports: running it is what reports the error.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _names(node, package):
                if name.split(".")[0] == PACKAGE:
                    found.update(part for part in _with_packages(name) if module_file(root, part))
    return found


def closure(sources: Iterable[str], root: Path) -> list[str]:
    """Every module of the package that the sources import, directly or through another one; sorted."""
    waiting = set().union(*(direct(source, root) for source in sources))
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        found.add(module)
        path = module_file(root, module)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting |= direct(path.read_text(encoding="utf-8"), root, package) - found
    return sorted(found)
