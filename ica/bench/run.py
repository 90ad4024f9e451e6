"""Measure and report: `python -m ica.bench.run --runs "objective descent"`, as `make bench` does.

The report, `build/bench.json`, is written whole after each part. Nothing of a part is written whose ways do not agree.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import torch

from ica.bench import book, descent, items, released, report, theory, training
from ica.bench.settings import NAMES, PARTS, Asked, asked
from ica.bench.timing import Case, exponents, matrix_rate, measured
from ica.build import jobs, stored
from ica.record.provenance import commit, dirty, hardware, project_root, seconds_since, threads, versions

MODULE = "ica.bench.run"
WITHOUT = "left out, as it needs a checkout of the released code, RELEASED=folder"


def cases(name: str, settings: Asked, code: SimpleNamespace | None, root: Path) -> Iterator[Case]:
    """The cases of a part."""
    made: dict[str, Callable[[], Iterator[Case]]] = {
        "training": lambda: training.cases(code, device=settings.device),
        "descent": lambda: descent.cases(code),
        "objective": theory.objective,
        "constructed": theory.constructed,
        "items": items.cases,
        "book": lambda: book.cases(root),
    }
    return made[name]()


def part(found: Iterator[Case], settings: Asked, tell: Callable[[str], None]) -> dict:
    """The part of a report that these cases make; `tell` is told every row as a line.

    Raises:
        ValueError: ways that do not give the same numbers.
    """
    started, rates, rows, before = datetime.now(UTC), {}, [], sum(os.times()[:4])
    for case in found:
        key = f"{str(case.dtype).removeprefix('torch.')} on {case.device}"
        if key not in rates:
            rates[key] = matrix_rate(case.dtype, case.device)
        rows.append(measured(case, settings.repeats, rates[key]))
        tell(line(rows[-1]))
    about = {"commit": commit(), "dirty": dirty(), "versions": versions(), "hardware": hardware()}
    about |= {"threads": threads(), "started": started.isoformat(timespec="seconds")}
    about["released"] = released.commit(settings.released) if settings.released else None
    about |= {"processor_seconds": round(sum(os.times()[:4]) - before, 3), "seconds": seconds_since(started)}
    return {
        "rows": rows,
        "growth": exponents(rows),
        "rates": rates,
        "provenance": about,
    }


def line(row: dict) -> str:
    """A row in one line: medians, and how many times faster each way is than the last."""
    ways = [
        f"{way['name']} {way['seconds']['median']:.3g} s"
        + (f" ({way['faster']['median']:.3g}x)" if way is not row["ways"][-1] else "")
        for way in row["ways"]
    ]
    return f"{row['case']}; a {row['unit']}: {', '.join(ways)}"


def perform(settings: Asked, root: Path, tell: Callable[[str], None]) -> Path:
    """Measure the parts, write `build/bench.json` and, where asked for, store it; the path of what was written last.

    Raises:
        ValueError: nothing can be measured, a report that is there is damaged, or the ways of a case do not agree.
    """
    out = root / "build" / "bench.json"
    if out.is_file():  # a damaged report is said before anything is measured
        report.read(out)
    if settings.store:
        report.all_stored(root)
    code = released.modules(settings.released) if settings.released else None
    runs = [name for name in settings.runs if code or name != "training"]
    if not runs:
        raise ValueError(f"training: {WITHOUT}")
    for name in settings.runs:
        print(f"{name}: {PARTS[name]}" if name in runs else f"{name}: {WITHOUT}", flush=True)
        if name in runs:

            def say(text: str, name: str = name) -> None:
                print(f"  {text}", flush=True)
                tell(f"{name}: {text}")

            report.keep(out, name, part(cases(name, settings, code, root), settings, say))
    return report.store(out, root) if settings.store else out


def _work(words: dict[str, str], tell: jobs.Tell) -> None:
    settings = asked(words)
    jobs.settle(MODULE, settings.threads)
    torch.set_num_threads(settings.threads)
    root = project_root() or Path.cwd()
    if settings.store:
        stored.check(root)
    print(perform(settings, root, tell))


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    for name in NAMES:
        parser.add_argument(f"--{name.lower()}", default="", help=f"{name} of `make bench`")
    options = {name: getattr(parser.parse_args(), name.lower()) for name in NAMES}
    return jobs.run(lambda tell: _work(options, tell), "make bench")


if __name__ == "__main__":
    sys.exit(main())
