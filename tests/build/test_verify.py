"""`make verify`: a build against the reference. What is the same, near, far, missing, new, or of another machine is told apart."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import small_project
import yaml

from ica.build import alike, execute, mutants, reference, stored, verify
from ica.record import seals
from ica.record.provenance import write_json

ROOT = Path(__file__).parents[2]
HERE, THERE = "One processor", "Another processor"
CURVE = "step,error,said\n" + "".join(f"{k},{2.0**-k!r},<b>{k}</b>\n" for k in range(1000))
CLAIMS = {
    "alpha": {
        "alpha-small": {"value": {"value": 9.5, "interval": None, "n": {"cases": 3}}},
        "alpha-up": {"value": {"value": 0.5, "interval": [0.3, 0.7], "n": {"seeds": 5, "prompts": 64}}},
    },
    "beta": {
        "beta-parts": {
            "n = 2": {"value": 0.0, "interval": None, "n": None},
            "n = 15": {"value": 6.0, "interval": None, "n": None},
        }
    },
    "gamma": {"gamma-none": None},
}


class Build:
    """A checkout of the small project and the records of a build that never was, to change them by hand."""

    def __init__(self, root: Path):
        self.root, self.out = root, root / "build" / "ci"
        self.began = 0
        self.anew()

    def anew(self, cpu: str = HERE) -> None:
        self.began += 1
        for name, claims in CLAIMS.items():
            self.file(
                name,
                "run.json",
                {"notebook": name, "profile": "ci", "started": f"at {self.began}"} | self.ran(cpu),
            )
            parts = {
                id: {"id": id, "parts": given or {}, "untestable": None if given else "too large"}
                for id, given in claims.items()
            }
            self.file(name, "claims.json", list(parts.values()))
            self.file(name, "numbers.json", {"share": 0.125, "shown": "0.53 of 12"})
            self.file(name, "figures/curve.csv", CURVE)

    @staticmethod
    def ran(cpu: str) -> dict:
        versions = {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.17.1"}
        return {"hardware": {"cpu": cpu}, "threads": {"torch": 1}, "versions": versions}

    def file(self, name: str, path: str, content: object) -> None:
        """Write a file of a record, or remove it (None), and seal the record."""
        record, executed = self.out / "record" / name, self.out / "executed" / f"{name}.ipynb"
        target = record / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            target.unlink()
        elif isinstance(content, str):
            target.write_text(content)
        else:
            write_json(target, content)
        executed.parent.mkdir(exist_ok=True)
        executed.touch()
        files = [executed, *(path for path in record.rglob("*") if path.is_file())]
        seals.write(self.out / execute.SEALS.format(name=name), files)

    def claim(self, name: str, id: str, part: str, **changed: object) -> None:
        found = json.loads((self.out / "record" / name / "claims.json").read_text())
        next(one for one in found if one["id"] == id)["parts"][part] |= changed
        self.file(name, "claims.json", found)

    def verify(self, *words: str) -> int:
        return verify.main(["--built=build/ci", *words])

    @property
    def report(self) -> dict:
        return json.loads((self.root / reference.LAST).read_text())


@pytest.fixture
def made(sources, monkeypatch) -> Build:
    """The small project with a build and its reference, then a build anew that found the same."""
    monkeypatch.chdir(sources)
    monkeypatch.setenv("ICA_LIMIT", "")
    monkeypatch.setattr(verify, "capability", lambda cpu: "AVX2")
    build = Build(sources)
    assert build.verify("--accept") == 0
    build.anew()
    return build


def test_the_same_numbers_are_the_same(made, capsys):
    assert made.verify() == 0
    said = capsys.readouterr().out
    assert "3 of 3 notebooks ran to their end" in said and "the same kind of machine" in said
    assert made.report["counts"]["figures"] == {
        "identical": 3,
        "within": 0,
        "differs": 0,
        "missing": 0,
        "new": 0,
    }
    assert (
        made.report["counts"]["claims"]["identical"] == 4
        and made.report["counts"]["numbers"]["identical"] == 6
    )
    assert made.report["findings"] == [] and made.report["again"] and not made.report["fresh"]
    assert (made.root / reference.REFERENCE).stat().st_size < 40_000


def test_where_a_run_was_made_is_no_result():
    table = "run,commit,steps,machine\nsmall,{commit},300,{cpu}\n"
    one = reference.data_file(table.format(commit="abc", cpu=HERE).encode())
    assert one == reference.data_file(table.format(commit="def", cpu=THERE).encode())
    assert one["columns"] == ["run", "steps"]
    assert one != reference.data_file(table.replace("300", "301").format(commit="abc", cpu=HERE).encode())


# One change -> the state that it is in, here and on another processor, and what is said where it is a finding.
CHANGES = {
    "last digit": (lambda b: b.file("alpha", "figures/curve.csv", CURVE.replace("0.5,", "0.5000000000000001,")), "within", "not bit for bit"),
    "a digit": (lambda b: b.file("alpha", "figures/curve.csv", CURVE.replace("1.0,", "1.001,")), "differs", "error: 1.001, not 1"),
    "a row": (lambda b: b.file("alpha", "figures/curve.csv", CURVE[:-1].rpartition("\n")[0]), "differs", "rows: 999, not 1000"),
    "a column": (lambda b: b.file("alpha", "figures/curve.csv", CURVE.replace("step", "n", 1)), "differs", "columns: "),
    "a count": (lambda b: b.file("alpha", "figures/curve.csv", CURVE.replace("\n0,", "\n1,")), "differs", "step: 1, not 0"),
    "words": (lambda b: b.file("alpha", "figures/curve.csv", CURVE.replace("<b>0", "<i>0")), "differs", "said: <i>0</b>, not"),
    "no figure": (lambda b: b.file("alpha", "figures/curve.csv", None), "missing", "figure alpha/curve: is missing"),
    "a new figure": (lambda b: b.file("alpha", "figures/more.csv", "a\n1\n"), "new", "figure alpha/more: is not in"),
    "a new table": (lambda b: b.file("alpha", "tables/more.csv", "a\n1\n"), "new", "table alpha/more: is not in"),
    "a number": (lambda b: b.file("alpha", "numbers.json", {"share": 0.125 + 1e-12, "shown": "0.54 of 12"}), "within", "number alpha/share"),
    "far numbers": (lambda b: b.file("alpha", "numbers.json", {"share": 0.126, "shown": "0.55 of 12"}), "differs", "0.126, not 0.125"),
    "text for a number": (lambda b: b.file("alpha", "numbers.json", {"share": "0.125", "shown": "0.53 of 12"}), "differs", "number alpha/share"),
    "a value": (lambda b: b.claim("alpha", "alpha-small", "value", value=9.5 + 1e-9), "within", "claim alpha/alpha-small: not bit"),
    "a far value": (lambda b: b.claim("alpha", "alpha-up", "value", value=0.51), "differs", "value: 0.51, not 0.5"),
    "an interval": (lambda b: b.claim("alpha", "alpha-up", "value", interval=[0.31, 0.7]), "differs", "value: 0.31, not 0.3"),
    "a sample": (lambda b: b.claim("alpha", "alpha-up", "value", n={"seeds": 4, "prompts": 64}), "differs", "another sample"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("cpu", [HERE, THERE])
def test_a_change_is_found_and_named(made, capsys, change, cpu):
    alter, state, said = CHANGES[change]
    made.anew(cpu)
    alter(made)
    same = cpu == HERE
    assert made.verify() == int(same or state != "within")
    words = capsys.readouterr().out
    assert (said in words) == (same or state != "within"), words
    assert sum(counts[state] for counts in made.report["counts"].values()) > 0
    assert made.report["same"] == same and ("another kind of machine (processor Another" in words) != same
    assert made.report["moved"] == []


@pytest.mark.parametrize("cpu", [HERE, THERE])
def test_a_verdict_that_moves_is_a_finding_anywhere(made, capsys, cpu):
    made.anew(cpu)
    made.claim("beta", "beta-parts", "n = 2", value=1.0000000001)  # of at most 1
    made.claim("alpha", "alpha-small", "value", value=10.0000000001)
    assert made.verify() == 1
    assert "claim alpha-small: verdict contradicted, not supported" in capsys.readouterr().out
    told = {"claim": "beta-parts", "was": "supported", "now": "mixed"}
    assert told in made.report["moved"] and len(made.report["moved"]) == 2


def test_a_part_whose_verdict_moves_is_one_too(made):
    made.claim("beta", "beta-parts", "n = 2", value=2.0)
    assert made.verify("--accept") == 0
    made.claim("beta", "beta-parts", "n = 2", value=0.0)
    made.claim("beta", "beta-parts", "n = 15", value=4.0)
    assert made.verify() == 1
    assert made.report["moved"] == [
        {"claim": "beta-parts", "was": "supported (n = 15)", "now": "contradicted (n = 15)"}
    ]


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_notebook_that_did_not_run_is_one_finding(made, capsys, damage):
    if damage == "gone":
        shutil.rmtree(made.out / "record" / "gamma")
    else:
        (made.out / "record" / "gamma" / "figures" / "curve.csv").write_text(CURVE)
        (made.out / "record" / "gamma" / "numbers.json").write_text("{}")
    assert made.verify() == 1
    assert made.report["findings"] == ["notebook gamma: did not run to its end"]
    assert "2 of 3 notebooks" in capsys.readouterr().out and made.report["counts"]["figures"]["missing"] == 1
    before = (made.root / reference.REFERENCE).read_bytes()
    assert made.verify("--accept") == 1 and "did not run to its end: gamma" in capsys.readouterr().err
    assert (made.root / reference.REFERENCE).read_bytes() == before


def test_reports_are_stored_one_a_machine(made, capsys):
    for cpu in (HERE, THERE, HERE):
        made.anew(cpu)
        assert made.verify("--store") == 0
    records = reference.stored(made.root)
    assert [one["machine"]["processor"] for one in records] == [THERE, HERE]
    assert stored.faults(made.root / "results") == [] and stored.summary(made.root / "results") == []
    assert made.verify("--accept") == 0 and made.verify("--store") == 1
    assert "runs of this very build" in capsys.readouterr().err and reference.stored(made.root) == records


def test_what_is_wrong_is_named(made, capsys):
    path = made.root / reference.REFERENCE
    for words, said in {
        ("--built=build/none",): "--built: 'build/none' is no folder",
        ("--accept", "--store"): "--accept and --store: a build says nothing",
        ("--jobs=x",): "JOBS: 'x' is not a whole number",
    }.items():
        assert verify.main(["--built=build/ci", *words]) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    path.write_text("[]")
    assert made.verify() == 1 and "Stored results are not as they were stored" in capsys.readouterr().err
    stored.accept(made.root / "results")
    assert made.verify() == 1 and "results/reference.json is damaged" in capsys.readouterr().err
    shutil.rmtree(made.root / "results")
    assert made.verify() == 1 and "make verify ARGS=--accept` makes it" in capsys.readouterr().err
    shutil.rmtree(made.out / "record")
    assert made.verify() == 1 and "holds no notebook that ran" in capsys.readouterr().err


def test_the_page_shows_only_whole_reports(made):
    assert made.verify() == 0
    assert reference.shown(made.root) == {"last": made.report, "stored": []}
    for content in (
        "",
        "{",
        "[]",
        json.dumps(made.report | {"moved": [{}]}),
        json.dumps(made.report | {"fresh": "no"}),
    ):
        (made.root / reference.LAST).write_text(content)
        assert reference.shown(made.root)["last"] is None
    (made.root / reference.STORED).write_text('{"records": [1]}')
    with pytest.raises(ValueError, match=r"verified\.json is damaged"):
        reference.shown(made.root)


# A fresh build


MAKEFILE = """.PHONY: book
book:
\t@test -z "$$PYTHONPATH$$ICA_COMMIT$(SET)" && test -n "$$ICA_CALLS"
\t@mkdir -p build && cp -r "{ready}" build/ci && pwd > "{ready}.place"
\t@{then}
"""


def committed(build: Build, then: str) -> Path:
    """Put the checkout into git with a `make book` that takes a finished build; where it writes the place it was called in."""
    ready = build.root.parent / "ready"
    shutil.copytree(build.out, ready)
    (build.root / "Makefile").write_text(MAKEFILE.format(ready=ready, then=then))
    (build.root / ".gitignore").write_text("build\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *words], cwd=build.root, check=True)
    return Path(f"{ready}.place")


@pytest.mark.fault(
    "Surroundings",
    "`make verify` is called with settings of other builds around it and edits that are not committed",
    "the commit is built in a clone of its own, without them; the clone is removed, also where the build fails",
)
@pytest.mark.parametrize("then", ["true", "rm -r build/ci/record/gamma; false"])
def test_a_fresh_build_is_of_the_commit_alone(made, monkeypatch, capsys, then):
    place = committed(made, then)
    (made.root / "notebooks" / "alpha.ipynb").write_text("{}")
    for name, value in {
        "PYTHONPATH": "/nowhere",
        "ICA_COMMIT": "no",
        "MAKEFLAGS": "SET=seed=3",
        "SET": "seed=3",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(verify.book, "asked", lambda root, words: None)  # which reads the damaged notebook
    shutil.rmtree(made.out)
    assert bool(verify.main([])) == (then != "true")
    said = capsys.readouterr().out
    assert "What is not committed is left out" in said
    assert made.report["fresh"] and made.report["findings"] == (
        [] if then == "true" else ["notebook gamma: did not run to its end"]
    )
    clone = Path(place.read_text().strip())
    assert clone.name == "book" and not clone.parent.exists()


def test_a_folder_without_git_is_refused(made, capsys):
    assert verify.main([]) == 1
    assert "builds a clone of the commit, but the sources are no git checkout" in capsys.readouterr().err


# The page


@pytest.mark.slow
def test_the_page_shows_the_reports(sources, monkeypatch):
    """The page of the book in a small one: before anything was compared, then with a report of its own build and a stored one."""
    for name in ("verified.md", "references.bib"):
        shutil.copy(ROOT / "book" / name, sources / "book")
    (sources / "book/intro.md").write_text(
        (sources / "book/intro.md").read_text().replace("`key`", "`luce1959individual`")
    )
    toc = yaml.safe_load((sources / "_toc.yml").read_text())
    toc["parts"][0]["chapters"].append({"file": "book/verified"})
    (sources / "_toc.yml").write_text(yaml.safe_dump(toc))
    page = sources / "build/book/book/verified.html"
    done = small_project.build(sources)
    assert done.returncode == 0, done.stdout
    assert (
        "has not been run in this checkout" in page.read_text() and "No report is stored" in page.read_text()
    )
    monkeypatch.chdir(sources)
    monkeypatch.setenv("ICA_LIMIT", "")
    assert verify.main(["--built=build/ci", "--accept"]) == 0 and verify.main(["--built=build/ci"]) == 0
    report = json.loads((sources / reference.LAST).read_text())
    assert report["counts"]["figures"]["identical"] == 1 and report["machine"]["instructions"] != "unknown"
    other = {"machine": report["machine"] | {"processor": "<b>Other</b>"}, "same": False, "again": True}
    told = {
        "moved": [{"claim": "alpha-up", "was": "open", "now": "mixed"}],
        "findings": ["claim alpha-up: <i>moved</i>"],
    }
    verify.store(sources, report | other | told)
    survivor = {"module": "ica/one.py", "function": "less", "change": "-a < b\n+a <= b", "why": ""}
    counts, about = {"ica/one.py": {"mutants": 8, "noticed": 7}}, {"commit": "abc", "mutmut": "3.8.1"}
    tested = {"modules": counts, "survivors": [survivor], "provenance": about}
    write_json(sources / mutants.STORED, tested)
    stored.accept(sources / "results")
    assert small_project.build(sources).returncode == 0
    shown = page.read_text()
    assert (
        shown.count("3 of 3 (100 %)") == 2 and "&lt;b&gt;Other&lt;/b&gt;" in shown and "<b>Other" not in shown
    )
    assert (
        "1 finding: " in shown
        and "&lt;i&gt;moved" in shown
        and all(kind in shown for kind in alike.TOLERANCES)
    )
    assert "its report is the last row" in shown and "Pimentel" in shown
    assert (
        "7 of 8 (87.5 %)" in shown and "less: a gap" in shown and "a &lt;= b" in shown.replace("<span>", "")
    )
