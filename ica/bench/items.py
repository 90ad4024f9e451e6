"""BBQ items a minute: our protocol through trees of shared beginnings, against every option scored by itself.

The other way is that of lm-evaluation-harness's log-likelihood requests, written down here as a plain loop over transformers: each
option with its whole context is a sequence of its own, sequences of like length are padded to one batch, and the log-probabilities
of the whole vocabulary are taken at every token. Both score the same contexts and options.
"""

from collections.abc import Iterator, Sequence

import torch

from ica.bench.timing import Case, Way
from ica.llm.bbq.items import Item
from ica.llm.model.engine import Engine
from ica.llm.model.load import LanguageModel, load
from ica.llm.model.scoring import Request, Scores, row_of
from ica.llm.protocol import blocks, prompts
from ica.llm.protocol.shards import load_items, ranked

MODEL, CATEGORY, EACH = "smollm2", "Age", 2
BATCH = 8  # sequences of a pass of the loop


class Listening(Engine):
    """An engine that keeps what it was asked and answered."""

    heard: tuple[tuple[Request, Scores], ...] = ()

    def score(self, requests: Sequence[Request], anchors: Sequence[str] = ()) -> list[Scores]:
        found = super().score(requests, anchors)
        self.heard += tuple(zip(requests, found, strict=True))
        return found


def cases(
    model: LanguageModel | None = None, items: Sequence[Item] = (), block: str = "rounds", sample: int = 1
) -> Iterator[Case]:
    """The harness's question, then our protocol: first answers, verdicts and answers after them, and one more block.

    Args:
        model, items: SmolLM2 135M and four items of Age if none are given.
        block: of `blocks.BLOCKS`.
        sample: readings of the protocol that the loop does; all would take it many minutes.
    """
    model = model or load(MODEL)
    items = items or [item for _, item in ranked(load_items("bbq")[0], CATEGORY, EACH)]
    asked = [plain(item) for item in items]
    yield _case(
        model,
        f"{len(items)} items, the question alone",
        items,
        asked,
        asked,
        lambda engine: engine.score(asked),
    )

    def protocol(engine: Engine) -> None:
        cores = blocks.measure(engine, items, "core")
        blocks.measure(engine, items, block, cores)

    first = Listening(model)
    protocol(first)
    requests = [request for request, _ in first.heard]
    by_length = sorted(requests, key=lambda one: len(one.context))
    chosen = [by_length[(2 * k + 1) * len(requests) // (2 * sample)] for k in range(sample)]
    name = f"{len(items)} items, core and {block}: {len(requests)} readings"
    yield _case(model, name, items, requests, chosen, protocol, dict(first.heard))  # fmt: skip


def engine(model: LanguageModel) -> Engine:
    """A new engine of a model that has been probed already."""
    made = Engine(model)
    made.computed = 1
    return made


def plain(item: Item) -> Request:
    """An item as one question without demonstrations, its options to be scored."""
    text = prompts.ask(item.context, item.question, item.options)
    return Request(f"{text}\nAnswer:", tuple(f" {option}" for option in item.options))


def _case(model, name: str, items, requests, chosen, ours, known: dict | None = None) -> Case:
    """Ours does all requests, the loop the chosen ones, which count for as many items as they are of all."""
    shared, alone = tokens(model, requests, shared=True), tokens(model, chosen, shared=False)

    def difference() -> float:
        found = known or dict(zip(requests, Engine(model).score(requests), strict=True))
        sums = zip(alone_scores(model, chosen), chosen, strict=True)
        return max(float((found[one].sums - torch.tensor(own)).abs().max()) for own, one in sums)

    ways = (
        Way("ours", lambda: ours(engine(model)), len(items), work(model, shared), 3.0),
        Way(
            "each option by itself",
            lambda: alone_scores(model, chosen),
            len(items) * len(chosen) / len(requests),
            work(model, alone),
        ),
    )
    return Case(name, "item", ways, difference, 1e-3, repeats=2, warm=True)


@torch.inference_mode()
def alone_scores(model: LanguageModel, requests: Sequence[Request], batch: int = BATCH) -> list[list[float]]:
    """Log-probability (nats) of each continuation of each request, by one padded sequence each."""
    rows = [
        (k, row_of(model, one.context, text)) for k, one in enumerate(requests) for text in one.continuations
    ]
    order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i][1])))
    found = [0.0] * len(rows)
    for begin in range(0, len(order), batch):
        some = order[begin : begin + batch]
        sequences = [torch.tensor(rows[i][1][0] + rows[i][1][1]) for i in some]
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(model.device)
        logs = model.network(input_ids=padded[:, :-1]).logits.log_softmax(-1)
        for own, i, sequence in zip(logs, some, sequences, strict=True):
            before = len(rows[i][1][0])
            places = torch.arange(before - 1, len(sequence) - 1)
            found[i] = own[places, sequence[before:]].sum().item()
    return [[found[i] for i, (k, _) in enumerate(rows) if k == one] for one in range(len(requests))]


def tokens(model: LanguageModel, requests: Sequence[Request], shared: bool) -> tuple[int, int]:
    """Tokens that are read, and those among them at which the vocabulary is needed: common beginnings counted once, or every one."""
    rows = [row_of(model, one.context, text) for one in set(requests) for text in one.continuations]
    sequences = sorted(tuple(before + after[:-1]) for before, after in rows)
    if not shared:
        total = sum(map(len, sequences))
        return total, total
    read, last = 0, ()
    for sequence in sequences:
        common = next(
            (k for k, (a, b) in enumerate(zip(last, sequence)) if a != b), min(len(last), len(sequence))
        )
        read, last = read + len(sequence) - common, sequence
    return read, sum(len(after) for _, after in rows)


def work(model: LanguageModel, counted: tuple[int, int]) -> float:
    """Operations of the matrix products with weights: two a weight and token, those of the vocabulary where it is needed."""
    read, needed = counted
    table = model.network.get_output_embeddings().weight.numel()
    inner = (
        sum(p.numel() for p in model.network.get_decoder().parameters())
        - model.network.get_input_embeddings().weight.numel()
    )
    return 2.0 * (inner * read + table * needed)
