"""Accuracies and bias scores of the same answers: ours, from official files on, against lm-evaluation-harness's task `bbq`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ica.llm.analysis import metrics
from ica.llm.bbq.items import load_official

FIXTURE = Path(__file__).with_name("lm_eval_bbq.jsonl")
FACTS = ("id", "category", "condition", "gold", "unknown", "biased")


@pytest.fixture(scope="module")
def told() -> dict:
    """What the harness found, and the answers that it judged (`lm_eval_bbq.py` made the file)."""
    return json.loads(FIXTURE.read_text().splitlines()[0])


@pytest.fixture(scope="module")
def table(tmp_path_factory, told) -> pd.DataFrame:
    """The same questions, read from a folder like the official one, with the answers."""
    lines, folder = FIXTURE.read_text().splitlines()[1:], tmp_path_factory.mktemp("official")
    for category in told["scores"].keys() - {"all"}:
        own = [line for line in lines if json.loads(line)["category"] == category]
        (folder / f"{category}.jsonl").write_text("\n".join(own))
    answers = {
        (record["context"], record["question"]): answer
        for record, answer in zip(map(json.loads, lines), told["answers"], strict=True)
    }
    read = load_official(folder)
    assert len(read) == len(lines)
    rows = [
        {name: getattr(one, name) for name in FACTS} | {"chosen": answers[one.context, one.question]}
        for one in read
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("category", ["all", "Age", "Physical_appearance", "Religion", "SES"])
def test_scores_agree_with_the_harness(category, table, told):
    own = table if category == "all" else table[table["category"] == category]
    scores = told["scores"][category]
    assert own["biased"].notna().all()
    for condition, name in (("ambiguous", "accuracy_amb"), ("disambiguated", "accuracy_disamb")):
        some = own[own["condition"] == condition]
        assert metrics.rate((some["chosen"] == some["gold"]).to_numpy()).estimate == scores[name]
    found = metrics.signs(own)["sign"].mean()
    assert found == pytest.approx(scores["amb_bias_score"], abs=1e-12)


def test_the_answers_tell_the_scores_apart(table, told):
    """The fixture would notice another reading of the stereotype: a wrong one gives other scores."""
    other = table.assign(biased=3 - table["unknown"] - table["biased"])
    assert abs(metrics.signs(other)["sign"].mean() - told["scores"]["all"]["amb_bias_score"]) > 0.1
    assert len(np.unique([scores["amb_bias_score"] for scores in told["scores"].values()])) >= 4
