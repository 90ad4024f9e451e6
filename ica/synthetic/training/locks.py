"""One process at a time for a run: the others wait, and say for whom. The lock ends with its process, however that ends."""

import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ica.build.lock import holder, note

POLL = 0.2


@contextmanager
def held(file: Path, what: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file as long as the block runs; while another process holds it, wait, which stderr says once.

    Args:
        what: what the lock is for, as in "the training of run base".
        tell: is called with "waiting" while it waits.

    Raises:
        OSError: the file cannot be written, or the file system has no locks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+", encoding="utf-8") as lock:
        said = False
        while not _taken(lock, file):
            if not said:
                print(f"waiting for {holder(file)}, whose result is then taken", file=sys.stderr, flush=True)
                said = True
                if tell:
                    tell("waiting")
            time.sleep(POLL)
        note(lock, what)
        try:
            yield
        finally:
            lock.truncate(0)


def _taken(lock: TextIO, file: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    return True
