r"""One softmax head for Bradley-Terry: exact at the token of the better response, impossible at both tokens.

At the better token the step is $2\eta\,(y_i - \sum_j \beta_j y_j)$: its own response comes through the
residual stream, and one head with the model's own preference brings the average. At the worse token the own
response has the wrong sign, and one head cannot know at which of the two it is. Two layers of one head can:
see `one_head_twice`. Proofs are ours; they stand in the notebook "How many heads?".
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, set_head
from ica.transformer import Attention, Transformer


def _frame(W: Float[Tensor, "d p"], assumptions: Assumptions, layers: int) -> tuple[Transformer, Layout]:
    W = start(W, assumptions)
    d, p = W.shape
    layout = Layout(x=p, y=d, s=1, r=1, yhat=d, acc=d, one=1)
    return blank(layout, W, assumptions, layers=layers, heads=1, head_width=d + 1), layout


def _preference(attention: Attention, layout: Layout, eta: float) -> None:
    r"""The head with the model's own preference: adds $-2\eta \sum_j \beta_j y_j$ to acc."""
    set_head(
        attention,
        0,
        query=layout.read({"yhat": 2.0}, {"one": 1.0}),
        key=layout.read({"y": 1.0}, {"s": -1.0}),
        value=layout.read({"y": 1.0}),
        output=layout.read({"acc": -2 * eta}),
    )


@torch.no_grad()
def one_head(W: Float[Tensor, "d p"], assumptions: Assumptions) -> Transformer:
    """One layer of one head that does the Bradley-Terry step at the better response's token, and only there.

    Raises:
        ValueError: W not a finite matrix.
    """
    model, layout = _frame(W, assumptions, 1)
    _preference(model.blocks[0].attention, layout, assumptions.eta)
    model.readout.weight[:] = layout.read({"yhat": 1.0, "y": 2 * assumptions.eta, "acc": 1.0})
    return promise(model, start(W, assumptions), assumptions, 1, 2, gap=0.0)  # it reads no reward


@torch.no_grad()
def one_head_twice(W: Float[Tensor, "d p"], assumptions: Assumptions) -> Transformer:
    """Two layers of one head that do the Bradley-Terry step at both tokens: one head after the other.

    They write to a place that neither of them reads, so their order does not matter.

    Raises:
        ValueError: W not a finite matrix.
    """
    model, layout = _frame(W, assumptions, 2)
    set_head(
        model.blocks[0].attention,
        0,
        query=layout.read({"one": 1.0}),
        key=layout.read({"r": assumptions.c(2)}),
        value=layout.read({"y": 1.0}),
        output=layout.read({"acc": 2 * assumptions.eta}),
    )
    _preference(model.blocks[1].attention, layout, assumptions.eta)
    model.readout.weight[:] = layout.read({"yhat": 1.0, "acc": 1.0})
    return promise(model, start(W, assumptions), assumptions, 1, 2)


@torch.no_grad()
def reward_path(model: Transformer) -> Float[Tensor, " d"]:
    r"""$\omega$: what a unit of reward adds to the output through value, output map and readout."""
    attention = model.blocks[0].attention
    reward = model.embed.weight[:, -1]
    return model.readout.weight @ attention.W_O.weight @ attention.W_V.weight @ reward
