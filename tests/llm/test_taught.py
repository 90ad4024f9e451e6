"""Critics that are taught: the items, the lessons, the training, and the whole path of a run."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_language_model import language_model

from ica.llm.bbq.items import UNKNOWN
from ica.llm.model import assets
from ica.llm.model.scoring import plain_log_probabilities
from ica.llm.taught import items, lessons, live, run, settings, train
from ica.llm.taught.settings import ARMS, Arm, Recipe

SMALL = language_model(places=2048)
QUICK = Recipe(
    first=4, reading=2, texts=2, tried=1, steps=4, critic=1, user=1, plain=1, every=2, warmup=1, rate=1e-3
)


def drawn(count: int, **choice) -> list[items.Made]:
    return [items.make(np.random.default_rng(seed), **choice) for seed in range(count)]


# Items


@pytest.mark.parametrize("condition", items.CONDITIONS)
def test_items_are_right_by_their_condition(condition):
    known = items.kinds(condition)
    assert len(known) >= 8
    for made in drawn(200, condition=condition):
        item = made.item
        assert item.options[item.unknown].lower() in UNKNOWN and made.kind in known
        assert (item.gold == item.unknown) == (condition == "ambiguous")
        assert not re.search(r"[{}]|\. [a-z]|  ", item.context + " " + item.question)
        assert item.context[0].isupper() and item.context[-1] in ".?" and item.question[-1] == "?"


def test_what_is_told_names_the_right_thing():
    """Of kinds that say it in one clause, the right option stands beside what is asked for and the other beside its opposite."""
    facts = [fact for family in items.families(False) for fact in family["facts"]]
    for made in drawn(300, condition="disambiguated", kind="contrast"):
        item = made.item
        fact = next(
            one for one in facts if item.question in one["ask"] + one["ask_no"] and one["is"] in item.context
        )
        wanted = fact["is"] if item.question in fact["ask"] else fact["isnt"]
        names = [option.lower() for k, option in enumerate(item.options) if k != item.unknown]
        before = item.context.lower().split(wanted)[0]
        last = max(names, key=before.rfind)
        assert last == item.options[item.gold].lower(), item


def test_numbers_are_compared_as_asked():
    more = {one["more"] for one in items.measures(False)}
    for made in drawn(200, condition="disambiguated", kind="numbers"):
        item, said = made.item, {}
        for k, option in enumerate(item.options):
            if k != item.unknown:
                clause = next(
                    c
                    for c in re.split(r"[.,;] ", item.context)
                    if option.lower() in c.lower() and re.search(r"\d", c)
                )
                said[k] = int(re.search(r"\d+", clause)[0])
        best = (max if item.question in more else min)(said, key=said.get)
        assert best == item.gold, item


def test_no_place_of_the_right_option_is_preferred():
    golds = [made.item.gold for condition in items.CONDITIONS for made in drawn(600, condition=condition)]
    counts = np.bincount(golds)
    assert abs(counts / len(golds) - 1 / 3).max() < 0.05
    first = [
        made.item.options[made.item.gold].lower() in made.item.context.lower()[:60]
        for made in drawn(600, condition="disambiguated", kind="one")
    ]
    assert 0.3 < np.mean(first) < 1


def test_held_out_items_share_no_family_measure_or_form_with_taught_ones():
    taught = {thing for family in items.families(False) for thing in family["things"]}
    held = {thing for family in items.families(True) for thing in family["things"]}
    assert not taught & held and len(items.families(True)) >= 2
    for condition in items.CONDITIONS:
        for kind in items.kinds(condition):
            if kind != "nothing":
                assert not set(items.forms(condition, kind, False)) & set(items.forms(condition, kind, True))
    found = items.held_out(40)
    assert len({made.item.id for made in found}) == 80 == len(found) and found == items.held_out(40)
    assert {made.kind for made in found} == {k for c in items.CONDITIONS for k in items.kinds(c)}
    options = " ".join(option for made in found for option in made.item.options)
    assert not any(re.search(rf"\b{thing}\b", options) for thing in taught)


def test_another_condition_or_kind_is_named():
    with pytest.raises(ValueError, match="condition must be one of"):
        items.make(np.random.default_rng(0), "unclear")
    with pytest.raises(ValueError, match="kind must be one of"):
        items.make(np.random.default_rng(0), "ambiguous", kind="contrast")


# Lessons


def test_lessons_of_a_critic_follow_the_right_option_and_the_noise():
    item, flips = drawn(1, condition="disambiguated")[0].item, []
    for noise in settings.LEVELS:
        turned = 0
        for seed in range(200):
            lines = lessons.criticise(item, noise, np.random.default_rng(seed))
            words = [line.answer == " right" for line in lines]
            turned += sum(word != (k == item.gold) for k, word in enumerate(words))
        flips.append(turned / 600)
    assert flips[0] == 0 and flips[-1] == 1
    assert np.allclose(flips, settings.LEVELS, atol=0.06)


def test_both_verdicts_weigh_alike_after_an_unknown_phrase_and_after_a_thing():
    """Over as many told items as silent ones: so a critic gains nothing by a look at the attempt alone."""
    weights = {True: np.zeros(2), False: np.zeros(2)}
    for condition in items.CONDITIONS:
        for made in drawn(20, condition=condition):
            for k, line in enumerate(lessons.criticise(made.item, 0.0, np.random.default_rng(0))):
                weights[k == made.item.unknown][lessons.WORDS.index(line.answer[1:])] += line.weight
    assert all(wrong == right > 0 for wrong, right in weights.values())


def test_the_first_stage_begins_with_reading_and_does_not_know_the_rest_of_the_arm():
    recipe = replace(QUICK, first=40, reading=20, texts=5, tried=2)
    courses = {name: lessons.first_stage(arm, 0, recipe) for name, arm in ARMS.items()}
    for alike in (("critic", "both", "both-1"), ("neither", "user")):
        assert len({str((courses[name].mark, courses[name].of(33))) for name in alike}) == 1
    assert courses["both"].of(3) != courses["user"].of(3)
    for step, rows, verdicts in ((3, 5, 0), (19, 5, 0), (20, 2, 3), (39, 2, 3)):
        assert len(courses["both"].of(step)) == len(courses["user"].of(step)) == rows
        for *tries, said in courses["both"].of(step):
            assert len(tries) == verdicts and said.context.endswith("The text says:")
            right = [line.context for line in tries if line.answer == " right"]
            assert all(text.endswith(f"Attempt:{said.answer}\nVerdict:") for text in right)
            assert len(right) == bool(verdicts)


def test_lessons_of_a_user_are_told_by_verdicts_and_scores_alone():
    """The right option is any of the three as often; a verdict or score never contradicts the answer."""
    item, answers = drawn(1, condition="ambiguous")[0].item, []
    for seed in range(300):
        lines = lessons.use(item, np.random.default_rng(seed))
        (answer,) = {line.answer[1:] for line in lines}
        answers.append(item.options.index(answer))
        for line in lines:
            for tried, word in re.findall(r"Attempt: (.*)\nVerdict: (\w+)", line.context):
                assert (tried == answer) == (word == "right")
            for tried, score in re.findall(r"Attempt: (.*)\nScore: (\d+)/10", line.context):
                assert (tried == answer) == (int(score) >= lessons.HIGH[0])
    assert abs(np.bincount(answers) / 300 - 1 / 3).max() < 0.09


def test_arms_differ_in_what_replaces_what_and_share_their_contexts():
    steps = {name: lessons.second_stage(arm, 3, Recipe()).of(5) for name, arm in ARMS.items()}
    assert {len(rows) for rows in steps.values()} == {Recipe().contexts}
    verdicts = {
        n: sum(line.context.endswith("Verdict:") for row in rows for line in row) for n, rows in steps.items()
    }
    assert (
        verdicts["neither"]
        == verdicts["user"]
        == 0
        < verdicts["critic"]
        == verdicts["both"]
        == 3 * Recipe().critic
    )
    final = {
        n: sum("Verdict: wrong" in line.context for row in rows for line in row) for n, rows in steps.items()
    }
    assert final["neither"] == final["critic"] == 0 < final["user"] == final["both"]
    assert steps["both"] == lessons.second_stage(ARMS["both"], 3, Recipe()).of(5)
    assert (
        steps["both"]
        != lessons.second_stage(ARMS["both"], 4, Recipe()).of(5)
        != lessons.second_stage(ARMS["both"], 4, Recipe()).of(6)
    )


def test_a_row_of_lines_gives_the_loss_of_its_lines_one_by_one():
    model = SMALL
    rows = [
        [
            lessons.Line("The cat", " sat down", 2.0),
            lessons.Line("The cat", " ran"),
            lessons.Line("The dog in", " it"),
        ],
        [lessons.Line("In the", " rather long end")],
    ]
    wanted, total = 0.0, 0.0
    for line in (line for row in rows for line in row):
        wanted -= line.weight * float(plain_log_probabilities(model, line.context, [line.answer]).means[0])
        total += line.weight
    for precision, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        network = copy.deepcopy(model.network)
        train._put(dict(model.network.named_parameters()), network, precision)
        for size in (1, 2):
            found = sum(float(train.loss_of(network, batch)) for batch in lessons.packed(model, rows, size))
            assert abs(found - wanted / total) < bound


# Training and runs


def taught(folder: Path, steps: int, recipe: Recipe = QUICK) -> tuple[dict, train.Progress]:
    fresh = replace(SMALL, network=copy.deepcopy(SMALL.network))
    course = lessons.second_stage(ARMS["both"], 0, replace(recipe, steps=steps))
    done = train.train(fresh, course, recipe, folder)
    return {name: weight.clone() for name, weight in fresh.network.named_parameters()}, done


def test_training_lowers_the_loss_repeats_and_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole, done = taught(tmp_path / "a", 4)
    again, _ = taught(tmp_path / "b", 4)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert any(
        not torch.equal(weight, dict(SMALL.network.named_parameters())[name])
        for name, weight in whole.items()
    )
    stage, seen = lessons.second_stage, []

    def stopping(*about):
        course = stage(*about)

        def stop(number):
            seen.append(number)
            if len(seen) == 4:
                raise KeyboardInterrupt
            return course.of(number)

        return replace(course, of=stop)

    monkeypatch.setattr(lessons, "second_stage", stopping)
    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "c", 4)
    found, resumed = taught(tmp_path / "c", 4)
    assert seen == [0, 1, 2, 3, 2, 3] and resumed.losses == done.losses
    assert all(torch.equal(whole[name], found[name]) for name in whole)


def test_a_checkpoint_of_another_run_and_a_damaged_one_are_refused(tmp_path):
    taught(tmp_path, 2)
    with pytest.raises(train.TrainingError, match="it is of another run.*remove it to begin anew"):
        taught(tmp_path, 4)
    (tmp_path / train.FILE).write_bytes(b"no tensors")
    with pytest.raises(train.TrainingError, match="cannot be used"):
        taught(tmp_path, 2)


def test_one_folder_is_held_by_one_process(tmp_path):
    with run.alone(tmp_path), pytest.raises(train.TrainingError, match="is in use"), run.alone(tmp_path):
        pass


def test_runs_are_named_in_an_order_of_which_every_beginning_is_of_use():
    names = list(settings.runs())
    assert len(names) == 24 and set(names[:4]) == {f"{arm}-seed0" for arm in settings.CORNERS}
    assert {name.rpartition("-")[2] for name in names[:8]} == {"seed0"}
    assert settings.chosen("both user-seed1") == [("both", 0), ("both", 1), ("both", 2), ("user", 1)]
    with pytest.raises(ValueError, match=r"RUNS: 'bith' is no run; did you mean both\?"):
        settings.chosen("bith")
    with pytest.raises(ValueError, match="noise is for arms with both abilities"):
        Arm(True, False, 0.5)
    with pytest.raises(ValueError, match="steps"):
        Recipe(steps=0)


@pytest.mark.skipif(
    not (assets.is_here("smollm2") and assets.is_here("bbq")), reason="SmolLM2 or BBQ is not in the cache"
)
def test_the_whole_path_repeats_bit_for_bit_and_another_seed_differs(tmp_path, monkeypatch):
    from ica.llm.model.load import load

    monkeypatch.setenv("ICA_CALLS", str(tmp_path))
    base = load(settings.BASE)
    first, again, other = (live.once(base, ARMS["both"], seed, QUICK, 3) for seed in (0, 0, 1))
    assert first == again and first["losses"] != other["losses"]
    assert len(first["losses"]) == QUICK.first + QUICK.steps
    assert len(first["asked"]["bbq"]["id"]) == 6 and first["losses"][-1] < first["losses"][0]
    assert not list(tmp_path.iterdir())  # kept answers go with the run
