"""GD at its most favourable: no setting that may be chosen does better, and the choice is one for all prompts."""

import torch

from ica.objectives import pl_gradient, predict
from ica.synthetic.analysis import existence
from ica.synthetic.analysis.stated_descent import favourable
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.metrics import normalised_mse


def by_autograd_rule(batch, n, W, rate, steps):
    """Error after each step of GD on W itself, on the mean of the terms."""
    query, errors = batch.query.double(), []
    for _ in range(steps + 1):
        errors.append(normalised_mse(predict(W, query), batch.good.double()).mean())
        W = W - rate * pl_gradient(W, query, batch.responses[:, :n].double(), batch.rewards[:, :n]) / (n - 1)
    return torch.stack(errors)


def test_it_is_the_least_over_starts_rates_and_steps():
    batch = sample_batch(12, 6, 3, torch.Generator().manual_seed(1), noise="own")
    best = favourable(batch, 4, torch.Generator().manual_seed(2), 20, rates=(0.01, 0.05))
    gaussian = existence.start(batch, torch.Generator().manual_seed(2))
    starts = {"Gaussian": gaussian, "zero": torch.zeros_like(gaussian)}
    table = {(s, r): by_autograd_rule(batch, 4, W, r, 20) for s, W in starts.items() for r in (0.01, 0.05)}
    least = min(errors.min() for errors in table.values())
    torch.testing.assert_close(best.nmse.mean(), least)
    torch.testing.assert_close(table[best.start, best.rate][best.steps], least)


def test_a_start_that_is_already_best_is_kept():
    """Huge rates only: no step helps, so none is taken, from zero, where the error is that of predicting zero."""
    batch = sample_batch(12, 6, 3, torch.Generator().manual_seed(1), noise="own")
    best = favourable(batch, 4, torch.Generator().manual_seed(2), 5, rates=(1e4,))
    assert (best.start, best.steps) == ("zero", 0)
    torch.testing.assert_close(best.nmse.mean(), torch.tensor(1.0, dtype=torch.float64))
