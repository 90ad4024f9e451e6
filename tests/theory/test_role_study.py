"""The roles at length: made in parts that are kept, read back whole, refused when damaged."""

import json

import numpy as np
import pytest

from ica.theory import role_study
from ica.theory.role_study import FULL, KINDS, Settings, StudyError

SMALL = Settings(models=2, steps=4, held_out=64, seed=3)


def test_what_is_made_twice_is_the_same_and_is_what_training_gives(tmp_path):
    seen = []
    path = role_study.make(SMALL, tmp_path, seen.append)
    assert seen == list(KINDS)
    first, parts = role_study.load(path), sorted((tmp_path / "build" / "roles").rglob("*.json"))
    parts[0].unlink()
    path.unlink()
    second = role_study.load(role_study.make(SMALL, tmp_path, seen.append))
    for name in KINDS:
        np.testing.assert_array_equal(first.errors[name], second.errors[name])
        assert len(first.errors[name]) == 2
    trained = SMALL.study.train(KINDS[FULL])
    np.testing.assert_allclose(first.errors[FULL], trained.errors, rtol=1e-5)


def test_only_what_is_missing_is_trained(tmp_path):
    role_study.make(SMALL, tmp_path, lambda text: None)
    seen = []
    role_study.make(SMALL, tmp_path, seen.append)
    assert seen == []
    next((tmp_path / "build" / "roles").rglob("3.json")).unlink()
    role_study.make(SMALL, tmp_path, seen.append)
    assert seen == [list(KINDS)[3]]


@pytest.mark.fault(
    "Results",
    "The stored study of roles is missing, cut short, of another format, or lacks a configuration",
    "One line with its name and the command that makes it anew",
)
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("errors"),
        lambda d: d.update(schema=99),
        lambda d: d["errors"].pop(FULL),
        lambda d: d["errors"].update({FULL: [1.0]}),
        lambda d: d["errors"][FULL].__setitem__(0, -1.0),
        lambda d: d["settings"].update(models=True),
    ],
)
def test_a_damaged_study_is_named(tmp_path, change):
    path = role_study.make(SMALL, tmp_path, lambda text: None)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"roles\.json is missing or damaged .*role_study` makes it anew"):
        role_study.load(path)


def test_a_missing_study_is_named(tmp_path):
    with pytest.raises(StudyError, match="missing"):
        role_study.load(tmp_path / "none.json")
