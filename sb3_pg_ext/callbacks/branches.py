"""Episodes that are alike up to a state, and go on from there each in its own way."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import Observations, arrays_of
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions, episodes_side_by_side

Intervene = Callable[[int, Observations, np.ndarray], np.ndarray]
"""From the number of a step, observations and the policy's actions, [N, …], to the actions to take."""


class Play(Protocol):
    """Plays complete episodes."""

    def __call__(
        self, obs: Any, episodes_per_env: int, intervene: Intervene | None = None
    ) -> tuple[EpisodeTransitions, PolicyInputs]:
        """From the first observations on."""


Played = tuple[tuple[EpisodeTransitions, EpisodeTransitions], tuple[EpisodeTransitions, EpisodeTransitions]]
"""[actions][continuations], episode by episode."""


class Repeat:
    """Repeats the first actions of episodes, and then gives every environment other random numbers.

    :param env: the environments
    :param episodes: one of each, to be repeated
    :param steps: [N], the step from which on things are new
    :param same_action: whether the action of that step is still the same
    """

    def __init__(self, env: VecEnv, episodes: EpisodeTransitions, steps: np.ndarray, same_action: bool) -> None:
        self._env = env
        self._episodes = episodes
        self._steps = steps
        self._n_repeated = steps + same_action

    def __call__(self, t: int, obs: Observations, actions: np.ndarray) -> np.ndarray:
        """The actions to take at step t."""
        recorded = self._episodes.inputs.rows(min(t, len(self._episodes.rewards) - 1)).observations
        on_the_way = t <= self._steps
        for now, then in zip(arrays_of(obs), arrays_of(recorded), strict=True):
            if not np.array_equal(now.reshape(then.shape)[on_the_way], then[on_the_way]):
                raise ValueError(
                    f"n_states with an environment that does not repeat itself: after reset(seed=…) and {t} equal "
                    "actions, observations differ; allowed: n_states=0, or one whose chance comes from np_random"
                )
        for n in np.flatnonzero(t == self._steps).tolist():
            self._env.set_attr("np_random", np.random.default_rng(np.random.randint(2**31)), [n])
        repeated = t < self._n_repeated
        actions = actions.copy()
        if repeated.any():
            old = self._episodes.actions[min(t, len(self._episodes.rewards) - 1)]
            actions[repeated] = old.reshape(actions.shape)[repeated]
        return actions


def play_branches(play: Play, env: VecEnv, n_states: int, seed: int) -> tuple[Played, np.ndarray]:
    """Play episodes, draw a step of each, and play on from there: once after the same action, twice after another.

    :param play: plays episodes by the policy
    :param env: where; its episodes begin alike after the same seed
    :param n_states: how many, a multiple of the number of environments
    :param seed: seed of the first episodes, and less than ``n_states`` above it those of others
    :return: the episodes, and the step of each, [n_states]
    """
    played: list[list[EpisodeTransitions]] = []
    all_steps = []
    for i in range(0, n_states, env.num_envs):

        def branch(intervene: Intervene | None = None, seed: int = seed + i) -> EpisodeTransitions:
            env.seed(seed)
            return play(env.reset(), 1, intervene)[0]

        first = branch()
        steps = np.random.randint(first.active.sum(axis=0))
        again = branch(Repeat(env, first, steps, same_action=True))
        other = branch(Repeat(env, first, steps, same_action=False))
        played.append([first, again, other, branch(Repeat(env, other, steps, same_action=True))])
        all_steps.append(steps)
    first, again, other, another = (episodes_side_by_side(column) for column in zip(*played, strict=True))
    return ((first, again), (other, another)), np.concatenate(all_steps)
