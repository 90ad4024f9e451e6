"""The closed loop on the stated task: its ratings, its readers one by one, and what enters."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.synthetic.analysis import stated_loop as loop
from ica.synthetic.task import noisy_bayes
from ica.synthetic.task.baselines import best_response
from ica.synthetic.task.bayes import posterior_mean
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.tokens import tokens
from ica.synthetic.training import results
from ica.synthetic.training.catalogue import Job
from ica.synthetic.training.run import perform

TINY = RunConfig("own", "triplet", "squared_distance", "all", layers=1, heads=1, width=8, hidden=8)
EXACT, HALF = Critic(), Critic("replace", 0.5)


def draw(count=12, N=8, d=4, seed=0, dtype=torch.float64):
    return sample_batch(count, N, d, torch.Generator().manual_seed(seed), None, dtype, "own")


def go(reader, batch=None, critic=EXACT, **rules):
    rules = {"start": 3, "rounds": 4} | rules
    return loop.run(reader, batch or draw(), critic, torch.Generator().manual_seed(3), **rules)


def watched(seen, seeds=1):
    """A reader that answers with the mean of what it saw, and writes that down."""

    def begin(query):
        def step(response, rating):
            seen.append((response, rating))
            return torch.stack([one for one, _ in seen]).mean(0)

        return step

    return begin


def test_a_rating_is_one_at_the_target_alone_and_that_of_the_sampler_on_average():
    batch = draw(4000, 8, 5)
    query, good = batch.query.unsqueeze(1), batch.good.unsqueeze(1)
    assert (loop.by_distance(batch.good, batch.query, batch.good) == loop.HIGHEST).all()
    rated = loop.by_distance(batch.responses, query, good)
    kept = rated > 0  # below 0 it is cut, which only far responses of low quality are
    ratio = ((1 - rated) / (1 - batch.quality)).square()[batch.quality > 0.6]
    assert kept[batch.quality > 0.6].all()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(ratio) / 8)
    gap = (rated - batch.quality).abs()
    assert gap[batch.quality > 0.9].max() < 0.2 < gap[batch.quality < 0.5].max()


@given(seed=st.integers(0, 10_000), near=st.floats(0.0, 2.0))
def test_the_likelihood_rating_is_the_most_likely_quality(seed, near):
    batch = draw(3, 5, 4, seed)
    y = batch.good.unsqueeze(1) + near * (batch.responses - batch.good.unsqueeze(1))
    query, good = batch.query.unsqueeze(1), batch.good.unsqueeze(1)
    found = loop.by_likelihood(y, query, good)
    size = query.norm(dim=-1)

    def likelihood(r):
        rest = (y - r.unsqueeze(-1) * good).square().sum(-1) / ((1 - r) * size).square()
        return -4 * torch.log1p(-r) - rest / 2

    best = likelihood(found)
    for off in (-1e-3, 1e-3):
        other = found + off * (1 - found)
        assert (likelihood(other.clamp(0, loop.HIGHEST)) <= best + 1e-9).all()
    assert ((found >= 0) & (found <= loop.HIGHEST)).all()


def test_readers_of_an_open_loop_are_the_baselines():
    batch = draw()
    for reader, expected in (
        (loop.trusting, lambda n: posterior_mean(batch, n)),
        (loop.best, lambda n: best_response(batch, torch.tensor([n]))[:, 0]),
    ):
        path = go(reader, batch, fresh=True)
        for k, found in enumerate(path):
            torch.testing.assert_close(found[0], expected(3 + k))
    path = go(loop.bayes(0.0, torch.Generator()), batch, fresh=True)
    torch.testing.assert_close(path[-1, 0], posterior_mean(batch, 7))
    path = go(loop.bayes(0.5, torch.Generator().manual_seed(1), particles=4), batch, fresh=True)
    clouds = noisy_bayes.known(batch, 7, 0.5, torch.Generator().manual_seed(1), particles=4)
    assert torch.equal(path[-1, 0], clouds[-1].mean)


def test_its_own_prediction_enters_with_its_rating():
    seen, batch = [], draw()
    path = go(watched(seen), batch)
    assert len(seen) == 7 and path.shape == (5, 1, 12, 4)
    for k, (response, rating) in enumerate(seen):
        if k < 3:
            assert torch.equal(response[0], batch.responses[:, k])
            assert torch.equal(rating[0], batch.quality[:, k])
        else:
            assert torch.equal(response, path[k - 3])
            torch.testing.assert_close(rating, loop.by_distance(response, batch.query, batch.good))


def test_a_noisy_critic_errs_as_often_as_said_and_alike_for_all_seeds():
    seen, batch = [], draw(4000)
    go(watched(seen), batch, HALF, seeds=2)
    entered = []
    for k, (response, rating) in enumerate(seen):
        true = (
            batch.quality[:, k].expand(2, -1)
            if k < 3
            else loop.by_distance(response, batch.query, batch.good)
        )
        wrong = rating != true
        assert abs(wrong.double().mean() - 0.5) < 0.05
        assert torch.equal(wrong[0], wrong[1])
        entered.append(wrong[0].double())
    assert (torch.corrcoef(torch.stack(entered)) - torch.eye(7)).abs().max() < 0.1


def test_bayes_that_trusts_the_rating_of_its_own_prediction_keeps_its_direction_and_grows():
    path = go(loop.trusting, rounds=5)
    along = torch.nn.functional.cosine_similarity(path, path[:1], dim=-1)
    torch.testing.assert_close(along, torch.ones_like(along))
    assert (path.norm(dim=-1).diff(dim=0) >= 0).all()


def test_trained_models_read_the_responses_as_in_training(tmp_path):
    config = RunConfig.from_dict(TINY.as_dict() | {"d": 4, "N": 8, "steps": 2, "batch": 4})
    job = Job("stated", "one", config, (0, 1), 2)
    result = results.read(perform(job, tmp_path / job.id))
    batch = draw(5, dtype=torch.float32)
    path = go(loop.transformer(result), batch, seeds=2, fresh=True)
    for k, model in enumerate(result.models()):
        torch.testing.assert_close(path[:, k].movedim(0, 1), model(tokens(batch, "triplet"))[:, 2:7])
    raters = RunConfig.from_dict(config.as_dict() | {"critic": {"raters": 2}})
    with pytest.raises(ValueError, match="must have triplet tokens, a causal mask and one rater"):
        loop.transformer(results.Result(**{**vars(result), "config": raters}))


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: go(loop.best, rating="good"), "rating must be one of distance, likelihood"),
        (lambda: go(loop.best, rounds=6), "start and rounds must be at most N = 8 together, got 3 and 6"),
        (lambda: go(loop.best, start=0), "start must be a whole number of at least 1"),
        (lambda: go(loop.best, critic=Critic(raters=2)), "batch must have own noise and one rater"),
        (
            lambda: go(loop.best, sample_batch(4, 8, 4, torch.Generator())),
            "batch must have own noise and one",
        ),
    ],
)
def test_refusals_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
