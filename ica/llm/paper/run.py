"""The paper's protocol for one model, `make paper-llm`: weights loaded and hashed once, groups of items one
after another.

What is asked is checked first, and what the run needs of memory is said, before the weights are loaded. Each
group's records are appended to a checkpoint in `build/paper-llm`, whose folder is named by all that decides
the numbers; a run that was stopped goes on after its last whole group, and as groups do not depend on one
another its result is the same. At the end the answers are graded and written as one file of numbers, with a
few dialogues about BBQ as examples and no text of attacks or of answers to them.
"""

import argparse
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from ica.build import imports, jobs, stored
from ica.llm.jailbreak import attacks
from ica.llm.model import copies, folders
from ica.llm.model.engine import RULES
from ica.llm.model.load import LanguageModel, _located, load
from ica.llm.model.scoring import probe
from ica.llm.paper import bias, chats, defence, memory, parts, results, settings
from ica.llm.paper.checkpoint import Checkpoint
from ica.llm.paper.settings import Asked
from ica.llm.protocol.measure import provenance, writable
from ica.llm.protocol.shards import AROUND, slug
from ica.record.provenance import project_root, write_json

MODULE = "ica.llm.paper.run"
ROOT = Path(__file__).parents[3]
WIDTHS = {"cpu": 256, "cuda": 1024}  # tokens that one pass reads
WORDS = ("MODEL", "BBQ", "ITEMS", "DEVICE", "DTYPE", "TEMPLATE", "ATTACKS", "TOKENS", "PLACES")
Say = Callable[[str], None]


def code_digest() -> str:
    """SHA-256 over the modules and texts that decide the numbers."""
    modules = imports.closure([f"import {MODULE}"], ROOT)
    modules = [one for one in modules if not f"{one}.".startswith((*AROUND, "ica.llm.paper.summary"))]
    files = [imports.module_file(ROOT, one) for one in modules]
    files += [attacks.FILE, attacks.BENIGN, ROOT / "ica/llm/bbq/index.json"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def digest(asked: Asked, model: LanguageModel, places: int, threads: int) -> str:
    """Twelve digits over all that decides the numbers of a run: another digest, another checkpoint."""
    chosen = [[item.id, few] for group in asked.items.values() for item, few in group]
    parts = {
        "code": code_digest(),
        "model": model.hash,
        "template": model.tokenizer.chat_template,
        "items": chosen,
        "attacks": defence.digest(asked.context, asked.sent),
        "lengths": asdict(asked.lengths),
        "numbers": [asked.dtype, torch.device(asked.device).type, places, threads, RULES],
        "versions": [torch.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Progress:
    """Says how far a run is and how long it may take, from the tokens that its groups may write."""

    def __init__(self, weights: Sequence[float], done: float, name: str, tell: jobs.Tell):
        self.total, self.before, self.done = sum(weights), done, done
        self.name, self.tell, self.begun, self.said = name, tell, time.monotonic(), 0.0

    def step(self, weight: float, what: str) -> None:
        self.done += weight
        share, now = self.done / self.total, time.monotonic()
        left = (now - self.begun) / max(self.done - self.before, 1e-9) * (self.total - self.done)
        text = f"{share:.0%} ({what}), about {duration(left)} to go"
        self.tell(text)
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self.name}  {text}", end="" if share < 1 else "\n", file=sys.stderr, flush=True)
        elif now - self.said > 15 or share >= 1:
            self.said = now
            print(f"{self.name}  {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def groups(asked: Asked, size: int) -> Iterator[tuple[str, list, int, float]]:
    """Name, items or requests, how many of them are asked in all blocks, and the tokens that may be written,
    of each group.

    Items that are asked in all blocks come first, so that these too are asked many at once.
    """
    length = asked.lengths
    plain = 2 * length.first + length.review + 2 * length.second
    more = (len(bias.texts.FORMS) + bias.ROUNDS - 1) * (length.review + length.second) + 6 * length.second
    pairs = [pair for found in asked.items.values() for pair in found]
    pairs = [pair for pair in pairs if pair[1]] + [pair for pair in pairs if not pair[1]]
    for begin in range(0, len(pairs), size):
        part = pairs[begin : begin + size]
        few = sum(one for _, one in part)
        name = f"items {begin + 1} to {begin + len(part)} of {len(pairs)}"
        yield name, [item for item, _ in part], few, float(few * more + len(part) * plain)
    rounds = len(defence.DEFENCES) + 2 * defence.ROUNDS
    for begin in range(0, len(asked.sent), size):
        part = asked.sent[begin : begin + size]
        yield "attacks", part, 0, float(len(part) * rounds * length.attack)


def perform(
    asked: Asked,
    model: LanguageModel,
    checkpoint: Checkpoint,
    places: int,
    name: str,
    tell: jobs.Tell,
    part: int | None = None,
) -> None:
    """Ask everything, or one part of it (`parts`), that the checkpoint does not hold yet, group by group."""
    size, kind = max(1, places // memory.GROUP), torch.device(asked.device).type
    probe(model)
    asker = bias.Asker(model, asked.lengths, places, WIDTHS[kind], reuse=kind == "cpu")
    todo = list(groups(asked, size))
    todo = todo if part is None else todo[part - 1 :: parts.PARTS]
    left = [one for one in todo if not all(key in checkpoint.records for key in _keys(one))]
    weights = [one[3] for one in todo]
    progress = Progress(weights, sum(weights) - sum((one[3] for one in left), 0.0), name, tell)
    defended = None
    for what, some, few, weight in left:
        if what == "attacks":
            asker.begin()
            defended = defended or defence.Defended(asker, asked.context)
            found = defended.rows(some)
            found[_seconds(some)] = {name: round(s, 4) for name, s in defended.seconds.items()} | {
                "requests": len(some)
            }
        else:
            found = {
                f"item/{item.id}": one for item, one in zip(some, bias.group(asker, some, few), strict=True)
            }
        checkpoint.put(found)
        progress.step(weight, what)


def _seconds(part: Sequence[defence.Request]) -> str:
    return f"seconds/{part[0].key}"


def _keys(group: tuple[str, list, int, float]) -> list[str]:
    """Keys of the records that a group leaves."""
    what, part, *_ = group
    if what == "attacks":
        return [one.key for one in part] + [_seconds(part)]
    return [f"item/{item.id}" for item in part]


def folder_of(name: str) -> Path:
    """The folder with a model's weights, brought here or converted if need be."""
    path = settings.with_advice(lambda: _located(name))
    return path if path.is_dir() else copies.converted(path, folders.hashed(path), name)


def _start(asked: Asked, say: Say) -> tuple[LanguageModel, int]:
    """The model, and the places of the run; memory is said before the weights are loaded."""
    path = folder_of(asked.model)
    places, need = memory.planned(path, asked.model, asked.dtype, asked.device, asked.places)
    say(f"{asked.model} in {asked.dtype} needs about {need}")
    model = settings.with_advice(lambda: load(asked.model, asked.dtype, asked.device))
    chats.fit(model, asked.template)
    bias.require_room(model, [pair for pairs in asked.items.values() for pair in pairs], asked.lengths)
    defence.require_room(bias.Asker(model, asked.lengths), asked.context, asked.sent)
    return model, places


def _work(options: argparse.Namespace, tell: jobs.Tell) -> None:
    if options.asked:
        for name, word in parts.settled(parts.words(options.asked)).items():
            setattr(options, name.lower(), word)
    started, root = datetime.now(UTC), project_root() or Path.cwd()
    threads = (
        settings.whole("--threads", options.threads, jobs.MOST) if options.threads else settings.threads()
    )
    jobs.settle(MODULE, threads)
    torch.set_num_threads(threads)
    out = Path(options.out).expanduser() if options.out else root / "results" / results.FOLDER
    if not options.out:
        stored.check(root)
    part = parts.number(options.part) if options.part else None
    asked = settings.check({name: getattr(options, name.lower()) for name in WORDS})
    writable("OUT", out)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    model, places = _start(asked, say)
    mark = digest(asked, model, places, threads)
    path = (
        (root / "build" if not options.out else out)
        / "paper-llm"
        / f"{slug(asked.model)}-{mark}"
        / "records.jsonl"
    )
    checkpoint = Checkpoint(parts.beside(path, part) if part else path)
    try:
        if not part:
            parts.gather(checkpoint)
        _told(asked, checkpoint, say)
        perform(asked, model, checkpoint, places, slug(asked.model), tell, part)
        records = checkpoint.records
    except torch.OutOfMemoryError as error:
        less = f"PLACES={places // 2} takes less"
        raise ValueError(
            f"the memory of {asked.device} did not suffice with PLACES={places}; {less}"
        ) from error
    finally:
        checkpoint.close()
    if part:
        return _done(options.done, checkpoint.path)
    more = {"threads": threads, "places": places, "digest": mark, "code": code_digest()[:12]}
    more["peak_gib"] = _peak(asked.device)
    content = results.made(asked, model, records, provenance(started) | more)
    written = results.write(out / f"{slug(asked.model)}.json", content)
    if not options.out:
        stored.accept(root / "results")
    from ica.llm.paper import summary  # pandas and statistics, of no use before

    print(summary.report(results.read(written)))
    print(written)
    _done(options.done, written)


def _done(file: Path | None, result: Path) -> None:
    """Say to who waits for it where the result, or the records of a part, are."""
    if file:
        write_json(file, {"result": str(result)})


def _told(asked: Asked, checkpoint: Checkpoint, say: Say) -> None:
    """Say what will be asked, and what is there already."""
    items, length = sum(map(len, asked.items.values())), asked.lengths
    say(
        f"{items} items of BBQ in {len(asked.items)} categories, {len(asked.sent)} requests under {len(defence.DEFENCES)} "
        f"defences; at most {length.first}, {length.review}, {length.second} and {length.attack} tokens; "
        f"{len(checkpoint.records)} records are there; {checkpoint.path}"
    )
    if asked.count < settings.SMALL:
        say(f"fewer than {settings.SMALL} items a category: a small run, from which nothing is judged")


def _peak(device: str) -> float:
    """GiB that the process, or what it held on the GPU, took at most."""
    if torch.device(device).type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    helps = {
        "model": "a name of assets.yml, a .gguf file, a Hugging Face folder or a hub id",
        "bbq": "the official BBQ folder (default: the items that come with the book)",
        "items": f"items of each category, half of them ambiguous (default: {settings.ITEMS})",
        "device": "cpu (default) or cuda",
        "dtype": "float32, bfloat16 or float16 (default: float32 on the CPU, bfloat16 on a GPU)",
        "template": "vicuna, llama-2 or a Jinja file (default: the model's own)",
        "attacks": "a file of prompts, CSV or JSON (default: the book's harmless stand-in)",
        "tokens": "tokens of a first answer, a review, the answer after it, an answer to an attack (default: 256 256 10 64)",
        "places": "tokens held at once (default: what fits)",
        "threads": "threads on the CPU (default: all of its cores)",
        "out": f"folder of the result (default: results/{results.FOLDER})",
    }
    for name, text in helps.items():
        parser.add_argument(f"--{name}", default="", help=text)
    parser.add_argument(
        "--asked", type=Path, help="settings of a build, which hold all of the above but threads"
    )
    parser.add_argument("--part", default="", help=f"one of {parts.PARTS} parts alone, from 1 on")
    parser.add_argument("--done", type=Path, help="a JSON file to write at the end")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the run is")
    return parser.parse_args()


def main() -> int:
    options = _arguments()
    return jobs.run(lambda tell: _work(options, tell), f"paper-llm {options.model}".strip(), options.status)


if __name__ == "__main__":
    sys.exit(main())
