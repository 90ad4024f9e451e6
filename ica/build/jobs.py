"""One job of a build: its environment, its status file, its end.

Everything that the workflow starts runs its work through `run`, also when a reader starts it by hand. So an error of a user is one
line, any other a report; a job ends when the build that started it is gone, or when its time is up; and the status file
says which build it speaks for, on which machine, and by its time that the job goes on.
"""

import json
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from ica.build.lock import HANDS, share
from ica.record.outside import plain_text
from ica.record.provenance import project_root, write_json

# One thread and fixed dispatch: the same machine gives the same bits again.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ENVIRONMENT = {
    **dict.fromkeys(THREADS, "1"),
    "MKL_CBWR": "AUTO",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTHONUTF8": "1",
}
BUILD = "ICA_BUILD"  # set for the jobs of a build: its id, which their status files repeat
FOLDER = "ICA_BUILD_FOLDER"  # likewise: the folder whose lock the jobs share
LIMIT = "ICA_LIMIT"  # minutes that a job may take; 0: as long as it needs
MINUTES = {"ci": 120.0}  # by profile, for the jobs of a build
LONG = 2880.0
GRACE = 20.0  # seconds that a job has to end by itself
POLL = 0.5
BEAT = 5.0  # seconds after which a status file is touched again
MOST = 256  # threads
Tell = Callable[[str], None]


class Failure(Exception):
    """A job did not reach its end; the message is the whole report to show."""


def limit() -> float:
    """Minutes that a job may take, infinite if it may take any time; ValueError where `ICA_LIMIT` is no such number."""
    given = os.environ.get(LIMIT, "").strip()
    try:
        minutes = float(given or 0)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise ValueError(f"LIMIT: {given!r} is not a number of minutes; accepted: 0 (no limit) or more")
    return minutes or float("inf")


def settle(module: str, threads: int = 1) -> None:
    """Start the process anew as `python -m module ...` unless its environment fixes threads and order of operations already.

    Libraries read these variables as they load, so setting them later would not do.

    Raises:
        ValueError: threads below 1 or above 256, of which a machine would run out.
    """
    if isinstance(threads, bool) or not 1 <= threads <= MOST:
        raise ValueError(f"--threads must be a whole number of 1 to {MOST}, got {threads!r}")
    wanted = {**ENVIRONMENT, **dict.fromkeys(THREADS, str(threads))}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, **wanted})


def run(work: Callable[[Tell], None], name: str, status: Path | None = None) -> int:
    """Do the work of a job to its end, whatever that is; the exit status for `sys.exit`.

    Args:
        work: is called with a function that takes the progress to tell, as in "3/10".
        name: what failed, for the report, as in "Training run base".
        status: a JSON file that says how far the job is: build, job (its name), state (running, done, failed), started, host, begun (how often, of
            this build), progress; at the end seconds, peak (MiB), report. It is touched every 5 s.
    """
    said, guard = _Status(status, name), None
    code, report = 0, ""
    end_by_exception()
    try:
        guard = _Guard(name, limit(), said.beat)
        said.write("running")
        guard.start()
        work(lambda progress: said.write("running", progress=progress))
    except Failure as error:
        code, report = 1, str(error)
    except (ValueError, ImportError) as error:
        code, report = 1, f"{name}: {error}"
    except MemoryError as error:
        code, report = 1, f"{name}: the memory does not suffice ({str(error) or 'MemoryError'}); {memory()}"
    except OSError as error:
        code, report = 1, f"{name}: {of_system(error)}"
    except KeyboardInterrupt as error:
        code, report = 130, f"{name} was stopped" + (f": {error}" if str(error) else "")
    except Exception:  # noqa: BLE001  (a fault of ours: the whole traceback is what helps)
        code, report = 1, f"{name}: an error that is not foreseen.\n\n{traceback.format_exc()}"
    if guard and guard.late and code:
        code, report = 1, f"{guard.late}\n{report}"
    try:
        said.write("failed", report=report) if code else said.write("done")
    except OSError as error:  # of a full disk, say: the exit status and the screen still tell
        report, code = report or f"{name}: {of_system(error)}", code or 1
    if code:
        print(plain_text(report.rstrip()), file=sys.stderr, flush=True)
    return code


def memory() -> str:
    """What this machine has, in words."""
    found = psutil.virtual_memory()
    return (
        f"this machine has {found.total / 2**30:.1f} GiB, {found.available / 2**30:.1f} GiB of them free now"
    )


def end_tree(process: psutil.Process, grace: float = GRACE) -> None:
    """End a process and all that it started: the process at once, the others after up to `grace` seconds to end by themselves.

    The process goes first, so that it starts nothing new in the place of what ends.
    """
    try:
        family = process.children(recursive=True)
        process.kill()
    except psutil.Error:
        return
    for one in family:
        _tell(one.terminate)
    _, alive = psutil.wait_procs(family, timeout=grace)
    for one in alive:
        _tell(one.kill)


def _tell(signal_it: Callable[[], None]) -> None:
    try:
        signal_it()
    except psutil.Error:  # gone already
        pass


def sweep(name: str, value: str) -> None:
    """Kill every process of this user that has this value of an environment variable, but this one and those above it.

    Raises:
        ValueError: no value, which processes that lack the variable would have too.
    """
    if not value:
        raise ValueError(f"{name} must have a value to end processes by, got {value!r}")
    mine = {os.getpid(), *(one.pid for one in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.pid not in mine and process.environ().get(name) == value:
                process.kill()
        except (psutil.Error, OSError):  # gone, or of another user
            continue


def follow(gone: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Call `act` once in a thread of its own as soon as `gone` says so; ends with the process."""

    def watch() -> None:
        while not gone():
            time.sleep(POLL)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def peak() -> int:
    """MiB that this process held at most (resident), and the largest that it waited for added to it.

    Linux counts to a child what its parent held as it was made, so a child is told apart only where it held more than this process.
    """
    unit = 2**20 if sys.platform == "darwin" else 2**10
    own, child = (
        resource.getrusage(who).ru_maxrss / unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    with suppress(OSError, AttributeError):  # other systems have no such file
        lines = Path("/proc/self/status").read_text(encoding="utf-8")
        own = int(re.search(r"VmHWM:\s+(\d+) kB", lines)[1]) / 1024  # without what the parent held
    return round(own + (child if child > own else 0))


class _Status:
    """The status file of a job, if it has one."""

    def __init__(self, path: Path | None, name: str) -> None:
        self.path, self.name, self.started = path, name, time.time()
        self.lock, self.ended = threading.Lock(), False
        self.build, self.host = os.environ.get(BUILD, ""), socket.gethostname()
        self.begun = self._earlier() + 1

    def _earlier(self) -> int:
        """How often this build has begun the job before: a scheduler does where a machine went away."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8")) if self.path else {}
            return found.get("begun", 0) if found.get("build") == self.build else 0
        except (OSError, ValueError, AttributeError):
            return 0

    def beat(self) -> None:
        """Touch the file: who looks from another machine sees that the job goes on."""
        with self.lock, suppress(OSError):  # removed, or its disk is away: the next may succeed
            if self.path is not None and not self.ended:
                os.utime(self.path)

    def write(self, state: str, **more: str) -> None:
        with self.lock:
            if self.path is None or self.ended:
                return
            self.ended = state != "running"
            end = {"seconds": time.time() - self.started, "peak": peak()} if self.ended else {}
            content = {"build": self.build, "job": self.name, "state": state, "started": self.started}
            write_json(self.path, content | {"host": self.host, "begun": self.begun} | end | more)


class _Guard:
    """Ends the job when the process that started it is gone, or its time is up."""

    def __init__(self, name: str, minutes: float, beat: Callable[[], None]) -> None:
        self.name, self.minutes, self.late = name, minutes, ""
        self.parent, self.begun = os.getppid(), time.monotonic()
        self.beat, self.last = beat, self.begun
        given, root = os.environ.get(FOLDER), project_root()
        if given:
            self.lock = share(Path(given))
        elif root:  # by hand: `make clean` and `make repeat` are refused as long as it runs
            self.lock = share(root / "build", HANDS)

    def start(self) -> None:
        follow(self._over, self._end)

    def _over(self) -> bool:
        if time.monotonic() - self.last > BEAT:
            self.last = time.monotonic()
            self.beat()
        if time.monotonic() - self.begun > 60 * self.minutes:
            self.late = (
                f"{self.name} took longer than {self.minutes:g} min and was ended; "
                "LIMIT=minutes allows more (0: any time)"
            )
        return bool(self.late) or (BUILD in os.environ and os.getppid() != self.parent)

    def _end(self) -> None:
        """Ask for an end, which keeps what is done; after a while enforce it."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        if self.late:
            print(self.late, file=sys.stderr, flush=True)
        for one in psutil.Process().children(recursive=True):
            _tell(one.kill)
        os.kill(os.getpid(), signal.SIGKILL)


def end_by_exception() -> None:
    """SIGTERM and SIGHUP as KeyboardInterrupt, so that what must be tidied is."""
    if threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)


def of_system(error: OSError) -> str:
    """An error of the system in one line, with the file that it is about."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
