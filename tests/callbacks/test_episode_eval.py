"""Evaluation by complete episodes while SB3's own algorithms train."""

import json
import random
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TimeLimit
from scipy import stats
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_pg_ext.callbacks import EpisodeEvalCallback
from sb3_pg_ext.envs import FastDummyVecEnv, make_vec_env
from sb3_pg_ext.evaluation.episodes import play_episodes
from sb3_pg_ext.evaluation.statistics import mean_interval

TINY: dict[Any, dict[str, Any]] = {
    PPO: {"n_steps": 16, "batch_size": 8, "n_epochs": 2},
    DQN: {"buffer_size": 100, "learning_starts": 8, "batch_size": 8},
    SAC: {"buffer_size": 100, "learning_starts": 8, "batch_size": 8},
}


class Target(gym.Env[Any, Any]):
    """An episode of one step, which rewards with how near the action is to a target, and with noise of the seed."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        reward = -abs(float(action[0]) - 0.5) + 0.1 * self.np_random.normal()
        return np.ones(1, np.float32), reward, True, False, {"is_success": reward > -0.5}


def model_of(algorithm: Any = PPO, env: Any = None, **arguments: Any) -> Any:
    given = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}, **TINY[algorithm], **arguments}
    return algorithm("MlpPolicy", Target() if env is None else env, **given)


def quiet(*arguments: Any, **keywords: Any) -> EpisodeEvalCallback:
    return EpisodeEvalCallback(*arguments, **{"n_eval_episodes": 5, "eval_freq": 20, "verbose": 0, **keywords})


def vector(model: Any) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


class Generators(BaseCallback):
    """Notes the states of all generators at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Any] = []

    def _on_step(self) -> bool:
        numpy_state = np.random.get_state()
        self.states.append((random.getstate(), numpy_state[1].tolist(), numpy_state[2], th.get_rng_state().tolist()))
        return True


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("deterministic", [True, False])
def test_training_goes_on_as_without_it(algorithm, deterministic):
    models, generators = [], []
    for callback in (None, quiet(Target, deterministic=deterministic)):
        generators.append(Generators())
        normalized = VecNormalize(DummyVecEnv([Target]))
        models.append(model_of(algorithm, normalized))
        models[-1].learn(64, [generators[-1], *([callback] if callback else [])])
    assert th.equal(*map(vector, models))
    plain, watched = (model.get_vec_normalize_env() for model in models)
    assert (plain.obs_rms.count, plain.ret_rms.var) == (watched.obs_rms.count, watched.ret_rms.var)
    assert generators[0].states == generators[1].states


def test_logs_statistics_of_the_episodes_that_a_player_plays(tmp_path):
    model = model_of()
    model.set_logger(configure(str(tmp_path), ["json"]))
    callback = quiet(Target, n_eval_episodes=9, eval_freq=64, log_path=tmp_path)
    model.learn(64, callback)
    model.logger.close()
    played = play_episodes(model_of(), Target, range(100_000, 100_009))
    assert [episode.episode_return for episode in played] != callback.evaluations[0]["returns"]  # of another policy
    with open(tmp_path / "progress.json") as file:
        logged = {key: value for line in file for key, value in json.loads(line).items()}
    returns = np.array(callback.evaluations[0]["returns"])
    low, high = stats.t.interval(0.95, 8, returns.mean(), stats.sem(returns))
    expected = {
        "mean_reward": returns.mean(),
        "reward_low": low,
        "reward_high": high,
        "median_reward": np.median(returns),
        "iqm_reward": np.sort(returns)[2:-2].mean(),
        "std_reward": returns.std(ddof=1),
        "mean_ep_length": 1,
        "success_rate": np.mean(callback.evaluations_successes),
    }
    for name, value in expected.items():
        assert logged[f"eval/{name}"] == pytest.approx(value, rel=1e-6), name
    with np.load(tmp_path / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [64]
        np.testing.assert_array_equal(file["results"], [returns])
        assert file["ep_lengths"].shape == file["successes"].shape == (1, 9)


def test_the_best_model_is_kept_and_reported_by_other_episodes(tmp_path):
    training = VecNormalize(DummyVecEnv([Target]), norm_obs=False)
    model = model_of(env=training, learning_rate=0.05)
    callback = quiet(Target, n_eval_episodes=20, eval_freq=16, best_model_save_path=tmp_path)
    model.learn(160, callback)
    means = [np.mean(evaluation["returns"]) for evaluation in callback.evaluations]
    best = int(np.argmax(means))
    assert callback.best_mean_reward == means[best]
    assert callback.last_mean_reward == means[-1]
    assert 0 < best < len(means) - 1, "the example is to have its best model in between"
    saved = PPO.load(
        tmp_path / "best_model", env=VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([Target]))
    )
    report = json.loads((tmp_path / "best_model.json").read_text())
    assert report["timesteps"] == callback.best.timesteps == 16 * (best + 1)
    for first, returns in ((100_000, callback.evaluations[best]["returns"]), (1000, report["reported_by"]["returns"])):
        played = play_episodes(saved, Target, range(first, first + 20), n_envs=16)
        np.testing.assert_allclose([episode.episode_return for episode in played], returns, rtol=1e-5)
    assert report["reported_by"]["estimate"] == pytest.approx(np.mean(report["reported_by"]["returns"]))
    assert report["chosen_by"]["mean"] == means[best]


class Chance(Target):
    """The return is chance, other for every seed and every action: 0 in the mean, whatever the policy."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode = seed
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        numbers = np.random.default_rng([self.episode, int(1e6 * (1 + action[0]))])
        return np.ones(1, np.float32), float(numbers.standard_normal()), True, False, {}


@pytest.mark.slow
def test_the_report_of_the_best_of_many_does_not_flatter_it():
    """In 100 trainings of ten evaluations whose models are all equally good, with 0."""
    model = model_of(env=Chance())
    model.set_logger(configure(None, []))
    chosen, reported = [], []
    for study in range(100):
        callback = EpisodeEvalCallback(
            Chance,
            n_eval_episodes=20,
            eval_freq=1,
            seed=1000 * study,
            report_seed=1000 * study + 500,
            n_envs=20,
            verbose=0,
        )
        callback.init_callback(model)
        for _ in range(10):
            with th.no_grad():
                model.policy.action_net.bias.normal_(0, 0.3)
            callback.on_step()
        callback.on_training_end()
        chosen.append(callback.best_mean_reward)
        reported.append(mean_interval(callback.best.report))
    assert 0.2 < np.mean(chosen) < 0.5  # 1.54 σ/√20 is expected
    assert abs(np.mean([interval.estimate for interval in reported])) < 0.07  # three standard errors
    assert sum(interval.low <= 0 <= interval.high for interval in reported) >= 89


def test_the_statistics_of_the_best_model_are_its_own():
    """The report is that of the best model under the statistics by then, not under the latest."""
    training = VecNormalize(DummyVecEnv([partial(RandomEnv, spaces.Discrete(3))]))
    model = model_of(env=training)
    callback = quiet(partial(RandomEnv, spaces.Discrete(3)), eval_freq=8)
    model.learn(64, callback)
    latest = training.obs_rms
    assert callback.best.statistics["obs_rms"].count < latest.count
    vars(training)["obs_rms"] = callback.best.statistics["obs_rms"]
    model.policy.load_state_dict(callback.best.parameters)
    played = play_episodes(model, partial(RandomEnv, spaces.Discrete(3)), range(1000, 1005), n_envs=16)
    np.testing.assert_allclose([episode.episode_return for episode in played], callback.best.report, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "CartPole-v1",
        lambda: TimeLimit(gym.make("CartPole-v1", sutton_barto_reward=True), 7),
        lambda: DummyVecEnv([lambda: Monitor(FlattenObservation(gym.make("CartPole-v1")))] * 2),
        lambda: VecFrameStack(make_vec_env("CartPole-v1", 2), 3),
        lambda: VecNormalize(FastDummyVecEnv([partial(RandomEnv, spaces.Discrete(3))])),
    ],
    ids=["an id", "wrappers with arguments", "a Monitor", "wrappers of the VecEnv", "a factory"],
)
def test_makes_environments_like_those_of_training(make):
    env = make()
    model = model_of(env=env)
    callback = quiet(n_eval_episodes=3)
    model.learn(40, callback)
    limited = isinstance(env, TimeLimit)
    assert all(length <= 7 for length in callback.evaluations_length[0]) or not limited


def test_monitor_files_of_training_are_left_alone(tmp_path):
    env = make_vec_env("CartPole-v1", 1, monitor_dir=str(tmp_path))
    model = model_of(env=env)
    model.learn(100, quiet(n_eval_episodes=3))
    env.close()
    steps = sum(int(line.split(",")[1]) for line in (tmp_path / "0.monitor.csv").read_text().splitlines()[2:])
    assert 50 < steps <= model.num_timesteps
    assert len(list(tmp_path.iterdir())) == 1


class Mystery(gym.Wrapper):
    """Does not tell how it was made."""


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (Target, "no spec"),
        (lambda: Mystery(gym.make("CartPole-v1")), "the wrapper Mystery, which does not tell how it was made"),
    ],
)
def test_says_why_it_cannot_make_environments(env, reason):
    with pytest.raises(ValueError, match=f"eval_env=None, but .* has {reason}"):
        model_of(env=env()).learn(20, quiet())
    same = env()
    with pytest.raises(ValueError, match=f"eval_env=None, but .* has {reason}"):
        model_of(env=FastDummyVecEnv([lambda: same])).learn(20, quiet())


def test_callbacks_of_its_own_are_called():
    calls = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            calls.append(self.parent.best_mean_reward)
            return True

    stop = StopTrainingOnRewardThreshold(-10)
    model = model_of()
    model.learn(200, quiet(Target, callback_after_eval=Note(), callback_on_new_best=stop))
    assert model.num_timesteps == 20
    assert len(calls) <= 1
    model_of().learn(100, quiet(Target, callback_after_eval=Note()))
    assert len(calls) >= 5


def test_prints_what_it_finds(capsys, tmp_path):
    model_of().learn(20, quiet(Target, verbose=1, best_model_save_path=tmp_path))
    out = capsys.readouterr().out
    assert "Eval num_timesteps=20, 5 episodes: mean -" in out
    assert "New best mean reward!" in out
    assert "Best model, of 20 steps, in 5 other episodes: mean" in out


def test_what_it_remembers_can_be_put_back():
    first = quiet(Target, eval_freq=16)
    model_of().learn(32, first)
    second = quiet(Target, eval_freq=16)
    second.load_state_dict(first.state_dict())
    assert (second.n_calls, second.evaluations) == (first.n_calls, first.evaluations)
    assert second.best_mean_reward == first.best_mean_reward
    model_of().learn(16, second)
    assert second.evaluations_timesteps == [16, 32, 16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_eval_episodes": 1}, "n_eval_episodes=1; allowed: an integer ≥ 2"),
        ({"eval_freq": 0}, "eval_freq=0; allowed"),
        ({"seed": -1}, "seed=-1; allowed"),
        ({"deterministic": "yes"}, "deterministic='yes'; allowed"),
        ({"report_seed": 100_100, "n_eval_episodes": 200}, "report_seed=100100 with seed=100000 .* the same"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        EpisodeEvalCallback(Target, **arguments)


def test_refuses_environments_that_do_not_go_with_the_model():
    env = Target()
    with pytest.raises(ValueError, match="the environment that the model is training in"):
        model_of(env=env).learn(20, quiet(env))
    with pytest.raises(ValueError, match="spaces do not match"):
        model_of().learn(20, quiet("CartPole-v1"))
    with pytest.raises(ValueError, match="no VecNormalize"):
        model_of(env=VecNormalize(DummyVecEnv([Target]))).learn(20, quiet(DummyVecEnv([Target])))
