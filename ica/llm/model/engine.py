"""A language model with its kept answers: what the protocols talk to.

A call (all its requests together) is computed whole or taken whole from the cache, and depends on nothing but the model, the
settings and the requests. So a run that was killed and resumed has the same numbers, to the last bit on the same machine, as
one that was not. Calls that share a long beginning with later ones name it as an anchor, which is kept for them.
"""

import time
from collections.abc import Callable, Sequence

import torch
import transformers

from ica.llm.model.cache import CallCache, call_key
from ica.llm.model.generation import SLOTS, Generated, greedy
from ica.llm.model.load import LanguageModel
from ica.llm.model.scoring import Request, Scores, probe, score
from ica.llm.model.trees import ROOM, WIDTH, Prefix, Tokens, computed

RULES = 3  # to be raised when the same call would give other numbers for a reason that no setting shows


class Engine:
    """Scores and generated answers of one model, through a cache.

    Args:
        model: the language model.
        cache: kept answers; without it every call is computed.
        width, room, slots: as for `scoring.score` and `generation.greedy`.

    Attributes:
        asked, computed: calls so far, and those among them that were not in the cache.
        seconds: what all of them took when they were computed, kept ones then and there.
    """

    def __init__(
        self,
        model: LanguageModel,
        cache: CallCache | None = None,
        width: int = WIDTH,
        room: int = ROOM,
        slots: int = SLOTS,
    ):
        self.model, self.cache, self.width, self.room, self.slots = model, cache, width, room, slots
        self.asked, self.computed, self.seconds = 0, 0, 0.0
        self._anchors: dict[tuple[tuple[Tokens, ...], ...], list[Prefix]] = {}

    def score(self, requests: Sequence[Request], anchors: Sequence[str] = ()) -> list[Scores]:
        """As `scoring.score`; `anchors` are texts with which contexts of this and later calls begin."""
        prompts = [[request.context, list(request.continuations)] for request in requests]

        def compute() -> list:
            found = score(self.model, requests, self._known(anchors), self.width, self.room)
            return [[list(row) for row in scores.tokens] for scores in found]

        def fits(rows: object) -> bool:
            return _as_many(rows, requests) and all(
                _as_many(row, request.continuations) and all(_filled(one, (int, float)) for one in row)
                for row, request in zip(rows, requests, strict=True)
            )

        kept = self._kept("scores", prompts, anchors, {}, compute, fits)
        return [Scores(tuple(tuple(row) for row in rows)) for rows in kept]

    def generate(
        self, prompts: Sequence[str], new_tokens: int, anchors: Sequence[str] = ()
    ) -> list[Generated]:
        """As `generation.greedy`; the texts are untrusted, see `Generated`."""

        def compute() -> list:
            known = self._known(anchors)
            found = greedy(self.model, prompts, new_tokens, known, self.width, self.room, self.slots)
            return [list(one.tokens) for one in found]

        def fits(rows: object) -> bool:
            return _as_many(rows, prompts) and all(
                _filled(row, (int,)) and len(row) <= new_tokens and min(row) >= 0 for row in rows
            )

        kept = self._kept("greedy", list(prompts), anchors, {"new_tokens": new_tokens}, compute, fits)
        return [
            Generated(tuple(row), self.model.text(row), bool(row) and row[-1] in self.model.ends)
            for row in kept
        ]

    def calls(self) -> dict[str, int | float]:
        """Calls asked and computed so far, and their seconds."""
        return {"asked": self.asked, "computed": self.computed, "seconds": self.seconds}

    def settings(self) -> dict:
        """What determines an answer beside model and prompts."""
        return {
            "rules": RULES,
            "dtype": str(self.model.network.dtype),
            "device": self.model.device.type,
            "width": self.width,
            "room": self.room,
            "slots": self.slots,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _kept(
        self,
        kind: str,
        prompts: list,
        anchors: Sequence[str],
        more: dict,
        compute: Callable[[], list],
        fits: Callable[[object], bool],
    ) -> list:
        self.asked += 1
        settings = {**self.settings(), **more, "anchors": list(anchors)}
        key = call_key(self.model.hash, kind, settings, prompts)

        def whole(kept: object) -> bool:
            return (
                isinstance(kept, list)
                and len(kept) == 2
                and _filled(kept[1:], (int, float))
                and fits(kept[0])
            )

        found = self.cache.get(key, whole) if self.cache is not None else None
        if found is None:
            if not self.computed:
                probe(self.model)
            self.computed += 1
            begun = time.perf_counter()
            answer = compute()
            found = [answer, round(time.perf_counter() - begun, 3)]
            if self.cache is not None:
                self.cache.put(key, found)
        self.seconds += found[1]
        return found[0]

    def _known(self, anchors: Sequence[str]) -> list[Prefix]:
        """Keys and values of the anchors: those with which others begin by themselves, then the others, all in one go.

        The latest used are kept for later calls with the same anchors.
        """
        texts = sorted(set(anchors))
        trunks = [text for text in texts if any(text != one and one.startswith(text) for one in texts)]
        roots = [prefix for text in trunks for prefix in self._anchored([text], [])]
        others = [text for text in texts if text not in trunks]
        known = roots + (self._anchored(others, roots) if others else [])
        while len(self._anchors) > len(trunks) + 1 and self._held() > self.room:
            del self._anchors[next(iter(self._anchors))]
        return known

    def _anchored(self, texts: Sequence[str], roots: Sequence[Prefix]) -> list[Prefix]:
        tokens = [tuple(self.model.context_tokens(text)) for text in texts]
        key = (tuple(prefix.tokens for prefix in roots), tuple(tokens))
        found = self._anchors.pop(key, None) or list(
            computed(self.model, tokens, roots, self.width, self.room).values()
        )
        self._anchors[key] = found
        return found

    def _held(self) -> int:
        """Tokens of the anchors that are kept."""
        return sum(len(prefix.tokens) for found in self._anchors.values() for prefix in found)


def _as_many(rows: object, asked: Sequence) -> bool:
    return isinstance(rows, list) and len(rows) == len(asked)


def _filled(row: object, types: tuple[type, ...]) -> bool:
    return isinstance(row, list) and bool(row) and all(type(value) in types for value in row)
