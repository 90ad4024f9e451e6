"""Sampled prompts keep what they promise; bad prompts are refused by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ica.theory.descent import gradient_descent
from ica.theory.prompts import Prompts, default_gap, sample_prompts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(N=st.integers(2, 30), share=st.floats(0.01, 3.9), seed=st.integers(0, 2**31))
def test_rewards_keep_their_distance(N, share, seed):
    gap = share * default_gap(N)
    rewards = sample_prompts(4, N, 2, gap=gap, generator=generator(seed)).rewards
    assert rewards.sort(-1).values.diff(dim=-1).min() >= gap * (1 - 1e-9)
    assert rewards.min() >= 0 and rewards.max() <= 1


def test_same_seed_same_prompts_and_other_seed_others():
    first, again, other = (sample_prompts(3, 4, 2, generator=generator(s)).responses for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_queries_have_unit_norm():
    norms = sample_prompts(9, 2, 3, 5, generator=generator()).query.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(9, dtype=torch.float64))


BASE = {
    "query": torch.ones(1, 2),
    "responses": torch.ones(1, 3, 2),
    "rewards": torch.tensor([[0.1, 0.2, 0.3]]),
}


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": torch.tensor([[0.1, 0.2, 0.1]])}, "rewards must be distinct"),
        ({"rewards": torch.tensor([[0.1, 0.2]])}, r"rewards must have shape \(1, 3\)"),
        ({"query": torch.tensor([[torch.nan, 1.0]])}, "query must be finite"),
        ({"query": torch.ones(2, 2)}, r"query must have shape \(1, any\)"),
        ({"responses": torch.ones(1, 1, 2), "rewards": torch.ones(1, 1)}, "N >= 2"),
        ({"responses": torch.ones(1, 3, 2, dtype=torch.float16)}, "responses.dtype must be one of"),
        ({"rewards": torch.tensor([[1, 2, 3]])}, "rewards.dtype must be one of"),
        ({"query": torch.ones(1, 2, dtype=torch.float64)}, "query.dtype must be one of torch.float32"),
    ],
)
def test_bad_prompts_are_named(change, message):
    Prompts(**BASE)
    with pytest.raises(ValueError, match=message):
        Prompts(**{**BASE, **change})


def test_rewards_that_collide_in_lower_precision_are_refused():
    rewards = torch.tensor([[0.5, 0.5 + 1e-9]], dtype=torch.float64)
    prompts = Prompts(torch.ones(1, 2).double(), torch.ones(1, 2, 2).double(), rewards)
    with pytest.raises(ValueError, match="rewards must be distinct"):
        prompts.to(torch.float32)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"gap": 0.6}, "gap must be below"), ({"N": 1}, "N must be"), ({"dtype": torch.int64}, "dtype must be")],
)
def test_bad_sampling_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_prompts(**{"batch": 2, "N": 3, "d": 2, "generator": generator(), **arguments})


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"W": torch.zeros(1, 3, 2)}, r"W must have shape \(1, 2, 2\)"),
        ({"W": torch.full((1, 2, 2), torch.nan)}, "W must be finite"),
        ({"eta": -1.0}, "eta must be"),
        ({"steps": -1}, "steps must be"),
    ],
)
def test_bad_descent_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_descent(
            **{"W": torch.zeros(1, 2, 2), "prompts": Prompts(**BASE), "eta": 0.1, "steps": 1, **arguments}
        )
