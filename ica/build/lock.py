"""One at a time in a build folder; the lock names its holder. Standard library only: `make clean` has no environment yet.

Both locks are of the kind that ends with the process that holds it, however that ends.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

FILE = ".lock"
JOBS = ".jobs.lock"  # shared by the jobs of a build; free once the last one is gone
HANDS = ".hands.lock"  # shared by runs that were started by hand
PATIENCE = 60.0  # seconds that what a killed build left may take to end


class Busy(ValueError):
    """The folder is in use; the message names the process that uses it."""


def holder(file: Path) -> str:
    """Who wrote the lock file, in words."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        what, who, where, since = (found[key] for key in ("what", "pid", "host", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return f"{what} (process {who} on {where}, since {since})"


@contextmanager
def alone(build: Path, what: str, patience: float = PATIENCE, removes: bool = False) -> Iterator[None]:
    """Hold the build folder, as `what`, until the block ends or the process is gone, killed or not.

    Raises:
        Busy: another process holds it, jobs of a killed build do not end, or, where what is there will be removed
            (`removes`), something that was started by hand runs there. OSError: it cannot be written.
    """
    with _held(build) as lock:
        note(lock, what)
        _until_jobs_are_gone(build / JOBS, patience)
        if removes:
            _no_hands(build / HANDS)
        try:
            yield
        finally:
            lock.truncate(0)


def _held(build: Path) -> TextIO:
    """The lock file, held; it is still the one in the folder, which `make clean` may have removed meanwhile."""
    while True:
        build.mkdir(exist_ok=True)
        lock = (build / FILE).open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(build / FILE) and os.path.samestat(
                os.fstat(lock.fileno()), os.stat(build / FILE)
            ):
                return lock
            lock.close()
        except BlockingIOError as error:
            lock.close()
            raise Busy(
                f"{build.name}/ is in use by {holder(build / FILE)}; wait for it or stop it"
            ) from error


def note(lock: TextIO, what: str) -> None:
    """Say in a lock file that is held who holds it, for `holder`; OSError naming the file where it cannot be written."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        lock.seek(0)
        lock.truncate()
        json.dump({"what": what, "pid": os.getpid(), "host": socket.gethostname(), "since": since}, lock)
        lock.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, lock.name) from error


def _until_jobs_are_gone(file: Path, patience: float) -> None:
    """Wait for jobs of an earlier build that was killed: they notice within a second, and keep what they have."""
    end = time.monotonic() + patience
    with file.open("a+", encoding="utf-8") as jobs:
        while True:
            try:
                return fcntl.flock(jobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise Busy(
                        f"jobs of a build that was killed are still running after {patience:.0f} s; "
                        f"stop them first (`lsof {file}` lists them)"
                    ) from error
                time.sleep(0.2)


def _no_hands(file: Path) -> None:
    with file.open("a+", encoding="utf-8") as hands:
        try:
            fcntl.flock(hands, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                f"{file.parent.name}/ is in use by a run that was started by hand; wait for it or stop it"
            ) from error


def share(build: Path, name: str = JOBS) -> TextIO | None:
    """Hold the folder's lock of jobs, with others, as long as the returned file is open; None where that cannot be."""
    try:
        file = (build / name).open("a+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:  # a file system without locks, as some of clusters
        return None
    return file
