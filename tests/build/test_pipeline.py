"""The pipeline for real: papermill, Snakemake and Jupyter Book on a small project (see `small_project`)."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import small_project
from small_project import build, edit, executed

from ica.build import imports, notebooks
from ica.build.stage import claims_in

SUFFIXES = ("svg", "dark.svg", "pdf", "png", "csv", "json")


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


def page(folder: Path, name: str) -> str:
    return (folder / "build/book" / f"{name}.html").read_text()


def digests(folder: Path, profile: str = "ci", settings: str = "") -> dict[str, str]:
    values = notebooks.overrides(folder, profile, settings)
    return {name: notebooks.digest(folder, name, own) for name, own in values.items()}


# What a build does


def test_change_of_prose_runs_no_notebook_and_a_broken_reference_publishes_nothing(project):
    before = page(project, "notebooks/gamma")
    edit(project, "gamma", "end", "## End\n\nNew words, and {ref}`nowhere`.")
    failed = build(project)
    assert failed.returncode != 0 and executed(failed) == []
    last = failed.stdout.splitlines()[-1]
    assert last.startswith("notebooks/gamma.ipynb: cell end: WARNING") and "nowhere" in last
    assert page(project, "notebooks/gamma") == before

    edit(project, "gamma", "end", "## End\n\nNew words.")
    (project / "book/intro.md").write_text("# Start\n\nAnother start, {cite}`key`, of five words.\n")
    done = build(project)
    assert done.returncode == 0, done.stdout
    assert executed(done) == []
    assert "New words." in page(project, "notebooks/gamma") and "Another start" in page(project, "book/intro")


def test_change_of_a_module_runs_exactly_the_notebooks_that_import_it(project):
    (project / "ica/two.py").write_text("VALUE = 6\n")
    done = build(project)
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["beta"]
    claims = {row["id"]: row for row in json.loads((project / "build/claims.json").read_text())}
    assert claims["beta-parts"]["verdict"] == "reproduced"  # it was "partly" with 2 for 6
    assert claims["alpha-small"]["measurement"]["parts"]["value"]["value"] == 1


def make_book(folder: Path) -> subprocess.CompletedProcess:
    """`make book` with the environment that runs these tests, taken as ready (-o)."""
    shutil.copy(small_project.ROOT / "Makefile", folder)
    command = ["make", "--no-print-directory", "-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}", "book"]
    outer = ("MAKEFLAGS", "MAKELEVEL", "PROFILE", "SET", "JOBS", "SNAKEMAKE_FLAGS")
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, cwd=folder, env=environment, check=False, **streams)


def test_failing_cell_ends_the_build_with_its_report_and_the_next_build_resumes(project):
    before = {name: page(project, f"notebooks/{name}") for name in ("alpha", "gamma")}
    edit(project, "gamma", "work", "values = []\nvalues[seed]")
    edit(project, "alpha", "claim", 'record.claim("alpha-small", value=VALUE + 1)')
    failed = make_book(project)
    lines = failed.stdout.splitlines()
    assert failed.returncode != 0
    assert lines[-1] == "IndexError: list index out of range"
    assert "Notebook notebooks/gamma.ipynb failed in cell 5 of 7 (id work)." in lines
    assert "    values[seed]" in lines and "\x1b" not in failed.stdout
    assert {name: page(project, f"notebooks/{name}") for name in before} == before
    assert not list((project / "build/ci").glob(".*-*")), "a scratch folder was left"

    edit(project, "gamma", "work", "print(seed)")
    done = make_book(project)
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["gamma"]  # alpha was done in the build that failed
    assert "VALUE + 1" in re.sub("<[^>]*>", "", page(project, "notebooks/alpha"))


def test_other_parameters_are_told_on_the_page_and_the_injected_cell_never_appears(project):
    done = build(project, "--profile", "paper", "--set", "seed=3")
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["alpha", "beta", "gamma"]
    text = re.sub("<[^>]*>", "", page(project, "notebooks/alpha"))
    assert "This page was run with other values" in text
    assert "seed = 3 (in the cell: 0)" in text and "scale = 2 (in the cell: 1.5)" in text
    ran = nbformat.read(project / "build/paper/executed/alpha.ipynb", as_version=4)
    assert notebooks.tagged(ran, "injected-parameters")
    assert "# Parameters" not in text
    stored = nbformat.read(project / "build/paper/site/notebooks/alpha.ipynb", as_version=4)
    assert not notebooks.tagged(stored, "injected-parameters")
    assert json.loads((project / "build/paper/record/gamma/run.json").read_text())["parameters"] == {
        "seed": 3
    }


def test_unknown_parameter_stops_before_anything_runs(sources):
    done = build(sources, "--set", "sede=3")
    assert done.returncode != 0
    assert done.stdout.strip() == "SET: no notebook declares the parameter 'sede'; declared: scale, seed"
    assert not (sources / "build").exists()


# What the site holds


def test_figure_and_its_box_have_all_files(built):
    text = page(built, "notebooks/alpha")
    assert '<figure class="recorded align-default" id="fig-alpha-curve">' in text
    assert text.count('alt="A falling curve"') == 2 and "Fig. 1.1" in text
    box = text[text.index('<details class="cite">') : text.index("</details>")]
    links = re.findall(r'href="\.\./(_figures/[^"]+)" download', box)
    assert sorted(links) == sorted(f"_figures/alpha/alpha-curve.{suffix}" for suffix in SUFFIXES)
    assert all((built / "build/book" / link).stat().st_size > 100 for link in links[:4])
    assert (built / "build/book/_figures/alpha/alpha-curve.csv").read_text().startswith("step,error\n")
    entry = re.sub("<[^>]*>", "", box)
    assert "@misc{ica-alpha-curve" in entry and r"A curve of 100\% \&amp; more\_things" in entry
    assert "Figure alpha-curve of notebook alpha, version 0.1.0, commit" in entry


def test_table_is_set_in_its_formats(built):
    text = page(built, "notebooks/alpha")
    table = text[text.index('id="tab-alpha-table"') :]
    cells = re.findall(r'<td class="number"><p><span>([^<]*)', table)
    assert cells == ["0", "1.0e+00", "1", "5.0e−01", "2", "2.5e−01"]
    assert (built / "build/book/_tables/alpha/alpha-table.csv").is_file()


def test_text_of_a_model_is_shown_and_never_obeyed(built):
    text = page(built, "notebooks/alpha")
    table = text[text.index('id="tab-alpha-said"') :].split("</table>")[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\(x\\) {ref}`none` **loud**" in table
    assert "&lt;img src=x onerror=alert(1)&gt;" in table
    assert "<script" not in table and "<img" not in table and "math" not in table


def test_claims_link_to_the_cell_that_recorded_them(built):
    ledger, alpha = page(built, "book/claims"), page(built, "notebooks/alpha")
    assert 'href="../notebooks/alpha.html#claim-alpha-small"' in ledger
    after = alpha[alpha.index('id="claim-alpha-small"') :]
    assert "record.claim" in re.sub("<[^>]*>", "", after[:700])
    assert "✔ reproduced" in ledger and "◐ partly" in ledger
    assert r"\(x^2\)" in ledger and "&lt;small&gt;" in ledger and "<small>" not in ledger
    assert "2 claims: 1 reproduced, 1 partly." in page(built, "book/intro")


def test_numbers_in_prose_come_from_the_run(built):
    assert "the number is 0.125." in re.sub("<[^>]*>", "", page(built, "book/intro"))


def test_site_needs_no_network_and_offers_the_notebook_as_stored(built):
    for file in (built / "build/book").rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"', file.read_text()
        )
        assert not loaded, file
        assert file.read_text().count("const THEBE_JS_URL") <= 1
    mathjax = built / "build/book/_static/mathjax"
    assert (mathjax / "tex-chtml.js").is_file() and list(
        (mathjax / "output/chtml/fonts/woff-v2").glob("*.woff")
    )
    offered = built / "build/book/_sources/notebooks/alpha.ipynb"
    assert offered.read_bytes() == (built / "notebooks/alpha.ipynb").read_bytes()


def test_page_tells_how_it_was_run(built):
    text = re.sub("<[^>]*>", "", page(built, "notebooks/gamma"))
    box = text[text.index("How this page was run") :]
    assert "notebooks/gamma.ipynb" in box and "seed = 0" in box and "torch" in box


def test_launch_buttons_only_where_an_address_is_known(built):
    assert "mybinder.org" not in page(built, "notebooks/alpha")


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
    assert changed(lambda: (sources / "ica/record/registry/small.yml").write_text("[]\n")) == set()
    assert changed(lambda: (sources / "ica/build/site.py").write_text("")) == set()
    assert changed(lambda: (sources / "ica/record/record.py").write_text("")) == {"alpha", "beta", "gamma"}
    pins = sources / "constraints.txt"
    assert changed(lambda: pins.write_text(re.sub("torch==.*", "torch==9.9", pins.read_text()))) == set(first)
    assert digests(sources, settings="scale=3") != digests(sources)
    assert digests(sources, settings="seed=0") == digests(sources)


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
    assert claims_in("%magic") == []


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("seed=x", "SET: parameter seed = 'x' of notebook alpha is of type str; accepted: int"),
        ("seed=true", "of type bool; accepted: int"),
        ("seed", "SET: 'seed' is not of the form name=value"),
        ("other=1", "SET: no notebook declares the parameter 'other'; declared: scale, seed"),
    ],
)
def test_bad_settings_are_named(sources, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        notebooks.overrides(sources, "ci", settings)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ci: {alpha: {sede: 1}}", "notebook alpha declares no parameter 'sede'; declared: seed, scale"),
        ("ci: {omega: {seed: 1}}", "no notebook 'omega'; there are: alpha, beta, gamma"),
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
