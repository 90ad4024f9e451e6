"""Build the static site of one profile: stage, Jupyter Book with warnings as errors, check, put in place.

`python -m ica.build.site build/ci` writes build/ci/html, or leaves it as it was and says why on stderr.
"""

import argparse
import hashlib
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import nbformat

from ica.build import faults, jobs, notebooks, reference
from ica.build.mend import remove
from ica.build.stage import stage, state
from ica.record import seals
from ica.record.outside import plain_text
from ica.record.provenance import git, project_root

REPOSITORY_URL = "ICA_REPOSITORY_URL"
BOOK_URL = "ICA_BOOK_URL"
PAGES = "ICA_PAGES"  # branch, and folder, that holds the published site
HOSTS = ("github.com", "gitlab.com")  # whose repositories Binder opens
SEAL = "html.seal.json"  # beside the built pages


def _files_digest(root: Path, files: Iterable[Path], *more: object) -> str:
    """SHA-256 of the files' names and contents, and of anything else that has a JSON form."""
    found = {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }
    return hashlib.sha256(json.dumps([found, *more], sort_keys=True).encode()).hexdigest()


def registry_digest(root: Path, runs: Mapping[str, str]) -> str:
    """Digest of what the collected claims depend on: the registry, how it is judged, and the runs."""
    names = ("criteria.py", "claims.py", "ledger.py", "paper.py", "paper.yml")
    files = [*(root / "ica/record" / name for name in names), *root.glob("ica/record/registry/*/*.yml")]
    return _files_digest(root, files, dict(runs))


def source_digest(root: Path, runs: Mapping[str, str]) -> str:
    """Digest of what the site depends on: prose, notebooks, configuration, claims, the commit it names."""
    names = (
        "Snakefile",
        "results/SHA256.json",
        "_config.yml",
        "_toc.yml",
        "CITATION.cff",
        "ica/build/alike.py",
        "ica/build/download.py",
        "ica/build/graph.py",
        "ica/build/reference.py",
        "ica/build/stage.py",
        "ica/build/stored.py",
        "ica/build/site.py",
        "ica/record/outside.py",
        reference.LAST,
    )
    files = [root / name for name in names] + [*root.glob("book/**/*"), *root.glob("notebooks/*.ipynb")]
    files += [path for name in ("analysis", "bbq", "protocol") for path in root.glob(f"ica/llm/{name}/*")]
    return _files_digest(
        root,
        files,
        registry_digest(root, runs),
        state(root),
        os.environ.get(REPOSITORY_URL),
        os.environ.get(BOOK_URL),
        os.environ.get(PAGES),
        origin(root),
        [asdict(fault) for fault in faults.read(root)],
    )


def origin(root: Path | None) -> str:
    """Address of the repository that the checkout was cloned from, if it is a public host's; else nothing."""
    found = re.fullmatch(
        r"(?:https://|ssh://git@|git@)(?:[^@/]+@)?([\w.-]+)[:/](.+?)(?:\.git)?/?",
        git(root, "remote", "get-url", "origin") or "",
    )
    return f"https://{found[1]}/{found[2]}" if found and found[1] in HOSTS else ""


class _Text(html.parser.HTMLParser):
    """Collects the visible text of a page's article."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.words = 0, 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.depth += tag == "article"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "article"

    def handle_data(self, data: str) -> None:
        self.words += len(data.split()) if self.depth else 0


def words(page: Path) -> int:
    """Number of words in the article of a built page."""
    parser = _Text()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.words


def _check_pages(root: Path, built: Path) -> None:
    """Every page of the table of contents must be there and hold text: a build can succeed without."""
    for page in notebooks.pages(root):
        file = built / f"{page}.html"
        if not file.is_file():
            raise ValueError(f"{page}: the build left no such page")
        if words(file) < 5:
            raise ValueError(f"{page}: the built page holds no text")


def _named_cells(text: str, site: Path) -> str:
    """The warnings with a cell's id in place of MyST-NB's number, (cell + 1) * 10000 + line."""

    def name(match: re.Match) -> str:
        cell = int(match[2]) // 10_000
        cells = nbformat.read(site / match[1], as_version=4).cells
        return f"{match[1]}: cell {cells[cell - 1].id}:" if 0 < cell <= len(cells) else match[0]

    return re.sub(r"^(notebooks/\w+\.ipynb):(\d{5,}):", name, text, flags=re.MULTILINE)


def _jupyter_book(site: Path, work: Path) -> None:
    """Run Jupyter Book on the staged folder. Raises ValueError with its warnings where it fails."""
    # By this Python: a jupyter-book first on PATH may be another one, and the script of a moved environment is dead.
    program = [sys.executable, "-c", "import sys; from jupyter_book.cli.main import main; sys.exit(main())"]
    command = [*program, "build", "-W", "-n", "--keep-going", str(site), "--path-output", str(work)]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    streams = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    done = subprocess.run(command, **streams, env=environment, check=False)
    if done.returncode == 0:
        return
    text = _named_cells(plain_text(done.stderr).replace(f"{site}/", ""), site)
    warnings = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    shown = warnings or [line for line in text.splitlines() if line.strip()][-40:]
    raise ValueError("\n".join(["Building the site failed; nothing was published.", *dict.fromkeys(shown)]))


def build(root: Path, out: Path) -> Path:
    """Build `out`/html from the sources and the runs in `out`; the folder of the finished site.

    Raises ValueError where staging or the build fails; the site that was there before then stays.
    """
    out = out.resolve()
    work, final = out / ".sphinx", out / "html"
    shutil.rmtree(
        work, ignore_errors=True
    )  # always from empty: a second build leaves glued numbers as they were
    try:
        _jupyter_book(stage(root, out), work)
        built = work / "_build" / "html"
        _check_pages(root, built)
        shutil.rmtree(built / ".doctrees", ignore_errors=True)
        (built / ".buildinfo").unlink(missing_ok=True)
        replace(built, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def replace(new: Path, final: Path) -> None:
    """Put the folder `new` in the place of `final`, by two renames."""
    old = final.with_name(f".{final.name}.old")
    remove(old)
    if final.is_symlink():
        final.unlink()
    elif final.exists():
        os.replace(final, old)
    os.replace(new, final)
    remove(old)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ica.build.site", description="Build the site of one profile."
    )
    parser.add_argument("out", type=Path, help="folder of the profile, such as build/ci")
    parser.add_argument("--digest", default="", help="of all that the site is made from")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the site is")
    options = parser.parse_args(arguments)
    root = project_root() or Path.cwd()

    def work(tell: jobs.Tell) -> None:
        seal = options.out / SEAL
        seal.unlink(missing_ok=True)
        final = build(root, options.out)
        seals.write(
            seal.resolve(), [path for path in final.rglob("*") if path.is_file()], {"digest": options.digest}
        )

    return jobs.run(work, "The site", options.status)


if __name__ == "__main__":
    sys.exit(main())
