"""Every way to step environments, for every algorithm."""

import pytest
import torch as th

from sb3_pg_ext.envs import make_vec_env

from .algorithms import STEPS, Algorithm, vector

BACKENDS = {
    "gymnasium": ("gymnasium", {}),
    "same step": ("gymnasium", {"vec_env_kwargs": {"autoreset_mode": "SameStep"}}),
    "envpool": ("envpool", {}),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_backends(algorithm: Algorithm, name):
    backend, arguments = BACKENDS[name]
    if backend == "envpool":
        pytest.importorskip("envpool", reason="the extra envpool is not installed")
    limit = {"max_episode_steps": 5}  # CartPole falls later
    env = make_vec_env(algorithm.traits.env_id, 2, 0, backend, env_kwargs=limit, **arguments)
    model = algorithm(env)
    before = vector(model)
    model.learn(STEPS)
    assert model.n_envs == 2
    assert model.num_timesteps >= STEPS
    assert not th.equal(before, vector(model))
    lengths = [episode["l"] for episode in model.ep_info_buffer]
    assert lengths == [5] * len(lengths)
    assert len(lengths) >= STEPS // 5 - 2
    env.close()
