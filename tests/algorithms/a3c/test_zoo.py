"""A3C in RL Zoo: what the bridge hands to the workers."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import rl_zoo3.train
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge

CONFIG = """
default:
  n_envs: 2
  n_timesteps: 400
  policy: MlpPolicy
  n_steps: 8
  start_method: {start_method}
  policy_kwargs: "dict(net_arch=[8])"
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Set up an experiment as RL Zoo's ``train`` does."""
    for table in (ALGOS, HYPERPARAMS_SAMPLER, HYPERPARAMS_CONVERTER, bridge.PluginExperimentManager.specs):
        for key in list(table):
            monkeypatch.setitem(table, key, table[key])
    monkeypatch.setattr(rl_zoo3.train, "ExperimentManager", rl_zoo3.train.ExperimentManager)
    bridge.install(registry())

    def make(env_id, start_method="fork", vec_env="dummy", **hyperparams):
        config = tmp_path / "a3c.yml"
        config.write_text(CONFIG.format(start_method=start_method))
        return bridge.PluginExperimentManager(
            Namespace(),
            "a3c",
            env_id,
            str(tmp_path),
            config=str(config),
            vec_env_type=vec_env,
            hyperparams=hyperparams,
            log_interval=-1,
            eval_freq=100,
            n_eval_episodes=1,
            save_freq=100,
            verbose=0,
        )

    return make


@pytest.mark.parametrize(("vec_env", "start_method"), [("dummy", "fork"), ("subproc", "fork"), ("dummy", "forkserver")])
def test_training(make, vec_env, start_method):
    manager = make("CartPole-v1", start_method, vec_env)
    model, _ = manager.setup_experiment()
    assert type(model.get_env()) is FastDummyVecEnv
    assert model.n_workers == 2
    manager.learn(model)
    manager.save_trained_model(model)
    assert model.num_timesteps >= 400
    episodes = [(Path(manager.save_path) / f"{worker}.monitor.csv").read_text().splitlines()[2:] for worker in (0, 1)]
    assert len(model.ep_info_buffer) == sum(map(len, episodes)) > 0


def test_normalization_and_frame_stacking(make):
    manager = make("Pendulum-v1", n_timesteps=300, frame_stack=2, normalize=True)
    model, _ = manager.setup_experiment()
    manager.learn(model)
    manager.save_trained_model(model)
    assert model.observation_space.shape == (6,)
    normalizer = model.get_vec_normalize_env()
    n_resets = 2 * model.n_workers  # in the parent and in the workers; no episode ends
    assert normalizer.obs_rms.count == pytest.approx(model.num_timesteps + n_resets, abs=0.01)
    loaded = VecNormalize.load(f"{manager.params_path}/vecnormalize.pkl", manager.create_envs(1, no_log=True).unwrapped)
    np.testing.assert_array_equal(loaded.obs_rms.mean, normalizer.obs_rms.mean)
    np.testing.assert_array_equal(loaded.obs_rms.var, normalizer.obs_rms.var)


def test_wrappers_and_arguments_of_environments(make):
    manager = make(
        "CartPole-v1",
        env_wrapper=[{"rl_zoo3.wrappers.TimeFeatureWrapper": {"max_steps": 500}}],
        env_kwargs={"sutton_barto_reward": True},
    )
    model, _ = manager.setup_experiment()
    assert model.observation_space.shape == (5,)
    manager.learn(model)
    assert {info["r"] for info in model.ep_info_buffer} == {-1}  # at the end of an episode, 0 before
