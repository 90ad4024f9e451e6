"""`make sweep`: it stores, lists what it stored, leaves what is there, and passes words as they are."""

import json
import re
import shutil
from pathlib import Path

import pytest
from small_project import run_make

from ica.build import jobs
from ica.build import stored as seal

ROOT = Path(__file__).parents[2]
RUNS = """
ci: &small
  config: {noise: own, reward: squared_distance, scope: all, form: test-token, layers: 1, heads: 1, width: 8,
    hidden: 8, d: 3, N: 6, steps: 12, batch: 8, rate: 1.0e-2}
  groups: [[0, 3]]
  every: 10
  runs: {base: {}, critic: {critic: {kind: flip, level: 0.5}}}
stated: *small
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the package with the small catalogue, fewer seeds and prompts."""
    left_out = shutil.ignore_patterns("__pycache__", "llm", "theory", "analysis")
    shutil.copytree(ROOT / "ica", tmp_path / "ica", ignore=left_out)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    folder = tmp_path / "ica" / "synthetic" / "training"
    (folder / "runs.yml").write_text(RUNS)
    source = (folder / "sweep.py").read_text()
    fewer = re.sub(r"SEEDS = .*", 'SEEDS = {"ci": 3, "stated": 3}', source).replace("512, 10", "16, 2")
    fewer = re.sub(r"LONGER = .*", "LONGER = {}", fewer)
    (folder / "sweep.py").write_text(fewer)
    return tmp_path


def test_make_stores_lists_and_leaves_what_is_there(checkout):
    more = {"PYTHONPATH": str(checkout), **jobs.ENVIRONMENT}
    done = run_make(checkout, "sweep", "SCALE=ci", "RUNS=critic base", **more)
    files = [checkout / "results" / "sweep" / f"ci-{name}.json" for name in ("critic", "base")]
    assert done.returncode == 0 and done.stdout.split() == [str(file) for file in files], done.stdout
    assert seal.faults(checkout / "results") == [] and len(json.loads(files[0].read_text())["seeds"]) == 3
    before = [file.stat().st_mtime_ns for file in files]
    files[1].write_text("{}")
    done = run_make(checkout, "sweep", "SCALE=ci", **more)
    assert done.returncode != 0 and f"{files[1]} is damaged" in done.stdout and "--accept" in done.stdout
    assert files[0].stat().st_mtime_ns == before[0]


def test_make_passes_words_as_they_are(checkout):
    more = {"PYTHONPATH": str(checkout), **jobs.ENVIRONMENT}
    words = "$(shell touch pwned) `touch pwned`; touch pwned; \"'*"
    done = run_make(checkout, "sweep", f"SCALE={words}", f"RUNS={words}", **more)
    assert done.returncode != 0 and "has no sweep; accepted: ci, stated" in done.stdout, done.stdout
    done = run_make(checkout, "sweep", "SCALE=ci", "LIMIT=soon", **more)
    assert "LIMIT: 'soon' is not a number of minutes" in done.stdout
    assert not list(checkout.rglob("pwned")) and not (checkout / "results").exists()
    assert re.search(r"^  make sweep +train small runs", run_make(checkout).stdout, re.MULTILINE)
