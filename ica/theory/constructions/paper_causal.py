r"""The paper's causal construction (App. F.2.1): one-hot positions, and a memory of what was taken at the
token that asks.

Block k adds the k-th term of the loss of each prefix: head 1 scores key j with
$\gamma_1 (r_j - \gamma_2\, m_i \cdot p_j)$, adds $-2 \eta\, y^+$ to the response and the position code $p^+$
to the memory $m_i$. The paper shows this head; head 2, with the scores
$-\|W x - y_j\|^2 - \gamma_1 \gamma_2\, m_i \cdot p_j$, is ours after the same pattern. There is no
elimination by an FFN, so no $\epsilon$. Serves the page "The paper's own construction".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ica import checks
from ica.theory.constructions.layout import Layout, set_head, zero_
from ica.theory.prompts import Prompts
from ica.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class CausalScales:
    """Numbers of the causal construction; ValueError for one that is not finite and positive, an unknown
    mask or dtype.

    Args:
        eta: step size.
        gamma_1: factor of the reward in the logits.
        gamma_2: what a response that was taken loses, in units of the reward.
        mask: "causal", or "full" (every token then does what the last one does).
        dtype: floating type of the weights.
    """

    eta: float
    gamma_1: float
    gamma_2: float
    mask: str = "causal"
    dtype: torch.dtype = torch.float64

    def __post_init__(self):
        for name in ("eta", "gamma_1", "gamma_2"):
            checks.positive(name, getattr(self, name))
        checks.one_of("mask", self.mask, ("causal", "full"))
        checks.dtype("dtype", self.dtype)


def causal_layout(d: int, p: int, N: int) -> Layout:
    """Places of the stream: x, y, r, the second y, the score -norm(Wx - y)^2, position, memory, constant."""
    return Layout(x=p, y=d, r=1, copy=d, feature=1, position=N, memory=N, one=1)


def causal_tokens(
    prompts: Prompts, W: Float[Tensor, "d p"], scales: CausalScales, sink: bool = False
) -> Float[Tensor, "batch n inputs"]:
    r"""Tokens $(x, y_i, r_i, -\|W x - y_i\|^2, p_i)$; the score and the position are assumed to be given.

    Args:
        sink: one more token before all others (ours): response 0, no position, and scores between those of
            remaining and of taken responses. A prefix whose responses are all taken attends to it, and adds
            0.
    """
    batch, N, d = prompts.responses.shape
    query = prompts.query.unsqueeze(1).expand(-1, N, -1)
    score = -(query @ W.to(query.dtype).T - prompts.responses).square().sum(dim=-1, keepdim=True)
    position = torch.eye(N, dtype=query.dtype).expand(batch, N, N)
    tokens = torch.cat([query, prompts.responses, prompts.rewards.unsqueeze(-1), score, position], dim=-1)
    if not sink:
        return tokens
    first = torch.zeros_like(tokens[:, :1])
    first[..., query.shape[-1] + d] = -scales.gamma_2 / 2
    first[..., query.shape[-1] + d + 1] = -scales.gamma_1 * scales.gamma_2 / 2
    return torch.cat([first, tokens], dim=1)


@torch.no_grad()
def causal_construction(d: int, p: int, N: int, scales: CausalScales) -> Transformer:
    r"""N - 1 blocks of two heads behind one that writes the constant; token i reads out
    $y_i - \Delta W_{online(i)} x$ in the limit.

    The scores hold W, so no weight does. Raises ValueError for N < 2.
    """
    layout = causal_layout(d, p, checks.whole("N", N, 2))
    read = layout.read
    names = ("x", "y", "r", "feature", "position")
    config = TransformerConfig(
        inputs=sum(layout.size(name) for name in names),
        outputs=d,
        width=layout.width,
        layers=N,
        heads=2,
        head_width=max(N + 1, d + N),
        hidden=1,
        mask=scales.mask,
    )
    model = zero_(Transformer(config).to(scales.dtype))
    first = 0
    for name in names:
        size = layout.size(name)
        for target in (name, "copy") if name == "y" else (name,):
            model.embed.weight[layout.slices[target], first : first + size] = torch.eye(
                size, dtype=scales.dtype
            )
        first += size
    model.readout.weight[:] = read({"y": 1.0}, dtype=scales.dtype)
    model.blocks[0].feed_forward.W_2.bias[layout.slices["one"]] = 1.0
    taken = read({"memory": -scales.gamma_1 * scales.gamma_2})
    position, copy = read({"position": 1.0}), read({"copy": 1.0})
    for block in model.blocks[1:]:
        set_head(
            block.attention,
            0,
            query=torch.cat([read({"one": scales.gamma_1}), taken]),
            key=torch.cat([read({"r": 1.0}), position]),
            value=torch.cat([copy, position]),
            output=read({"y": -2 * scales.eta}, {"memory": 1.0}),
        )
        set_head(
            block.attention,
            1,
            query=torch.cat([read({"one": 1.0}), taken]),
            key=torch.cat([read({"feature": 1.0}), position]),
            value=copy,
            output=read({"y": 2 * scales.eta}),
        )
    return model
