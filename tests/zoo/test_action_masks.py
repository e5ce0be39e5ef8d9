"""Masks through the command line: training, evaluation, playing. The environment refuses every forbidden action."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3
import rl_zoo3.exp_manager
from envs import ACTION_SPACES, MaskedEnv, RandomEnv
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor

from sb3_pg_ext import NPG, fast
from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import __main__, bridge
from sb3_pg_ext.zoo.action_masks import ZooEvalCallback, ZooTrialEvalCallback
from sb3_pg_ext.zoo.evaluation import evaluate_latest_run

CONFIG = """
Masked-v0: &masked
  policy: MlpPolicy
  n_timesteps: 64
  n_envs: 2
  n_steps: 16
  policy_kwargs: "dict(net_arch=[8])"
MaskedByWrapper-v0:
  <<: *masked
  normalize: true
  env_wrapper: test_action_masks.WithMasks
"""


class Moves(gym.Env):
    """A :class:`MaskedEnv` that calls its masks something else, and paints a picture of what it allows."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # gymnasium's

    def __init__(self, render_mode=None):
        self.game = MaskedEnv(ACTION_SPACES["MultiDiscrete"])
        self.action_space, self.observation_space = self.game.action_space, self.game.observation_space
        self.render_mode = render_mode

    def reset(self, **kwargs):
        return self.game.reset(**kwargs)

    def step(self, action):
        return self.game.step(action)

    def valid_moves(self):
        return self.game.action_masks()

    def render(self):
        return np.full((32, 32, 3), 40 * self.valid_moves().sum(), np.uint8)


class WithMasks(gym.Wrapper):
    """What a user's wrapper looks like."""

    def action_masks(self):
        return self.get_wrapper_attr("valid_moves")()


def vec_env(make):
    return FastDummyVecEnv([lambda: Monitor(make())])


@pytest.fixture(autouse=True)
def run(monkeypatch, tmp_path):
    """The command line, in a folder of its own, with the environments registered."""
    for name, make in (("Masked-v0", MaskedEnv), ("MaskedByWrapper-v0", Moves)):
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, make))
    monkeypatch.chdir(tmp_path)
    Path("masked.yml").write_text(CONFIG)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sb3-pg", *arguments])
        __main__.main()

    return run


@pytest.mark.parametrize(
    ("algo", "env_id"),
    [
        ("npg", "Masked-v0"),
        ("npg", "MaskedByWrapper-v0"),
        ("fast_maskable_ppo", "Masked-v0"),
        ("fast_maskable_ppo", "MaskedByWrapper-v0"),
        ("a3c", "Masked-v0"),
    ],
)
def test_train_evaluate_and_enjoy(run, algo, env_id, capsys):
    where = ("--algo", algo, "--env", env_id, "-f", "logs")
    evaluation = ("--eval-freq", "16", "--eval-episodes", "2", "--n-eval-envs", "2")
    run("train", *where, "--conf-file", "masked.yml", "--seed", "1", "--verbose", "0", *evaluation)
    with np.load(f"logs/{algo}/{env_id}_1/evaluations.npz") as log:
        assert log["results"].shape[1] == 2
        assert np.isfinite(log["results"]).all()
    run("enjoy", *where, "--no-render", "-n", "30")
    assert "Episode Reward" in capsys.readouterr().out
    returns, _ = evaluate_latest_run(algo, env_id, "logs", 4, seed=0)
    assert len(returns) == 4


@pytest.mark.slow
def test_enjoy_with_several_environments(run):
    """Which RL Zoo puts into subprocesses."""
    where = ("--algo", "npg", "--env", "Masked-v0", "-f", "logs")
    run("train", *where, "--conf-file", "masked.yml", "--verbose", "0", "--eval-freq", "-1")
    run("enjoy", *where, "--no-render", "-n", "30", "--n-envs", "2")


def test_record_video(run):
    pytest.importorskip("moviepy")
    where = ("--algo", "npg", "--env", "MaskedByWrapper-v0", "-f", "logs")
    run("train", *where, "--conf-file", "masked.yml", "--verbose", "0", "--eval-freq", "-1")
    run("record_video", *where, "-n", "10")
    assert list(Path("logs/npg/MaskedByWrapper-v0_1/videos").glob("*.mp4"))


def test_models_that_were_loaded_play_in_the_environment_made_before():
    """Also after another was made; arguments by position or name make no difference."""
    bridge.install(registry(), play=True)
    NPG("MlpPolicy", MaskedEnv(), n_steps=16).save("model")
    first = rl_zoo3.create_test_env("Masked-v0", hyperparams={}, should_render=False)
    model = rl_zoo3.ALGOS["npg"].load("model")
    second = rl_zoo3.create_test_env("Masked-v0", hyperparams={}, should_render=False)
    obs = first.reset()
    for _ in range(20):
        action, _ = model.predict(obs, None, None, False)
        obs, *_ = first.step(action)
    second.reset()
    (masks,) = second.env_method("action_masks")
    assert masks[model.predict(obs[0], action_masks=masks)[0]]
    unmasked = NPG("MlpPolicy", RandomEnv(ACTION_SPACES["Discrete"]), n_steps=16)
    assert unmasked.predict(obs)[0].shape == (1,)


class Trial:
    """What Optuna's trials are asked."""

    def __init__(self):
        self.reports = []

    def report(self, value, step):
        self.reports.append((value, step))

    def should_prune(self):
        return False


@pytest.mark.parametrize("cls", [NPG, fast.MaskablePPO])
def test_trials_are_evaluated_with_masks(cls):
    bridge.install(registry())
    assert rl_zoo3.exp_manager.TrialEvalCallback is ZooTrialEvalCallback
    env, trial = vec_env(MaskedEnv), Trial()
    callback = ZooTrialEvalCallback(env, trial, n_eval_episodes=2, eval_freq=16)
    cls("MlpPolicy", vec_env(MaskedEnv), n_steps=32, batch_size=32).learn(32, callback)
    assert [step for _, step in trial.reports] == [1, 2]
    assert callback.use_masking


def test_other_algorithms_are_evaluated_as_ever():
    class AllowsAll(RandomEnv):
        def action_masks(self):
            raise AssertionError("asked for masks")

    env, training_env = (vec_env(lambda cls=cls: cls(ACTION_SPACES["Discrete"])) for cls in (AllowsAll, RandomEnv))
    callback = ZooEvalCallback(env, n_eval_episodes=2, eval_freq=16, verbose=0)
    PPO("MlpPolicy", training_env, n_steps=32, batch_size=32).learn(32, callback)
    assert not callback.use_masking
    assert np.isfinite(callback.last_mean_reward)
