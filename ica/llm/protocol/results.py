"""What shards left, read back with every field checked: `live` what a build read, `stored` the ladder in `results/llm`."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from ica.llm.protocol.shards import SCHEMA, Shard, folder, ladder, shards, slug
from ica.llm.protocol.workflow import command
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
        seconds = sum(one["calls"]["seconds"] for one in self.provenance)
        return 60 * sum(one["items"] for one in self.provenance) / seconds if seconds else float("nan")


def read(path: Path, shard: Shard | None = None) -> dict:
    """One result file, which must be of this shard if one is given.

    Raises:
        ResultError: it is missing or damaged, of another version of the format, or of another shard.
    """
    try:
        content = checked(json.loads(path.read_text(encoding="utf-8")), path)
    except FileNotFoundError as error:
        raise ResultError(f"result {path} is missing") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ResultError):
            raise
        raise ResultError(f"result {path} is damaged ({type(error).__name__}: {error})") from error
    if shard and content["id"] != shard.id:
        raise ResultError(f"result {path} is of shard {content['id']}, not of {shard.id}")
    return content


def checked(content: object, path: Path) -> dict:
    """What a file holds of one shard, every field there and of this format; ResultError naming the file if not."""
    if not isinstance(content, dict) or (missing := [name for name in FIELDS if name not in content]):
        what = f"{missing[0]} is missing" if isinstance(content, dict) else "it is no JSON object"
        raise ResultError(f"result {path} is damaged: {what}")
    if content["schema"] != SCHEMA:
        raise ResultError(f"result {path} has format {content['schema']!r}; accepted: {SCHEMA}")
    try:
        own = [
            record["category"] == content["category"] and "core" in record for record in content["records"]
        ]
    except (TypeError, KeyError) as error:
        raise ResultError(f"result {path} is damaged ({type(error).__name__}: {error})") from error
    if not all(own):
        raise ResultError(f"result {path} is damaged: records of another category, or without a core block")
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
    records = [record for part in parts for record in part["records"]]
    provenance = [part["provenance"] | {"items": len(part["records"])} for part in parts]
    return Reading(first["scale"], first["model"], first["items"], records, provenance)


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
                f"`python -m ica.llm.protocol.measure {command(shard)}` makes it"
            )
        parts.append(read(path_of(shard), shard))
    return merged(parts)


def stored(where: Path | None = None) -> list[Reading]:
    """The ladder as it is stored, the smallest model first; empty if there is none.

    Raises:
        ResultError: a stored file that cannot be read.
    """
    where = where or (project_root() or Path.cwd()) / "results" / "llm"
    found = {}
    for path in sorted(where.glob("*.json")):
        try:
            parts = [checked(one, path) for one in json.loads(path.read_text(encoding="utf-8"))["shards"]]
            if not parts:
                raise ValueError("no shard in it")
        except ResultError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultError(f"result {path} is damaged ({type(error).__name__}: {error})") from error
        reading = merged(parts)
        found[reading.name] = reading
    return sorted(found.values(), key=lambda reading: reading.model["parameters"])


def store(model: str, where: Path | None = None) -> Path:
    """Put the ladder's shards of a model that are there together into one file of `results/llm`; its path.

    Raises:
        ResultError: none is there, or one is damaged.
    """
    where = where or (project_root() or Path.cwd()) / "results" / "llm"
    parts = [read(path_of(shard), shard) for shard in shards("ladder", model) if path_of(shard).is_file()]
    if not parts:
        raise ResultError(f"no shard of {model} is there; `make ladder MODELS={model}` reads them")
    merged(parts)
    return write_json(where / f"{slug(model)}.json", {"shards": parts}, compact=True)


def main() -> int:
    """`python -m ica.llm.protocol.results MODEL ...`: store what the ladder read of these models."""
    parser = argparse.ArgumentParser(prog="python -m ica.llm.protocol.results", description=main.__doc__)
    parser.add_argument("models", nargs="+", choices=ladder())
    try:
        for model in parser.parse_args().models:
            print(store(model))
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
