"""The sampler draws what it says, critics err as often as they say, what needs a line refuses own noise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.synthetic.analysis import controls
from ica.synthetic.task import floor
from ica.synthetic.task.data import Critic, sample_batch

# Sum over the entries of the k-th times cos k, float64, of 64 prompts of N = 20 and d = 5 from seed 0: as the
# sampler drew when it knew shared noise alone (commit cfb8d13), for the stored runs of that time.
DRAWN = {
    "query": 15.408792727352209,
    "good": 34.97508796408795,
    "bad": 2.4376752792236456,
    "responses": -46.93316378879624,
    "quality": -11.644033924133826,
    "rewards": -11.644033924133826,
    "shown": -11.644033924133826,
}


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


def test_shared_noise_is_drawn_as_it_was_before_there_was_another():
    b = sample_batch(64, 20, 5, torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, expected in DRAWN.items():
        values = getattr(b, name).flatten()
        found = (values * torch.arange(1, len(values) + 1, dtype=torch.float64).cos()).sum()
        assert found.item() == pytest.approx(expected, abs=1e-9), name
    assert b.noise == "shared" and b.on_a_line() is b
    again = sample_batch(64, 20, 5, torch.Generator().manual_seed(0), dtype=torch.float64, noise="shared")
    assert torch.equal(again.responses, b.responses)


@given(N=st.integers(2, 6), d=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_with_own_noise_each_response_lies_between_the_target_and_its_own_distractor(N, d, seed):
    b, shared = (
        sample_batch(3, N, d, torch.Generator().manual_seed(seed), dtype=torch.float64, noise=noise)
        for noise in ("own", "shared")
    )
    assert b.noise == "own" and b.bad.shape == b.responses.shape == (3, N, d)
    r = b.quality.unsqueeze(-1)
    torch.testing.assert_close(b.responses, r * b.good.unsqueeze(1) + (1 - r) * b.bad)
    assert torch.equal(b.query, shared.query) and torch.equal(b.good, shared.good)
    assert torch.equal(b.rewards, b.quality) and not torch.equal(b.quality, shared.quality)


def test_own_noise_has_the_moments_of_the_sampler():
    """Given x all are Gaussian of variance |x|^2: mean 0, variance d, uncorrelated with each other."""
    b = sample_batch(40_000, 4, 3, torch.Generator().manual_seed(1), dtype=torch.float64, noise="own")
    assert b.bad.mean(0).abs().max() < 0.05
    torch.testing.assert_close(b.bad.square().mean(0), torch.full((4, 3), 3.0).double(), rtol=0.06, atol=0)
    together = torch.cat([b.good.unsqueeze(1), b.bad], dim=1)
    products = torch.einsum("bid,bjd->ij", together, together) / len(together)
    assert (products - products.diag().diag()).abs().max() < 0.2  # of 9 on the diagonal
    sizes = b.query.square().sum(-1, keepdim=True) * 3
    torch.testing.assert_close(
        (b.bad.square().sum(-1) / sizes).mean(0), torch.ones(4).double(), rtol=0.02, atol=0
    )
    for noise, most, least in (("own", 0.03, -0.03), ("shared", 1.0, 0.99)):
        c = sample_batch(5000, 2, 3, torch.Generator().manual_seed(2), dtype=torch.float64, noise=noise)
        r = c.quality.unsqueeze(-1)
        ends = (c.responses - r * c.good.unsqueeze(1)) / (
            1 - r
        )  # the distractor of each response, found again
        directions = torch.nn.functional.normalize(ends, dim=-1)
        assert least < (directions[:, 0] * directions[:, 1]).sum(-1).mean() <= most + 1e-9


NEED_A_LINE = {
    "on_a_line": lambda b, g: b.on_a_line(),
    "plane": lambda b, g: floor.plane(b),
    "minimisers": lambda b, g: floor.minimisers(b, torch.tensor([2, 4])),
    "squared descent": lambda b, g: floor.squared_descent(b, torch.zeros_like(b.good), 2),
    "redrawn tail": lambda b, g: controls.redrawn_tail(b, 2, g),
}


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize("name", NEED_A_LINE)
def test_what_needs_one_distractor_refuses_own_noise(name):
    generator = torch.Generator().manual_seed(0)
    NEED_A_LINE[name](draw(batch=4), generator)
    with pytest.raises(ValueError, match="must have shared noise .* got own noise"):
        NEED_A_LINE[name](draw(batch=4, noise="own"), generator)


@pytest.mark.parametrize("noise", ["shared", "own"])
def test_a_cut_prompt_is_one_of_fewer_triplets(noise):
    b = draw(batch=4, noise=noise)
    short, other = controls.cut(b, 3), controls.other_tail(b, 3)
    ends = (lambda c: c.bad) if noise == "own" else (lambda c: c.bad.unsqueeze(1))
    for one in (short, b):
        r = one.quality.unsqueeze(-1)
        torch.testing.assert_close(one.responses, r * one.good.unsqueeze(1) + (1 - r) * ends(one))
    assert short.noise == other.noise == noise and short.responses.shape[1] == 3
    assert torch.equal(other.responses[:, 3:], b.responses[:, 3:].roll(1, dims=0))
    if noise == "own":
        assert torch.equal(other.bad[:, 3:], b.bad[:, 3:].roll(1, dims=0))
        assert torch.equal(short.bad, b.bad[:, :3])


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
    kind=st.sampled_from(["replace", "gaussian", "flip"]),
    level=st.floats(0, 1),
    noise=st.sampled_from(["shared", "own"]),
    seed=st.integers(0, 2**31),
)
def test_the_critic_changes_nothing_but_the_rewards(kind, level, noise, seed):
    true, noisy = draw(None, seed, 4, noise=noise), draw(Critic(kind, level), seed, 4, noise=noise)
    assert torch.equal(true.responses, noisy.responses) and torch.equal(true.quality, noisy.quality)


def test_same_prompts_in_both_precisions():
    torch.testing.assert_close(
        draw().responses.double(), draw(dtype=torch.float64).responses, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("other", 0.1, "kind must be one of"),
        ("replace", 1.5, "level must lie"),
        ("gaussian", -1.0, "level must lie"),
        ("flip", float("nan"), "level must lie"),
    ],
)
def test_bad_critics_are_named(kind, level, message):
    with pytest.raises(ValueError, match=message):
        Critic(kind, level)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="N must be a whole number of at least 2"):
        sample_batch(2, 1, 3, torch.Generator())
    with pytest.raises(ValueError, match="noise must be one of shared, own; got 'each'"):
        draw(noise="each")


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
