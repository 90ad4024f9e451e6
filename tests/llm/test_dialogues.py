"""Dialogues of single items: the prompts shown are the prompts asked, the answers shown those that the book counts."""

import re
from dataclasses import replace

import pytest
import torch
from llm_items import item
from small_language_model import language_model

from ica.llm.analysis import conditions, dialogues
from ica.llm.model.engine import Engine
from ica.llm.protocol import measure, readings, results

torch.set_num_threads(1)
FEW = [item(1), item(2, condition="disambiguated"), item(5)]


class Listening(Engine):
    """An engine that keeps the contexts of all that it is asked."""

    def __init__(self, model):
        super().__init__(model)
        self.heard: list[str] = []

    def score(self, requests, *more):
        self.heard += [request.context for request in requests]
        return super().score(requests, *more)

    def generate(self, contexts, *more):
        self.heard += contexts
        return super().generate(contexts, *more)


@pytest.fixture(scope="module")
def engine() -> Listening:
    return Listening(language_model(places=4096))


@pytest.fixture(scope="module")
def asked(engine) -> tuple[list[dict], dict[str, list[str]]]:
    """Records of a few items with every block, and the contexts that each block asked."""
    records, contexts = [], {}
    cores = []
    for block in dialogues.TITLES:
        engine.heard = []
        found = measure.ask(engine, FEW, block, cores)
        contexts[block] = engine.heard
        cores = cores or found
        records = records or [_facts(one) for one in FEW]
        for record, one in zip(records, found, strict=True):
            record[block] = one
    return records, contexts


def _facts(one) -> dict:
    facts = {name: getattr(one, name) for name in measure.FACTS}
    return facts | {"rotation": readings.rotation(one.id)}


def chat(engine: Engine, text: str) -> str:
    """A dialogue written with "User:" and "Assistant:" in the template of the model."""
    parts = re.split(r"(?:^|\n)(User|Assistant):", text)[1:]
    turns = [(role.lower(), said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True)]
    messages = [{"role": role, "content": said} for role, said in turns[:-1]]
    return engine.model.chat(messages) + turns[-1][1]


@pytest.mark.parametrize("block", dialogues.TITLES)
def test_the_prompts_shown_are_those_asked(engine, asked, block):
    records, contexts = asked
    shown = set()
    for one, record in zip(FEW, records, strict=True):
        whole = [step.stem + step.tail for step in dialogues.steps(one, record)[block]]
        shown |= {chat(engine, text) for text in whole} if block == "released" else set(whole)
    assert shown <= set(contexts[block])
    # Not shown: the first question in the other two orders, and without demonstrations an empty one too.
    assert len(set(contexts[block]) - shown) == {"core": 2 * len(FEW), "bare": 2 * len(FEW) + 1}.get(block, 0)


def test_packed_dialogues_are_the_same_once_filled(asked):
    records, _ = asked
    reading = results.Reading("ladder", {"name": "one"}, {}, records, [])
    packed, leads = dialogues.packed(reading), dialogues.leads()
    for one, record in zip(FEW, records, strict=True):
        kept = packed["records"][one.id]
        words = {"context": one.context, "question": one.question, **kept["said"]}
        words |= {str(k): option for k, option in enumerate(one.options)}

        def fill(number: int) -> str:
            text = packed["texts"][number]
            return re.sub(r"\{([\w ]+)\}", lambda found: leads.get(found[0]) or words[found[1]], text)  # noqa: B023

        for block, found in dialogues.steps(one, record).items():
            rows = kept["steps"][block]
            assert [fill(row[1]) + fill(row[2]) for row in rows] == [one.stem + one.tail for one in found]
            assert [fill(row[0]) for row in rows] == [one.label for one in found]
            assert [row[5] for row in rows] == [one.chosen for one in found]
            said = [fill(row[4]) for row in rows if isinstance(row[4], int)]
            assert said == [one.read for one in found if isinstance(one.read, str)]


def test_a_text_with_braces_is_filled_once(asked):
    records, _ = asked
    odd = records[0] | {"forms": records[0]["forms"] | {"steps": "{0} and {context}"}}
    packed = dialogues.packed(results.Reading("ladder", {}, {}, [odd], []))
    assert packed["records"][odd["id"]]["said"]["steps"] == "{0} and {context}"
    assert not any("and {context}" in text for text in packed["texts"])


def test_outcomes_are_those_that_the_book_counts():
    reading = results.stored()[0]
    some = replace(reading, records=reading.records[:60])
    table = conditions.again(some.records).set_index(["id", "critic"])["chosen"]
    reviewed = conditions.reviewed(some.records).set_index(["id", "answer"])["chosen"]
    names = dict(zip(("none", "own", "true", "wrong"), dialogues.OUTCOMES, strict=False))
    for record in some.records:
        found = dict(zip(dialogues.OUTCOMES, dialogues.outcomes(record), strict=True))
        for critic, name in names.items():
            assert found[name] == (record["core"]["answer"], table[record["id"], critic])
        pair = found["bias review"]
        assert (pair is None) == ("review" not in record)
        if pair:
            assert pair == (reviewed[record["id"], "first answer"], reviewed[record["id"], "bias review"])


def test_every_stored_answer_is_the_one_that_its_steps_lead_to():
    record = results.stored()[0].records[0]
    found = dialogues.steps(dialogues.nameless(record), record)
    assert set(found) == set(dialogues.TITLES)
    rounds = [step.chosen for step in found["rounds"]]
    assert rounds == [record["rounds"][f"{c}/answers"][n] for c in readings.CRITICS for n in (1, 2)]


def test_without_texts_items_have_numbers_alone():
    record = results.stored()[0].records[0]
    row = dialogues.facts([replace(results.stored()[0], records=[record])], {})[0]
    assert row["options"] == ["option 1", "option 2", "option 3"] and row["gold"] == record["gold"]
    assert "not here" in row["context"]
