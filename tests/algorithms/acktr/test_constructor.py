"""Arguments, and what is said of bad ones."""

import re

import pytest
import torch as th
from envs import RandomEnv

from sb3_pg_ext import ACKTR


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kfac_clip": 0.0}, "kfac_clip=0.0; allowed: a number > 0"),
        ({"kfac_damping": 0.0}, "kfac_damping=0.0; allowed: a number > 0"),
        ({"kfac_decay": 1.0}, "kfac_decay=1.0; allowed: a number in [0, 1)"),
        ({"momentum": 1}, "momentum=1; allowed: a number in [0, 1)"),
        ({"eigen_interval": 0}, "eigen_interval=0; allowed: an integer ≥ 1"),
        ({"n_critic_updates": 0}, "n_critic_updates=0; allowed: an integer ≥ 1"),
        ({"cold_start_steps": -1}, "cold_start_steps=-1; allowed: an integer ≥ 0"),
        ({"adaptive_kl": 0}, "adaptive_kl=0; allowed: a number > 0"),
        ({"fisher": "exakt"}, "fisher='exakt' (did you mean 'exact'?); allowed: 'exact', 'sampled'"),
        ({"unsupported_layers": "skip"}, "unsupported_layers='skip'; allowed: 'error', 'sgd'"),
        ({"max_grad_norm": 1.0}, "max_grad_norm=1.0 together with cold_start_steps=0, where it is unused"),
        ({"policy_kwargs": {"optimizer_class": th.optim.Adam}}, "ACKTR makes its steps with SGD"),
        ({"n_steps": 1}, "normalize_advantage=True with a single step for each update (n_steps=1, n_envs=1)"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ACKTR("MlpPolicy", RandomEnv(), **arguments)


def test_defaults_learn_cartpole():
    """Better than chance, 22, within 150 updates."""
    model = ACKTR("MlpPolicy", "CartPole-v1", n_steps=64, kfac_clip=0.05, momentum=0.0, learning_rate=1.0, seed=0)
    model.learn(10_000)
    assert sum(info["r"] for info in model.ep_info_buffer) / len(model.ep_info_buffer) > 60
