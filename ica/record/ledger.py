"""The ledger: what all runs measured, judged: `python -m ica.record.ledger RECORD_DIR... --out FILE --paper FILE`.

A part of the book is one family for the Benjamini-Hochberg adjustment of the p of its stochastic claims.
"""

import argparse
import json
import sys
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


def collect(record_folders: list[Path], registry: dict[str, claims.Claim]) -> list[dict]:
    """Return the rows of all runs in registry order; a folder holds one notebook's `run.json`, `claims.json`.

    ValueError for an id that is not registered, is recorded by another notebook than its own or twice, for a
    value that is not finite, and for a registered claim that its notebook ran without recording. Claims of
    notebooks without a folder are left out.
    """
    found: dict[str, dict] = {}
    ran: set[str] = set()
    for folder in map(Path, record_folders):
        notebook = json.loads((folder / "run.json").read_text(encoding="utf-8"))["notebook"]
        if notebook in ran:
            raise ValueError(f"{folder}: a second record of notebook {notebook}; give each notebook once")
        ran.add(notebook)
        for measurement in json.loads((folder / "claims.json").read_text(encoding="utf-8")):
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


def main(arguments: list[str] | None = None) -> int:
    """Collect record folders into two files: python -m ica.record.ledger RECORD_DIR... --out FILE --paper FILE."""
    parser = argparse.ArgumentParser(
        prog="python -m ica.record.ledger", description="Collect claims and give verdicts."
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RECORD_DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--paper", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        registry = claims.load()
        rows = collect(options.folders, registry)
        items = paper.judge(paper.load(registry), rows)
    except (ValueError, OSError) as error:
        print(f"claims: {error}", file=sys.stderr)
        return 1
    write_json(options.out, rows)
    write_json(options.paper, items)
    left_out = len(registry) - len(rows)
    print(
        f"{len(rows)} claims of {len(options.folders)} notebooks"
        + (f"; {left_out} not run" if left_out else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
