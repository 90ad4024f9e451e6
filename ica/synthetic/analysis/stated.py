"""The six panels as the paper states them: what their pages share.

Two sizes stand side by side. *Full*: precomputed runs of the paper's size, a few seeds on the same evaluation prompts. *Small*:
precomputed sweeps of a small model, 40 seeds, each judged on prompts of its own, so that a mean over seeds has Student's interval and
two configurations are compared pair by pair. The measure is the normalised MSE as a ratio of means (`metrics.normalised_mse`).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ica.intervals import mean_interval, paired_ratio
from ica.record import figures, styles
from ica.synthetic.analysis import panels
from ica.synthetic.task import baselines
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic
from ica.synthetic.task.metrics import linearised, normalised_mse
from ica.synthetic.training import sweep
from ica.synthetic.training.evaluation import evaluation_prompts
from ica.synthetic.training.results import Result, ResultError, stored
from ica.synthetic.training.sweep import Sweep

MODEL, GD = "transformer", "gradient descent"
FEW, MANY = 2, 14  # examples seen; the paper names 14 for "many" (sec. 4)
SIZES = {"full": "the paper's size", "small": "small, 40 seeds"}
COLUMNS = {
    "label": "the curve, as in the legend",
    "size": "full: the paper's size; small: 4 blocks, many seeds",
    "level": "probability p that a reward is random at test time",
    "n": "triplets seen",
    "nmse": "normalised MSE: mean squared error over mean squared norm of the targets",
    "lo": "lower end of the 95 % interval, over seeds and prompts",
    "hi": "upper end of the 95 % interval, over seeds and prompts",
    "seeds": "number of seeds",
    "run": "id of the run, the hash of its configuration and seeds",
}


def full(names: Mapping[str, str]) -> dict[str, Result]:
    """Those of the precomputed runs of the paper's size that are there, label -> run, for label -> name."""
    found = {label: stored(name, scales=("full",)) for label, name in names.items()}
    return {label: run for label, run in found.items() if run is not None}


def small(names: Mapping[str, str], scale: str = "stated") -> dict[str, Sweep]:
    """Those of the precomputed sweeps that are there, label -> sweep, for label -> name."""
    return {
        label: sweep.stored(scale, name) for label, name in names.items() if sweep.path(scale, name).is_file()
    }


def small_rules(scale: str = "stated") -> dict[str, Sweep]:
    """What needs no training on the prompts of the sweeps, by name; {} where that is not there."""
    return sweep.stored_baselines(scale) if sweep.path(scale, sweep.BASELINES).is_file() else {}


def shared(runs: Mapping[str, Sweep]) -> dict[str, Sweep]:
    """The same sweeps of the seeds alone that all of them have, so that they can be compared seed by seed."""
    seeds = min((run.seeds for run in runs.values()), key=len, default=())
    count = len(seeds)
    if any(run.seeds[:count] != seeds for run in runs.values()):
        raise ValueError(f"seeds of {', '.join(runs)} must begin alike")

    def cut(values: dict[float, Tensor]) -> dict[float, Tensor]:
        return {level: rows[:count] for level, rows in values.items()}

    return {
        label: replace(
            run,
            seeds=seeds,
            nmse=cut(run.nmse),
            error=cut(run.error),
            loss=run.loss if run.loss is None else run.loss[:count],
        )
        for label, run in runs.items()
    }


def values(run: Result, level: float = 0.0) -> Float[Tensor, "seeds prompts prefixes"]:
    """Normalised MSE of a run after each n of `seen`, its critic random with probability `level` at test time.

    The values' spread is that of the ratio of means (`metrics.linearised`).

    Raises:
        ResultError: the run was not measured at that level.
    """
    if level and level not in run.noisy:
        raise ResultError(f"run {run.name} holds no errors at p = {level:g}")
    nmse = run.noisy[level][1] if level else run.nmse
    return linearised(nmse, evaluation_prompts(run.config).good)


@functools.cache
def rules(
    config: RunConfig, level: float = 0.0, seed: int = 0
) -> dict[str, Float[Tensor, "1 prompts prefixes"]]:
    """Normalised MSE, as `values`, of what needs no training, after n = 2 to N - 1, on the evaluation prompts of a run.

    GD as stated (Adam, learning rate 0.1, 50 steps on the run's reward), best-of-n, and the Bayes-optimal prediction.
    """
    batch, seen = evaluation_prompts(config, Critic("replace", level)), rule_lengths(config)
    found = {
        "gradient descent": baselines.descend(
            batch, seen, torch.Generator().manual_seed(seed), reward=config.reward
        ),
        "best-of-n": baselines.best_response(batch, seen),
        "Bayes": baselines.bayes(batch, seen),
    }
    good = batch.good.unsqueeze(1)
    return {
        name: linearised(normalised_mse(one, good), batch.good).unsqueeze(0) for name, one in found.items()
    }


def rule_lengths(config: RunConfig) -> Int[Tensor, " prefixes"]:
    """The numbers of triplets of `rules`."""
    return torch.arange(FEW, config.N)


def _rows(
    found: tuple[Tensor, Tensor, Tensor], seen: Int[Tensor, " prefixes"], **more: object
) -> pd.DataFrame:
    mean, lo, hi = (one.numpy() for one in found)
    frame = pd.DataFrame({"n": seen.tolist(), "nmse": mean, "lo": lo, "hi": hi}).assign(**more)
    return frame[frame["n"] >= FEW]


def full_curves(runs: Mapping[str, Result], level: float = 0.0) -> pd.DataFrame:
    """Normalised MSE of each full run against n, with its band over seeds and prompts."""
    rows = [
        _rows(
            mean_interval(values(run, level)),
            run.seen,
            label=label,
            seeds=len(run.seeds),
            run=panels.identity(run),
        )
        for label, run in runs.items()
    ]
    return _together(rows, size="full", level=level)


def rule_curves(config: RunConfig, names: Sequence[str], level: float = 0.0) -> pd.DataFrame:
    """The same of what needs no training, with bands over prompts."""
    found, seen = rules(config, level), rule_lengths(config)
    rows = [_rows(mean_interval(found[name]), seen, label=name) for name in names]
    return _together(rows, size="full", level=level)


def small_curves(sweeps: Mapping[str, Sweep], level: float = 0.0) -> pd.DataFrame:
    """Normalised MSE of each sweep against n, with Student's band over its seeds."""
    rows = [
        _rows(
            mean_interval(one.nmse[level].unsqueeze(0)),
            one.seen,
            label=label,
            seeds=len(one.seeds),
            run=one.config.hash(one.seeds),
        )
        for label, one in sweeps.items()
    ]
    return _together(rows, size="small", level=level)


def _together(rows: Sequence[pd.DataFrame], **more: object) -> pd.DataFrame:
    frame = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["label", "n", "nmse"])
    return frame.assign(**more)


def frames(full_runs: Mapping[str, Result], small_runs: Mapping[str, Sweep]) -> dict[str, pd.DataFrame]:
    """The curves of both sizes, as `figure` takes them."""
    return {"full": full_curves(full_runs), "small": small_curves(small_runs)}


def meanings(data: pd.DataFrame) -> dict[str, str]:
    """What the columns of a figure's data mean."""
    return {name: meaning for name, meaning in COLUMNS.items() if name in data}


def about(full_runs: Mapping[str, Result], small_runs: Mapping[str, Sweep]) -> dict[str, str]:
    """What was trained at both sizes, in words for captions."""
    sizes = {
        "full": ("none of this panel is there", full_runs),
        "small": ("none of this panel is there", small_runs),
    }
    found = {}
    for size, (nothing, runs) in sizes.items():
        if not runs:
            found[size] = nothing
            continue
        config = next(iter(runs.values())).config
        counts = {label: len(run.seeds) for label, run in runs.items()}
        same = f"{min(counts.values())} seed{'s' * (min(counts.values()) > 1)}"
        each = ", ".join(f"{label} {count}" for label, count in counts.items())
        found[size] = (
            f"{config.steps:,} training steps on batches of {config.batch} at learning rate {config.rate:g}, "
            + ("bfloat16 matrix products, " if config.products == "bfloat16" else "")
            + (f"{same} each" if len(set(counts.values())) == 1 else f"seeds: {each}")
        )
    return found


def draw(ax: Axes, frame: pd.DataFrame) -> None:
    """A line with its band for each label of a frame."""
    for label, group in frame.groupby("label", sort=False):
        kind = styles.style_of(label)
        ax.plot(group["n"], group["nmse"], label=label, **kind)
        figures.band(ax, group["n"], group["lo"], group["hi"], colour=kind["color"])


def figure(
    frames: Mapping[str, pd.DataFrame], *, log: bool = False, top: float | None = None
) -> tuple[Figure, pd.DataFrame]:
    """The figure of a panel as stated, and its data: a column for each size that there is, a word where there is none."""
    there = {size: frame for size, frame in frames.items() if len(frame)}
    if not there:
        return nothing()
    fig, axes = plt.subplots(
        1, len(there), figsize=(5.8 if len(there) > 1 else 4.2, 3.6), sharey=True, squeeze=False
    )
    for ax, (size, frame) in zip(axes[0], there.items(), strict=True):
        draw(ax, frame)
        ax.set(xlabel="triplets seen, n", title=SIZES[size], xticks=(2, 5, 10, 14, 19))
    axes[0, 0].set(ylabel="normalised MSE")
    if log:
        axes[0, 0].set(yscale="log")
        axes[0, 0].set_yticks((0.01, 0.1, 1), ("0.01", "0.1", "1"))
    else:
        axes[0, 0].set(ylim=(0, top))
    names: dict = {}
    for ax in axes[0]:
        names |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(
        names.values(),
        names.keys(),
        loc="outside upper center",
        ncols=3 if len(there) > 1 else 2,
        handlelength=3,
    )
    return fig, pd.concat(there.values(), ignore_index=True)


def nothing() -> tuple[Figure, pd.DataFrame]:
    """The figure, and its data, of a page whose precomputed runs are not there."""
    fig, ax = plt.subplots(figsize=(4.2, 1.4))
    ax.text(0.5, 0.5, "no precomputed runs are stored", ha="center", va="center")
    ax.axis("off")
    return fig, pd.DataFrame({"label": ["none"], "n": [0], "nmse": [math.nan]})


def counted(seeds: int) -> dict[str, int]:
    """Sample size of a sweep: its seeds, and their prompts together."""
    return {"seeds": seeds, "prompts": seeds * sweep.PROMPTS}


def replicated(values: Float[Tensor, " seeds"]) -> dict:
    """Mean over seeds with Student's interval, as a claim takes it."""
    mean, lo, hi = (one.item() for one in mean_interval(values.unsqueeze(0)))
    return {"value": mean, "interval": (lo, hi), "n": counted(len(values))}


def small_ratio(first: Float[Tensor, " seeds"], second: Float[Tensor, " seeds"]) -> dict:
    """Errors of the first over those of the second, paired by seed: geometric mean with Student's interval on the logarithms."""
    mean, lo, hi = paired_ratio(first.tolist(), second.tolist())
    return {"value": mean, "interval": (lo, hi), "n": counted(len(first))}


def full_ratio(
    first: Float[Tensor, "seeds prompts"], second: Float[Tensor, "#seeds prompts"], seeds: int | None = None
) -> dict:
    """Mean of the first over that of the second, on the same prompts, as a claim takes it.

    `seeds` to count, none for rules that are not trained. The interval is that of the logarithm, over seeds and prompts
    (delta method): of $v / V - w / W$ with V and W the means.
    """
    V, W = first.mean().item(), second.mean().item()
    found = panels.difference(first / V, second / W, seeds)
    lo, hi = (V / W * math.exp(end) for end in found["interval"])
    return {"value": V / W, "interval": (lo, hi), "n": found["n"]}


def at(run: Result, n: int, level: float = 0.0) -> Float[Tensor, "seeds prompts"]:
    """`values` after n triplets; ValueError where there is no prediction."""
    return values(run, level)[..., run.column(n)]


def rule_at(run: Result, rule: str, n: int, level: float = 0.0) -> Float[Tensor, "1 prompts"]:
    """Those of a rule of `rules` on the prompts of a run."""
    return rules(run.config, level)[rule][..., rule_lengths(run.config).tolist().index(n)]


def compared(first: Result, second: Result, n: int = MANY) -> dict:
    """`full_ratio` of two runs after n triplets; seeds of the same number train on the same prompts, and of more the first are taken."""
    count = min(len(first.seeds), len(second.seeds))
    return full_ratio(at(first, n)[:count], at(second, n)[:count], count)
