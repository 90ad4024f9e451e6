"""What runs again, and why: digests of notebooks, claims and site follow what they depend on; bad settings are named."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from small_project import edit

from ica.build import imports, notebooks, site
from ica.build.stage import claims_in


def digests(folder: Path, profile: str = "ci", settings: str = "") -> dict[str, str]:
    values = notebooks.overrides(folder, profile, settings)
    return {name: notebooks.digest(folder, name, own) for name, own in values.items()}


# What depends on what


def test_digest_follows_code_parameters_modules_and_versions_but_no_prose(sources):
    first = digests(sources)
    edit(sources, "alpha", "title", "# Page alpha\n\nOther prose.")
    assert digests(sources) == first

    def changed(action) -> set[str]:
        before = digests(sources)
        action()
        return {name for name, digest in digests(sources).items() if digest != before[name]}

    assert changed(lambda: edit(sources, "alpha", "claim", "1")) == {"alpha"}
    assert changed(lambda: (sources / "ica/one.py").write_text("VALUE = 7\n")) == {"alpha"}
    assert changed(lambda: (sources / "ica/two.py").write_text("VALUE = 7\n")) == {"beta"}
    registry = sources / "ica/record/registry"
    assert changed(lambda: (registry / "theory/small.yml").write_text("[]\n")) == set()
    assert changed(lambda: (registry.parent / "paper.yml").write_text("[]\n")) == set()
    assert changed(lambda: (sources / "ica/build/site.py").write_text("")) == set()
    assert changed(lambda: (sources / "ica/record/record.py").write_text("")) == {"alpha", "beta", "gamma"}
    pins = sources / "constraints.txt"
    assert changed(lambda: pins.write_text(re.sub("torch==.*", "torch==9.9", pins.read_text()))) == set(first)
    assert digests(sources, settings="scale=3") != digests(sources)
    assert digests(sources, settings="seed=0") == digests(sources)


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        ("registry/theory/small.yml", True),
        ("registry/llm/new.yml", True),
        ("paper.yml", True),
        ("criteria.py", True),
        ("claims.py", True),
        ("paper.py", True),
        ("ledger.py", True),
        ("figures.py", False),
        ("registry/FORMAT.md", False),
    ],
)
def test_verdicts_are_given_anew_where_criteria_or_their_reading_changed(sources, name, follows):
    before = site.registry_digest(sources, {}), site.source_digest(sources, {})
    (sources / "ica/record" / name).write_text("")
    after = site.registry_digest(sources, {}), site.source_digest(sources, {})
    assert (before[0] != after[0], before[1] != after[1]) == (follows, follows)
    assert site.registry_digest(sources, {"alpha": "1"}) != after[0]


def test_digest_follows_declared_data_files(sources):
    path = sources / "notebooks/gamma.ipynb"
    nb = nbformat.read(path, as_version=4)
    nb.metadata["ica"] = {"inputs": ["results/*.json"]}
    nbformat.write(nb, path)
    first = digests(sources)
    (sources / "results").mkdir()
    (sources / "results/new.json").write_text("1")
    assert {name for name, digest in digests(sources).items() if digest != first[name]} == {"gamma"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import ica.one", {"ica", "ica.one"}),
        ("import ica.three as t", {"ica", "ica.three", "ica.two"}),
        ("from ica import one, three", {"ica", "ica.one", "ica.three", "ica.two"}),
        ("from ica.one import VALUE", {"ica", "ica.one"}),
        ("def f():\n    from ica import two", {"ica", "ica.two"}),
        ("from ica.sub import name", {"ica", "ica.sub", "ica.one"}),
        ("import ica.sub.deep", {"ica", "ica.sub", "ica.sub.deep", "ica.one", "ica.two"}),
        ("import icarus, os", set()),
        ("this is no Python", set()),
    ],
)
def test_import_closure(sources, statement, expected):
    (sources / "ica/sub").mkdir()
    (sources / "ica/sub/__init__.py").write_text("from ..one import VALUE\n")
    (sources / "ica/sub/deep.py").write_text("from .. import two\n")
    assert set(imports.closure([statement], sources)) == expected


def test_closure_of_cycles_ends(sources):
    (sources / "ica/one.py").write_text("import ica.two\n")
    (sources / "ica/two.py").write_text("import ica.one\n")
    assert imports.closure(["import ica.one"], sources) == ["ica", "ica.one", "ica.two"]


def test_imports_beside_magics_are_found(sources):
    edit(sources, "gamma", "work", "%%time\n%matplotlib inline\n!ls\nfrom ica import one")
    cells = notebooks.python_cells(notebooks.read(sources, "gamma"))
    assert "ica.one" in imports.closure(cells, sources)


def test_listing_names_the_modules_of_each_notebook(sources):
    command = [sys.executable, "-m", "ica.build.notebooks"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=True)
    beta = done.stdout.split("beta:\n")[1].split("gamma:")[0].split()
    assert {"ica.three", "ica.two"} <= set(beta) and "ica.one" not in beta


def test_claims_in_a_cell():
    assert claims_in('record.claim("a-b", value=1)\nrecord.untestable("c", why="")') == ["a-b", "c"]
    assert claims_in('other.claim("a")\nrecord.claim(name)\nrecord.figure("f")') == []
    assert claims_in(
        'claims.f(record, "a", "b-full", small, "c")\ng(record, "d")\nmy_claims(other, "e")'
    ) == [
        "a",
        "b-full",
    ]
    assert claims_in("%magic") == []


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("seed=x", "SET: parameter seed = 'x' of notebook alpha is of type str; accepted: int"),
        ("seed=true", "of type bool; accepted: int"),
        ("seed", "SET: 'seed' is not of the form name=value"),
        ("other=1", "SET: no notebook declares the parameter 'other'; accepted: scale, seed"),
    ],
)
def test_bad_settings_are_named(sources, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        notebooks.overrides(sources, "ci", settings)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "ci: {alpha: {sede: 1}}",
            "notebook alpha declares no parameter 'sede'; did you mean seed? accepted: scale, seed",
        ),
        ("ci: {omega: {seed: 1}}", "no notebook 'omega'; accepted: alpha, beta, gamma"),
        ("fast: {}", "unknown profile 'fast'; accepted: ci, paper"),
        ("paper: {alpha: {scale: 1e-3}}", "in YAML write 1.0e-3"),
    ],
)
def test_bad_profiles_are_named(sources, table, message):
    (sources / "notebooks/profiles.yml").write_text(table + "\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        notebooks.overrides(sources, "ci")


def test_profile_missing_notebook_and_computed_parameter_are_errors(sources):
    with pytest.raises(ValueError, match="PROFILE: unknown profile 'full'; accepted: ci, paper"):
        notebooks.overrides(sources, "full")
    edit(sources, "beta", "parameters", "seed = 1 + len('a')")
    with pytest.raises(ValueError, match="notebook beta: parameters cell holds .* only `name = literal`"):
        notebooks.overrides(sources, "ci")
    (sources / "notebooks/beta.ipynb").unlink()
    with pytest.raises(ValueError, match="notebooks/beta is listed, but there is no file"):
        notebooks.listed(sources)


def test_values_on_the_command_line():
    given = notebooks.assignments("a=3 b=1e-3 c=[2,4] d=word e=true f='two words'")
    assert given == {"a": 3, "b": 1e-3, "c": [2, 4], "d": "word", "e": True, "f": "two words"}
    assert notebooks.assignments("model=true items=1e3") == {"model": "true", "items": "1e3"}
