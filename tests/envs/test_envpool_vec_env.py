"""EnvPoolVecEnv: every step is one of the task's, and every end what SB3 wants."""

import warnings
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize

from sb3_pg_ext import fast

envpool = pytest.importorskip("envpool", reason="the extra envpool is not installed")

from sb3_pg_ext.envs import EnvPoolVecEnv, make_vec_env  # noqa: E402
from sb3_pg_ext.envs.envpool_vec_env import find_task  # noqa: E402


def play(env, n_steps, seed=1, action=None):
    env.seed(seed)
    rng = np.random.default_rng(seed)
    returned = [(env.reset(), None, None, list(env.reset_infos))]
    for _ in range(n_steps):
        actions = [rng.integers(env.action_space.n) if action is None else action for _ in range(env.num_envs)]
        returned.append(env.step(np.array(actions)))
    return returned


def put_into(single, obs):
    """Bring gymnasium's environment into the state of an observation."""
    single.unwrapped.state = np.array(obs, dtype=np.float64)
    single.unwrapped.steps_beyond_terminated = None


def test_cart_pole_is_gymnasiums_step_by_step():
    env = EnvPoolVecEnv("CartPole-v1", 3, max_episode_steps=30)
    rng = np.random.default_rng(0)
    singles = [gym.make("CartPole-v1", max_episode_steps=30) for _ in range(3)]
    env.seed(0)
    obs = env.reset()
    for single, first in zip(singles, obs, strict=True):
        single.reset()
        put_into(single, first)
    kinds = set()
    for _ in range(2000):
        actions = rng.integers(2, size=3)
        obs, rewards, dones, infos = env.step(actions)
        for i, single in enumerate(singles):
            own_obs, reward, terminated, truncated, _ = single.step(actions[i])
            assert rewards[i] == reward
            assert dones[i] == (terminated or truncated)
            seen = infos[i]["terminal_observation"] if dones[i] else obs[i]
            np.testing.assert_allclose(seen, own_obs, rtol=1e-4, atol=1e-5)
            if dones[i]:
                at_limit = infos[i]["elapsed_step"] == 30  # where EnvPool calls a fall truncated, too
                assert infos[i]["TimeLimit.truncated"] == (at_limit if terminated else truncated)
                kinds.add((terminated, truncated))
                assert np.abs(obs[i]).max() <= 0.05
                assert env.reset_infos[i]["elapsed_step"] == 0
                single.reset()
                put_into(single, obs[i])
            else:
                assert "terminal_observation" not in infos[i]
                assert infos[i]["TimeLimit.truncated"] is False
    assert {(True, False), (False, True)} <= kinds


def test_falls_are_terminated_and_the_limit_of_cart_pole_truncates():
    env = EnvPoolVecEnv("CartPole-v1", 4)
    obs, lengths = env.reset(), []
    for _ in range(1200):
        # Angle and angular velocity keep the pole up, in the first two environments.
        actions = (obs[:, 2] + 0.3 * obs[:, 3] + 0.02 * obs[:, 0] + 0.05 * obs[:, 1] > 0).astype(int)
        actions[2:] = 0
        obs, _, dones, infos = env.step(actions)
        for i in np.flatnonzero(dones):
            length, truncated = infos[i]["episode"]["l"], infos[i]["TimeLimit.truncated"]
            assert truncated == (length == 500)
            assert infos[i]["episode"]["r"] == length == infos[i]["elapsed_step"]
            fallen = np.abs(infos[i]["terminal_observation"][2]) > 12 * np.pi / 180
            assert fallen == (not truncated)
            lengths.append(length)
    assert lengths.count(500) == 4
    assert min(lengths) < 15


def test_no_step_follows_an_episode_and_final_observations_stay():
    """A ghost step would have no reward; a view would be overwritten by the reset."""
    returned = play(EnvPoolVecEnv("CartPole-v1", 5), 200, action=0)
    n_episodes = 0
    for before, (obs, rewards, dones, infos) in pairwise(returned):
        assert (rewards == 1).all()
        for i in np.flatnonzero(dones):
            final = infos[i]["terminal_observation"]
            n_episodes += 1
            assert not np.array_equal(final, obs[i])
            assert final[2] > 12 * np.pi / 180
            # Explicit Euler: the position moves by the last velocity.
            np.testing.assert_allclose(final[0], before[0][i, 0] + 0.02 * before[0][i, 1], rtol=1e-5)
    assert n_episodes > 50


def test_seeds_decide_whatever_the_numbers_of_environments_and_threads():
    two, one = (
        play(EnvPoolVecEnv("CartPole-v1", 2, num_threads=2), 60, 7, 1),
        play(EnvPoolVecEnv("CartPole-v1", 1), 60, 8, 1),
    )
    for (obs, *_), (other, *_) in zip(two, one, strict=True):
        np.testing.assert_array_equal(obs[1:], other)
    env = EnvPoolVecEnv("CartPole-v1", 2)
    for (obs, *_), (other, *_) in zip(play(env, 60, 7, 1), two, strict=True):
        np.testing.assert_array_equal(obs, other)
    for (obs, *_), (other, *_) in zip(play(env, 60, 7, 1), two, strict=True):  # seeded once more
        np.testing.assert_array_equal(obs, other)
    assert not np.array_equal(env.reset(), two[0][0])
    assert not np.array_equal(EnvPoolVecEnv("CartPole-v1", 2).reset(), EnvPoolVecEnv("CartPole-v1", 2).reset())


@pytest.mark.parametrize("num_threads", [1, 2])
def test_episodes_of_a_single_step_follow_each_other(num_threads):
    env = EnvPoolVecEnv("CartPole-v1", 3, num_threads, max_episode_steps=1)
    env.seed(0)
    firsts = [env.reset()]
    for t in range(20):
        obs, rewards, dones, infos = env.step(np.array([t % 2] * 3))
        assert dones.all()
        assert (rewards == 1).all()
        for i, info in enumerate(infos):
            final = info["terminal_observation"]
            np.testing.assert_allclose(final[0], firsts[-1][i, 0] + 0.02 * firsts[-1][i, 1], rtol=1e-5)
            assert info["elapsed_step"] == info["episode"]["l"] == 1
            assert env.reset_infos[i]["elapsed_step"] == 0
        firsts.append(obs)
    assert np.abs(firsts).max() <= 0.05
    assert len(np.unique(np.concatenate(firsts), axis=0)) == 3 * 21


@pytest.mark.parametrize(("task_id", "shape"), [("CartPole-v1", (3,)), ("CartPole-v1", ()), ("Pendulum-v1", (2, 2))])
def test_actions_of_another_shape_are_refused(task_id, shape):
    """EnvPool itself would end the process."""
    env = EnvPoolVecEnv(task_id, 2)
    env.reset()
    with pytest.raises(ValueError, match="cannot reshape array"):
        env.step(np.zeros(shape))
    env.step(np.zeros((2, *env.action_space.shape)))


def test_actions_of_another_kind():
    """Lists, other types and other layouts in memory are as good."""
    env = EnvPoolVecEnv("Pendulum-v1", 2)
    stepped = []
    for actions in (np.array([[0.5], [-1]], np.float32), [[0.5], [-1]], np.array([[0.5, 9], [-1, 9]])[:, :1]):
        env.seed(0)
        env.reset()
        stepped.append(env.step(actions)[0])
    for obs in stepped[1:]:
        np.testing.assert_array_equal(obs, stepped[0])


def test_large_seeds_are_seeds():
    env = EnvPoolVecEnv("CartPole-v1", 2)
    env.seed(2**32 - 1)
    assert env.reset().shape == (2, 4)


def test_a_lost_life_does_not_begin_a_new_game_and_statistics_are_of_whole_games():
    env = EnvPoolVecEnv("BreakoutNoFrameskip-v4", 2, episodic_life=True, reward_clip=True)
    assert env.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    env.seed(0)
    env.reset()
    rng = np.random.default_rng(0)
    lives, kept, scores, n_games = np.array([5, 5]), 0, np.zeros(2), 0
    for _ in range(500):
        _, _, dones, infos = env.step(rng.integers(4, size=2))
        for i, info in enumerate(infos):
            scores[i] += info["reward"]
            if not dones[i]:
                assert info["lives"] == lives[i]
                continue
            assert info["lives"] == lives[i] - 1
            lives[i] = env.reset_infos[i]["lives"]
            if info["terminated"]:
                assert lives[i] == 5
                assert info["episode"]["r"] == scores[i]
                scores[i], n_games = 0, n_games + 1
            else:
                assert lives[i] == info["lives"]
                assert "episode" not in info
                kept += 1
    assert kept > 10
    assert n_games >= 2


class Keep(BaseCallback):
    """Keeps what the environment said and the advantages of the rollout."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def _on_step(self):
        names = ("rewards", "dones", "infos", "new_obs")
        self.steps.append([np.copy(self.locals[name]) if name != "infos" else self.locals[name] for name in names])
        return True

    def _on_rollout_end(self):
        self.advantages = self.model.rollout_buffer.advantages.copy()


@pytest.mark.parametrize("cls", [PPO, fast.PPO])
def test_advantages_at_a_cut_are_those_of_a_slow_float64_reference(cls):
    n_steps, gamma, lam = 40, 0.9, 0.8
    env = EnvPoolVecEnv("CartPole-v1", 2, max_episode_steps=12)
    model = cls("MlpPolicy", env, n_steps=n_steps, batch_size=n_steps, n_epochs=1, gamma=gamma, gae_lambda=lam, seed=0)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    keep = Keep()
    model.learn(2 * n_steps, keep)
    model.policy.load_state_dict(before)

    def value(obs):
        return float(model.policy.predict_values(model.policy.obs_to_tensor(np.asarray(obs)[None])[0]).detach())

    env.seed(0)
    first = env.reset()
    n_cut = 0
    for i in range(2):
        observations = [first[i], *(step[3][i] for step in keep.steps)]
        advantage, reference = 0.0, []
        for t in reversed(range(n_steps)):
            _, dones, infos, _ = keep.steps[t]
            truncated = bool(dones[i]) and infos[i]["TimeLimit.truncated"]
            n_cut += truncated
            assert not truncated or infos[i]["elapsed_step"] == 12
            following = infos[i]["terminal_observation"] if truncated else observations[t + 1]
            terminated = dones[i] and not truncated
            delta = 1 + gamma * (0 if terminated else value(following)) - value(observations[t])
            advantage = delta + gamma * lam * (0 if dones[i] else advantage)
            reference.insert(0, advantage)
        np.testing.assert_allclose(keep.advantages[:, i], reference, rtol=1e-4, atol=1e-5)
    assert n_cut >= 2


def test_what_sb3_puts_around_it():
    env = VecNormalize(VecFrameStack(EnvPoolVecEnv("CartPole-v1", 3), 2))
    obs, _, dones, infos = play(env, 60, action=0)[-1]
    assert obs.shape == (3, 8)
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(EnvPoolVecEnv("CartPole-v1", 3))
    for _, _, dones, infos in play(monitored, 60, action=0)[1:]:
        assert all(infos[i]["episode"]["l"] == infos[i]["elapsed_step"] for i in np.flatnonzero(dones))


def test_a_model_goes_on_in_gymnasiums_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PPO("MlpPolicy", EnvPoolVecEnv("CartPole-v1", 2), n_steps=16, batch_size=32, n_epochs=1, seed=0).learn(
            32
        )
        assert model.num_timesteps == 32
        model.set_env(make_vec_env("CartPole-v1", 2))
        assert len(evaluate_policy(model, EnvPoolVecEnv("CartPole-v1", 2), 4, return_episode_rewards=True)[0]) == 4


def test_spaces_are_gymnasiums():
    env, single = EnvPoolVecEnv("Pendulum-v1", 1), gym.make("Pendulum-v1")
    assert env.observation_space == single.observation_space
    assert env.action_space == single.action_space


def test_bounds_are_mended_where_gymnasium_has_none(monkeypatch):
    def refuse(*args, **kwargs):
        raise ImportError

    monkeypatch.setattr(gym, "make", refuse)
    space = EnvPoolVecEnv("LunarLander-v3").observation_space
    assert (space.low == -np.inf).all()
    assert (space.high == np.inf).all()


def test_attributes():
    env = EnvPoolVecEnv("CartPole-v1", 2)
    assert env.get_attr("render_mode") == [None, None]
    assert env.get_attr("spec")[0].id == "CartPole-v1"
    assert env.env_is_wrapped(Monitor) == [True, True]
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False, False]
    with pytest.raises(AttributeError, match="EnvPoolVecEnv cannot read 'gravity': it has no single environments"):
        env.get_attr("gravity")


def test_rendering_and_closing():
    env = EnvPoolVecEnv("CartPole-v1", 2, render_mode="rgb_array", max_episode_steps=3)
    with pytest.raises(ValueError, match="before the first reset"):
        env.render()
    env.seed(0)
    obs = env.reset()
    images = env.get_images()
    assert [image.shape for image in images] == [(400, 600, 3)] * 2
    for _ in range(3):
        last, (obs, *_) = obs, env.step(np.array([0, 0]))
    moved = [image != first for image, first in zip(env.get_images(), images, strict=True)]
    assert all(pixels.any() for pixels in moved)  # another episode has begun
    assert np.abs(obs - last).max() > 0.01
    assert env.render().shape[2] == 3
    env.close()
    env.close()
    assert env.reset().shape == (2, 4)


@pytest.mark.parametrize(
    ("env_id", "task", "presets"),
    [
        ("CartPole-v1", "CartPole-v1", {}),
        ("ALE/Pong-v5", "Pong-v5", {"repeat_action_probability": 0.25}),
        ("PongNoFrameskip-v4", "Pong-v5", {}),
        ("Pong-v5", "Pong-v5", {}),
    ],
)
def test_ids_correspond(env_id, task, presets):
    assert find_task(env_id) == (task, presets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_id": "CartPol-v1"}, "env_id='CartPol-v1' .did you mean 'CartPole-v1'"),
        ({"task_id": "ALE/Pingpong-v5"}, "env_id='ALE/Pingpong-v5'"),
        ({"task_id": "CartPole-v1", "max_episode_step": 3}, "max_episode_step=3 .did you mean 'max_episode_steps'"),
        ({"task_id": "CartPole-v1", "batch_size": 1, "num_envs": 2}, "batch_size=1; allowed: num_envs"),
        ({"task_id": "CartPole-v1", "num_envs": 0}, "num_envs=0; allowed: an integer"),
        ({"task_id": "CartPole-v1", "num_threads": 1.5}, "num_threads=1.5; allowed: an integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnvPoolVecEnv(**arguments)


def test_options_are_refused():
    env = EnvPoolVecEnv("CartPole-v1", 2)
    env.set_options({"low": 0})
    with pytest.raises(ValueError, match="allowed: none, EnvPool's tasks take no options"):
        env.reset()
