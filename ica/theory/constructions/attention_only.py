r"""Plackett-Luce without a feed-forward network: 2N - 3 softmax attention layers are one gradient step (ours).

Layer $2k - 1$ adds term $k$ of the step, as block $k$ of `plackett_luce` does: head A finds the best remaining response and its
reward (top), head B averages the remaining ones by the model's own preference. Layer $2k$ does what the network did, by three
heads that look at rewards only:

* scores $c_m (r_i - \mathrm{top})\, r_j$: a token still in the race, $r_i < \mathrm{top}$, sees the least reward; the one just taken,
  $r_i = \mathrm{top}$, the mean; those taken before the largest. This goes to the mask coordinate of token i;
* scores $-c\, r_j$: the least reward, which is subtracted. So the mask stays 0 on remaining responses and grows by at least
  $g (N - 1) / 2$ on the others, $g$ the smallest difference of two rewards;
* equal scores: top, which is the same at all tokens, is subtracted from itself.

A second step would need the mask cleared, which is different at every token; this construction takes one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, set_head
from ica.transformer import Attention, Transformer


@torch.no_grad()
def attention_only(W: Float[Tensor, "d p"], N: int, assumptions: Assumptions) -> Transformer:
    """Transformer of 2N - 3 attention layers of three heads, without network, that takes one Plackett-Luce step.

    Args:
        W: the linear model to start from; the model reads out the moved prediction at every token.
        N: most responses of a prompt; the least number is (N + 1) / 2, for which marks are large enough.
        assumptions: step size, reward gap, spread, radius and precision.

    Raises:
        ValueError: W not a finite matrix, N < 2.
    """
    W = start(W, assumptions)
    d, p = W.shape
    layout = Layout(x=p, y=d, s=1, r=1, mark=1, yhat=d, acc=d, top=1, one=1)
    layers = 2 * checks.whole("N", N, 2) - 3
    model = blank(layout, W, assumptions, layers=layers, heads=3, head_width=d + 1)
    for block in model.blocks[::2]:
        _term_heads(block.attention, layout, N, assumptions)
    for block in model.blocks[1::2]:
        _mark_heads(block.attention, layout, N, assumptions)
    model.readout.weight[:] = layout.read({"yhat": 1.0, "acc": 1.0}, dtype=assumptions.dtype)
    # scores c (r_i - top) r_j / gap must round by less than 1, or a token just taken does not see the mean
    finest = (2 * torch.finfo(assumptions.dtype).eps * assumptions.margin(N)) ** 0.5
    kept = {"spread": assumptions.spread, "fewest": N // 2 + 1, "resolution": finest}
    return promise(model, W, assumptions, 1, N, **kept)


def _term_heads(attention: Attention, layout: Layout, N: int, assumptions: Assumptions) -> None:
    """Heads A (best remaining response and its reward) and B (average); half of the least mark is to spare."""
    read, c, eta = layout.read, assumptions.c(N), assumptions.eta
    margin, least = assumptions.margin(N), assumptions.gap * (N - 1) / 4
    set_head(
        attention,
        0,
        query=read({"one": 1.0}),
        key=read({"r": c, "mark": -(c * assumptions.spread + margin) / least}),
        value=read({"y": 1.0}, {"r": 1.0}),
        output=read({"acc": 2 * eta}, {"top": 1.0}),
    )
    set_head(
        attention,
        1,
        query=read({"yhat": 2.0}, {"one": 1.0}),
        key=read({"y": 1.0}, {"s": -1.0, "mark": -(assumptions.radius**2 + margin) / least}),
        value=read({"y": 1.0}),
        output=read({"acc": -2 * eta}),
    )


def _mark_heads(attention: Attention, layout: Layout, N: int, assumptions: Assumptions) -> None:
    """Heads that mark what is taken: the reward seen from top, less the least reward; and top is cleared."""
    read, c = layout.read, assumptions.c(N)
    sharp = c / assumptions.gap
    reward = {"key": read({"r": 1.0}), "value": read({"r": 1.0})}
    set_head(attention, 0, query=read({"r": sharp, "top": -sharp}), output=read({"mark": 1.0}), **reward)
    set_head(attention, 1, query=read({"one": -c}), output=read({"mark": -1.0}), **reward)
    nothing, top = torch.zeros(1, layout.width, dtype=torch.float64), read({"top": 1.0})
    set_head(attention, 2, query=nothing, key=nothing, value=top, output=-top)
