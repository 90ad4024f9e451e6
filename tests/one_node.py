"""A cluster of one node on this machine: Slurm from the system's packages, really running, for the tests that submit to it.

It needs root, as daemons do, and the packages slurmctld, slurmd, slurm-client and munge. A configuration of Slurm that is there already
is left alone, and the tests are skipped; with SLURM_TESTS=must a skip is a failure.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

CONFIGURATION = Path(
    "/etc/slurm/slurm.conf"
)  # Snakemake takes SLURM_* variables out of its jobs, so no other place
OURS = "# Written by tests/one_node.py; removed when they end."
SOCKET = Path("/run/munge/munge.socket.2")
DAEMONS = ("slurmctld", "slurmd", "slurmstepd")
NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged")
TEXT = """{ours}
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
SlurmdTimeout=10
KillWait=5
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=one Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why there can be no cluster here; "" if there can."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"{missing[0]} is not installed"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "the package snakemake-executor-plugin-slurm is not installed"
    if os.geteuid() != 0:
        return "daemons need root"
    if CONFIGURATION.is_file() and OURS not in CONFIGURATION.read_text():
        return f"{CONFIGURATION} is another's"
    return ""


class Node:
    """The cluster's one node."""

    def start(self) -> None:
        subprocess.run(["slurmd"], check=True)

    def goes_away(self) -> None:
        """As when the power fails: its daemon and all that runs on it end at once, and say nothing."""
        _kill("slurmd", "slurmstepd")


def _kill(*names: str) -> None:
    """Kill the daemons of these names and all that they run; the configuration is ours, so they are."""
    found = [one for one in psutil.process_iter(["name"]) if one.info["name"].startswith(names)]
    family = [
        child
        for one in found
        if one.info["name"].startswith("slurmstepd")
        for child in one.children(recursive=True)
    ]
    for one in (*found, *family):
        with suppress(psutil.Error):  # gone with its parent
            one.kill()


PATIENCE = 3  # slow machines take so many times as long


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for it; a failure that says `what` after so many seconds."""
    end = time.monotonic() + PATIENCE * seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def said(*command: str) -> str:
    """What a program of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def _munged() -> Iterator[None]:
    """Munge, which signs the daemons' messages; one that runs already stays."""
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(SOCKET))
        yield
        return
    except OSError:
        pass
    SOCKET.parent.mkdir(exist_ok=True)
    shutil.chown(SOCKET.parent, "munge")
    daemon = subprocess.Popen(["munged", "--foreground", "--force"], user="munge", stderr=subprocess.DEVNULL)
    try:
        until(SOCKET.exists, "munged does not start")
        yield
    finally:
        daemon.terminate()
        daemon.wait()


@contextmanager
def running(state: Path) -> Iterator[Node]:
    """The cluster, up as long as the block runs; one at a time on this machine. Skips the test where there can be none."""
    if why := lacking():
        (pytest.fail if os.environ.get("SLURM_TESTS") == "must" else pytest.skip)(why)
    with Path("/run/ica-one-node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if CONFIGURATION.is_file():  # of a test that was killed
            _kill(*DAEMONS)
        for name in ("controller", "node"):
            (state / name).mkdir(parents=True)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        CONFIGURATION.write_text(TEXT.format(ours=OURS, host=host, state=state))
        with _munged():
            node = Node()
            try:
                subprocess.run(["slurmctld", "-i"], check=True)
                node.start()
                until(lambda: "idle" in said("sinfo", "-h", "-o", "%T"), "the node does not come up")
                yield node
            finally:
                _kill(*DAEMONS)
                CONFIGURATION.unlink()
