"""Greedy generation in batches, prompts that begin alike sharing that computation.

Token by token it is what `generate(do_sample=False)` of transformers gives for each prompt alone, without the penalties
that a model's own generation settings may add.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ica import checks
from ica.llm.models import LanguageModel
from ica.llm.prefixes import LEAST, SLOTS, Prefix, Tokens, batches, computed, joined, portions
from ica.llm.scoring import ROOM


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
    slots: int = SLOTS,
    least: int = LEAST,
) -> list[Generated]:
    """The most probable next token again and again, until the model ends or `new_tokens` are written.

    Args:
        model: the language model.
        prompts: texts; the same one twice is computed once.
        new_tokens: tokens to write at most, at least 1.
        known, slots, least: as for `scoring.score`.

    Raises:
        ValueError: an empty prompt, or more tokens than the model reads.
    """
    checks.whole("new_tokens", new_tokens, 1)
    rows = [_prompt(model, text, new_tokens) for text in prompts]
    found: dict[Tokens, Tokens] = {}
    for portion in portions([row[:-1] for row in rows], ROOM * slots):
        stems = computed(model, portion, known, slots, least)
        part = sorted({row for row in rows if row[:-1] in stems})
        for batch in batches([(len(row), new_tokens) for row in part], slots):
            chosen = [part[i] for i in batch]
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
