r"""What a correction is held against: sampling as often, the instruction alone, being asked again; and what it changed.

*Equal compute.* A correction reads a question several times. The control spends as many readings on answers: k answers drawn
from the option distribution, and the option that most of them name (Wang et al. 2023, self-consistency). Options are scored,
so no draw is needed: the probability of each majority is a sum over the ways in which k answers can fall on the three options,

$$P(\text{majority} = i) = \sum_{n_1 + n_2 + n_3 = k} \frac{k!}{n_1! n_2! n_3!} \prod_j p_j^{n_j}\;
\frac{[n_i = \max_j n_j]}{\#\{l : n_l = \max_j n_j\}},$$

ties broken by an even draw. With many samples it is the most probable option: the first answer itself.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats

from ica import checks
from ica.llm.analysis import effects
from ica.llm.analysis.conditions import FACTS, reviewed
from ica.llm.analysis.metrics import exact, signs
from ica.llm.analysis.statistics import Estimate, holm, mcnemar
from ica.llm.bbq.items import CONDITIONS
from ica.llm.protocol.results import Reading
from ica.record.record import Record

# Readings of a question: the first answer (in three rotations in `core`, in one in `review`), the verdict, the second answer.
PASSES = {"core": 5, "review": 3}
REVIEWS = ("first answer", "instruction control", "re-answer control", "bias review", "oracle review")


def majority(p: Float[np.ndarray, "items options"], k: int) -> Float[np.ndarray, "items options"]:
    """Probability of each option to be named most often in k answers drawn from p, ties broken by an even draw; exact.

    Raises:
        ValueError: k below 1, or rows of p that are no probabilities.
    """
    checks.whole("k", k, 1)
    if not (np.all(p >= 0) and np.allclose(p.sum(1), 1)):
        raise ValueError("p must hold probabilities that sum to 1 in each row")
    found, n = np.zeros_like(p, dtype=float), p.shape[1]
    for counts in product(range(k + 1), repeat=n):
        if sum(counts) == k:
            top = np.array(counts) == max(counts)
            found += stats.multinomial.pmf(counts, k, p)[:, None] * (top / top.sum())
    return found


def option_distribution(record: dict, block: str, by_token: bool = True) -> Float[np.ndarray, " options"]:
    """Probabilities of the options as the first answer of a block has them: the mean over its rotations.

    Args:
        by_token: of log-probabilities per token, as in the protocol; else of the whole texts.
    """
    names = ("first/0", "first/1", "first/2") if block == "core" else ("first",)
    counts = torch.tensor(record["core"]["counts"] if by_token else [1, 1, 1])
    scores = torch.tensor([record[block][name] for name in names], dtype=torch.float64) / counts
    return scores.softmax(-1).mean(0).numpy()


def sampled(records: Iterable[dict], block: str, k: int = 0, by_token: bool = True) -> pd.DataFrame:
    """The majority of k sampled answers (by default as many as the correction reads), one row an item: its facts, and the
    expected `accuracy`."""
    some = [record for record in records if block in record]
    if not some:
        return pd.DataFrame(columns=[*FACTS, "accuracy"])
    p = np.array([option_distribution(record, block, by_token) for record in some])
    named = majority(p / p.sum(1, keepdims=True), k or PASSES[block])
    rows = [
        {name: record[name] for name in FACTS} | {"accuracy": float(row[record["gold"]].clip(0, 1))}
        for record, row in zip(some, named, strict=True)
    ]
    return pd.DataFrame(rows)


def reviews(reading: Reading) -> dict[str, pd.DataFrame]:
    """Answers of the bias review by their name in `REVIEWS`; empty where the block was not read."""
    table = reviewed(reading.records)
    return {name: part.reset_index(drop=True) for name, part in table.groupby("answer", sort=False)}


def corrections(reading: Reading) -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Protocol, answer, the first answers, and these answers, for all that follows a first answer."""
    found = [
        ("correctness", name, effects.answers(reading, "first answer"), effects.answers(reading, name))
        for name in ("re-answer control", "self-critique", "oracle critic", "inverted critic")
    ]
    told = reviews(reading)
    return found + [("bias", name, told["first answer"], told[name]) for name in REVIEWS[1:] if name in told]


def transitions(readings: Sequence[Reading]) -> pd.DataFrame:
    """What became of right and of wrong first answers, by model, protocol, answer and kind of item.

    Columns: model, protocol, answer, kind, items, `right stays`, `right to wrong`, `wrong to right`, `wrong stays` (the same
    option) and `wrong to wrong` (another one), counts of items; p of the exact McNemar test, and Holm's over the rows.
    """
    rows = []
    for reading in readings:
        for protocol, name, first, after in corrections(reading):
            for kind in CONDITIONS:
                one = first[first["condition"] == kind].set_index("id")
                two = after[after["condition"] == kind].set_index("id").loc[one.index]
                was, now = (t["accuracy"].to_numpy() > 0.5 for t in (one, two))
                same = one["chosen"].to_numpy() == two["chosen"].to_numpy()
                counts = (was & now, was & ~now, ~was & now, ~was & same, ~was & ~now & ~same)
                key = (effects.title(reading), protocol, name, kind, len(one))
                rows.append((*key, *(int(c.sum()) for c in counts), mcnemar(was, now).p))
    names = ["right stays", "right to wrong", "wrong to right", "wrong stays", "wrong to wrong"]
    found = pd.DataFrame(rows, columns=["model", "protocol", "answer", "kind", "items", *names, "p"])
    found["p, Holm"] = [effects.p_text(p) for p in holm(found["p"].to_numpy())]
    return found.assign(p=found["p"].map(effects.p_text))


def dialogues(readings: Sequence[Reading]) -> pd.DataFrame:
    """The options that answers of the written dialogue name: columns model, id, grader (strict, as released), answer, chosen, accuracy."""
    graders = {"strict": "option", "as released": "released"}
    answers = {"first": "first answer", "again": "re-answer control", "second": "after the review"}
    rows = [
        (effects.title(reading), one["id"], grader, text, option, float(option == one["gold"]))
        for reading in readings
        for one in reading.records
        if "released" in one
        for grader, field in graders.items()
        for answer, text in answers.items()
        for option in [one["released"][f"{answer}/{field}"]]
    ]
    return pd.DataFrame(rows, columns=["model", "id", "grader", "answer", "chosen", "accuracy"])


def dialogue_changes(talks: pd.DataFrame) -> dict[str, Estimate]:
    """By model `changes` from the first answer to that after the review, graded strictly; none names an option as well (-1)."""
    found = {}
    for model, part in talks[talks["grader"] == "strict"].groupby("model", sort=False):
        first, second = (part[part["answer"] == name] for name in ("first answer", "after the review"))
        found[model] = changes(first, second)
    return found


def changes(first: pd.DataFrame, after: pd.DataFrame) -> Estimate:
    """Share of items whose answer after names another option than the first, with the exact (Clopper-Pearson) 95 % interval."""
    both = first.merge(after, on="id", suffixes=("_first", "_after"), validate="one_to_one")
    return exact((both["chosen_first"] != both["chosen_after"]).to_numpy())


def changed_text(found: Estimate) -> str:
    """What was seen to change, in words; where nothing did, what that excludes."""
    hits = round(found.estimate * found.n)
    if not hits:
        return f"no answer changed (of {found.n}; a share above {found.hi:.3f} is excluded)"
    return f"{hits} of {found.n} answers changed ({found.estimate:.3f}, {found.lo:.3f} to {found.hi:.3f})"


def table(readings: Sequence[Reading]) -> pd.DataFrame:
    """The bias review by model and kind of item.

    Columns: model, kind, items, `called biased` (share of first answers), changed (with its exact lo and hi), and the
    accuracy of the answers of `REVIEWS`, and of the majority of three samples.
    """
    rows = []
    for reading in readings:
        told, votes = reviews(reading), sampled(reading.records, "review")
        for kind in CONDITIONS if told else ():
            part = {name: t[t["condition"] == kind] for name, t in told.items()}
            d = changes(part["first answer"], part["bias review"])
            row = {"model": effects.title(reading), "kind": kind, "items": d.n}
            row |= {"called biased": part["bias review"]["biased review"].mean()}
            row |= {"changed": d.estimate, "lo": d.lo, "hi": d.hi}
            row |= {name: t["accuracy"].mean() for name, t in part.items()}
            rows.append(row | {"majority": votes[votes["condition"] == kind]["accuracy"].mean()})
    return pd.DataFrame(rows)


def compute_table(readings: Sequence[Reading]) -> pd.DataFrame:
    """Self-critique against as many readings spent on sampled answers: accuracy by model and kind of item.

    Columns: model, kind, items, `first answer` (the majority of very many samples), `one sample`, `three`, `five`, `five, whole
    texts` (sampled by the probability of the whole text), `self-critique`, and `less five`: self-critique less five samples,
    with its 95 % lo and hi.
    """
    rows, core = [], "core"
    for reading in readings:
        samples = {
            "one sample": (1, True),
            "three": (3, True),
            "five": (5, True),
            "five, whole texts": (5, False),
        }
        told = {"first answer": effects.answers(reading, "first answer")}
        told |= {name: sampled(reading.records, core, *how) for name, how in samples.items()}
        told |= {"self-critique": effects.answers(reading, "self-critique")}
        for kind in CONDITIONS:
            part = {name: t[t["condition"] == kind] for name, t in told.items()}
            d = effects.paired(part["self-critique"], part["five"], "accuracy")
            row = {"model": effects.title(reading), "kind": kind, "items": len(part["five"])}
            row |= {name: t["accuracy"].mean() for name, t in part.items()}
            rows.append(row | {"less five": d.estimate, "lo": d.lo, "hi": d.hi})
    return pd.DataFrame(rows)


def review_effects(reading: Reading) -> dict[str, dict] | None:
    """What the bias review did, as claims take it, or None where it was not read.

    `gain`, `control`, `instruction`: accuracy after the own review less that of the first answer, of being asked again, of the
    instruction alone, by kind of item; `bias`: change of the bias score; `changed`: share of answers that changed.
    """
    told = reviews(reading)
    if not told:
        return None
    own = told["bias review"]
    others = {"gain": "first answer", "control": "re-answer control", "instruction": "instruction control"}
    found = {name: effects.by_kind([own], [told[other]]) for name, other in others.items()}
    scores = (signs(one) for one in (own, told["first answer"]))
    found["bias"] = effects.part(effects.paired(*scores, "sign"))
    return found | {"changed": effects.part(changes(told["first answer"], own))}


def reviewed_items(reading: Reading) -> int:
    """Of how many items the bias review was read."""
    return sum("review" in record for record in reading.records)


def review_claims(record: Record, *ids: str, reading: Reading) -> None:
    """Record the five claims on a model's bias review, in the order of `review_effects`; untestable where it was not read."""
    found = review_effects(reading)
    names = ("gain", "control", "instruction", "bias", "changed")
    for id, name in zip(ids, names, strict=True):
        if found is None:
            why = "The bias review was not read of this model; `python -m ica.llm.protocol.extend` reads it."
            record.untestable(id, why)
        elif "value" in found[name]:
            record.claim(id, **found[name])
        else:
            record.claim(id, parts=found[name])
