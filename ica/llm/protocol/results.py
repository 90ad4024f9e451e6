"""What shards left, read back with every field checked: `live` what a build read, `stored` the ladder in `results/llm`."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from ica.build import jobs
from ica.llm.bbq.rows import content as text_of
from ica.llm.bbq.rows import parsed
from ica.llm.protocol import records, workflow
from ica.llm.protocol.shards import SCHEMA, Shard, code_digest, folder, items_digest, ladder, shards, slug
from ica.record import seals
from ica.record.parameters import meant, shown
from ica.record.provenance import project_root, write_json

FIELDS = ("schema", "scale", "id", "model", "items", "category", "counts", "records", "provenance")


class ResultError(ValueError):
    """A result is missing, damaged or of another shard; the message names it and what to do."""


@dataclass(frozen=True)
class Reading:
    """The records of one model over categories.

    Attributes:
        model: name, sha256, parameters, and whether it has a chat template.
        items: source and sha256 of the items file, the half read, and how many items could not be placed.
        records: one dictionary an item, as `protocol` says.
        provenance: one a shard: commit, versions, hardware, seconds.
    """

    scale: str
    model: dict
    items: dict
    records: list[dict]
    provenance: list[dict]

    @property
    def name(self) -> str:
        return self.model["name"]

    @property
    def rate(self) -> float:
        """Items a minute, all blocks together, from the time that the calls took when they were computed."""
        parts = [part for one in self.provenance for part in (one, *one.get("added", {}).values())]
        seconds = sum(part["calls"]["seconds"] for part in parts)
        return 60 * sum(one["items"] for one in self.provenance) / seconds if seconds else float("nan")


def seal_of(path: Path) -> Path:
    """The seal beside a result: it says what the result was made of, and whether it is as it was written."""
    return path.with_suffix(".seal.json")


def made_of(shard: Shard, threads: int = 1) -> dict[str, str | int]:
    """What a shard's result follows from: digests of the code, the model and the items, and the threads."""
    return {
        "code": code_digest(),
        "model": workflow.content(shard.model),
        "items": items_digest(shard.items),
        "threads": threads,
    }


def faults(shard: Shard, path: Path, threads: int = 1) -> list[str]:
    """Why a build cannot take the result at `path` for this shard, one phrase each; none if it can.

    It must be there, with its seal, as it was written, and made of the code, model, items and threads of now.
    """
    if not path.exists():
        return [f"{path} is missing"]
    if found := seals.faults(seal_of(path)):
        return found
    made, wanted = seals.about(seal_of(path)), made_of(shard, threads)
    if other := [name for name, value in wanted.items() if made.get(name) != value]:
        return [f"{path} was made with other {' and '.join(other)}"]
    try:
        read(path, shard)
    except ResultError as error:
        return [str(error)]
    return []


def content_of(path: Path) -> object:
    """What a stored JSON file holds.

    Raises:
        ResultError: it cannot be read, or holds no JSON with numbers that are finite.
    """
    try:
        return parsed(text_of(path))
    except FileNotFoundError as error:
        raise ResultError(f"result {path} is missing; {mended(path)}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultError(f"result {path} is damaged: {why}; {mended(path)}") from error


def mended(path: Path) -> str:
    """What to do about a damaged result."""
    if path.parent.name == "llm" and path.parent.parent.name == "results":
        return (
            f"`git checkout -- {path.name}` there restores it, `make ladder MODELS={path.stem}` makes it anew"
        )
    return "remove it; the next `make book` makes it anew"


def read(path: Path, shard: Shard | None = None) -> dict:
    """One result file, which must be of this shard if one is given.

    Raises:
        ResultError: it is missing or damaged, of another version of the format, or of another shard.
    """
    content = checked(content_of(path), path)
    if shard and content["id"] != shard.id:
        raise ResultError(f"result {path} is of shard {content['id']}, not of {shard.id}; {mended(path)}")
    return content


def checked(content: object, path: Path) -> dict:
    """What a file holds of one shard, every field there and of this format; ResultError naming the file if not."""
    if not isinstance(content, dict) or (missing := [name for name in FIELDS if name not in content]):
        what = f"{missing[0]} is missing" if isinstance(content, dict) else "it is no JSON object"
        raise ResultError(f"result {path} is damaged: {what}; {mended(path)}")
    if content["schema"] != SCHEMA:
        raise ResultError(
            f"result {path} has format {shown(content['schema'])}; accepted: {SCHEMA}; {mended(path)}"
        )
    try:
        records.check(content)
    except ValueError as error:
        raise ResultError(f"result {path} is damaged: {error}; {mended(path)}") from error
    return content


def merged(parts: list[dict]) -> Reading:
    """Shards of one model as one reading; ResultError where they are not of one model and one items file."""
    first = parts[0]
    for part in parts:
        for name in ("scale", "model", "items"):
            if part[name] != first[name]:
                raise ResultError(
                    f"shards of {first['model']['name']} differ in {name}: {first['category']} has {first[name]}, "
                    f"{part['category']} {part[name]}"
                )
    every = [record for part in parts for record in part["records"]]
    provenance = [part["provenance"] | {"items": len(part["records"])} for part in parts]
    return Reading(first["scale"], first["model"], first["items"], every, provenance)


def path_of(shard: Shard) -> Path:
    """Where a build keeps the result of a shard."""
    return folder() / f"{shard.id}.json"


def live(model: str, items: str = "bbq") -> Reading:
    """What this build read of a model.

    Raises:
        ResultError: a shard is not there, with the command that makes it.
    """
    parts = []
    for shard in shards("live", model, items):
        if not path_of(shard).is_file():
            raise ResultError(
                f"shard {shard.stem} is not there: {path_of(shard)} is missing; "
                f"`python -m ica.llm.protocol.measure {workflow.command(shard)}` makes it"
            )
        parts.append(read(path_of(shard), shard))
    return merged(parts)


def stored_folder() -> Path:
    """Where the ladder is stored."""
    return (project_root() or Path.cwd()) / "results" / "llm"


def stored(where: Path | None = None) -> list[Reading]:
    """The ladder as it is stored, the smallest model first; empty if there is none.

    Raises:
        ResultError: a stored file that cannot be read.
    """
    where = where or stored_folder()
    found = {}
    for path in sorted(where.glob("*.json")):
        content = content_of(path)
        kept = content.get("shards") if isinstance(content, dict) else None
        if not isinstance(kept, list) or not kept:
            raise ResultError(f"result {path} is damaged: it holds no list of shards; {mended(path)}")
        reading = merged([checked(one, path) for one in kept])
        found[reading.name] = reading
    return sorted(found.values(), key=lambda reading: reading.model["parameters"])


def store(model: str, where: Path | None = None) -> Path:
    """Put the ladder's shards of a model that are there together into one file of `results/llm`; its path.

    Raises:
        ResultError: none is there, or one is damaged.
    """
    where = where or stored_folder()
    parts = [read(path_of(shard), shard) for shard in shards("ladder", model) if path_of(shard).is_file()]
    if not parts:
        raise ResultError(f"no shard of {model} is there; `make ladder MODELS={model}` reads them")
    merged(parts)
    return write_json(where / f"{slug(model)}.json", {"shards": parts}, compact=True)


def main() -> int:
    """`python -m ica.llm.protocol.results MODEL ...`: store what the ladder read of these models."""
    parser = argparse.ArgumentParser(prog="python -m ica.llm.protocol.results", description=main.__doc__)
    parser.add_argument("models", nargs="+", help=f"of {', '.join(ladder())}")
    models = parser.parse_args().models

    def work(tell: jobs.Tell) -> None:
        if unknown := [name for name in models if name not in ladder()]:
            raise ValueError(f"{unknown[0]!r} is no model of the ladder; {meant(unknown[0], ladder())}")
        for model in models:
            print(store(model))

    return jobs.run(work, "Storing the ladder")


if __name__ == "__main__":
    sys.exit(main())
