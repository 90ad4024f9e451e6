"""The claims ledger: no claim without a criterion, and verdicts that follow from the measurement alone."""

import json

import pytest
import yaml

from ica.record import claims
from ica.record.claims import Criterion

GOOD = {
    "id": "bt-exact",
    "notebook": "bradley_terry",
    "statement": "A layer is one step.",
    "source": "paper",
    "measured": "largest relative error",
    "criterion": {"op": "<=", "bound": 1.0e-12},
}


def registry(tmp_path, *entries, name="theory.yml"):
    path = tmp_path / name
    path.write_text(yaml.safe_dump(list(entries)))
    return claims.load([path])


def measured(id="bt-exact", **parts):
    return {"id": id, "parts": parts, "untestable": None}


def part(value, interval=None, n=None):
    return {"value": value, "interval": interval, "n": n}


def test_the_shipped_registry_is_valid():
    loaded = claims.load()
    assert list(loaded) == [claim.id for claim in loaded.values()]
    assert claims.REGISTRY.joinpath("alignment.yml").is_file()


def test_load_reads_what_the_file_says(tmp_path):
    parts = {"parts": {"float64": {"op": "within", "bound": [0, 1]}, "float32": {"op": "excludes 0"}}}
    loaded = registry(tmp_path, GOOD, GOOD | {"id": "two", "criterion": parts, "stochastic": True})
    first, second = loaded.values()
    assert first.part == "theory" and first.criteria == {"value": Criterion("<=", 1e-12)}
    assert str(first.criteria["value"]) == "<= 1e-12" and not first.stochastic
    assert second.criteria == {
        "float64": Criterion("within", (0.0, 1.0)),
        "float32": Criterion("excludes 0", None),
    }
    assert str(second.criteria["float64"]) == "within [0, 1]"


def without(key):
    return {k: v for k, v in GOOD.items() if k != key}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (without("criterion"), "criterion is missing"),
        (without("measured"), "measured is missing"),
        (GOOD | {"criterion": None}, "criterion: must be a mapping"),
        (GOOD | {"criterion": {}}, "op is missing"),
        (GOOD | {"criterion": {"parts": {}}}, "parts must map"),
        (
            GOOD | {"criterion": {"parts": {"a": {"op": "<="}}}},
            "part a: bound of '<=' must be a finite number",
        ),
        (GOOD | {"criterion": {"op": "==", "bound": 1}}, "op must be one of"),
        (GOOD | {"criterion": {"op": "<=", "bound": "1e-12"}}, "write 1.0e-12"),
        (GOOD | {"criterion": {"op": "<=", "bound": float("nan")}}, "finite number; got nan"),
        (GOOD | {"criterion": {"op": "<=", "bound": True}}, "finite number; got True"),
        (GOOD | {"criterion": {"op": "within", "bound": [1, 0]}}, "lo <= hi"),
        (GOOD | {"criterion": {"op": "within", "bound": 3}}, "two finite numbers"),
        (GOOD | {"criterion": {"op": "excludes 0", "bound": 1}}, "takes no bound"),
        (GOOD | {"verdict": "reproduced"}, "unknown key 'verdict'"),
        (GOOD | {"source": "rumour"}, "source must be one of paper, released code, ours"),
        (GOOD | {"stochastic": "yes"}, "stochastic must be true or false"),
        (GOOD | {"id": "BT exact"}, "id must match"),
        (GOOD | {"notebook": "a/b"}, "notebook must match"),
        (GOOD | {"statement": " "}, "statement must be text"),
        ("just text", "must be a mapping"),
    ],
)
def test_load_refuses_and_names_file_and_claim(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message) as caught:
        registry(tmp_path, entry)
    assert str(caught.value).startswith(f"theory.yml: claim {entry['id'] if isinstance(entry, dict) else 0}")


def test_an_id_is_taken_once_over_all_files(tmp_path):
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(yaml.safe_dump([GOOD]))
    with pytest.raises(ValueError, match=r"b\.yml: claim bt-exact: id is already taken in a\.yml"):
        claims.load([tmp_path / "a.yml", tmp_path / "b.yml"])


@pytest.mark.parametrize(
    ("op", "bound", "value", "interval", "outcome"),
    [
        ("<=", 1, 1, None, "holds"),
        ("<", 1, 1, None, "fails"),
        (">=", 1, 1, None, "holds"),
        (">", 1, 1, None, "fails"),
        ("<=", 1, 0.5, (0.2, 0.9), "holds"),
        ("<=", 1, 0.5, (0.2, 1.1), "straddles"),
        ("<=", 1, 1.5, (0.2, 1.9), "straddles"),
        ("<=", 1, 1.5, (1.2, 1.9), "fails"),
        ("<=", 1, 1.5, (0.2, 0.9), "straddles"),
        ("<=", 1, 0.5, (1.2, 1.9), "straddles"),
        (">", 0, 0.5, (-0.1, 1.1), "straddles"),
        (">", 0, 0.5, (0.1, 1.1), "holds"),
        ("within", (0, 1), 0.5, (0, 1), "holds"),
        ("within", (0, 1), 0.5, (-0.1, 0.9), "straddles"),
        ("within", (0, 1), 2, (1.5, 2.5), "fails"),
        ("within", (0, 1), -2, (-2.5, -1.5), "fails"),
        ("within", (0, 1), 2, (-1, 3), "straddles"),
        ("excludes 0", None, 0.5, (0.1, 0.9), "holds"),
        ("excludes 0", None, -0.5, (-0.9, -0.1), "holds"),
        ("excludes 0", None, 0.5, (-0.1, 0.9), "fails"),
    ],
)
def test_outcome_of_one_part(op, bound, value, interval, outcome):
    assert Criterion(op, bound).judge(value, interval) == outcome


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (part(1e-13), part(1e-13), "reproduced"),
        (part(1e-11), part(1e-11), "not reproduced"),
        (part(1e-13), part(1e-11), "partly"),
        (part(1e-13, (0, 1e-11)), part(1e-13), "partly"),
        (part(1e-13, (0, 1e-11)), part(1e-13, (0, 1e-11)), "partly"),
    ],
)
def test_verdict_over_parts(tmp_path, one, two, verdict):
    criterion = {"parts": {"one": GOOD["criterion"], "two": GOOD["criterion"]}}
    claim = registry(tmp_path, GOOD | {"criterion": criterion})["bt-exact"]
    assert claims.judge(claim, measured(one=one, two=two)) == verdict


def test_untestable_is_its_own_verdict(tmp_path):
    claim = registry(tmp_path, GOOD)["bt-exact"]
    entry = {"id": "bt-exact", "parts": {}, "untestable": "needs a larger model"}
    assert claims.judge(claim, entry) == "not testable here"
    with pytest.raises(ValueError, match="reason in words"):
        claims.judge(claim, entry | {"untestable": ""})
    with pytest.raises(ValueError, match="then no parts"):
        claims.judge(claim, entry | {"parts": {"value": part(1)}})


@pytest.mark.parametrize(
    ("measurement", "message"),
    [
        (measured(), "part value has a criterion but was not measured"),
        (measured(value=part(1), other=part(1)), "part other: not registered; accepted parts: value"),
        (measured(value=part(float("nan"))), "finite number, got nan"),
        (measured(value=part(float("inf"))), "finite number, got inf"),
        (measured(value=part("1")), "finite number, got '1'"),
        (measured(value=part(1, (2, 0))), "lo <= hi"),
        (measured(value=part(1, (0, 1, 2))), r"\(lo, hi\) or None"),
        (measured(value=part(1, (0, float("nan")))), "interval must be a finite number"),
        (measured(value=part(1, n=0)), "n must be a whole number of at least 1"),
        (measured(value=part(1, n=1.5)), "n must be a whole number"),
    ],
)
def test_check_refuses(tmp_path, measurement, message):
    with pytest.raises(ValueError, match=message):
        claims.check(registry(tmp_path, GOOD)["bt-exact"], measurement)


@pytest.mark.parametrize("change", [{"stochastic": True}, {"criterion": {"op": "excludes 0"}}])
def test_interval_is_required(tmp_path, change):
    claim = registry(tmp_path, GOOD | change)["bt-exact"]
    with pytest.raises(ValueError, match="interval is required"):
        claims.check(claim, measured(value=part(1)))


def run(folder, notebook, *measurements):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"notebook": notebook}))
    (folder / "claims.json").write_text(json.dumps(measurements))
    return folder


def test_collect_keeps_registry_order_and_leaves_out_what_did_not_run(tmp_path):
    loaded = registry(tmp_path, GOOD, GOOD | {"id": "second"}, GOOD | {"id": "later", "notebook": "depth"})
    folder = run(
        tmp_path / "r", "bradley_terry", measured("second", value=part(1)), measured(value=part(0, n=9))
    )
    rows = claims.collect([folder], loaded)
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("bt-exact", "reproduced"),
        ("second", "not reproduced"),
    ]
    assert rows[0]["measurement"] == measured(value=part(0.0, n=9))
    assert rows[0]["criteria"] == {"value": {"op": "<=", "bound": 1e-12, "text": "<= 1e-12"}}
    assert (rows[0]["part"], rows[0]["notebook"], rows[0]["source"]) == ("theory", "bradley_terry", "paper")


@pytest.mark.parametrize(
    ("notebook", "measurements", "message"),
    [
        ("bradley_terry", [], "bradley_terry ran but did not record claim bt-exact"),
        ("bradley_terry", [measured("made-up", value=part(0))], "claim made-up is not registered"),
        ("depth", [measured(value=part(0))], "belongs to notebook bradley_terry"),
        ("bradley_terry", [measured(value=part(0))] * 2, "recorded twice"),
        ("bradley_terry", [measured(value=part(float("nan")))], "finite number, got nan"),
    ],
)
def test_collect_refuses(tmp_path, notebook, measurements, message):
    folder = run(tmp_path / "r", notebook, *measurements)
    with pytest.raises(ValueError, match=message):
        claims.collect([folder], registry(tmp_path, GOOD))


def test_a_notebook_is_collected_once(tmp_path):
    folder = run(tmp_path / "r", "bradley_terry", measured(value=part(0)))
    with pytest.raises(ValueError, match="second record of notebook bradley_terry"):
        claims.collect([folder, folder], registry(tmp_path, GOOD))


def test_command_line_writes_rows_or_says_why_not(tmp_path, monkeypatch, capsys):
    (tmp_path / "theory.yml").write_text(yaml.safe_dump([GOOD]))
    monkeypatch.setattr(claims, "REGISTRY", tmp_path)
    good = run(tmp_path / "good", "bradley_terry", measured(value=part(0)))
    bad = run(tmp_path / "bad", "bradley_terry")
    out = tmp_path / "build" / "claims.json"
    assert claims.main([str(bad), "--out", str(out)]) == 1
    assert "did not record claim bt-exact" in capsys.readouterr().err and not out.exists()
    assert claims.main([str(good), "--out", str(out)]) == 0
    assert capsys.readouterr().out == "1 claims of 1 notebooks\n"
    assert json.loads(out.read_text())[0]["verdict"] == "reproduced"
