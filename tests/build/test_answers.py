"""The sentence that an answer begins with: shown only while the claims stand as it needs, and on every page of the book."""

import json
import re
from pathlib import Path

import pytest

from ica.build import download, notebooks
from ica.build.answers import short, standing

ROOT = Path(__file__).parents[2]
HEAD = re.compile(r"^```\{answer\} ([^\n]*)\n:when: ([^\n]*)\n:short: ([^\n]*)\n", re.MULTILINE)
REFERENCE = json.loads((ROOT / "results" / "reference.json").read_text(encoding="utf-8"))["claims"]


def row(verdict, *outcomes):
    return {"verdict": verdict, "outcomes": dict(enumerate(outcomes or [verdict])), "says": "So."}


WHOLE, SOME, NONE = row("supported"), row("mixed", "supported", "contradicted"), row("open", "open", "open")


def test_a_claim_stands_as_its_badge_says():
    assert [standing(one) for one in (WHOLE, SOME, NONE, row("open"))] == [
        "supported",
        "mixed (1 of 2 parts)",
        "open (none of 2 parts)",
        "open",
    ]


@pytest.mark.parametrize(
    "when, shown",
    [
        ("supported", True),
        ("supported, mixed (1 of 2 parts)", True),
        ("supported, mixed (1 of 2 parts), open (none of 2 parts)", True),
        ("contradicted", False),
        ("supported, mixed (2 of 2 parts)", False),
        ("supported, mixed", False),
    ],
)
def test_the_sentence_is_there_while_all_claims_stand_as_it_needs(when, shown):
    options = {"when": when, "short": "Yes."}
    assert short(options, [WHOLE, SOME, NONE]) == ("Yes." if shown else "")
    known = download.Known({"a": WHOLE, "b": SOME, "c": NONE}, {})
    page = download.markdown(f"```{{answer}} a b c\n:when: {when}\n:short: Yes.\nLimits.\n```", "demo", known)
    assert page.startswith("**Answer.** Yes.\n\n- So. **[supported]**" if shown else "**Answer**\n\n- So.")
    assert page.endswith("\n\nLimits.") and ":when:" not in page


@pytest.mark.parametrize(
    "options, message",
    [
        ({"short": "Yes."}, "`short` needs the verdicts"),
        ({"when": "supported", "short": " "}, "`short` needs the verdicts"),
        ({"when": "supported"}, "`when` needs a `short`"),
        ({"when": "suported", "short": "Yes."}, "`when` has 'suported'; accepted: supported, contradicted"),
        ({"when": "open (2 parts)", "short": "Yes."}, "'open \\(2 parts\\)'"),
        ({"when": "open, open", "short": "Yes."}, "names 2 verdicts, the answer only 1 claims"),
    ],
)
def test_options_that_cannot_be_meant_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        short(options, [NONE])
    assert short({}, [NONE]) == ""


@pytest.mark.parametrize("name", notebooks.listed(ROOT))
def test_every_answer_begins_with_a_sentence_that_holds_and_has_no_numbers(name):
    cells = notebooks.read(ROOT, name).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    heads = HEAD.findall(text)
    assert len(heads) == text.count("```{answer}") <= 1
    for ids, when, sentence in heads:
        rows = [REFERENCE[id] for id in ids.split()]
        assert short({"when": when, "short": sentence}, rows) == sentence
        assert not re.search(r"[\d$]", sentence) and sentence.endswith(".") and len(sentence) <= 140
