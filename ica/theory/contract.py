r"""What a constructed transformer was built for, and the one check of tokens against it.

A construction is exact under assumptions: unit queries, at most N responses, rewards in a range and a gap
apart, predictions within a radius of the responses at the start of every step, numbers that its type
resolves. Each maker attaches them to its model as `Transformer.built_for`, and the model checks every pass
against them (`Transformer.stream`): nothing runs unchecked unless `unchecked=True` asks for it. Within them
the prediction is right to `bound`. Ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ica import checks
from ica.objectives import pl_direction, squared_distance_reward

LAYOUTS = ("one", "prefixes", "groups")


def bound(dtype: torch.dtype, radius: float = 10.0) -> float:
    r"""Largest error of a prediction within the assumptions, if the sharpness is not set by hand.

    1e-12 in float64 and 1e-4 in float32 up to a radius of 10; beyond it scores round in proportion to its
    square. Unit: the RMS displacement of the prompts, or $2 \eta D$, D the largest distance of two responses,
    if that is longer. Several queries that mix: ten times as much. Tests measure it; bfloat16 promises nothing.
    """
    return {torch.float64: 1e-12, torch.float32: 1e-4}.get(dtype, torch.inf) * max(1.0, (radius / 10) ** 2)


@dataclass(frozen=True)
class BuiltFor:
    r"""The assumptions of one constructed model. Values are those of `Assumptions` unless said otherwise.

    Args:
        W: linear map that the model starts from.
        steps: gradient steps that it takes.
        N: most responses of a prompt (of a group) that it is right for; `fewest`: least number.
        spread: largest difference of two rewards; None: any.
        low: least reward, so that rewards lie in [low, low + spread]; None: any.
        resolution: least gap per unit of the largest reward that the weights resolve.
        layout: "one" prompt of one query, "prefixes" of it (online), or "groups" of Q queries.
        mixing: queries of norm at most 1, which mix by their Gram matrix; without it queries are orthonormal.
        start_token: the tokens stand behind a token of zeros.
        first_term: the model takes the first term of the loss only (with N = 2 that is all).
        centred: predictions must also stay within the radius of the origin.
    """

    W: Float[Tensor, "d p"]
    eta: float
    steps: int
    gap: float
    radius: float
    dtype: torch.dtype
    N: int
    fewest: int = 2
    spread: float | None = None
    low: float | None = None
    resolution: float = 1e-14
    layout: str = "one"
    Q: int = 1
    mixing: bool = False
    start_token: bool = False
    first_term: bool = False
    centred: bool = False

    def __post_init__(self):
        checks.one_of("layout", self.layout, LAYOUTS)

    def check(self, tokens: Float[Tensor, "batch n inputs"]) -> None:
        """Compare tokens with every assumption, radius over all steps included.

        Raises:
            ValueError: an assumption that a prompt breaks: its name and value, the prompt, what to do.
        """
        if not checks.readable(tokens):
            raise ValueError("tokens inside torch.func.vmap cannot be checked; ask for unchecked=True")
        if tokens.dtype != self.dtype:
            raise ValueError(
                f"tokens.dtype must be {self.dtype}, as the model was built, got {tokens.dtype}; cast the"
                " prompts by `prompts.to`, or build the model for this type"
            )
        x, y, s, r = self._read(tokens.detach())
        self._check_queries(x)
        self._check_norms(y, s)
        self._check_rewards(r)
        self._check_path(x[:, :, 0], y, r)

    def follows(self, W: Float[Tensor, "d p"], eta: float, steps: int) -> None:
        """Refuse a reference (start, step size, number of steps) other than the model's own; ValueError."""
        if W.shape != self.W.shape or not torch.equal(W.to(self.dtype).double(), self.W):
            raise ValueError("W must be the linear map that the model was built from, got another one")
        if abs(eta - self.eta) > 1e-12 * self.eta:
            raise ValueError(f"eta must be {self.eta}, as the model was built, got {eta}")
        if steps != self.steps:
            raise ValueError(f"steps must be {self.steps}, as the model was built, got {steps}")

    @property
    def eps(self) -> float:
        """Machine epsilon of the model's type."""
        return torch.finfo(self.dtype).eps

    def _read(self, tokens: Float[Tensor, "batch n inputs"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, response, its squared norm and reward of each token, in float64, by group."""
        d, p = self.W.shape
        tokens = tokens.double()
        if self.start_token:
            bad = (tokens[:, 0] != 0).any(dim=-1)
            _refuse(bad, bad.double(), "the first token", "all zeros (a start token)", "use `with_start`")
            tokens = tokens[:, 1:]
        n = tokens.shape[1] / self.Q
        if not (n.is_integer() and self.fewest <= n <= self.N):
            allowed = f"{self.fewest} to {self.N}" if self.fewest < self.N else str(self.N)
            raise ValueError(
                f"N must be {allowed} responses for each of {self.Q} queries, as the model was built,"
                f" got {n:g} in every prompt; build a model for this N, or ask for unchecked=True"
            )
        return tokens.unflatten(1, (self.Q, -1)).split([p, d, 1, 1], dim=-1)

    def _check_queries(self, x: Float[Tensor, "batch Q n p"]) -> None:
        """One query for all tokens of a group; of norm at most 1 if queries mix, else orthonormal."""
        spread = (x - x[:, :, :1]).abs().amax(dim=(1, 2, 3))
        _refuse(spread > 0, spread, "difference of the queries of a group", "0", "give each its own prompt")
        gram = x[:, :, 0] @ x[:, :, 0].mT
        norms, close = gram.diagonal(dim1=-2, dim2=-1), 64 * self.eps
        off = norms.amax(dim=-1) - 1 if self.mixing else (norms - 1).abs().amax(dim=-1)
        worst = norms if self.mixing else (norms - 1).abs()
        worst = norms.gather(-1, worst.argmax(dim=-1, keepdim=True)).squeeze(-1).sqrt()
        wanted = "at most 1" if self.mixing else "1"
        remedy = "scale x, and put norm(x)^2 into eta"
        _refuse(off > close, worst, "norm of x", wanted, remedy)
        if not self.mixing:
            overlap = (gram - torch.diag_embed(norms)).abs().amax(dim=(1, 2))
            remedy = "build the model with mixing heads (pairs > 0)"
            _refuse(overlap > close, overlap, "inner product of two queries", "0", remedy)

    def _check_norms(self, y: Float[Tensor, "batch Q n d"], s: Float[Tensor, "batch Q n 1"]) -> None:
        """The feature that is given as the squared norm of the response is that."""
        squares = y.square().sum(dim=-1, keepdim=True)
        off = (s - squares).abs() / squares.clamp_min(torch.finfo(torch.float64).tiny)
        off = off.amax(dim=(1, 2, 3))
        wanted = "||y||^2 (relative difference 0)"
        _refuse(off > (y.shape[-1] + 8) * self.eps, off, "the squared norm", wanted, "use `Prompts.tokens`")

    def _check_rewards(self, r: Float[Tensor, "batch Q n 1"]) -> None:
        """Range, gap, and a gap that the number format resolves at rewards of this size."""
        least, most = r.amin(dim=(1, 2, 3)), r.amax(dim=(1, 2, 3))
        size = torch.maximum(least.abs(), most.abs())
        slack, shift = 4 * self.eps * size, "shift or scale the rewards, or build the model for their range"
        if self.low is not None and self.spread is not None:
            high, span = self.low + self.spread, 1e-6 * self.spread
            wanted = f"in [{self.low:g}, {high:g}]"
            _refuse(least < self.low - span - slack, least, "rewards", wanted, shift)
            _refuse(most > high + span + slack, most, "rewards", wanted, shift)
        elif self.spread is not None:
            span = (r.amax(dim=(2, 3)) - r.amin(dim=(2, 3))).amax(dim=-1)
            wanted = f"at most spread = {self.spread:g}"
            _refuse(span > self.spread * (1 + 1e-6) + slack, span, "largest reward difference", wanted, shift)
        if self.gap > 0:
            near = r.squeeze(-1).sort(dim=-1).values.diff(dim=-1).amin(dim=(1, 2))
            wanted = f"at least gap = {self.gap:g}"
            remedy = "build the model for a smaller gap, or leave such prompts out"
            _refuse(near < self.gap * (1 - 1e-6) - slack, near, "reward gap", wanted, remedy)
            most, remedy = self.gap / self.resolution, "shift the rewards to 0, or build for a finer type"
            wanted = f"at most {most:.3g}, so that {self.dtype} resolves gap = {self.gap:g}"
            _refuse(size > most, size, "largest |r|", wanted, remedy)

    def _check_path(
        self, x: Float[Tensor, "batch Q p"], y: Float[Tensor, "batch Q n d"], r: Float[Tensor, "batch Q n 1"]
    ) -> None:
        """Radius at the start of every step, by gradient descent in float64 from W."""
        limit, wanted = self.radius, f"at most radius = {self.radius:g}"
        remedy = f"take a smaller eta = {self.eta:g}, fewer steps, smaller responses, or a larger radius"
        for t, (prediction, distance) in enumerate(self._path(x, y, r.squeeze(-1)), start=1):
            when = f"at the start of step {t}"
            most, norm = distance.amax(dim=(1, 2)), prediction.norm(dim=-1).amax(dim=1)
            name = f"distance of the prediction from a response {when}"
            _refuse(_beyond(most, limit), most, name, wanted, remedy)
            size = norm + y.norm(dim=-1).amax(dim=(1, 2))
            name = f"norm of the prediction plus that of a response {when}"
            _refuse(_beyond(size, 2 * limit), size, name, f"at most 2 radius = {2 * limit:g}", remedy)
            if self.centred:
                _refuse(_beyond(norm, limit), norm, f"norm of the prediction {when}", wanted, remedy)

    def _path(
        self, x: Float[Tensor, "batch Q p"], y: Float[Tensor, "batch Q n d"], r: Float[Tensor, "batch Q n"]
    ) -> Iterator[tuple[Float[Tensor, "batch rows d"], Float[Tensor, "batch rows n"]]]:
        """Predictions at the start of each step, one a group or prefix, and distances from what they see."""
        n, prefixes = y.shape[2], self.layout == "prefixes"
        prediction = x @ self.W.T.to(x.device)
        prediction = prediction.expand(-1, n, -1) if prefixes else prediction
        gram = x @ x.mT
        for t in range(self.steps):
            distance = (prediction.unsqueeze(2) - y).norm(dim=-1)
            yield prediction, distance.tril() if prefixes else distance
            if t == self.steps - 1:
                return
            if prefixes:
                moves = [torch.zeros_like(prediction[:, 0])]
                for i in range(2, n + 1):
                    moves.append(pl_direction(prediction[:, i - 1], y[:, 0, :i], r[:, 0, :i]))
                prediction = prediction + 2 * self.eta * torch.stack(moves, dim=1)
            elif self.first_term:
                prediction = prediction + 2 * self.eta * _first_term(prediction, y, r)
            else:
                prediction = prediction + 2 * self.eta * gram @ pl_direction(prediction, y, r)


def _first_term(
    prediction: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch n d"], r: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch d"]:
    """Half of minus the gradient of the first Plackett-Luce term in the prediction."""
    weights = -squared_distance_reward(prediction, y).softmax(dim=-1)
    best = r.argmax(dim=-1, keepdim=True)
    weights = weights.scatter_add(-1, best, torch.ones_like(best, dtype=weights.dtype))
    return (weights.unsqueeze(-1) * y).sum(dim=-2)


def _beyond(value: Float[Tensor, " batch"], limit: float) -> Bool[Tensor, " batch"]:
    return ~(value <= limit * (1 + 1e-9))


def _refuse(
    broken: Bool[Tensor, " batch"], values: Float[Tensor, " batch"], name: str, wanted: str, remedy: str
) -> None:
    """ValueError that names the first prompt in which `broken` holds, if there is one."""
    if broken.any():
        k, share = int(broken.nonzero()[0]), f"{int(broken.sum())} of {len(broken)} prompts"
        raise ValueError(
            f"{name} must be {wanted}, as the model was built; prompt {k} has {values[k].item():.6g}"
            f" ({share} fail). {remedy[0].upper()}{remedy[1:]}, or ask for unchecked=True"
        )
