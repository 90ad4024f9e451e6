"""What the jobs of a build tell: lines on the screen while it runs, and the report of what failed.

Jobs leave a status file each (`ica.build.jobs`); those of another build, which a killed one may have left, say nothing here.
"""

import builtins
import re
import shutil
import sys
import time
from pathlib import Path

from ica.build.stage import read_json
from ica.record.outside import plain_text

SILENT = 30.0  # seconds without a beat (`jobs.BEAT`) after which the machine of a job may be gone
QUIET = ("site", "claims", "fetch-")  # jobs that are no notebook, training run or shard


def statuses(folder: Path, build: str) -> dict[str, dict]:
    """The status of every job of this build, by name."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            status = read_json(file)
        except (OSError, ValueError):  # removed or replaced meanwhile
            continue
        if status.get("build") == build:
            found[file.stem] = status
    return found


class Progress:
    """Lines on the screen about the notebooks, training runs and shards under way.

    `far`: the jobs may run on other machines, so it is also said if one is not heard of.
    """

    def __init__(self, folder: Path, build: str, log: Path, far: bool = False) -> None:
        self.folder, self.build, self.log, self.far = folder, build, log, far
        self.shown: set[str] = set()
        self.begun: dict[str, int] = {}
        self.heard: dict[str, tuple[int, float]] = {}  # the file's time, and when it was first seen
        self.silent: set[str] = set()
        self.terminal = sys.stdout.isatty()

    def _total(self) -> str:
        """How many notebooks, training runs and shards this build runs, from Snakemake's table of jobs."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        found = dict(re.findall(r"^(execute|train|read|swept|ask|paper_llm)\s+(\d+)", text, re.MULTILINE))
        return str(sum(map(int, found.values()))) if found else "?"

    def update(self) -> None:
        """Print a line for each job that ended since the last call; on a terminal also what runs."""
        running: list[str] = []
        for name, status in statuses(self.folder, self.build).items():
            self._again(name, status)
            if status["state"] == "running":
                self._listen(name, status)
                progress = f" {status['progress']}" if "progress" in status else ""
                running.append(f"{name}{progress} {time.time() - status['started']:.0f} s")
            elif name not in self.shown and not name.startswith(QUIET):
                self.shown.add(name)
                failed = "" if status["state"] == "done" else "  FAILED"
                count = f"[{len(self.shown)}/{self._total()}]"
                self.say(f"{count:>7} {name:<24} {status['seconds']:7.1f} s{failed}")
        if self.terminal:
            width = max(20, shutil.get_terminal_size().columns - 1)
            words = "        running: " + ", ".join(running) if running else ""
            print("\r\x1b[K" + words[:width], end="", flush=True)

    def _again(self, name: str, status: dict) -> None:
        """Say that a job was begun again, by a scheduler whose machine went away, or by Snakemake after a failure."""
        if (count := status.get("begun", 1)) > self.begun.setdefault(name, count):
            self.begun[name] = count
            self.shown.discard(name)
            self.silent.discard(name)
            self.say(f"        {name}: its process is gone; begun again on {status['host']} ({count - 1})")

    def _listen(self, name: str, status: dict) -> None:
        """Say once that nothing is heard of a job on another machine; clocks of two machines are not compared."""
        try:
            time_of_file = (self.folder / f"{name}.json").stat().st_mtime_ns
        except OSError:
            return
        known, since = self.heard.get(name, (None, 0.0))
        if time_of_file != known:
            self.heard[name] = time_of_file, time.monotonic()
        elif self.far and time.monotonic() - since > SILENT and name not in self.silent:
            self.silent.add(name)
            self.say(
                f"        {name}: nothing heard of its process on {status['host']} for {SILENT:.0f} s; its machine may be gone"
            )

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        print(plain_text(line), flush=True)

    def clear(self) -> None:
        """Remove the line about what is running."""
        if self.terminal:
            print("\r\x1b[K", end="")


# What the Snakefile raised as it was read, without the places in its sources that Snakemake adds.
RAISED = re.compile(
    r'^(\w+Error) in file ".*Snakefile".*, line \d+:\n(.*?)(?=^  File "|\Z)', re.MULTILINE | re.DOTALL
)


def failures(folder: Path, build: str, log: Path) -> str:
    """What went wrong, for the end of the screen: what the jobs said, what the Snakefile refused, else the end of Snakemake's messages."""
    found = [one["report"].rstrip() for one in statuses(folder, build).values() if one.get("report")]
    running = [name for name, one in statuses(folder, build).items() if one["state"] == "running"]
    found += [f"{name} was killed: it ended without a word." for name in running]
    if found:
        return "\n\n".join(found)
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    refused = RAISED.search(text)
    if refused and (refused[1] == "ValueError" or not hasattr(builtins, refused[1])):
        return refused[2].strip()
    return "\n".join(text.splitlines()[-40:]) or "Snakemake ended without a message."
