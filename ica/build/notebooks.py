"""Notebooks as stored: their cells, the parameters they declare, the digest of what a run depends on.

`python -m ica.build.notebooks` prints, for each notebook of the book, the modules it depends on.
"""

import ast
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import nbformat
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from ica.build import imports
from ica.record import parameters

PROFILES = ("ci", "paper")
KERNEL = "python3"
RUN = re.compile(r"([\w-]+/)?[\w-]+")  # a training run, with its scale or without
# Changing one of these may change a computed number; the other pinned packages only print and draw.
NUMERICAL = ("numpy", "pandas", "scipy", "sympy", "torch")

Parameters = dict[str, object]


def files(entry: object) -> list[str]:
    """All values of `file` in an entry of a table of contents, sections included, in order."""
    if isinstance(entry, list):
        return [name for item in entry for name in files(item)]
    if not isinstance(entry, dict):
        return []
    own = [str(entry["file"])] if "file" in entry else []
    return own + [name for value in entry.values() for name in files(value)]


def pages(root: Path) -> list[str]:
    """Every page of `_toc.yml`, root page first, as written there (no suffix); ValueError where it is no such table."""
    try:
        toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
        return [str(toc["root"]), *files(toc)]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"_toc.yml is missing or no table of contents ({type(error).__name__}: {reason})"
        ) from error


def listed(root: Path) -> list[str]:
    """Names of the notebooks in `_toc.yml`, in reading order.

    Raises ValueError where a listed notebook has no file.
    """
    names = [Path(page).name for page in pages(root) if Path(page).parent.name == "notebooks"]
    for name in names:
        if not path(root, name).is_file():
            raise ValueError(
                f"_toc.yml: notebooks/{name} is listed, but there is no file notebooks/{name}.ipynb"
            )
    return names


def path(root: Path, name: str) -> Path:
    """File of the stored notebook."""
    return root / "notebooks" / f"{name}.ipynb"


def read(root: Path, name: str) -> nbformat.NotebookNode:
    """The stored notebook; ValueError where its file is none."""
    try:
        return nbformat.read(path(root, name), as_version=4)
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"notebooks/{name}.ipynb is missing or no notebook ({type(error).__name__}: {reason})"
        ) from error


def tagged(nb: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    """Cells that carry the tag."""
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def python_cells(nb: nbformat.NotebookNode) -> list[str]:
    """Sources of the code cells as plain Python, as IPython itself reads its own syntax (%, !, ?)."""
    cells = [re.sub(r"\A\s*%%.*", "", cell.source) for cell in nb.cells if cell.cell_type == "code"]
    return [TransformerManager().transform_cell(source) for source in cells]


def declared(nb: nbformat.NotebookNode, name: str) -> Parameters:
    """Parameters of the notebook and their defaults, from its one cell tagged `parameters`.

    Raises ValueError unless there is exactly one such cell and it only assigns literals.
    """
    cells = tagged(nb, "parameters")
    if len(cells) != 1:
        raise ValueError(f"notebook {name}: {len(cells)} cells tagged 'parameters'; exactly one is accepted")
    values: Parameters = {}
    try:
        body = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise ValueError(f"notebook {name}: parameters cell is no Python ({error})") from error
    for statement in body:
        try:
            (target,) = statement.targets
            values[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError) as error:
            line = ast.unparse(statement)
            raise ValueError(
                f"notebook {name}: parameters cell holds `{line}`; only `name = literal` is accepted"
            ) from error
    return values


def runs(root: Path, name: str) -> list[str]:
    """Training runs that the notebook reads, from its metadata `{"ica": {"runs": [...]}}`.

    Each is "base", at the scale of the notebook's parameter `scale`, or "stated/base", at that scale whatever
    the parameter is; ValueError for anything else.
    """
    found = read(root, name).metadata.get("ica", {}).get("runs", [])
    for text in found if isinstance(found, list) else [None]:
        if not isinstance(text, str) or not RUN.fullmatch(text):
            raise ValueError(
                f'notebook {name}: runs must be a list of names as "base" or "stated/base", got {found!r}'
            )
    return list(found)


def long(root: Path, name: str) -> bool:
    """Does the notebook say that it takes a minute or more, in its metadata `{"ica": {"long": true}}`?"""
    return bool(read(root, name).metadata.get("ica", {}).get("long", False))


def _fits(default: object, value: object) -> bool:
    if default is None or type(value) is type(default):
        return True
    if isinstance(default, float):
        return type(value) is int
    return isinstance(default, list | tuple) and isinstance(value, list | tuple)


def _check(where: str, name: str, key: str, value: object, default: object) -> None:
    """ValueError unless the value is of the default's type and one that the notebook accepts."""
    if wrong := parameters.fault(name, key, value):
        hint = " (in YAML write 1.0e-3, not 1e-3)" if isinstance(value, str) and "profiles" in where else ""
        raise ValueError(f"{where}: {wrong}{hint}")
    if not _fits(default, value):
        raise ValueError(
            f"{where}: parameter {key} = {parameters.shown(value)} of notebook {name} is of type {type(value).__name__}; "
            f"accepted: {type(default).__name__}, as its default {default!r}"
            + (" (in YAML write 1.0e-3, not 1e-3)" if isinstance(value, str) else "")
        )


def _literal(word: str) -> object:
    """A word as a Python literal or a truth value, or else as text."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(word, word)


def assignments(text: str) -> Parameters:
    """`"seed=3 sizes=[2,4]"` as a dict; a value is a Python literal, or else text; what is always text stays as written.

    Raises ValueError for anything but name=value, and for a name given twice.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"SET: {parameters.shown(text)} cannot be split into name=value: {error}") from error
    found: Parameters = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key.isidentifier()):
            raise ValueError(f"SET: {parameters.shown(word)} is not of the form name=value")
        if key in found:
            raise ValueError(f"SET: {key} is given twice")
        found[key] = value if key in parameters.TEXTS else _literal(value)
    return found


def _profiles(root: Path, known: Mapping[str, Parameters]) -> dict[str, dict[str, Parameters]]:
    """`notebooks/profiles.yml`, checked against what the notebooks declare and accept."""
    try:
        table = yaml.safe_load((root / "notebooks" / "profiles.yml").read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"profiles.yml: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(table, dict):
        raise ValueError(f"profiles.yml: must map profiles to notebooks, got {parameters.shown(table)}")
    for profile, entries in table.items():
        if profile not in PROFILES:
            raise ValueError(f"profiles.yml: unknown profile {profile!r}; accepted: {', '.join(PROFILES)}")
        if not isinstance(entries or {}, dict):
            raise ValueError(f"profiles.yml: {profile} must map notebooks to parameters, got {entries!r}")
        for name, values in (entries or {}).items():
            if not isinstance(values or {}, dict):
                raise ValueError(f"profiles.yml: {name} must map parameters to values, got {values!r}")
            if name not in known:
                raise ValueError(f"profiles.yml: no notebook {name!r}; {parameters.meant(name, known)}")
            for key, value in (values or {}).items():
                if key not in known[name]:
                    raise ValueError(
                        f"profiles.yml: notebook {name} declares no parameter {key!r}; "
                        f"{parameters.meant(key, known[name])}"
                    )
                _check(f"profiles.yml ({profile})", name, key, value, known[name][key])
    return {profile: table.get(profile) or {} for profile in PROFILES}


def _known(root: Path, profile: str) -> dict[str, Parameters]:
    """Notebook -> parameter -> default; ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"PROFILE: unknown profile {profile!r}; {parameters.meant(profile, PROFILES)}")
    return {name: declared(read(root, name), name) for name in listed(root)}


def _changed(name: str, defaults: Parameters, values: Parameters, changes: Parameters) -> Parameters:
    """What of the profile's values and the changes differs from the defaults."""
    for key, value in changes.items():
        _check("SET", name, key, value, defaults[key])
    return {key: value for key, value in {**values, **changes}.items() if value != defaults[key]}


def overrides(root: Path, profile: str, settings: str | Mapping[str, object] = "") -> dict[str, Parameters]:
    """For each notebook the parameters that differ from its own cell, by the profile and then by `settings`.

    Args:
        settings: as `assignments` reads them, or read already; of those each notebook takes what it declares.

    Raises ValueError for an unknown profile, a parameter that no notebook declares, a value that one does not accept.
    """
    known = _known(root, profile)
    table = _profiles(root, known)[profile]
    changes = assignments(settings) if isinstance(settings, str) else settings
    every = set().union(*known.values())
    for key in changes:
        if key not in every:
            raise ValueError(
                f"SET: no notebook declares the parameter {key!r}; {parameters.meant(key, every)}"
            )
    return {
        name: _changed(
            name, defaults, table.get(name) or {}, {key: changes[key] for key in changes if key in defaults}
        )
        for name, defaults in known.items()
    }


def overrides_of(
    root: Path, name: str, profile: str, settings: str | Mapping[str, object] = ""
) -> Parameters:
    """As `overrides`, for one notebook, which must declare every parameter that is set.

    Raises ValueError also for a name of no notebook.
    """
    known = _known(root, profile)
    if name not in known:
        raise ValueError(f"name: no notebook {name!r}; {parameters.meant(name, known)}")
    changes = dict(assignments(settings) if isinstance(settings, str) else settings)
    for key in changes:
        if key not in known[name]:
            raise ValueError(
                f"SET: notebook {name} declares no parameter {key!r}; {parameters.meant(key, known[name])}"
            )
    return _changed(name, known[name], _profiles(root, known)[profile].get(name) or {}, changes)


def digest(root: Path, name: str, values: Parameters) -> str:
    """SHA-256 of all that a run depends on: code, parameters, kernel, modules, versions, data.

    Prose, outputs and cell metadata are not part of it, nor is any time stamp.
    """
    nb = read(root, name)
    modules = imports.closure(python_cells(nb), root)
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    globs = nb.metadata.get("ica", {}).get("inputs", [])
    data = sorted({file for glob in globs for file in root.glob(glob) if file.is_file()})
    parts = {
        "cells": [[cell.id, cell.source] for cell in nb.cells if cell.cell_type == "code"],
        "parameters": {**declared(nb, name), **values},
        "kernel": KERNEL,
        "modules": {module: _sha(imports.module_file(root, module)) for module in modules},
        "versions": [line for line in pins if line.partition("==")[0] in NUMERICAL],
        "inputs": {file.relative_to(root).as_posix(): _sha(file) for file in data},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    root = Path.cwd()
    for name in listed(root):
        print(f"{name}:", *imports.closure(python_cells(read(root, name)), root), sep="\n  ")


if __name__ == "__main__":
    main()
