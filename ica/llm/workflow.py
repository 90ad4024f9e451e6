"""Which shards a build reads: what the Snakefile asks. Nothing heavy is imported."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from ica.house import notebooks
from ica.llm import assets
from ica.llm.shards import Shard, ladder, shards


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
    """For each notebook the asset that its parameter `model` names, if it declares one and the table holds it."""
    found = {}
    for name, changes in overrides.items():
        values = {**notebooks.declared(notebooks.read(root, name), name), **changes}
        found[name] = [one for one in [values.get("model")] if one in assets.table()]
    return found


def digests(own: Mapping[str, str], wanted: Mapping[str, list[Shard]], code: str) -> dict[str, str]:
    """The notebooks' digests, with the shards that they read and the code that reads those."""
    return {
        name: hashlib.sha256(
            json.dumps([digest, code, [one.id for one in wanted[name]]]).encode()
        ).hexdigest()
        if wanted[name]
        else digest
        for name, digest in own.items()
    }


def to_store(models: str) -> list[str]:
    """The models named (apart by spaces), or the whole ladder; ValueError for one that it does not hold."""
    chosen = models.split() or ladder()
    if unknown := [name for name in chosen if name not in ladder()]:
        raise ValueError(f"MODELS: {unknown[0]!r} is not of the ladder; accepted: {', '.join(ladder())}")
    return chosen


def assets_of(shard: Shard) -> list[str]:
    """The assets that must be there before a shard is read: those of its model and items that the table holds."""
    return [name for name in dict.fromkeys((shard.model, shard.items)) if name in assets.table()]


def command(shard: Shard) -> str:
    """The words after `python -m ica.llm.measure` that read this shard."""
    return f"{shard.scale} {shlex.quote(shard.model)} {shard.category} --items {shlex.quote(shard.items)}"
