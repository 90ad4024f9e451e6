r"""The theorems as they are written: a step read as a shift of the response in every token.

Thm 3.2 and 3.3 of the paper say $e_i \mapsto e_i + (0, -\Delta W x, 0)$ for tokens $e_i = (x, y_i, r_i)$, one of which is the test
token $(x, W_0 x, r_N)$, ranked last. The constructions of `ica.theory.constructions` move a prediction with coordinates of its own
by $+\Delta W x$; this module turns them into the paper's form. Serves the pages "Bradley-Terry" and "Plackett-Luce".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ica.objectives import predict
from ica.theory.compare import reference_tokens
from ica.theory.constructions.layout import Layout
from ica.theory.descent import gradient_descent, prompt_loss
from ica.theory.prompts import Prompts
from ica.transformer import Transformer


@torch.no_grad()
def written_to_responses(model: Transformer, layout: Layout) -> Transformer:
    r"""The same weights, but what went to the prediction goes, with a minus sign, to the response; in place, one step only.

    Later steps would read the norm $\|y\|^2$ of responses that have moved; ValueError for a model of several steps.
    """
    if model.built_for is not None and model.built_for.steps != 1:
        raise ValueError(f"model must take one step, got one built for {model.built_for.steps}")
    y, yhat = layout.slices["y"], layout.slices["yhat"]
    for name, weight in model.named_parameters():
        if name.endswith(("W_O.weight", "W_2.weight")):
            weight[y] = -weight[yhat]
            weight[yhat] = 0
    return model


def with_test_token(prompts: Prompts, W: Float[Tensor, "d p"]) -> Prompts:
    """The prompts with the response of lowest reward replaced by the first prediction: N - 1 examples and the test token."""
    lowest = prompts.rewards.argmin(dim=-1)[:, None, None].expand(-1, 1, prompts.responses.shape[-1])
    guess = (prompts.query @ W.T).unsqueeze(1)
    return Prompts(prompts.query, prompts.responses.scatter(1, lowest, guess), prompts.rewards)


def token_errors(
    model: Transformer,
    layout: Layout,
    prompts: Prompts,
    W: Float[Tensor, "d p"],
    eta: float,
    loss: Callable[[Tensor, Prompts], Tensor] = prompt_loss,
    unchecked: bool = False,
) -> Float[Tensor, " batch"]:
    r"""How far the tokens of each prompt are from $e_i + (0, -\Delta W x, 0)$ after the model, all coordinates counted.

    The reference is one gradient step on `loss` by autograd; the unit is the root mean square over the prompts of
    $\|\Delta W x\|$. The worst token of each prompt counts. Raises ValueError as `reference_tokens` says.
    """
    tokens = reference_tokens(model, prompts, W, eta, 1, unchecked)
    path = gradient_descent(W.expand(len(prompts.query), *W.shape), prompts, eta, 1, loss)
    shift = predict(path[1] - path[0], prompts.query)
    with torch.no_grad():
        streams = model.trace(tokens, unchecked).streams
    change = (streams[-1] - streams[0]).to(shift.dtype)
    change[..., layout.slices["y"]] += shift.unsqueeze(1)
    return change.norm(dim=-1).amax(dim=-1) / shift.norm(dim=-1).square().mean().sqrt()
