"""What an earlier build left is whole, or it is made again: the Snakefile calls `mend` once as a build begins.

Snakemake itself looks at names, times and parameters only: a file cut short, or a run made by hand with other settings, would
pass for up to date.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ica.record import seals


@dataclass(frozen=True)
class Unit:
    """Files that are made together.

    `faults` says why they cannot be taken as they are (no phrase: they can); `stale`, that they are of other sources or settings,
    as after any edit, which is worth no word.
    """

    name: str
    outputs: tuple[Path, ...]
    faults: Callable[[], list[str]]
    stale: Callable[[], bool] = lambda: False


def sealed(name: str, outputs: tuple[Path, ...], seal: Path, **about: str) -> Unit:
    """A unit with a seal, which must have been made with `about`."""
    return Unit(
        name,
        (*outputs, seal),
        lambda: seals.faults(seal),
        lambda: any(seals.about(seal).get(key) != value for key, value in about.items()),
    )


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mend(units: Iterable[Unit]) -> list[str]:
    """Remove every unit of which something is there and something is wrong; a line for each, for the screen.

    Raises:
        OSError: it cannot be removed.
    """
    lines = []
    for unit in units:
        there = [path for path in unit.outputs if path.exists() or path.is_symlink()]
        if not there:
            continue
        found = unit.faults()
        if found or unit.stale():
            for path in there:
                remove(path)
        if found:
            lines.append(f"{unit.name} is made again: {'; '.join(found[:3])}{'; ...' if found[3:] else ''}")
    return lines
