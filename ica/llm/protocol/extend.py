"""Add blocks to the stored records of a model: `python -m ica.llm.protocol.extend smollm2 review released`.

The other blocks stay as they are. A block that is there already, from the same code and for as many items, is left alone; what
was added says in its provenance from which code, by the digest of the block's own modules.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from ica import checks
from ica.build import jobs
from ica.llm.bbq.items import Item
from ica.llm.model.cache import CallCache, model_folder
from ica.llm.model.engine import Engine
from ica.llm.model.load import load
from ica.llm.protocol import measure
from ica.llm.protocol.results import ResultError, checked, content_of, stored_folder
from ica.llm.protocol.shards import GROUP, Shard, code_digest, load_items, ranked, shards, slug
from ica.record.provenance import write_json

MODULE = "ica.llm.protocol.extend"
BLOCKS = {"review": "ica.llm.protocol.review", "released": "ica.llm.protocol.released"}


def complete(content: dict, wanted: Shard, block: str) -> bool:
    """Is the block there, for as many items as wanted, from the code of now?"""
    added = content["provenance"].get("added", {}).get(block, {})
    same = content["counts"].get(block, 0) == wanted.counts[block]
    return same and added.get("code") == code_digest(module=BLOCKS[block])[:12]


def add(content: dict, wanted: Shard, block: str, engine: Engine, items: Sequence[Item]) -> None:
    """Ask one block of a stored shard's items, and put it into its records.

    Raises:
        ResultError: the records are of other items, or of another model.
    """
    chosen = ranked(items, wanted.category, wanted.counts["core"])
    records, started, before = content["records"], datetime.now(UTC), engine.calls()
    if [item.id for _, item in chosen] != [record["id"] for record in records]:
        raise ResultError(f"{wanted.category} of {wanted.model} is stored of other items; `make ladder` anew")
    if content["model"]["sha256"] != engine.model.hash:
        raise ResultError(f"{wanted.model} is stored of other weights; `make ladder` makes it anew")
    some = [k for k, (rank, _) in enumerate(chosen) if rank < wanted.counts[block]]
    for record in records:
        record.pop(block, None)
    for begin in range(0, len(some), GROUP):
        group = some[begin : begin + GROUP]
        cores = [records[k]["core"] for k in group]
        found = measure.ask(engine, [chosen[k][1] for k in group], block, cores)
        for k, record in zip(group, found, strict=False):
            records[k][block] = record
    calls = {name: round(value - before[name], 1) for name, value in engine.calls().items()}
    provenance = content["provenance"]
    provenance.setdefault("added", {})[block] = {
        "code": code_digest(module=BLOCKS[block])[:12],
        **measure.provenance(started),
        "calls": calls,
    }
    content["counts"] = {**content["counts"], block: wanted.counts[block]}
    if content["counts"] == wanted.counts:
        content["id"] = wanted.id


def extend(model: str, names: Sequence[str], where: Path | None = None, tell: jobs.Tell = print) -> Path:
    """Add blocks to the stored records of a model, category by category, each written as it is done; the file.

    Raises:
        ResultError: nothing is stored of the model, or it is damaged. ValueError: no such block, or no model of the ladder.
    """
    for name in names:
        checks.one_of("block", name, tuple(BLOCKS))
    wanted = {shard.category: shard for shard in shards("ladder", model)}
    path = (where or stored_folder()) / f"{slug(model)}.json"
    content = content_of(path)
    kept = [checked(one, path) for one in content["shards"]]
    todo = [(one, name) for one in kept for name in names if not complete(one, wanted[one["category"]], name)]
    if not todo:
        return path
    items, _ = load_items("bbq")
    loaded = load(model)
    engine = Engine(loaded, CallCache(model_folder(loaded.hash)))
    for number, (one, name) in enumerate(todo, 1):
        add(one, wanted[one["category"]], name, engine, items)
        checked(one, path)
        write_json(path, content, compact=True)
        tell(f"{number}/{len(todo)}")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model of the ladder whose records are stored")
    parser.add_argument("block", nargs="+", help=f"of {', '.join(BLOCKS)}")
    options = parser.parse_args()

    def work(tell: jobs.Tell) -> None:
        jobs.settle(MODULE)
        torch.set_num_threads(1)

        def say(progress: str) -> None:
            tell(progress)
            print(f"{options.model}  {progress}", file=sys.stderr, flush=True)

        print(extend(options.model, options.block, tell=say))

    return jobs.run(work, f"Extending {options.model}")


if __name__ == "__main__":
    sys.exit(main())
