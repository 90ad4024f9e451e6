"""Operations of training: the count against PyTorch's own counter of a real step; scales add up."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.tokens import tokens
from ica.synthetic.training import catalogue, cost
from ica.transformer import Transformer

SMALL = RunConfig(layers=2, width=12, hidden=20, batch=3, steps=1, N=6)


@pytest.mark.parametrize("form", ["interleaved", "triplet", "test-token"])
@pytest.mark.parametrize(
    "changes", [{}, {"hidden": 0}, {"attention": "linear"}, {"heads": 4}, {"layers": 1, "d": 3}]
)
def test_a_step_takes_what_pytorch_counts(form, changes):
    config = dataclasses.replace(SMALL, form=form, **changes)
    model = Transformer(config.transformer())
    batch = sample_batch(config.batch, config.N, config.d, torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter:
        model(tokens(batch, config.form)).sum().backward()
    assert counter.get_total_flops() == cost.training(config)
    twice = dataclasses.replace(config, steps=2, batch=6)
    assert cost.training(twice) == 4 * cost.training(config)


def test_a_scale_is_the_sum_of_its_jobs():
    found = cost.scale("full")
    jobs = [job for group in catalogue.jobs("full").values() for job in group]
    assert found.operations == sum(cost.training(job.config) for job in jobs) and found.seeds == 3
    assert 0 < found.measured < found.operations and found.hours > 0
    # one core of a processor of today does between 1 and 500 billion operations a second
    assert all(1e9 < rate < 5e11 for rate in found.rates)


def test_what_was_not_measured_is_reckoned_by_what_is_alike(tmp_path, monkeypatch):
    found = cost.table()
    assert found["paper"][0].rates == () and found["paper"][1] == found["full"][1]
    assert found["ci"][0].rates and found["cores"][0].rates
    for name, (one, rate) in found.items():
        alike = one.rates or found[cost.ALIKE[name]][0].rates
        assert min(alike) <= rate <= max(alike)
    monkeypatch.setattr(cost, "project_root", lambda: tmp_path)
    assert {rate for _, rate in cost.table().values()} == {None}, "without stored results"


def test_a_sweep_costs_its_seeds():
    found, small = cost.swept("stated"), cost.scale("stated")
    assert (found.seeds, small.seeds) == (40, 5)
    assert found.measured <= found.operations and found.hours > 0
    base = cost.training(catalogue.jobs_of("base", "stated")[0].config)
    assert found.operations > found.runs * 40 * base / 5 and cost.swept("walk").seeds == 20
    with pytest.raises(ValueError, match="has no sweep"):
        cost.swept("paper")


def test_the_base_of_the_paper_costs_more_the_more_it_has():
    sizes = [cost.training(catalogue.jobs_of(name, "paper")[0].config) for name in ("depth-quarter", "base")]
    assert 3.9 < sizes[1] / sizes[0] < 4
