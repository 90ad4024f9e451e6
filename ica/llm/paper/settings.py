"""What a run is asked for, every word of it checked before anything is read or run."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ica.llm.bbq.items import CATEGORIES, CONDITIONS, Item, ItemsError
from ica.llm.jailbreak.attacks import Attack
from ica.llm.model import folders
from ica.llm.model.assets import line
from ica.llm.model.folders import ModelError, shown
from ica.llm.model.load import DTYPES
from ica.llm.paper import chats, defence
from ica.llm.paper.texts import RELEASED, TRIAL, Lengths
from ica.llm.protocol.shards import load_items

ITEMS = 500  # of a category, as in the paper (5.1)
FEW = 5  # one in so many of them is asked in all blocks: 100 of 500, as in C.2
FEWEST = 20  # items a category; with fewer a run is a trial
SMALL = 100  # with fewer it is a small run, from which nothing is judged
TRIED = 2  # categories of which a trial asks one item of each condition in all blocks
MOST = 10_000
CONVERT = (
    "Pickled weights run as a program when they are opened, so they are not opened here. To convert weights that you trust: "
    "`AutoModelForCausalLM.from_pretrained(ID, dtype='bfloat16').save_pretrained(FOLDER)` and "
    "`AutoTokenizer.from_pretrained(ID).save_pretrained(FOLDER)` of transformers write safetensors, then MODEL=FOLDER"
)
GATED = (
    "it is gated: accept its licence on its page, then log in once with the hub's own client (`hf auth login`, or the variable "
    "HF_TOKEN); the token stays with that client"
)


@dataclass(frozen=True)
class Asked:
    """A run: the words of `make paper-llm`, checked.

    Attributes:
        model, device, dtype: as `load` takes them.
        count: items of a category.
        items: the chosen ones, each with whether it is asked in all blocks; by category, those first.
        source: what the items are.
        template: the chat template, None for the model's own; and its name.
        context, sent: requests of CaC-diverse, and those that are sent.
        attacks: "stand-in" or "file".
        lengths: tokens to write.
        places: tokens held at once; None: what fits.
    """

    model: str
    device: str
    dtype: str
    count: int
    items: dict[str, list[tuple[Item, bool]]]
    source: dict
    template: str | None
    template_name: str
    context: list[Attack]
    sent: list[defence.Request]
    attacks: str
    lengths: Lengths
    places: int | None


def whole(name: str, text: str, most: int = MOST) -> int:
    """A whole number from 1 on; ValueError naming the setting."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ValueError(f"{name} must be a whole number of 1 to {most}, got {shown(line(text, 60))!r}")
    return int(text)


def placed(text: str) -> str:
    """A device that torch can use, "cpu" for ""; ValueError for any other."""
    accepted = "accepted are cpu, cuda, and cuda:0, cuda:1, ... where there are several GPUs"
    try:
        device = torch.device(text or "cpu")
    except RuntimeError as error:
        raise ValueError(f"DEVICE: {shown(line(text, 60))!r} is no device; {accepted}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"DEVICE: {device.type} is not supported; {accepted}")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        why = (
            "this torch is built for the CPU alone"
            if torch.version.cuda is None
            else "torch finds no such GPU"
        )
        raise ValueError(f"DEVICE: {device} cannot be used ({why}); {accepted}")
    return str(device)


def typed(text: str, device: str) -> str:
    """A type of numbers; by default bfloat16 on a GPU and float32 on the CPU."""
    if text and text not in DTYPES:
        raise ValueError(f"DTYPE must be one of {', '.join(DTYPES)}; got {shown(line(text, 60))!r}")
    return text or ("float32" if device == "cpu" else "bfloat16")


def lengths(text: str, count: int) -> Lengths:
    """Tokens to write: of "" those of the released code, or in a trial few; else four numbers."""
    if not text.strip():
        return TRIAL if count < FEWEST else RELEASED
    words = text.split()
    if len(words) != 4:
        raise ValueError(
            f"TOKENS must be four numbers (first answer, review, second answer, attack), got {line(text, 60)!r}"
        )
    return Lengths(*(whole("TOKENS", word, 4096) for word in words))


def chosen(items: list[Item], count: int) -> dict[str, list[tuple[Item, bool]]]:
    """Of each category `count` items, half of them ambiguous, in the order of their hashes (which is random);
    what is there, if fewer.

    One in five of each condition is asked in all blocks, or in a trial one of each in three categories.

    Raises:
        ItemsError: no item of a category that the source has, in one condition; or no category at all.
    """
    found: dict[str, list[tuple[Item, bool]]] = {}
    for category in CATEGORIES:
        own = [item for item in items if item.category == category]
        if not own:
            continue
        few = count // FEW if count >= FEWEST else int(len(found) < TRIED)
        both = []
        for k, condition in enumerate(CONDITIONS):
            some = sorted((item for item in own if item.condition == condition), key=lambda item: item.id)
            if not some:
                raise ItemsError(
                    f"BBQ: category {category} has no {condition} item; it needs some of both conditions"
                )
            both.append([(item, n < few) for n, item in enumerate(some[: (count + 1 - k) // 2])])
        found[category] = sorted(both[0] + both[1], key=lambda pair: (not pair[1], pair[0].id))
    if not found:
        raise ItemsError(f"BBQ: the items are of no category of BBQ ({', '.join(CATEGORIES)})")
    return found


def check(words: dict[str, str]) -> Asked:
    """The run that the words ask for; the first that is not accepted is a ValueError that names it.

    Args:
        words: MODEL, BBQ, ITEMS, DEVICE, DTYPE, TEMPLATE, ATTACKS, TOKENS, PLACES; "" for what is not given.
    """
    model = words["MODEL"].strip()
    if not model:
        raise ValueError(
            "MODEL must be given: a name of assets.yml, a .gguf file, a Hugging Face folder or a hub id"
        )
    with_advice(lambda: folders.find(model))
    count = whole("ITEMS", words["ITEMS"].strip() or str(ITEMS))
    if count < 2:
        raise ValueError("ITEMS must be at least 2, one of each condition")
    device = placed(words["DEVICE"].strip())
    dtype = typed(words["DTYPE"].strip(), device)
    template = chats.given(words["TEMPLATE"].strip())
    places = whole("PLACES", words["PLACES"].strip(), 1 << 20) if words["PLACES"].strip() else None
    written = lengths(words["TOKENS"], count)
    file = Path(words["ATTACKS"].strip()).expanduser() if words["ATTACKS"].strip() else None
    context, sent = defence.requests(file, count)
    every, source = load_items(words["BBQ"].strip() or "bbq")
    items = chosen(every, count)
    name = words["TEMPLATE"].strip()
    name = name if name in chats.BUILT_IN else "file" if name else "own"
    kind = "file" if file else "stand-in"
    return Asked(
        model, device, dtype, count, items, source, template, name, context, sent, kind, written, places
    )


def with_advice(call):
    """What a call gives; what it says of pickled weights or a gated model with what to do about it."""
    try:
        return call()
    except ModelError as error:
        said = str(error)
        if "pickled weights" in said or "has no weights" in said:
            raise ModelError(f"{said}. {CONVERT}") from error
        if "Gated" in said or "401" in said or "403" in said:
            raise ModelError(f"{said}; {GATED}") from error
        raise


def threads() -> int:
    """Threads on the CPU: as many as it has cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
