"""Controlled pairs: interventions change only what they should, and sizes of differences are those of statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ica.synthetic.analysis import controls
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import sample_batch
from ica.synthetic.task.metrics import cosine_error
from ica.transformer import Transformer

TINY = RunConfig(form="triplet", layers=2, heads=2, width=8, hidden=8, d=3, N=6, steps=1, batch=4, rate=1e-2)


def prompts(count: int = 5):
    return sample_batch(count, TINY.N, TINY.d, torch.Generator().manual_seed(0))


def models(**changes) -> list[Transformer]:
    torch.manual_seed(0)
    config = RunConfig.from_dict(TINY.as_dict() | changes)
    return [Transformer(config.transformer()).eval() for _ in range(2)]


def changed_tails(batch, n):
    return controls.other_tail(batch, n), controls.redrawn_tail(batch, n, torch.Generator().manual_seed(1))


@given(n=st.integers(1, TINY.N))
def test_tails_change_after_n_only(n):
    batch = prompts()
    for changed in changed_tails(batch, n):
        for name in controls.TRIPLETS:
            before, after = getattr(batch, name), getattr(changed, name)
            assert torch.equal(before[:, :n], after[:, :n])
            assert n == TINY.N or not torch.equal(before[:, n:], after[:, n:])
    again = controls.redrawn_tail(batch, n, torch.Generator().manual_seed(1))
    quality = again.quality.unsqueeze(-1)
    on_the_line = quality * batch.good.unsqueeze(1) + (1 - quality) * batch.bad.unsqueeze(1)
    torch.testing.assert_close(again.responses, on_the_line, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize("form", ["triplet", "interleaved"])
def test_a_causal_prediction_does_not_see_what_follows_and_an_unmasked_one_does(attention, form):
    batch, n = prompts(), 3
    for mask, moves in (("causal", False), ("full", True)):
        of = models(attention=attention, mask=mask, form=form)
        before = controls.predictions(of, batch, n, form)
        assert before.shape == (2, 5, TINY.d)
        for changed in changed_tails(batch, n):
            after = controls.predictions(of, changed, n, form)
            assert torch.allclose(before, after, atol=1e-6) != moves
        cut = controls.predictions(of, batch, n, form, whole=False)
        assert torch.allclose(before, cut, atol=1e-6) != moves


def test_effects_of_the_tail_are_those_of_its_parts():
    batch, n = prompts(), 3
    for mask in ("causal", "full"):
        of = models(mask=mask)
        found = controls.tail_effects(of, batch, n, TINY.form, torch.Generator().manual_seed(1))
        moved = [found["later triplets of another prompt"], found["later triplets redrawn"]]
        assert all(values.shape == (2, 5) and (values > 1e-6).any() == (mask == "full") for values in moved)
        assert torch.allclose(found["whole prompt"], found["cut after n"], atol=1e-6) == (mask == "causal")
        again = cosine_error(controls.predictions(of, batch, n, TINY.form), batch.good)
        assert torch.equal(found["whole prompt"], again)


def test_prompts_are_cut_and_lengths_checked():
    batch = prompts()
    assert controls.cut(batch, 4).responses.shape == (5, 4, TINY.d)
    assert torch.equal(controls.cut(batch, 4).good, batch.good)
    with pytest.raises(ValueError, match="n must be at most the N = 6 triplets"):
        controls.cut(batch, 7)
    with pytest.raises(ValueError, match="at least two prompts"):
        controls.other_tail(prompts(1), 2)
    with pytest.raises(ValueError, match="n must have a prediction in prompts of 18 tokens"):
        controls.predictions(models(form="interleaved"), batch, 6, "interleaved")


runs_of = st.lists(st.floats(-3, 3), min_size=2, max_size=8).filter(lambda v: max(v) - min(v) > 0.01)


@given(first=runs_of, second=runs_of, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_an_effect_size_has_no_unit_and_turns_with_its_sides(first, second, scale, shift):
    a, b = torch.tensor(first).double(), torch.tensor(second).double()
    d, lo, hi = controls.effect_size(a, b)
    assert lo < d < hi
    assert controls.effect_size(scale * a + shift, scale * b + shift) == pytest.approx((d, lo, hi), abs=1e-6)
    assert controls.effect_size(b, a) == pytest.approx((-d, -hi, -lo), abs=1e-4)


def test_the_interval_of_an_effect_size_is_that_of_the_noncentral_t():
    a, b = (
        torch.tensor([0.3, 0.5, 0.4, 0.45, 0.2]).double(),
        torch.tensor([0.1, 0.2, 0.15, 0.3, 0.25]).double(),
    )
    d, lo, hi = controls.effect_size(a, b)
    t = stats.ttest_ind(a, b).statistic
    assert d == pytest.approx(t * (2 / 5) ** 0.5)
    for end, tail in ((lo, 0.975), (hi, 0.025)):
        assert stats.nct.cdf(t, 8, end / (2 / 5) ** 0.5) == pytest.approx(tail, abs=2e-3)


def test_an_effect_size_needs_runs_and_spread():
    two, one = torch.tensor([0.1, 0.2]), torch.tensor([0.1])
    with pytest.raises(ValueError, match="second must hold at least two runs, got 1"):
        controls.effect_size(two, one)
    with pytest.raises(ValueError, match="must have some spread"):
        controls.effect_size(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        controls.effect_size(two, two + 1, level=1.0)


def test_a_magnitude_starts_at_zero_where_the_sign_is_open():
    assert controls.magnitude((-2.0, -3.0, -1.0)) == {"value": 2.0, "interval": (1.0, 3.0)}
    assert controls.magnitude((0.5, -0.2, 1.2)) == {"value": 0.5, "interval": (0.0, 1.2)}


def test_pairs_of_single_runs_are_counted():
    a, b = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.5, 3.0])
    found = controls.single_runs(a, b)
    assert found["first higher"] == 0.5 and found["largest"] == 2.5
    assert found["mean size"] == pytest.approx((0.5 + 2 + 0.5 + 1 + 2.5 + 1) / 6)
    same = controls.single_runs(a, a)
    assert same["mean size"] == 2 and same["largest"] == 3 and same["first higher"] != same["first higher"]
