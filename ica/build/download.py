"""A notebook as a reader downloads it: roles and directives of the book turned to text, numbers and links that plain Jupyter shows.

The page's own words stay; what a run measured stands in them as on the page. A first cell says where the package `ica` comes from,
and fetches it in Colab.
"""

import copy
import re
from dataclasses import dataclass

import nbformat
from nbformat.v4 import new_code_cell

from ica.build.answers import short
from ica.record.claims import Measured

ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
FENCE = re.compile(r"^(`{3,}|:{3,})\{([a-z:-]+)\}[ ]?([^\n]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"^\([\w-]+\)=\n", re.MULTILINE)
OPTION = re.compile(r"\A(?::([\w-]+):[ ]?([^\n]*)\n)")
FIRST = """try:
    import ica
except ModuleNotFoundError as error:
    import os, subprocess, sys
    repository, place = REPOSITORY, os.path.abspath("ica-companion")
    if not repository or "COLAB_RELEASE_TAG" not in os.environ:
        where = f" ({repository})" if repository else ""
        raise ModuleNotFoundError(
            f"This notebook needs the package `ica`. It comes with the repository{where}: "
            "run `make book` in a clone, and open the notebook with that clone's .venv."
        ) from error
    # A machine of Colab is the reader's for a day: the repository is fetched and installed there.
    if not os.path.isdir(place):
        subprocess.run(["git", "clone", "--quiet", "--", repository, place], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", place]
    subprocess.run(pip, check=True)
    sys.path.insert(0, place)
    import ica"""


@dataclass
class Known:
    """What the run of the book found, and where the book is: claims by id, numbers by notebook and key, addresses or nothing."""

    claims: dict[str, dict]
    numbers: dict[str, dict[str, float | int | str]]
    book: str = ""
    repository: str = ""

    def verdict(self, text: str) -> str:
        id, _, part = text.partition("/")
        return self.claims[id]["outcomes"].get(part, self.claims[id]["verdict"])

    def says(self, id: str) -> str:
        return self.claims[id]["says"]

    def short(self, options: dict[str, str], ids: list[str]) -> str:
        return short(options, [self.claims[id] for id in ids])

    def measured(self, text: str) -> str:
        id, _, part = text.partition("/")
        row = self.claims[id]
        found = row["measurement"]["parts"].get(part or row["order"][0])
        return format(Measured(found["value"], found["interval"])) if found else "not measured"

    def number(self, notebook: str, text: str) -> str:
        place, _, key = text.rpartition("::")
        key, _, spec = key.partition(":")
        name = place.rpartition("/")[2].removesuffix(".ipynb") or notebook
        return format(self.numbers[name][key], spec)

    def of_notebook(self, name: str) -> list[str]:
        return [id for id, row in self.claims.items() if row["notebook"] == name]


def _role(kind: str, text: str, name: str, known: Known) -> str:
    """A role as text."""
    titled = re.fullmatch(r"(.*?)\s*<([^>]+)>", text)
    words, target = titled.groups() if titled else ("", text)
    if kind == "glue:text":
        return known.number(name, text)
    if kind == "verdict":
        return f"**[{known.verdict(text)}]**"
    if kind in ("says", "measured"):
        return inline(getattr(known, kind)(text), name, known)
    if kind == "doc":
        page = target if target.startswith("/") else f"/notebooks/{target}"
        shown = words or target.rpartition("/")[2]
        return f"[{shown}]({known.book}{page[1:]}.html)" if known.book else f"*{shown}*"
    if kind.startswith("cite"):
        return f"[{target}]"
    if kind == "eq":
        return f"({target})"
    return words or (target if kind == "term" else f"`{target}`")


def inline(text: str, name: str, known: Known) -> str:
    """The text of notebook `name` with its roles as words."""
    return ROLE.sub(lambda found: _role(found[1], found[2], name, known), text)


def _said(id: str, known: Known) -> str:
    return f"- {known.says(id)} **[{known.verdict(id)}]**"


def _directive(kind: str, argument: str, body: str, name: str, known: Known) -> str:
    """A directive as markdown."""
    options = {}
    while found := OPTION.match(body):
        options[found[1]] = found[2]
        body = body[found.end() :]
    body = body.strip("\n")
    if kind in ("recorded-figure", "explorable", "recorded-table"):
        figure = kind != "recorded-table"
        image = (
            f"![{argument}]({known.book}_figures/{name}/{argument}.png)\n\n" if figure and known.book else ""
        )
        return f"{image}*{'Figure' if figure else 'Table'} `{argument}`.* {body}"
    if kind == "question":
        return f"**Question.** {body}"
    if kind == "answer":
        ids = argument.split()
        words = known.short(options, ids)
        head = f"**Answer.** {words}" if words else "**Answer**"
        return "\n".join([head, "", *(_said(id, known) for id in ids), "", body])
    if kind == "verdicts":
        return "\n".join(
            f"- `{id}`: {known.says(id)} **[{known.verdict(id)}]**" for id in known.of_notebook(name)
        )
    if kind == "math":
        return f"$$\n{body}\n$$" + (f" ({options['label']})" if "label" in options else "")
    if kind == "container":
        return body
    if kind.startswith("prf:"):
        title = f" ({argument})" if argument else ""
        return f"**{kind[4:].title()}{title}.** {body}"
    return f"**{argument or kind.title()}**\n\n{body}"


def markdown(text: str, name: str, known: Known) -> str:
    """The markdown of a cell as plain Jupyter shows it; KeyError for a claim or number that no run recorded."""
    while FENCE.search(text):  # what stands in a directive comes after it
        text = FENCE.sub(lambda found: _directive(*found.groups()[1:], name, known), text)
    return inline(LABEL.sub("", text), name, known)


def plain(source: nbformat.NotebookNode, name: str, known: Known) -> nbformat.NotebookNode:
    """The stored notebook `name` for a reader who has it alone."""
    page = copy.deepcopy(source)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = markdown(cell.source, name, known)
    first = FIRST.replace("REPOSITORY", repr(known.repository))
    page.cells.insert(1, new_code_cell(first, id="needs-ica"))
    return page
