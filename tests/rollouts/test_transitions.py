"""Transitions tell what happened: raw rewards, and termination apart from truncation."""

import numpy as np
import pytest
from envs import ACTION_SPACES, OBSERVATION_SPACES, VECTOR
from gymnasium import spaces

from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions, Transitions

DISCRETE = spaces.Discrete(3)


def add(transitions, t, dones, truncated=(), final=True):
    """Step t, in which everything has a number of its own."""
    infos = []
    for n, done in enumerate(dones):
        info = {"TimeLimit.truncated": n in truncated} if done else {}
        if done and final:
            info["terminal_observation"] = np.full(3, 100 * n + t, np.float32)
        infos.append(info)
    numbers = 10 * np.arange(len(dones)) + t
    obs = np.repeat(numbers, 3).reshape(-1, 3).astype(np.float32)
    transitions.add(PolicyInputs(obs), numbers % 3, numbers.astype(np.float32), np.array(dones), infos)


def test_ends_and_final_observations():
    transitions = Transitions(VECTOR, DISCRETE, n_envs=2, n_steps=3)
    add(transitions, 0, [False, True], truncated=[1])
    add(transitions, 1, [True, False])
    assert not transitions.complete
    add(transitions, 2, [True, True], truncated=[0])
    assert transitions.complete
    assert transitions.terminated.tolist() == [[False, False], [True, False], [False, True]]
    assert transitions.truncated.tolist() == [[False, True], [False, False], [True, False]]
    assert transitions.ends.tolist() == [[False, True], [True, False], [True, True]]
    assert {key: obs[0] for key, obs in transitions.final_observations.items()} == {(0, 1): 100, (2, 0): 2}
    assert transitions.rewards.tolist() == [[0, 10], [1, 11], [2, 12]]


def test_without_a_final_observation_nothing_can_be_continued():
    transitions = Transitions(VECTOR, DISCRETE, n_envs=1, n_steps=1)
    add(transitions, 0, [True], truncated=[0], final=False)
    assert transitions.terminated.all()
    assert not transitions.final_observations


def test_laid_out_environment_by_environment():
    transitions = Transitions(VECTOR, DISCRETE, n_envs=2, n_steps=3)
    for t in range(3):
        add(transitions, t, [False, False])
    assert transitions.flat(transitions.rewards).tolist() == [0, 1, 2, 10, 11, 12]
    assert transitions.flat(transitions.observations)[:, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert transitions.flat(transitions.actions)[:, 0].tolist() == [0, 1, 2, 1, 2, 0]


def test_only_what_is_missing_counts():
    transitions = EpisodeTransitions(VECTOR, DISCRETE, n_envs=2, episodes_per_env=2)
    for t, dones in enumerate([[True, False], [True, False], [True, True], [False, True]]):
        assert not transitions.complete
        infos, counted = transitions.counted([{"n": 0}, {"n": 1}], np.array(dones))
        expected = [0, 1] if t < 2 else [1]
        assert [info["n"] for info in infos] == expected
        assert counted.tolist() == [dones[n] for n in expected]
        add(transitions, t, dones, truncated=[0])
    assert transitions.complete
    assert transitions.active.tolist() == [[True, True], [True, True], [False, True], [False, True]]
    assert transitions.flat(transitions.rewards).tolist() == [0, 1, 10, 11, 12, 13]
    assert list(transitions.final_observations) == [(0, 0), (1, 0)]
    assert transitions.ends.tolist() == [[True, False], [True, False], [False, True], [False, True]]


def test_room_is_made_for_long_episodes(monkeypatch):
    monkeypatch.setattr(EpisodeTransitions, "INITIAL_CAPACITY", 4)
    space = spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(30)})
    transitions = EpisodeTransitions(space, DISCRETE, n_envs=1, episodes_per_env=1)
    for t in range(21):
        obs = {"vector": np.full((1, 3), t, np.float32), "number": np.array([t])}
        transitions.add(PolicyInputs(obs), np.array([t % 3]), np.array([t], np.float32), np.array([t == 20]), [{}])
    for array in (transitions.rewards, transitions.observations["vector"][..., 0], transitions.observations["number"]):
        np.testing.assert_array_equal(transitions.flat(array).ravel(), np.arange(21))
    assert transitions.terminated.tolist() == [[False]] * 20 + [[True]]


@pytest.mark.parametrize("observations", OBSERVATION_SPACES)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_every_space_is_kept_as_it_is(observations, actions):
    observation_space, action_space = OBSERVATION_SPACES[observations], ACTION_SPACES[actions]
    transitions = Transitions(observation_space, action_space, n_envs=2, n_steps=1)
    seen = [observation_space.sample() for _ in range(2)]
    done = [action_space.sample() for _ in range(2)]
    is_dict = isinstance(observation_space, spaces.Dict)
    obs = {key: np.stack([one[key] for one in seen]) for key in seen[0]} if is_dict else np.stack(seen)
    transitions.add(PolicyInputs(obs), np.stack(done), np.zeros(2, np.float32), np.zeros(2, bool), [{}, {}])
    assert transitions.actions.dtype == action_space.dtype
    np.testing.assert_array_equal(transitions.actions[0].reshape(np.stack(done).shape), np.stack(done))
    if not is_dict:
        assert transitions.observations.dtype == observation_space.dtype
        obs, stored = {"": obs}, {"": transitions.observations}
    else:
        stored = transitions.observations
    for key, array in obs.items():
        np.testing.assert_array_equal(stored[key][0].reshape(array.shape), array)
