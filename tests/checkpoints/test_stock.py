"""Stock algorithms, with what is particular to each."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume

TOTAL = 150
ON_POLICY = {"n_steps": 16, "policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"buffer_size": 90, "learning_starts": 20, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}
NOISE = OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.3 * np.ones(1))
CASES = {
    "PPO": (PPO, {**ON_POLICY, "batch_size": 8, "n_epochs": 2, "clip_range": lambda remaining: 0.2 * remaining}),
    "PPO with gSDE": (PPO, {**ON_POLICY, "batch_size": 8, "n_epochs": 2, "use_sde": True, "sde_sample_freq": 5}),
    "A2C": (A2C, ON_POLICY),
    "TRPO": (TRPO, {**ON_POLICY, "batch_size": 8, "cg_max_steps": 3, "n_critic_updates": 2}),
    "RecurrentPPO": (
        RecurrentPPO,
        {"n_steps": 16, "batch_size": 8, "n_epochs": 1, "policy_kwargs": {"lstm_hidden_size": 4}},
    ),
    "SAC with gSDE": (SAC, {**OFF_POLICY, "use_sde": True}),
    "SAC with n-step returns": (SAC, {**OFF_POLICY, "n_steps": 3}),
    "TD3 with noise that remembers": (TD3, {**OFF_POLICY, "action_noise": NOISE}),
    "DQN": (DQN, {**OFF_POLICY, "target_update_interval": 30, "exploration_fraction": 0.8}),
}


class Interrupt(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < 110


def make_env(cls, n_envs=2):
    space = ACTION_SPACES["Discrete" if cls is DQN else "Box"]
    return VecNormalize(DummyVecEnv([lambda: Monitor(RandomEnv(space, length=7))] * n_envs))


def make(cls, arguments):
    policy = "MlpLstmPolicy" if cls is RecurrentPPO else "MlpPolicy"
    schedule = {"learning_rate": lambda remaining: 1e-3 * remaining}
    return cls(policy, make_env(cls), seed=0, device="cpu", **schedule, **deepcopy(arguments))


def callbacks(cls, folder):
    env = make_env(cls, 1)
    env.seed(5)
    evaluation = EvalCallback(env, n_eval_episodes=2, eval_freq=9, log_path=str(folder / "evaluations"), verbose=0)
    return evaluation, TrainingCheckpointCallback(40, folder / "checkpoint")


@pytest.mark.filterwarnings("ignore:.n_steps=3. is ignored")  # SB3, of every model with n-step returns that it loads
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(name, tmp_path):
    cls, arguments = CASES[name]
    plain = make(cls, arguments).learn(TOTAL)
    watching = callbacks(cls, tmp_path / "whole")
    whole = make(cls, arguments)
    whole.set_logger(configure(str(tmp_path / "whole"), ["csv"]))
    whole.learn(TOTAL, [*watching], log_interval=1)
    th.testing.assert_close(plain.get_parameters(), whole.get_parameters(), rtol=0, atol=0)
    interrupted = make(cls, arguments)
    interrupted.set_logger(configure(str(tmp_path / "parts"), ["csv"]))
    interrupted.learn(TOTAL, [*callbacks(cls, tmp_path / "parts"), Interrupt()], log_interval=1)
    for model in (whole, interrupted):
        model.logger.close()
    random.random()
    np.random.random()
    th.rand(1)
    resumed = resume(tmp_path / "parts" / "checkpoint", env=make_env(cls))
    assert 75 < resumed.num_timesteps < 110
    again = callbacks(cls, tmp_path / "parts")
    resumed.set_logger(configure(str(tmp_path / "parts"), ["csv"]))
    resumed.learn(TOTAL - resumed.num_timesteps, [*again], log_interval=1, reset_num_timesteps=False)
    resumed.logger.close()
    th.testing.assert_close(whole.get_parameters(), resumed.get_parameters(), rtol=0, atol=0)
    assert type(resumed) is cls
    assert again[0].evaluations_results == watching[0].evaluations_results
    assert again[0].best_mean_reward == watching[0].best_mean_reward
    assert again[0].n_calls == watching[0].n_calls
    rows = [np.genfromtxt(tmp_path / part / "progress.csv", delimiter=",", names=True) for part in ("whole", "parts")]
    for key in ("timetotal_timesteps", "rolloutep_rew_mean", "trainlearning_rate"):
        np.testing.assert_array_equal(*(row[key] for row in rows))


class Counting(BaseCallback):
    """Counts, and changes what it was given."""

    def __init__(self, rate, label=""):
        super().__init__()
        self.rate, self.label, self.n_rollouts = rate, label, 0

    def _on_rollout_start(self):
        self.n_rollouts += 1
        self.rate *= 0.5

    def _on_step(self):
        return True


class Own(Counting):
    """Says itself what it remembers."""

    def state_dict(self):
        return {"rollouts": self.n_rollouts}

    def load_state_dict(self, state):
        self.n_rollouts = 100 * state["rollouts"]


def test_callbacks_remember_by_class_and_order(tmp_path):
    cls, arguments = CASES["A2C"]
    before = [Counting(8.0), TrainingCheckpointCallback(30, tmp_path), Counting(1.0, "old"), Own(1.0)]
    make(cls, arguments).learn(96, before)
    assert [each.n_rollouts for each in (before[0], before[2])] == [3, 3]
    after = [Own(1.0), Counting(5.0), [*before][1], Counting(5.0, "new")]
    model = resume(tmp_path)
    assert model.num_timesteps == 64
    model.learn(1, after, reset_num_timesteps=False)
    assert after[0].n_rollouts == 200  # as at the checkpoint
    assert (after[1].n_rollouts, after[1].rate) == (3, 1.0)  # its rollout began before the checkpoint was saved
    assert (after[3].n_rollouts, after[3].rate, after[3].label) == (3, 0.125, "new")


def test_a_training_that_begins_anew_is_left_alone(tmp_path):
    cls, arguments = CASES["A2C"]
    make(cls, arguments).learn(96, [callback := Counting(1.0), TrainingCheckpointCallback(30, tmp_path)])
    again = Counting(1.0)
    resume(tmp_path).learn(32, again)
    assert (callback.n_rollouts, again.n_rollouts) == (3, 1)


def test_only_what_is_new_of_a_replay_buffer_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_pg_ext.checkpoints.replay_buffers.CHUNK", 200)
    cls, arguments = CASES["DQN"]
    make(cls, arguments).learn(79, TrainingCheckpointCallback(30, tmp_path))
    linked = {path.name for path in tmp_path.glob("*/replay_buffer/*") if path.stat().st_nlink == 2}
    assert "rest.pkl" not in linked
    assert {name for name in linked if name.startswith("observations_0_")} == {"observations_0_00000.bin"}


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="save_freq=0"):
        TrainingCheckpointCallback(0, tmp_path)
