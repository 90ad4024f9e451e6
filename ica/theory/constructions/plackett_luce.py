r"""Plackett-Luce: N-1 blocks of three softmax heads and a ReLU network are one gradient step.

Block $i$ adds the $i$-th term of the step and takes the best remaining response out of the race:

* head A, scores $c\,r_j - M_A m_j$: looks at the best response not yet eliminated, adds $+2\eta\,y_{\tau(i)}$ to acc;
* head B, scores $2\hat y\cdot y_j - \|y_j\|^2 - M_B m_j$: exactly $\beta^i$, adds $-2\eta \sum_{j\ge i}\beta^i_j y_{\tau(j)}$ to acc;
* head C, head A's scores: writes the best remaining reward to top;
* network: marks ($m_j \mathrel{+}= 1$) every response with $r_j \ge$ top $-$ gap/4, none with $r_j \le$ top $-$ gap/2, by the difference of two
  ReLUs; clears top.

The last network of a step adds acc to $\hat y$ and clears acc and the marks. Heads A and C share their scores and can be one:
`heads=2`. That N-1 blocks of attention and network suffice is the paper's claim; the weights and the proof are ours.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.objectives import ranking
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, Unit, carry, set_head, set_units
from ica.theory.prompts import Prompts
from ica.transformer import Attention, Transformer


def pl_layout(d: int, p: int) -> Layout:
    """Places of the residual stream: x, y, s = ||y||^2, r, mark, yhat, acc, top, one."""
    return Layout(x=p, y=d, s=1, r=1, mark=1, yhat=d, acc=d, top=1, one=1)


def plackett_luce(
    W: Float[Tensor, "d p"], N: int, assumptions: Assumptions, steps: int = 1, heads: int = 3
) -> Transformer:
    """Transformer of steps * (N - 1) blocks that does `steps` gradient steps on the Plackett-Luce loss.

    Args:
        W: the linear model to start from; the model reads out the moved prediction at every token.
        N: most responses of a prompt; with fewer, blocks left over look twice at the worst and add nothing.
        assumptions: step size, reward gap, spread, radius and precision.
        steps: gradient steps.
        heads: 3 (selection of response and of reward apart) or 2 (one head does both).

    Raises:
        ValueError: W not a finite matrix, N < 2, steps < 1, heads not 2 or 3.
    """
    W = start(W, assumptions)
    d, p = W.shape
    layout = pl_layout(d, p)
    terms = checks.whole("N", N, 2) - 1
    checks.one_of("heads", heads, (2, 3))
    layers = checks.whole("steps", steps, 1) * terms
    model = blank(layout, W, assumptions, layers=layers, heads=heads, head_width=d + 1, hidden=2 * d + 5)
    for i, block in enumerate(model.blocks):
        _write_heads(block.attention, layout, N, assumptions)
        units = finish(layout) if i % terms == terms - 1 else eliminate(layout, assumptions.gap)
        set_units(block.feed_forward, units + carry(layout, "top"))
    return promise(model, W, assumptions, steps, N, spread=assumptions.spread)


def _write_heads(attention: Attention, layout: Layout, N: int, assumptions: Assumptions) -> None:
    """Heads A, B, C; with two heads, C is folded into A."""
    read, c, eta = layout.read, assumptions.c(N), assumptions.eta
    M_A, M_B = mask_strengths(N, assumptions)
    best = {"query": read({"one": 1.0}), "key": read({"r": c, "mark": -M_A})}
    if attention.config.heads == 3:
        set_head(attention, 0, **best, value=read({"y": 1.0}), output=read({"acc": 2 * eta}))
        set_head(attention, 2, **best, value=read({"r": 1.0}), output=read({"top": 1.0}))
    else:
        value, output = read({"y": 1.0}, {"r": 1.0}), read({"acc": 2 * eta}, {"top": 1.0})
        set_head(attention, 0, **best, value=value, output=output)
    set_head(
        attention,
        1,
        query=read({"yhat": 2.0}, {"one": 1.0}),
        key=read({"y": 1.0}, {"s": -1.0, "mark": -M_B}),
        value=read({"y": 1.0}),
        output=read({"acc": -2 * eta}),
    )


def mask_strengths(N: int, assumptions: Assumptions) -> tuple[float, float]:
    r"""$M_A$ and $M_B$: an eliminated response trails by at least $c g$ and a logarithm of N and S/g more."""
    c, spread, gap = assumptions.c(N), assumptions.spread, assumptions.gap
    lead = max(assumptions.margin(N), c * gap) + 2 * math.log(N)
    return c * spread + lead + math.log(spread / gap), assumptions.radius**2 + lead


def step_bound(prompts: Prompts, assumptions: Assumptions, worst: bool = False) -> Float[Tensor, " batch"]:
    r"""Largest error of one step in exact arithmetic (notebook "plackett_luce", thm-pl; ours), in units of y.

    $$2 \eta \Big( \sum_{i<j} e^{-c (r_{\tau(i)} - r_{\tau(j)})} \| y_{\tau(i)} - y_{\tau(j)} \| + D e^{-c g} \Big)
    \le 5 \eta (N - 1) D e^{-c g}$$

    Args:
        worst: the second form, that of the worst rewards a gap apart.

    Raises:
        ValueError: $c g < \log 6$, where the theorem says nothing.
    """
    N = prompts.rewards.shape[1]
    product = assumptions.c(N) * assumptions.gap
    if product < math.log(6):
        raise ValueError(f"c g must be at least log 6 = {math.log(6):.3f}, got {product:.3f}")
    far = torch.cdist(prompts.responses, prompts.responses, compute_mode="donot_use_mm_for_euclid_dist")
    widest, left = far.amax((1, 2)), math.exp(-product)
    if worst:
        return 5 * assumptions.eta * (N - 1) * widest * left
    tau = ranking(prompts.rewards)
    rewards = prompts.rewards.gather(1, tau)
    apart = far.gather(1, tau.unsqueeze(2).expand_as(far)).gather(2, tau.unsqueeze(1).expand_as(far))
    given = (assumptions.c(N) * (rewards.unsqueeze(1) - rewards.unsqueeze(2))).exp().triu(1)
    return 2 * assumptions.eta * ((given * apart).sum((1, 2)) + widest * left)


def eliminate(layout: Layout, gap: float) -> list[Unit]:
    """Units that add 1 to the mark of each response with a reward of at least top - gap/4, and 0 below top - gap/2."""
    slope = 4.0 / gap
    at_most_one = layout.read({"r": slope, "top": -slope})
    return [
        (at_most_one, slope * gap / 2, layout.read({"mark": 1.0})),
        (at_most_one, slope * gap / 2 - 1.0, layout.read({"mark": -1.0})),
    ]


def finish(layout: Layout) -> list[Unit]:
    """Units that end a step: acc goes to yhat, marks are cleared (they are never negative)."""
    return carry(layout, "acc", "yhat") + [(layout.read({"mark": 1.0}), 0.0, layout.read({"mark": -1.0}))]
