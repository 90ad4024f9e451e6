"""The files that describe the environment agree, and the notebooks are stored as the house wants them."""

import itertools
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from ica.build import notebooks
from ica.build.stage import claims_in
from ica.record import claims

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Name -> version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines[0].startswith("# ")
    found = [line.split("==") for line in lines[1:]]
    assert all(len(pair) == 2 and re.fullmatch(r"[A-Za-z0-9._]+", pair[1]) for pair in found), (
        "name==version only"
    )
    return {normal(name): version for name, version in found}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(piece) for piece in re.findall(r"\d+", text)[:3])


def test_constraints_are_sorted_and_each_name_once():
    names = [normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]]
    assert names == sorted(set(names))


def test_every_dependency_is_pinned_within_its_bounds(pins):
    for requirement in itertools.chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        name, bounds = re.match(r"([A-Za-z0-9._-]+)(.*)", requirement).groups()
        assert normal(name) in pins, f"{name} is not in constraints.txt"
        for sign, bound in re.findall(r"(>=|<|==)([\d.]+)", bounds):
            given, limit = version(pins[normal(name)]), version(bound)
            assert {">=": given >= limit, "<": given < limit, "==": given == limit}[sign], requirement


def test_conda_environment_agrees(pins):
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    (python,) = [entry for entry in CONDA["dependencies"] if str(entry).startswith("python=")]
    low, high = re.findall(r"[\d.]+", PROJECT["requires-python"])
    assert version(low) <= version(python.partition("=")[2]) < version(high)
    assert pip == [f"torch=={pins['torch']}", "--constraint constraints.txt", "--editable .[test]"]


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert {"title", "authors", "message", "cff-version"} <= citation.keys()


def test_profiles_and_table_of_contents_fit_the_notebooks():
    assert set(notebooks.listed(ROOT)) == {path.stem for path in STORED}
    for profile in notebooks.PROFILES:
        notebooks.overrides(ROOT, profile)


def test_pages_of_the_book_exist():
    prose = [page for page in notebooks.pages(ROOT) if not page.startswith("notebooks/")]
    assert prose and all((ROOT / f"{page}.md").is_file() for page in prose)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_notebook_is_stored_clean(path):
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    assert notebooks.declared(nb, path.stem) is not None
    ids = [cell.id for cell in nb.cells]
    assert len(set(ids)) == len(ids)
    assert not notebooks.tagged(nb, "injected-parameters")
    assert nb.metadata.kernelspec.name == notebooks.KERNEL
    for cell in nb.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, f"cell {cell.id} is stored with outputs"
        assert not set(cell.metadata) & {"execution", "papermill", "ExecuteTime"}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_cell_ids_are_names_not_counters(path):
    """Ids given by position change with every inserted cell, and outputs would land at the wrong one."""
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert not any(re.fullmatch(r"\d+", name) for name in ids)


@pytest.fixture(scope="module")
def registry() -> dict[str, claims.Claim]:
    return claims.load()


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_claim_is_recorded_by_its_literal_id(path, registry):
    """Only so can the ledger link to the cell that measured it, and prose refer to it by {ref}."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = {claim for source in code for claim in claims_in(source)}
    listed = {claim.id for claim in registry.values() if claim.notebook == path.stem}
    assert found == listed, f"registered alone: {listed - found}; recorded alone: {found - listed}"


def test_claims_are_of_notebooks_in_the_book(registry):
    assert {claim.notebook for claim in registry.values()} <= set(notebooks.listed(ROOT))


def test_data_files_of_the_package_are_installed_with_it():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "ica"
    ]
    data = {path for path in (ROOT / "ica").rglob("*") if path.suffix in (".yml", ".json")}
    assert data == {path for pattern in settings for path in (ROOT / "ica").glob(pattern)}
