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
    wanted = {row for request in rows for row in request}
    found: dict[tuple[Tokens, Tokens], tuple[float, ...]] = {}
    for portion in portions([context[:-1] for context, _ in wanted], ROOM * slots):
        stems = computed(model, portion, known, slots, least)
        part = sorted(row for row in wanted if row[0][:-1] in stems)
        shapes = [(len(context) - 1, len(continuation)) for context, continuation in part]
        for batch in batches(shapes, slots, new=LOGITS):
            chosen = [part[i] for i in batch]
            found |= dict(zip(chosen, _scored(model, stems, chosen), strict=True))
    return [Scores(tuple(found[row] for row in request)) for request in rows]


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
    model: LanguageModel, stems: dict[Tokens, Prefix], rows: Sequence[tuple[Tokens, Tokens]]
) -> list[tuple[float, ...]]:
    """One batch: each row reads the last token of its context and its continuation but the last token."""
    prefixes = [stems[context[:-1]] for context, _ in rows]
    new = [context[-1:] + continuation[:-1] for context, continuation in rows]
    logits, _ = forward(model, prefixes, new, keep=0)
    targets = torch.zeros(logits.shape[:2], dtype=torch.long)
    for target, (_, continuation) in zip(targets, rows, strict=True):
        target[: len(continuation)] = torch.tensor(continuation)
    found = picked(logits, targets.to(logits.device)).tolist()
    return [tuple(row[: len(continuation)]) for row, (_, continuation) in zip(found, rows, strict=True)]


def picked(
    logits: Float[Tensor, "rows n vocabulary"], targets: Int[Tensor, "rows n"]
) -> Float[Tensor, "rows n"]:
    """Log-softmax of the logits at the targets, in float32."""
    logits = logits.float()
    return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)


@torch.inference_mode()
def plain_log_probabilities(model: LanguageModel, context: str, continuations: Sequence[str]) -> Scores:
    """The same, one continuation at a time in one pass over all its tokens: no batch, no padding, nothing reused."""
    found = []
    for text in continuations:
        context_tokens, continuation = row_of(model, context, text)
        ids = torch.tensor([context_tokens + continuation], device=model.device)
        logits = model.network(input_ids=ids).logits[:, len(context_tokens) - 1 : -1]
        found.append(tuple(picked(logits, ids[:, len(context_tokens) :])[0].tolist()))
    return Scores(tuple(found))
