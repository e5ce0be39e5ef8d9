"""The whole loss and its derivatives, against autograd in double precision and against values by hand."""

from itertools import product

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.gradients.policy_backend import ActorCriticEvaluation
from sb3_pg_ext.policies.inputs import PolicyInputs

SIZE = 12
CHOICES = {
    "ent_coef": (0.0, 0.01, -0.3),
    "vf_coef": (0.0, 0.5),
    "normalize_advantage": (False, True),
    "kl_coef": (0.0, 2.0),
    "clip_range": (None, 0.2),
    "clip_range_vf": (None, 0.3),
    "with_ratio": (False, True),
}
COMBINATIONS = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]
PLAIN = {"ent_coef": 0.0, "vf_coef": 0.5, "normalize_advantage": False}


def make_steps(rng, dtype=np.float64):
    numbers = {name: rng.normal(size=SIZE).astype(dtype) for name in ("log_probs", "values", "advantages", "returns")}
    return Steps(inputs=PolicyInputs(np.zeros((SIZE, 1))), actions=np.zeros((SIZE, 1)), **numbers)


def make_quantities(rng, steps):
    """What a policy that has moved a little gives: log-probabilities, entropies, KL and values."""

    def near(array):
        return array + rng.normal(0, 0.3, SIZE).astype(array.dtype)

    entropies, kls = (rng.exponential(size=SIZE).astype(steps.values.dtype) for _ in range(2))
    return ActorCriticEvaluation(near(steps.values), near(steps.log_probs), entropies), kls


def their_loss(computed, steps, options):
    values, log_probs, entropies, kls = computed
    old_log_probs, old_values, advantages, returns = map(
        th.from_numpy, (steps.log_probs, steps.values, steps.advantages, steps.returns)
    )
    if options["normalize_advantage"]:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    if options["with_ratio"]:
        ratios = (log_probs - old_log_probs).exp()
        gain = ratios * advantages
        if options["clip_range"] is not None:
            epsilon = options["clip_range"]
            gain = th.min(gain, ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)
    else:
        gain = log_probs * advantages
    if options["clip_range_vf"] is not None:
        epsilon = options["clip_range_vf"]
        values = old_values + (values - old_values).clamp(-epsilon, epsilon)
    critic = options["vf_coef"] * ((values - returns) ** 2).mean()
    return -gain.mean() + critic - options["ent_coef"] * entropies.mean() + options["kl_coef"] * kls.mean()


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: ",".join(map(str, options.values())))
def test_every_combination_against_autograd(options):
    rng = np.random.default_rng(0)
    steps = make_steps(rng)
    computed, kls = make_quantities(rng, steps)
    losses, derivatives = Objective(**options)(computed, steps, kls)

    variables = [th.tensor(q, requires_grad=True) for q in (*computed, kls)]
    expected = their_loss(variables, steps, options)
    np.testing.assert_allclose(losses["loss"], expected.item(), rtol=1e-10, atol=1e-10)
    gradients = th.autograd.grad(expected, variables)
    for name, theirs in zip((*ActorCriticEvaluation._fields, "kls"), gradients, strict=True):
        ours = derivatives.get(name, np.zeros(SIZE))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


BY_HAND = (
    ActorCriticEvaluation(
        values=np.array([1.0, 4.0]),
        log_probs=np.log([1.5, 0.5]),
        entropies=np.array([1.0, 2.0]),
    ),
    Steps(
        inputs=PolicyInputs(np.zeros((2, 1))),
        actions=np.zeros((2, 1)),
        log_probs=np.zeros(2),
        values=np.array([1.0, 1.0]),
        advantages=np.array([2.0, 4.0]),
        returns=np.array([2.0, 1.0]),
    ),
)

KLS = np.array([0.1, 0.3])


def test_terms_by_hand():
    losses, derivatives = Objective(0.1, 0.5, False, kl_coef=10, clip_range=0.2, clip_range_vf=1.0)(*BY_HAND, KLS)
    expected = {
        "policy_gradient_loss": -(1.2 * 2 + 0.5 * 4) / 2,
        "value_loss": (1 + 1) / 2,
        "entropy_loss": -1.5,
        "kl_loss": 0.2,
        "approx_kl": (0.5 - np.log(1.5) - 0.5 - np.log(0.5)) / 2,
        "clip_fraction": 1.0,
    }
    expected["loss"] = -2.2 + 0.5 * 1 - 0.1 * 1.5 + 10 * 0.2
    assert losses == pytest.approx(expected)
    assert all(type(value) is float for value in losses.values())
    np.testing.assert_allclose(derivatives["log_probs"], [0, -1])
    np.testing.assert_allclose(derivatives["entropies"], [-0.05, -0.05])
    np.testing.assert_allclose(derivatives["kls"], [5, 5])
    np.testing.assert_allclose(derivatives["values"], [-0.5, 0])


def test_before_the_policy_has_moved():
    losses, derivatives = Objective(**PLAIN, with_ratio=False)(*BY_HAND)
    assert losses["policy_gradient_loss"] == pytest.approx(-(2 * np.log(1.5) + 4 * np.log(0.5)) / 2)
    np.testing.assert_allclose(derivatives["log_probs"], [-1, -2])
    computed, steps = BY_HAND
    computed = computed._replace(log_probs=steps.log_probs)
    (_, one), (_, other) = (Objective(**PLAIN, with_ratio=choice)(computed, steps) for choice in (False, True))
    np.testing.assert_allclose(one["log_probs"], other["log_probs"])


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_has_no_weight_has_no_influence(number):
    computed, steps = BY_HAND
    expected, _ = Objective(**PLAIN)(computed, steps)
    computed, kls = computed._replace(entropies=np.full(2, number)), np.full(2, number)
    losses, derivatives = Objective(**PLAIN)(computed, steps, kls)
    assert losses["loss"] == expected["loss"]
    assert "kl_loss" not in losses
    assert derivatives.keys() == {"log_probs", "values"}
    for options in ({"ent_coef": 0.1}, {"kl_coef": 0.1}):
        losses, _ = Objective(**PLAIN | options)(computed, steps, kls)
        assert not np.isfinite(losses["loss"])


def test_no_divergence_is_needed_without_a_penalty():
    computed, steps = BY_HAND
    one = Objective(**PLAIN)(computed, steps)
    other = Objective(**PLAIN)(computed, steps, KLS)
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1]["log_probs"], other[1]["log_probs"])


@pytest.mark.parametrize("options", COMBINATIONS[-4:], ids=lambda options: ",".join(map(str, options.values())))
def test_single_precision_stays_single_and_arguments_are_left_alone(options):
    rng = np.random.default_rng(0)
    steps = make_steps(rng, np.float32)
    computed, kls = make_quantities(rng, steps)
    arguments = [*computed, kls, steps.log_probs, steps.values, steps.advantages, steps.returns]
    before = [array.copy() for array in arguments]
    _, derivatives = Objective(**options)(computed, steps, kls)
    assert {array.dtype for array in [*arguments, *derivatives.values()]} == {np.dtype(np.float32)}
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)
