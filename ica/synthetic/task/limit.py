r"""Where the exact minimiser tends to with many responses that have noise of their own (notebook "floor")."""

import torch
from jaxtyping import Bool, Float
from scipy import special
from torch import Tensor

from ica import checks

HALVINGS = 35


def limit_factor(
    target2: Float[Tensor, " batch"], query2: Float[Tensor, " batch"], d: int, cells: int = 400
) -> Float[Tensor, " batch"]:
    r"""The c for which the minimiser tends to $c\, y^*$ as $n \to \infty$, responses with noise of their own.

    It minimises (proof: notebook "floor"), with $q_z = 1 + 2 (1 - z)^2 \lVert x \rVert^2$ and
    $s = \lVert y^* \rVert^2$,

    $$\int_0^1 \Big[ \log \frac1r \int_0^r q_z^{-d/2} e^{-(c - z)^2 s / q_z} dz + (c - r)^2 s \Big] dr .$$

    By bisection of the slope, integrals by the midpoint rule.

    Args:
        target2, query2: $\lVert y^* \rVert^2$ and $\lVert x \rVert^2$.

    Raises:
        ValueError: norms that are not finite and positive, d < 1, fewer than two cells.
    """
    checks.whole("d", d, 1)
    z = ((torch.arange(checks.whole("cells", cells, 2)).double() + 0.5) / cells).unsqueeze(0)
    if not ((target2 > 0) & (query2 > 0) & target2.isfinite() & query2.isfinite()).all():
        raise ValueError("target2 and query2 must be finite numbers above 0")
    s, q = target2.double().unsqueeze(-1), 1 + 2 * (1 - z).square() * query2.double().unsqueeze(-1)

    def below(logs: Float[Tensor, "batch cells"]) -> Float[Tensor, "batch cells"]:
        # midpoint rule: half of a cell's own weight lies below its middle
        sums = logs.logcumsumexp(-1)
        return torch.logaddexp(sums, torch.nn.functional.pad(sums[:, :-1], (1, 0), value=-torch.inf))

    def rises(c: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        logs = -d / 2 * q.log() - (c.unsqueeze(-1) - z).square() * s / q
        total, pushed = below(logs), logs - q.log()
        mean = c.unsqueeze(-1) * (below(pushed) - total).exp() - (below(pushed + z.log()) - total).exp()
        return (c.unsqueeze(-1) - z - mean).mean(-1) > 0

    lo, hi = torch.zeros_like(target2.double()), torch.ones_like(target2.double())
    while not (done := rises(hi)).all():
        hi = torch.where(done, hi, 2 * hi)
    for _ in range(HALVINGS):
        middle = (lo + hi) / 2
        over = rises(middle)
        lo, hi = torch.where(over, lo, middle), torch.where(over, middle, hi)
    return (lo + hi) / 2


def expected_limit_error(d: int, nodes: int = 20, cells: int = 200) -> float:
    r"""Normalised MSE of the limit $c\, y^*$ over the sampler, $\mathbb E\, (c - 1)^2 s / \mathbb E\, s$.

    By Gauss-Laguerre quadrature, as $\lVert x \rVert^2$ and $s / \lVert x \rVert^2$ are independent, of law
    $\chi^2_d$. With the defaults good to 1e-4 from d = 5 on.

    Raises:
        ValueError: d < 1, fewer than two nodes or cells.
    """
    checks.whole("d", d, 1)
    u, w = (
        torch.from_numpy(found)
        for found in special.roots_genlaguerre(checks.whole("nodes", nodes, 2), d / 2 - 1)
    )
    query2, weights = (2 * u).repeat_interleave(nodes), torch.outer(w, w).flatten()
    target2 = query2 * (2 * u).repeat(nodes)
    off = (limit_factor(target2, query2, d, cells) - 1).square()
    return float((weights * off * target2).sum() / (weights * target2).sum())
