"""Rows of files that come from elsewhere, JSON or CSV: read and checked in one place, so that an error says where and why.

What is refused is a ValueError that says what was wrong; whoever reads a file adds its name and what it accepts.
"""

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ica.record.parameters import shown

LINE = 100_000  # bytes; the longest line of the official files has 1316
LONGEST = 4_000  # characters; the longest text of the official files has 572
FILE = 1 << 28  # bytes of a file that is read whole
WHOLE = re.compile(r"[0-9]{1,9}")
MOST = 10**9 - 1


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(name for name in names if names.count(name) > 1))} stands twice in it")
    return found


def parsed(text: str | bytes) -> object:
    """What a JSON text holds; ValueError also for NaN and infinities, a name twice in one object, and nesting too deep."""
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg}, character {error.pos + 1})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 (byte {error.start + 1})") from error
    except RecursionError as error:
        raise ValueError("no JSON that can be read (nested too deeply)") from error


def text(name: str, value: object, longest: int = LONGEST, empty: bool = False) -> str:
    """The text without white space around it; ValueError for what is no text, blank, too long, or not to be encoded."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    if not (empty or value.strip()):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    if len(value) > longest:
        raise ValueError(f"{name} has {len(value)} characters; accepted are at most {longest}")
    if wrong := re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{name} must be text, got the character {wrong[0]!a} in it")
    return value.strip()


def whole(name: str, value: object) -> int:
    """A whole number from 0 on, of at most nine digits, as a number or as text; ValueError for any other."""
    if type(value) is int and 0 <= value <= MOST or isinstance(value, str) and WHOLE.fullmatch(value):
        return int(value)
    raise ValueError(f"{name} must be a whole number of 0 to {MOST}, got {shown(value)}")


def one_of(name: str, value: object, accepted: Collection) -> object:
    """The value, which must be one of these and of their type; ValueError for any other."""
    if not any(type(value) is type(one) and value == one for one in accepted):
        raise ValueError(f"{name} must be one of {', '.join(map(str, accepted))}, got {shown(value)}")
    return value


def _opened(path: Path) -> io.BufferedReader:
    if path.is_dir():
        raise ValueError("it is a folder")
    if path.exists() and not path.is_file():  # a pipe, say, which may never end
        raise ValueError("it is no file")
    return path.open("rb")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Number and text of every line that is not blank; lines end with \n or \r\n, and a mark of byte order may begin the file.

    Raises:
        ValueError: no file, a line that is too long or not in UTF-8. OSError: it cannot be read.
    """
    with _opened(path) as file:
        number = 0
        while raw := file.readline(LINE + 1):
            number += 1
            if len(raw) > LINE:
                raise ValueError(f"line {number} is longer than the accepted {LINE} bytes")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"line {number} is not in UTF-8 (byte {error.start + 1})") from error
            if line.strip():
                yield number, line


def content(path: Path) -> str:
    """A whole text file in UTF-8, without a mark of byte order.

    Raises:
        ValueError: no file, empty, too large or not in UTF-8. OSError: it cannot be read.
    """
    with _opened(path) as file:
        raw = file.read(FILE + 1)
    if len(raw) > FILE:
        raise ValueError(f"it is larger than the accepted {FILE >> 20} MiB")
    try:
        found = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in UTF-8 (byte {error.start + 1})") from error
    if not found.strip():
        raise ValueError("it is empty")
    return found


def table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line (the last that it takes) and cells of every row of a CSV file with a header.

    Raises:
        ValueError: as `content`; a column named twice, a row of more or fewer cells, quotes that do not close, a cell too long.
        OSError: it cannot be read.
    """
    reader = csv.reader(io.StringIO(content(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        if twice := [name for name in header if header.count(name) > 1]:
            raise ValueError(f"column {shown(twice[0])} stands twice in its header")
        for row in reader:
            if len(row) not in (0, len(header)):
                raise ValueError(
                    f"line {reader.line_num} has {len(row)} cells, its header {len(header)} (a text with commas needs quotes)"
                )
            if row:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
