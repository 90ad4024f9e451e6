"""Build the book twice, each time from nothing, and compare the data of every figure and table bit by bit.

`make repeat` calls this. Tables of wall-clock times are apart (timed/) and left out; so are images, which name the commit
they were made at, and provenance, which holds times.
"""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

from ica.build import book, stored

CALLS = "repeat-calls"  # answers of language models, apart from those that other builds keep


def data_files(records: Path) -> dict[str, str]:
    """SHA-256 of the data of each figure and table below the records of a build, by path."""
    files = sorted([*records.glob("*/figures/*.csv"), *records.glob("*/tables/*.csv")])
    return {
        file.relative_to(records).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """One line for each file that only one build has or that differs."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            found.append(f"{name}: only in the {'second' if name in second else 'first'} build")
        elif first[name] != second[name]:
            found.append(f"{name}: differs")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ica.build.repeat", description="Build twice and compare."
    )
    parser.add_argument("--profile", default="ci", help="scale of both builds")
    parser.add_argument("--jobs", default="2", help="notebooks run at once")
    parser.add_argument("--limit", default="", help="minutes that a job may take (0: any time)")
    options = parser.parse_args(arguments)
    words = [f"--profile={options.profile}", f"--jobs={options.jobs}", f"--limit={options.limit}"]
    try:
        root = book.here()
        settings = book.asked(root, words)  # before anything is removed
        stored.check(root)
        return book.locked(root, "make repeat", lambda: twice(root, settings.profile, words), removes=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def twice(root: Path, profile: str, words: list[str]) -> int:
    """Build two times from nothing, models trained and language models asked anew, and compare; the exit status."""
    builds = []
    for _ in range(2):
        for name in (profile, "runs", "llm", CALLS):
            shutil.rmtree(root / "build" / name, ignore_errors=True)
        os.environ["ICA_CALLS"] = str(root / "build" / CALLS)
        if status := book.once(root, words):
            return status
        builds.append(data_files(root / "build" / profile / "record"))
    found = differences(*builds)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(builds[0])} data files of two builds from nothing: {len(found)} differ")
    return int(bool(found) or not builds[0])


if __name__ == "__main__":
    sys.exit(main())
