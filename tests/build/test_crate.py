"""The RO-Crate of a build: whole, of files that there are, with the times and versions of the runs."""

import json
from pathlib import Path

import pytest

from ica.build import crate

RUN = {
    "commit": "0123abc",
    "no_commit": "",
    "dirty": True,
    "profile": "ci",
    "platform": "Linux",
    "seeds": [0, 1],
}
RUN |= {
    "versions": {"ica": "0.1.0", "python": "3.11.7", "torch": None},
    "parameters": {"eta": 0.5, "kind": "a <b>"},
}
RUN |= {"hardware": {"cpu": "A CPU", "cores": 2}, "started": "2026-11-28T23:59:30+00:00", "seconds": 61.4}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def made(tmp_path) -> dict:
    """Metadata of one run with a figure, a table and a timed table, and of the files that it names."""
    write(tmp_path / "_toc.yml", "format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/one\n")
    write(tmp_path / "_config.yml", "title: A book\n")
    write(tmp_path / "pyproject.toml", '[project]\nversion = "0.1.0"\n')
    write(
        tmp_path / "CITATION.cff",
        "title: Cited\nauthors:\n  - name: We\n  - {family-names: Doe, given-names: Jo}\n",
    )
    write(tmp_path / "notebooks/one.ipynb", "")
    out, site = tmp_path / "build/ci", tmp_path / "build/book"
    write(out / "record/one/run.json", json.dumps(RUN))
    for name in ("claims.json", "numbers.json", "loose.txt", "figures/.secret"):
        write(out / "record/one" / name, "[]")
    for name in ("claims.json", "paper_claims.json"):
        write(out / name, "[]")
        write(tmp_path / "build" / name, "[]")
    for kind, name in (("figures", "a.svg"), ("figures", "a.csv"), ("tables", "b.csv"), ("timed", "c.csv")):
        write(out / "record/one" / kind / name, "12345")
        write(site / ("_figures" if kind == "figures" else "_tables") / "one" / name, "12345")
    write(site / "_sources/notebooks/one.ipynb", "{}")
    found = crate.metadata(tmp_path, out, site)
    return found | {"build": tmp_path / "build"}


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        return (
            [value["@id"]]
            if set(value) == {"@id"}
            else [one for part in value.values() for one in references(part)]
        )
    return [one for part in value for one in references(part)] if isinstance(value, list) else []


def test_every_entity_is_there_once_and_every_file_too(made):
    graph = made["@graph"]
    ids = [one["@id"] for one in graph]
    assert len(set(ids)) == len(ids)
    assert set(references(graph)) - {crate.CRATE} <= set(ids)
    files = {one["@id"]: one for one in graph if one["@type"] == "File"}
    assert set(files) == {one["@id"] for one in graph[1]["hasPart"]} and len(files) == 7
    for name, one in files.items():
        assert (made["build"] / name).stat().st_size == int(one["contentSize"])


def test_the_root_says_what_archives_ask_for(made):
    about, root = made["@graph"][:2]
    assert made["@context"] == "https://w3id.org/ro/crate/1.1/context"
    assert about["@id"] == "ro-crate-metadata.json" and about["about"] == {"@id": "./"}
    assert about["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@id"] == "./" and root["@type"] == "Dataset" and root["name"] == "Cited"
    assert root["datePublished"] == RUN["started"] and root["license"] and root["description"]
    assert {one["name"] for one in made["@graph"] if one["@type"] in ("Person", "Organization")} == {
        "We",
        "Jo Doe",
    }


def test_a_run_has_its_times_parameters_and_software(made):
    found = {one["@id"]: one for one in made["@graph"]}
    run = found["#run-one"]
    assert run["@type"] == "CreateAction" and run["instrument"] == {"@id": "#ica"}
    assert (run["startTime"], run["endTime"]) == (RUN["started"], "2026-11-29T00:00:31+00:00")
    given = {found[one["@id"]]["name"]: found[one["@id"]].get("value") for one in run["object"]}
    assert given == {"one.ipynb": None, "eta": "0.5", "kind": "a <b>", "seeds": "[0, 1]"}
    assert {one["@id"] for one in run["result"]} == {
        f"book/{name}"
        for name in ("_figures/one/a.svg", "_figures/one/a.csv", "_tables/one/b.csv", "_tables/one/c.csv")
    }
    assert found["#ica"]["softwareVersion"] == "0.1.0 (0123abc, with local changes)"
    assert found["#python"]["softwareVersion"] == "3.11.7" and "#torch" not in found


def test_a_build_leaves_one(built):
    found = json.loads((built / "build" / crate.FILE).read_text())
    files = [one["@id"] for one in found["@graph"] if one["@type"] == "File"]
    assert "book/_figures/alpha/alpha-curve.svg" in files and "claims.json" in files
    assert all((built / "build" / name).is_file() for name in files)
