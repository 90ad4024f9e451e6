"""How much memory the jobs of a build took: `python -m ica.build.peaks build/ci --most 4` shows it, and fails where that is exceeded.

Each job writes its peak into its status (`ica.build.jobs`). A build runs only what changed, so the peaks of earlier builds are kept in
`build/<profile>/peaks.json`, one a job, the last one.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from ica.record.provenance import write_json

FILE = "peaks.json"
# By the first word of what a job calls itself.
KINDS = {
    "Notebook": "notebooks",
    "Training": "training runs",
    "Reading": "readings of language models",
    "Attacking": "stand-in for jailbreaks",
    "Fetching": "fetching of models and items",
    "Sweep": "sweeps",
    "paper-llm": "the paper's protocol for a language model",
    "The": "claims and site",
}


def gather(out: Path) -> dict[str, dict]:
    """Peaks of all jobs of a profile by name, those of the build that ran last among them: kind, peak (MiB), seconds."""
    found: dict[str, dict] = {}
    try:
        found = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut short: what is there now is what there is
        pass
    for file in sorted((out / "status").glob("*.json")):
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
            if one["state"] == "done":
                kind = KINDS[one["job"].split()[0]]
                found[file.stem] = {"kind": kind, "peak": one["peak"], "seconds": round(one["seconds"], 1)}
        except (OSError, ValueError, KeyError, TypeError):  # under way, or no job's
            continue
    write_json(out / FILE, found)
    return found


@dataclass(frozen=True)
class Kind:
    """Jobs of one kind: how many, and the one that took the most memory (MiB), by name."""

    name: str
    count: int
    peak: int
    largest: str


def kinds(found: dict[str, dict]) -> list[Kind]:
    """The kinds of job, the largest first."""
    rows = []
    for kind in dict.fromkeys(KINDS.values()):
        own = {name: one["peak"] for name, one in found.items() if one["kind"] == kind}
        if own:
            largest = max(own, key=own.__getitem__)
            rows.append(Kind(kind, len(own), own[largest], largest))
    return sorted(rows, key=lambda row: -row.peak)


def together(found: dict[str, dict], jobs: int = 2) -> float:
    """GiB that the largest jobs take at once, so many of them."""
    return sum(sorted(one["peak"] for one in found.values())[-jobs:]) / 1024


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ica.build.peaks", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of a profile, as build/ci")
    parser.add_argument("--most", type=float, default=float("inf"), help="GiB that two jobs may take at once")
    options = parser.parse_args(arguments)
    found = gather(options.out)
    if not found:
        print(f"{options.out} holds no peak of a job; `make book` leaves them there", file=sys.stderr)
        return 1
    for row in kinds(found):
        print(f"{row.peak:6d} MiB  {row.name} ({row.count}; {row.largest})")
    both = together(found)
    print(f"{both:6.2f} GiB  the two largest at once")
    if both > options.most:
        print(f"more than the {options.most:g} GiB that they may take", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
