"""The settings, the report and the page of `make bench`."""

import re
import shutil
from pathlib import Path

import pytest
import released_stand_in
import small_project
import torch
import yaml
from small_project import build

from ica.bench import report, run, settings, timing
from ica.build import stored

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick(monkeypatch):
    """One quick case stands for a part."""
    ways = (
        timing.Way("ours <b>", lambda: None, flop=77e9, goal=2.0),
        timing.Way("theirs", lambda: None, flop=77e9),
    )

    def cases(name, *_):
        sizes = (1, 2, 4) if name == "objective" else (1,)
        return (
            timing.Case(f"{name} {at}", "step", ways, lambda: 0.0, 0.1, torch.float64, series="N", at=at)
            for at in sizes
        )

    monkeypatch.setattr(run, "cases", cases)
    monkeypatch.setattr(timing, "LEAST", 1e-4)
    monkeypatch.setattr(run, "matrix_rate", lambda dtype, device: 1e9)


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "results").mkdir()
    stored.accept(tmp_path / "results")
    return tmp_path


def perform(project, **words) -> Path:
    return run.perform(settings.asked(words), project, lambda text: None)


# Settings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"RUNS": "objectiv"}, "RUNS: 'objectiv' is no part; did you mean objective? accepted: book, "),
        ({"RELEASED": "/nowhere"}, "RELEASED: '/nowhere' is no checkout of the released code: synthetic_exp"),
        ({"THREADS": "0"}, "THREADS: must be a whole number of 1 to 256, got 0"),
        ({"THREADS": "two"}, "THREADS: must be a whole number of 1 to 256, got 'two'"),
        ({"REPEATS": "1e3"}, "REPEATS: must be a whole number of 1 to 100, got '1e3'"),
        ({"STORE": "maybe"}, "STORE: must be yes or nothing, got 'maybe'"),
        ({"DEVICE": "toaster"}, "DEVICE: 'toaster' cannot be used ("),
    ],
)
def test_a_wrong_setting_is_one_line(words, said):
    with pytest.raises(ValueError) as caught:
        settings.asked(words)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_settings_by_themselves(tmp_path):
    folder = released_stand_in.write(tmp_path / "a b")
    found = settings.asked({"RUNS": "items training items", "RELEASED": f" {folder} ", "STORE": "yes"})
    assert found == settings.Asked(("training", "items"), folder, 1, settings.REPEATS, "cpu", True)
    assert "book" not in settings.asked({}).runs and len(settings.asked({}).runs) == len(settings.PARTS) - 1


@pytest.mark.fault(
    "Settings",
    "`make bench` is asked for a part that there is not",
    "one line with the parts that there are; nothing is measured or written",
)
def test_make_refuses_before_anything_runs(tmp_path):
    shutil.copytree(ROOT / "ica", tmp_path / "ica", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").touch()
    done = small_project.run_make(tmp_path, "bench", "RUNS=$(x) 'y'")
    assert done.returncode == 2 and "make bench: RUNS: '$(x)' is no part; accepted: book, " in done.stdout
    assert "Traceback" not in done.stdout and not list(tmp_path.glob("build/*.json"))


# Report


def test_a_report_holds_each_part_with_its_provenance(project, quick):
    path = perform(project, RUNS="objective", REPEATS="3")
    perform(project, RUNS="constructed", REPEATS="2")
    found = report.read(path)
    assert path == project / "build/bench.json" and list(found["parts"]) == ["constructed", "objective"]
    part = found["parts"]["objective"]
    assert {
        "commit",
        "dirty",
        "versions",
        "hardware",
        "threads",
        "released",
        "started",
        "seconds",
        "processor_seconds",
    } == set(part["provenance"])
    assert part["rates"] == {"float64 on cpu": 1e9} and len(part["growth"]) == 2
    assert len(part["rows"]) == 3 and not found["parts"]["constructed"]["growth"]
    way = part["rows"][0]["ways"][0]
    assert set(way["seconds"]) == {"min", "median", "max", "each"} and len(way["seconds"]["each"]) == 3
    assert way["floor"] == 77


def test_without_a_checkout_training_is_left_out_and_said(project, quick, capsys):
    path = perform(project, RUNS="training objective")
    assert list(report.read(path)["parts"]) == ["objective"]
    said = "training: left out, as it needs a checkout of the released code, RELEASED=folder\n"
    assert said in capsys.readouterr().out
    with pytest.raises(ValueError, match="training: left out, as it needs"):
        perform(project, RUNS="training")


def test_stored_reports_are_sealed_one_a_processor(project, quick, monkeypatch):
    machine = {"cpu": "CPU (R) @ 2 GHz", "cores": 2, "memory_gib": 4.0, "gpus": []}
    monkeypatch.setattr(report, "hardware", lambda: machine)
    path = perform(project, RUNS="objective", STORE="yes")
    assert path == project / "results/bench/cpu-r-2-ghz.json"
    (project / "build/bench.json").unlink()
    perform(project, RUNS="constructed", STORE="yes")
    (found,) = report.all_stored(project)
    assert list(found["parts"]) == ["constructed", "objective"]
    stored.check(project)
    monkeypatch.setattr(report, "hardware", lambda: machine | {"cpu": "Other"})
    perform(project, RUNS="items", STORE="yes")  # what was measured here before is of another machine
    assert [list(one["parts"]) for one in report.all_stored(project)] == [
        ["constructed", "objective"],
        ["items"],
    ]
    (summary,) = stored.summary(project / "results")
    assert summary["name"] == "bench" and summary["processors"] == ["CPU (R) @ 2 GHz", "Other"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "parts": {"a": {}}, "provenance": {"hardware": {"cpu": ""}}}']
)
def test_a_damaged_report_is_named_and_left(project, quick, content):
    path = project / "build" / "bench.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(report.ReportError, match=f"report {re.escape(str(path))} is .*; remove it"):
        perform(project, RUNS="objective")
    assert path.read_text() == content


def test_nothing_of_a_part_is_written_whose_ways_differ(project, quick, monkeypatch):
    perform(project, RUNS="objective")
    before = (project / "build/bench.json").read_text()
    monkeypatch.setattr(run, "measured", lambda *_: (_ for _ in ()).throw(ValueError("the ways differ")))
    with pytest.raises(ValueError, match="the ways differ"):
        perform(project, RUNS="constructed")
    assert (project / "build/bench.json").read_text() == before


# Page


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    import companion_bench

    return companion_bench


def test_durations_and_ranges(extension):
    shown = [extension.duration(one) for one in (0, 61.5, 0.5, 2e-6, 3e-11)]
    assert shown == ["–", "61.5 s", "500 ms", "2 µs", "0.03 ns"]
    assert extension.ranged(timing.spread([1.0, 2.0, 4.0])) == "2 (1 to 4)"
    assert extension.ranged(timing.spread([1.0, 1.0])) == "1"


def test_tables_of_a_part(extension, project, quick):
    part = report.read(perform(project, RUNS="objective"))["parts"]["objective"]
    said, rows, growth = object.__new__(extension.Bench).measured(part)
    assert (
        "1 billion a second (float64 on cpu)" in said.astext()
        and part["provenance"]["hardware"]["cpu"] in said.astext()
    )
    words = rows.astext()
    assert "objective 1, a step" in words and "ours <b>" in words and words.count("77 s") == 6
    assert "Exponent of time" in growth.astext()


def test_every_part_stands_on_the_page():
    page = (ROOT / "book/bench.md").read_text()
    assert re.findall(r"```\{bench\} (\w+)", page) == list(settings.PARTS)
    assert "book/bench" in (ROOT / "_toc.yml").read_text()


@pytest.mark.slow  # a small book
def test_the_page_shows_what_is_stored(tmp_path, quick):
    sources = small_project.write(tmp_path / "sources")
    left_out = shutil.ignore_patterns("__pycache__", "registry", "paper.yml")
    shutil.copytree(ROOT / "ica", sources / "ica", ignore=left_out, dirs_exist_ok=True)
    (sources / "results").mkdir()
    stored.accept(sources / "results")
    perform(sources, RUNS="objective", STORE="yes")
    page = (ROOT / "book/bench.md").read_text().replace("notebooks/plackett_luce", "notebooks/alpha")
    (sources / "book/bench.md").write_text(page)
    toc = yaml.safe_load((sources / "_toc.yml").read_text())
    toc["parts"][0]["chapters"] += [{"file": "book/bench"}]
    (sources / "_toc.yml").write_text(yaml.safe_dump(toc))
    done = build(sources)
    assert done.returncode == 0, done.stdout
    page = (sources / "build/book/book/bench.html").read_text()
    assert "objective 4, a step" in page and "ours &lt;b&gt;" in page and "Exponent of time" in page
    assert page.count("Not measured for this version") == len(settings.PARTS) - 1
