"""What the notebooks of the panels share: curves with bands, training paths, differences, and where each curve comes from.

A panel compares runs, label -> `Result`. Bands are 95 % bootstrap intervals over seeds and prompts; differences between two
runs are paired over the evaluation prompts, with `ica.intervals.paired_interval`.
"""

import functools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ica.intervals import paired_interval, paired_ratio
from ica.objectives import REWARDS
from ica.record import figures
from ica.synthetic.task import baselines, floor
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.metrics import bootstrap, cosine_error
from ica.synthetic.task.prefixes import prefix_pl_losses
from ica.synthetic.task.tokens import lengths
from ica.synthetic.training.results import LOOK_PROMPTS, Result, evaluation_prompts, stored

READ_AT = 15  # triplets seen where panels are compared, the end of the paper's axis
RESAMPLING_SEED = 11
COLUMNS = {
    "label": "the curve, as in the legend",
    "scale": "scale of the run: ci (live), cores or paper (stored), or released",
    "part": "after training, or along training",
    "n": "triplets seen",
    "error": f"1 - cos(prediction, y*), mean over prompts (and seeds); along training at n = {READ_AT}",
    "lo": "lower end of the 95 % bootstrap interval",
    "hi": "upper end of the 95 % bootstrap interval",
    "seeds": "number of seeds",
    "prompts": "number of evaluation prompts",
    "run": "id of the run, the hash of its configuration and seeds",
    "seed": "seed of the run",
    "update": "Adam updates done",
    "loss": "held-out Plackett-Luce loss, nats, mean over prefixes and prompts",
    "excess": "that loss less the least there can be",
}

SUMMARY_FORMATS = {name: ".3f" for name in ("1 - cos", "loss above least", "lowest on the way")}
SUMMARY_FORMATS |= {name: "+.3f" for name in ("less base", "lo", "hi")}
SUMMARY_FORMATS |= {name: ".2f" for name in ("over base", "ratio lo", "ratio hi")}


def meanings(data: pd.DataFrame) -> dict[str, str]:
    """What those columns of a figure's data mean that the panels share."""
    return {name: meaning for name, meaning in COLUMNS.items() if name in data}


def band(errors: Float[Tensor, "seeds prompts points"]) -> pd.DataFrame:
    """Mean and bootstrap interval at each point, as columns error, lo, hi; the same errors give the same interval."""
    generator = torch.Generator().manual_seed(RESAMPLING_SEED)
    mean, lo, hi = (values.numpy() for values in bootstrap(errors.double(), generator))
    return pd.DataFrame({"error": mean, "lo": lo, "hi": hi})


def curves(runs: Mapping[str, Result], last: int = READ_AT) -> pd.DataFrame:
    """The error of each run at n = 2 to `last` after training, with its band: one row per label and n."""
    rows = []
    for label, run in runs.items():
        kept = run.seen <= last
        frame = band(run.errors[..., kept]).assign(n=run.seen[kept].tolist(), label=label, scale=run.scale)
        rows.append(frame.assign(seeds=len(run.seeds), prompts=run.errors.shape[1], run=identity(run)))
    columns = ["label", "scale", "n", "error", "lo", "hi", "seeds", "prompts", "run"]
    return pd.concat(rows, ignore_index=True)[columns]


def paths(runs: Mapping[str, Result], n: int = READ_AT) -> pd.DataFrame:
    """Error at n and held-out loss of each seed at each look of training: one row per label, seed and update."""
    rows = []
    for label, run in runs.items():
        for look in run.looks:
            frame = pd.DataFrame(
                {
                    "seed": run.seeds,
                    "error": look.error[:, run.column(n)].tolist(),
                    "loss": look.loss.tolist(),
                }
            )
            rows.append(frame.assign(label=label, scale=run.scale, update=look.step))
    return pd.concat(rows, ignore_index=True)[["label", "scale", "seed", "update", "error", "loss"]]


def identity(run: Result) -> str:
    """Ids of the seed groups of a run, as the folders of their results are called."""
    return " ".join(run.config.hash(seeds) for seeds in run.groups)


def traces(runs: Mapping[str, Result]) -> pd.DataFrame:
    """Where each curve comes from: result, configuration, seeds, commit, hardware, time; one row per label."""
    rows = []
    for label, run in runs.items():
        source, config = run.provenance[0], run.config
        hardware = source["hardware"]
        machine = ", ".join(hardware["gpus"]) if source["device"] != "cpu" else f"{hardware['cpu']}, CPU"
        rows.append(
            {
                "run": label,
                "scale": run.scale,
                "result": identity(run),
                "tokens": config.form,
                "layers": config.layers,
                "heads": config.heads,
                "width": config.width,
                "updates": config.steps,
                "batch": config.batch,
                "rate": config.rate,
                "seeds": ", ".join(map(str, run.seeds)),
                "commit": (source["commit"] or "none")[:7] + ("+" if source["dirty"] else ""),
                "machine": machine,
                "s per update": source["seconds_per_update"],
            }
        )
    return pd.DataFrame(rows)


def difference(first: Float[Tensor, "seeds prompts"], second: Float[Tensor, "#seeds prompts"]) -> dict:
    """Mean of first less second with its paired interval, as a claim takes it: {"value", "interval", "n"}."""
    mean, lo, hi = paired_interval((first - second).double())
    return {"value": mean, "interval": (lo, hi), "n": first.numel()}


def loss_ratio(first: Result, second: Result) -> dict:
    """Held-out loss above its least value after training, of the first run over that of the second, paired by seed.

    Seeds of the same number train on the same prompts. Geometric mean with Student's interval on the logarithms.
    """
    excess = [(run.looks[-1].loss.double() - least_loss(run)).tolist() for run in (first, second)]
    mean, lo, hi = paired_ratio(*excess)
    return {"value": mean, "interval": (lo, hi), "n": len(first.seeds)}


def minimiser(run: Result) -> Float[Tensor, "1 prompts prefixes"]:
    """1 - cos of the exact minimiser of the loss on the run's own evaluation prompts, true critic."""
    batch = evaluation_prompts(run.config)
    found = floor.minimisers(batch, run.seen).to(batch.good.dtype)
    return cosine_error(found, batch.good.unsqueeze(1)).unsqueeze(0)


def best_response(run: Result) -> Float[Tensor, "1 prompts prefixes"]:
    """1 - cos of the response of highest reward among those seen, on the run's own evaluation prompts."""
    batch = evaluation_prompts(run.config)
    return cosine_error(baselines.best_response(batch, run.seen), batch.good.unsqueeze(1)).unsqueeze(0)


def _styles(frame: pd.DataFrame, order: Sequence[str] | None) -> list[tuple[str, pd.DataFrame, int]]:
    """Each label's rows and the number of its style: its place in `order`, else in the frame."""
    labels = list(order or dict.fromkeys(frame["label"]))
    return [(label, group, labels.index(label)) for label, group in frame.groupby("label", sort=False)]


def draw_curves(ax: Axes, frame: pd.DataFrame, x: str = "n", order: Sequence[str] | None = None) -> None:
    """One line with its band for each label of `curves`; the same label has the same style for the same `order`."""
    for label, group, k in _styles(frame, order):
        style = {"color": figures.PALETTE[k], "linestyle": figures.LINES[k], "marker": figures.MARKERS[k]}
        ax.plot(group[x], group["error"], label=label, **style)
        figures.band(ax, group[x], group["lo"], group["hi"], colour=figures.PALETTE[k])


def draw_paths(ax: Axes, frame: pd.DataFrame, column: str, order: Sequence[str] | None = None) -> None:
    """Each label's mean over seeds against the update, with every seed as a thin line; styles as in `draw_curves`."""
    for label, group, k in _styles(frame, order):
        for _, one in group.groupby("seed"):
            thin = {
                "color": figures.PALETTE[k],
                "linestyle": "-",
                "marker": "",
                "linewidth": 0.6,
                "alpha": 0.5,
            }
            ax.plot(one["update"], one[column], **thin)
        mean = group.groupby("update")[column].mean()
        ax.plot(
            mean.index, mean, label=label, color=figures.PALETTE[k], linestyle=figures.LINES[k], marker=""
        )


def least_loss(run: Result) -> float:
    """Least held-out loss there can be on the prompts of the looks (nats): that of the exact minimisers, true critic."""
    return _least_loss(run.config)


@functools.cache
def _least_loss(config: RunConfig) -> float:
    batch, seen = evaluation_prompts(config, count=LOOK_PROMPTS), lengths(config.N, config.form)
    scores = REWARDS[config.reward](floor.minimisers(batch, seen), batch.responses.double().unsqueeze(1))
    return prefix_pl_losses(scores, batch.quality.double(), seen).mean().item()


def summary(runs: Mapping[str, Result], base: str) -> pd.DataFrame:
    """One row per label, after training: error at n = 15, and less that of `base`; loss above least, and over that of `base`.

    Also the lowest error on the way (of the mean over seeds, at the looks) and its update.
    """
    rows, reference = [], runs[base]
    for label, run in runs.items():
        error = difference(run.at(READ_AT), reference.at(READ_AT))
        way = torch.stack([look.error[:, run.column(READ_AT)].mean() for look in run.looks])
        row = {"run": label, "scale": run.scale, "1 - cos": run.at(READ_AT).mean().item()}
        row |= {"less base": error["value"], "lo": error["interval"][0], "hi": error["interval"][1]}
        row |= {"loss above least": run.looks[-1].loss.mean().item() - least_loss(run)}
        ratio = (
            loss_ratio(run, reference) if len(run.seeds) > 1 else {"value": None, "interval": (None, None)}
        )
        row |= {
            "over base": ratio["value"],
            "ratio lo": ratio["interval"][0],
            "ratio hi": ratio["interval"][1],
        }
        row |= {"lowest on the way": way.min().item(), "at update": run.looks[int(way.argmin())].step}
        rows.append(row)
    return pd.DataFrame(rows)


def figure(live: Mapping[str, Result], kept: Mapping[str, Result]) -> tuple[Figure, pd.DataFrame]:
    """The figure of a panel and its data: a row for the live runs, a second for the stored ones where there are any.

    The stored runs carry labels of live ones, and so their styles. Left: error against n after training, with bands.
    Middle: error at n = 15 along training. Right: held-out loss above its least value along training. Dashed: the exact
    minimiser on the same prompts, where the objective ends.
    """
    rows = [runs for runs in (live, kept) if runs]
    fig, axes = plt.subplots(len(rows), 3, figsize=(7.2, 0.5 + 2.7 * len(rows)), squeeze=False)
    tables = []
    for row, runs in zip(axes, rows, strict=True):
        first = next(iter(runs.values()))
        curve, path = curves(runs), paths(runs)
        path["excess"] = path["loss"] - least_loss(first)
        end = band(minimiser(first)[..., first.seen <= READ_AT]).assign(label="minimiser")
        end = end.assign(scale=first.scale, n=first.seen[first.seen <= READ_AT].tolist())
        draw_curves(row[0], curve, order=list(live))
        row[0].plot(end["n"], end["error"], color=figures.MUTED, linestyle="--", marker="")
        draw_paths(row[1], path, "error", list(live))
        row[1].axhline(end["error"].iloc[-1], color=figures.MUTED, linestyle="--", marker="")
        draw_paths(row[2], path, "excess", list(live))
        where = "live" if first.scale == "ci" else "stored"
        row[0].set(xlabel="triplets seen, n", ylabel=f"{where}: 1 − cos(prediction, y*)", ylim=(0, None))
        row[1].set(xlabel="update", ylabel=f"1 − cos at n = {READ_AT}", ylim=(0, 1.15))
        row[2].set(xlabel="update", ylabel="loss above least (nats)", yscale="log")
        tables += [pd.concat([curve, end]).assign(part="after training"), path.assign(part="along training")]
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
    return fig, pd.concat(tables, ignore_index=True)


def about_stored(runs: Mapping[str, Result]) -> str:
    """What the stored runs of a figure are, in words for its caption."""
    if not runs:
        return "no stored runs of this panel are there"
    first = next(iter(runs.values()))
    config = first.config
    return (
        f"{config.form} tokens, batch {config.batch}, rate {config.rate:g}, {config.steps} updates, "
        f"{len(first.seeds)} seed{'s' * (len(first.seeds) > 1)} each"
        + ("; with one seed the bands speak of prompts only" if len(first.seeds) == 1 else "")
    )


def stored_runs(labels: Mapping[str, str], base: str) -> dict[str, Result]:
    """The stored runs there are, label -> run name, all at the scale of the one called `base`; {} without that one."""
    found = {label: stored(name) for label, name in labels.items()}
    reference = found.get(base)
    if reference is None:
        return {}
    return {label: run for label, run in found.items() if run is not None and run.scale == reference.scale}
