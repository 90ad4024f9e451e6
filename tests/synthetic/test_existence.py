"""What the page shows of the exact minimiser: shares, parts of the error, the told predictor, GD."""

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from ica import minimiser
from ica.objectives import pl_loss, predict, squared_distance_reward
from ica.record import figures
from ica.synthetic.analysis import existence
from ica.synthetic.task import bayes
from ica.synthetic.task.baselines import descend
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.metrics import normalised_mse

matplotlib.use("Agg")


def draw(batch=40, N=10, d=3, seed=0):
    return sample_batch(batch, N, d, torch.Generator().manual_seed(seed), dtype=torch.float64, noise="own")


def test_shares_count_prompts_and_name_the_exact_share_of_random_ranks():
    found = existence.shares(torch.tensor([4, 4, 5, 7]), 2, 6).set_index(["label", "n"])["share"]
    assert found["d = 2"].tolist() == [0, 0, 0.5, 0.75, 0.75]
    assert found["d = 2, random ranks"].tolist() == pytest.approx([0, 0, 1 / 2, 1 - 20 / 120, 1 - 30 / 720])


def test_a_proportion_has_the_interval_of_wilson():
    found = existence.proportion(torch.tensor([True] * 3 + [False] * 9))
    z, share = 1.959963984540054, 0.25
    half = z * (share * (1 - share) / 12 + z * z / (4 * 144)) ** 0.5 / (1 + z * z / 12)
    centre = (share + z * z / 24) / (1 + z * z / 12)
    assert found["value"] == share and found["n"] == {"prompts": 12}
    assert found["interval"] == pytest.approx((centre - half, centre + half))


def test_minimisers_are_those_of_each_n_and_missing_where_there_is_none():
    batch = draw()
    first = minimiser.first_existing(batch.responses, batch.rewards)
    found = existence.minimisers(batch, first, [4, 6, 10])
    assert found[0].isnan().all()
    for row, n in ((1, 6), (2, 10)):
        some = first <= n
        assert torch.equal(found[row].isnan().any(-1), ~some) and 0 < some.sum()
        expected = minimiser.minimiser(batch.responses[some, :n], batch.rewards[some, :n])
        torch.testing.assert_close(found[row, some], expected, rtol=1e-8, atol=1e-8)


def test_the_parts_of_the_error_add_up_and_tell_length_from_direction():
    batch = draw()
    guess = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    along, across = existence.split(guess, batch.good)
    torch.testing.assert_close(along + across, normalised_mse(guess, batch.good))
    along, across = existence.split(0.5 * batch.good, batch.good)
    assert across.abs().max() < 1e-12
    assert along.mean() == pytest.approx(0.25)


def test_a_row_is_a_ratio_of_means_and_curves_leave_out_who_has_no_prediction():
    batch = draw()
    error = normalised_mse(batch.responses[:, 0], batch.good)
    found = existence.row("x", 3, error, batch.good)
    assert found["error"] == pytest.approx(error.mean().item())
    assert found["lo"] < found["error"] < found["hi"] and found["prompts"] == 40
    predictions = torch.stack([batch.responses[:, 0], batch.responses[:, 1], batch.good])
    predictions[0, 5:], predictions[1, :10] = torch.nan, torch.nan
    rows = pd.DataFrame(existence.curve("x", predictions, batch.good, [1, 2, 3]))
    assert rows["n"].tolist() == [2, 3] and rows["prompts"].tolist() == [30, 40]
    expected = normalised_mse(batch.responses[10:, 1], batch.good[10:]).mean().item()
    assert rows["error"].tolist() == pytest.approx([expected, 0])
    middle = existence.curve("x", predictions, batch.good, [1, 2, 3], "median")[0]
    values = normalised_mse(batch.responses[10:, 1], batch.good[10:]).numpy()
    assert middle["error"] == pytest.approx(np.median(values)) and middle["statistic"] == "median"
    assert middle["lo"] < middle["error"] < middle["hi"]


def test_the_told_factor_has_less_expected_loss_than_others():
    batch = draw(batch=3)
    factor = existence.told(batch, 6, 4000, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(3)
    r = torch.rand(3, 20_000, 6, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 20_000, 6, 3, generator=generator, dtype=torch.float64)
    size = batch.query.norm(dim=-1)[:, None, None, None]
    y = r * batch.good[:, None, None] + (1 - r) * size * noise

    def loss(prediction):
        scores = squared_distance_reward(prediction.unsqueeze(1).expand(3, 20_000, 3), y)
        return pl_loss(scores, r.squeeze(-1)).mean(1)

    own = factor.unsqueeze(-1) * batch.good
    for other in (own * 0.8, own * 1.2, own + 0.3 * batch.query.norm(dim=-1, keepdim=True)):
        assert (loss(other) > loss(own)).all()


def test_the_path_of_adam_is_that_of_descend():
    batch = draw()
    path = existence.adam_path(batch, 6, torch.Generator().manual_seed(4), 12)
    for steps in (1, 12):
        start = torch.Generator().manual_seed(4)
        found = descend(batch, torch.tensor([6]), start, steps=steps, reward="squared_distance")
        torch.testing.assert_close(path[steps], found[:, 0], rtol=1e-6, atol=1e-6)


def test_plain_descent_takes_the_steps_of_autograd_on_the_weights():
    batch = existence.head(draw(), 7)
    assert len(batch.query) == 7 and batch.noise == "own"
    for terms in (False, True):
        path = existence.plain_path(batch, 6, torch.Generator().manual_seed(4), 3, terms=terms)
        W = existence.start(batch, torch.Generator().manual_seed(4))
        for _ in range(3):
            W.requires_grad_(True)
            value = existence.losses(predict(W, batch.query), batch, 6) / (5 if terms else 1)
            W = (W - 0.1 * torch.autograd.grad(value.sum(), W)[0]).detach()
        torch.testing.assert_close(path[3], predict(W, batch.query), rtol=1e-8, atol=1e-8)


def test_steps_are_counted_to_the_first_that_is_near_enough():
    excess = torch.tensor([[3.0, 0.5, 9.0], [0.9, 2.0, 9.0], [2.0, 0.1, 9.0]], dtype=torch.float64)
    assert existence.reached(excess, 1.0).tolist() == [1, 0, math.inf]


def test_losses_are_those_of_the_first_n_at_every_step():
    batch = draw()
    path = existence.adam_path(batch, 6, torch.Generator().manual_seed(4), 3)
    found = existence.losses(path, batch, 6)
    expected = minimiser.expansion(path[2], minimiser.ranked(batch.responses[:, :6], batch.rewards[:, :6]))[0]
    torch.testing.assert_close(found[2], expected)


def test_the_figure_can_be_read_and_its_data_is_what_was_drawn():
    figures.style()
    batch = draw(batch=60, N=20, d=5)
    first = minimiser.first_existing(batch.responses, batch.rewards)
    predictions = existence.minimisers(batch, first, [14, 20])
    rows = existence.curve("exact minimiser", predictions, batch.good, [14, 20])
    rows += existence.curve("exact minimiser", predictions, batch.good, [14, 20], "median")
    error = pd.DataFrame(rows + existence.exact_curves([2, 10, 200]))
    fig, data = existence.draw(existence.shares(first, 5, 20), error, 0.25)
    assert figures.overprints(fig) == []
    assert figures.csv_bytes(data) and figures.describe(data, existence.COLUMNS)
    best = error[error["label"] == "best-of-n"].set_index("n")["error"]
    assert best[10] == bayes.expected_best_of_n(10) and math.isnan(
        error.loc[error["label"] == "Bayes", "lo"].max()
    )
    assert set(data["panel"]) == {"left", "right"} and data["share"].notna().sum() == 38


def test_refusals_name_the_argument(as_users_call):
    batch = draw(batch=2)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        existence.adam_path(batch, 4, torch.Generator(), 0)
    for wrong, name in (((1, 5), "N"), ((5, 0), "sets")):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            existence.told(batch, *wrong, torch.Generator())
