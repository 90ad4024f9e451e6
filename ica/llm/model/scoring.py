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
from ica.llm.model.load import LanguageModel, ModelError
from ica.llm.model.trees import ROOM, WIDTH, Prefix, Tokens, Tree, common, picked, portions

PROBE = (
    ("One two three four five six", " seven", " eight nine"),
    ("One two three four", " five", " seven eight"),
    ("One two", " three"),
)
WIDEST = 4096  # tokens: prompts are not longer
AGREE = {torch.float32: 1e-3}  # nats
AGREE_HALF = 0.1


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


def score(
    model: LanguageModel,
    requests: Sequence[Request],
    known: Sequence[Prefix] = (),
    width: int = WIDTH,
    room: int = ROOM,
) -> list[Scores]:
    """Scores of many requests; contexts and continuations that begin alike share that computation.

    Args:
        model: the language model.
        requests: contexts with their continuations; the same one twice is computed once.
        known: prefixes computed before, used as far as contexts agree with them.
        width: tokens that one pass reads at most.
        room: different tokens that are held at once (or one sequence), beside the known ones in use.

    Raises:
        ValueError: an empty context or continuation, or more tokens than the model reads.
    """
    checks.whole("width", width, 1)
    checks.whole("room", room, 1)
    rows = [[row_of(model, request.context, text) for text in request.continuations] for request in requests]
    reads: dict[Tokens, list[tuple[Tokens, Tokens]]] = {}
    for context, continuation in sorted({row for request in rows for row in request}):
        reads.setdefault(context + continuation[:-1], []).append((context, continuation))
    found: dict[tuple[Tokens, Tokens], tuple[float, ...]] = {}
    for portion in portions(list(reads), room):
        chosen = [row for sequence in portion for row in reads[sequence]]
        tree, wanted = Tree(model, [_before(prefix, chosen) for prefix in known], width), []
        for context, continuation in chosen:
            path = tree.grow(context + continuation[:-1])
            wanted += zip(path[len(context) - 1 :], continuation, strict=True)
        values = iter(tree.read(wanted))
        found |= {row: tuple(next(values) for _ in row[1]) for row in chosen}
    return [Scores(tuple(found[row] for row in request)) for request in rows]


def _before(prefix: Prefix, rows: Sequence[tuple[Tokens, Tokens]]) -> Prefix:
    """As much of a known prefix as these rows share, ending before the last token of every context: there logits are needed."""
    inside = (len(context) - 1 for context, _ in rows if prefix.tokens[: len(context)] == context)
    shared = max((common(prefix.tokens, context) for context, _ in rows), default=0)
    return prefix.cut(min(shared, *inside, len(prefix.tokens)))


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


@torch.inference_mode()
def plain_log_probabilities(model: LanguageModel, context: str, continuations: Sequence[str]) -> Scores:
    """The same, one continuation at a time in one pass over all its tokens: no tree, no mask, nothing reused."""
    found = []
    for text in continuations:
        before, tokens = row_of(model, context, text)
        logits = model.network(input_ids=torch.tensor([before + tokens], device=model.device)).logits
        found.append(tuple(picked(logits[0, len(before) - 1 : -1], list(enumerate(tokens)))))
    return Scores(tuple(found))


def _beyond_window(model: LanguageModel) -> tuple[tuple[str, ...], ...]:
    """A context longer than the sliding window that the configuration names, if it names one that prompts go beyond.

    A network may ignore that field; then the window must not be in our masks.
    """
    window = getattr(model.network.config.get_text_config(), "sliding_window", None)
    if type(window) is not int or not 0 < window < min(model.longest - 32, WIDEST):
        return ()
    piece = "One two three. "
    return ((piece * (window // max(1, len(model.tokens(piece))) + 2), " four", " five"),)


def probe(model: LanguageModel) -> None:
    """See that the model can be read as a tree: contexts that part, against plain passes.

    The contexts are short, so this does not see what sets in after many tokens; `models.unfit` refuses what is known of that.

    Raises:
        ModelError: the numbers differ, or the network fails, as they do if the attention takes no mask of its own.
    """
    asked = [Request(context, tuple(texts)) for context, *texts in PROBE + _beyond_window(model)]
    begun = f"model {model.name} of type {model.network.config.model_type} cannot be read here"
    try:
        plain = [plain_log_probabilities(model, one.context, one.continuations) for one in asked]
        numbers = [
            torch.tensor([value for scores in some for row in scores.tokens for value in row])
            for some in (score(model, asked), plain)
        ]
    except Exception as error:
        raise ModelError(
            f"{begun}: it fails where prompts share their beginnings ({type(error).__name__}: {error})"
        ) from error
    worst = (numbers[0] - numbers[1]).abs().max().item()
    if not worst <= AGREE.get(model.network.dtype, AGREE_HALF):
        raise ModelError(
            f"{begun}: with prompts that share their beginnings its log-probabilities differ by {worst:.2g} from those of plain "
            "passes; accepted are models whose attention takes a mask of its own"
        )
