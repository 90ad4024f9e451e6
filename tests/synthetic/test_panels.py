"""What the panels share: tables and figures say what the results hold."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from ica.synthetic.analysis import panels
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.prefixes import prefix_pl_losses
from ica.synthetic.training import results, run
from ica.synthetic.training.catalogue import Job

TINY = RunConfig(form="triplet", layers=1, heads=1, width=8, hidden=8, d=3, N=16, steps=4, batch=8, rate=1e-2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, results.Result]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for label, config in (("one", TINY), ("other", replace(TINY, hidden=0))):
        job = Job("ci", label, config, (0, 1), 2)
        made[label] = results.read(run.perform(job, folder / job.id))
    return made


def test_curves_hold_the_means_of_the_results(runs):
    frame = panels.curves(runs)
    assert frame["n"].tolist() == [*range(2, 16)] * 2
    for label, group in frame.groupby("label"):
        expected = runs[label].errors[..., :14].double().mean((0, 1))
        torch.testing.assert_close(torch.tensor(group["error"].to_numpy()), expected)
        assert ((group["lo"] <= group["error"]) & (group["error"] <= group["hi"])).all()
    assert panels.curves(runs).equals(frame)


def test_the_least_loss_is_below_every_other(runs):
    one = runs["one"]
    batch = results.evaluation_prompts(TINY, count=results.LOOK_PROMPTS)
    for prediction in (batch.good, batch.good - batch.bad, batch.responses[:, 0]):
        scores = torch.cosine_similarity(prediction.unsqueeze(1), batch.responses, dim=-1)
        spread = scores.unsqueeze(1).expand(-1, len(one.seen), -1)
        assert prefix_pl_losses(spread, batch.quality, one.seen).mean() > panels.least_loss(one)
    assert all(look.loss.min() > panels.least_loss(one) for look in one.looks)


def test_the_minimiser_and_the_best_response_are_read_off_the_prompts(runs):
    one, batch = runs["one"], results.evaluation_prompts(TINY)
    best = panels.best_response(one)[0, :, -1]
    order = batch.rewards.argmax(1)
    expected = torch.stack(
        [1 - torch.cosine_similarity(batch.responses[k, order[k]], batch.good[k], dim=0) for k in range(256)]
    )
    torch.testing.assert_close(best, expected, atol=1e-5, rtol=0)
    assert panels.minimiser(one).mean() > best.mean()


def test_a_summary_compares_with_the_base(runs):
    table = panels.summary(runs, "one").set_index("run")
    assert table.loc["one", "less base"] == 0 and table.loc["one", "over base"] == pytest.approx(1)
    gap = (runs["other"].at(15) - runs["one"].at(15)).double().mean().item()
    assert table.loc["other", "less base"] == pytest.approx(gap)
    assert table.loc["other", "lo"] < gap < table.loc["other", "hi"]
    excess = [(r.looks[-1].loss.double() - panels.least_loss(r)).log().mean() for r in runs.values()]
    assert table.loc["other", "over base"] == pytest.approx((excess[1] - excess[0]).exp().item())


def test_a_figure_has_a_row_for_live_and_one_for_stored(runs):
    for kept, rows in (({}, 1), ({"one": replace(runs["one"], scale="cores")}, 2)):
        fig, data = panels.figure(runs, kept)
        assert len(fig.axes) == 3 * rows
        assert set(data["part"]) == {"after training", "along training"}
        assert set(panels.meanings(data)) <= set(data.columns)
        plt.close(fig)


def test_stored_runs_are_of_one_scale(runs, monkeypatch):
    at = {"a": replace(runs["one"], scale="cores"), "b": replace(runs["one"], scale="paper"), "c": None}
    monkeypatch.setattr(panels, "stored", at.get)
    labels = {"A": "a", "B": "b", "C": "c"}
    assert list(panels.stored_runs(labels, "A")) == ["A"] and panels.stored_runs(labels, "C") == {}
    assert "no stored runs" in panels.about_stored({}) and "2 seeds each" in panels.about_stored(
        {"A": at["a"]}
    )


def test_a_prefix_without_a_prediction_is_named(runs):
    with pytest.raises(ValueError, match="n must be one of the prefixes 2 to 16 of run one, got 17"):
        runs["one"].at(17)
