"""The page of faults is read from the tests: a mark that is malformed stops it, and every kind has its rows."""

from pathlib import Path

import pytest

from ica.build import faults

ROOT = Path(__file__).parents[2]


def write(folder: Path, mark: str) -> Path:
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").write_text(
        f"import pytest\n\n@pytest.mark.slow\n@pytest.mark.{mark}\ndef test_a():\n    pass\n"
    )
    return folder


def test_a_mark_becomes_a_row(tmp_path):
    folder = write(tmp_path, 'fault("Ends", "it ends", "it " "is named")')
    (found,) = faults.read(folder)
    assert found == faults.Fault("Ends", "it ends", "it is named", "tests/test_x.py::test_a", slow=True)


@pytest.mark.parametrize(
    "mark",
    [
        'fault("Ends", "it ends")',
        'fault("End", "a", "b")',
        'fault("Ends", "a", NAME)',
        'fault("Ends", "", "b")',
    ],
)
def test_a_malformed_mark_is_named(tmp_path, mark):
    with pytest.raises(ValueError, match=r"tests/test_x\.py::test_a: (mark|kind)"):
        faults.read(write(tmp_path, mark))


def test_every_kind_is_broken_here():
    found = faults.read(ROOT)
    assert {fault.kind for fault in found} == set(faults.KINDS)
    assert len({(fault.kind, fault.done) for fault in found}) == len(found), "a row stands twice"


def test_the_page_shows_what_the_tests_are_marked_with(built):
    page = (built / "build/book/book/claims.html").read_text()
    table = page[page.index("1 fault, 1 test.") :].split("</table>")[0]
    assert "<strong>Ends</strong>: however a process ends" in table and "1 of this kind" in table
    assert "make</span>" in table and "is &lt;b&gt;killed&lt;/b&gt;" in table and "It goes on" in table
    assert "<code" in table and "test_ends" in table and "tests/test_small.py" in table
