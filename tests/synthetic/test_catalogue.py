"""The catalogue of runs, what its scales are, and which of its jobs a notebook needs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ica.build import notebooks
from ica.synthetic.task.config import RunConfig
from ica.synthetic.training import catalogue, workflow
from ica.synthetic.training.catalogue import Job

ROOT = Path(__file__).parents[2]


def test_every_run_of_every_scale_is_valid_and_has_its_own_id():
    for scale in catalogue.SCALES:
        found = catalogue.jobs(scale)
        ids = [job.id for jobs in found.values() for job in jobs]
        assert len(set(ids)) == len(ids) >= len(found) > 1
        assert ("base" in found) == (scale != "walk")
        names = {job.stem for jobs in found.values() for job in jobs}
        assert len(names) == len(ids)
    base = catalogue.jobs_of("base", "paper")
    assert {job.config for job in base} == {replace(RunConfig(), products="bfloat16")}
    assert RunConfig().steps == 3000 and [job.seeds for job in base] == [(0,), (1,), (2,)]
    for scale in catalogue.LIVE:  # what a build trains is small
        assert all(
            job.config.layers <= 4 and job.config.steps <= 600 for (job,) in catalogue.jobs(scale).values()
        )


# What the paper states (sec. 4, App. C.1), but a token a triplet for its test tokens, which `test-token` has.
STATED = RunConfig(
    noise="own",
    reward="squared_distance",
    scope="all",
    form="triplet",
    layers=20,
    heads=3,
    width=96,
    hidden=384,
)
STATED = replace(STATED, d=5, N=20, batch=256, rate=1e-4, steps=1500, products="bfloat16")
TASK = ("noise", "reward", "scope", "form", "d", "N")
PANELS = {
    "depth-quarter": {"layers": 5},
    "depth-half": {"layers": 10},
    "depth-three-quarters": {"layers": 15},
    "linear": {"attention": "linear"},
    "heads-1": {"heads": 1, "width": 32, "hidden": 128},
    "heads-4": {"heads": 4, "width": 128, "hidden": 512},
    "heads-6": {"heads": 6, "width": 192, "hidden": 768},
    "no-ffn": {"hidden": 0},
    "float32": {"products": "float32"},
    "test-token": {"form": "test-token"},
}


def test_the_full_scale_is_the_papers_setting_and_its_panels_change_one_thing_each():
    found = catalogue.jobs("full")
    assert found["base"][0].config == STATED and len(found["base"]) >= 3
    for name, changes in PANELS.items():
        assert found[name][0].config == replace(STATED, **changes), name
    small = catalogue.jobs("stated")
    for name in set(PANELS) - {"float32", "test-token"}:
        one, base = small[name][0].config, small["base"][0].config
        assert one.width // one.heads == base.width // base.heads
        changed = {key for key, value in one.as_dict().items() if value != base.as_dict()[key]}
        assert changed == set(PANELS[name]), name
    assert all(getattr(small["base"][0].config, key) == getattr(STATED, key) for key in TASK)


def test_the_walk_changes_one_difference_at_a_time_from_either_end():
    found = {name: job.config.as_dict() for name, (job,) in catalogue.jobs("walk").items()}
    ends = {name: found[name] for name in ("released", "stated")}
    apart = {key for key in ends["released"] if ends["released"][key] != ends["stated"][key]}
    assert apart == {"noise", "reward", "scope", "form", "steps"}
    for end, other in (("released", "stated"), ("stated", "released")):
        for key in apart:
            assert found[f"{end}-{key}"] == ends[end] | {key: ends[other][key]}
    assert len(found) == 2 + 2 * len(apart)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ci: {config: {}, groups: [[0]], every: 1}", "must hold exactly config, groups, every, runs"),
        ("ci: {config: {}, groups: [[0], [0]], every: 1, runs: {a: {}}}", "stands in two groups"),
        ("ci: {config: {}, groups: 3, every: 1, runs: {a: {}}}", "list of lists of seeds"),
        ("ci: {config: {}, groups: [[0]], every: 0, runs: {a: {}}}", "every must be a whole number"),
        (
            "ci: {config: {}, groups: [[0]], every: 1, runs: {a: {heads: 5}}}",
            "run a: width must be a multiple",
        ),
        ("ci: {config: [}", "runs.yml is no YAML"),
        ("ci: {config: 3, groups: [[0]], every: 1, runs: {}}", "config must be a mapping"),
        ("ci: {config: {}, groups: [[0]], every: 1, runs: [a]}", "runs must be a mapping"),
        ("ci: {config: {}, groups: [[0]], every: 1, 3: {}}", "must hold exactly"),
        ("ci: {config: {colour: 1}, groups: [[0]], every: 1, runs: {a: {}}}", "no field 'colour'"),
    ],
)
def test_bad_catalogues_are_named(text, message, tmp_path):
    file = tmp_path / "runs.yml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        catalogue.jobs("ci", file)


def test_unknown_runs_and_scales_are_named():
    with pytest.raises(ValueError, match="run of scale ci must be one of base, .*; got 'bass'"):
        catalogue.jobs_of("bass", "ci")
    with pytest.raises(ValueError, match="scale must be one of ci, .*got 'fulll'; did you mean full?"):
        catalogue.jobs("fulll")


def test_a_notebook_is_digested_with_the_runs_it_reads():
    overrides = notebooks.overrides(ROOT, "ci")
    wanted = workflow.needed(ROOT, overrides)
    named = [text.rpartition("/")[2] for text in notebooks.runs(ROOT, "panel_c")]
    kept = {file.stem for file in (ROOT / "results/paper").glob("ci-*.json")}  # read, not trained
    every = [job for name in named for job in catalogue.jobs_of(name, "ci")]
    assert wanted["panel_c"] == [job for job in every if job.stem not in kept]
    assert kept.isdisjoint(job.stem for jobs in wanted.values() for job in jobs)
    own = dict.fromkeys(overrides, "x")
    first, other = (workflow.digests(own, wanted, code) for code in ("one", "two"))
    assert first["panel_c"] != other["panel_c"] != "x" and first["bradley_terry"] == "x"
    at_paper = workflow.needed(ROOT, notebooks.overrides(ROOT, "paper"))
    assert {job.scale for job in at_paper["panel_c"]} == {"paper"}


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Callable:
    """The jobs that a notebook needs which names these runs; `scale`: of its parameter, if it has one."""

    def needed(runs: object, scale: str | None = None) -> list[Job]:
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        cell = new_code_cell("seed = 0" if scale is None else 'seed = 0\nscale = "ci"')
        cell.metadata["tags"] = ["parameters"]
        nb = new_notebook(cells=[cell], metadata={"ica": {"runs": runs}})
        nbformat.write(nb, tmp_path / "notebooks" / "one.ipynb")
        return workflow.needed(tmp_path, {"one": {} if scale in (None, "ci") else {"scale": scale}})["one"]

    return needed


def test_a_run_may_be_named_with_its_scale(reader):
    (base,), (linear,), (walk,) = (
        catalogue.jobs_of(name, scale)
        for name, scale in (("base", "stated"), ("linear", "ci"), ("released-noise", "walk"))
    )
    assert reader(["stated/base", "linear", "walk/released-noise"], "ci") == [base, linear, walk]
    assert reader(["stated/base", "linear"], "paper") == [base, *catalogue.jobs_of("linear", "paper")]
    assert reader(["stated/base"]) == [base] and reader([]) == []
    assert len(reader(["full/base"])) == 3


@pytest.mark.parametrize(
    ("runs", "scale", "message"),
    [
        (["stated/base", "linear"], None, "names a run without its scale, so it must declare .* `scale`"),
        (["state/base"], None, "scale must be one of .* got 'state'; did you mean stated?"),
        (["stated/bass"], "ci", "run of scale stated must be one of .* got 'bass'; did you mean base?"),
        (["stated/base/0"], "ci", "runs must be a list of names"),
        (["/base"], "ci", "runs must be a list of names"),
        ([3], "ci", "runs must be a list of names"),
        ("base", "ci", "runs must be a list of names"),
    ],
)
def test_runs_that_a_notebook_misnames_are_named(runs, scale, message, reader):
    with pytest.raises(ValueError, match=f"notebook one: .*{message}"):
        reader(runs, scale)


def test_a_build_trains_small_runs_alone():
    wanted = workflow.needed(ROOT, notebooks.overrides(ROOT, "ci"))
    assert {job.scale for jobs in wanted.values() for job in jobs} <= set(catalogue.LIVE)
