r"""Bradley-Terry: one softmax attention layer with two heads is one gradient step. No feed-forward network.

Head 1 looks at the better response (scores $c\,r_j$, $c$ large) and adds $+2\eta\, y_{\tau(1)}$ to the prediction. Head 2 looks at
both with the model's own preference (scores $2 \hat y \cdot y_j - \|y_j\|^2$, whose softmax is that of the rewards
$-\|\hat y - y_j\|^2$) and adds $-2\eta \sum_j \beta_j y_j$. The sum is the gradient step. Construction ours; the claim that a two-head
softmax layer suffices is the paper's.
"""

from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.basics import Assumptions, blank, promise, start
from ica.theory.constructions.layout import Layout, set_head
from ica.transformer import Transformer


def bt_layout(d: int, p: int) -> Layout:
    """Places of the residual stream: x, y, s = ||y||^2, r, yhat, one."""
    return Layout(x=p, y=d, s=1, r=1, yhat=d, one=1)


def bradley_terry(
    W: Float[Tensor, "d p"], assumptions: Assumptions, steps: int = 1, N: int = 2
) -> Transformer:
    """Transformer of `steps` two-head layers that does as many gradient steps on the Bradley-Terry loss.

    With N > 2 the loss is the first term of Plackett-Luce (InfoNCE), on 2 to N responses (App. E.2).

    Args:
        W: the linear model to start from; the model reads out the moved prediction at both tokens.
        assumptions: step size, reward gap and precision.
        steps: gradient steps, one layer each.
        N: most responses of a prompt.

    Raises:
        ValueError: W not a finite matrix, steps < 1, N < 2.
    """
    W = start(W, assumptions)
    d, p = W.shape
    layout = bt_layout(d, p)
    layers, c = checks.whole("steps", steps, 1), assumptions.c(checks.whole("N", N, 2))
    model = blank(layout, W, assumptions, layers=layers, heads=2, head_width=d + 1)
    read, eta = layout.read, assumptions.eta
    for block in model.blocks:
        set_head(
            block.attention,
            0,
            query=read({"one": 1.0}),
            key=read({"r": c}),
            value=read({"y": 1.0}),
            output=read({"yhat": 2 * eta}),
        )
        set_head(
            block.attention,
            1,
            query=read({"yhat": 2.0}, {"one": 1.0}),
            key=read({"y": 1.0}, {"s": -1.0}),
            value=read({"y": 1.0}),
            output=read({"yhat": -2 * eta}),
        )
    return promise(model, W, assumptions, steps, N, first_term=True)
