r"""Log-probabilities of continuations given contexts, the contexts' common beginnings computed once.

The rule on tokens: a continuation is scored as the tokens of the context (with the start token if the model wants one)
followed by the tokens of the continuation, each tokenised by itself. So the boundary never moves with the continuation; where
words begin with their space, the space belongs to the continuation. With $c$ the context's tokens and $y_1 \dots y_m$ the
continuation's, the engine gives $\log p(y_j \mid c, y_{<j})$ in nats for each $j$.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ica import checks
from ica.llm.models import LanguageModel
from ica.llm.prefixes import LEAST, SLOTS, Prefix, Tokens, batches, computed, forward, portions

ROOM = 2
LOGITS = 256


@dataclass(frozen=True)
class Request:
    """One context and the texts that may follow it."""

    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """Log-probability (nats) of every token of every continuation of a request."""

    tokens: tuple[tuple[float, ...], ...]

    @property
    def sums(self) -> Float[Tensor, " continuations"]:
        """Log-probability of each continuation."""
        return torch.tensor([sum(row) for row in self.tokens], dtype=torch.float64)

    @property
    def counts(self) -> Int[Tensor, " continuations"]:
        """Tokens of each continuation."""
        return torch.tensor([len(row) for row in self.tokens])

    @property
    def means(self) -> Float[Tensor, " continuations"]:
        """Log-probability per token of each continuation."""
        return self.sums / self.counts


def log_probabilities(
    model: LanguageModel,
    context: str,
    continuations: Sequence[str],
    known: Sequence[Prefix] = (),
    slots: int = SLOTS,
    least: int = LEAST,
) -> Scores:
    """Scores of several continuations of one context; arguments and errors as for `score`."""
    return score(model, [Request(context, tuple(continuations))], known, slots, least)[0]


def score(
    model: LanguageModel,
    requests: Sequence[Request],
    known: Sequence[Prefix] = (),
    slots: int = SLOTS,
    least: int = LEAST,
) -> list[Scores]:
    """Scores of many requests in padded batches; contexts that begin alike share that computation.

    Args:
        model: the language model.
        requests: contexts with their continuations; the same one twice is computed once.
        known: prefixes computed before, used as far as contexts agree with them.
        slots: places of a batch (rows times padded length), which bounds the memory.
        least: a piece shared by several contexts is computed apart if it has at least this many tokens.

    Raises:
        ValueError: an empty context or continuation, or more tokens than the model reads.
    """
    checks.whole("slots", slots, 1)
    checks.whole("least", least, 1)
    rows = [[row_of(model, request.context, text) for text in request.continuations] for request in requests]
    reads = _reads({row for request in rows for row in request})
    found: dict[tuple[Tokens, Tokens], tuple[float, ...]] = {}
    for portion in portions([context[:-1] for context, _ in reads], ROOM * slots):
        stems = computed(model, portion, known, slots, least)
        part = sorted(read for read in reads if read[0][:-1] in stems)
        for batch in batches([(len(context) - 1, 1 + len(read)) for context, read in part], slots, LOGITS):
            chosen = {part[i]: reads[part[i]] for i in batch}
            found |= _scored(model, stems, chosen)
    return [Scores(tuple(found[row] for row in request)) for request in rows]


def _reads(rows: set[tuple[Tokens, Tokens]]) -> dict[tuple[Tokens, Tokens], list[Tokens]]:
    """What has to be read after each context, and which continuations that gives.

    A continuation needs its tokens but the last to be read; where these begin those of another continuation of the same
    context, the other's pass gives both. So all continuations of one token come with any longer one.
    """
    reads: dict[tuple[Tokens, Tokens], list[Tokens]] = {}
    held: list[Tokens] = []
    ordered = sorted(rows, key=lambda row: (row[0], row[1][:-1], row[1]))
    for (context, continuation), after in zip(ordered, [*ordered[1:], ((), ())], strict=False):
        held.append(continuation)
        read = continuation[:-1]
        if after[0] != context or after[1][:-1][: len(read)] != read:
            reads[context, read], held = held, []
    return reads


def row_of(model: LanguageModel, context: str, continuation: str) -> tuple[Tokens, Tokens]:
    """Tokens of a context and of a continuation, by the rule of this module; ValueError if there are none or too many."""
    row = tuple(model.context_tokens(context)), tuple(model.tokens(continuation))
    for name, text, tokens in zip(("context", "continuation"), (context, continuation), row, strict=True):
        if not tokens:
            raise ValueError(f"{name} must have at least one token, got {text!r}")
    needed = len(row[0]) + len(row[1]) - 1
    if needed > model.longest:
        raise ValueError(f"context and continuation need {needed} places; {model.name} reads {model.longest}")
    return row


def boundary_agrees(model: LanguageModel, context: str, continuation: str) -> bool:
    """Would the tokens be the same if the two texts were tokenised as one?"""
    return tuple(model.context_tokens(context + continuation)) == sum(
        row_of(model, context, continuation), ()
    )


def _scored(
    model: LanguageModel, stems: dict[Tokens, Prefix], reads: dict[tuple[Tokens, Tokens], list[Tokens]]
) -> dict[tuple[Tokens, Tokens], tuple[float, ...]]:
    """One batch of `_reads`: each row reads the last token of its context and what follows."""
    prefixes = [stems[context[:-1]] for context, _ in reads]
    logits, _ = forward(model, prefixes, [context[-1:] + read for context, read in reads], keep=0)
    rows = [(row, tokens) for row, continuations in enumerate(reads.values()) for tokens in continuations]
    contexts = [context for (context, _), continuations in reads.items() for _ in continuations]
    found = picked(logits, rows)
    return {(context, tokens): one for context, (_, tokens), one in zip(contexts, rows, found, strict=True)}


def picked(
    logits: Float[Tensor, "rows n vocabulary"], wanted: Sequence[tuple[int, Tokens]]
) -> list[tuple[float, ...]]:
    """Log-softmax (float32) at the tokens of each wanted pair (row, tokens at its places 0, 1, ...)."""
    places = [(row, place, token) for row, tokens in wanted for place, token in enumerate(tokens)]
    row, place, token = torch.tensor(places, device=logits.device).T
    logits = logits.float()
    values = iter((logits[row, place, token] - logits.logsumexp(-1)[row, place]).tolist())
    return [tuple(next(values) for _ in tokens) for _, tokens in wanted]


@torch.inference_mode()
def plain_log_probabilities(model: LanguageModel, context: str, continuations: Sequence[str]) -> Scores:
    """The same, one continuation at a time in one pass over all its tokens: no batch, no padding, nothing reused."""
    found = []
    for text in continuations:
        before, tokens = row_of(model, context, text)
        logits = model.network(input_ids=torch.tensor([before + tokens], device=model.device)).logits
        found += picked(logits[:, len(before) - 1 : -1], [(0, tokens)])
    return Scores(tuple(found))
