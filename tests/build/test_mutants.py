"""`make mutants`: what mutmut kept becomes counts, gaps and reasons; the copy that is tested is of the tracked files alone."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from ica.build import mutants

CHANGE = "-return a < b\n+return a <= b"
GAP = {"ica.one.x_less__mutmut_1": 1, "ica.one.x_less__mutmut_2": 0, "ica.two.xǁBoxǁsize__mutmut_1": 36}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of two modules, with what mutmut kept of three mutants, one of which no test noticed."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in ("ica/one.py", "ica/two.py", "tests/test_one.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / mutants.REASONS).write_text("[]")
    return tmp_path


def keep(root: Path, codes: dict[str, int | None]) -> Path:
    tree = root / "build" / "mutants"
    for module in ("one", "two"):
        path = tree / "mutants" / "ica" / f"{module}.py.meta"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {name: code for name, code in codes.items() if name.startswith(f"ica.{module}.")}
        path.write_text(json.dumps({"exit_code_by_key": own}))
    return tree


def explain(root: Path, **reason: str) -> None:
    (root / mutants.REASONS).write_text(yaml.safe_dump([reason]))


def test_what_was_noticed_is_counted_and_what_was_not_is_a_gap(root, monkeypatch):
    monkeypatch.setattr(mutants, "change", lambda tree, name: ("less", CHANGE))
    found = mutants.report(root, keep(root, GAP))
    assert found["modules"] == {
        "ica/one.py": {"mutants": 2, "noticed": 1},
        "ica/two.py": {"mutants": 1, "noticed": 1},
    }
    (gap,) = found["survivors"]
    assert gap == {"module": "ica/one.py", "function": "less", "change": CHANGE, "why": ""}
    assert mutants.share(found["modules"].values()) == pytest.approx(2 / 3)
    assert "66.7% noticed; 1 survived without a reason" in mutants.said(found)
    explain(root, function="less", change=CHANGE, why="a and b are never equal")
    found = mutants.report(root, keep(root, GAP))
    assert found["survivors"][0]["why"] == "a and b are never equal"
    assert "0 survived without a reason" in mutants.said(found)


def test_a_reason_for_what_a_test_notices_is_needless_and_a_damaged_list_is_refused(root, monkeypatch):
    monkeypatch.setattr(mutants, "change", lambda tree, name: ("less", CHANGE))
    explain(root, function="less", change="-a\n+b", why="nobody knows")
    found = mutants.report(root, keep(root, GAP))
    assert mutants.needless(root, found) == ["no mutant of less that survived is\n-a\n+b"]
    explain(root, function="less", change=CHANGE, why="a and b are never equal")
    assert mutants.needless(root, found) == []
    (root / mutants.REASONS).write_text("- function: less")
    with pytest.raises(ValueError, match="accepted is a list of function, change, why"):
        mutants.reasons(root)


@pytest.mark.parametrize("code", [None, -9, 2])
def test_mutants_without_an_outcome_are_said_and_not_counted(root, code):
    with pytest.raises(mutants.Unfinished, match=f"1 with {code}"):
        mutants.outcomes(keep(root, GAP | {"ica.two.x_more__mutmut_1": code}))
    with pytest.raises(mutants.Unfinished, match="there is none"):
        mutants.outcomes(root / "nowhere")


def test_the_copy_is_of_tracked_files_and_leaves_what_did_not_change(root):
    tree = root / "build" / "mutants"
    mutants.copy(root, tree)
    assert not (tree / mutants.REASONS).exists()  # it is not tracked
    before = (tree / "ica/one.py").stat().st_mtime_ns
    (root / "ica/two.py").unlink()
    (root / "tests/test_one.py").write_text("x = 2\n")
    mutants.copy(root, tree)
    assert (tree / "ica/one.py").stat().st_mtime_ns == before
    assert not (tree / "ica/two.py").exists() and (tree / "tests/test_one.py").read_text() == "x = 2\n"


def test_a_damaged_report_is_named(root):
    assert mutants.kept(root) is None
    path = root / mutants.STORED
    path.parent.mkdir()
    path.write_text('{"modules": {}}')
    with pytest.raises(ValueError, match=r"results/mutants.json is damaged .*git checkout -- results"):
        mutants.kept(root)
