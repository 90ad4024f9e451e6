"""How near is near: numbers within the table's tolerance, texts that hold numbers, and the cells of a data file that are kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ica.build import alike, reference

ROOT = Path(__file__).parents[2]
EXACT, TRAINED = alike.TOLERANCES["exact"], alike.TOLERANCES["trained"]


@pytest.mark.parametrize(
    ("new", "old", "tolerance", "spread", "printed", "near"),
    [
        ("1e-15", "7e-16", EXACT, 0, False, True),
        ("1e-8", "7e-16", EXACT, 0, False, False),
        ("3.6e-07", "2.4e-07", EXACT, 0, False, True),
        ("3.6e-07", "1.7e-07", EXACT, 0, False, False),
        ("3e-4", "2e-4", EXACT, 0, False, False),
        ("12", "13", EXACT, 0, False, False),
        ("110", "120", TRAINED, 0, False, True),
        ("110", "140", TRAINED, 0, False, False),
        ("1.64", "1.80", TRAINED, 0, False, True),
        ("0.1", "0.2", TRAINED, 1, False, False),
        ("0.1", "0.14", TRAINED, 1, False, True),
        ("1.001", "1.0", EXACT, 0, False, False),
        ("0.5", "0.6", EXACT, 0, False, False),
        ("0.53 [0.4, 0.6]", "0.54 [0.4, 0.6]", EXACT, 0, True, True),
        ("0.53 [0.4, 0.6]", "0.55 [0.4, 0.6]", EXACT, 0, True, False),
        ("1.5e-07", "1.6e-07", EXACT, 0, True, True),
        ("softmax, 1 head", "linear, 1 head", TRAINED, 0, True, False),
        ("", "0.5", TRAINED, 9, False, False),
        ("1e999", "1e999.0", TRAINED, 0, False, False),
        ("9" * 400, "8" * 400, TRAINED, 0, False, False),
    ],
)  # fmt: skip
def test_near(new, old, tolerance, spread, printed, near):
    assert alike.near(new, old, tolerance, spread, printed) == near


@given(st.text(), st.text())
def test_near_takes_any_text(new, old):
    assert alike.near(new, new, EXACT)
    assert alike.near(new, old, TRAINED, 1.0) == alike.near(old, new, TRAINED, 1.0)


def test_every_notebook_of_the_book_has_a_kind():
    found = {path.stem: alike.kind(ROOT, path.stem) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(found.values()) == set(alike.TOLERANCES) and set(alike.TRAIN + alike.ASK) <= set(found)
    assert (
        found["depth"] == "exact" and found["panel_a"] == "trained" and found["llm_bbq"] == "language model"
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.data())
def test_a_large_file_is_kept_small_and_seen_whole(values, data):
    lines = [f"{value!r},{'w' * 100}\n" for value in values]
    found = reference.data_file(("x,words\n" + "".join(lines)).encode())
    assert len(found["cells"]["x"]) <= reference.CELLS and found["rows"] == len(values)
    assert set(found["cells"]["words"]) == {reference.LEFT_OUT}
    place = data.draw(st.integers(0, len(values) - 1))
    lines[place] = f"{1e7 + abs(values[place])!r},{'w' * 100}\n"
    other = reference.data_file(("x,words\n" + "".join(lines)).encode())
    assert reference._data(found, found, EXACT) == "" and reference._data(other, found, EXACT).startswith(
        "x: "
    )
