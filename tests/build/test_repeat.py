"""Comparing two builds: a changed, a missing and a new data file are all seen; times are left out."""

import os
from pathlib import Path

import pytest

from ica.build import lock, repeat
from ica.build.settings import Settings


def records(folder, files: dict[str, str]):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return repeat.data_files(folder)


def test_every_difference_is_named(tmp_path):
    first = records(tmp_path / "1", {"a/figures/x.csv": "1", "a/figures/y.csv": "1", "b/tables/t.csv": "1"})
    second = records(tmp_path / "2", {"a/figures/x.csv": "1", "a/figures/y.csv": "2", "b/tables/u.csv": "1"})
    assert repeat.differences(first, second) == [
        "a/figures/y.csv: differs",
        "b/tables/t.csv: only in the first build",
        "b/tables/u.csv: only in the second build",
    ]
    assert repeat.differences(first, first) == []


def test_times_and_images_are_left_out(tmp_path):
    found = records(tmp_path, {"a/timed/t.csv": "1", "a/figures/x.svg": "1", "a/figures/x.csv": "1"})
    assert list(found) == ["a/figures/x.csv"]


def test_a_build_that_fails_fails_the_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICA_CALLS", "")
    (tmp_path / "ica").mkdir()
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr(repeat.book, "asked", lambda root, words: Settings())
    monkeypatch.setattr(repeat.book, "once", lambda root, words: 1)
    assert repeat.main([]) == 1
    monkeypatch.setattr(repeat.book, "once", lambda root, words: 0)
    assert repeat.main([]) == 1  # nothing to compare is no success


@pytest.mark.fault(
    "Results",
    "`make repeat` finds models and answers of earlier builds",
    "both builds train and ask anew; it holds the lock before it removes anything",
)
def test_both_builds_begin_from_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ica").mkdir()
    (tmp_path / "Snakefile").touch()
    seen = []

    def build(root: Path, words: list[str]) -> int:
        seen.append(sorted(path.name for path in (root / "build").iterdir() if not path.name.startswith(".")))
        for name in ("ci", "runs", "llm", repeat.CALLS):
            (root / "build" / name).mkdir()
        assert os.environ["ICA_CALLS"] == str(root / "build" / repeat.CALLS)
        return 0

    monkeypatch.setenv("ICA_CALLS", "")
    monkeypatch.setattr(repeat.book, "asked", lambda root, words: Settings())
    monkeypatch.setattr(repeat.book, "once", build)
    (tmp_path / "build" / "runs").mkdir(parents=True)
    with lock.alone(tmp_path / "build", "make book"):
        assert repeat.main([]) == 1 and not seen and (tmp_path / "build" / "runs").is_dir()
    repeat.main([])
    assert seen == [[], []]


@pytest.mark.parametrize("words", ["--profile=..", "--profile=/", "--profile=", "--jobs=abc", "--limit=soon"])
@pytest.mark.fault(
    "Settings",
    "`make repeat` gets a profile that is a path, or another wrong value",
    "it is refused before anything is removed",
)
def test_wrong_words_remove_nothing(sources, monkeypatch, words):
    monkeypatch.chdir(sources)
    monkeypatch.setenv("ICA_LIMIT", "")
    before = sorted(sources.rglob("*"))
    assert repeat.main([words]) == 1
    assert sorted(sources.rglob("*")) == before
