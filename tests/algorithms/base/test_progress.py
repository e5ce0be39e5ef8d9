"""Schedules end where the training does, although the last rollout may end later."""

import gymnasium as gym
import pytest

from sb3_pg_ext import NAF, REINFORCE

TASKS = {
    "whole episodes": (REINFORCE, {"n_episodes": 1}),
    "many steps": (NAF, {"learning_starts": 0, "train_freq": 30}),
}


@pytest.mark.parametrize(("algorithm", "arguments"), TASKS.values(), ids=TASKS)
def test_the_remaining_progress_is_never_negative(algorithm, arguments):
    seen = []

    def schedule(progress_remaining):
        seen.append(progress_remaining)
        return 1e-3 * progress_remaining

    env = gym.make("Pendulum-v1", max_episode_steps=30)
    model = algorithm("MlpPolicy", env, learning_rate=schedule, device="cpu", seed=0, **arguments).learn(40)
    assert model.num_timesteps == 60
    assert min(seen) == 0
    assert seen[0] == 1
