"""SB3's ``DummyVecEnv`` without the deep copies that take half of its time on cheap environments."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import NoneType
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from sb3_pg_ext.envs.step_infos import StepInfos

EnvFactory = Callable[[], gym.Env]
"""A function without arguments that makes an environment."""

IMMUTABLE = frozenset({*np.ScalarType, NoneType}) - {memoryview, np.void, np.object_}
"""Types of values that nobody can change: Python's and NumPy's scalars, strings and None."""


class FastDummyVecEnv(DummyVecEnv):
    """A ``DummyVecEnv`` that copies only what an environment could change later, and remembers its factories.

    ``DummyVecEnv`` deep-copies all infos at every step. Here infos are new dictionaries, in which numbers, strings and
    None stay what they are and everything else is deep-copied. So whatever a step returns is the caller's: no later
    step changes it. Everything but the copies is SB3's, and so are all results for environments that return new arrays
    and new dictionaries. With environments that reuse theirs it is more exact in two points:

    - infos and ``terminal_observation`` are copied before the environment is reset, not after it, so that they show
      the end of the episode and not the beginning of the next one;
    - ``TimeLimit.truncated`` and ``terminal_observation`` are not written into the environment's own dictionary, so
      that they do not turn up again in later infos.

    Use it wherever a ``DummyVecEnv`` goes, for instance
    ``make_vec_env("CartPole-v1", 8, vec_env_cls=FastDummyVecEnv)``.

    :param env_fns: functions that make the environments; kept as ``env_fns``, so that the environments can be made
        again elsewhere
    :raises ValueError: if two of them return the same environment
    """

    lazy_infos = False
    """Whether ``step_wait`` gives :class:`~sb3_pg_ext.envs.StepInfos` instead of a list of dictionaries."""

    def __init__(self, env_fns: Sequence[EnvFactory]) -> None:
        self.env_fns = list(env_fns)
        super().__init__(self.env_fns)

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment, and reset those whose episode ends.

        :return: observations [N, …], rewards [N], dones [N] and infos (N dictionaries)
        """
        told: dict[int, dict[str, Any]] = {}
        for i, env in enumerate(self.envs):
            obs, self.buf_rews[i], terminated, truncated, env_info = env.step(self.actions[i])
            done = self.buf_dones[i] = terminated or truncated
            if done or env_info:
                info = told[i] = _own(env_info)
                info["TimeLimit.truncated"] = truncated and not terminated
                if done:
                    info["terminal_observation"] = deepcopy(obs)
                    obs, self.reset_infos[i] = env.reset()
            self._save_obs(i, obs)
        infos = StepInfos(self.num_envs, _untold, told)
        given: Any = infos if self.lazy_infos else list(infos)
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), given

    def _obs_from_buf(self) -> VecEnvObs:
        if None in self.buf_obs:  # a single array, neither Dict nor Tuple: the case that has to be fast
            return self.buf_obs[None].copy()  # type: ignore[index]
        buffers = OrderedDict((key, buffer.copy()) for key, buffer in self.buf_obs.items())
        return dict_to_obs(self.observation_space, buffers)


def _untold(rows: np.ndarray) -> list[dict[str, Any]]:
    return [{"TimeLimit.truncated": False} for _ in rows]


def _own(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value if type(value) in IMMUTABLE else deepcopy(value) for key, value in info.items()}
