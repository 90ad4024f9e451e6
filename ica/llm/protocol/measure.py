"""Measure shards and leave their records: `python -m ica.llm.protocol.measure live smollm2 Age`, or all categories of a model.

The result is one JSON file, written whole or not at all; every call of the model is kept in the cache as it is made, so a
killed shard goes on where it was.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from ica.llm.bbq.items import Item
from ica.llm.model.cache import CacheError, CallCache, model_folder
from ica.llm.model.engine import Engine
from ica.llm.model.load import LanguageModel, load
from ica.llm.protocol import blocks
from ica.llm.protocol.readings import rotation
from ica.llm.protocol.released import released
from ica.llm.protocol.shards import (
    GROUP,
    HALF,
    SCALES,
    SCHEMA,
    Shard,
    categories,
    code_digest,
    folder,
    load_items,
    ranked,
    shards,
)
from ica.record.provenance import commit, dirty, hardware, seconds_since, versions, write_json

FACTS = ("id", "category", "condition", "polarity", "gold", "unknown", "biased")


def can_chat(model: LanguageModel) -> bool:
    """Has the model a chat template?"""
    return model.tokenizer.chat_template is not None


def _group(engine: Engine, shard: Shard, group: Sequence[tuple[int, Item]]) -> list[dict]:
    """All blocks for a few items."""
    items = [item for _, item in group]
    cores = blocks.measure(engine, items, "core")
    records = [
        {**{name: getattr(item, name) for name in FACTS}, "rotation": rotation(item.id), "core": core}
        for item, core in zip(items, cores, strict=True)
    ]
    for block, count in shard.counts.items():
        some = [i for i, (rank, _) in enumerate(group) if rank < count]
        if block == "core" or not some or (block == "released" and not can_chat(engine.model)):
            continue
        these = [items[i] for i in some]
        if block == "released":
            found = released(engine, these)
        else:
            found = blocks.measure(engine, these, block, [cores[i] for i in some])
        for i, record in zip(some, found, strict=True):
            records[i][block] = record
    return records


def read_shard(
    engine: Engine, shard: Shard, items: Sequence[Item], progress: Callable[[int, int], None] | None = None
) -> list[dict]:
    """The records of a shard's items, in order; `progress` is told how many items are done, and of how many."""
    chosen, records = ranked(items, shard.category, shard.counts["core"]), []
    for begin in range(0, len(chosen), GROUP):
        records += _group(engine, shard, chosen[begin : begin + GROUP])
        if progress:
            progress(len(records), len(chosen))
    return records


def perform(
    shard: Shard,
    out: Path,
    engine: Engine,
    data: tuple[Sequence[Item], dict],
    threads: int = 1,
    status: Path | None = None,
) -> Path:
    """Measure a shard and write `out`; the path.

    Args:
        engine: holds the shard's model.
        data: the shard's items, and what they are (`shards.load_items`).

    Raises:
        CacheError: the call cache cannot be written; nothing is written then.
    """
    started, begun = datetime.now(UTC), time.time()
    (items, source), model = data, engine.model
    before = engine.calls()

    def progress(done: int, total: int) -> None:
        if status:
            write_json(status, {"state": "running", "started": begun, "progress": f"{done}/{total}"})
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r\x1b[K{shard.stem}  {done}/{total} items", end=end, file=sys.stderr, flush=True)

    progress(0, len(ranked(items, shard.category, shard.counts["core"])))
    records = read_shard(engine, shard, items, progress)
    name = shard.model if "/" not in shard.model else Path(shard.model).name
    content = {
        "schema": SCHEMA,
        "scale": shard.scale,
        "id": shard.id,
        "model": {"name": name, "sha256": model.hash, "parameters": model.network.num_parameters(), "chat": can_chat(model)},
        "items": {**source, "half": HALF, "unplaced": sum(item.category is None for item in items)},
        "category": shard.category,
        "counts": shard.counts,
        "records": records,
        "provenance": {
            "code": code_digest()[:12],
            "commit": commit(),
            "dirty": dirty(),
            "versions": versions(),
            "hardware": hardware(),
            "threads": threads,
            "started": started.isoformat(timespec="seconds"),
            "seconds": seconds_since(started),
            "calls": {name: round(value - before[name], 1) for name, value in engine.calls().items()},
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        },
    }  # fmt: skip
    return write_json(out, content, compact=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ica.llm.protocol.measure", description=__doc__.splitlines()[0]
    )
    parser.add_argument("scale", choices=SCALES)
    parser.add_argument("model", help="a name of assets.yml, a .gguf file, a Hugging Face folder or a hub id")
    parser.add_argument(
        "category", nargs="*", help="categories of BBQ; without one all of them, one after another"
    )
    parser.add_argument("--items", default="bbq", help="bbq (the asset) or the official BBQ folder")
    parser.add_argument("--out", type=Path, default=folder(), help="folder of the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads on the CPU")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the shard is")
    return parser.parse_intermixed_args()


def main() -> int:
    options, begun, state = _arguments(), time.time(), "failed"
    try:
        chosen = [
            shard
            for shard in shards(options.scale, options.model, options.items)
            if not options.category or shard.category in options.category
        ]
        if unknown := sorted(set(options.category) - {shard.category for shard in chosen}):
            known = ", ".join(categories(options.items))
            raise ValueError(f"category {unknown[0]!r} is not of {options.items}; accepted are {known}")
        torch.set_num_threads(options.threads)
        data, model = load_items(options.items), load(options.model)
        engine = Engine(model, CallCache(model_folder(model.hash)))
        for shard in chosen:
            out = options.out / f"{shard.id}.json"
            print(perform(shard, out, engine, data, options.threads, options.status))
        state = "done"
    except (ValueError, CacheError) as error:
        if options.status:
            report = f"Reading {options.model} ({', '.join(options.category) or 'all categories'}) failed.\n\n{error}\n"
            options.status.with_suffix(".failure").write_text(report, encoding="utf-8")
        print(error, file=sys.stderr)
        return 1
    finally:
        if options.status:
            write_json(options.status, {"state": state, "started": begun, "seconds": time.time() - begun})
    return 0


if __name__ == "__main__":
    sys.exit(main())
