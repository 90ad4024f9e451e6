"""Parameters of the notebooks: what each accepts is said in one table, and anything else is refused by its own name before it runs."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.build import notebooks
from ica.record import parameters
from ica.record.parameters import ACCEPTED, ParametersError

ROOT = Path(__file__).parents[2]
LISTED = notebooks.listed(ROOT)
DECLARED = {name: notebooks.declared(notebooks.read(ROOT, name), name) for name in LISTED}
PAIRS = [(name, key) for name in LISTED for key in DECLARED[name]]
NEVER = (None, True, False, [], {}, float("nan"), float("inf"), -1, 0, 10**12, "", " ", "1", b"x", 1j, [True])


def one_line(error: Exception) -> str:
    message = str(error)
    assert "\n" not in message and len(message) < 600, message
    return message


# The table


def test_the_table_is_of_what_the_notebooks_declare():
    assert set(ACCEPTED) == set(LISTED)
    for name in LISTED:
        assert set(ACCEPTED[name]) == set(DECLARED[name]), name


@pytest.mark.parametrize("name", LISTED)
def test_defaults_and_profiles_are_accepted(name):
    parameters.checked(name, DECLARED[name])
    for profile in notebooks.PROFILES:
        parameters.checked(name, DECLARED[name] | notebooks.overrides_of(ROOT, name, profile))


def mentioned(node: ast.AST) -> set[str]:
    """Names and texts in a piece of code: `depth` names its parameters by texts."""
    found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return found | {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}


def called(node: ast.AST) -> set[str]:
    return {
        one.func.id for one in ast.walk(node) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)
    }


@pytest.mark.parametrize("name", LISTED)
def test_every_notebook_checks_all_its_parameters_before_it_uses_any(name):
    """Up to the first `Record` or `checked` parameters are only put into dictionaries, and then all of them are there."""
    cells = notebooks.python_cells(notebooks.read(ROOT, name))
    statements = [one for source in cells[1:] for one in ast.parse(source).body]
    check = next(k for k, one in enumerate(statements) if called(one) & {"Record", "checked"})
    used = [one for one in statements[: check + 1] if mentioned(one) & set(DECLARED[name])]
    assert not [ast.unparse(one) for one in used[:-1] if called(one)]
    assert set(DECLARED[name]) <= set().union(*map(mentioned, used))


# Values


@pytest.mark.fault(
    "Settings",
    "Any parameter of any notebook is set to a truth value, nothing, text, an empty list, NaN, infinity, or a number far out of range",
    "Refused before anything runs, by the notebook's own name for it, with what is accepted",
)
@pytest.mark.parametrize(("name", "key"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_values_out_of_range_are_named(name, key):
    for value in NEVER:
        if type(value) is str and value.strip() and key in parameters.TEXTS:
            continue
        if value == 0 and type(value) is int and key == "seed":
            continue
        with pytest.raises(ParametersError) as caught:
            parameters.checked(name, {key: value})
        message = one_line(caught.value)
        assert (
            message.startswith(f"parameter {key} of notebook {name} must be a") or "must be one of" in message
        )


@given(
    value=st.recursive(
        st.integers() | st.floats() | st.text(max_size=9) | st.none() | st.booleans(), st.lists, max_leaves=5
    )
)
def test_random_values_are_accepted_or_named(value):
    for name, key in PAIRS:
        try:
            parameters.checked(name, {key: value})
        except ParametersError as error:
            assert key in one_line(error)
        else:
            assert json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sizes", [4, 2], "a list of 1 or more increasing whole numbers of 2 to 256, got [4, 2]"),
        ("sizes", [2, 2], "increasing"),
        ("sizes", [2, 4.0], "whole numbers"),
        ("sizes", list(range(2, 200)), "increasing whole numbers"),
        ("d", 9, "a whole number of 2 to 8, got 9"),
        ("prompts", 10**100, "a whole number of 1 to 100000, got 1000"),
        ("seed", -1, "a whole number of 0 to 1000000, got -1"),
    ],
)
def test_messages_say_what_is_accepted(name, value, message):
    with pytest.raises(
        ParametersError, match=re.escape(f"parameter {name} of notebook alignment must be")
    ) as caught:
        parameters.checked("alignment", {name: value})
    assert message in one_line(caught.value)


# Settings of a build, and of one notebook


@pytest.mark.fault(
    "Settings",
    "SET names a parameter that there is not, or one twice, or gives a value that is none",
    "One line before anything runs, with the name that was meant",
)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("promts=3", "SET: no notebook declares the parameter 'promts'; did you mean prompts? accepted: also, attacks, batch, "),
        ("seed=1 seed=2", "SET: seed is given twice"),
        ("seed=1 prompts", "SET: 'prompts' is not of the form name=value"),
        ("seed='1", "cannot be split into name=value: No closing quotation"),
        ("prompts=0", "SET: parameter prompts of notebook alignment must be a whole number of 1 to 100000, got 0"),
        ("prompts=10000000000000", "must be a whole number of 1 to 100000, got 10000000000000"),
        ("prompts=true", "must be a whole number of 1 to 100000, got True"),
        ("prompts=" + "9" * 5000, "must be a whole number of 1 to 100000, got '999"),
        ("prompts=" + "[" * 5000, "must be a whole number of 1 to 100000, got '[[["),
        ("prompts={[]:1}", "must be a whole number of 1 to 100000, got '{[]:1}'"),
        ("prompts=1e999", "must be a whole number of 1 to 100000, got inf"),
        ("scale=cii", "SET: parameter scale of notebook panel_a must be one of ci, paper, got 'cii'"),
        ("pace=1.5", "SET: parameter pace of notebook several_queries must be a number above 0 and below 1, got 1.5"),
        ("model_seeds=[1,1]", "must be a list of 2 to 100 different whole numbers of 0 to 1000000, got [1, 1]"),
        ("model=", "SET: parameter model of notebook taught must be a name or a path"),
        ({"model": "\ud800"}, "must be a name or a path"),
        ({"model": 3}, "must be a name or a path, of at most 4096 characters, got 3"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        notebooks.overrides(ROOT, "ci", settings)
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "Settings",
    "A model or a folder is named true, 1e3, [x], a=b c, or with quotes, a dollar, newlines or letters beyond ASCII",
    "The notebooks get that very text",
)
@pytest.mark.parametrize(
    "text", ["true", "1e3", "None", "[x]", "a=b c", "x: y", "it's \"so\"", "$(ls) `ls` $$", "two\nlines", "modèle/ü", "3", "#"]
)  # fmt: skip
def test_texts_arrive_as_they_are(text):
    given = json.loads(json.dumps({"model": text, "items": text}))
    values = notebooks.overrides(ROOT, "ci", given)
    assert values["llm_bbq"] == given and values["llm_jailbreak"] == {"model": text}
    if "'" not in text:
        assert notebooks.assignments(f"model='{text}'") == {"model": text}


@pytest.mark.fault(
    "Settings",
    "A single notebook is run with a parameter that it does not declare, or a notebook that there is not",
    "One line with what it declares, and the name that was meant",
)
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("panel_c", "seed=3", "SET: notebook panel_c declares no parameter 'seed'; accepted: scale"),
        ("alignment", "promts=3", "'promts'; did you mean prompts? accepted: d, prompts, seed, sizes"),
        ("alignmnt", "", "no notebook 'alignmnt'; did you mean alignment? accepted: ablations, "),
        ("alignment", "d=1", "parameter d of notebook alignment must be a whole number of 2 to 8, got 1"),
    ],
)
def test_one_notebook_takes_its_own_parameters(name, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        notebooks.overrides_of(ROOT, name, "ci", settings)
    assert notebooks.overrides_of(ROOT, "alignment", "paper", "seed=3") == {"prompts": 2000, "seed": 3}


@pytest.mark.fault(
    "Settings",
    "notebooks/profiles.yml is no YAML, no table, or holds a value out of range",
    "One line with profile, notebook and parameter",
)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ci: {alpha: [", "profiles.yml: no YAML"),
        ("- 1", "profiles.yml: must map profiles to notebooks, got [1]"),
        ("ci: {1: {}}", "profiles.yml: no notebook 1; accepted: alpha, beta, gamma"),
        ("ci: {alpha: {1: 2}}", "notebook alpha declares no parameter 1; accepted: scale, seed"),
        ("[" * 3000, "profiles.yml: no YAML"),
    ],
)
def test_profiles_that_are_none_are_named(sources, table, message):
    (sources / "notebooks/profiles.yml").write_text(table + "\n")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        notebooks.overrides(sources, "ci")
    assert "\n" not in str(caught.value)


# Notebooks run by hand


@pytest.mark.fault(
    "Settings",
    "A notebook that a reader opened has a wrong value, or one of another type, in its cell of parameters",
    "Its next cell refuses it by its name, before any work",
)
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("alignment", "prompts", 0),
        ("heads", "seed", "7"),
        ("overtraining", "model_seeds", 3),
        ("ablations", "bt_seeds", True),
        ("panel_c", "scale", ["ci"]),
        ("critics", "prompts", 1000),
        ("mechanism", "n", 40),
        ("llm_bbq", "model", 3),
    ],
)
def test_a_wrong_value_is_refused_where_the_record_is_made(name, key, value):
    """The cells run as they stand but for their imports; nothing of the work is there to be done before the check."""

    def record(notebook: str, values: dict, seeds: list) -> None:
        parameters.checked(notebook, values)
        pytest.fail("the value is accepted")

    scope = {**DECLARED[name], key: value, "torch": torch, "Record": record, "checked": parameters.checked}
    with pytest.raises(ParametersError, match=f"parameter {key} of notebook {name} must be "):
        for source in notebooks.python_cells(notebooks.read(ROOT, name))[1:]:
            tree = ast.parse(source)
            tree.body = [one for one in tree.body if not isinstance(one, ast.Import | ast.ImportFrom)]
            exec(compile(tree, name, "exec"), scope)  # noqa: S102


@pytest.mark.fault(
    "Input",
    "a notebook's file is cut short or empty, or _toc.yml is no table of contents",
    "one line names the file",
)
@pytest.mark.parametrize("content", ["", "{", "[]", "a: [", "\t"])
def test_sources_that_are_none_are_named(tmp_path, content):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/a.ipynb").write_text(content)
    with pytest.raises(ValueError, match=r"^notebooks/a\.ipynb is missing or no notebook \("):
        notebooks.read(tmp_path, "a")
    (tmp_path / "_toc.yml").write_text(content)
    with pytest.raises(ValueError, match=r"^_toc\.yml is missing or no table of contents \("):
        notebooks.listed(tmp_path)
