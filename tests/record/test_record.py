"""The record of a run: what a notebook leaves behind, and what it is not allowed to record."""

import json
import os
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from nbclient import NotebookClient

from ica.record import claims, ledger, provenance
from ica.record.provenance import plain, project_root, write_atomic, write_json
from ica.record.record import Record

CLAIM = {
    "id": "bt-exact",
    "notebook": "demo",
    "statement": "A layer is one step.",
    "basis": "beyond the paper",
    "measured": "largest relative error",
    "criterion": {"op": "<=", "bound": 1.0e-12},
}
NOISY = CLAIM | {"id": "noisy", "unit": "seeds", "reason": "r", "criterion": {"op": "<=", "bound": 0.5}}
BOTH = CLAIM | {"id": "both", "criterion": {"parts": {"f64": CLAIM["criterion"], "f32": CLAIM["criterion"]}}}
OTHER = CLAIM | {"id": "of-another", "notebook": "other"}


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "theory.yml"
    path.write_text(yaml.safe_dump([CLAIM, NOISY, BOTH, OTHER], sort_keys=False))
    return claims.load([path])


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("ICA_PROFILE", "ci")
    monkeypatch.setenv("ICA_COMMIT", "0123abc")
    yield tmp_path / "out"
    plt.close("all")


def read(path):
    return json.loads(path.read_text())


def record(registry, **parameters):
    return Record("demo", parameters=parameters or {"prompts": 5}, seeds=[0], registry=registry)


def test_a_planted_false_claim_is_contradicted(out, registry):
    run = record(registry)
    run.claim("bt-exact", value=torch.tensor(0.25, dtype=torch.float64), n=100)
    run.claim("noisy", value=0.4, interval=(0.3, 0.6), n={"seeds": np.int64(20)})
    run.claim("both", parts={"f64": {"value": 1e-13}, "f32": {"value": 1e-5, "n": 7}})
    rows = {row["id"]: row for row in ledger.collect([out], registry)}
    assert {id: row["verdict"] for id, row in rows.items()} == {
        "bt-exact": "contradicted",
        "noisy": "open",
        "both": "mixed",
    }
    found = {"value": {"value": 0.25, "interval": None, "n": {"cases": 100}}}
    assert rows["bt-exact"]["measurement"]["parts"] == found
    assert rows["both"]["outcomes"] == {"f64": "supported", "f32": "contradicted"}
    assert rows["both"]["says"] == "Holds in 1 of 2 parts: A layer is one step."
    assert "verdict" not in (out / "claims.json").read_text()


def test_true_and_untestable_claims(out, registry):
    run = record(registry)
    run.claim("bt-exact", value=1e-15)
    run.untestable("noisy", why="needs the authors' machine")
    run.untestable("both", why="no float32 here")
    verdicts = [row["verdict"] for row in ledger.collect([out], registry)]
    assert verdicts == ["supported", "not testable here", "not testable here"]


def test_a_forgotten_claim_is_an_error(out, registry):
    record(registry).claim("bt-exact", value=0)
    with pytest.raises(ValueError, match="demo ran but did not record claim noisy"):
        ledger.collect([out], registry)


@pytest.mark.parametrize(
    ("id", "arguments", "message"),
    [
        ("made-up", {"value": 1}, "'made-up' is not registered"),
        ("of-another", {"value": 1}, "belongs to notebook other, not to demo"),
        ("bt-exact", {}, "finite number, got None"),
        ("bt-exact", {"value": float("nan")}, "finite number, got nan"),
        ("bt-exact", {"value": torch.ones(2)}, "single number, got an array"),
        ("noisy", {"value": 1}, "interval is required"),
        (
            "noisy",
            {"value": 1, "interval": (0, 2), "n": 5},
            "n must map units to counts, as {'seeds': 5}; got 5",
        ),
        (
            "noisy",
            {"value": 1, "interval": (0, 2), "n": {"items": 5}},
            "n must say how many seeds there are",
        ),
        (
            "both",
            {"parts": {"f64": {"value": 1}, "f16": {"value": 1}, "f32": {"value": 1}}},
            "part f16: not registered",
        ),
        ("both", {"value": 1}, "part f64 has a criterion but was not measured"),
        ("both", {"value": 1, "parts": {}}, "parts must come alone"),
        ("both", {"parts": {"f64": 1e-13, "f32": 1e-13}}, r"parts\['f64'\] must be dict"),
        ("both", {"parts": {"f64": {"val": 1}}}, r"parts\['f64'\] must be dict"),
    ],
)
def test_claims_that_may_not_be_recorded(out, registry, id, arguments, message):
    run = record(registry)
    with pytest.raises(ValueError, match=message):
        run.claim(id, **arguments)
    assert read(out / "claims.json") == []


def test_nothing_is_recorded_twice(out, registry):
    run = record(registry)
    table = pd.DataFrame({"x": [1]})
    run.claim("bt-exact", value=0)
    run.figure("demo", plt.figure(), table, title="Title")
    run.table("demo", table, title="Title")
    run.number("largest", 1)
    with pytest.raises(ValueError, match="claim bt-exact is recorded already"):
        run.untestable("bt-exact", why="changed my mind")
    with pytest.raises(ValueError, match="figure demo is recorded already"):
        run.figure("demo", plt.figure(), table, title="Title")
    with pytest.raises(ValueError, match="table demo is recorded already"):
        run.table("demo", table, title="Title", timed=True)
    with pytest.raises(ValueError, match="largest is recorded already"):
        run.number("largest", 2)


def test_run_json_says_how_to_make_it_again(out, registry):
    record(registry, prompts=5, eta=0.1, sizes=(2, 4))
    run = read(out / "run.json")
    assert run["notebook"] == "demo" and run["profile"] == "ci" and run["commit"] == "0123abc"
    assert run["parameters"] == {"prompts": 5, "eta": 0.1, "sizes": [2, 4]} and run["seeds"] == [0]
    assert run["versions"]["ica"] and run["versions"]["numpy"] == np.__version__
    assert run["hardware"]["cores"] >= 1 and run["hardware"]["cpu"] and run["seconds"] >= 0
    assert run["started"].endswith("+00:00")
    assert set(run) == {
        "notebook", "profile", "parameters", "seeds", "versions", "commit",
        "no_commit", "dirty", "hardware", "threads",
        "platform", "started", "seconds",
    }  # fmt: skip


def test_figure_is_saved_and_closed_and_prints_nothing(out, registry, capsys):
    fig = plt.figure()
    run = record(registry)
    run.figure("bt-error", fig, pd.DataFrame({"c": [1.5]}), title="Error", columns={"c": "sharpness"})
    run.claim("bt-exact", value=0)
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {"bt-error" + s for s in (".svg", ".dark.svg", ".pdf", ".png", ".csv", ".json")}
    assert read(out / "figures" / "bt-error.json")["provenance"]["parameters"] == {"prompts": 5}
    assert not plt.fignum_exists(fig.number)
    assert capsys.readouterr().out == ""


def test_table_keeps_full_precision_beside_its_formats(out, registry):
    run = record(registry)
    df = pd.DataFrame({"N": [2, 64], "error": [1 / 3, 2e-16]})
    run.table("errors", df, title="Errors", formats={"error": ".1e", "N": "d"})
    run.table("times", df, title="Times", timed=True)
    assert (out / "tables" / "errors.csv").read_text() == "N,error\n2,0.3333333333333333\n64,2e-16\n"
    about = read(out / "tables" / "errors.json")
    assert about["formats"] == {"error": ".1e", "N": "d"} and list(about["columns"]) == ["N", "error"]
    assert (out / "timed" / "times.csv").is_file() and not (out / "tables" / "times.csv").exists()
    for formats, message in [({"err": ".1e"}, "got 'err'"), ({"error": "d"}, r"formats\['error'\] must fit")]:
        with pytest.raises(ValueError, match=message):
            run.table("bad", df, title="Bad", formats=formats)
    with pytest.raises(ValueError, match=r"df\['error'\] must not hold infinities"):
        run.table("bad", df.replace(2e-16, np.inf), title="Bad")
    with pytest.raises(ValueError, match="title must be text"):
        run.table("bad", df, title="")
    assert not (out / "tables" / "bad.csv").exists()


def test_numbers_become_plain_python(out, registry):
    run = record(registry)
    run.number("largest-error", np.float64(1e-13))
    run.number("prompts", torch.tensor(100))
    run.number("verdict", "holds")
    assert read(out / "numbers.json") == {"largest-error": 1e-13, "prompts": 100, "verdict": "holds"}
    for key, value in [
        ("nan", float("nan")),
        ("flag", True),
        ("list", [1]),
        ("bad key", 1),
        ("two", torch.ones(2)),
    ]:
        with pytest.raises(ValueError, match=key):
            run.number(key, value)


def test_a_new_record_clears_the_old_one_and_nothing_else(out, registry):
    run = record(registry)
    run.figure("old", plt.figure(), pd.DataFrame({"x": [1]}), title="Old")
    run.table("old", pd.DataFrame({"x": [1]}), title="Old")
    run.claim("bt-exact", value=0)
    (out / "figures" / "Notes.txt").write_text("mine")
    record(registry)
    assert [path.name for path in out.rglob("*.*") if path.parent != out] == ["Notes.txt"]
    assert read(out / "claims.json") == [] and read(out / "numbers.json") == {}
    with pytest.raises(ValueError, match="this one is of demo"):
        Record("other", parameters={}, seeds=[], registry=registry)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"notebook": "../x"}, "notebook must match"),
        ({"parameters": {"eta": float("nan")}}, r"parameters\.eta must be a finite number"),
        ({"parameters": {"f": print}}, r"parameters\.f must be"),
        ({"parameters": [1]}, "parameters must be a dict"),
        ({"seeds": [0.5]}, "seeds must be"),
        ({"seeds": "0"}, "seeds must be"),
    ],
)
def test_record_refuses(out, arguments, message):
    with pytest.raises(ValueError, match=message):
        Record(**({"notebook": "demo", "parameters": {}, "seeds": []} | arguments), registry={})
    assert not out.exists()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": (1, np.float32(0.5)), "a": None})
    assert path.read_text() == '{\n "a": null,\n "b": [\n  1,\n  0.5\n ]\n}\n'
    with pytest.raises(ValueError, match=r"b\[1\]\.c must be a finite number, got inf"):
        write_json(path, {"b": [0, {"c": float("inf")}]})
    with pytest.raises(ValueError, match="strings as keys, got 1"):
        plain({1: 2})
    with pytest.raises(TypeError):
        write_atomic(path, None)
    assert path.read_text().startswith("{\n") and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.fault(
    "Surroundings",
    "a notebook is started in another folder, as the home folder (VS Code)",
    "results are sought, and the commit is named, in the checkout that the code runs from",
)
def test_project_root_is_that_of_the_code_whatever_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() == Path(provenance.__file__).parents[2]


def test_project_root_of_an_installed_package_is_the_checkout_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "site-packages")
    (tmp_path / "ica").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() is None
    (tmp_path / "pyproject.toml").touch()
    assert project_root() == tmp_path


def test_commit_and_dirty_are_those_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("ICA_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert provenance.commit() is None and provenance.dirty() is None
    (tmp_path / "ica").mkdir()
    (tmp_path / "pyproject.toml").touch()

    def git(*words):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    assert provenance.commit() is None and provenance.dirty() is None
    assert provenance.no_repository(tmp_path) == "the repository has no commit yet"
    git("add", ".")
    git("commit", "-qm", "first")
    assert provenance.commit() == git("rev-parse", "HEAD").strip() and provenance.dirty() is False
    (tmp_path / "ica" / "new.py").touch()
    assert provenance.dirty() is True
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as git sets it for a hook
    assert provenance.no_repository(tmp_path) == ""
    monkeypatch.setenv("ICA_COMMIT", "given")
    assert provenance.commit() == "given"


@pytest.mark.fault(
    "Surroundings",
    "the source archive is unpacked inside another repository; git is missing; the repository is another user's",
    "no commit is named, and the page says why",
)
def test_a_folder_that_is_no_repository_of_its_own_says_why(tmp_path, monkeypatch):
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert provenance.no_repository(inner) == "the sources are no git checkout"
    subprocess.run(["git", "init", "-q", str(inner.parent)], check=True)
    assert (
        provenance.no_repository(inner)
        == "the sources are no git checkout; the folder lies inside another one"
    )
    assert provenance.git(inner, "status", "--porcelain") is None
    if os.getuid() == 0:  # only root can give files away
        for place in (inner.parent, inner.parent / ".git"):
            os.chown(place, 4242, 4242)
        assert "belongs to another user" in provenance.no_repository(inner.parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.no_repository(inner) == "git is not installed"


CODE = """
from pathlib import Path
from ica.record import provenance
provenance.PACKAGE = Path.cwd()  # as if the package were installed and this the user's folder
import matplotlib.pyplot as plt, pandas as pd
from ica.record import claims
from ica.record.record import Record
run = Record("demo", parameters={"prompts": 5}, seeds=[0], registry=claims.load(["theory.yml"]))
run.figure("demo", plt.figure(), pd.DataFrame({"x": [1]}), title="Title")
run.table("demo", pd.DataFrame({"x<y": [1.0]}), title="T & T", formats={"x<y": ".2f"})
run.claim("bt-exact", value=1.0)
run.number("largest", 1e-13)
"""


def test_in_a_live_notebook_everything_is_shown_and_numbers_are_glued(tmp_path, registry, monkeypatch):
    monkeypatch.delenv("ICA_OUTPUT", raising=False)
    text = (tmp_path / "theory.yml").read_text().replace("largest relative", "largest <relative>")
    (tmp_path / "theory.yml").write_text(text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    figure, table, verdict, glued = (o for o in notebook.cells[0].outputs if o.output_type != "stream")
    assert "image/png" in figure.data
    assert "T &amp; T" in table.data["text/html"] and "x&lt;y" in table.data["text/html"]
    assert "<td>1.00</td>" in table.data["text/html"]
    assert "<strong>contradicted</strong>" in verdict.data["text/html"]
    assert "&lt;relative&gt;" in verdict.data["text/html"]
    assert glued.metadata["scrapbook"]["name"].endswith("largest")
    folder = tmp_path / "build" / "interactive" / "demo"
    assert read(folder / "run.json")["profile"] == "interactive"
    assert read(folder / "numbers.json") == {"largest": 1e-13}
