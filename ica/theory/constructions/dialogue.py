r"""The causal transformer that answers in rounds (ours; page "Rounds of self-correction as one trajectory").

`online` with masks on positions, and one choice in the embedding: token i begins either from $W x$ ("first map") or
from its own response, $\hat y_i = y_i$ ("last answer"). In a dialogue the last response is the model's last answer
$W_t x$, so with the second choice the answer at the last token is $W_{t+1} x$: the dialogue itself is the memory.
"""

from collections.abc import Iterator
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.online import online, online_layout
from ica.theory.constructions.several_queries import with_start
from ica.theory.contract import BuiltFor
from ica.theory.rounds import STARTS, Critic, Dialogue, append, opening
from ica.transformer import Transformer


class FromOwnResponse(BuiltFor):
    """The contract of a model whose tokens begin from their own responses, one step."""

    def _path(
        self, x: Float[Tensor, "batch Q p"], y: Float[Tensor, "batch Q n d"], r: Float[Tensor, "batch Q n"]
    ) -> Iterator[tuple[Float[Tensor, "batch n d"], Float[Tensor, "batch n n"]]]:
        prediction = y[:, 0]
        yield prediction, torch.cdist(prediction, y[:, 0]).tril()


def dialogue_model(
    W: Float[Tensor, "d p"],
    given: int,
    rounds: int,
    assumptions: Assumptions,
    start: str = "last answer",
) -> Transformer:
    """Causal transformer of given + rounds - 1 blocks that answers `rounds` times, one step a round.

    Args:
        W: the first map; with "last answer" it enters by the first answer, in the context, only.
        given: responses before the first answer, at least 1: the loss of the first answer alone is zero.
        rounds: most answers after the first. Round t reads given + t tokens behind the start token.

    Raises:
        ValueError: given or rounds below 1, an unknown start; as `online` says.
    """
    checks.one_of("start", start, STARTS)
    N = checks.whole("given", given, 1) + checks.whole("rounds", rounds, 1)
    model = online(W, N, assumptions, marks="positions")
    if start == "first map":
        return model
    d, p = W.shape
    place = online_layout(d, p, N, assumptions, "positions").slices["yhat"]
    with torch.no_grad():
        model.embed.weight[place] = 0
        model.embed.weight[place, p : p + d] = torch.eye(d, dtype=assumptions.dtype)
    told = {field.name: getattr(model.built_for, field.name) for field in fields(BuiltFor)}
    model.built_for = FromOwnResponse(**told)
    return model


@torch.no_grad()
def model_dialogue(
    model: Transformer,
    W: Float[Tensor, "d p"],
    query: Float[Tensor, "batch p"],
    given: Float[Tensor, "batch n d"],
    critic: Critic,
    rounds: int,
) -> Dialogue:
    """The same with a constructed model that reads the tokens so far and answers at the last, round after round.

    Raises:
        ValueError: as the model's check says (rewards too close, predictions too far, too many rounds).
    """
    dtype = model.readout.weight.dtype
    query, given = query.to(dtype), given.to(dtype)
    first = query @ W.to(dtype).T
    prompts, answers = opening(query, given, first, critic), [first]
    for t in range(checks.whole("rounds", rounds, 1)):
        answers.append(model(with_start(prompts.tokens()))[:, -1])
        if t < rounds - 1:
            prompts = append(prompts, answers[-1], critic)
    return Dialogue(prompts, torch.stack(answers), given.shape[1])


@torch.no_grad()
def one_pass(model: Transformer, dialogue: Dialogue) -> Float[Tensor, "rounds batch d"]:
    """All answers after the first from one causal pass over the finished dialogue."""
    outputs = model(with_start(dialogue.prompts.tokens()))
    return outputs[:, 1 + dialogue.given :].transpose(0, 1)
