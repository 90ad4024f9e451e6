"""Baselines and metrics against what they should be worth."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.intervals import mean_interval
from ica.objectives import REWARDS
from ica.synthetic.task.baselines import bayes, best_response, descend
from ica.synthetic.task.bayes import expected_error, posterior_mean
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.metrics import cosine_error, linearised, normalised_mse
from ica.synthetic.task.prefixes import prefix_pl_losses

SEEN = torch.tensor([2, 5, 10])


def draw(batch=64, critic=None, noise="shared"):
    generator = torch.Generator().manual_seed(0)
    return sample_batch(batch, 10, 5, generator, critic, torch.float64, noise=noise)


def test_bayes_is_exact_from_two_true_triplets_and_not_with_a_wrong_critic():
    batch = draw()
    assert normalised_mse(bayes(batch, SEEN), batch.good.unsqueeze(1)).max() < 1e-12
    wrong = draw(critic=Critic("replace", 1.0))
    assert normalised_mse(bayes(wrong, SEEN), wrong.good.unsqueeze(1)).median() > 0.1


@pytest.mark.parametrize("noise", ["shared", "own"])
@pytest.mark.parametrize("reward", ["cosine", "squared_distance"])
def test_descent_lowers_every_loss_and_a_prefix_does_not_see_the_rest(reward, noise):
    batch, generator = draw(8, noise=noise), torch.Generator().manual_seed(1)
    state = generator.get_state()

    def after(steps, prompts=batch):
        generator.set_state(state)
        return descend(prompts, SEEN, generator, steps=steps, reward=reward)

    def losses(predictions):
        scores = REWARDS[reward](predictions, batch.responses.unsqueeze(1))
        return prefix_pl_losses(scores, batch.rewards, SEEN)

    before, last = losses(after(1)), losses(after(50))
    assert ((last < before) | (before < 1e-6)).all() and (last < before).double().mean() > 0.8
    batch_two = draw(8, noise=noise)
    batch_two.responses[:, 5:] += 1
    torch.testing.assert_close(after(20, batch_two)[:, :2], after(20)[:, :2])


def test_bayes_and_the_best_response_with_own_noise():
    """Bayes is the posterior mean, nearer on average than the best response and than more or less of it."""
    batch = draw(4000, noise="own")
    found = {"Bayes": bayes(batch, SEEN), "best": best_response(batch, SEEN)}
    for k, n in enumerate(SEEN.tolist()):
        assert torch.equal(found["Bayes"][:, k], posterior_mean(batch, n))
        top = batch.rewards[:, :n].argmax(1)
        assert torch.equal(found["best"][:, k], batch.responses[torch.arange(4000), top])
    errors = {name: normalised_mse(value, batch.good.unsqueeze(1)).mean(0) for name, value in found.items()}
    assert (errors["Bayes"] < errors["best"]).all() and (errors["best"].diff() < 0).all()
    for k, n in enumerate(SEEN.tolist()):
        assert errors["Bayes"][k].item() == pytest.approx(expected_error(n), rel=0.1)
        for factor in (0.9, 1.1):
            other = normalised_mse(factor * found["Bayes"][:, k], batch.good).mean()
            assert other > errors["Bayes"][k]


# Metrics


def test_metrics_at_known_points():
    good = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(cosine_error(-2 * good, good), torch.tensor([2.0]))
    torch.testing.assert_close(normalised_mse(torch.zeros(1, 2), good), torch.tensor([1.0]))
    torch.testing.assert_close(normalised_mse(2 * good, good), torch.tensor([1.0]))


@given(seed=st.integers(0, 2**31), prompts=st.integers(2, 9))
def test_the_mean_of_normalised_errors_is_a_ratio_of_means_which_linearised_keeps(seed, prompts):
    generator = torch.Generator().manual_seed(seed)
    good = torch.randn(prompts, 3, generator=generator, dtype=torch.float64)
    predictions = torch.randn(2, prompts, 4, 3, generator=generator, dtype=torch.float64)
    nmse = normalised_mse(predictions, good.unsqueeze(1))
    total = (predictions - good.unsqueeze(1)).square().sum((1, 3)) / good.square().sum()
    torch.testing.assert_close(nmse.mean(1), total)
    torch.testing.assert_close(linearised(nmse, good).mean(1), total)
    torch.testing.assert_close(linearised(nmse[0], good), linearised(nmse, good)[0])
    scale = normalised_mse(torch.zeros_like(good), good)
    torch.testing.assert_close(linearised(scale.unsqueeze(-1), good), torch.ones(prompts, 1).double())


def shares(prompts: int, seeds: int, relative: bool, count: int = 250) -> dict[str, tuple[float, float]]:
    """Coverage and mean width of 95 % intervals for the ratio of means, of simulated predictions.

    Prompts are the sampler's; errors are Gaussian, `relative` to the target's size or of one size for all.
    """
    generator, found = torch.Generator().manual_seed(prompts + seeds), {"linearised": [], "plain": []}
    for _ in range(count):
        good = sample_batch(prompts, 2, 5, generator, None, torch.float64).good
        off = torch.randn(seeds, prompts, 5, generator=generator, dtype=torch.float64)
        off = 0.4 * off * (good.norm(dim=-1, keepdim=True) / 5**0.5 if relative else 5**0.5)
        nmse = normalised_mse(good + off, good)
        for name, values in (("linearised", linearised(nmse.unsqueeze(-1), good)[..., 0]), ("plain", nmse)):
            _, lo, hi = mean_interval(values)
            found[name].append((float(lo <= 0.16 <= hi), float(hi - lo)))
    return {name: tuple(torch.tensor(rows).mean(0).tolist()) for name, rows in found.items()}


@pytest.mark.parametrize(("prompts", "seeds"), [(256, 1), (64, 5)])
def test_linearised_errors_have_intervals_that_cover_the_ratio_and_plain_ones_do_not(prompts, seeds):
    """Plain ones miss that the denominator is drawn too: too narrow, or, with relative errors, too wide."""
    same, relative = (shares(prompts, seeds, relative) for relative in (False, True))
    assert 0.91 <= same["linearised"][0] <= 0.985 and 0.91 <= relative["linearised"][0] <= 0.99
    assert same["plain"][0] < 0.8
    assert relative["plain"][1] > 1.3 * relative["linearised"][1]
