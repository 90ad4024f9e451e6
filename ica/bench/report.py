"""The report of `make bench`: one JSON file, each part with what it was measured with; stored, one file a kind of processor.

    {"schema": 1, "provenance": {hardware, seconds},
     "parts": {"descent": {"rows": [...], "growth": [...], "rates": {"float64 on cpu": operations a second},
                           "provenance": {commit, dirty, versions, hardware, threads, released, started, seconds,
                                          processor_seconds}}}}

Of `processor_seconds` there are about as many as `seconds` times threads where nothing else ran on the machine. A row is what `timing.measured` gives, an entry of `growth` what `timing.exponents` gives.
"""

import json
import re
from pathlib import Path

from ica.build import stored
from ica.record.provenance import hardware, project_root, write_json

SCHEMA = 1
FOLDER = "bench"
FIELDS = ("rows", "growth", "rates", "provenance")


class ReportError(ValueError):
    """A report is damaged or of another version; the message names the file and what to do."""


def read(path: Path) -> dict:
    """A report.

    Raises:
        ReportError: it cannot be read, is no such report, or of another version.
    """
    again = "remove it; `make bench` makes it anew"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema, parts = found["schema"], found["parts"]
        whole = all(set(FIELDS) == set(part) for part in parts.values()) and found["provenance"]["hardware"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"report {path} is damaged ({type(error).__name__}: {error}); {again}") from error
    if schema != SCHEMA or not whole:
        raise ReportError(f"report {path} is of another version than {SCHEMA}; {again}")
    return found


def keep(path: Path, name: str, part: dict) -> Path:
    """Put a part into the report at `path`, in place of an earlier one; a report of another machine is begun anew."""
    here, parts = hardware(), {}
    if path.is_file():
        before = read(path)
        parts = before["parts"] if before["provenance"]["hardware"] == here else {}
    parts = parts | {name: part}
    seconds = sum(one["provenance"]["seconds"] for one in parts.values())
    about = {"hardware": here, "seconds": seconds}
    return write_json(path, {"schema": SCHEMA, "provenance": about, "parts": parts})


def store(path: Path, root: Path) -> Path:
    """Keep a report with the stored results, its parts in place of earlier ones of the same kind of processor."""
    found = read(path)
    machine = found["provenance"]["hardware"]
    name = re.sub(r"[^a-z0-9]+", "-", " ".join([machine["cpu"], *machine["gpus"]]).lower()).strip("-")[:80]
    target = root / "results" / FOLDER / f"{name or 'processor'}.json"
    earlier = read(target)["parts"] if target.is_file() else {}
    write_json(target, found | {"parts": earlier | found["parts"]})
    stored.accept(root / "results")
    return target


def all_stored(root: Path | None = None) -> list[dict]:
    """The stored reports, by the names of their files; none where nothing is stored."""
    folder = (root or project_root() or Path.cwd()) / "results" / FOLDER
    return [read(path) for path in sorted(folder.glob("*.json"))]
