"""Text from outside as a run keeps it, whatever a model, a file or a machine says."""

import csv
import json
from dataclasses import replace
from xml.dom import minidom

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import HOSTILE

from ica.record import figures, outside
from ica.record.claims import Measured, load
from ica.record.record import Record

WORDS = "\n".join(HOSTILE)
CLEAN = outside.plain_text(WORDS)
ANY = st.text(st.characters(exclude_categories=[]))


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_OUTPUT", str(tmp_path / "record"))
    known = {id: replace(load()[id], notebook="hostile") for id in ("o-agree", "o-cac-smollm2")}
    return Record("hostile", {"model": WORDS, "more": [{WORDS: [WORDS]}]}, [0], registry=known)


def test_escapes_go_and_what_is_not_seen_is_written_out():
    for given_, told in (
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]8;;https://x\x07link\x1b]8;;\x1b\\ \x1b]0;title\x07.", "link ."),
        ("\x1b(B\x1b7a", "a"),
        ("open \x1b]8;;x", r"open \x1b]8;;x"),
        ("a\x00b\x07\x7f\x8d", r"a\x00b\x07\x7f\x8d"),
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("\u202eabc\u2066\u200f\ufeff", r"\u202eabc\u2066\u200f\ufeff"),
        ("\ud800 \uffff \U000e0041", r"\ud800 \uffff \U000e0041"),
        ("é 中 👩\u200d👩 a\tb\n", "é 中 👩\u200d👩 a\tb\n"),
    ):
        assert outside.plain_text(given_) == told


@given(ANY)
def test_any_text_can_be_written_and_stays_as_it_is_when_cleaned_again(words):
    clean = outside.plain_text(words)
    assert outside.plain_text(clean) == clean
    assert clean.encode() and not set(clean) & {"\x1b", "\x00", "\r", "\u202e"} if clean else True


@given(ANY)
def test_cell_of_a_csv_file_gives_its_text_back(words):
    assert outside.from_csv_cell(outside.csv_cell(words)) == words


@pytest.mark.fault(
    "Text from outside",
    "A model answers =HYPERLINK(...), or anything else that a spreadsheet computes",
    "In the CSV file an apostrophe stands before it, so that it is text; the page shows it without; numbers stay as they are",
)
def test_answers_are_no_formulas_in_the_csv_files(record):
    answers = [
        '=HYPERLINK("https://foreign.example")',
        "+1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "-x",
        "'=1",
        "-0.5",
        "word",
    ]
    data = pd.DataFrame({"=1+1": answers, "value": -np.arange(7.0)})
    record.table("said", data, "Answers")
    with (record.folder / "tables/said.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    assert head == ["'=1+1", "value"]
    assert [row[0] for row in rows] == [*(f"'{words}" for words in answers[:5]), "-0.5", "word"]
    assert [outside.from_csv_cell(row[0]) for row in rows] == answers
    assert [float(row[1]) for row in rows] == list(data["value"])


@pytest.mark.fault(
    "Text from outside",
    "Answers, errors, titles, column names and parameters hold escapes, NUL, lone surrogates or marks that turn the text",
    "They are recorded with these characters written out, and every file of the record can be read",
)
def test_record_keeps_any_text_in_files_that_can_be_read(record):
    data = pd.DataFrame({WORDS: [WORDS, "cr\rlf\r\n"], "n": [1, 2]})
    record.table("said", data, WORDS, formats={"n": "d", WORDS: ""}, columns={WORDS: WORDS})
    record.number("said", WORDS)
    record.untestable("o-agree", WORDS)
    with (record.folder / "tables/said.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [[CLEAN, "n"], [CLEAN, "1"], ["cr\nlf\n", "2"]]
    about, run = (json.loads((record.folder / name).read_text()) for name in ("tables/said.json", "run.json"))
    assert about["title"] == CLEAN and about["columns"][CLEAN]["meaning"] == CLEAN
    assert about["columns"]["n"]["type"] == "int64"
    assert run["parameters"] == {"model": CLEAN, "more": [{CLEAN: [CLEAN]}]}
    assert json.loads((record.folder / "numbers.json").read_text()) == {"said": CLEAN}
    assert json.loads((record.folder / "claims.json").read_text())[0]["untestable"] == CLEAN
    with pytest.raises(ValueError, match="n must count things named in letters, got '<b>'"):
        record.claim("o-cac-smollm2", value=1, interval=(0, 2), n={"prompts": 3, "<b>": 3})


@pytest.mark.fault(
    "Text from outside",
    "A name in a figure holds escapes, NUL, half a surrogate pair, or dollar signs that enclose no formula",
    "The figure shows the name as it is written, and every drawing is a whole file",
)
@pytest.mark.parametrize(
    "name", ["--><script>", "a\x1b[31mb\x00", "half \ud800", "$\\frac$ or $\\href{javascript:x}{y}$"]
)
def test_figure_draws_any_name(record, name):
    fig, ax = plt.subplots()
    ax.plot([0, 1], label=name)
    ax.set(xlabel=name, title=name)
    ax.set_xticks([0, 1], [name, "b"])
    ax.legend()
    record.figure("named", fig, pd.DataFrame({name: [name]}), name, {name: name})
    for suffix in (".svg", ".dark.svg"):
        drawing = minidom.parse(str(record.folder / f"figures/named{suffix}"))
        assert not drawing.getElementsByTagName("script") and not drawing.getElementsByTagName("a")
    assert {file.name for file in (record.folder / "figures").iterdir()} == {
        f"named{s}" for s in figures.SUFFIXES
    }


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    NUMBERS,
    st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS).map(sorted)),
    st.sampled_from(["", ".1f", ".2e", ".3g", ".0%"]),
)
def test_measured_value_in_a_sentence_is_no_markup(value, interval, spec):
    assert not set(format(Measured(value, interval), spec)) - set("0123456789.,−+e%[]inf \u00a0")


def test_sentences_of_the_registry_put_no_value_where_it_would_be_a_link():
    """`[0.1, 0.2]` followed by a parenthesis would be a link."""
    for claim in load().values():
        part = {"value": 1.0, "interval": (0.5, 1.5)}
        for verdict in claim.says:
            parts = {} if verdict == "not testable here" else dict.fromkeys(claim.criteria, part)
            assert "](" not in claim.sentence(verdict, {"parts": parts}, {}), claim.id
