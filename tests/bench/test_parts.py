"""Every part of `make bench` at tiny sizes, for real: the ways agree, are timed, and disagreement is noticed."""

import os
import sys
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import llm_items
import pytest
import released_stand_in
import small_language_model
import small_project
import torch

from ica.bench import book, descent, items, released, run, settings, theory, timing, training
from ica.synthetic.task.config import RunConfig

TINY = RunConfig(layers=2, heads=2, width=16, hidden=64, batch=3, N=5, d=3)
ONCE = settings.Asked(("objective",), None, 1, 2, "cpu", False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A repetition is one call or a few, and the matrices of the rate are small."""
    monkeypatch.setattr(timing, "LEAST", 1e-4)
    monkeypatch.setattr(run, "matrix_rate", lambda dtype, device: timing.matrix_rate(dtype, device, 32, 1))


@pytest.fixture(params=["stand-in", "RELEASED"])
def code(request, tmp_path) -> SimpleNamespace:
    """The modules of the stand-in, and of the checkout that the environment names."""
    if request.param == "stand-in":
        return released.modules(released.checkout(str(released_stand_in.write(tmp_path / "code"))))
    if not os.environ.get("RELEASED"):
        pytest.skip("RELEASED names no checkout of the released code")
    return released.modules(released.checkout(os.environ["RELEASED"]))


def rows(cases) -> list[dict]:
    """The rows of cases; each way took some time, the last is as fast as itself, the numbers agreed."""
    lines = []
    found = run.part(cases, ONCE, lines.append)
    assert len(lines) == len(found["rows"]) > 0 and all(rate > 0 for rate in found["rates"].values())
    for row in found["rows"]:
        assert row["difference"] is None or 0 <= row["difference"] <= row["tolerance"]
        assert row["ways"][-1]["faster"]["each"] == [1.0] * len(row["ways"][-1]["seconds"]["each"])
        for way in row["ways"]:
            assert 0 < way["seconds"]["min"] <= way["seconds"]["median"] <= way["seconds"]["max"]
    return found


def test_training_steps_agree_and_update(code):
    found = rows(training.cases(code, {"tiny": (TINY, {"triplet": 5.0})}))
    (row,) = found["rows"]
    assert [way["name"] for way in row["ways"]][-1] == "released code" and row["difference"] < 1e-5
    assert row["ways"][1]["goal"] == 5.0 and row["ways"][0]["flop"] > row["ways"][1]["flop"] > 0


def test_a_released_code_that_computes_otherwise_is_not_timed(tmp_path):
    folder = released_stand_in.write(tmp_path)
    file = folder / "synthetic_experiment" / "tasks.py"
    file.write_text(file.read_text().replace("range(2, len(p))", "range(3, len(p))"))
    (case,) = training.cases(released.modules(folder), {"tiny": (TINY, {})})
    with pytest.raises(ValueError, match=r"tiny: .* the ways differ by .*; nothing is timed"):
        timing.measured(case, 1, 1e9)


def test_what_is_imported_of_a_checkout_leaves_no_trace(tmp_path):
    before, path = set(sys.modules), list(sys.path)
    released.modules(released_stand_in.write(tmp_path))
    assert sys.path == path and not {*released.OWN, *released.ABSENT} & (set(sys.modules) - before)


@pytest.mark.parametrize("given", ["none", "code"])
def test_descent_of_all_prompts_is_that_of_each(given, tmp_path):
    code = released.modules(released_stand_in.write(tmp_path)) if given == "code" else None
    (row,) = rows(descent.cases(code, prompts=3, alone=1, N=5, steps=4))["rows"]
    assert row["difference"] < 1e-9
    ours, loop = row["ways"]
    assert ours["flop"] == loop["flop"] > 0 and ours["goal"] == 300


def test_objective_and_its_growth():
    found = rows(theory.objective((2, 4, 8), (2, 4, 8)))
    assert [(row["series"], row["at"]) for row in found["rows"]][2:4] == [("N", 8), ("prompts", 2)]
    grown = {(one["series"], one["way"]): one for one in found["growth"]}
    assert len(grown) == 6 and grown["prompts", "ours, autograd"]["operations"] == pytest.approx(1)


def test_constructed_step_and_the_growth_of_its_cost():
    found = rows(theory.constructed((2, 4, 8), (2, 3), batch=2))
    (grown,) = [one for one in found["growth"] if one["way"] == "constructed transformer"]
    assert 1.5 < grown["operations"] < 3 and found["rows"][0]["difference"] < 1e-9


def test_items_of_our_protocol_and_of_the_loop():
    model = small_language_model.language_model(places=8192)
    some = llm_items.items(1, ("Age",))[:1]
    found = rows(items.cases(model, some, "rounds", sample=1))["rows"]
    assert len(found) == 2 and all(row["unit"] == "item" for row in found)
    alone, protocol = found
    assert alone["ways"][0]["flop"] < alone["ways"][1]["flop"]
    assert protocol["ways"][0]["flop"] < protocol["ways"][1]["flop"] / 3
    assert "core and rounds: " in protocol["case"]


def test_distinct_tokens_are_counted_once():
    model = small_language_model.language_model()
    request = items.Request("abcd", ("xy", "xz", "xy"))
    assert items.tokens(model, [request], shared=True) == (5, 6)  # abcd and x
    assert items.tokens(model, [request], shared=False) == (15, 15)


@pytest.mark.slow  # four builds of a small book
def test_builds_of_the_book(tmp_path):
    folder = small_project.write(tmp_path / "project")
    command = small_project.make(folder, "book")
    found = rows(book.builds(folder, command, "book/claims.md", "notebooks/gamma.ipynb"))["rows"]
    names = [row["case"] for row in found]
    assert names == ["from nothing", "nothing changed", "one change of prose", "one change of a notebook"]
    took = [row["ways"][0]["seconds"]["median"] for row in found]
    assert took[1] == min(took) and took[0] == max(took)
    (folder / "notebooks/gamma.ipynb").write_text("{")
    with pytest.raises(ValueError, match="`make .*` failed in a clone: "):
        book.called(command, folder)


def test_a_build_is_not_told_what_the_bench_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS", "book")
    monkeypatch.setenv("MAKEFLAGS", "-k")
    out = tmp_path / "clone" / "said"
    out.parent.mkdir()
    code = f"import json, os; open({str(out)!r}, 'w').write(json.dumps(dict(os.environ)))"
    book.called([sys.executable, "-c", code], out.parent)
    said = out.read_text()
    assert '"RUNS"' not in said and '"MAKEFLAGS"' not in said and str(tmp_path / "calls") in said


# Times


def test_ways_take_turns():
    calls = []
    timing.interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 2, warm=True)
    assert "".join(calls) == "abab"


def test_a_short_run_is_called_until_it_lasts(monkeypatch):
    counts = []
    monkeypatch.setattr(timing, "LEAST", 0.01)
    monkeypatch.setattr(timing, "lasted", lambda run, calls=1: counts.append(calls) or 4e-4)
    assert timing.interleaved([int], 2) == [[4e-4, 4e-4]] and counts == [1, 25, 25]


def test_a_case_whose_ways_differ_is_not_timed():
    ran = []
    ways = (timing.Way("one", lambda: ran.append(1)), timing.Way("other", lambda: ran.append(2)))
    case = timing.Case("case", "unit", ways, lambda: 0.2, 0.1)
    for wrong in (case, replace(case, difference=lambda: float("nan"))):
        with pytest.raises(ValueError, match="case: the ways differ by .*, more than 0.1; nothing is timed"):
            timing.measured(wrong, 1, 1.0)
    assert not ran


def test_units_floor_and_ratio_of_a_row(monkeypatch):
    monkeypatch.setattr(timing, "interleaved", lambda runs, repeats, warm: [[2.0, 4.0], [30.0, 20.0]])
    ways = (timing.Way("ours", int, units=2, flop=10), timing.Way("theirs", int, flop=5))
    ours, theirs = timing.measured(timing.Case("c", "u", ways), 2, 5.0)["ways"]
    assert ours["seconds"]["each"] == [1.0, 2.0] and ours["faster"]["each"] == [30.0, 10.0]
    assert ours["floor"] == theirs["floor"] == 1.0 and theirs["faster"]["median"] == 1.0


def test_growth_is_the_slope_of_the_logs():
    def row(at):
        way = {"name": "w", "seconds": timing.spread([at**2, 3 * at**3]), "flop": at}
        return {"series": "N", "at": at, "ways": [way]}

    (found,) = timing.exponents([row(at) for at in (2, 4, 16)])
    assert found["time"]["each"] == pytest.approx([2, 3]) and found["operations"] == pytest.approx(1)
    assert timing.exponents([row(2), row(4)]) == []


def test_matrix_rate_is_that_of_a_product():
    assert 1e7 < timing.matrix_rate(torch.float32, side=128, repeats=2) < 1e14


def test_cases_come_in_turn(monkeypatch):
    """A part draws its prompts when its turn has come, so that no part holds all of them."""
    drawn = []
    monkeypatch.setattr(theory, "drawn", lambda *size, real=theory.drawn: drawn.append(size) or real(*size))
    list(islice(theory.objective((2, 4), (2,)), 1))
    assert len(drawn) == 1
