r"""The plane of a prompt as released: the target $y^*$, the distractor $e$, the responses between them, the exact minimiser.

Angles are in radians from $y^*$, positive towards $e$, as in `ica.synthetic.task.floor`.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ica.record import figures
from ica.synthetic.task import floor
from ica.synthetic.task.data import sample_batch

RIGHT = torch.tensor([math.pi / 2], dtype=torch.float64)  # y* and e at right angles
EQUAL = torch.ones(1, dtype=torch.float64)  # and of equal norm


def draw_angles(
    d: int, count: int, n: int, generator: torch.Generator
) -> tuple[Float[Tensor, "count n"], Float[Tensor, " count"]]:
    """Angles of the responses of random prompts, and the minimiser's angle in the limit of many responses.

    d = 0 stands for the limit of high dimension: y* and e at right angles and of equal norm.
    """
    if d == 0:
        quality = torch.rand(count, n, generator=generator, dtype=torch.float64)
        limit = floor.population_angle(RIGHT, EQUAL, cells=10_000)
        return floor.path_angles(RIGHT.expand(count), EQUAL.expand(count), quality), limit.expand(count)
    drawn = sample_batch(count, n, d, generator, dtype=torch.float64)
    basis = floor.plane(drawn)
    of_bad = floor.plane_angles(drawn.bad.unsqueeze(1), basis)[:, 0]
    ratio = drawn.bad.norm(dim=-1) / drawn.good.norm(dim=-1)
    angles = floor.plane_angles(drawn.responses, basis).clamp(0, math.pi)
    return angles, floor.population_angle(of_bad, ratio, 400)


def population_loss(
    turn: Float[Tensor, " points"], cells: int = 1000
) -> tuple[Float[Tensor, " points"], Float[Tensor, "2"]]:
    """Loss a term (nats) of infinitely many responses at predictions of those angles, y* and e orthogonal and equal.

    Also minus its gradient at a prediction of cosine 0 to everything, along and across y*. Midpoint rule.
    """
    quality = (torch.arange(cells, dtype=torch.float64) + 0.5).unsqueeze(0) / cells
    path = floor.path_angles(RIGHT, EQUAL, quality)[0]
    scores = (turn[:, None] - path).cos()
    worse = scores.exp().cumsum(-1) - scores.exp() / 2
    weights = 1 + quality[0].log()
    neutral = torch.stack([(path.cos() * weights).mean(), (path.sin() * weights).mean()])
    return (worse / (quality * cells)).log().mean(-1) - scores.mean(-1), neutral


def prompt_plane(ax: Axes, responses: int = 9) -> pd.DataFrame:
    """Draw one prompt in its plane, y* and e orthogonal and of equal norm, responses evenly spaced: data of what is drawn."""
    quality = (torch.arange(responses, dtype=torch.float64) + 0.5).unsqueeze(0) / responses
    omega = floor.minimiser_angle(floor.path_angles(RIGHT, EQUAL, quality)).item()
    mean, r = omega + math.pi / 2, quality[0].numpy()
    ax.plot([1, 0], [0, 1], color=figures.MUTED, linestyle=":", marker="", linewidth=1.2)
    ax.plot(r, 1 - r, color=figures.FOREGROUND, linestyle="", marker="o", markersize=5)
    tips = {"target y*": 0.0, "distractor e": math.pi / 2, "exact minimiser": omega}
    for name, angle in tips.items():
        arrow = {"arrowstyle": "-|>", "color": figures.style_of(name)["color"], "linewidth": 2.4}
        ax.annotate("", (math.cos(angle), math.sin(angle)), (0, 0), arrowprops=arrow)
    ax.plot([0, math.cos(mean)], [0, math.sin(mean)], "--", marker="", color=figures.MUTED)
    corner = np.array([[math.cos(a), math.sin(a)] for a in (omega, mean)])
    square = 0.13 * np.stack([corner[0], corner.sum(0), corner[1]])
    ax.plot(*square.T, linestyle="-", marker="", color=figures.MUTED, linewidth=1.2)
    turn, off = np.linspace(omega, 0, 30), {"color": figures.style_of("exact minimiser")["color"]}
    ax.plot(0.45 * np.cos(turn), 0.45 * np.sin(turn), linestyle="-", marker="", linewidth=1.2, **off)
    ax.text(0.49, -0.18, f"{-math.degrees(omega):.0f}° off", ha="left", va="center", **off)
    ax.text(1.05, 0.0, "target y*", ha="left", va="center", color=figures.style_of("target y*")["color"])
    ax.text(
        -0.06, 1.05, "distractor e", ha="left", va="bottom", color=figures.style_of("distractor e")["color"]
    )
    ax.text(math.cos(omega), math.sin(omega) - 0.05, "exact minimiser", ha="center", va="top", **off)
    ax.text(0.78, 0.3, "responses", ha="left", va="center")
    ax.text(0.69, 0.76, "weighted mean", ha="left", va="center", color=figures.MUTED)
    ax.set(xlim=(-0.08, 1.55), ylim=(-0.88, 1.32), aspect="equal")
    ax.axis("off")
    drawn = [("response", 1.0 * q, 1.0 - q) for q in r.tolist()]
    drawn += [(name, math.cos(a), math.sin(a)) for name, a in (tips | {"weighted mean angle": mean}).items()]
    return pd.DataFrame(drawn, columns=["label", "along", "across"])


def hero(curves: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The book's first figure and its data: error against n of those that share one height and of best-of-n; and why.

    Args:
        curves: columns label (names of `ica.record.styles`), n, error, lo, hi; NaN bounds: no band.
    """
    names = {
        "authors'": "authors' transformer",
        "gradient descent": "GD",
        "exact minimiser": "exact minimiser",
    }
    with rc_context(
        dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), 14.0)
    ):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.7), width_ratios=[1.05, 1])
        for label in ("exact minimiser", "gradient descent", "authors'", "best-of-n"):
            group, style = curves[curves["label"] == label], figures.style_of(label)
            size = 9 if label == "authors'" else 5
            left.plot(group["n"], group["error"], label=names.get(label, label), markersize=size, **style)
            if group["lo"].notna().all():
                figures.band(left, group["n"], group["lo"], group["hi"], colour=style["color"])
        left.set(xlabel="triplets seen, n", ylabel="1 − cos(prediction, y*)", ylim=(0, 0.8))
        left.set_xticks([2, 5, 10, 15])
        left.tick_params(labelsize=14)
        left.legend(loc="upper right", frameon=False, borderpad=0, handlelength=1.8)
        left.set_title("where the curves stop", loc="left")
        plane = prompt_plane(right)
        right.set_title("why: one prompt", loc="left")
    return fig, pd.concat([curves.assign(panel="left"), plane.assign(panel="right")], ignore_index=True)
