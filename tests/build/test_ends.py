"""How a build ends that is stopped, killed, late or out of memory: nothing goes on, the next build is right, the cell is named."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_project
from small_project import build, edit, executed

from ica.build import jobs, lock, progress
from ica.record.provenance import write_json

SLEEP = 'import pathlib, time\npathlib.Path("../begun").touch()\ntime.sleep(600)'


def alive(folder: Path) -> list[psutil.Process]:
    """The processes that work in the folder or name it, as an orphan of a build there would."""
    found = []
    for process in psutil.process_iter():
        try:
            words, place = " ".join(process.cmdline()), process.cwd()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and (str(folder) in words or Path(place).is_relative_to(folder)):
            found.append(process)
    return found


def until(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(found)


def begun(folder: Path) -> subprocess.Popen:
    """A build by `make` of a project of which one cell sleeps, once it does."""
    (folder / "begun").unlink(missing_ok=True)
    started = subprocess.Popen(
        small_project.make(folder, "book"),
        cwd=folder,
        env=small_project.outer_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert until(lambda: (folder / "begun").is_file()), started.communicate(timeout=5)
    return started


def named(folder: Path, words: str) -> psutil.Process:
    return next(process for process in alive(folder) if words in " ".join(process.cmdline()))


STOPS = {
    "SIGTERM to make": ("make", signal.SIGTERM),
    "SIGINT to the build": ("ica.build.book", signal.SIGINT),
    "kill -9 of make": ("make", signal.SIGKILL),
    "kill -9 of the build": ("ica.build.book", signal.SIGKILL),
    "kill -9 of Snakemake": ("ica.build.engine", signal.SIGKILL),
    "kill -9 of a job": ("ica.build.execute", signal.SIGKILL),
}


@pytest.mark.slow
@pytest.mark.fault(
    "Ends",
    "SIGTERM, SIGINT or kill -9 of make, of the build, of Snakemake or of a job",
    "within seconds nothing of it runs; the next `make book` goes on and is not misled by what the old one left",
)
def test_nothing_of_a_build_outlives_any_of_its_processes(project):
    edit(project, "gamma", "work", SLEEP)
    for how, (words, number) in STOPS.items():
        started = begun(project)
        target = psutil.Process(started.pid) if words == "make" else named(project, words)
        target.send_signal(number)
        assert until(lambda: not alive(project), 30), (how, alive(project))
        assert started.wait(timeout=10) != 0, how
        assert not (project / "build/ci/record/gamma.part").exists()
    edit(project, "gamma", "work", "print(seed)")
    done = build(project)
    assert done.returncode == 0 and executed(done) == [] or executed(done) == ["gamma"], done.stdout
    assert not list((project / "build/ci").glob(".*-*")), "a scratch folder was left"


def test_a_second_build_names_the_first(tmp_path):
    with lock.alone(tmp_path / "build", "make book"):
        words = (
            "from pathlib import Path; from ica.build.lock import alone\nwith alone(Path('build'), 'x'): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert f"in use by make book (process {os.getpid()} on " in done.stderr
    with lock.alone(tmp_path / "build", "make clean"):
        pass


@pytest.mark.fault(
    "Ends",
    "jobs of a killed build are still ending as the next build begins",
    "it waits for them, and refuses where they do not end",
)
def test_a_build_waits_for_the_jobs_of_a_killed_one(tmp_path):
    (tmp_path / "build").mkdir()
    left = lock.share(tmp_path / "build")
    with (
        pytest.raises(lock.Busy, match="still running after 1 s"),
        lock.alone(tmp_path / "build", "make book", patience=1),
    ):
        raise AssertionError("held beside a job")
    left.close()
    with lock.alone(tmp_path / "build", "make book", patience=1):
        pass


@pytest.mark.fault(
    "Ends", "a job of a killed build still writes that it failed", "the new build does not read it"
)
def test_a_status_of_another_build_says_nothing(tmp_path):
    write_json(tmp_path / "a.json", {"build": "old", "state": "failed", "seconds": 1.0, "report": "old"})
    write_json(tmp_path / "b.json", {"build": "new", "state": "failed", "seconds": 1.0, "report": "new"})
    (tmp_path / "c.json").write_text("{")
    assert progress.failures(tmp_path, "new", tmp_path / "log") == "new"
    assert list(progress.statuses(tmp_path, "new")) == ["b"]


@pytest.mark.slow
@pytest.mark.fault(
    "Ends", "`make clean` while a book is built", "it is refused, naming the build; the build goes on"
)
def test_clean_is_refused_during_a_build(project):
    edit(project, "gamma", "work", SLEEP)
    started = begun(project)
    done = small_project.run_make(project, "clean")
    assert done.returncode != 0 and "build/ is in use by make book (process" in done.stdout
    assert (project / "build/ci").is_dir() and started.poll() is None
    second = build(project)
    assert second.returncode == 1 and "in use by make book" in second.stdout
    started.terminate()
    started.wait(timeout=30)
    assert until(lambda: not alive(project), 30)
    done = small_project.run_make(project, "clean")
    assert done.returncode == 0 and not (project / "build").exists(), done.stdout


def single(folder: Path, name: str, **environment: str) -> subprocess.CompletedProcess:
    """Run one notebook of the project alone."""
    return subprocess.run(
        [sys.executable, "-m", "ica.build.execute", name],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fault(
    "Ends",
    "the kernel is killed inside a cell, as by the system where memory runs out",
    "notebook, cell, and memory held and there are named",
)
def test_a_kernel_killed_in_a_cell_is_named_with_its_memory(sources):
    held = "import os, signal, time\nheld = b'x' * (600 << 20)\ntime.sleep(1)\nos.kill(os.getpid(), signal.SIGKILL)"
    edit(sources, "gamma", "work", held)
    done = single(sources, "gamma")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Notebook notebooks/gamma.ipynb failed in cell 5 of 7 (id work)." in done.stderr
    assert "    held = b'x' * (600 << 20)" in done.stderr and "; this machine has" in done.stderr
    assert 0.6 <= float(re.search(r"it held ([\d.]+) GiB at most", done.stderr)[1]) < 2
    assert not list((sources / "build/alone").glob(".*-*")) and not list(sources.rglob("*.seal.json"))


@pytest.mark.slow
@pytest.mark.fault(
    "Ends",
    "a cell never ends",
    "it is ended after LIMIT minutes (default 120), named with its cell, and nothing of it goes on",
)
def test_a_cell_that_never_ends_is_ended_and_named(sources):
    edit(sources, "gamma", "work", SLEEP)
    done = single(sources, "gamma", ICA_LIMIT="0.5")
    assert done.returncode == 1
    assert "Notebook gamma took longer than 0.5 min and was ended; LIMIT=minutes allows more" in done.stderr
    assert "failed in cell 5 of 7 (id work)" in done.stderr
    assert until(lambda: not alive(sources), 10)


@pytest.mark.fault(
    "Ends",
    "a cell starts a process that goes on in a session of its own, or the kernel is killed while it has one",
    "it is ended with the notebook",
)
@pytest.mark.parametrize("end", ["", "\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_cell_started_ends_with_it(sources, end):
    start = 'import subprocess\nsubprocess.Popen(["sleep", "7713"], start_new_session=True)'
    edit(sources, "gamma", "work", start + end)
    assert single(sources, "gamma").returncode == bool(end)
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "7713"]]


@pytest.mark.fault(
    "Results",
    "a cell calls `sys.exit(0)`",
    "the notebook fails, naming the cell: what came after did not run",
)
def test_a_cell_that_ends_the_kernel_fails(sources):
    edit(sources, "gamma", "work", "import sys\nsys.exit(0)")
    done = single(sources, "gamma")
    assert done.returncode == 1 and "cell 5 of 7 (id work)" in done.stderr, done.stderr


@pytest.mark.fault(
    "Input",
    "a notebook finds a model, a file or a value that it cannot use",
    "its report is the error's own line, with notebook and cell, and no traceback",
)
def test_an_error_that_says_all_comes_without_a_traceback(sources):
    words = "from ica.record.parameters import ParametersError\nraise ParametersError('seed must be 0')"
    edit(sources, "gamma", "work", words)
    done = single(sources, "gamma")
    assert done.returncode == 1
    where = "Notebook notebooks/gamma.ipynb failed in cell 5 of 7 (id work)."
    assert done.stderr.endswith(f"{where}\n\nParametersError: seed must be 0\n"), done.stderr


@pytest.mark.fault("Ends", "`make clean` while something runs that was started by hand", "it is refused")
def test_clean_is_refused_during_a_run_by_hand(tmp_path):
    (tmp_path / "build").mkdir()
    hand = lock.share(tmp_path / "build", lock.HANDS)
    with lock.alone(tmp_path / "build", "make book"):
        pass
    with (
        pytest.raises(lock.Busy, match="in use by a run that was started by hand"),
        lock.alone(tmp_path / "build", "make clean", removes=True),
    ):
        raise AssertionError("held beside a run")
    hand.close()
    with lock.alone(tmp_path / "build", "make clean", removes=True):
        pass


@pytest.mark.parametrize("value", ["", None])
def test_processes_are_ended_by_a_value_alone(value):
    with pytest.raises(ValueError, match="NO_SUCH_VARIABLE must have a value"):
        jobs.sweep("NO_SUCH_VARIABLE", value)  # which every process here lacks


def test_a_job_that_ended_without_a_word_is_named(tmp_path):
    write_json(tmp_path / "gamma.json", {"build": "new", "state": "running", "started": 0.0})
    assert (
        progress.failures(tmp_path, "new", tmp_path / "log") == "gamma was killed: it ended without a word."
    )


@pytest.mark.parametrize(
    ("given", "said"), [("soon", "'soon'"), ("-1", "'-1'"), ("nan", "'nan'"), ("inf", "'inf'")]
)
@pytest.mark.fault("Settings", "LIMIT is no number of minutes", "one line says so, before anything runs")
def test_a_limit_that_is_none_is_refused(sources, given, said):
    done = build(sources, "--limit", given)
    assert done.returncode == 1
    assert done.stdout == f"LIMIT: {said} is not a number of minutes; accepted: 0 (no limit) or more\n"
    assert not (sources / "build").exists()


@pytest.mark.fault("Ends", "memory runs out in a job", "one line with what this machine has")
def test_memory_that_does_not_suffice_is_said(tmp_path, capsys):
    def work(tell):
        raise MemoryError

    assert jobs.run(work, "Shard a", tmp_path / "a.json") == 1
    assert "Shard a: the memory does not suffice (MemoryError); this machine has" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["state"] == "failed"


@pytest.mark.fault("Ends", "the disk is full, or a folder cannot be written", "one line names the file")
def test_an_error_of_the_system_names_its_file(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert jobs.run(lambda tell: (tmp_path / "file" / "x").touch(), "Shard a") == 1
    assert capsys.readouterr().err == f"Shard a: {tmp_path}/file/x: Not a directory\n"
    full = Path("/dev/full")
    if full.exists():
        assert jobs.run(lambda tell: full.write_text("x"), "Shard a") == 1
        assert capsys.readouterr().err == "Shard a: No space left on device\n"
