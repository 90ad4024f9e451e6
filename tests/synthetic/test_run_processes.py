"""Training runs as a user starts them, in processes of their own: killed, started twice, with wrong words, on a full disk."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ica.build import jobs
from ica.synthetic.training import results, run
from ica.synthetic.training.catalogue import Job, jobs_of

ROOT = Path(__file__).parents[2]
RUNS = """
ci: &small
  config: {form: triplet, layers: 1, heads: 1, width: 8, hidden: 8, d: 3, N: 6, steps: 20, batch: 8, rate: 1.0e-2}
  groups: [[0, 3]]
  every: 10
  runs: {base: {}, slow: {steps: 300}}
cores: *small
paper: *small
"""


class Checkout:
    """A copy of the package with a small catalogue, and its command."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, root / "build" / "runs"
        left_out = shutil.ignore_patterns("llm", "theory", "analysis")
        shutil.copytree(ROOT / "ica", root / "ica", ignore=left_out)
        (root / "pyproject.toml").touch()
        self.catalogue = root / "ica" / "synthetic" / "training" / "runs.yml"
        self.catalogue.write_text(RUNS)

    def job(self, name: str) -> Job:
        (found,) = jobs_of(name, "ci", self.catalogue)
        return found

    def start(self, *words: str, settled: bool = True, **variables: str) -> subprocess.Popen:
        """The documented command; `settled`: with the variables that it would set itself, which saves a second."""
        environment = {key: value for key, value in os.environ.items() if key not in jobs.ENVIRONMENT}
        environment |= {"PYTHONPATH": str(self.root)} | (jobs.ENVIRONMENT if settled else {}) | variables
        command = [sys.executable, "-m", "ica.synthetic.training.run", *words]
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def call(self, *words: str, **more) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def numbers(self, name: str) -> dict:
        content = json.loads((self.runs / self.job(name).id / results.RESULT).read_text())
        del content["provenance"]
        return content  # with the digest of the weights


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, dict]:
    """What uninterrupted runs leave."""
    made = Checkout(tmp_path_factory.mktemp("whole"))
    for name in ("base", "slow"):
        code, _, err = made.call("ci", name, "--seeds", "0,3", "--device", "cpu", "--threads", "1")
        assert (code, err) == (0, "")
    return {name: made.numbers(name) for name in ("base", "slow")}


def until(so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def trained(status: Path) -> bool:
    """Has the run come past its first checkpoint, or to its end?"""
    try:
        found = json.loads(status.read_text())
    except FileNotFoundError:
        return False
    return found["state"] != "running" or not found.get("progress", "0/").startswith("0/")


@pytest.mark.fault(
    "Settings",
    "A run is trained with the command of the documentation, in a plain shell, before `make book`",
    "It has one thread and the fixed order of operations of a build: the same bits, which the build takes for its own",
)
def test_the_documented_command_gives_the_bits_of_the_build(whole, checkout):
    code, out, err = checkout.call("ci", "base", settled=False, OMP_NUM_THREADS="2")
    assert (code, err) == (0, "")
    job = checkout.job("base")
    assert out.strip() == str(checkout.runs / job.id / results.RESULT)
    assert run.faults(job, checkout.runs / job.id) == [] and checkout.numbers("base") == whole["base"]
    assert not [path for path in checkout.runs.rglob("*") if path.name.startswith(".") and path.is_dir()]


@pytest.mark.fault(
    "Ends",
    "A training run is ended by SIGTERM, SIGINT or kill -9 at a random moment, and started again",
    "It goes on from its last checkpoint, and ends with the same bits; nothing half-written is left",
)
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGINT, signal.SIGKILL),
        pytest.param((signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 4, marks=pytest.mark.slow),
    ],
    ids=["once", "often"],
)
def test_a_run_ended_at_any_moment_goes_on_to_the_same_bits(numbers, whole, checkout):
    status, draw, stopped = checkout.root / "status.json", random.Random(len(numbers)), 0
    for number in numbers:
        status.unlink(missing_ok=True)
        with checkout.start("ci", "slow", "--status", str(status)) as process:
            until(lambda: trained(status))
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(number)
            err = process.stderr.read()
        stopped += process.returncode != 0
        ended = json.loads(status.read_text())["state"]
        if number != signal.SIGKILL and process.returncode and ended != "done":
            assert process.returncode == 130 and "Traceback" not in err
            assert ended == "failed"
    assert stopped
    assert checkout.call("ci", "slow")[0] == 0
    job = checkout.job("slow")
    assert checkout.numbers("slow") == whole["slow"] and run.faults(job, checkout.runs / job.id) == []
    left = {path.name for path in checkout.runs.rglob("*")}
    assert left == {f".{job.id}.lock", job.id, results.RESULT, results.WEIGHTS, results.SEAL}


@pytest.mark.fault(
    "Results",
    "Two processes train the same run at once",
    "The second says which process it waits for, since when, and then takes its result, which is whole",
)
def test_of_two_processes_the_second_waits_and_takes_the_result(whole, checkout):
    status = checkout.root / "status.json"
    first = checkout.start("ci", "slow", "--status", str(status))
    until(lambda: trained(status))
    first.send_signal(signal.SIGSTOP)  # until the second has come to the lock
    told = checkout.root / "second.json"
    second = checkout.start("ci", "slow", "--status", str(told))
    until(lambda: told.is_file() and json.loads(told.read_text()).get("progress") == "waiting")
    first.send_signal(signal.SIGCONT)
    (one, first_err), (two, second_err) = first.communicate(timeout=120), second.communicate(timeout=120)
    assert first.returncode == second.returncode == 0 and one == two and first_err == ""
    assert (
        f"waiting for the training of run slow (scale ci, seeds 0,3) (process {first.pid} on " in second_err
    )
    assert "since 2" in second_err and second_err.count("\n") == 1
    assert checkout.numbers("slow") == whole["slow"]


@pytest.mark.fault(
    "Ends",
    "Of two processes that want the same run, the one that trains it is killed by kill -9",
    "The other goes on from its last checkpoint, to the same bits",
)
def test_a_lock_ends_with_its_process(whole, checkout):
    first_status, second_status = checkout.root / "status.json", checkout.root / "second.json"
    first = checkout.start("ci", "slow", "--status", str(first_status))
    until(lambda: trained(first_status))
    first.send_signal(signal.SIGSTOP)
    second = checkout.start("ci", "slow", "--status", str(second_status))
    until(
        lambda: second_status.exists() and json.loads(second_status.read_text()).get("progress") == "waiting"
    )
    first.kill()
    first.communicate()
    assert second.communicate(timeout=120) and second.returncode == 0
    assert checkout.numbers("slow") == whole["slow"]


WORDS = {
    "no threads": (
        ("ci", "base", "--threads", "0"),
        "--threads must be a whole number of at least 1, got '0'",
    ),
    "threads": (("ci", "base", "--threads", "two"), "--threads must be a whole number"),
    "seeds": (("ci", "base", "--seeds", "a"), "--seeds 'a' is no seed group of it; accepted: 0,3"),
    "commas": (("ci", "base", "--seeds", "0,,3"), "--seeds '0,,3' is no seed group of it; accepted: 0,3"),
    "scale": (("core", "base"), "got 'core'; did you mean cores?"),
    "run": (("ci", "bases"), "got 'bases'; did you mean base?"),
    "device": (("ci", "base", "--device", "gpu"), "--device must be one of cpu, cuda, auto; got 'gpu'"),
    "no GPU": (("ci", "base", "--device", "cuda"), "--device cuda: PyTorch finds no such GPU here"),
}


@pytest.mark.fault(
    "Input",
    "A run is started with a number of threads, seeds, a scale, a name or a device that there is not",
    "One line names the option, what was given and what is accepted, before anything runs",
)
@pytest.mark.parametrize("kind", WORDS)
def test_wrong_words_are_named_before_anything_runs(kind, tmp_path, monkeypatch, capsys):
    words, message = WORDS[kind]
    monkeypatch.setenv("ICA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    catalogue = tmp_path / "runs.yml"
    catalogue.write_text(RUNS)
    monkeypatch.setattr(run, "jobs_of", lambda name, scale: jobs_of(name, scale, catalogue))
    monkeypatch.setattr(sys, "argv", ["run", *words, "--status", str(tmp_path / "status.json")])
    assert run.main() == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (tmp_path / "runs").exists()
    told = json.loads((tmp_path / "status.json").read_text())
    assert told["state"] == "failed" and message in told["report"]


@pytest.mark.fault(
    "Surroundings",
    "The folder of the training runs cannot be written, or the disk is full",
    "One line names the file and the reason; nothing half-written is left, and the run goes on once there is room",
)
def test_a_folder_that_takes_nothing_is_named(whole, checkout):
    (checkout.root / "file").touch()
    code, out, err = checkout.call("ci", "base", ICA_RUNS=str(checkout.root / "file" / "runs"))
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"Training run base (scale ci): {checkout.root / 'file' / 'runs'}: Not a directory")
    environment = {**os.environ, **jobs.ENVIRONMENT, "PYTHONPATH": str(checkout.root)}

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow past this

    command = [sys.executable, "-B", "-m", "ica.synthetic.training.run", "ci", "base"]
    full = subprocess.run(
        command,
        cwd=checkout.root,
        env=environment,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1 and full.stderr.count("\n") == 1
    assert "step-000010.safetensors could not be written" in full.stderr and "File too large" in full.stderr
    assert not [path for path in checkout.runs.rglob("*.tmp")]
    assert checkout.call("ci", "base")[0] == 0 and checkout.numbers("base") == whole["base"]


@pytest.mark.fault(
    "Surroundings",
    "A run is started from another folder than the project's",
    "It finds the project's results, and leaves its own there",
)
def test_a_run_started_elsewhere_belongs_to_the_project(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {**os.environ, **jobs.ENVIRONMENT, "PYTHONPATH": str(checkout.root)}
    command = [sys.executable, "-m", "ica.synthetic.training.run", "ci", "base"]
    done = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (checkout.runs / checkout.job("base").id / results.SEAL).is_file() and not list(
        elsewhere.iterdir()
    )
