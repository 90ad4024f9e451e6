"""What the panels share: tables and figures say what the results hold."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from ica.record import figures
from ica.record.styles import style_of
from ica.synthetic.analysis import panels
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.prefixes import prefix_pl_losses
from ica.synthetic.training import evaluation, results, run
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


def test_measurements_count_seeds_and_prompts_apart(runs):
    one = runs["one"].at(15)
    row = panels.minimiser(runs["one"])[..., -1]
    gap, wider = panels.difference(one, row), panels.against_run(one, 0.3)
    assert gap["n"] == wider["n"] == {"seeds": 2, "prompts": 256}
    assert panels.estimate(row)["n"] == {"prompts": 256}
    assert panels.difference(one[:1], row, seeds=1)["n"] == {"seeds": 1, "prompts": 256}
    assert panels.loss_ratio(*runs.values())["n"] == {"seeds": 2}
    lo, hi = panels.difference(one, torch.full((1, 1), 0.3))["interval"]
    assert wider["interval"][0] < lo < hi < wider["interval"][1]
    assert panels.against_run(row, 0.3, one)["n"] == {"prompts": 256}


def test_the_least_loss_is_below_every_other(runs):
    one = runs["one"]
    batch = evaluation.evaluation_prompts(TINY, count=evaluation.LOOK_PROMPTS)
    for prediction in (batch.good, batch.good - batch.bad, batch.responses[:, 0]):
        scores = torch.cosine_similarity(prediction.unsqueeze(1), batch.responses, dim=-1)
        spread = scores.unsqueeze(1).expand(-1, len(one.seen), -1)
        assert prefix_pl_losses(spread, batch.quality, one.seen).mean() > panels.least_loss(one)
    assert all(look.loss.min() > panels.least_loss(one) for look in one.looks)


def test_the_minimiser_and_the_best_response_are_read_off_the_prompts(runs):
    one, batch = runs["one"], evaluation.evaluation_prompts(TINY)
    best = panels.best_response(one)[0, :, -1]
    order = batch.rewards.argmax(1)
    expected = torch.stack(
        [1 - torch.cosine_similarity(batch.responses[k, order[k]], batch.good[k], dim=0) for k in range(256)]
    )
    torch.testing.assert_close(best, expected, atol=1e-5, rtol=0)
    assert panels.minimiser(one).mean() > best.mean()


def test_a_run_with_own_noise_has_curves_and_a_best_response_and_no_plane(tmp_path):
    config = replace(TINY, noise="own", reward="squared_distance", steps=1)
    job = Job("ci", "own", config, (0, 1), 1)
    own = results.read(run.perform(job, tmp_path / job.id))
    assert panels.curves({"own": own})["n"].tolist() == list(range(2, 16))
    batch = evaluation.evaluation_prompts(config)
    top = batch.responses[torch.arange(256), batch.quality.argmax(1)]
    expected = 1 - torch.cosine_similarity(top, batch.good, dim=-1)
    torch.testing.assert_close(panels.best_response(own)[0, :, -1], expected, atol=1e-5, rtol=0)
    for of_a_line in (panels.minimiser, panels.least_loss):
        with pytest.raises(ValueError, match="must have shared noise"):
            of_a_line(own)


def test_a_summary_compares_with_the_base(runs):
    table = panels.summary(runs, "one").set_index("run")
    assert table.loc["one", "less base"] == 0 and table.loc["one", "over base"] == pytest.approx(1)
    gap = (runs["other"].at(15) - runs["one"].at(15)).double().mean().item()
    assert table.loc["other", "less base"] == pytest.approx(gap)
    assert table.loc["other", "lo"] < gap < table.loc["other", "hi"]
    excess = [(r.looks[-1].loss.double() - panels.least_loss(r)).log().mean() for r in runs.values()]
    assert table.loc["other", "over base"] == pytest.approx((excess[1] - excess[0]).exp().item())


def test_a_figure_has_a_column_for_small_and_one_for_precomputed(runs):
    for kept, columns in (({}, 1), ({"one": replace(runs["one"], scale="cores")}, 2)):
        fig, data = panels.figure(runs, kept)
        assert len(fig.axes) == 3 * columns
        assert set(data["part"]) == {"after training", "along training"}
        assert set(panels.meanings(data)) <= set(data.columns)
        plt.close(fig)


def test_a_label_keeps_its_style_where_all_are_known(runs):
    for labels, colours in (
        (("no FFN", "with FFN"), [style_of("no FFN")["color"], style_of("with FFN")["color"]]),
        (("no FFN", "other"), [*figures.PALETTE[:2]]),
    ):
        fig, ax = plt.subplots()
        panels.draw_paths(ax, panels.paths(dict(zip(labels, runs.values(), strict=True))), "error")
        drawn = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        assert [drawn[label].get_color() for label in labels] == colours
        plt.close(fig)


def test_a_page_shows_all_columns_in_tables_that_fit(runs):
    summary, traces = panels.summary(runs, "one"), panels.traces(runs)
    assert {*panels.ERRORS, *panels.LOSSES, "scale"} == set(summary) and {
        *panels.TRAINED,
        *panels.ORIGIN,
    } == set(traces)


def test_stored_runs_are_of_one_scale_and_more_than_one(runs, monkeypatch):
    there = {("a", "cores"), ("b", "paper"), ("d", "cores"), ("d", "paper"), ("e", "paper")}
    at = {(name, scale): replace(runs["one"], scale=scale) for name, scale in there}
    monkeypatch.setattr(panels, "stored", lambda name, scales: at.get((name, scales[0])))
    labels = {name.upper(): name for name in "abcde"}
    assert list(panels.stored_runs(labels, "A")) == ["A", "D"]  # cores: at the paper's size there is no A
    assert list(panels.stored_runs(labels, "D")) == ["B", "D", "E"]  # at both: the larger
    assert panels.stored_runs({"B": "b", "A": "a"}, "B") == panels.stored_runs(labels, "C") == {}


def test_a_caption_says_what_the_runs_are(runs):
    wider = replace(runs["one"], config=replace(TINY, layers=3), seeds=(0,))
    assert panels.about({}) == "none of this panel is there"
    assert panels.about(runs).startswith("1 block, width 8, 4 training steps") and "2 seeds" in panels.about(
        runs
    )
    assert panels.about({"a": wider} | runs).startswith("1 to 3 blocks") and "1 seed, shown" in panels.about(
        {"a": wider}
    )


def test_a_prefix_without_a_prediction_is_named(runs):
    with pytest.raises(ValueError, match="n must be one of the prefixes 2 to 16 of run one, got 17"):
        runs["one"].at(17)
