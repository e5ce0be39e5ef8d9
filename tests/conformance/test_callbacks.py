"""SB3's callbacks."""

import numpy as np
import pytest
from envs import ACTION_SPACES, RandomEnv
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext.callbacks import EpisodeEvalCallback

from .algorithms import STEPS, Algorithm, assert_identical


class Events(BaseCallback):
    """Notes what happens, and checks the counters; stops after ``stop`` calls.

    :param algorithm: the algorithm
    :param stop: after so many calls
    """

    def __init__(self, algorithm: Algorithm, stop: float = float("inf")):
        super().__init__()
        self.stop = stop
        self.expected_locals = {"rewards", "dones", "infos"}
        if not algorithm.traits.asynchronous:
            self.expected_locals.add("new_obs")
        self.events: list[str] = []

    def _on_training_start(self):
        self.events.append("training start")

    def _on_rollout_start(self):
        self.events.append("rollout start")

    def _on_step(self):
        assert self.num_timesteps == self.n_calls * self.training_env.num_envs
        assert self.expected_locals <= self.locals.keys()
        return self.n_calls < self.stop

    def _on_rollout_end(self):
        self.events.append("rollout end")

    def _on_training_end(self):
        self.events.append("training end")


@pytest.mark.parametrize("n_envs", [1, 2])
def test_events_come_in_pairs(algorithm: Algorithm, n_envs):
    callback = Events(algorithm)
    model = algorithm(DummyVecEnv([RandomEnv] * n_envs)).learn(STEPS, callback)
    first, *rollouts, last = callback.events
    assert (first, last) == ("training start", "training end")
    assert rollouts == ["rollout start", "rollout end"] * (len(rollouts) // 2)
    assert rollouts
    assert callback.n_calls * n_envs == model.num_timesteps


class Observer(BaseCallback):
    """Notes what docs/logging.md says of the rollout buffer and of ``self.locals``."""

    def __init__(self):
        super().__init__()
        self.at_steps, self.at_end, self.keys = [], [], set()

    def _on_step(self):
        self.at_steps.append(self.model.rollout_buffer.pos)
        self.keys |= self.locals.keys()
        return True

    def _on_rollout_end(self):
        self.at_end.append((self.model.rollout_buffer.pos, self.model.rollout_buffer.full))


def test_the_rollout_buffer_is_filled_at_the_end(algorithm: Algorithm):
    if not algorithm.has_rollouts:
        pytest.skip("it collects in another way")
    callback = Observer()
    algorithm().learn(STEPS, callback)
    assert set(callback.at_steps) == {0}
    assert callback.at_end
    assert all(full and pos > 0 for pos, full in callback.at_end)
    assert {"rewards", "dones", "infos", "new_obs", "actions", "clipped_actions", "n_steps", "env"} <= callback.keys
    assert "rollout_buffer" in callback.keys
    assert not {"values", "log_probs", "obs_tensor"} & callback.keys


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("stop", [1, 21])
def test_stopping_is_immediate(algorithm: Algorithm, n_envs, stop):
    callback = Events(algorithm, stop)
    model = algorithm(DummyVecEnv([RandomEnv] * n_envs)).learn(STEPS, callback)
    assert callback.n_calls == stop
    assert_stopped(algorithm, model, stop * n_envs)
    assert callback.events[-1] == "training end"
    model.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps >= stop * n_envs + STEPS


def assert_stopped(algorithm: Algorithm, model, n_steps):
    """After so many steps; a little later where workers have gone on."""
    if algorithm.traits.asynchronous:
        assert model.num_timesteps >= n_steps
    else:
        assert model.num_timesteps == n_steps


def test_lists(algorithm: Algorithm):
    callbacks = [Events(algorithm), Events(algorithm, stop=21), Events(algorithm)]
    model = algorithm().learn(STEPS, callbacks)
    assert [callback.n_calls for callback in callbacks] == [21] * 3
    assert_stopped(algorithm, model, 21)


def test_functions(algorithm: Algorithm):
    assert_stopped(algorithm, algorithm().learn(STEPS, lambda *_: False), 1)


def test_evaluation(algorithm: Algorithm, tmp_path):
    callback = EvalCallback(
        Monitor(RandomEnv()),
        n_eval_episodes=2,
        eval_freq=32,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    algorithm().learn(STEPS, callback)
    assert (tmp_path / "evaluations.npz").exists()
    assert len(callback.evaluations_timesteps) >= 2
    algorithm.cls.load(tmp_path / "best_model", device=algorithm.device)


def test_evaluation_and_checkpoints_do_not_disturb_training(algorithm: Algorithm, tmp_path):
    plain = algorithm().learn(STEPS)
    evaluation = EvalCallback(Monitor(RandomEnv()), n_eval_episodes=2, eval_freq=24, verbose=0)
    watched = algorithm().learn(STEPS, [evaluation, CheckpointCallback(24, str(tmp_path))])
    assert_identical(plain, watched)


def test_evaluation_by_episodes_does_not_disturb_training(algorithm: Algorithm, tmp_path):
    """Neither while it trains, nor by the report of the best model at its end."""
    plain = algorithm().learn(STEPS)
    callback = EpisodeEvalCallback(
        RandomEnv, n_eval_episodes=3, eval_freq=24, n_envs=2, best_model_save_path=tmp_path, verbose=0
    )
    watched = algorithm().learn(STEPS, callback)
    assert len(callback.evaluations) >= 2
    assert callback.best.report
    assert_identical(plain, watched)
    algorithm.cls.load(tmp_path / "best_model", device="cpu")


def test_checkpoints(algorithm: Algorithm, tmp_path):
    model = algorithm().learn(STEPS, CheckpointCallback(20, str(tmp_path), name_prefix="model"))
    for steps in (20, 40, 60):
        loaded = algorithm.cls.load(tmp_path / f"model_{steps}_steps", env=RandomEnv(), device=algorithm.device)
        assert loaded.num_timesteps == steps
        loaded.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps >= STEPS


def test_stopping_at_a_reward(algorithm: Algorithm):
    stop = StopTrainingOnRewardThreshold(reward_threshold=-100, verbose=0)
    callback = EvalCallback(Monitor(RandomEnv()), callback_on_new_best=stop, eval_freq=30, verbose=0)
    assert_stopped(algorithm, algorithm().learn(10 * STEPS, callback), 30)
    assert callback.n_calls == 30


def test_stopping_after_episodes(algorithm: Algorithm):
    callback = StopTrainingOnMaxEpisodes(3)
    model = algorithm(RandomEnv(length=4)).learn(10 * STEPS, callback)
    assert callback.n_episodes == 3
    assert_stopped(algorithm, model, 5 + 4 + 5)  # every second episode is truncated one step later


class Reader(BaseCallback):
    """Looks at the rollout in minibatches, as an update would."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        before = np.random.get_state()
        for batch in self.model.rollout_buffer.get(batch_size=5):
            assert batch.advantages.isfinite().all()
        np.random.set_state(before)


@pytest.mark.parametrize("space", ["Box", "Discrete", "MultiBinary"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_drawing_minibatches_of_a_rollout_leaves_it_as_it_was(algorithm: Algorithm, space, n_envs):
    if not algorithm.has_rollouts:
        pytest.skip("has no rollout to read")
    if space not in algorithm.traits.action_spaces:
        pytest.skip("test_action_spaces sees to it that this is refused")
    models = []
    for callback in (None, Reader()):
        models.append(algorithm(DummyVecEnv([lambda: RandomEnv(ACTION_SPACES[space])] * n_envs)).learn(STEPS, callback))
    assert_identical(*models)
