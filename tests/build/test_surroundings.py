"""Whatever stands around a build: a home folder that cannot be written, other programs, a moved environment, other systems."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_project
from small_project import run_make

from ica.build import supported

ROOT = small_project.ROOT


@pytest.mark.slow
@pytest.mark.fault(
    "Surroundings",
    "HOME and its cache cannot be written, another jupyter-book and another git repository are named first, CI=true, "
    "the locale is not UTF-8",
    "the book is built as ever, by its own programs",
)
def test_a_build_needs_nothing_of_its_surroundings(sources, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("jupyter-book", "snakemake", "papermill", "sphinx-build", "jupyter"):
        (programs / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/called-{name}'\nexit 1\n")
        (programs / name).chmod(0o755)
    done = run_make(
        sources,
        "book",
        HOME="/dev/null/home",
        PATH=f"{programs}:{os.environ['PATH']}",
        GIT_DIR=str(ROOT / ".git"),
        CI="true",
        LC_ALL="en_US.ISO-8859-1",
        PYTHONUTF8="0",
        XDG_CACHE_HOME="/dev/null/cache",
    )
    assert done.returncode == 0, done.stdout
    assert not list(tmp_path.glob("called-*"))
    run = json.loads((sources / "build/ci/record/gamma/run.json").read_text())
    assert run["commit"] is None and run["no_commit"] == "the sources are no git checkout"
    assert "mkdir -p failed" not in (sources / "build/book/notebooks/alpha.html").read_text()


@pytest.mark.fault(
    "Surroundings",
    "the checkout was moved or copied with its .venv",
    "`make` sees it and makes the environment anew",
)
def test_a_moved_environment_is_made_anew(tmp_path):
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".ready").touch()

    def plan() -> str:
        command = ["make", "--no-print-directory", "-n", "test"]
        environment = small_project.outer_environment()
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    (venv / ".place").write_text(f"{tmp_path.resolve()}\n")
    assert "pytest" in plan() and "rm -rf .venv" not in plan()
    (venv / ".place").write_text("/elsewhere/checkout\n")
    assert "rm -rf .venv" in plan() and "-m venv --clear .venv" in plan()


@pytest.mark.parametrize(
    ("version", "system", "machine", "said"),
    [
        ((3, 11, 7), "Linux", "x86_64", ""),
        ((3, 12, 0), "Linux", "aarch64", ""),
        ((3, 12, 0), "Darwin", "arm64", ""),
        (
            (3, 12, 0),
            "Darwin",
            "x86_64",
            "PyTorch has no build for this Python: a Mac with an Intel processor",
        ),
        ((3, 10, 9), "Linux", "x86_64", "Python 3.11 or 3.12 is needed"),
        ((3, 13, 0), "Darwin", "arm64", "Python 3.11 or 3.12 is needed"),
        ((3, 12, 0), "Windows", "AMD64", "Windows itself is not meant"),
    ],
)
@pytest.mark.fault(
    "Surroundings",
    "another Python, a Mac with an Intel processor, or Windows itself",
    "`make` says what is meant before it installs anything",
)
def test_systems_that_are_not_meant_are_told_so(version, system, machine, said):
    reason = supported.reason(version, system, machine)
    assert reason.startswith(said) and bool(reason) == bool(said)


def test_a_folder_with_a_colon_is_told_before_anything_is_installed():
    assert "Move the checkout" in supported.reason((3, 12, 0), "Linux", "x86_64", "/a:b")
    assert supported.reason((3, 12, 0), "Linux", "x86_64", "/a b") == ""


def test_make_asks_before_it_installs(tmp_path):
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "ica/build/supported.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\necho 'Python 3.11 or 3.12 is needed, says this one' >&2\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"],
        cwd=tmp_path,
        env=small_project.outer_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "says this one" in done.stderr and not (tmp_path / ".venv").exists()


@pytest.mark.fault(
    "Surroundings", "git is set to write CRLF", "a clone has the same bytes: .gitattributes says so"
)
def test_a_clone_with_crlf_has_the_same_bytes(tmp_path):
    probe = tmp_path / "origin"
    probe.mkdir()
    for name in (".gitattributes", "Makefile", ".ci/run", "results/README.md"):
        (probe / name).parent.mkdir(exist_ok=True)
        (probe / name).write_bytes((ROOT / name).read_bytes())

    def git(*words: str, at: Path = probe) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.autocrlf=true")
        subprocess.run(["git", *identity, *words], cwd=at, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("clone", "-q", str(probe), "copy", at=tmp_path)
    for name in ("Makefile", ".ci/run", "results/README.md"):
        assert (tmp_path / "copy" / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_modules_that_run_without_the_environment_need_only_the_standard_library():
    words = "import sys; sys.modules['psutil'] = sys.modules['numpy'] = sys.modules['pandas'] = None; import ica.build.clean, ica.build.supported"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
