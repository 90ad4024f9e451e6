"""`make book`: check the parameters, run Snakemake, show progress, publish the finished site.

Snakemake's own messages go to build/<profile>/status/snakemake.log; the screen gets one line for each
finished notebook and, where something fails, the report of it last. Only a complete site reaches build/book.
"""

import argparse
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ica.build import notebooks
from ica.build.execute import plain
from ica.build.site import replace
from ica.build.stage import read_json, state

# By content alone (see the Snakefile); jobs that another notebook's failure does not touch still run.
FLAGS = ("--rerun-triggers", "params", "--rerun-incomplete", "--keep-going", "--nolock", "--nocolor")


@contextmanager
def _alone(build: Path) -> Iterator[int]:
    """Hold the build folder until this process and the Snakemake it started are gone, killed or not."""
    build.mkdir(exist_ok=True)
    with (build / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                "another `make book` (or what a killed one left) is still running here"
            ) from error
        yield lock.fileno()


class Progress:
    """Lines on the screen about the notebooks and training runs under way, from the status files they leave."""

    def __init__(self, status: Path, log: Path) -> None:
        self.status, self.log = status, log
        self.shown: set[str] = set()
        self.terminal = sys.stdout.isatty()

    def _total(self) -> str:
        """How many notebooks, training runs and shards this build runs, from Snakemake's table of jobs."""
        text = self.log.read_text(encoding="utf-8")
        found = dict(re.findall(r"^(execute|train|read)\s+(\d+)", text, re.MULTILINE))
        return str(sum(map(int, found.values()))) if found else "?"

    def update(self) -> None:
        """Print a line for each notebook that ended since the last call; on a terminal also what runs."""
        running: list[str] = []
        for file in sorted(self.status.glob("*.json")):
            run = read_json(file)
            if run["state"] == "running":
                progress = f" {run['progress']}" if "progress" in run else ""
                running.append(f"{file.stem}{progress} {time.time() - run['started']:.0f} s")
            elif file.stem not in self.shown:
                self.shown.add(file.stem)
                self.clear()
                count = f"[{len(self.shown)}/{self._total()}]"
                failed = "" if run["state"] == "done" else "  FAILED"
                print(f"{count:>7} {file.stem:<24} {run['seconds']:7.1f} s{failed}", flush=True)
        if self.terminal:
            self.clear()
            print(
                ("        running: " + ", ".join(running))[: self._width()] if running else "",
                end="",
                flush=True,
            )

    def clear(self) -> None:
        """Remove the line about what is running."""
        if self.terminal:
            print("\r\x1b[K", end="")


def _snakemake(root: Path, options: argparse.Namespace, lock: int) -> int:
    """Run Snakemake with its messages in the log; its exit status."""
    out = root / "build" / options.profile
    status = out / "status"
    if not any((root / ".snakemake" / "metadata").glob("*")):
        for name in (
            *notebooks.PROFILES,
            "runs",
            "llm",
            "assets",
        ):  # without its notes Snakemake takes every file for up to date
            shutil.rmtree(out.with_name(name), ignore_errors=True)
    for old in (status, *out.glob(".*-*")):  # the latter: scratch folders of a build that was killed
        shutil.rmtree(old, ignore_errors=True)
    status.mkdir(parents=True)
    log = status / "snakemake.log"
    jobs = str(options.jobs)  # --cores counts here, --jobs where SNAKEMAKE_FLAGS names a cluster
    command = [sys.executable, "-m", "snakemake", "--cores", jobs, "--jobs", jobs, *FLAGS]
    command += [*shlex.split(options.flags), "--config", f"profile={options.profile}"]
    command += [f"set={options.set}"] if options.set else []
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment["ICA_COMMIT"] = state(root)["commit"] or ""
    progress = Progress(status, log)
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            command, cwd=root, stdout=sink, stderr=sink, env=environment, pass_fds=[lock]
        )
        try:
            while process.poll() is None:
                progress.update()
                time.sleep(0.25)
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupts Snakemake too, which ends its jobs
            raise
    progress.update()
    progress.clear()
    return process.returncode


def failure_report(status: Path) -> str:
    """What went wrong, for the end of the screen: notebooks first, else the site, the claims, Snakemake."""
    reports = [file.read_text(encoding="utf-8").rstrip() for file in sorted(status.glob("*.failure"))]
    if reports:
        return "\n\n".join(reports)
    for name in ("site.log", "claims.log", "snakemake.log"):
        file = status / name
        if file.is_file() and (text := file.read_text(encoding="utf-8").strip()):
            return "\n".join(text.splitlines()[-40:])
    return "Snakemake ended without a message."


def publish(root: Path, profile: str) -> Path:
    """Copy the finished site and its claims to build/book and build/claims.json; the first page."""
    out, book = root / "build" / profile, root / "build" / "book"
    new = book.with_name(".book.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(out / "html", new, ignore=shutil.ignore_patterns(".snakemake*"))
    ledgers = ("claims.json", "paper_claims.json")
    for name in ledgers:
        shutil.copy(out / name, root / "build" / f".{name}.new")
    replace(new, book)
    for name in ledgers:
        os.replace(root / "build" / f".{name}.new", root / "build" / name)
    return book / "index.html"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ica.build.book", description="Build the book.")
    parser.add_argument("--profile", default="ci", help=f"scale: one of {', '.join(notebooks.PROFILES)}")
    parser.add_argument("--set", default="", metavar="'name=value ...'", help="parameters to override")
    parser.add_argument("--model", default="", help="language model of Part III, as parameter `model`")
    parser.add_argument("--items", default="", help="folder of the official BBQ, as parameter `items`")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks run at once")
    parser.add_argument("--flags", default="", help="more options for Snakemake")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    for name in ("model", "items"):
        if value := getattr(options, name):
            if Path(value).expanduser().exists():  # notebooks run in a folder of their own
                value = str(Path(value).expanduser().absolute())
            options.set = f"{options.set} {name}={shlex.quote(value)}".strip()
    try:
        if options.jobs < 1:
            raise ValueError(f"JOBS: {options.jobs} is not a number of jobs; accepted: 1 or more")
        notebooks.overrides(
            root, options.profile, options.set
        )  # a misspelt parameter stops here, before any run
        with _alone(root / "build") as lock:
            if _snakemake(root, options, lock):
                report = failure_report(root / "build" / options.profile / "status")
                print(plain(report, sys.stderr), file=sys.stderr, flush=True)
                return 1
            print(publish(root, options.profile))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; `make book` goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
