"""Rounds of self-correction: the dialogue of a constructed model is online gradient descent; what answers can do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ica.objectives import pl_direction
from ica.theory import rounds as ro
from ica.theory.constructions import dialogue as di
from ica.theory.constructions.basics import Assumptions
from ica.theory.constructions.dialogue import dialogue_model
from ica.theory.constructions.several_queries import with_start
from ica.theory.prompts import Prompts, sample_prompts

BATCH, D = 4, 3


def scene(n: int, seed: int, d: int = D):
    """Query, first map, given responses and target of a batch of dialogues."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(*s, generator=generator, dtype=torch.float64)
            for s in ((BATCH, d), (d, d), (BATCH, n, d), (BATCH, d))]  # fmt: skip
    query, W, responses, target = draw
    return query / query.norm(dim=-1, keepdim=True), W / d**0.5, responses / d**0.5, target / d**0.5


def rates(target, kind: str, seed: int = 1) -> ro.TargetCritic:
    return ro.TargetCritic(target, kind, 0.5, torch.Generator().manual_seed(seed))


def weights(eta: float = 0.03, **more) -> Assumptions:
    return Assumptions(eta=eta, gap=1e-10, radius=15.0, **more)


@settings(max_examples=6, deadline=None)
@given(kind=st.sampled_from(ro.CRITICS), start=st.sampled_from(ro.STARTS), n=st.integers(1, 4),
       rounds=st.integers(1, 4), seed=st.integers(0, 10**6))  # fmt: skip
def test_dialogue_of_the_model_is_online_descent(kind, start, n, rounds, seed):
    query, W, responses, target = scene(n, seed)
    reference = ro.descent_dialogue(W, query, responses, rates(target, kind), 0.03, rounds, start)
    model = dialogue_model(W, n, rounds, weights(), start)
    talk = di.model_dialogue(model, W, query, responses, rates(target, kind), rounds)
    torch.testing.assert_close(talk.answers, reference.answers, rtol=0, atol=1e-11)
    torch.testing.assert_close(di.one_pass(model, talk), talk.answers[1:], rtol=0, atol=1e-12)
    corners = torch.cat([responses, talk.answers[:1].transpose(0, 1)], dim=1)
    assert ro.off_the_span(talk.answers, corners).max() <= 1e-11
    if start == "last answer":
        torch.testing.assert_close(ro.exact_steps(talk, 0.03), talk.answers[1:], rtol=0, atol=1e-12)


def test_the_two_starts_agree_in_the_first_round_only():
    query, W, responses, target = scene(3, 0)
    told = (W, query, responses, rates(target, "true"), 0.05, 3)
    on, again = (ro.descent_dialogue(*told, start).answers for start in ro.STARTS)
    torch.testing.assert_close(on[:2], again[:2])
    assert (on[2] - again[2]).norm(dim=-1).min() > 1e-3


def test_float32_follows_where_it_can_tell_rewards_apart():
    query, W, responses, target = scene(3, 2)
    reference = ro.descent_dialogue(W, query, responses, rates(target, "true"), 0.03, 4)
    assert reference.prompts.rewards.sort(dim=-1).values.diff(dim=-1).min() > 2e-5
    coarse = Assumptions(eta=0.03, gap=1e-5, radius=15.0, dtype=torch.float32)
    model = dialogue_model(W, 3, 4, coarse)
    talk = di.model_dialogue(model, W, query, responses, rates(target, "true"), 4)
    assert talk.answers.dtype == torch.float32
    torch.testing.assert_close(talk.answers.double(), reference.answers, rtol=0, atol=1e-5)


@given(n=st.integers(2, 6), kind=st.sampled_from(ro.CRITICS), seed=st.integers(0, 10**6))
def test_gain_is_the_part_of_the_step_towards_the_target(n, kind, seed):
    query, W, responses, target = scene(n, seed)
    prompts = ro.opening(query, responses, query @ W.T, rates(target, kind))
    prediction = query @ W.T
    u = pl_direction(prediction, prompts.responses, prompts.rewards)
    direct = (u * (target - prediction)).sum(-1)
    scale = u.norm(dim=-1) * (target - prediction).norm(dim=-1)
    assert ((ro.gain(prediction, prompts, target) - direct).abs() <= 1e-12 * (1 + scale)).all()


@given(N=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_own_answer_is_drawn_to_the_better_and_shields_from_the_far(N, seed):
    """The three sums of the proposition, and the bound on the second."""
    generator = torch.Generator().manual_seed(seed)
    prompts = sample_prompts(1, N, D, generator=generator)
    tau = prompts.rewards[0].argsort(descending=True)
    y = prompts.responses[0, tau]
    k = int((tau == N - 1).nonzero())
    z = y - y[k]
    logits = -z.square().sum(-1)
    total = z[:k].sum(0)
    for i in range(N - 1):
        mean = (logits[i:].softmax(-1).unsqueeze(-1) * z[i:]).sum(0)
        total = total - mean if i <= k else total + z[i] - mean
        if i <= k:
            assert mean.norm() <= (z[i:].norm(dim=-1) * logits[i:].exp()).sum() + 1e-12
    u = pl_direction(prompts.responses[:, -1], prompts.responses, prompts.rewards)[0]
    torch.testing.assert_close(total, u, rtol=0, atol=1e-12)


def test_reversed_critic_leads_away_and_true_one_towards():
    query, W, responses, target = scene(4, 3)
    ends = {}
    for kind in ("true", "reversed"):
        talk = ro.descent_dialogue(W, query, responses, rates(target, kind), 0.02, 12)
        ends[kind] = (talk.answers[[0, -1]] - target).norm(dim=-1).square().mean(dim=1)
    assert ends["true"][1] < ends["true"][0] < ends["reversed"][1]


@pytest.mark.parametrize("pace", ro.PACES)
def test_without_own_answers_the_prompt_stays_and_steps_keep_the_pace(pace):
    query, W, responses, target = scene(2, 4)
    told = (W, query, responses, rates(target, "true"), 0.02)
    own = ro.descent_dialogue(*told, 4)
    talk = ro.descent_without_own(*told, own, pace)
    assert talk.prompts.responses.shape[1] == 3
    torch.testing.assert_close(talk.answers[:2], own.answers[:2])
    opening = talk.prompts
    for t in range(4):
        u = pl_direction(talk.answers[t], opening.responses, opening.rewards)
        length = own.answers.diff(dim=0)[t].norm(dim=-1)
        factor = {"same rate": 1, "same length": (length / (0.04 * u).norm(dim=-1)).unsqueeze(-1)}
        wanted = talk.answers[t] + 0.04 * factor.get(pace, (2 + t) / 2) * u
        torch.testing.assert_close(talk.answers[t + 1], wanted)


def test_an_answer_can_be_repeated():
    """The remark on stalling: n = 1, target -0.1, and a step size between these two at which step 2 is 0."""

    def second(eta):
        one = torch.ones(1, 1, dtype=torch.float64)
        critic = ro.TargetCritic(-0.1 * one)
        answers = ro.descent_dialogue(0 * one, one, one.unsqueeze(-1), critic, eta, 2).answers[:, 0, 0]
        assert answers[1].item() == pytest.approx(-0.43968, abs=1e-4)
        return (answers[2] - answers[1]).item()

    assert abs(second(0.81741826)) <= 1e-7
    assert second(0.8173) * second(0.8175) < 0


def test_distance_from_the_span():
    corners = torch.tensor([[[0.0, 0, 1], [1, 0, 1], [0, 1, 1]]], dtype=torch.float64)
    points = torch.tensor([[[5.0, -2, 1]], [[0, 0, 4]]], dtype=torch.float64)
    assert ro.off_the_span(points, corners)[:, 0].tolist() == pytest.approx([0, 3])
    assert ro.off_the_span(points[..., :2], corners[..., :2]).max() == 0


QUERY, MAP, GIVEN, TARGET = scene(2, 5)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ro.TargetCritic(TARGET, "kind"), "kind must be one of true, replaced, reversed"),
        (lambda: ro.TargetCritic(TARGET, "replaced"), "generator must be given"),
        (lambda: dialogue_model(MAP, 0, 3, weights()), "given must be a whole number of at least 1"),
        (lambda: dialogue_model(MAP, 2, 0, weights()), "rounds must be a whole number of at least 1"),
        (lambda: dialogue_model(MAP, 2, 3, weights(), "y"), "start must be one of last answer, first map"),
        (
            lambda: ro.descent_without_own(MAP, QUERY, GIVEN, rates(TARGET, "true"), 0.1, None, "fast"),
            "pace must be one of same rate, same length, rate by terms",
        ),
        (
            lambda: ro.descent_dialogue(MAP, QUERY, GIVEN, lambda y: y[..., 0] * 0, 0.1, 1),
            "rewards must be distinct",
        ),
        (
            lambda: di.model_dialogue(dialogue_model(MAP, 2, 1, weights()), MAP, QUERY, GIVEN,
                                      rates(TARGET, "true"), 2),
            "N must be 2 to 3 responses",
        ),
    ],
)  # fmt: skip
def test_bad_dialogues_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_model_checks_the_distance_from_its_own_responses():
    query, W, responses, _ = scene(2, 6)
    far = torch.cat([responses, 40 * responses[:, :1] / responses[:, :1].norm(dim=-1, keepdim=True)], dim=1)
    rewards = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).expand(BATCH, 3)
    tokens = with_start(Prompts(query, far, rewards).tokens())
    with pytest.raises(ValueError, match="at the start of step 1 must be"):
        dialogue_model(W, 2, 1, weights())(tokens)
