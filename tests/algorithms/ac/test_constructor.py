"""Arguments that contradict each other, or lie outside of what is allowed."""

import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv

from sb3_pg_ext import ActorCritic


def make(space="Discrete", **kwargs):
    return ActorCritic("MlpPolicy", RandomEnv(ACTION_SPACES[space]), device="cpu", **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"critic": "w"}, r"critic='w'.*; allowed: 'v', 'q', 'q_minus_v', 'compatible'"),
        ({"optimizer": "adam"}, r"optimizer='adam'.*; allowed: 'sgd', 'obgd', 'adaptive_obgd', 'rmsprop'"),
        ({"critic_target": "sarsa"}, "critic_target='sarsa' with critic='v'; allowed: None"),
        ({"critic": "compatible", "critic_target": "max"}, "critic_target='max' with critic='compatible'; allowed:"),
        ({"critic": "q", "critic_target": "best"}, "critic_target='best' with critic='q'; allowed: None, 'sarsa'"),
        ({"critic": "q", "optimizer": "rmsprop"}, "optimizer='rmsprop' with critic='q'; allowed: critic='v'"),
        (
            {"critic_learning_rate": 0.1, "optimizer": "rmsprop"},
            "critic_learning_rate=0.1 together with optimizer='rmsprop', where it is unused; allowed: None",
        ),
        ({"actor_learning_rate": 0.1, "optimizer": "rmsprop"}, "actor_learning_rate=0.1 together with optimizer='rmsp"),
        ({"actor_kappa": 2.0}, "actor_kappa=2.0 together with optimizer='sgd'.*; allowed: 3.0"),
        ({"critic_kappa": 3.0, "optimizer": "rmsprop"}, "critic_kappa=3.0 together with optimizer='rmsprop'"),
        ({"beta2": 0.9, "optimizer": "obgd"}, "beta2=0.9 together with optimizer='obgd'.*; allowed: 0.999"),
        ({"optimizer_eps": 1e-6}, "optimizer_eps=1e-06 together with optimizer='sgd'.*; allowed: None"),
        (
            {"policy_kwargs": {"optimizer_class": th.optim.SGD}},
            "policy_kwargs has optimizer_class=.*; allowed: neither",
        ),
        ({"trace_lambda": 1.1}, r"trace_lambda=1.1; allowed: \[0, 1\]"),
        ({"actor_learning_rate": -1.0}, "actor_learning_rate=-1.0; allowed: None, or a number ≥ 0"),
        ({"critic_kappa": 0}, "critic_kappa=0; allowed: a number > 0"),
        ({"beta2": 1.0}, "beta2=1.0; allowed"),
        ({"optimizer_eps": 0.0}, "optimizer_eps=0.0; allowed: None, or a number > 0"),
        ({"n_steps": 0}, "n_steps=0; allowed: an integer ≥ 1"),
        ({"env_updates": "mean"}, "env_updates='mean'.*; allowed: 'in_order', 'averaged'"),
        ({"discount_state_distribution": "yes"}, "discount_state_distribution='yes'; allowed: True or False"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("target", ["expected", "max"])
def test_actions_that_cannot_be_enumerated(target):
    with pytest.raises(ValueError, match=f"critic_target='{target}' with the action space Box.*; allowed: 'sarsa', or"):
        make("Box", critic="q", critic_target=target)


@pytest.mark.parametrize(
    ("policy_kwargs", "others"),
    [({}, "'auto', 'array', 'autograd'"), ({"activation_fn": th.nn.Hardtanh}, "'auto', 'autograd'")],
)
def test_a_compiled_engine_does_what_is_compiled_alone(policy_kwargs, others):
    message = f"engine='compiled' cannot differentiate this policy: .*; allowed: {others}$"
    with pytest.raises(ValueError, match=message):
        make(critic="q", engine="compiled", policy_kwargs=policy_kwargs)


def test_a_training_that_diverges_says_what_may_help():
    with pytest.raises(ValueError, match=r"training cannot go on\. What may help: VecNormalize"), pytest.warns():
        ActorCritic("MlpPolicy", "Pendulum-v1", critic="q", learning_rate=0.1, seed=0, device="cpu").learn(1000)


def test_total_timesteps_are_kept_to():
    assert make(n_steps=16).learn(50).num_timesteps == 50


def test_schedules_of_actor_and_critic():
    model = make(n_steps=10, actor_learning_rate=lambda p: 0.01 * p, critic_learning_rate=0.005).learn(100)
    actor, critic = model._rates()
    assert actor == pytest.approx(0.0)
    assert critic == 0.005
