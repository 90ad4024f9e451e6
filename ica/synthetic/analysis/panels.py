"""What the notebooks of the panels share: curves with bands, training paths, differences, and where each curve comes from.

A panel compares runs, label -> `Result`. Bands and intervals are 95 % intervals over seeds and prompts,
`ica.intervals.mean_interval`; differences between two runs are taken on the same evaluation prompts first.
"""

import functools
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ica.intervals import against_one_run, mean_interval, paired_ratio
from ica.objectives import REWARDS
from ica.record import figures, styles
from ica.record.record import Record
from ica.synthetic.task import baselines, floor
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.prefixes import prefix_pl_losses
from ica.synthetic.task.tokens import lengths
from ica.synthetic.training.catalogue import LIVE
from ica.synthetic.training.evaluation import LOOK_PROMPTS, evaluation_prompts
from ica.synthetic.training.results import PRECOMPUTED, Result, stored

READ_AT = 15  # triplets seen where panels are compared, the end of the released axis
COLUMNS = {
    "label": "the curve, as in the legend",
    "scale": "scale of the run in runs.yml: ci (small), cores or paper (precomputed), or that of the authors",
    "part": "after training, or along training",
    "n": "triplets seen",
    "error": f"1 - cos(prediction, y*), mean over prompts (and seeds); along training at n = {READ_AT}",
    "lo": "lower end of the 95 % interval over seeds and prompts (one seed: over prompts)",
    "hi": "upper end of the 95 % interval over seeds and prompts (one seed: over prompts)",
    "seeds": "number of seeds",
    "prompts": "number of evaluation prompts",
    "run": "id of the run, the hash of its configuration and seeds",
    "seed": "seed of the run",
    "update": "training steps done",
    "loss": "held-out Plackett-Luce loss, nats, mean over n and prompts",
    "excess": "that loss less the least there can be",
}

# The tables of a page: `summary` and `traces` by what they are about, as all their columns do not fit beside one another.
ERRORS = {"run": "", "1 - cos": ".3f", "less base": "+.3f", "lo": "+.3f", "hi": "+.3f"}
ERRORS |= {"lowest on the way": ".3f", "at step": ""}
LOSSES = {"run": "", "loss above least": ".3f", "over base": ".2f", "ratio lo": ".2f", "ratio hi": ".2f"}
TRAINED = ("run", "blocks", "heads", "width", "tokens", "steps", "batch", "learning rate", "seeds")
ORIGIN = ("run", "scale", "result", "commit", "machine", "s per step")


def meanings(data: pd.DataFrame) -> dict[str, str]:
    """What those columns of a figure's data mean that the panels share."""
    return {name: meaning for name, meaning in COLUMNS.items() if name in data}


def band(errors: Float[Tensor, "seeds prompts points"]) -> pd.DataFrame:
    """Mean and interval over seeds and prompts at each point, as columns error, lo, hi."""
    error, lo, hi = (found.numpy() for found in mean_interval(errors))
    return pd.DataFrame({"error": error, "lo": lo, "hi": hi})


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
    """Error at n and held-out loss of each seed at each look of training: one row per label, seed and look."""
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
                "blocks": config.layers,
                "heads": config.heads,
                "width": config.width,
                "steps": config.steps,
                "batch": config.batch,
                "learning rate": config.rate,
                "seeds": ", ".join(map(str, run.seeds)),
                "commit": (source["commit"] or "none")[:7] + ("+" if source["dirty"] else ""),
                "machine": machine,
                "s per step": source["seconds_per_update"],
            }
        )
    return pd.DataFrame(rows)


def estimate(values: Float[Tensor, "seeds prompts"], seeds: int | None = None) -> dict:
    """Mean with its interval over seeds and prompts, as a claim takes it: {"value", "interval", "n"}.

    Args:
        seeds: seeds to count in n; by default the rows if there are several, none for one row, which is over
            prompts only. A single run says 1.
    """
    return _measured(mean_interval(values), values, seeds)


def difference(
    first: Float[Tensor, "#seeds prompts"],
    second: Float[Tensor, "#seeds #prompts"],
    seeds: int | None = None,
) -> dict:
    """Mean of first less second on the same prompts, as `estimate` gives it."""
    return estimate(first.double() - second.double(), seeds)


def compared(first: Result, second: Result, n: int = READ_AT) -> dict:
    """1 - cos after n triplets of the first run less that of the second, as `estimate` gives it, seeds counted."""
    return difference(first.at(n), second.at(n), len(first.seeds))


def against_run(
    values: Float[Tensor, "seeds prompts"],
    number: float,
    like: Float[Tensor, "runs others"] | None = None,
    seeds: int | None = None,
) -> dict:
    """Mean less what one released run gave on 256 prompts of its own, as `estimate` gives it.

    The number counts as uncertain as a run of `like` (by default `values`) would be: `against_one_run`.
    """
    return _measured(against_one_run(values, number, like), values, seeds)


def _measured(found: tuple, values: Float[Tensor, "rows prompts"], seeds: int | None) -> dict:
    value, lo, hi = (entry.item() for entry in found)
    rows, prompts = values.shape
    seeds = seeds or (rows if rows > 1 else None)
    return {
        "value": value,
        "interval": (lo, hi),
        "n": ({"seeds": seeds} if seeds else {}) | {"prompts": prompts},
    }


def loss_ratio(first: Result, second: Result) -> dict:
    """Held-out loss above its least value after training, of the first run over that of the second, paired by seed.

    Seeds of the same number train on the same prompts. Geometric mean with Student's interval on the logarithms.
    """
    excess = [(run.looks[-1].loss.double() - least_loss(run)).tolist() for run in (first, second)]
    mean, lo, hi = paired_ratio(*excess)
    return {"value": mean, "interval": (lo, hi), "n": {"seeds": len(first.seeds)}}


def minimiser(run: Result) -> Float[Tensor, "1 prompts prefixes"]:
    """1 - cos of the exact minimiser of the loss on the run's own evaluation prompts, true critic."""
    batch = evaluation_prompts(run.config)
    found = floor.minimisers(batch, run.seen).to(batch.good.dtype)
    return cosine_error(found, batch.good.unsqueeze(1)).unsqueeze(0)


def best_response(run: Result) -> Float[Tensor, "1 prompts prefixes"]:
    """1 - cos of the response of highest reward among those seen, on the run's own evaluation prompts."""
    batch = evaluation_prompts(run.config)
    return cosine_error(baselines.best_response(batch, run.seen), batch.good.unsqueeze(1)).unsqueeze(0)


def _styles(frame: pd.DataFrame) -> dict[str, dict]:
    """Keywords of `ax.plot` by label: those of `ica.record.styles` if it knows all labels, else the palette in order."""
    labels = list(dict.fromkeys(frame["label"]))
    if all(label in styles.STYLES or label in styles.ALIASES for label in labels):
        return {label: styles.style_of(label) for label in labels}
    kinds = zip(figures.PALETTE, figures.LINES, figures.MARKERS, strict=True)
    return {
        label: dict(zip(("color", "linestyle", "marker"), kind, strict=True))
        for label, kind in zip(labels, kinds, strict=False)
    }


def draw_curves(ax: Axes, frame: pd.DataFrame, x: str = "n") -> None:
    """One line with its band for each label of `curves`."""
    for label, style in _styles(frame).items():
        group = frame[frame["label"] == label]
        ax.plot(group[x], group["error"], label=label, **style)
        figures.band(ax, group[x], group["lo"], group["hi"], colour=style["color"])


def draw_paths(ax: Axes, frame: pd.DataFrame, column: str) -> None:
    """Each label's mean over seeds against the training step, with every seed as a thin line."""
    for label, style in _styles(frame).items():
        group, colour = frame[frame["label"] == label], style["color"]
        thin = {"color": colour, "linestyle": "-", "marker": "", "linewidth": 0.6, "alpha": 0.5}
        for _, one in group.groupby("seed"):
            ax.plot(one["update"], one[column], **thin)
        mean = group.groupby("update")[column].mean()
        ax.plot(mean.index, mean, label=label, **(style | {"marker": ""}))


def least_loss(run: Result) -> float:
    """Least held-out loss there can be on the prompts of the looks (nats): that of the exact minimisers, true critic.

    ValueError for a run whose data or loss are not the released ones, of which the minimisers are known.
    """
    return _least_loss(run.config)


@functools.cache
def _least_loss(config: RunConfig) -> float:
    if (config.noise, config.reward, config.scope) != ("shared", "cosine", "seen"):
        raise ValueError("run must have shared noise, cosine reward and a loss over the responses seen")
    batch, seen = evaluation_prompts(config, count=LOOK_PROMPTS), lengths(config.N, config.form)
    scores = REWARDS[config.reward](floor.minimisers(batch, seen), batch.responses.double().unsqueeze(1))
    return prefix_pl_losses(scores, batch.quality.double(), seen).mean().item()


def summary(runs: Mapping[str, Result], base: str) -> pd.DataFrame:
    """One row per label, after training: error at n = 15, and less that of `base`; loss above least, and over that of `base`.

    Also the lowest error on the way (of the mean over seeds, at the looks) and its training step.
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
        row |= {"lowest on the way": way.min().item(), "at step": run.looks[int(way.argmin())].step}
        rows.append(row)
    return pd.DataFrame(rows)


def figure(small: Mapping[str, Result], kept: Mapping[str, Result]) -> tuple[Figure, pd.DataFrame]:
    """The figure of a panel and its data: a column for the small runs, a second for the precomputed ones if there are any.

    Above: error against n after training, with bands. Middle: error at n = 15 along training. Below: held-out loss
    above its least value along training. The exact minimiser on the same prompts is where the objective ends.
    """
    columns = [runs for runs in (small, kept) if runs]
    size = (5.8 if kept else 4.2, 7.0)
    fig, axes = plt.subplots(3, len(columns), figsize=size, sharey="row", squeeze=False)
    tables, least = [], styles.style_of("exact minimiser") | {"marker": ""}
    for k, (column, runs) in enumerate(zip(axes.T, columns, strict=True)):
        first = next(iter(runs.values()))
        curve, path = curves(runs), paths(runs)
        path["excess"] = path["loss"] - least_loss(first)
        seen = first.seen[first.seen <= READ_AT]
        end = band(minimiser(first)[..., : len(seen)]).assign(label="exact minimiser", scale=first.scale)
        end = end.assign(n=seen.tolist())
        draw_curves(column[0], curve)
        column[0].plot(end["n"], end["error"], label="exact minimiser", **least)
        draw_paths(column[1], path, "error")
        column[1].axhline(end["error"].iloc[-1], **least)
        draw_paths(column[2], path, "excess")
        here = "small" if first.scale in LIVE else "this build"
        title = "precomputed" if k else here
        column[0].set(xlabel="triplets seen, n", xticks=(2, 5, 10, 15), title=title)
        column[1].set(xlabel="training step")
        column[2].set(xlabel="training step", yscale="log")
        tables += [pd.concat([curve, end]).assign(part="after training"), path.assign(part="along training")]
    axes[0, 0].set(ylabel="1 − cos(prediction, y*)", ylim=(0, None))
    axes[1, 0].set(ylabel=f"1 − cos at n = {READ_AT}", ylim=(0, None))
    axes[2, 0].set(ylabel="loss above least (nats)")
    names = axes[0, 0].get_legend_handles_labels()
    fig.legend(*names, loc="outside upper center", ncols=3 if kept else 2, handlelength=3)
    return fig, pd.concat(tables, ignore_index=True)


def record_runs(record: Record, id: str, runs: Mapping[str, Result]) -> None:
    """Record where curves come from: what was trained as table `<id>-runs`, when and where as `<id>-origins`."""
    table = traces(runs)
    record.table(f"{id}-runs", table[[*TRAINED]], "What was trained")
    record.table(f"{id}-origins", table[[*ORIGIN]], "Where the results come from")


def record_summary(record: Record, runs: Mapping[str, Result], kept: Mapping[str, Result], base: str) -> None:
    """Record what a panel's page shows beside its figure: tables of errors, losses and runs, and numbers for its prose."""
    id, table, first = record.notebook.replace("_", "-"), summary(runs, base), runs[base]
    for name, columns in {"errors": ERRORS, "losses": LOSSES}.items():
        formats = {column: spec for column, spec in columns.items() if spec}
        record.table(f"{id}-{name}", table[[*columns]], f"After training: {name}", formats=formats)
    record_runs(record, id, {**runs, **{f"{label}, precomputed": run for label, run in kept.items()}})
    for row in table.to_dict("records"):
        for name, column in {
            "error": "1 - cos",
            "loss": "loss above least",
            "lowest": "lowest on the way",
        }.items():
            record.number(f"{row['run'].replace(' ', '_')}_{name}", row[column])
    record.number("floor15", minimiser(first)[..., first.column(READ_AT)].mean().item())
    record.number("small_text", about(runs))
    record.number("stored_text", about(kept))


def about(runs: Mapping[str, Result]) -> str:
    """Depth, width, seeds and training of the runs of a figure, in words for its caption."""
    if not runs:
        return "none of this panel is there"
    small = [label for label, run in runs.items() if run.scale in LIVE and run.precomputed]
    runs = list(runs.values())
    config, seeds = runs[0].config, len(runs[0].seeds)

    def span(values: Iterable[int]) -> str:
        return " to ".join(dict.fromkeys(str(end(list(values))) for end in (min, max)))

    blocks = span([run.config.layers for run in runs])
    width = span([run.config.width for run in runs])
    return (
        f"{blocks} block{'s' * (blocks != '1')}, width {width}, {config.steps} training steps on batches of "
        f"{config.batch} at learning rate {config.rate:g}, {seeds} seed{'s' * (seeds > 1)}"
        + (", shown, not judged, with bands over prompts only" if seeds == 1 else "")
        + (f" (precomputed: {', '.join(small)}; the others by this build)" if small else "")
    )


def stored_runs(labels: Mapping[str, str], base: str) -> dict[str, Result]:
    """Precomputed runs to compare, label -> run name, of the largest scale that has the one called `base` and another; else {}."""
    for scale in PRECOMPUTED:
        found = {label: run for label, name in labels.items() if (run := stored(name, scales=(scale,)))}
        if base in found and len(found) > 1:
            return found
    return {}
