"""The sweep on Slurm, really submitted: the same bits as here, whatever happens to a process or to the node."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import one_node
import psutil
import pytest
import small_project
from one_node import until

from ica.build import jobs

ROOT = Path(__file__).parents[2]
RUNS = """
ci:
  config: {form: triplet, layers: 1, heads: 1, width: 8, hidden: 8, d: 3, N: 6, steps: 40, batch: 8, rate: 1.0e-2}
  groups: [[0, 3]]
  every: 10
  runs: {base: {}, linear: {attention: linear}, long: {steps: 1600}}
"""
# Of one node that is asked often; the profile itself is for many.
FLAGS = (
    "--slurm-no-account --slurm-status-command squeue --slurm-init-seconds-before-status-checks 2 --latency-wait 5 "
    "--default-resources mem_mb=500 runtime=10 --set-resources swept:mem_mb=900"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """The project, with its whole package, a small catalogue, few seeds and prompts."""
    folder = small_project.write(tmp_path_factory.mktemp("slurm") / "sources")
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("ica", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out, dirs_exist_ok=True)
    training = folder / "ica" / "synthetic" / "training"
    (training / "runs.yml").write_text(RUNS)
    text = re.sub(r"SEEDS = .*", 'SEEDS = {"ci": 3}', (training / "sweep.py").read_text())
    (training / "sweep.py").write_text(text.replace("512, 10\n", "16, 2\n"))
    return folder


def numbers(folder: Path) -> dict[str, dict]:
    found = {file.name: json.loads(file.read_text()) for file in (folder / "results/sweep").glob("*.json")}
    for content in found.values():
        del content["provenance"]
    return found


@pytest.fixture(scope="module")
def here(sources, tmp_path_factory) -> dict[str, dict]:
    """What the same sweeps give on this machine, one after the other."""
    folder = Path(shutil.copytree(sources, tmp_path_factory.mktemp("slurm") / "here"))
    command = [sys.executable, "-m", "ica.synthetic.training.sweep", "ci", "base", "linear", "long"]
    environment = small_project.outer_environment() | jobs.ENVIRONMENT | {"PYTHONPATH": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return numbers(folder)


@pytest.fixture
def folder(sources, tmp_path) -> Path:
    return Path(shutil.copytree(sources, tmp_path / "there"))


@contextmanager
def submitted(folder: Path, runs: str) -> Iterator[subprocess.Popen]:
    """`make sweep CLUSTER=slurm`, ended with the block."""
    words = [
        "--target=sweep",
        "--scale=ci",
        f"--runs={runs}",
        "--cluster=slurm",
        "--jobs=3",
        f"--flags={FLAGS}",
    ]
    started = subprocess.Popen(
        [sys.executable, "-m", "ica.build.book", *words],
        cwd=folder,
        env=small_project.outer_environment() | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield started
    finally:
        started.terminate()  # nothing, where it has ended
        started.wait(timeout=60)


def trainer(folder: Path) -> psutil.Process:
    """The process that trains the long run, once its first seeds have a checkpoint."""
    runs = folder / "build/runs"
    until(lambda: any(runs.glob(".sweep-ci-long-*/0/*.safetensors")), "no checkpoint", 120)
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.cwd() == str(folder) and words[1:5] == [
                "-m",
                "ica.synthetic.training.sweep",
                "ci",
                "long",
            ]:
                return process
        except psutil.Error:
            continue
    raise AssertionError("nobody trains the long run")


def first_told(folder: Path) -> int:
    """The training step at which the process that began the long run again starts."""
    file, told = folder / "build/ci/status/sweep-ci-long.json", []

    def again() -> bool:
        status = json.loads(file.read_text())
        if status["begun"] == 2 and (found := re.search(r"0 seeds, (\d+)/", status.get("progress", ""))):
            told.append(int(found[1]))
        return bool(told)

    until(again, "it is not begun again", 120)
    return told[0]


@pytest.mark.slow
@pytest.mark.fault(
    "Ends",
    "a process of a sweep on Slurm is killed half-way",
    "its job is submitted again and goes on from its checkpoint; all results are those of the sweep on this machine, bit for bit",
)
def test_a_sweep_on_slurm_has_the_bits_of_one_here(folder, here, tmp_path):
    with one_node.running(tmp_path / "state"), submitted(folder, "base linear long") as started:
        trainer(folder).kill()
        assert first_told(folder) >= 400
        said, _ = started.communicate(timeout=180)
    assert started.returncode == 0, said
    assert "sweep-ci-long: its process is gone; begun again on " in said
    assert said.count("] sweep-ci-") == 3 and "FAILED" not in said
    assert numbers(folder) == here and len(here) == 3


@pytest.mark.slow
@pytest.mark.fault(
    "Ends",
    "the node of a cluster goes away, with all that runs on it",
    "one line says that nothing is heard of the job; Slurm begins it again, and it goes on from its checkpoint",
)
def test_a_node_that_goes_away_is_said_and_its_job_goes_on(folder, here, tmp_path):
    with one_node.running(tmp_path / "state") as node, submitted(folder, "long") as started:
        trainer(folder)
        node.goes_away()
        lines = []
        for line in started.stdout:
            lines.append(line)
            if "nothing heard of its process on" in line:
                node.start()
        code = started.wait(timeout=180)
    said = "".join(lines)
    assert code == 0, said
    silent, again, done = (line.strip() for line in lines[:3])
    assert silent.startswith("sweep-ci-long: nothing heard of its process on ")
    assert again.startswith("sweep-ci-long: its process is gone; begun again on ")
    assert done.startswith("[1/1] sweep-ci-long")
    assert numbers(folder)["ci-long.json"] == here["ci-long.json"]


@pytest.mark.slow
@pytest.mark.fault(
    "Ends",
    "a sweep on Slurm is stopped",
    "its jobs are cancelled before `make` ends, and what they did is kept",
)
def test_a_sweep_that_is_stopped_cancels_its_jobs(folder, tmp_path):
    with one_node.running(tmp_path / "state"), submitted(folder, "long") as started:
        training = trainer(folder)
        started.terminate()
        assert started.wait(timeout=60) == 130
        until(lambda: not training.is_running(), "the job goes on")
        until(lambda: not one_node.said("squeue", "-h", "-t", "PD,R,CG"), "the queue is not empty")
    assert [*(folder / "build/runs").glob(".sweep-ci-long-*/0/*.safetensors")]
