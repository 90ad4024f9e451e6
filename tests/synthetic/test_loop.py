"""The closed loop: its bound for any ratings, its windows and rules, and descent against the exact minimiser."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.objectives import cosine_reward, pl_loss
from ica.synthetic.analysis import loop
from ica.synthetic.task import floor
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import Critic, sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.synthetic.task.tokens import tokens
from ica.synthetic.training import results
from ica.synthetic.training.catalogue import Job
from ica.synthetic.training.run import perform

TINY = RunConfig(form="triplet", layers=1, heads=1, width=8, hidden=8, d=4, N=8, steps=2, batch=4, rate=1e-2)


def draw(batch=12, N=20, d=4, seed=0):
    return sample_batch(batch, N, d, torch.Generator().manual_seed(seed), dtype=torch.float64)


def wander(context):
    """A deterministic corrector that points anywhere: it mixes the responses by the cosine of their ratings."""
    weights = (7 * context.ratings).cos() * context.filled()
    return torch.einsum("sbn,sbnd->sbd", weights, context.responses)


def go(correct=wander, judge=None, seeds=1, batch=None, **rules):
    generator = torch.Generator().manual_seed(3)
    return loop.run(correct, batch or draw(), judge or loop.Judge(), loop.Rules(**rules), generator, seeds)


def test_quality_is_the_reward_on_the_line_and_highest_at_the_good_answer_alone():
    batch, generator = draw(), torch.Generator().manual_seed(1)
    good, bad = batch.good.unsqueeze(1), batch.bad.unsqueeze(1)
    torch.testing.assert_close(loop.quality(batch.responses, good, bad), batch.quality)
    assert (loop.quality(batch.good, batch.good, batch.bad) == 1).all()
    other = good + torch.randn(batch.responses.shape, generator=generator, dtype=torch.float64)
    assert (loop.quality(other, good, bad) < 1).all()


@given(
    kind=st.sampled_from(loop.JUDGES),
    size=st.floats(0.0, 0.5),
    gate=st.booleans(),
    leaves=st.sampled_from(loop.LEAVES),
    length=st.sampled_from(loop.LENGTHS),
)
def test_the_response_rated_highest_is_within_the_critics_errors_of_the_best(
    kind, size, gate, leaves, length
):
    batch, judge = draw(), loop.Judge(kind, 0.0 if kind == "exact" else size)
    path = go(judge=judge, batch=batch, rounds=8, window=6, gate=gate, leaves=leaves, length=length)
    outputs, top = (loop.quality(found, batch.good, batch.bad) for found in (path.latest, path.top))
    outputs[0] = batch.quality[:, :4].amax(1)
    sides = 2 if kind in ("displaced", "drifting") else 1
    allowed = torch.tensor([sides * judge.off(t) for t in range(9)]).view(9, 1, 1)
    assert (top >= outputs.cummax(0).values - allowed - 1e-12).all()
    if kind == "exact":
        assert (top.diff(dim=0) >= 0).all()


@given(kind=st.sampled_from(loop.JUDGES), size=st.floats(0.01, 0.5), round=st.integers(0, 5))
def test_ratings_are_off_by_no_more_than_said(kind, size, round):
    batch, generator = draw(), torch.Generator().manual_seed(2)
    judge = loop.Judge(kind, 0.0 if kind == "exact" else size)
    responses = torch.randn(1, 12, 20, 4, generator=generator, dtype=torch.float64)
    own = torch.rand(1, 12, 20, generator=generator) < 0.5
    rated = judge.rate(responses, own, batch, loop.directions(batch, generator), round)
    gap = rated - loop.quality(responses, batch.good.unsqueeze(1), batch.bad.unsqueeze(1))
    assert (gap.abs() <= judge.off(round) + 1e-12).all()
    if kind in ("own", "growing"):
        torch.testing.assert_close(gap, judge.off(round) * own.double())


@pytest.mark.parametrize("start", [2, 4, 20])
def test_descent_ends_at_the_exact_minimiser(start):
    batch = draw(100)
    context = loop.begin(batch, loop.Rules(start=start), 1)
    expected = floor.minimisers(batch, torch.tensor([start]))[:, 0]
    assert cosine_error(loop.descent(60)(context)[0], expected).max() < 1e-6


def test_one_step_is_the_gradient_of_the_loss():
    batch = draw()
    context = loop.begin(batch, loop.Rules(start=7), 1)
    best = torch.nn.functional.normalize(context.best()[0], dim=-1).requires_grad_(True)
    seen = batch.responses[:, :7]
    (slope,) = torch.autograd.grad(pl_loss(cosine_reward(best, seen), batch.quality[:, :7]).sum(), best)
    # The cosine's gradient is the tangential part; descent also takes the radial part, which the loss of a unit ball has.
    step = loop.descent(1, small=True)(context)[0]
    units = torch.nn.functional.normalize(seen, dim=-1)
    free = best.detach().clone().requires_grad_(True)
    linear = pl_loss(torch.einsum("bnd,bd->bn", units, free), batch.quality[:, :7])
    (whole,) = torch.autograd.grad(linear.sum(), free)
    torch.testing.assert_close(step, torch.nn.functional.normalize(best.detach() - whole / 7, dim=-1))
    radial = (whole * best.detach()).sum(-1, keepdim=True) * best.detach()
    torch.testing.assert_close(slope, whole - radial)


def entered(leaves, slots=4, start=2, rounds=5):
    batch = draw(3)
    context = loop.begin(batch, loop.Rules(start=start, window=slots), 1)
    for k in range(rounds):
        fill = torch.full((1, 3, 4), float(k), dtype=torch.float64)
        yes = torch.ones(1, 3, dtype=torch.bool)
        context = loop.enter(context, fill, fill[..., 0] + 2, True, yes, leaves)
    return batch, context


def test_the_oldest_leaves_a_full_window():
    _, context = entered("oldest")
    assert context.responses[0, 0, :, 0].tolist() == [1, 2, 3, 4] and context.own.all()


def test_the_start_stays_if_only_own_outputs_leave():
    batch, context = entered("own")
    torch.testing.assert_close(context.responses[0, :, :2], batch.responses[:, :2])
    assert context.responses[0, 0, 2:, 0].tolist() == [3, 4]
    assert context.own[0, 0].tolist() == [False, False, True, True]


def test_the_worst_rated_leaves():
    _, context = entered("worst")
    assert sorted(context.ratings[0, 0].tolist()) == [3, 4, 5, 6]


def test_what_is_refused_changes_nothing():
    context = loop.begin(draw(), loop.Rules(), 2)
    response = torch.ones(2, 12, 4, dtype=torch.float64)
    allowed = torch.zeros(2, 12, dtype=torch.bool)
    allowed[1, 5] = True
    after = loop.enter(context, response, response[..., 0], True, allowed)
    same = ~allowed
    assert torch.equal(after.responses[same], context.responses[same])
    assert after.count[1, 5] == 5 and (after.count[same] == 4).all()
    assert torch.equal(after.responses[1, 5, 4], response[1, 5])


def test_a_gated_loop_of_a_still_critic_stops_at_its_first_refusal():
    path = go(rounds=10, gate=True)
    refused = (~path.accepted).cummax(0).values
    assert refused.any() and not (path.accepted & refused).any()
    held = refused[:-1].unsqueeze(-1)
    torch.testing.assert_close(path.latest[2:] * held, path.latest[1:-1] * held)


def test_a_constant_bonus_makes_no_difference_among_own_outputs():
    generator = torch.Generator().manual_seed(5)
    responses = torch.randn(1, 6, 9, 4, generator=generator, dtype=torch.float64)
    ratings = torch.rand(1, 6, 9, generator=generator, dtype=torch.float64)
    own, count = torch.ones(1, 6, 9, dtype=torch.bool), torch.full((1, 6), 9)
    context = loop.Context(draw(6).query, responses, ratings, own, count)
    moved = replace(context, ratings=ratings + 0.7)
    torch.testing.assert_close(loop.descent(20)(context), loop.descent(20)(moved))


def test_an_open_loop_lets_no_output_in():
    contexts = []

    def watch(context):
        contexts.append(context)
        return wander(context)

    batch = draw()
    go(watch, batch=batch, rounds=9, window=6, fresh=True)
    assert not any(context.own.any() for context in contexts)
    last = contexts[-1]
    expected = loop.quality(last.responses, batch.good.unsqueeze(1), batch.bad.unsqueeze(1))
    torch.testing.assert_close(last.ratings, expected)


def test_rated_anew_the_context_has_the_ratings_of_the_round():
    contexts = []

    def watch(context):
        contexts.append(context)
        return wander(context)

    batch, judge = draw(), loop.Judge("growing", 0.1)
    go(watch, judge, batch=batch, rounds=5, anew=True)
    last = contexts[-1]
    exact = loop.quality(last.responses, batch.good.unsqueeze(1), batch.bad.unsqueeze(1))
    expected = (exact + 5 * 0.1 * last.own).masked_fill(~last.filled(), 0)
    torch.testing.assert_close(last.ratings, expected)


def test_trained_models_read_the_context_as_in_training(tmp_path):
    job = Job("ci", "one", TINY, (0, 1), 2)
    result = results.read(perform(job, tmp_path / job.id))
    batch = sample_batch(5, 8, 4, torch.Generator().manual_seed(0))
    context = loop.begin(batch, loop.Rules(start=6, window=8), 2)
    found = loop.reader(result)(context)
    for k, model in enumerate(result.models()):
        torch.testing.assert_close(found[k], model(tokens(batch, "triplet"))[:, 5])
    path = go(loop.reader(result), batch=batch, seeds=2, rounds=7, window=8)
    assert path.latest.shape == (8, 2, 5, 4) and path.latest.isfinite().all()
    raters = replace(result, config=replace(TINY, critic=Critic(raters=2)))
    with pytest.raises(ValueError, match="must have triplet tokens, a causal mask and one rater"):
        loop.reader(raters)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: loop.Judge("kind"), "kind must be one of exact, own"),
        (lambda: loop.Judge("own", -0.1), "size must be a finite number above 0"),
        (lambda: loop.Judge("own", math.inf), "size must be a finite number above 0"),
        (lambda: loop.Judge("exact", 0.1), "size must be 0 for the exact critic"),
        (lambda: loop.Rules(rounds=0), "rounds must be a whole number of at least 1"),
        (lambda: loop.Rules(start=9, window=8), "start must be at most window = 8"),
        (lambda: loop.Rules(leaves="best"), "leaves must be one of"),
        (lambda: loop.Rules(length="long"), "length must be one of"),
        (lambda: loop.Rules(gate=True, fresh=True), "gate must be False in an open loop"),
        (lambda: loop.descent(0), "steps must be a whole number"),
        (lambda: go(batch=draw(N=3)), "batch must hold at least start = 4"),
    ],
)
def test_refusals_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
