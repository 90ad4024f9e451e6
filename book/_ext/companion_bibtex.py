"""BibTeX entries as text: the companion (`@software`), and each of its figures, tables and claims.

Authors, title, DOI and address are those of CITATION.cff; a field that is not known is not there. Each entry stands by itself; `related`
names its parent for programs that know the field.
"""

import re
from pathlib import Path

import yaml
from companion_data import AUTHORS, PROJECT

from ica.record.outside import plain_text
from ica.record.provenance import project_root

PARENT = "ica-companion"
TEX = {char: f"\\{char}" for char in "#%&_$"} | {
    "{": r"\textbraceleft{}",  # BibTeX counts \{ as a brace
    "}": r"\textbraceright{}",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "\n": " ",
    "\u00a0": " ",  # letters that the oldest BibTeX does not know
    "\u2212": "-",
}
ROLE = re.compile(r"\{[a-z:]+\}`([^`<]*?)(?: <[^`]*>)?`")


def tex(words: str) -> str:
    """The text as a BibTeX field shows it, every character literal."""
    return plain_text(words).translate(str.maketrans(TEX))


def written(words: str) -> str:
    """What the registry says with its markup ($maths$, roles, `code`) as a BibTeX field shows it."""
    pieces = re.sub(r"[`*]", "", ROLE.sub(r"\1", words)).split("$")
    if len(pieces) % 2 == 0 or any(maths.count("{") != maths.count("}") for maths in pieces[1::2]):
        return tex(words)
    return "".join(f"${piece}$" if k % 2 else tex(piece) for k, piece in enumerate(pieces))


def citation() -> dict:
    """What CITATION.cff says of this project, where there is one."""
    file = (project_root() or Path.cwd()) / "CITATION.cff"
    known = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"title": PROJECT, "authors": [{"name": AUTHORS}]} | known


def people(cited: dict) -> list[str]:
    """The authors of CITATION.cff, "Family, Given" where the parts are known."""
    names = []
    for one in cited["authors"]:
        family = " ".join(one[part] for part in ("name-particle", "family-names") if part in one)
        names.append(
            f"{family}, {one['given-names']}" if "given-names" in one and family else family or one["name"]
        )
    return names


def authors(cited: dict) -> str:
    """The authors as a BibTeX field; one without a family name stays in one piece."""
    pairs = zip(people(cited), cited["authors"], strict=True)
    return " and ".join(tex(name) if "family-names" in one else f"{{{tex(name)}}}" for name, one in pairs)


def key(label: str, identifier: str) -> str:
    """BibTeX key of a figure (`fig`), a table (`tab`) or a claim (`claim`)."""
    return f"ica-{label}-{identifier}"


def _entry(kind: str, name: str, fields: dict[str, str | None]) -> str:
    body = ",\n".join(f"  {field} = {{{value}}}" for field, value in fields.items() if value)
    return f"@{kind}{{{name},\n{body}\n}}"


def _known(cited: dict, url: str) -> dict[str, str | None]:
    return {"doi": cited.get("doi"), "url": url or cited.get("url") or cited.get("repository-code")}


def _made(run: dict) -> str:
    """Version, commit and profile of a run's provenance."""
    commit = (run["commit"] or "none") + (" with local changes" if run["dirty"] else "")
    return f"version {run['versions']['ica']}, commit {commit}, profile {run['profile']}"


def companion(cited: dict, run: dict, url: str = "") -> str:
    """The `@software` entry of the companion as a whole; `run`: provenance of one of its runs."""
    fields = {
        "author": authors(cited),
        "title": f"{{{tex(cited['title'])}}}",
        "year": str(cited.get("date-released") or run["started"])[:4],
        "version": tex(run["versions"]["ica"]),
        "note": tex(_made(run)),
        "license": tex(", ".join(cited.get("license", []))),
    }
    return _entry("software", PARENT, fields | _known(cited, url))


def recorded(label: str, kind: str, about: dict, cited: dict, number: str = "", url: str = "") -> str:
    """The entry of one figure or table: its number in the book, the notebook, version and commit it was made at."""
    run = about["provenance"]
    name = f"{kind} {number} ({about['id']})" if number else f"{kind} {about['id']}"
    fields = {
        "author": authors(cited),
        "title": f"{{{tex(about['title'])}}}",
        "howpublished": tex(cited["title"]),
        "year": run["started"][:4],
        "note": tex(f"{name} of notebook {run['notebook']}, {_made(run)}"),
        "related": PARENT,
    }
    return _entry("misc", key(label, about["id"]), fields | _known(cited, url))


def claim(row: dict, found: str, run: dict, cited: dict, url: str = "") -> str:
    """The entry of one claim: its statement, verdict and, in `found`, what was measured."""
    note = f"Claim {row['id']} of notebook {row['notebook']}: {row['verdict']} ({found}), {_made(run)}"
    fields = {
        "author": authors(cited),
        "title": f"{{{written(row['statement'])}}}",
        "howpublished": tex(cited["title"]),
        "year": run["started"][:4],
        "note": tex(note),
        "related": PARENT,
    }
    return _entry("misc", key("claim", row["id"]), fields | _known(cited, url))
