"""The sampler draws what the docstring says; critics err as often as they say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.synthetic.task.data import Critic, sample_batch


def draw(critic=None, seed=0, batch=2000, **more):
    return sample_batch(batch, 5, 3, torch.Generator().manual_seed(seed), critic, **more)


def test_responses_lie_on_the_line_at_their_quality():
    b = draw(dtype=torch.float64)
    expected = b.quality[..., None] * b.good[:, None] + (1 - b.quality[..., None]) * b.bad[:, None]
    torch.testing.assert_close(b.responses, expected)
    assert torch.equal(b.rewards, b.quality)


def test_ends_have_the_moments_of_the_sampler():
    b = draw(
        batch=40_000, dtype=torch.float64
    )  # y* = x W: mean 0, variance d per coordinate; y* and e uncorrelated
    for end in (b.good, b.bad):
        assert end.mean(0).abs().max() < 0.05
        torch.testing.assert_close(end.square().mean(0), torch.full((3,), 3.0).double(), rtol=0.06, atol=0)
    assert (b.good * b.bad).mean(0).abs().max() < 0.1
    assert abs(b.quality.mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("kind", "level"), [("replace", 0.25), ("replace", 1.0), ("flip", 0.5), ("flip", 0.0)]
)
def test_critics_err_as_often_as_they_say(kind, level):
    b = draw(Critic(kind, level))
    assert abs((b.rewards != b.quality).double().mean() - level) < 0.02
    wrong = b.rewards != b.quality
    if kind == "flip":
        torch.testing.assert_close(b.rewards[wrong], 1 - b.quality[wrong])
    elif level:
        assert abs(torch.corrcoef(torch.stack([b.rewards[wrong], b.quality[wrong]]))[0, 1]) < 0.05


def test_gaussian_critic_has_its_standard_deviation():
    b = draw(Critic("gaussian", 0.3))
    assert (b.rewards - b.quality).std() == pytest.approx(0.3, rel=0.03)


@given(
    kind=st.sampled_from(["replace", "gaussian", "flip"]), level=st.floats(0, 1), seed=st.integers(0, 2**31)
)
def test_the_critic_changes_nothing_but_the_rewards(kind, level, seed):
    true, noisy = draw(None, seed, 4), draw(Critic(kind, level), seed, 4)
    assert torch.equal(true.responses, noisy.responses) and torch.equal(true.quality, noisy.quality)


def test_same_prompts_in_both_precisions():
    torch.testing.assert_close(
        draw().responses.double(), draw(dtype=torch.float64).responses, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [("other", 0.1, "kind must be one of"), ("replace", 1.5, "level must lie"), ("gaussian", -1.0, "level must lie"),
     ("flip", float("nan"), "level must lie")],
)  # fmt: skip
def test_bad_critics_are_named(kind, level, message):
    with pytest.raises(ValueError, match=message):
        Critic(kind, level)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="N must be a whole number of at least 2"):
        sample_batch(2, 1, 3, torch.Generator())


def test_several_raters_are_independent_and_rank_by_their_mean():
    b = draw(Critic("replace", 0.5, raters=3))
    assert b.shown.shape == (2000, 5, 3)
    torch.testing.assert_close(b.rewards, b.shown.mean(-1))
    wrong = (b.shown != b.quality.unsqueeze(-1)).double().flatten(0, 1)
    assert torch.corrcoef(wrong.T).fill_diagonal_(0).abs().max() < 0.05
    one = draw(Critic("replace", 0.5))
    assert torch.equal(one.shown[..., 0], one.rewards)


@given(grades=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_grades_are_the_middles_of_equal_parts(grades, seed):
    b = draw(Critic(grades=grades), seed, 8)
    steps = b.rewards * grades - 0.5
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert (b.rewards - b.quality).abs().max() <= 0.5 / grades + 1e-6
    wide = draw(Critic("gaussian", 5.0, grades=grades), seed, 8)
    assert wide.rewards.min() > 0 and wide.rewards.max() < 1


def test_the_same_prompts_can_be_judged_by_another_critic():
    true = draw()
    other = true.judged_by(Critic("flip", 1.0), torch.Generator().manual_seed(1))
    torch.testing.assert_close(other.rewards, 1 - true.quality)
    assert torch.equal(other.responses, true.responses) and torch.equal(true.rewards, true.quality)


@pytest.mark.parametrize(("raters", "grades"), [(0, 0), (1, 1), (1, -2)])
def test_bad_raters_and_grades_are_named(raters, grades):
    with pytest.raises(ValueError, match="raters|grades"):
        Critic(raters=raters, grades=grades)
