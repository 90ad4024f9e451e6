"""What is stored in `results/` is as it was stored: `python -m ica.build.stored` says so, `--accept` takes it as it is now.

`results/SHA256.json` lists every file; the commands that store results (`make stored`, `make ladder`) renew it.
"""

import argparse
import json
import sys
from pathlib import Path

from ica.record import seals
from ica.record.provenance import project_root

SEAL = "SHA256.json"
KINDS = ("*.json", "*.safetensors")


def files(folder: Path) -> list[Path]:
    """Every stored result."""
    found = {path for kind in KINDS for path in folder.rglob(kind) if not path.name.startswith(".")}
    return sorted(found - {folder / SEAL})


def accept(folder: Path) -> Path:
    """List the files as they are now; the list."""
    return seals.write(folder / SEAL, files(folder))


def faults(folder: Path) -> list[str]:
    """What is missing, damaged or not listed, naming each file; nothing where there is neither a folder nor a list."""
    if not folder.exists():
        return []
    found = seals.faults(folder / SEAL)
    known = seals.names(folder / SEAL)
    return found + [f"{path} is not listed in {SEAL}" for path in files(folder) if path not in known]


def check(root: Path) -> None:
    """Raises ValueError naming every fault of the stored results, and what to do."""
    if found := faults(root / "results"):
        raise ValueError(
            "Stored results are not as they were stored:\n"
            + "\n".join(f"  {line}" for line in found)
            + "\n`git checkout -- results` restores them; `.venv/bin/python -m ica.build.stored --accept` takes what is "
            "there as it is. To make one anew: remove it, accept that, then `make stored` or `make ladder`."
        )


def seconds(content: dict) -> float | None:
    """What a stored result took, in s; None where it does not say.

    Of answers of a language model: when they were computed. Of a run that was stopped and went on: all its steps at the time of one.
    """
    steps = content.get("config", {}).get("steps", 0)
    runs = [content, *content.get("shards", [])]
    found = [one["provenance"] for one in runs if "provenance" in one]
    took = [
        max((one.get("calls") or one)["seconds"], (one.get("seconds_per_update") or 0) * steps)
        for one in found
    ]
    return sum(took) if took else None


def summary(folder: Path) -> list[dict]:
    """Of each folder below that of the stored results: its name, files, size in bytes, time in s, longest time of a file in s, processors."""
    found = []
    for place in sorted({path.parent for path in files(folder)} - {folder}):
        own = [path for path in files(folder) if path.parent == place]
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in own if path.suffix == ".json"]
        took = [time for time in map(seconds, contents) if time is not None]
        runs = [run for one in contents for run in [one, *one.get("shards", [])] if "provenance" in run]
        found.append(
            {
                "name": place.relative_to(folder).as_posix(),
                "files": len(own),
                "bytes": sum(path.stat().st_size for path in own),
                "seconds": sum(took),
                "longest": max(took, default=0.0),
                "processors": sorted({run["provenance"]["hardware"]["cpu"] for run in runs}),
            }
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ica.build.stored", description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="take the files as they are now")
    options = parser.parse_args(arguments)
    try:
        if (root := project_root()) is None:
            raise ValueError("no checkout of this project here")
        if options.accept:
            print(accept(root / "results"))
        check(root)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
