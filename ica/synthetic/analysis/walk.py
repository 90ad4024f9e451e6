"""From the released code to the paper: what each difference between them moves, alone, from either end.

Behind the page "From the code to the paper". Sweeps of scale `walk` differ from one end, "released" or "stated",
in one factor. Four *conclusions*, each a ratio of two errors of one training run, are compared between them,
paired by seed; effects are ratios of these, the factor as stated over the factor as released. Here ratios are
logarithms, whose means over seeds have Student's interval (`ica.intervals`); `estimate` turns them back.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # loads a part where it is used first
import torch

from ica import checks
from ica.intervals import mean_interval
from ica.synthetic.analysis.controls import RESOLVED, cut
from ica.synthetic.analysis.stated import FEW, GD, MANY
from ica.synthetic.task import baselines
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, SyntheticBatch
from ica.synthetic.training import sweep
from ica.synthetic.training.sweep import Sweep

RELEASED, STATED = ENDS = ("released", "stated")
FACTORS = {"noise": "noise", "reward": "reward", "scope": "loss", "form": "tokens", "steps": "steps"}
MEASURES = {"nMSE": "nmse", "1 - cos": "error"}  # name in claims -> field of `Sweep`
CONCLUSIONS = {
    "few": f"transformer over GD, n = {FEW}",
    "many": f"transformer over GD, n = {MANY}",
    "examples": f"transformer, n = {MANY} over n = {FEW}",
    "best": f"transformer over best-of-n, n = {MANY}",
}
BEST = "best-of-n"
Estimate = dict  # as a claim takes it: {"value": ratio, "interval": (lo, hi), "n": {"seeds": count}}


class Missing(ValueError):
    """A sweep that a number needs is not stored."""


class Runs(dict[tuple[str, str], Sweep]):
    """Sweeps by scale and name; asking for one that is not there raises `Missing`."""

    def __missing__(self, key: tuple[str, str]):
        raise Missing(f"The sweep {'-'.join(key)} is not stored.")


def at_hand(wanted: Mapping[str, tuple[str, ...]]) -> Runs:
    """Those of the wanted sweeps (scale -> names) whose files are there; ResultError for a damaged one."""
    names = [(scale, name) for scale, several in wanted.items() for name in several]
    return Runs({key: sweep.stored(*key) for key in names if sweep.path(*key).is_file()})


def configurations(end: str) -> dict[str, str]:
    """Label -> run of the configurations around an end: "unchanged", and each factor as at the other."""
    return {"unchanged": end} | {label: f"{end}-{factor}" for factor, label in FACTORS.items()}


WALK = tuple(name for end in ENDS for name in configurations(end).values())


def first(batch: SyntheticBatch, count: int) -> SyntheticBatch:
    """The first prompts of a batch; ValueError where it holds fewer."""
    if checks.whole("count", count, 1) > len(batch.query):
        raise ValueError(f"count must be at most the {len(batch.query)} prompts there are, got {count}")
    return SyntheticBatch(*(getattr(batch, name)[:count] for name in batch.__dataclass_fields__))


def descended(
    batch: SyntheticBatch, n: int, seed: int, reward: str, steps: int = 50
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised MSE and 1 - cos of GD (Adam, rate 0.1) on the first n triplets: two means over prompts."""
    start = torch.Generator().manual_seed(seed)
    found = baselines.descend(cut(batch, n), torch.tensor([n]), start, steps=steps, reward=reward)
    return sweep.means(found, batch)


def references(
    config: RunConfig, seeds: tuple[int, ...], prompts: int = sweep.PROMPTS, start: int = 0
) -> dict[str, Sweep]:
    """GD for a configuration's data and reward, and best-of-n, on each seed's prompts, at `FEW` and `MANY`.

    Args:
        prompts: how many of a seed's prompts, its first ones.
        start: seed of GD's starting matrices, to which a seed's number is added.
    """
    rows: dict[str, list] = {GD: [], BEST: []}
    for seed in seeds:
        batch = first(sweep.own_prompts(config, seed), prompts)
        found = [descended(batch, n, start + seed, config.reward) for n in (FEW, MANY)]
        rows[GD].append([torch.cat(parts) for parts in zip(*found, strict=True)])
        seen = torch.tensor([FEW, MANY])
        rows[BEST].append(sweep.means(baselines.best_response(batch, seen), batch))
    return {
        name: Sweep(
            "walk", name, config, seeds, torch.tensor([FEW, MANY]), {0.0: nmse}, {0.0: error}, None, {}
        )
        for name, found in rows.items()
        for nmse, error in [map(torch.stack, zip(*found, strict=True))]
    }


def fewer_steps(
    config: RunConfig, seeds: tuple[int, ...], p: float, prompts: int, start: int = 0
) -> pd.Series:
    """Normalised MSE of GD after `MANY` triplets under random rewards: 50 steps over int(50 - 25 p) steps.

    Logarithm, by seed; same prompts, rewards, start. Source: App. C.1; released notebook of the noise panel.
    """
    gaps = []
    for seed in seeds:
        batch = first(sweep.own_prompts(config, seed, Critic("replace", p)), prompts)
        several = (descended(batch, MANY, start + seed, config.reward, k) for k in (50, int(50 - 25 * p)))
        stated, released = (nmse.item() for nmse, _ in several)
        gaps.append(math.log(stated / released))
    return pd.Series(gaps, index=list(seeds))


def by_seed(run: Sweep, n: int, measure: str = "nMSE") -> pd.Series:
    """Logarithm of an error of a sweep after n triplets, by seed; ValueError where there is none, or one of 0."""
    values = run.at(n, MEASURES[checks.one_of("measure", measure, tuple(MEASURES))])
    if not (values > 0).all():
        raise ValueError(f"errors must be above 0, got {values.min():.3g} in {run.scale}-{run.name}, n = {n}")
    return pd.Series(values.log().tolist(), index=list(run.seeds))


def less(one: pd.Series, other: pd.Series) -> pd.Series:
    """Differences between the same seeds; ValueError where the two have fewer than two seeds in common."""
    gaps = (one - other).dropna().sort_index()
    if len(gaps) < 2:
        raise ValueError(f"two seeds in common are needed, got {sorted(one.index)} and {sorted(other.index)}")
    return gaps


def estimate(logs: pd.Series) -> Estimate:
    """Geometric mean over seeds with Student's interval on the logarithms; ValueError for fewer than two."""
    mean, lo, hi = (part.exp().item() for part in mean_interval(torch.tensor(logs.to_numpy()).unsqueeze(0)))
    return {"value": mean, "interval": (lo, hi), "n": {"seeds": len(logs)}}


def resolved(logs: pd.Series) -> Estimate:
    """The ratio that two single runs tell apart at 5 %: `RESOLVED` standard deviations of the logarithm.

    The interval is that of the standard deviation of Gaussian logarithms (chi-square).
    """
    free, size = len(logs) - 1, RESOLVED * float(logs.std())
    lo, hi = (math.exp(size * math.sqrt(free / scipy.stats.chi2.ppf(q, free))) for q in (0.975, 0.025))
    return {"value": math.exp(size), "interval": (lo, hi), "n": {"seeds": len(logs)}}


def two_runs(logs: pd.Series) -> float:
    """Geometric mean, over all pairs of seeds, of the larger error over the smaller."""
    gaps = [abs(a - b) for a, b in itertools.combinations(logs.tolist(), 2)]
    return math.exp(sum(gaps) / len(gaps))


@dataclass(frozen=True)
class Walk:
    """Sweeps of the walk, and for each noise and reward what needs no training, as `references` gives it."""

    runs: Runs
    beside: dict[tuple[str, str], dict[str, Sweep]]

    @classmethod
    def of(cls, runs: Runs, prompts: int = sweep.PROMPTS, start: int = 0) -> "Walk":
        """The walk of these sweeps, GD and best-of-n computed on the prompts of their seeds."""
        several = {}
        for key in runs:
            if key[0] == "walk":
                config, seeds = runs[key].config, runs[key].seeds
                combination = (config.noise, config.reward)
                if combination not in several:
                    several[combination] = references(config, seeds, prompts, start)
        return cls(runs, several)

    def conclusions(self, name: str, measure: str) -> pd.DataFrame:
        """Logarithms of the ratios of `CONCLUSIONS` for each seed of a configuration; one row a seed.

        Raises:
            Missing: its sweep is not stored. KeyError: nothing was computed for its noise and reward.
        """
        run = self.runs["walk", name]
        beside = self.beside[run.config.noise, run.config.reward]
        few, many = (by_seed(run, n, measure) for n in (FEW, MANY))
        return pd.DataFrame(
            {
                "few": less(few, by_seed(beside[GD], FEW, measure)),
                "many": less(many, by_seed(beside[GD], MANY, measure)),
                "examples": less(many, few),
                "best": less(many, by_seed(beside[BEST], MANY, measure)),
            }
        )

    def effects(self, end: str, conclusion: str, measure: str) -> dict[str, pd.Series]:
        """Factor -> log of its effect on a conclusion, stated over released, others as at `end`; by seed."""
        checks.one_of("end", end, ENDS)
        whole = self.conclusions(end, measure)[conclusion]
        found = {}
        for factor in FACTORS:
            other = self.conclusions(f"{end}-{factor}", measure)[conclusion]
            found[factor] = less(other, whole) if end == RELEASED else less(whole, other)
        return found

    def interaction(self, conclusion: str, measure: str) -> pd.Series:
        """Log of stated over released, over the product of all single effects from the code; by seed."""
        ends = [self.conclusions(end, measure)[conclusion] for end in (STATED, RELEASED)]
        return less(less(*ends), sum(self.effects(RELEASED, conclusion, measure).values()))


def halves(effects: Mapping[str, pd.Series]) -> tuple[dict[str, float], dict[str, pd.Series]]:
    """Means over the first half of the seeds, to choose by, and all of the second half, to measure on."""
    count = min(len(values) for values in effects.values()) // 2
    return (
        {name: float(values.iloc[:count].mean()) for name, values in effects.items()},
        {name: values.iloc[count:] for name, values in effects.items()},
    )


def largest(means: Mapping[str, float], without: str = "") -> str:
    """The name of the largest mean in size, but for one name."""
    return max((name for name in means if name != without), key=lambda name: abs(means[name]))


def ahead(effects: Mapping[str, pd.Series], name: str) -> Estimate:
    """Size of one effect over the largest size of the others; the size of a ratio below 1 is its inverse.

    Signs, and which of the others is largest, come from the first half of the seeds; the estimate is from the
    second half, so that it is free of that choice.
    """
    means, rest = halves(effects)
    other = largest(means, without=name)
    return estimate(less(*(np.sign(means[key]) * rest[key] for key in (name, other))))


def leads_from_both(walk: Walk, conclusion: str, measure: str) -> Estimate:
    """From the paper, `ahead` for what is largest from the code (by the first half of the seeds)."""
    means, _ = halves(walk.effects(RELEASED, conclusion, measure))
    return ahead(walk.effects(STATED, conclusion, measure), largest(means))
