"""The ledger: what all runs measured, collected once each, judged and adjusted for many tests."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from ica.build import ledger as command
from ica.record import claims, ledger, paper

EXACT = {
    "id": "exact",
    "notebook": "one",
    "statement": "A layer is one step.",
    "basis": "as stated",
    "measured": "largest relative error",
    "criterion": {"op": "<=", "bound": 1.0e-12},
}
EFFECT = {"op": "above", "at": 0, "sesoi": 0.1}
NOISY = EXACT | {"id": "noisy", "unit": "seeds", "reason": "r", "criterion": EFFECT}


def registry(tmp_path, *entries, part="theory", name="small"):
    path = tmp_path / part / f"{name}.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(list(entries), sort_keys=False))
    return claims.load([path])


def measured(id="exact", **parts):
    return {"id": id, "parts": parts, "untestable": None}


def part(value, interval=None, **n):
    return {"value": value, "interval": interval, "n": n or None}


def run(folder, notebook, *measurements):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"notebook": notebook}))
    (folder / "claims.json").write_text(json.dumps(measurements))
    return folder


def test_collect_keeps_registry_order_and_leaves_out_what_did_not_run(tmp_path):
    later = EXACT | {"id": "later", "notebook": "two"}
    loaded = registry(tmp_path, EXACT, EXACT | {"id": "second"}, later)
    found = measured("second", value=part(1)), measured(value=part(0, cases=9))
    rows = ledger.collect([run(tmp_path / "r", "one", *found)], loaded)
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("exact", "supported"),
        ("second", "contradicted"),
    ]
    assert rows[0]["measurement"] == measured(value=part(0.0, cases=9))
    assert rows[0]["q"] == {}  # nothing was sampled


@pytest.mark.parametrize(
    ("notebook", "measurements", "message"),
    [
        ("one", [], "notebook one ran but did not record claim exact"),
        (
            "one",
            [measured("made-up", value=part(0))],
            "claim made-up is not registered in ica/record/registry",
        ),
        ("two", [measured(value=part(0))], "notebook two: claim exact belongs to notebook one"),
        ("one", [measured(value=part(0))] * 2, "claim exact is recorded twice"),
        ("one", [measured(value=part(float("nan")))], "finite number, got nan"),
        ("one", [measured()], "part value has a criterion but was not measured"),
        ("one", [measured(value=part(0)) | {"verdict": "supported"}], "unknown key 'verdict'"),
    ],
)
def test_collect_refuses(tmp_path, notebook, measurements, message):
    folder = run(tmp_path / "r", notebook, *measurements)
    with pytest.raises(ValueError, match=message):
        ledger.collect([folder], registry(tmp_path, EXACT))


def test_a_notebook_is_collected_once(tmp_path):
    folder = run(tmp_path / "r", "one", measured(value=part(0)))
    with pytest.raises(ValueError, match="second record of notebook one; give each notebook once"):
        ledger.collect([folder, folder], registry(tmp_path, EXACT))


# Adjustment for many tests


def rows_with(p_values, part="theory"):
    """Rows of one or two measured parts each, with these p."""
    pieces = [p_values[start : start + 2] for start in range(0, len(p_values), 2)]
    return [{"part": part, "p": dict(zip("ab", piece, strict=False))} for piece in pieces]


def adjusted(rows):
    return [q for row in rows for q in row["q"].values()]


many = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(many, many)
def test_p_is_adjusted_after_benjamini_and_hochberg_over_each_part_of_the_book(first, second):
    families = rows_with(first), rows_with(second, "llm")
    # the families in turn, so that order does not tell them apart
    ledger.adjust([*families[0][::2], *families[1], *families[0][1::2], {"part": "synthetic", "p": {}}])
    for rows, given_p in zip(families, (first, second), strict=True):
        assert [row["q"].keys() for row in rows] == [row["p"].keys() for row in rows]
        order = (
            [*range(0, len(rows), 2), *range(1, len(rows), 2)] if rows is families[0] else range(len(rows))
        )
        p = [value for index in order for value in rows[index]["p"].values()]
        assert sorted(p) == sorted(given_p)
        np.testing.assert_allclose(
            adjusted([rows[index] for index in order]), multipletests(p, method="fdr_bh")[1], atol=1e-12
        )


def test_what_is_sampled_counts_and_exact_claims_and_single_runs_do_not(tmp_path):
    parts = {"parts": {"up": EFFECT, "none": EFFECT, "few": EFFECT}}
    loaded = registry(tmp_path, EXACT, NOISY | {"criterion": parts})
    up, none = part(0.5, (0.3, 0.7), seeds=5), part(0.0, (-0.05, 0.05), seeds=5)
    found = measured("noisy", up=up, none=none, few=part(0.5, (0.3, 0.7), seeds=1))
    _, noisy = ledger.collect([run(tmp_path / "r", "one", measured(value=part(0)), found)], loaded)
    assert noisy["outcomes"] == {"up": "supported", "none": "negligible", "few": "single run"}
    assert noisy["q"].keys() == {"up", "none"}
    p = list(noisy["p"].values())
    np.testing.assert_allclose(list(noisy["q"].values()), multipletests(p, method="fdr_bh")[1])
    assert max(p) < 0.05


# The command line


def test_command_line_writes_both_ledgers_or_says_why_not(tmp_path, monkeypatch, capsys):
    registry(tmp_path, EXACT, EXACT | {"id": "later", "notebook": "two"})
    item = {
        "id": "T2",
        "kind": "theorem",
        "place": "Thm 3.2",
        "claim": "C.",
        "scale": "exact",
        "page": "notebooks/one",
        "tests": [{"claim": "exact", "basis": "as stated"}],
    }
    (tmp_path / "paper.yml").write_text(yaml.safe_dump([item]))
    monkeypatch.setattr(claims, "REGISTRY", tmp_path)
    monkeypatch.setattr(paper.load, "__defaults__", (tmp_path / "paper.yml",))
    good = run(tmp_path / "good", "one", measured(value=part(0)))
    bad = run(tmp_path / "bad", "one")
    out = [tmp_path / "build" / name for name in ("claims.json", "paper.json")]
    options = ["--out", str(out[0]), "--paper", str(out[1])]
    assert command.main([str(bad), *options]) == 1
    assert (
        capsys.readouterr().err == "The ledger of claims: notebook one ran but did not record claim exact\n"
    )
    assert not out[0].parent.exists()
    assert command.main([str(good), *options]) == 0
    assert capsys.readouterr().out == "1 claims of 1 notebooks; 1 not run\n"
    ours, theirs = (json.loads(file.read_text()) for file in out)
    assert ours[0]["verdict"] == theirs[0]["verdict"] == "supported"
    assert command.main([str(tmp_path / "none"), *options]) == 1
    assert "none/run.json is missing or damaged" in capsys.readouterr().err
