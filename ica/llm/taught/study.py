"""What the stored runs say together: corners of the design, dose and response, transfer; figures' tables and claims of the page.

Everything is a mean over seeds and items, all seeds on the same items, with the interval of `ica.intervals.mean_interval` for
both. The seeds of a comparison are those that all its arms have. The dose of a critic is its balanced accuracy, the response
what one round of correction gains over being asked again.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ica.intervals import mean_interval
from ica.llm.analysis.statistics import signed_interval
from ica.llm.bbq.items import CONDITIONS
from ica.llm.taught.results import Answers, Taught
from ica.llm.taught.settings import CORNERS, GRADED
from ica.record.record import Record

Runs = Mapping[str, Mapping[int, Taught]]
Measure = Callable[[Answers], Float[np.ndarray, " items"]]
LEAST = 3  # levels of noise over which a slope is taken
APART = 0.1  # least range of the critics' accuracies over which a slope is taken
CRITICS = {
    "first answer": "first",
    "re-answer control": "none",
    "self-critique": "own",
    "random critic": "random",
    "oracle critic": "true",
    "inverted critic": "wrong",
}


class Missing(ValueError):
    """A comparison needs runs that are not stored; the message names them, for the page."""


def common(runs: Runs, arms: Sequence[str]) -> list[int]:
    """Seeds that all these arms have.

    Raises:
        Missing: there is none.
    """
    seeds = set.intersection(*(set(runs.get(arm, ())) for arm in arms))
    if not seeds:
        raise Missing(f"Precomputed runs are not at hand: {', '.join(arms)} with one seed.")
    return sorted(seeds)


def values(
    runs: Runs, arm: str, seeds: Sequence[int], measure: Measure, name: str = "bbq"
) -> Float[Tensor, "seeds items"]:
    """A measure of every item of a set, one row a seed."""
    return torch.tensor(np.array([measure(runs[arm][seed].asked[name]) for seed in seeds]))


def estimate(found: Float[Tensor, "seeds items"]) -> dict:
    """Mean over seeds and items, as the part of a claim; of values that are all alike with the interval of paired shares."""
    mean, lo, hi = (float(one) for one in mean_interval(found))
    if lo == hi:
        by_item = found.mean(0)
        shares = (float(by_item.clamp(min=0).sum()), float((-by_item).clamp(min=0).sum()))
        lo, hi = signed_interval(*shares, len(by_item))
    return {"value": mean, "interval": (lo, hi), "n": {"seeds": len(found), "items": found.shape[1]}}


def accuracy(critic: str) -> Measure:
    """Accuracy under a critic (see `Answers.accuracy`)."""
    return lambda answers: answers.accuracy(critic)


def gain(critic: str = "own", over: str = "none") -> Measure:
    """Accuracy under a critic less that of the control, or of the first answer."""
    return lambda answers: answers.accuracy(critic) - answers.accuracy(over)


def only(measure: Measure, condition: str) -> Measure:
    """A measure on the items of one condition."""
    return lambda answers: measure(answers)[answers.of(condition)]


def critic(answers: Answers) -> Float[np.ndarray, " items"]:
    """Balanced accuracy of a drawn verdict."""
    return answers.critic()


def interaction(runs: Runs) -> Float[Tensor, "seeds items"]:
    """The gain of both abilities less those of each alone, plus that of neither."""
    seeds = common(runs, CORNERS)
    neither, critic_, user, both = (values(runs, arm, seeds, gain()) for arm in CORNERS)
    return both - critic_ - user + neither


def graded(runs: Runs, user: bool = True) -> tuple[list[int], dict[float, str]]:
    """Seeds that both ends of the noise have (and, without `user`, the arm that was taught to criticise alone), and the levels
    with their arms that have all of these.

    Raises:
        Missing: no such seed, or no level between the ends.
    """
    ends = [GRADED[level] for level in (min(GRADED), max(GRADED))]
    seeds = common(runs, [*ends, *([] if user else ["critic"])])
    found = {level: arm for level, arm in GRADED.items() if set(seeds) <= set(runs.get(arm, ()))}
    if len(found) < LEAST:
        between = [arm for level, arm in GRADED.items() if level not in found]
        raise Missing(
            f"Precomputed runs are not at hand: one of {', '.join(between)} with the seeds of {ends[0]}."
        )
    return seeds, found


def doses(runs: Runs, user: bool = True) -> tuple[list[int], Float[Tensor, "seeds levels"]]:
    """The seeds of `graded`, and how accurate the critics of its levels are on BBQ.

    Raises:
        Missing: as `graded` says, or critics that hardly differ.
    """
    seeds, levels = graded(runs, user)
    found = torch.stack([values(runs, arm, seeds, critic).mean(1) for arm in levels.values()], 1)
    if (spread := float((found.amax(1) - found.amin(1)).min())) < APART:
        raise Missing(f"The accuracies of the critics differ by {spread:.2f} only.")
    return seeds, found


def responses(runs: Runs, user: bool) -> Float[Tensor, "seeds levels items"]:
    """Gains under the critic of each level of noise: in the model that has that critic, or, without `user`, in the one that was
    taught to criticise alone, which is given the same critic's verdicts."""
    seeds, levels = graded(runs, user)

    def one(arm: str, seed: int) -> Float[np.ndarray, " items"]:
        held = runs[arm][seed].asked["bbq"].held
        told = runs[arm if user else "critic"][seed].asked["bbq"]
        return told.accuracy("own", held) - told.accuracy("none")

    return torch.tensor(np.array([[one(arm, seed) for arm in levels.values()] for seed in seeds]))


def slope(runs: Runs, user: bool) -> Float[Tensor, "seeds items"]:
    """Least-squares slope of the gain over the critic's accuracy, of each seed, as a mean over items."""
    found = doses(runs, user)[1]
    centred = found - found.mean(1, keepdim=True)
    weights = centred / centred.square().sum(1, keepdim=True)
    return torch.einsum("sl,sli->si", weights, responses(runs, user))


def apart(runs: Runs) -> Float[Tensor, "seeds items"]:
    """The slope with the user ability less that without, on the seeds that both have."""
    seeds, both = doses(runs)[0], doses(runs, False)[0]
    return slope(runs, True)[[seeds.index(seed) for seed in both]] - slope(runs, False)


def gap(runs: Runs, arm: str) -> dict:
    """Balanced accuracy of the critic on BBQ less that on held-out templates; the items are others, so variances add."""
    seeds = common(runs, [arm])
    bbq, own = (estimate(values(runs, arm, seeds, critic, name)) for name in ("bbq", "templates"))
    half = [(one["interval"][1] - one["interval"][0]) / 2 for one in (bbq, own)]
    value, half = bbq["value"] - own["value"], float(np.hypot(*half))
    return {"value": value, "interval": (value - half, value + half), "n": bbq["n"]}


def rounds(kind: str) -> Measure:
    """Accuracy after three rounds less that after one, under a critic, on the items that have rounds."""

    def measure(answers: Answers) -> Float[np.ndarray, " some"]:
        right = answers.deep[kind] == answers.gold[answers.some][:, None]
        return right[:, -1] * 1.0 - right[:, 0]

    return measure


def scores(answers: Answers) -> Float[np.ndarray, " some"]:
    """Accuracy with three true scores in context less that with the high one at a wrong option."""
    right = {kind: answers.deep[kind] == answers.gold[answers.some] for kind in ("three", "swapped")}
    return right["three"] * 1.0 - right["swapped"]


def part(runs: Runs, arm: str, measure: Measure, name: str = "bbq") -> dict:
    """A measure of one arm, as the part of a claim; Missing where it is not stored."""
    return estimate(values(runs, arm, common(runs, [arm]), measure, name))


def claims(runs: Runs) -> dict[str, Callable[[], dict]]:
    """Claim -> what gives its parts, or raises Missing."""
    used, unused, critics = ("user", "both"), ("neither", "critic"), ("critic", "both")
    each = lambda arms, measure, name="bbq": {arm: part(runs, arm, measure, name) for arm in arms}
    perfect = lambda answers: answers.accuracy("true") - answers.perfect()
    return {
        "t-gain": lambda: {
            "over the control": part(runs, "both", gain()),
            "over the first answer": part(runs, "both", gain(over="first")),
        },
        "t-interaction": lambda: {"value": estimate(interaction(runs))},
        "t-dose": lambda: {"value": estimate(slope(runs, True))},
        "t-dose-without": lambda: {"value": estimate(slope(runs, False))},
        "t-dose-apart": lambda: {"value": estimate(apart(runs))},
        "t-uses": lambda: each(used, gain("true")),
        "t-uses-not": lambda: each(unused, gain("true")),
        "t-perfect": lambda: each(used, perfect),
        "t-critic": lambda: each(critics, critic, "templates"),
        "t-transfer": lambda: {one: part(runs, "both", only(critic, one)) for one in CONDITIONS},
        "t-gap": lambda: {"value": gap(runs, "both")},
        "t-rounds": lambda: {
            "oracle critic": part(runs, "both", rounds("true")),
            "self-critique": part(runs, "both", rounds("own")),
        },
        "t-scores": lambda: each(used, scores),
    }


def record_claims(record: Record, *ids: str, runs: Runs) -> None:
    """Record claims of the page; not testable where runs are not stored. KeyError: an id that is none of them."""
    measured = claims(runs)
    for id in ids:
        try:
            found = measured[id]()
        except Missing as error:
            record.untestable(id, str(error))
            continue
        record.claim(id, parts=found)


def _row(found: dict) -> dict:
    lo, hi = found["interval"]
    return {"estimate": found["value"], "lo": lo, "hi": hi, **found["n"]}


def corners(runs: Runs, name: str = "bbq") -> pd.DataFrame:
    """Accuracy by arm and critic: arm, critic, estimate, lo, hi, seeds, items; `perfect use` what the true verdict allows."""
    measures = {words: accuracy(key) for words, key in CRITICS.items()} | {"perfect use": Answers.perfect}
    return pd.DataFrame(
        [
            {"arm": arm, "critic": words, **_row(part(runs, arm, measure, name))}
            for arm in CORNERS
            if arm in runs
            for words, measure in measures.items()
        ]
    )


def dosed(runs: Runs) -> pd.DataFrame:
    """One row a level of noise, seed and kind of model: noise, model, seed, critic (accuracy), gain; none without such runs."""
    rows = []
    for user, model in ((True, "taught to use a critic"), (False, "not taught to use one")):
        try:
            (seeds, found), gains = doses(runs, user), responses(runs, user).mean(2)
            levels = graded(runs, user)[1]
        except Missing:
            continue
        for k, seed in enumerate(seeds):
            for level, noise in enumerate(levels):
                rows.append((noise, model, seed, float(found[k, level]), float(gains[k, level])))
    return pd.DataFrame(rows, columns=["noise", "model", "seed", "critic", "gain"])


def checked(runs: Runs) -> pd.DataFrame:
    """Balanced accuracy of critics, by arm, set and condition, of a drawn verdict and of the likelier one."""
    rows = []
    for arm, kept in runs.items():
        for name in ("bbq", "templates"):
            for condition in CONDITIONS:
                row = _row(part(runs, arm, only(critic, condition), name))
                likelier = only(lambda answers: answers.critic(likelier=True), condition)
                likely = float(values(runs, arm, sorted(kept), likelier, name).mean())
                rows.append({"arm": arm, "set": name, "condition": condition, **row, "likelier": likely})
    return pd.DataFrame(rows)


def perfect_gain(first: float, dose: float) -> float:
    """Gain over the first answer, of accuracy `first`, of whoever follows one verdict without knowledge: keeps what is called
    right and takes either other option else, under a critic that is right in a share `dose` of its verdicts."""
    return dose * (first + (1 - first) / 2) - first


ENDS = ("first stage begins", "first stage ends", "arm begins", "arm ends")


def listed(runs: Runs) -> pd.DataFrame:
    """The stored runs: arm, seed, loss of the first and of the last twenty steps of either stage (nats), minutes of processor time.

    The minutes of a first stage stand at every run that begins with it.
    """
    rows = []
    for arm, kept in runs.items():
        for seed, one in kept.items():
            cut = one.recipe.first
            stages = (one.losses[:cut], one.losses[cut:])
            ends = [float(np.mean(part)) for stage in stages for part in (stage[:20], stage[-20:])]
            rows.append((arm, seed, *ends, one.provenance.get("train_seconds", float("nan")) / 60))
    return pd.DataFrame(rows, columns=["arm", "seed", *ENDS, "minutes"])


def shown(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table and the formats of its numbers; one row that says so where no run is stored."""
    if table.empty:
        return pd.DataFrame({"arm": ["no run is stored"]}), {}
    return table, {name: ".2f" for name in table.select_dtypes("float")}
