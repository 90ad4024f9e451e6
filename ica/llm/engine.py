"""A language model with its kept answers: what the protocols talk to.

A call (all its requests together) is computed whole or taken whole from the cache, and depends on nothing but the model, the
settings and the requests. So a run that was killed and resumed has the same numbers, to the last bit on the same machine, as
one that was not. Calls that share a long beginning with later ones name it as an anchor: it is computed once, by itself.
"""

from collections.abc import Sequence

import torch
import transformers

from ica.llm.cache import CallCache, call_key
from ica.llm.generation import Generated, greedy
from ica.llm.models import LanguageModel
from ica.llm.prefixes import LEAST, SLOTS, Prefix, Tokens, computed
from ica.llm.scoring import ROOM, Request, Scores, score

RULES = 2  # to be raised when the same call would give other numbers for a reason that no setting shows


class Engine:
    """Scores and generated answers of one model, through a cache.

    Args:
        model: the language model.
        cache: kept answers; without it every call is computed.
        slots, least: as for `scoring.score`.

    Attributes:
        asked, computed: calls so far, and those among them that were not in the cache.
    """

    def __init__(
        self, model: LanguageModel, cache: CallCache | None = None, slots: int = SLOTS, least: int = LEAST
    ):
        self.model, self.cache, self.slots, self.least = model, cache, slots, least
        self.asked = self.computed = 0
        self._anchors: dict[tuple[Tokens, ...], Prefix] = {}

    def score(self, requests: Sequence[Request], anchors: Sequence[str] = ()) -> list[Scores]:
        """As `scoring.score`; `anchors` are texts with which contexts of this and later calls begin."""
        prompts = [[request.context, list(request.continuations)] for request in requests]

        def compute() -> list:
            found = score(self.model, requests, self._known(anchors), self.slots, self.least)
            return [[list(row) for row in scores.tokens] for scores in found]

        kept = self._kept("scores", prompts, anchors, {}, compute)
        return [Scores(tuple(tuple(row) for row in rows)) for rows in kept]

    def generate(
        self, prompts: Sequence[str], new_tokens: int, anchors: Sequence[str] = ()
    ) -> list[Generated]:
        """As `generation.greedy`; the texts are untrusted, see `Generated`."""

        def compute() -> list:
            known = self._known(anchors)
            found = greedy(self.model, prompts, new_tokens, known, self.slots, self.least)
            return [list(one.tokens) for one in found]

        kept = self._kept("greedy", list(prompts), anchors, {"new_tokens": new_tokens}, compute)
        return [
            Generated(tuple(row), self.model.text(row), bool(row) and row[-1] in self.model.ends)
            for row in kept
        ]

    def settings(self) -> dict:
        """What determines an answer beside model and prompts."""
        return {
            "rules": RULES,
            "dtype": str(self.model.network.dtype),
            "device": self.model.device.type,
            "slots": self.slots,
            "least": self.least,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _kept(self, kind: str, prompts: list, anchors: Sequence[str], more: dict, compute) -> list:
        self.asked += 1
        settings = {**self.settings(), **more, "anchors": list(anchors)}
        key = call_key(self.model.hash, kind, settings, prompts)
        answer = self.cache.get(key) if self.cache is not None else None
        if answer is None:
            self.computed += 1
            answer = compute()
            if self.cache is not None:
                self.cache.put(key, answer)
        return answer

    def _known(self, anchors: Sequence[str]) -> list[Prefix]:
        """Keys and values of the anchors, each computed by itself or after an anchor of this call with which it begins.

        The latest used are kept for later calls, each with the anchors that it was computed after.
        """
        texts = sorted(set(anchors), key=lambda text: (len(text), text))
        tokens_of = {text: tuple(self.model.context_tokens(text)) for text in texts}
        chains = [[one for one in texts if text.startswith(one)] for text in texts]
        known: dict[str, Prefix] = {}
        for *above, text in chains:
            key = tuple(tokens_of[one] for one in [*above, text])
            found = self._anchors.pop(key, None)
            if found is None:
                before = [known[one] for one in above]
                found = computed(self.model, [key[-1]], before, self.slots, self.least)[key[-1]]
            known[text] = self._anchors[key] = found
        while len(self._anchors) > len(chains) and self._held() > ROOM * self.slots:
            del self._anchors[next(iter(self._anchors))]
        return list(known.values())

    def _held(self) -> int:
        """Tokens of the anchors that are kept."""
        return sum(len(key[-1]) for key in self._anchors)
