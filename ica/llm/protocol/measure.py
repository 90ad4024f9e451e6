"""Measure shards and leave their records: `python -m ica.llm.protocol.measure live smollm2 Age`, or all categories of a model.

The result is one JSON file, written whole or not at all; every call of the model is kept in the cache as it is made, so a
killed shard goes on where it was. A seal beside the file says that it is as it was written, and what it was made of.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from ica.build import jobs
from ica.llm.bbq.items import Item, ItemsError
from ica.llm.bbq.rows import one_of
from ica.llm.model.cache import CallCache, model_folder
from ica.llm.model.engine import Engine
from ica.llm.model.load import LanguageModel, load
from ica.llm.protocol import blocks, prompts
from ica.llm.protocol.readings import rotation
from ica.llm.protocol.released import WRITTEN, released, whole
from ica.llm.protocol.results import made_of, seal_of
from ica.llm.protocol.review import longest, review
from ica.llm.protocol.shards import (
    GROUP,
    HALF,
    SCALES,
    SCHEMA,
    Shard,
    code_digest,
    folder,
    from_job,
    load_items,
    of_categories,
    ranked,
    require,
    shards,
)
from ica.record import seals
from ica.record.parameters import shown
from ica.record.provenance import commit, dirty, hardware, seconds_since, versions, write_json

MODULE = "ica.llm.protocol.measure"
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
        if block != "core" and some:
            found = ask(engine, [items[i] for i in some], block, [cores[i] for i in some])
            for i, record in zip(some, found, strict=False):
                records[i][block] = record
    return records


def ask(engine: Engine, items: Sequence[Item], block: str, cores: Sequence[dict]) -> list[dict]:
    """One block for a few items; none of dialogues where the model has no chat template."""
    if block == "released":
        return released(engine, items) if can_chat(engine.model) else []
    if block == "review":
        return review(engine, items, cores)
    return blocks.measure(engine, items, block, cores)


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


def _longest(model: LanguageModel, item: Item, chat: bool) -> int:
    """Tokens of the longest prompt that an item is read in, with what is written after it."""
    option = max(item.options, key=len)
    tried = prompts.attempt(option)
    ends = {
        "verdict": (tried + prompts.verdict("unchecked")) * blocks.ROUNDS,
        "score": (tried + prompts.score(prompts.HIGH)) * 3,
        "check": f"{tried} {max(prompts.REASONS.values(), key=len)}" + prompts.verdict("unchecked"),
    }
    texts = [
        blocks.stem(item, form, rotation(item.id)) + end + prompts.FINAL[form] for form, end in ends.items()
    ]
    texts.append(longest(item))
    found = max(len(model.context_tokens(text)) for text in texts) + blocks.STEP_TOKENS
    found += len(model.tokens(f" {option}"))
    if chat:
        found = max(found, len(model.context_tokens(model.chat(whole(item)))) + WRITTEN)
    return found


def require_room(model: LanguageModel, shard: Shard, items: Sequence[Item]) -> None:
    """See that the model can read every item of the shard, before any is read.

    Raises:
        ItemsError: one that it cannot, named, with its tokens and those that the model reads.
    """
    for rank, item in ranked(items, shard.category, shard.counts["core"]):
        where = f"item {item.id} of {shard.category} in {shard.items}"
        texts = (item.context, item.question, *item.options)
        if found := next(filter(None, map(model.forged, texts)), ""):
            raise ItemsError(
                f"{where} spells the special token {found!r} of {model.name}, with which it could forge a turn"
            )
        try:
            needed = _longest(model, item, can_chat(model) and rank < shard.counts["released"])
        except ValueError as error:
            raise ItemsError(f"{where}: {error}") from error
        if needed > model.longest:
            raise ItemsError(
                f"{where} needs up to {needed} tokens in a prompt (its context has {len(item.context)} characters); accepted "
                f"are at most {model.longest}, which {model.name} reads at once"
            )


def perform(
    shard: Shard,
    out: Path,
    engine: Engine,
    data: tuple[Sequence[Item], dict],
    threads: int = 1,
    tell: jobs.Tell | None = None,
) -> Path:
    """Measure a shard, write `out` and its seal; the path of `out`.

    Args:
        engine: holds the shard's model.
        data: the shard's items, and what they are (`shards.load_items`).
        tell: is told the progress, as in "3/6".

    Raises:
        CacheError: the call cache cannot be written; nothing is written then.
        ItemsError: nothing to read, or an item longer than the model reads.
    """
    started = datetime.now(UTC)
    (items, source), model = data, engine.model
    require(items, shard)
    require_room(model, shard, items)
    before = engine.calls()

    def progress(done: int, total: int) -> None:
        if tell:
            tell(f"{done}/{total}")
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
            **provenance(started),
            "threads": threads,
            "calls": {name: round(value - before[name], 1) for name, value in engine.calls().items()},
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        },
    }  # fmt: skip
    write_json(out, content, compact=True)
    seals.write(seal_of(out), [out], made_of(shard, threads))
    return out


def provenance(started: datetime) -> dict:
    """Commit, versions, machine and time of what began then."""
    return {
        "commit": commit(),
        "dirty": dirty(),
        "versions": versions(),
        "hardware": hardware(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds_since(started),
    }


def writable(option: str, folder: Path) -> None:
    """Make the folder if it is not there; ValueError naming the option if nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{option}: nothing can be written into {folder} ({error.strerror})") from error


def count(option: str, given: str) -> int:
    """A whole number of at least 1; ValueError naming the option for anything else."""
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= 10_000):
        raise ValueError(f"{option} must be a whole number of 1 to 10000, got {shown(given)}")
    return int(given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("scale", nargs="?", help=f"one of {', '.join(SCALES)}")
    parser.add_argument(
        "model", nargs="?", help="a name of assets.yml, a .gguf file, a Hugging Face folder or a hub id"
    )
    parser.add_argument(
        "category", nargs="*", help="categories of BBQ; without one all of them, one after another"
    )
    parser.add_argument(
        "--job", type=Path, help="a JSON file with scale, model, items and category, in place of these words"
    )
    parser.add_argument("--items", default="bbq", help="bbq (the asset) or the official BBQ folder")
    parser.add_argument("--out", type=Path, default=folder(), help="folder of the results")
    parser.add_argument("--threads", default="1", help="threads on the CPU (default: 1, as in a build)")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the shard is")
    return parser.parse_intermixed_args()


def _chosen(options: argparse.Namespace) -> list[Shard]:
    """The shards that are asked for; ValueError for what there is not."""
    if options.job:
        if options.scale:
            raise ValueError("--job takes the place of scale, model and categories: give one or the other")
        return [from_job(options.job)]
    if not options.model:
        raise ValueError(
            f"scale ({', '.join(SCALES)}) and model must be given, as in `live smollm2`, or --job FILE"
        )
    one_of("scale", options.scale, SCALES)
    found = shards(options.scale, options.model, options.items)
    return of_categories(found, options.category, options.items)


def _work(options: argparse.Namespace, tell: jobs.Tell) -> None:
    chosen, threads = _chosen(options), count("--threads", options.threads)
    writable("--out", options.out)
    jobs.settle(MODULE, threads)
    torch.set_num_threads(threads)
    data = load_items(chosen[0].items)
    for shard in chosen:
        require(data[0], shard)
    model = load(chosen[0].model)
    engine = Engine(model, CallCache(model_folder(model.hash)))
    for shard in chosen:
        print(perform(shard, options.out / f"{shard.id}.json", engine, data, threads, tell))


def main() -> int:
    options = _arguments()
    said = [options.scale, options.model, *options.category] if not options.job else [options.job.name]
    name = f"Reading {' '.join(filter(None, said))}".strip()
    return jobs.run(lambda tell: _work(options, tell), name, options.status)


if __name__ == "__main__":
    sys.exit(main())
