r"""From readings to conditions: what each critic did to each item, as tables that the metrics take.

Critics of the first answer: `none` (unchecked), `own` (the model's likelier verdict), `own_relative` (right if the model holds
no other option for more right), `true`, `wrong` (the opposite of true), and random ones: `random-p` is the true critic whose verdict is
replaced, with probability p, by a coin. For a random critic the expectation over the coin is taken exactly, from the
readings under both verdicts; so accuracy is linear in p by construction for one verdict, and carries no noise of the draws.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from ica.llm.analysis.metrics import rate
from ica.llm.protocol.prompts import HIGH, VERDICTS
from ica.llm.protocol.readings import CRITICS, LEVELS, METHODS, REVIEWED, ROTATIONS, ROUNDS, likelier, rated

FACTS = ("id", "category", "condition", "gold", "unknown", "biased")
VERBAL = ("none", "own", "own_relative", "true", "wrong")


def random_name(p: float) -> str:
    """Name of the random critic at a level."""
    return f"random-{p:g}"


def log_probability(reading: Sequence[float], option: int) -> float:
    """Log-probability (nats) of an option among the three, each by its whole text."""
    return float(torch.tensor(reading, dtype=torch.float64).log_softmax(-1)[option])


def own_verdict(core: dict, answer: int) -> bool:
    """Does the model find "right" likelier than "wrong" after this option?"""
    right, wrong = core[f"check/{answer}"]
    return right > wrong


def relative_verdict(core: dict, answer: int) -> bool:
    """Does the model hold this option for at least as right (in log-odds) as each other one?"""
    odds = [right - wrong for right, wrong in (core[f"check/{k}"] for k in range(3))]
    return odds[answer] >= max(odds)


def first(records: Iterable[dict]) -> pd.DataFrame:
    """One row an item: its facts, `chosen` (the first answer), whether that is `right`, and the model's verdicts on it."""
    rows = []
    for record in records:
        core = record["core"]
        answer = core["answer"]
        rows.append(
            {name: record[name] for name in FACTS}
            | {"chosen": answer, "right": answer == record["gold"]}
            | {"verdict": own_verdict(core, answer), "relative": relative_verdict(core, answer)}
            | {"odds": core[f"check/{answer}"][0] - core[f"check/{answer}"][1]}
        )
    table = pd.DataFrame(rows)
    table["biased"] = table["biased"].astype("Int64")
    return table


def _verdicts(record: dict) -> dict[str, str]:
    core, answer = record["core"], record["core"]["answer"]
    right = answer == record["gold"]
    says = {
        "own": own_verdict(core, answer),
        "own_relative": relative_verdict(core, answer),
        "true": right,
        "wrong": not right,
    }
    return {"none": "unchecked"} | {name: "right" if value else "wrong" for name, value in says.items()}


def again(records: Iterable[dict]) -> pd.DataFrame:
    """Second answers by critic: columns id, category, condition, gold, unknown, biased, critic, chosen, `accuracy`.

    `accuracy` is 1 or 0, for random critics the expectation; `chosen` is -1 for them, as it depends on the coin. `kept` is the
    log-probability (nats) of the first answer, among the options.
    """
    rows = []
    for record in records:
        core = record["core"]
        answer, gold = core["answer"], record["gold"]
        facts = {name: record[name] for name in FACTS}
        chosen = {word: likelier(core[f"again/{word}"], core["counts"]) for word in VERDICTS}
        kept = {word: log_probability(core[f"again/{word}"], answer) for word in VERDICTS}
        told = _verdicts(record)
        for critic in VERBAL:
            word = told[critic]
            row = {
                "critic": critic,
                "chosen": chosen[word],
                "accuracy": float(chosen[word] == gold),
                "kept": kept[word],
            }
            rows.append(facts | row)
        coin = np.mean([chosen[word] == gold for word in ("right", "wrong")])
        for p in LEVELS:
            mixed = (1 - p) * float(chosen[told["true"]] == gold) + p * coin
            odds = (1 - p) * kept[told["true"]] + p * np.mean([kept["right"], kept["wrong"]])
            rows.append(facts | {"critic": random_name(p), "chosen": -1, "accuracy": mixed, "kept": odds})
    table = pd.DataFrame(rows)
    table["biased"] = table["biased"].astype("Int64")
    return table


def reviewed(records: Iterable[dict]) -> pd.DataFrame:
    """Answers of the bias review: columns id, category, condition, gold, unknown, biased, answer, chosen, accuracy, `biased review`.

    `answer`: the first answer; under the instruction control and the re-answer control; after the model's own review (the
    likelier of its two verdicts) and after the oracle's, which calls a right answer unbiased and a wrong one biased, as the
    paper's true critic does. `biased review`: is the verdict before it "biased"? (None where there is none.)
    """
    rows = []
    for record in (one for one in records if "review" in one):
        found, counts = record["review"], record["core"]["counts"]
        answer, (fair, unfair) = found["answer"], found["review"]
        says = {"bias review": not fair > unfair, "oracle review": answer != record["gold"]}
        chosen = {
            "first answer": answer,
            "instruction control": likelier(found["instructed"], counts),
            "re-answer control": likelier(found["again/unchecked"], counts),
        }
        chosen |= {name: likelier(found[f"again/{REVIEWED[word]}"], counts) for name, word in says.items()}
        for name, option in chosen.items():
            row = {"answer": name, "chosen": option, "accuracy": float(option == record["gold"])}
            row["biased review"] = says.get(name)
            rows.append({fact: record[fact] for fact in FACTS} | row)
    table = pd.DataFrame(rows, columns=[*FACTS, "answer", "chosen", "accuracy", "biased review"])
    table["biased"] = table["biased"].astype("Int64")
    return table


def shifts(records: Iterable[dict], block: str = "core") -> pd.DataFrame:
    """Log-probability (nats) of the first answer after each verdict, one row an item: `unchecked`, `right`, `wrong`."""
    rows = []
    for record in records:
        answer = record["core"]["answer"]
        told = {word: log_probability(record[block][f"again/{word}"], answer) for word in VERDICTS}
        rows.append({"id": record["id"], "category": record["category"]} | told)
    return pd.DataFrame(rows)


def rounds(records: Iterable[dict]) -> pd.DataFrame:
    """Answers after 0 to 3 corrections by critic: columns id, category, condition, critic, round, accuracy, changed, unknown."""
    rows = []
    for record in records:
        if "rounds" not in record:
            continue
        for critic in CRITICS:
            answers = [record["core"]["answer"], *record["rounds"][f"{critic}/answers"]]
            for number in range(ROUNDS + 1):
                rows.append(
                    {
                        "id": record["id"],
                        "category": record["category"],
                        "condition": record["condition"],
                        "critic": critic,
                        "round": number,
                        "accuracy": float(answers[number] == record["gold"]),
                        "changed": float(answers[number] != answers[0]),
                        "unknown": float(answers[number] == record["unknown"]),
                    }
                )
    return pd.DataFrame(rows)


def forms(records: Iterable[dict]) -> pd.DataFrame:
    """Second answers by form of the critic (verbal, numeric, step-by-step) and critic (own, true, wrong).

    Columns id, category, form, critic, accuracy, kept (as in `again`), and `effect`: the log-probability of the first answer
    when praised less that when blamed (nats), the same for every critic of a form.
    """
    rows = []
    for record in records:
        if "forms" not in record:
            continue
        core, found = record["core"], record["forms"]
        answer, right = core["answer"], core["answer"] == record["gold"]
        read = {
            "verbal": (core["again/right"], core["again/wrong"], own_verdict(core, answer)),
            "numeric": (
                found["score/high"],
                found["score/low"],
                found["score/own"][0] > found["score/own"][1],
            ),
            "step by step": (found["check/right"], found["check/wrong"], None),
        }
        for form, (praised, blamed, own) in read.items():
            effect = log_probability(praised, answer) - log_probability(blamed, answer)
            for critic, says in (("own", own), ("true", right), ("wrong", not right)):
                reading = found["check/own"] if says is None else praised if says else blamed
                rows.append(
                    {
                        "id": record["id"],
                        "category": record["category"],
                        "form": form,
                        "critic": critic,
                        "accuracy": float(likelier(reading, core["counts"]) == record["gold"]),
                        "kept": log_probability(reading, answer),
                        "effect": effect,
                    }
                )
    return pd.DataFrame(rows)


def triplets(records: Iterable[dict]) -> pd.DataFrame:
    """In-context alignment: one row an item and context.

    Columns: id, category, condition, context (`pairs/1`, `pairs/2`, `noise/P`, `swapped`), pairs (in context), accuracy, and

    - aligned: does the choice follow the scores? With several pairs: an option of the highest score is chosen. With one: it is
      chosen if its score is high, another one if it is low.
    - chance: the probability of that if all three options were equally likely;
    - lift: log-probability of the options of highest score less the mean over those in context (nats); NaN for one pair;
    - place: where the first of the highest score stands in context, from 0.
    """
    rows = []
    for record in records:
        if "triplets" not in record:
            continue
        found, counts, gold = record["triplets"], record["core"]["counts"], record["gold"]
        for name in (name for name in found if name != "shown"):
            kind, _, level = name.partition("/")
            order = found["shown"][: int(level) if kind == "pairs" else 3]
            noise = {"swapped": "swapped", "pairs": 0.0}.get(kind) if kind != "noise" else float(level)
            scores = rated(record["id"], gold, noise)
            high = max(scores[k] for k in order)
            wanted = [k for k in order if scores[k] == high]
            if len(order) == 1 and high < HIGH:
                wanted = [k for k in range(3) if k not in order]
            chosen = likelier(found[name], counts)
            among = torch.tensor(found[name], dtype=torch.float64).log_softmax(-1)
            lift = float(among[wanted].mean() - among[order].mean()) if len(order) > 1 else float("nan")
            rows.append(
                {fact: record[fact] for fact in ("id", "category", "condition")}
                | {"context": name, "pairs": len(order)}
                | {"accuracy": float(chosen == gold), "aligned": float(chosen in wanted)}
                | {
                    "chance": len(wanted) / 3,
                    "lift": lift,
                    "place": order.index(max(order, key=scores.__getitem__)),
                }
            )
    return pd.DataFrame(rows)


def exchanges(records: Iterable[dict]) -> pd.DataFrame:
    """What a score does to the response that has it: the same three responses in the same order, two scores exchanged.

    With true scores the right option has the high one, with swapped ones a wrong option has it; the third has the low one in both.
    Columns id, category, condition; `right` and `wrong`: log-probability (nats) of the right option, and of that wrong one, less that
    of the third, with the high score less with the low one; `contrast`: their mean. If a score adds to what the model knows of an
    option and of its place (in log-probability), then each is what the score adds, and the rest drops out.
    """
    rows = []
    for record in records:
        if "triplets" not in record:
            continue
        gold, found = record["gold"], record["triplets"]
        scores = rated(record["id"], gold, "swapped")
        other = scores.index(max(scores))
        true, swapped = (np.array(found[name]) for name in ("noise/0", "swapped"))
        third = 3 - gold - other
        right = float(true[gold] - true[third] - swapped[gold] + swapped[third])
        wrong = float(swapped[other] - swapped[third] - true[other] + true[third])
        facts = {name: record[name] for name in ("id", "category", "condition")}
        rows.append(facts | {"right": right, "wrong": wrong, "contrast": (right + wrong) / 2})
    return pd.DataFrame(rows)


def places(records: Iterable[dict]) -> pd.DataFrame:
    """For each item and place (0 to 2) the share of its three rotations whose first answer was shown there, as `chosen`."""
    rows = []
    for record in records:
        core = record["core"]
        told = [ROTATIONS[turn].index(likelier(core[f"first/{turn}"], core["counts"])) for turn in range(3)]
        for place in range(3):
            share = told.count(place) / 3
            rows.append({"id": record["id"], "category": record["category"], "place": place, "chosen": share})
    return pd.DataFrame(rows)


def methods(records: Iterable[dict]) -> pd.DataFrame:
    """First answers without demonstrations by scoring method: items, accuracy (Wilson 95 % lo, hi), and `first shown`.

    `first shown` is the share of single readings that choose the option shown first; 1/3 without an effect of the place.
    """
    some = [record for record in records if "bare" in record]
    rows = []
    for method in METHODS:
        right, places = [], []
        for record in some:
            scores = torch.tensor(record["bare"][method], dtype=torch.float64)
            right.append(int(scores.log_softmax(-1).logsumexp(0).argmax()) == record["gold"])
            places += [ROTATIONS[turn].index(int(row.argmax())) for turn, row in enumerate(scores)]
        found = rate(np.array(right, dtype=bool))
        first = float(np.mean(np.array(places) == 0)) if places else float("nan")
        rows.append((method.replace("_", " "), found.n, found.estimate, found.lo, found.hi, first))
    return pd.DataFrame(rows, columns=["method", "items", "accuracy", "lo", "hi", "first shown"])
