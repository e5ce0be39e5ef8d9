"""The gradient of the penalty in double precision, for every distribution; and that it is not always zero."""

from copy import deepcopy

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv

from sb3_pg_ext.functional.heads import Categorical
from sb3_pg_ext.functional.tensors.distributions import parts
from sb3_pg_ext.gradients import autograd_backend
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Objective

from .models import make_model

PENALTY_ALONE = Objective(ent_coef=0.0, vf_coef=0.0, normalize_advantage=False, kl_coef=1.0)


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def categorical(old, new):
    """∂KL/∂logits of every row: p − p_old."""
    return softmax(new["logits"]) - softmax(old["logits"])


def bernoulli(old, new):
    p_old, p = (1 / (1 + np.exp(-part["logits"])) for part in (old, new))
    return p - p_old


def normal(old, new):
    """∂KL/∂mean of every row: (μ − μ_old) / σ²."""
    return (new["loc"] - old["loc"]) / new["scale"] ** 2


def parameters(distribution):
    """The parameters of every part, as arrays of double precision."""
    names = ("logits", "loc", "scale")
    return [
        {name: getattr(part, name).detach().double().numpy() for name in names if name in part.arg_constraints}
        for part in parts(distribution)
    ]


CASES = {
    "Discrete": (ACTION_SPACES["Discrete"], categorical, {}),
    "MultiDiscrete": (ACTION_SPACES["MultiDiscrete"], categorical, {}),
    "MultiBinary": (ACTION_SPACES["MultiBinary"], bernoulli, {}),
    "Box": (ACTION_SPACES["Box of two dimensions"], normal, {}),
    "Box with gSDE": (ACTION_SPACES["Box of two dimensions"], normal, {"use_sde": True}),
    "Box, squashed": (
        ACTION_SPACES["Box of two dimensions"],
        normal,
        {"use_sde": True, "policy_kwargs": {"squash_output": True}},
    ),
}


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize(("action_space", "oracle", "arguments"), CASES.values(), ids=CASES.keys())
def test_gradient(action_space, oracle, arguments, engine):
    model = make_model(RandomEnv(action_space), engine=engine, **arguments).learn(16)
    policy = model.policy
    steps = Steps.of(model.rollout_buffer, action_space)
    steps.advantages[:] = 0
    engine, _ = make_backend(policy, engine)
    obs = th.from_numpy(steps.inputs.observations)
    old = parameters(policy.get_distribution(obs).distribution)
    snapshot = engine.snapshot(steps.inputs)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter += 0.3 * th.randn(parameter.shape)
    losses, derivatives = PENALTY_ALONE(
        engine.evaluate_actions(steps.inputs, steps.actions), steps, engine.kl(snapshot)
    )
    engine.zero_gradient()
    engine.backward(derivatives)
    new = parameters(policy.get_distribution(obs).distribution)
    pieces = [oracle(*pair) for pair in zip(old, new, strict=True)]
    # The bias is added to the logits, or means, of every row.
    expected = np.concatenate([piece.reshape(len(steps), -1).mean(0) for piece in pieces])
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(policy.action_net.bias.grad, expected, rtol=1e-4, atol=1e-6)
    assert losses["kl_loss"] > 1e-2


def categorical_kl(old, new):
    p, q = softmax(old["logits"]), softmax(new["logits"])
    return p * np.log(p / q)


def bernoulli_kl(old, new):
    p, q = (1 / (1 + np.exp(-part["logits"])) for part in (old, new))
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def normal_kl(old, new):
    variance, new_variance = old["scale"] ** 2, new["scale"] ** 2
    difference = old["loc"] - new["loc"]
    return (np.log(new_variance / variance) + (variance + difference**2) / new_variance - 1) / 2


DIVERGENCES = {
    "Box": normal_kl,
    "MultiBinary": bernoulli_kl,
    "Discrete": categorical_kl,
    "MultiDiscrete": categorical_kl,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_kl_that_is_logged_is_that_between_the_policies_before_and_after(name):
    model = make_model(RandomEnv(ACTION_SPACES[name]), learning_rate=1e-2)
    before = deepcopy(model.policy)
    model.learn(16)
    observations = th.from_numpy(Steps.of(model.rollout_buffer, model.action_space).inputs.observations)
    old, new = (parameters(policy.get_distribution(observations).distribution) for policy in (before, model.policy))
    expected = sum(DIVERGENCES[name](*pair).sum() for pair in zip(old, new, strict=True)) / 16
    logged = model.logger.name_to_value
    assert expected > 1e-4
    np.testing.assert_allclose(logged["train/kl"], expected, rtol=1e-3)
    assert logged["kl/epoch_2"] == logged["train/kl"] > logged["kl/epoch_1"] > 0


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_without_a_penalty_its_kl_is_not_computed(monkeypatch, engine):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return kl(*arguments)

    owner, name = (Categorical, "kl") if engine == "array" else (autograd_backend, "kl")
    kl = getattr(owner, name)
    monkeypatch.setattr(owner, name, counted)
    model = make_model(
        RandomEnv(ACTION_SPACES["Discrete"]), kl_coef=0.0, adaptive_kl=False, n_epochs=3, engine=engine
    ).learn(16)
    assert len(calls) == 3  # once after every epoch, and in no minibatch, where 0·∞ would be NaN
    assert "train/kl_loss" not in model.logger.name_to_value
