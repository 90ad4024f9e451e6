"""The study of roles: its configurations, its draws, and a bound that holds for what it trains."""

import torch

from ica.theory import plots, roles


def small(seed: int = 0) -> roles.Study:
    return roles.study({"BT": 2, "PL": 2}, {"BT": 5, "PL": 5}, held_out=256, gap=0.2, seed=seed)


def test_names_tell_configurations_apart_and_styles_are_of_them():
    names = [(kind.task, kind.name) for kind in roles.KINDS]
    assert len(set(names)) == len(names)
    assert set(plots.LOOKS) <= {name for _, name in names}
    for name in plots.LOOKS.values():
        plots.style_of(name)


def test_same_seed_same_prompts_and_other_seed_others():
    one, same, other = small(), small(), small(1)
    for task in roles.RESPONSES:
        assert torch.equal(one.tests[task].tokens, same.tests[task].tokens)
        assert not torch.equal(one.tests[task].tokens, other.tests[task].tokens)
    assert other.seeds["PL"] == [100, 101]


def test_linear_attention_stays_above_its_bound():
    study = small()
    (kind,) = (kind for kind in roles.KINDS if kind.name == "linear, 3 heads")
    found = study.train(kind)
    assert len(found.models) == 2 and min(found.errors) >= study.bounds["BT"]
