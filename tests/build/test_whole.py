"""What was built is whole, or it is named and made again; what is stored is whole, or it is named at every call."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import build, edit, executed

from ica.build import mend, stored
from ica.record import seals


def damage(folder: Path) -> dict[str, str]:
    """Each kind of damage once: what was done, and the words that must name it."""
    ci = folder / "build/ci"
    cut = ci / "executed/alpha.ipynb"
    cut.write_bytes(cut.read_bytes()[:-100])
    shutil.rmtree(ci / "record/beta")
    figure = next((ci / "html").rglob("*.css"))
    flipped = bytearray(figure.read_bytes())
    flipped[10] ^= 1
    figure.write_bytes(flipped)
    claims = ci / "claims.json"
    claims.write_text(claims.read_text().replace("supported", "contradicted"))
    return {
        "the ledger of claims is made again": "build/ci/claims.json is damaged",
        "notebook alpha is made again": f"{Path('build/ci/executed/alpha.ipynb')} is damaged",
        "notebook beta is made again": "build/ci/record/beta/claims.json is missing",
        "the site is made again": f"{figure.relative_to(folder)} is damaged",
    }


@pytest.mark.slow
@pytest.mark.fault(
    "Results",
    "an executed notebook is cut short, a record removed, a bit of the site flipped, a verdict in the ledger of claims altered",
    "each is named, made again in the same call, and the book is as before",
)
def test_damage_is_named_and_made_again(project):
    before = json.loads((project / "build/claims.json").read_text())
    said = damage(project)
    done = build(project)
    assert done.returncode == 0, done.stdout
    for unit, reason in said.items():
        assert any(unit in line and reason in line for line in done.stdout.splitlines()), (unit, done.stdout)
    assert executed(done) == ["alpha", "beta"]
    assert json.loads((project / "build/claims.json").read_text()) == before
    again = build(project)
    assert again.returncode == 0 and again.stdout == f"{project}/build/book/index.html\n"


@pytest.mark.slow
@pytest.mark.fault(
    "Results",
    "a notebook fails, its earlier results are gone",
    "every further `make book` fails and names it, whatever else is edited, until it is mended",
)
def test_a_missing_notebook_fails_every_call(project):
    edit(project, "gamma", "work", "1 / 0")
    shutil.rmtree(project / "build/ci/record/gamma")
    for prose in ("One of five words here.", "Two of five words here.", "Two of five words here."):
        (project / "book/intro.md").write_text(f"# Start\n\n{prose} {{cite}}`key`\n")
        done = build(project)
        assert done.returncode == 1 and "ZeroDivisionError" in done.stdout.splitlines()[-1]
    edit(project, "gamma", "work", "print(seed)")
    assert build(project).returncode == 0


@pytest.mark.fault(
    "Results",
    "a notebook was run by hand into the folder of the build, with other parameters",
    "the build does not take it for its own",
)
def test_a_run_with_other_settings_is_not_taken(tmp_path):
    outputs = (tmp_path / "executed.ipynb", tmp_path / "record")
    outputs[0].write_text("{}")
    outputs[1].mkdir()
    (outputs[1] / "run.json").write_text("{}")
    seal = seals.write(tmp_path / "a.seal.json", [outputs[0], outputs[1] / "run.json"], {"digest": "1"})
    assert mend.mend([mend.sealed("notebook a", outputs, seal, "1")]) == []
    assert mend.mend([mend.sealed("notebook a", outputs, seal, "2")]) == [], "as after any edit"
    assert not list(tmp_path.iterdir())
    assert mend.mend([mend.sealed("notebook a", outputs, seal, "2")]) == [], "nothing there is no fault"


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "one bit": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("place", ["data.json", "sub/weights.safetensors", "seal.json"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_seal_sees_every_damage(tmp_path, how, place):
    (tmp_path / "sub").mkdir()
    files = [tmp_path / "data.json", tmp_path / "sub/weights.safetensors"]
    for file in files:
        file.write_text("content")
    seal = seals.write(tmp_path / "seal.json", files, {"threads": 1})
    assert (
        seals.faults(seal) == [] and seals.about(seal) == {"threads": 1} and seals.names(seal) == set(files)
    )
    DAMAGES[how](tmp_path / place)
    (found,) = seals.faults(seal)
    assert str(tmp_path / place) in found


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"files": {}, "about": {}}', '{"files": {"../x": ""}, "about": {}}', "[" * 100_000],
)
def test_a_seal_that_is_none_is_named(tmp_path, content):
    (tmp_path / "seal.json").write_text(content)
    assert seals.faults(tmp_path / "seal.json") == [f"{tmp_path}/seal.json is damaged (it is no seal)"]


@pytest.fixture
def results(sources) -> Path:
    folder = sources / "results" / "paper"
    folder.mkdir(parents=True)
    for name in ("a.json", "b.safetensors"):
        (folder / name).write_text(name)
    stored.accept(folder.parent)
    return folder


@pytest.mark.parametrize("how", [*DAMAGES, "new"])
@pytest.mark.fault(
    "Results",
    "a stored result is missing, damaged, or not listed",
    "`make book` names it and what to do at every call, and runs nothing, until it is mended or accepted",
)
def test_stored_results_that_are_not_as_stored_stop_every_build(sources, results, how):
    name = "c.json" if how == "new" else "b.safetensors"
    (results / name).write_text("x") if how == "new" else DAMAGES[how](results / name)
    for _ in range(2):
        done = build(sources)
        assert done.returncode == 1 and str(results / name) in done.stdout
        assert "`git checkout -- results` restores them" in done.stdout
        assert not (sources / "build/ci").exists()


def test_stored_results_can_be_accepted_as_they_are(sources, results):
    (results / "b.safetensors").unlink()
    assert stored.faults(results.parent) == [f"{results}/b.safetensors is missing"]
    stored.accept(results.parent)
    assert stored.faults(results.parent) == []
    shutil.rmtree(results.parent)
    assert stored.faults(results.parent) == []


def test_the_results_of_this_project_are_as_they_were_stored():
    assert stored.faults(Path(__file__).parents[2] / "results") == []


@pytest.mark.slow
@pytest.mark.fault(
    "Results",
    "a notebook is run by hand into the folder of a build, or Snakemake by hand beside it, or its notes (.snakemake) are lost",
    "the first is refused; nothing is published that is not of this build's sources and settings",
)
def test_nothing_else_is_published_for_the_book(project):
    command = [sys.executable, "-m", "ica.build.execute", "gamma", "--set", "seed=5", "--out", "build/ci"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "is a folder of the book's builds; give another" in done.stderr
    snakemake = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--nolock",
        "--cores",
        "1",
        "--rerun-triggers",
        "params",
    ]
    asked = (project / "build/ci/settings.json").read_text()
    subprocess.run(snakemake, cwd=project, capture_output=True, check=True)
    assert (project / "build/ci/settings.json").read_text() == asked
    shutil.rmtree(project / ".snakemake")
    (project / "book/intro.md").write_text("# Begin\n\nOther words of the first page, {cite}`key`.\n")
    done = build(project)
    assert done.returncode == 0 and executed(done) == [], done.stdout
    assert "Other words" in (project / "build/book/book/intro.html").read_text()


@pytest.mark.parametrize(
    "flag", ["-n", "--dry", "--touch", "--until claims", "--version", "--config profile=paper"]
)
@pytest.mark.fault(
    "Settings",
    "SNAKEMAKE_FLAGS holds an option that builds nothing, a part, or something else",
    "it is refused by its name, and nothing is touched",
)
def test_options_that_do_not_build_the_book_are_refused(sources, flag):
    done = build(sources, f"--flags={flag}")
    assert done.returncode == 1 and done.stdout.startswith(
        f"SNAKEMAKE_FLAGS: {flag.split()[0]} does not build the book"
    )
    assert not (sources / "build").exists()


def test_what_was_not_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    seal = seals.write(tmp_path / "seal.json", [tmp_path / "file"], {"digest": "1"})
    units = [mend.sealed("the site", (tmp_path / "file",), seal, "1")]
    wanted = mend.want(units, tmp_path / "wanted.json")
    assert mend.unmade(wanted) == ""
    seals.write(seal, [tmp_path / "file"], {"digest": "2"})
    assert "the site: of other sources or settings" in mend.unmade(wanted)
    seal.unlink()
    assert f"the site: {seal} is missing" in mend.unmade(wanted)
    assert "nothing was published" in mend.unmade(tmp_path / "none")
