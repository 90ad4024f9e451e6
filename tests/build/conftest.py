"""The small project, written or built, for the tests of this folder."""

import shutil
from pathlib import Path

import pytest
import small_project
from small_project import build, executed


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The small project after its first build; tests that change it take a copy."""
    folder = small_project.write(tmp_path_factory.mktemp("pipeline") / "built")
    done = build(folder)
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["alpha", "beta", "gamma"]
    assert done.stdout.splitlines()[-1] == str(folder / "build/book/index.html")
    return folder


@pytest.fixture
def project(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "project"))


@pytest.fixture
def sources(tmp_path) -> Path:
    """The small project, never built."""
    return small_project.write(tmp_path / "sources")
