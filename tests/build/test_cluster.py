"""Jobs on other machines: what is refused before anything is submitted, what is said of them, and what memory they took."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_project import build, run_make

from ica.build import cluster, jobs, peaks, progress
from ica.build import stored as seal
from ica.record.provenance import write_json
from ica.synthetic.training import cost

ROOT = Path(__file__).parents[2]


def profile(folder: Path, name: str, text: str) -> Path:
    file = folder / cluster.PROFILES / name / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_the_profile_of_slurm_has_time_and_memory_for_every_rule_that_is_submitted():
    assert cluster.names(ROOT) == ["slurm"] and cluster.executor(ROOT, "slurm") == "slurm"
    content = yaml.safe_load((ROOT / cluster.PROFILES / "slurm" / "config.yaml").read_text())
    given, default = content["set-resources"], content["default-resources"]
    rules = (ROOT / "Snakefile").read_text() + (ROOT / "workflow/rules/spread.smk").read_text()
    assert all(f"rule {name}:" in rules for name in given)
    assert {"train", "swept", "read", "attack", "ask", "paper_llm"} <= given.keys()
    for one in (default, *given.values()):
        assert one["mem_mb"] >= 2000 and one["runtime"] >= 60
    assert content["slurm-requeue"] and content["retries"] >= 1


@pytest.mark.fault(
    "Settings",
    "CLUSTER names a profile that there is not, or whose package or program is missing",
    "one line says so and what is accepted, before anything is submitted",
)
def test_a_cluster_that_cannot_be_is_named(tmp_path, monkeypatch):
    assert cluster.flags(tmp_path, "") == ()
    with pytest.raises(ValueError, match="CLUSTER: unknown profile 'slurm'; accepted: none"):
        cluster.flags(tmp_path, "slurm")
    profile(tmp_path, "here", "executor: local\n")
    assert cluster.flags(tmp_path, "here") == ("--profile", "workflow/profiles/here")
    for name in ("slrum", "../here", "here/"):
        with pytest.raises(ValueError, match="unknown profile .*; accepted: here"):
            cluster.flags(tmp_path, name)
    profile(tmp_path, "empty", "jobs: 3\n")
    with pytest.raises(ValueError, match=r"empty/config.yaml names no executor \('executor'\)"):
        cluster.flags(tmp_path, "empty")
    profile(tmp_path, "odd", "executor: not-there\n")
    with pytest.raises(
        ValueError, match="needs the package snakemake-executor-plugin-not-there; .*pip install"
    ):
        cluster.flags(tmp_path, "odd")
    profile(tmp_path, "far", "executor: slurm\n")
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match="CLUSTER=far: sbatch is not on this machine"):
        cluster.flags(tmp_path, "far")


@pytest.mark.parametrize("target", ["book", "sweep", "stored", "ladder", "paper-llm"])
def test_make_hands_the_cluster_on(sources, target):
    words = "$(shell touch pwned) 'x'"
    done = run_make(sources, target, f"CLUSTER={words}")
    assert done.returncode != 0 and f"CLUSTER: unknown profile {words!r}; accepted: none" in done.stdout
    assert not (sources / "build").exists() and not (sources / "pwned").exists()


def test_a_job_that_is_begun_again_says_how_often(tmp_path, monkeypatch):
    monkeypatch.setenv(jobs.BUILD, "1")
    file, counts = tmp_path / "status" / "x.json", []
    for _ in range(2):
        assert (
            jobs.run(lambda tell: counts.append(json.loads(file.read_text())["begun"]), "Sweep x", file) == 0
        )
    monkeypatch.setenv(jobs.BUILD, "2")
    file.with_name("y.json").write_text("{")
    for name in ("x.json", "y.json"):
        one = file.with_name(name)
        jobs.run(lambda tell, one=one: counts.append(json.loads(one.read_text())["begun"]), "Sweep x", one)
    assert counts == [1, 2, 1, 1]


def test_a_process_that_goes_on_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BEAT", 0.1)
    file = tmp_path / "x.json"

    def work(tell) -> None:
        before = file.stat().st_mtime_ns
        end = time.monotonic() + 20
        while file.stat().st_mtime_ns == before:
            assert time.monotonic() < end, "no beat"
            time.sleep(0.05)

    assert jobs.run(work, "Sweep x", file) == 0


def test_what_is_said_of_a_job_elsewhere(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", 10.0)
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    status = {"build": "1", "state": "running", "started": 0.0, "host": "n1", "begun": 1}
    (log := tmp_path / "log").write_text("swept  2\n")
    near, far = (progress.Progress(tmp_path, "1", log, far=far) for far in (False, True))

    def say(later: float, beat: bool, **more) -> list[str]:
        clock[0] += later
        if more:
            write_json(tmp_path / "x.json", status | more)
        if beat:
            os.utime(tmp_path / "x.json", ns=(0, int(clock[0] * 1e9)))
        near.update(), capsys.readouterr()
        far.update()
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    assert say(0, True, begun=1) == []
    assert say(9, False) == [] and say(9, True) == [] and say(9, False) == []
    (line,) = say(9, False)
    assert line == "x: nothing heard of its process on n1 for 10 s; its machine may be gone"
    assert say(60, False) == [], "said once"
    assert say(9, True, begun=2, host="n2") == ["x: its process is gone; begun again on n2 (1)"]
    assert say(9, False, begun=2, host="n2", state="done", seconds=3.0) == [
        "[1/2] x                            3.0 s"
    ]
    assert say(9, True, begun=3, host="n2") == ["x: its process is gone; begun again on n2 (2)"]
    assert say(9, False, begun=3, host="n2", state="done", seconds=3.0)[0].startswith("[1/2] x")


def test_near_jobs_may_be_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENT", 0.0)
    status = {"build": "1", "state": "running", "started": 0.0, "host": "n1", "begun": 1}
    write_json(tmp_path / "x.json", status)
    (log := tmp_path / "log").touch()
    near = progress.Progress(tmp_path, "1", log)
    for _ in range(3):
        near.update()
        time.sleep(0.01)
    assert capsys.readouterr().out == ""


# Memory


def test_a_job_records_the_memory_that_it_held(tmp_path):
    """A real process of 300 MiB, and one whose child holds as much."""
    hold = "x = bytearray(300 * 2**20)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    peak = []
    for work in ("pass", hold, child):
        file = tmp_path / "x.json"
        code = f"import pathlib, sys; from ica.build import jobs; sys.exit(jobs.run(lambda tell: exec({work!r}), 'The site', pathlib.Path({str(file)!r})))"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        peak.append(json.loads(file.read_text())["peak"])
    bare, own, of_child = peak
    assert 295 <= own - bare <= 330 and 295 <= of_child - bare <= 345 and bare > 10


def test_every_job_of_a_build_has_its_peak_on_the_page(built, tmp_path):
    found = peaks.gather(Path(shutil.copytree(built / "build/ci", tmp_path / "ci")))
    assert found.keys() == {"alpha", "beta", "gamma", "claims", "site"}
    assert all(20 < one["peak"] < 4096 for one in found.values())
    assert all(
        one["seconds"] > 1 for name, one in found.items() if name != "claims"
    )  # these take milliseconds
    rows = peaks.kinds(found)
    assert {(row.name, row.count) for row in rows} == {("notebooks", 3), ("claims and site", 2)}
    assert rows[0].peak == max(one["peak"] for one in found.values()) == found[rows[0].largest]["peak"]
    two = sorted(one["peak"] for one in found.values())[-2:]
    assert peaks.together(found) == sum(two) / 1024


def test_peaks_of_what_did_not_run_again_are_kept(tmp_path, capsys):
    def job(name: str, what: str, peak: int, state: str = "done") -> None:
        content = {"job": what, "state": state, "peak": peak, "seconds": 1.25}
        write_json(tmp_path / "status" / f"{name}.json", content)

    job("a", "Notebook a", 2000), job("b", "Training run b", 900), job("c", "Notebook c", 1, "failed")
    assert peaks.gather(tmp_path).keys() == {"a", "b"}
    shutil.rmtree(tmp_path / "status")
    job("b", "Training run b", 2500)
    write_json(tmp_path / "status" / "wanted.json", {})
    found = peaks.gather(tmp_path)
    assert (
        found["b"] == {"kind": "training runs", "peak": 2500, "seconds": 1.2} and found["a"]["peak"] == 2000
    )
    assert (
        peaks.main([str(tmp_path), "--most", "4.4"]) == 0
        and "2500 MiB  training runs (1; b)" in capsys.readouterr().out
    )
    assert (
        peaks.main([str(tmp_path), "--most", "4.3"]) == 1
        and "more than the 4.3 GiB" in capsys.readouterr().err
    )
    (tmp_path / "peaks.json").write_text("{")
    assert peaks.gather(tmp_path).keys() == {"b"}
    assert peaks.main([str(tmp_path / "none")]) == 1 and "holds no peak" in capsys.readouterr().err


def test_the_book_is_built_without_the_executor_of_a_cluster(sources):
    """As for every reader: the package is not in the environment that `make` installs."""
    done = build(sources, "--cluster=slurm")
    assert done.returncode == 1 and "CLUSTER: unknown profile 'slurm'" in done.stdout
    extras = (ROOT / "pyproject.toml").read_text()
    assert "slurm" not in extras.partition("[project.optional-dependencies]")[0]


@pytest.mark.slow
def test_the_page_shows_costs_and_memory(sources):
    """The page of the book, with the stored results of this checkout, in a small book."""
    for name in ("ica", "results"):
        left_out = shutil.ignore_patterns("__pycache__", "registry", "paper.yml", "*.safetensors")
        shutil.copytree(ROOT / name, sources / name, ignore=left_out, dirs_exist_ok=True)
    (sources / "results/SHA256.json").unlink()
    seal.accept(sources / "results")
    shutil.copy(ROOT / "book/at_scale.md", sources / "book")
    toc = yaml.safe_load((sources / "_toc.yml").read_text())
    for name in ("paper_llm", "faults"):
        (sources / "book" / f"{name}.md").write_text(f"# Page {name}\n")
    toc["parts"][0]["chapters"] += [{"file": f"book/{name}"} for name in ("paper_llm", "faults", "at_scale")]
    (sources / "_toc.yml").write_text(yaml.safe_dump(toc))
    done = build(sources)
    assert done.returncode == 0, done.stdout
    page = (sources / "build/book/book/at_scale.html").read_text()
    for name in cost.table():
        assert page.count(f"<p><span>{name}</span></p>") == 1
    full = cost.scale("full")
    assert f"{full.runs} × {full.seeds}" in page and f"{60 * full.operations / 2e12 / 3600:.0f} min" in page
    assert f"({full.measured / full.operations:.0%} of it)" in page
    assert "<p><span>notebooks</span></p>" in page and re.search(r"The two largest at once: \d\.\d GiB", page)
