"""What is refused, and which environments become which actors."""

import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import IMPALA
from sb3_pg_ext.envs import FastDummyVecEnv


def build(env=None, **kwargs):
    return IMPALA("MlpPolicy", RandomEnv() if env is None else env, device="cpu", **kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size=0; allowed: an integer ≥ 1"),
        ({"n_epochs": 1.5}, r"n_epochs=1.5; allowed"),
        ({"surrogate": "cliped"}, r"surrogate='cliped' \(did you mean 'clipped'\?\); allowed"),
        ({"clip_range": 0.0}, r"clip_range=0.0; allowed: a number > 0"),
        ({"max_lag": -1}, r"max_lag=-1; allowed: None, or an integer ≥ 0"),
        ({"replay_size": -1}, r"replay_size=-1; allowed"),
        ({"replay_size": 3, "batch_size": 2, "replay_ratio": 2}, r"replay_size=3 with batch_size=2 .*allowed: 0, or"),
        ({"rms_prop_eps": 0}, r"rms_prop_eps=0; allowed"),
        ({"use_rms_prop": "yes"}, r"use_rms_prop='yes'; allowed: True or False"),
        ({"policy_kwargs": {"optimizer_class": th.optim.SGD}}, r"use_rms_prop=True, and policy_kwargs .*allowed"),
        ({"n_actors": 2}, r"n_actors=2 with 1 environments and n_envs_per_actor=1; allowed"),
        ({"n_actors": 0, "env": "CartPole-v1"}, r"n_actors=0; allowed"),
        ({"n_envs_per_actor": 2}, r"n_envs_per_actor=2 with 1 environments; allowed: a divisor of 1"),
        ({"worker_timeout": 0}, r"worker_timeout=0; allowed"),
        ({"on_worker_failure": "ignore"}, r"on_worker_failure='ignore'; allowed"),
        ({"start_method": "thread"}, r"start_method='thread'; allowed"),
        ({"advantage_estimator_kwargs": {"rho_bar": 0.5}}, r"rho_bar=0.5 is less than c_bar"),
        ({"n_steps": 1, "batch_size": 1, "normalize_advantage": True}, r"normalize_advantage=True with a single step"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    ("env", "arguments", "n_actors", "n_envs"),
    [
        ("CartPole-v1", {}, 2, 2),
        ("CartPole-v1", {"n_actors": 3, "n_envs_per_actor": 2}, 3, 6),
        (RandomEnv, {"n_envs_per_actor": 4}, 2, 8),
        ([RandomEnv] * 4, {"n_envs_per_actor": 2}, 2, 4),
        (DummyVecEnv([RandomEnv] * 3), {"n_actors": 3}, 3, 3),
        (FastDummyVecEnv([RandomEnv] * 6), {"n_envs_per_actor": 3}, 2, 6),
    ],
)
def test_environments_and_actors(env, arguments, n_actors, n_envs):
    model = build(env, **arguments)
    assert (model.n_actors, model.n_envs) == (n_actors, n_envs)
    configs = model._make_configs(model.env, use_masking=False)
    assert [config.make_env().num_envs for config in configs] == [n_envs // n_actors] * n_actors


@pytest.mark.parametrize(("rms_prop", "cls"), [(True, th.optim.RMSprop), (False, th.optim.Adam)])
def test_optimizers(rms_prop, cls, tmp_path):
    model = build(use_rms_prop=rms_prop, rms_prop_eps=0.01, learning_rate=0.003)
    assert type(model.policy.optimizer) is cls
    (group,) = model.policy.optimizer.param_groups
    assert group["lr"] == 0.003
    assert group["eps"] == (0.01 if rms_prop else 1e-5)
    model.save(tmp_path / "model")
    assert type(IMPALA.load(tmp_path / "model", device="cpu").policy.optimizer) is cls
