"""Which shards a build reads: what the Snakefile asks. Nothing heavy is imported."""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import yaml

from ica.build import imports, notebooks
from ica.llm.bbq.items import load_official
from ica.llm.model import assets, folders
from ica.llm.protocol.shards import AROUND, FILE, Shard, ladder, shards


def needed(root: Path, overrides: Mapping[str, notebooks.Parameters]) -> dict[str, list[Shard]]:
    """For each notebook the shards that it reads: none, or those of its parameters `model` and `items`.

    A notebook reads shards if its metadata say `{"ica": {"shards": true}}`.

    Raises:
        ValueError: such a notebook that does not declare both parameters.
    """
    found: dict[str, list[Shard]] = {}
    for name, changes in overrides.items():
        notebook = notebooks.read(root, name)
        found[name] = []
        if notebook.metadata.get("ica", {}).get("shards"):
            values = {**notebooks.declared(notebook, name), **changes}
            if not {"model", "items"} <= set(values):
                raise ValueError(f"notebook {name}: it reads shards, so it must declare `model` and `items`")
            found[name] = shards("live", values["model"], values["items"])
    return found


def models(root: Path, overrides: Mapping[str, notebooks.Parameters]) -> dict[str, list[str]]:
    """For each notebook the model that its parameter `model` names, if it declares one."""
    found = {}
    for name, changes in overrides.items():
        values = {**notebooks.declared(notebooks.read(root, name), name), **changes}
        found[name] = [values["model"]] if "model" in values else []
    return found


def check(loaded: Mapping[str, list[str]], wanted: Mapping[str, list[Shard]]) -> None:
    """See to it that the models and items that notebooks ask for can be had, before anything runs.

    Raises:
        ModelError: no such model. ItemsError: no such folder, or a malformed file in it.
    """
    for model in dict.fromkeys(name for names in loaded.values() for name in names):
        folders.find(model)
    for source in dict.fromkeys(shard.items for group in wanted.values() for shard in group):
        if source not in assets.table():
            load_official(Path(source).expanduser())


def digests(
    own: Mapping[str, str], wanted: Mapping[str, list[Shard]], loaded: Mapping[str, list[str]], code: str
) -> dict[str, str]:
    """The notebooks' digests, with their model, the shards that they read, what is read there, and the code that reads it."""
    found = {}
    for name, digest in own.items():
        read = [[one.id, content(one.model), content(one.items)] for one in wanted[name]]
        parts = [digest, code if read else "", read, [content(model) for model in loaded[name]]]
        found[name] = (
            hashlib.sha256(json.dumps(parts).encode()).hexdigest() if read or loaded[name] else digest
        )
    return found


def to_store(models: str) -> list[str]:
    """The models named (apart by spaces), or the whole ladder; ValueError for one that it does not hold."""
    chosen = models.split() or ladder()
    if unknown := [name for name in chosen if name not in ladder()]:
        raise ValueError(f"MODELS: {unknown[0]!r} is not of the ladder; accepted: {', '.join(ladder())}")
    return chosen


def attacked(models: Sequence[str], file: Path = FILE) -> dict[str, int]:
    """Of these models those that the ladder attacks with the stand-in for jailbreaks, and how many attacks it sends."""
    table = yaml.safe_load(file.read_text(encoding="utf-8"))["attacked"]
    return {name: attacks for name, attacks in table.items() if name in models}


def attack_digest(root: Path) -> str:
    """SHA-256 over what the answers to attacks stand on: the modules, and the attacks themselves."""
    modules = imports.closure(["import ica.llm.jailbreak.attack"], root)
    files = [imports.module_file(root, one) for one in modules if not f"{one}.".startswith(AROUND)]
    files += [root / "ica" / "llm" / "jailbreak" / name for name in ("attacks.yml", "benign.yml")]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def assets_of(shard: Shard) -> list[str]:
    """The assets that must be there before a shard is read: those of its model and items that the table holds."""
    return [name for name in dict.fromkeys((shard.model, shard.items)) if name in assets.table()]


@cache
def content(source: str) -> str:
    """SHA-256 of what a user's model or items hold; of an asset the one that the table says, of a hub id its name's.

    Of a model folder the files count that a model is read from; of one that cannot be read, what is wrong with it.
    """
    if source in assets.table():
        return assets.table()[source].sha256
    path = Path(source)
    try:
        path = path.expanduser()
        if path.is_file():
            return folders.hashed(path)
        return folders.folder_hash(path) if path.is_dir() else _named(source)
    except (OSError, RuntimeError, folders.ModelError) as error:  # RuntimeError: of a home that is none
        found = path.rglob("*") if os.path.isdir(path) else ()
        items = [one for one in found if one.suffix in (".jsonl", ".csv") and one.is_file()]
        return folders.digest(items) if items else _named(f"{source}: {error}")


def _named(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def command(shard: Shard) -> str:
    """The words after `python -m ica.llm.protocol.measure` that read this shard."""
    return f"{shard.scale} {shlex.quote(shard.model)} {shard.category} --items {shlex.quote(shard.items)}"
