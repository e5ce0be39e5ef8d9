"""A3C in RL Zoo: what the bridge hands to the workers."""

from argparse import Namespace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3.train
import yaml
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.plugins.configs import find_config
from sb3_pg_ext.zoo import bridge

SHIPPED = "sb3_pg_ext:zoo_configs/a3c.yml"
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

    def make(env_id, start_method="fork", vec_env="dummy", config=None, **hyperparams):
        if config is None:
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


# Raised while Box2D is being imported: as an error it ends the process.
@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*The environment .* is out of date:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name == "atari" else [])  # 16 processes
        for name in yaml.safe_load(find_config(SHIPPED).read_text())
        if name[:7] != "MinAtar" or "Breakout" in name
    ],
)
def test_every_shipped_entry_trains_as_it_is(make, name, tmp_path):
    """With the default start method; on its own environment, for a few steps."""
    entry = yaml.safe_load(find_config(SHIPPED).read_text())[name]
    env_id = {"default": "MountainCar-v0", "atari": "ALE/Pong-v5"}.get(name, name)
    if name == "atari":
        pytest.importorskip("ale_py")
    if name.startswith("MinAtar/"):
        pytest.importorskip("minatar")
    manager = make(env_id, config=find_config(SHIPPED), n_timesteps=150)
    manager.is_atari_env = name == "atari"
    try:
        model, _ = manager.setup_experiment()
    except (gym.error.DependencyNotInstalled, gym.error.DeprecatedEnv) as error:
        pytest.skip(str(error))
    assert model.start_method == "forkserver"
    assert model.n_workers == entry["n_envs"]
    manager.learn(model)
    assert model.num_timesteps >= 150
    assert model._n_updates > 0
    if "normalize" in entry:
        assert model.get_vec_normalize_env().obs_rms.count > 150
    model.env.close()


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
