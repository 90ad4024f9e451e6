"""The length that the stated loss gives: the best multiple against a plain search, factors fitted on other prompts."""

import pytest
import torch

from ica.objectives import pl_loss, squared_distance_reward
from ica.synthetic.analysis import stated_length
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.tokens import prefixes, read_at, tokens
from ica.transformer import initial


def draw(count=300, seed=0, noise="own"):
    generator = torch.Generator().manual_seed(seed)
    return sample_batch(count, 12, 4, generator, noise=noise, dtype=torch.float64)


def mean_loss(batch, c: float) -> float:
    return pl_loss(squared_distance_reward(c * batch.good, batch.responses), batch.rewards).mean().item()


def test_slopes_are_the_derivative_of_the_loss():
    batch = draw(40)
    for c in (0.2, 0.7, 1.5):
        numeric = (mean_loss(batch, c + 1e-5) - mean_loss(batch, c - 1e-5)) / 2e-5
        assert stated_length.loss_slopes(batch, c).mean().item() == pytest.approx(numeric, rel=1e-6)


def test_the_best_multiple_has_the_least_loss_and_its_interval_covers():
    batch = draw()
    best, lo, hi = stated_length.best_multiple(batch)
    grid = [mean_loss(batch, c) for c in (best * 0.98, best, best * 1.02)]
    assert grid[1] < min(grid[0], grid[2]) and lo < best < hi < 1
    truth = stated_length.best_multiple(draw(40_000, 99))[0]
    found = [stated_length.best_multiple(draw(200, seed)) for seed in range(1, 101)]
    assert sum(lo <= truth <= hi for _, lo, hi in found) >= 90


def test_without_a_least_loss_it_says_so():
    batch = draw(5)
    batch.responses[:] = batch.good.unsqueeze(1) * batch.rewards.unsqueeze(
        -1
    )  # no noise: the longer the better
    with pytest.raises(ValueError, match="least mean loss between"):
        stated_length.best_multiple(batch)


def test_factors_are_of_least_squared_error_on_prompts_of_their_own():
    config = RunConfig(
        noise="own", form="triplet", scope="all", layers=1, heads=1, width=8, hidden=8, d=4, N=12
    )
    models, batch, seen = [initial(config.transformer(), seed) for seed in range(2)], draw(), prefixes(config)
    batch = type(batch)(*(getattr(batch, name).float() for name in batch.__dataclass_fields__))
    plain, scaled, factors = stated_length.put_to_length(models, config, batch, seen)
    with torch.no_grad():
        torch.testing.assert_close(plain[1], models[1](tokens(batch, "triplet"))[:, read_at(seen, "triplet")])
    torch.testing.assert_close(scaled, plain * factors[:, None, :, None])
    own = sample_batch(300, 12, 4, torch.Generator().manual_seed(stated_length.FIT_SEED), noise="own")
    with torch.no_grad():
        fitted = models[0](tokens(own, "triplet"))[:, read_at(seen, "triplet")]

    def error(times):
        return (times[:, None] * fitted - own.good.unsqueeze(1)).square().sum((0, 2))

    assert (error(factors[0]) <= error(factors[0] * 1.5)).all() and (
        error(factors[0]) <= error(factors[0] * 0.5)
    ).all()
