"""The ledger: what all runs measured, judged (`python -m ica.build.ledger` writes it).

A part of the book is one family for the Benjamini-Hochberg adjustment of the p of its stochastic claims.
"""

import json
from pathlib import Path

from scipy.stats import false_discovery_control

from ica.record import claims, paper
from ica.record.provenance import write_json


def adjust(rows: list[dict]) -> None:
    """Add `q` to every row: p adjusted after Benjamini and Hochberg over the stochastic parts of one part of the book."""
    for family in {row["part"] for row in rows}:
        found = [(row, name) for row in rows if row["part"] == family for name in row["p"]]
        adjusted = false_discovery_control([row["p"][name] for row, name in found]) if found else []
        for (row, name), q in zip(found, adjusted, strict=True):
            row.setdefault("q", {})[name] = float(q)
    for row in rows:
        row.setdefault("q", {})


def _read(file: Path, kind: type) -> dict | list:
    """What a run left in a file; ValueError naming the file where it cannot be that."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, kind) and (kind is list or "notebook" in found):
            return found
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is missing or damaged ({type(error).__name__}); run the notebook again"
        ) from error
    raise ValueError(f"{file} is damaged; run the notebook again")


def collect(record_folders: list[Path], registry: dict[str, claims.Claim]) -> list[dict]:
    """Return the rows of all runs in registry order; a folder holds one notebook's `run.json`, `claims.json`.

    ValueError for an id that is not registered, is recorded by another notebook than its own or twice, for a
    value that is not finite, and for a registered claim that its notebook ran without recording. Claims of
    notebooks without a folder are left out.
    """
    found: dict[str, dict] = {}
    ran: set[str] = set()
    for folder in map(Path, record_folders):
        notebook = _read(folder / "run.json", dict)["notebook"]
        if notebook in ran:
            raise ValueError(f"{folder}: a second record of notebook {notebook}; give each notebook once")
        ran.add(notebook)
        for measurement in _read(folder / "claims.json", list):
            id = measurement["id"]
            if id not in registry:
                raise ValueError(f"notebook {notebook}: claim {id} is not registered in ica/record/registry")
            if registry[id].notebook != notebook:
                raise ValueError(
                    f"notebook {notebook}: claim {id} belongs to notebook {registry[id].notebook}"
                )
            if id in found:
                raise ValueError(f"notebook {notebook}: claim {id} is recorded twice")
            found[id] = claims.row(registry[id], measurement)
    if forgotten := [c for c in registry.values() if c.notebook in ran and c.id not in found]:
        raise ValueError(f"notebook {forgotten[0].notebook} ran but did not record claim {forgotten[0].id}")
    rows = [found[id] for id in registry if id in found]
    adjust(rows)
    return rows


def write(folders: list[Path], out: Path, paper_out: Path) -> str:
    """Collect record folders, judge, and write both files; how many claims there are, in words.

    Raises:
        ValueError: as `collect` and `paper.judge` say; nothing is written then. OSError: a file that cannot be read or written.
    """
    registry = claims.load()
    rows = collect(folders, registry)
    items = paper.judge(paper.load(registry), rows)
    write_json(out, rows)
    write_json(paper_out, items)
    left_out = len(registry) - len(rows)
    return f"{len(rows)} claims of {len(folders)} notebooks" + (f"; {left_out} not run" if left_out else "")
