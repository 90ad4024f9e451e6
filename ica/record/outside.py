"""Text from outside (a model's answers, errors, names of files and machines) as text that is shown and never obeyed.

Here are its characters: what steers a terminal, turns the reading direction or stands in no file of UTF-8. That it is
not read as markup is seen to where pages are built, by the Sphinx extension (`book/_ext/companion_data.py`).
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loading it would take a third of a second of every job
    import pandas as pd

# Colours and cursor (CSI), titles and links (OSC), other strings, two-character sequences.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\`-~]"
)
_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
# Control characters but tab and newline; marks that are not seen or turn the direction; surrogates; what is no character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\u2800\u3164\uffa0\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e01ef]"
)
_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠]")


def plain_text(words: str) -> str:
    """The text as it may be shown anywhere: on a page, in a terminal, in a file.

    Escape sequences are removed and line ends become newlines; any other character that is not seen, turns the direction
    of what follows, or cannot be written as UTF-8 (a lone surrogate) stands as Python writes it: NUL as `\\x00`.
    """
    if words.isprintable():
        return words
    words = _ENDS.sub("\n", _ESCAPES.sub("", words))
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], words)


def plain_values(value):
    """The value with every text in its lists and dicts (keys too) as `plain_text`."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, dict):
        return {plain_values(key): plain_values(one) for key, one in value.items()}
    return [plain_values(one) for one in value] if isinstance(value, (list, tuple)) else value


def each_text(data: "pd.DataFrame", change: Callable[[str], str] = plain_text) -> "pd.DataFrame":
    """The table with `change` made to every text in it, column names too; columns that this leaves alone keep their type."""
    import pandas as pd

    data = data.set_axis([change(name) if isinstance(name, str) else name for name in data.columns], axis=1)
    for place in range(data.shape[1]):
        cells = data.iloc[:, place].tolist()
        if (changed := [change(cell) if isinstance(cell, str) else cell for cell in cells]) != cells:
            data.isetitem(place, pd.Series(changed, index=data.index, dtype=object))
    return data


def _starts_formula(words: str) -> bool:
    if not _FORMULA.match(words):
        return False
    try:
        float(words)
    except ValueError:
        return True
    return False


def csv_cell(words: str) -> str:
    """The text for a cell of a CSV file: an apostrophe before what a spreadsheet would compute (=, +, -, @), but no number."""
    return f"'{words}" if _starts_formula(words) else words


def from_csv_cell(words: str) -> str:
    """The text that `csv_cell` was given."""
    return words[1:] if words.startswith("'") and _starts_formula(words[1:]) else words
