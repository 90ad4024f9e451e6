"""Settings reach the notebooks as they were typed, whatever is in them, or are refused in one line before anything runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small_project
from hypothesis import given
from hypothesis import strategies as st
from small_project import build, edit, run_make

from ica.build import book, settings

NASTY = 'mo del\'s "x": $(shell touch pwned) `touch pwned` ${HOME} {ü} #1 \\ 1e3, [a]=b%'


@pytest.mark.slow
@pytest.mark.fault(
    "Settings",
    "MODEL, BBQ, SET and the checkout's own path hold spaces, quotes, colons, $, newlines, braces and letters beyond ASCII",
    "the book is built; the notebook gets these very texts",
)
def test_hostile_values_and_paths_arrive_as_they_are(tmp_path):
    place = tmp_path / 'a b\'s $(x) "ü" {1}; [c] #'
    folder = small_project.write(place / "project")
    edit(folder, "gamma", "parameters", 'seed = 0\nmodel = "smollm2"\nitems = "bbq"\nwords = ""')
    edit(folder, "gamma", "start", small_project.start("gamma", "seed, model, items, words"))
    model = f"{place}/{NASTY}\nsecond line.gguf"
    Path(model).touch()
    (place / "items: 'é'").mkdir()
    (place / "items: 'é'" / "Age.jsonl").touch()
    done = run_make(
        folder, "book", f"MODEL={model}", f"BBQ={place}/items: 'é'", "SET=words='$a: \"b\" \\\\ é'"
    )
    assert done.returncode == 0, done.stdout
    ran = json.loads((folder / "build/ci/record/gamma/run.json").read_text())["parameters"]
    assert ran == {"seed": 0, "model": model, "items": f"{place}/items: 'é'", "words": '$a: "b" \\\\ é'}
    assert not list(place.rglob("pwned"))
    first = (folder / "build/book/notebooks/gamma.html").read_text()
    assert "$(shell touch pwned)" in first


@given(
    parameters=st.dictionaries(
        st.text(), st.text() | st.integers() | st.booleans() | st.lists(st.floats(0, 1))
    )
)
def test_settings_are_read_as_they_were_written(tmp_path_factory, parameters):
    root = tmp_path_factory.mktemp("settings")
    asked = settings.Settings("id", "paper", parameters, "stored", "cores", ("base",), 3, ("smollm2",))
    assert settings.read(asked.write(root)) == asked


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"profile": "ci"}', '{"profile": 1}', "[" * 100_000])
def test_damaged_settings_are_named(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings .*settings\.json are damaged"):
        settings.read(tmp_path / "settings.json")


REFUSED = {
    "JOBS=abc": "JOBS: 'abc' is not a whole number; accepted: 1 or more",
    "JOBS=0": "JOBS: '0' is not a whole number; accepted: 1 or more",
    "JOBS=$(shell echo 2)": "JOBS: '$(shell echo 2)' is not a whole number; accepted: 1 or more",
    "PROFILE=full": "PROFILE: unknown profile 'full'; accepted: ci, paper",
    "PROFILE=../../tmp": "PROFILE: unknown profile '../../tmp'; accepted: ci, paper",
    "LIMIT=soon": "LIMIT: 'soon' is not a number of minutes; accepted: 0 (no limit) or more",
    "SNAKEMAKE_FLAGS='": 'SNAKEMAKE_FLAGS: "\'" cannot be split into words: No closing quotation',
    "SET=seed": "SET: 'seed' is not of the form name=value",
    "SET=sede=3": "SET: no notebook declares the parameter 'sede'; did you mean seed? accepted: scale, seed",
}


@pytest.mark.parametrize("words", REFUSED)
@pytest.mark.fault(
    "Settings",
    "JOBS, PROFILE, LIMIT, SET or SNAKEMAKE_FLAGS is misspelt or no value of its kind",
    "one line says what is accepted; nothing runs, nothing is written",
)
def test_a_wrong_setting_is_one_line_before_anything_runs(sources, words):
    done = run_make(sources, "book", words)
    assert done.returncode != 0
    assert done.stdout.strip() == REFUSED[words]
    assert not (sources / "build").exists()


@pytest.mark.fault("Settings", "a path is not UTF-8, or holds NUL", "one line says so")
def test_a_path_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="MODEL: .* is not UTF-8; rename the file"):
        book.given("MODEL", os.fsdecode(b"m\xff.gguf"))
    with pytest.raises(ValueError, match="BBQ: .* holds a NUL character"):
        book.given("BBQ", "a\0b")
    assert book.given("MODEL", "owner/name") == "owner/name"
    assert book.given("MODEL", str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("module", ["book", "repeat", "clean"])
@pytest.mark.fault(
    "Input",
    "what builds or removes is called in another folder",
    "it is refused: it does not go looking for a checkout",
)
def test_a_build_elsewhere_is_refused(tmp_path, module):
    (tmp_path / "build").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", f"ica.build.{module}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is not this project's folder; call it there\n"
    assert (tmp_path / "build").is_dir()


@pytest.mark.fault(
    "Surroundings", "the checkout's path holds a colon, which no path of Python can", "one line says so"
)
def test_a_checkout_in_a_folder_with_a_colon_is_refused(tmp_path):
    folder = small_project.write(tmp_path / "a:b")
    done = build(folder)
    assert done.returncode == 1 and "can hold a ':'; move the checkout" in done.stdout


@pytest.mark.fault(
    "Input", "one notebook is run from the folder of notebooks", "it runs as from the project's root"
)
def test_a_notebook_runs_from_any_folder_of_the_checkout(sources):
    done = subprocess.run(
        [sys.executable, "-m", "ica.build.execute", "gamma"],
        cwd=sources / "notebooks",
        env=os.environ | {"PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (sources / "build/alone/record/gamma/run.json").is_file()


OURS = {
    "sys.executable:q", "params.digest", "params.job", "params.name", "params.attacks", "params.models", "threads", "ASKED.threads", "OUT",
    "SETTINGS", "input", "input.attacks", "output", "output.ours", "output.paper", "wildcards.name", "wildcards.asset",
    "wildcards.shard", "wildcards.model",
}  # fmt: skip


def test_values_of_settings_pass_no_shell():
    """What the Snakefile gives a shell is names and hashes of ours, our files and numbers: a new field must be looked at."""
    source = (small_project.ROOT / "Snakefile").read_text()
    shells = re.findall(r'    shell:\n((?:        ".*"\n)+)', source)
    assert len(shells) == source.count("    shell:") > 5
    assert {field for shell in shells for field in re.findall(r"\{([^{}]+)\}", shell)} == OURS


@pytest.mark.fault(
    "Input",
    "MODEL or BBQ names a model or folder that there is not, or that cannot be read",
    "`make book` says so in one line before anything runs",
)
def test_a_model_that_there_is_not_is_one_line_before_anything_runs(sources):
    edit(sources, "gamma", "parameters", 'seed = 0\nmodel = "smollm2"')
    (sources / "pickled").mkdir()
    (sources / "pickled" / "pytorch_model.bin").touch()
    for name, said in {
        "smolm2": "did you mean smollm2?",
        "pickled": "pytorch_model.bin",
        "a.gguf": "is unknown",
    }.items():
        done = build(sources, f"--model={name}")
        assert done.returncode == 1 and said in done.stdout and done.stdout.count("\n") == 1, done.stdout
        assert not (sources / "build/ci/executed").exists()
