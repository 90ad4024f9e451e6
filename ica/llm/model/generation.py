"""Greedy generation in batches, prompts that begin alike sharing that computation.

Token by token it is what `generate(do_sample=False)` of transformers gives for each prompt alone, without the penalties
that a model's own generation settings may add.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from ica import checks
from ica.llm.model.load import LanguageModel
from ica.llm.model.trees import ROOM, WIDTH, Prefix, Tokens, computed, portions

SLOTS = 4096


@dataclass(frozen=True)
class Generated:
    """What a model wrote: tokens (with the one that ended it, if any), text without special tokens, and whether it ended.

    The text is untrusted: escape it where it is shown, and pass it through `model.plain` before it enters a chat.
    """

    tokens: Tokens
    text: str
    ended: bool


def greedy(
    model: LanguageModel,
    prompts: Sequence[str],
    new_tokens: int,
    known: Sequence[Prefix] = (),
    width: int = WIDTH,
    room: int = ROOM,
    slots: int = SLOTS,
) -> list[Generated]:
    """The most probable next token again and again, until the model ends or `new_tokens` are written.

    Args:
        model: the language model.
        prompts: texts; the same one twice is computed once.
        new_tokens: tokens to write at most, at least 1.
        known, width, room: as for `scoring.score`.
        slots: places (rows times longest row) of the batches in which tokens are written.

    Raises:
        ValueError: an empty prompt, or more tokens than the model reads.
    """
    for name, value in (("new_tokens", new_tokens), ("width", width), ("room", room), ("slots", slots)):
        checks.whole(name, value, 1)
    rows = [_prompt(model, text, new_tokens) for text in prompts]
    found: dict[Tokens, Tokens] = {}
    for portion in portions([row[:-1] for row in rows], room):
        stems = computed(model, portion, known, width, room)
        part = sorted({row for row in rows if row[:-1] in stems})
        for chosen in batches(part, new_tokens, slots):
            found |= dict(zip(chosen, _written(model, stems, chosen, new_tokens), strict=True))
    return [Generated(found[row], model.text(found[row]), found[row][-1] in model.ends) for row in rows]


def _prompt(model: LanguageModel, text: str, new_tokens: int) -> Tokens:
    tokens = tuple(model.context_tokens(text))
    if not tokens:
        raise ValueError(f"prompt must have at least one token, got {text!r}")
    if len(tokens) + new_tokens - 1 > model.longest:
        raise ValueError(
            f"prompt and answer need {len(tokens) + new_tokens - 1} places; {model.name} reads {model.longest}"
        )
    return tokens


def batches(rows: Sequence[Tokens], new_tokens: int, slots: int) -> Iterator[list[Tokens]]:
    """Rows of like length together, the longest first; a batch has at most `slots` places, or one row."""
    batch: list[Tokens] = []
    for row in sorted(rows, key=lambda row: (-len(row), row)):
        if batch and (len(batch) + 1) * (len(batch[0]) + new_tokens) > slots:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def joined(prefixes: Sequence[Prefix]) -> DynamicCache:
    """A cache with one row for each prefix, padded on the left with zeros to the longest."""
    cache, longest = DynamicCache(), max(len(prefix.tokens) for prefix in prefixes)
    if not longest:
        return cache
    filled = next(prefix for prefix in prefixes if prefix.tokens)
    for layer, pair in enumerate(filled.layers):
        rows = [like.new_zeros(len(prefixes), like.shape[0], longest, like.shape[2]) for like in pair]
        for i, prefix in enumerate(prefixes):
            if prefix.tokens:
                for part in (0, 1):
                    rows[part][i, :, -len(prefix.tokens) :] = prefix.layers[layer][part]
        cache.update(*rows, layer)
    return cache


@torch.inference_mode()
def _written(
    model: LanguageModel, stems: dict[Tokens, Prefix], rows: Sequence[Tokens], new_tokens: int
) -> list[Tokens]:
    """One batch, padded on the left; rows that have ended leave it."""
    device = model.device
    cache = joined([stems[row[:-1]] for row in rows])
    longest = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
    last = torch.tensor([row[-1:] for row in rows], device=device)
    written: list[list[int]] = [[] for _ in rows]
    alive = list(range(len(rows)))
    for step in range(new_tokens):
        out = model.network(
            input_ids=last,
            attention_mask=mask,
            position_ids=lengths[:, None] - 1 + step,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, last = out.past_key_values, out.logits[:, -1].float().argmax(-1, keepdim=True)
        for row, token in zip(alive, last[:, 0].tolist(), strict=True):
            written[row].append(token)
        staying = [i for i, row in enumerate(alive) if written[row][-1] not in model.ends]
        if not staying:
            break
        if len(staying) < len(alive):
            keep = torch.tensor(staying, device=device)
            cache.batch_select_indices(keep)
            last, mask, lengths = last[keep], mask[keep], lengths[keep]
            alive = [alive[i] for i in staying]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [tuple(tokens) for tokens in written]
