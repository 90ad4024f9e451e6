"""What an earlier build left is whole, or it is made again: the Snakefile calls `mend` once as a build begins.

Snakemake itself looks at names, times and parameters only: a file cut short, or a run made by hand with other settings, would
pass for up to date.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ica.record import seals
from ica.record.provenance import write_json


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
    seal: Path | None = None
    digest: str = ""


def sealed(name: str, outputs: tuple[Path, ...], seal: Path, digest: str) -> Unit:
    """A unit with a seal, which must be of this digest of all that it is made from."""
    return Unit(
        name, (*outputs, seal), lambda: seals.faults(seal), lambda: _other(seal, digest), seal, digest
    )


def _other(seal: Path, digest: str) -> bool:
    return seals.about(seal).get("digest") != digest


def want(units: Iterable[Unit], file: Path) -> Path:
    """Write down which seals a finished build has, and of which digest, for `unmade`."""
    return write_json(file, {unit.name: [str(unit.seal), unit.digest] for unit in units if unit.seal})


def unmade(file: Path) -> str:
    """What a build that ended without an error did not make, or not from these sources and settings; empty if nothing.

    So whatever Snakemake was told, and whoever wrote into its folder meanwhile, nothing else is published for the book.
    """
    if not file.is_file():
        return "Snakemake ended without a word and without having read the Snakefile; nothing was published."
    lines = []
    for name, (place, digest) in json.loads(file.read_text(encoding="utf-8")).items():
        seal = Path(place)
        if found := seals.faults(seal) or (["of other sources or settings"] if _other(seal, digest) else []):
            lines.append(f"  {name}: {found[0]}")
    return "\n".join(["Not made, so nothing was published:", *lines]) if lines else ""


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
