"""Any ``gymnasium.vector.VectorEnv`` as a ``VecEnv``."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs

from sb3_pg_ext.envs.batched import BatchedVecEnv, Infos, Step, pick, put, separate, tree_map
from sb3_pg_ext.envs.step_infos import MakeInfos

SAME_STEP, NEXT_STEP = "SameStep", "NextStep"
AUTORESET_MODES = (SAME_STEP, NEXT_STEP, "Disabled")


class GymnasiumVecEnv(BatchedVecEnv):
    """A ``gymnasium.vector.VectorEnv`` for SB3: synchronous, asynchronous, or a simulator of its own.

    Gymnasium's vector environments reset when it suits them, and by default give one step more after every episode, in
    which the action is unused and the reward is 0. Here every step is one of the environment's:

    - in the modes ``NEXT_STEP`` and ``DISABLED`` this class resets the episodes that end at once, with
      ``reset(options={"reset_mask": …})``;
    - in the mode ``SAME_STEP`` gymnasium does, and says in ``final_obs`` and ``final_info`` what was before. With
      ``SyncVectorEnv`` these are the environment's own arrays, so take another mode if it reuses them.

    Infos are lists of dictionaries, as in SB3. Where gymnasium has put numbers of several environments into one array,
    it has given them one type, that of the first.

    Attributes and methods of single environments are at hand with ``SyncVectorEnv`` and ``AsyncVectorEnv``.
    ``set_attr`` sets an attribute where it is, not on the outermost wrapper. Of ``AsyncVectorEnv`` a wrapper is known
    by the name of its class.

    :param env: the vector environment; this object closes it
    :param partial_reset: whether ``reset`` of a simulator in the mode ``NEXT_STEP`` or ``DISABLED`` respects
        ``options["reset_mask"]``; None: yes for ``SyncVectorEnv`` and ``AsyncVectorEnv``, no for others
    :raises ValueError: if it is no vector environment, does not tell its autoreset mode (gymnasium < 1.1), or can reset
        neither in the same step nor partially, or is in a wrapper that partial resets confuse
    """

    def __init__(self, env: VectorEnv, partial_reset: bool | None = None) -> None:
        if not isinstance(env, VectorEnv):
            raise ValueError(f"env={env!r} is a {type(env).__name__}; allowed: a gymnasium.vector.VectorEnv")
        self.env = env
        self._simulator = env.unwrapped
        mode = env.metadata.get("autoreset_mode")
        self._mode: Any = getattr(mode, "value", mode)
        self._has_single = isinstance(self._simulator, SyncVectorEnv | AsyncVectorEnv)
        self._check_mode(partial_reset)
        self._reset_by_simulator: tuple[VecEnvObs, Infos] | None = None
        # SyncVectorEnv and AsyncVectorEnv with copy=True have already made copies; a wrapper may reuse its array.
        self._copies = not (env is self._simulator and getattr(env, "copy", False))
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._last_obs: VecEnvObs | None = None

    def _check_mode(self, partial_reset: bool | None) -> None:
        if self._mode not in AUTORESET_MODES:
            raise ValueError(
                f"env={self.env!r} has autoreset_mode={self._mode!r} in its metadata; allowed: those of "
                f"gymnasium ≥ 1.1, {', '.join(AUTORESET_MODES)}"
            )
        if self._mode == SAME_STEP:
            return
        if not (self._has_single if partial_reset is None else partial_reset):
            raise ValueError(
                f"env={self.env!r} has autoreset_mode={self._mode!r}, and is not known to reset some of its "
                "environments alone, so every episode would be followed by a step that is none; allowed: the mode "
                "SAME_STEP, SyncVectorEnv, AsyncVectorEnv, or partial_reset=True where its reset() respects "
                'options["reset_mask"]'
            )
        if any(isinstance(wrapper, RecordEpisodeStatistics) for wrapper in _wrappers(self.env)):
            raise ValueError(
                f"env={self.env!r} is in RecordEpisodeStatistics, which forgets the returns of all environments when "
                f"one of them is reset alone; allowed: to leave it out, since {type(self).__name__} gives statistics, "
                "or the mode SAME_STEP"
            )
        simulator = self._simulator
        if self._mode == NEXT_STEP and isinstance(simulator, AsyncVectorEnv) and not simulator.shared_memory:
            raise ValueError(
                f"env={self.env!r} has shared_memory=False and autoreset_mode={NEXT_STEP!r}, in which it resets an "
                "environment a second time; allowed: shared_memory=True, or another autoreset_mode"
            )

    def _reset_all(self) -> tuple[VecEnvObs, Infos]:
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError(f"options={self._options!r}; allowed: the same for all environments of a VectorEnv")
        # SB3's seeds are consecutive, as those that gymnasium makes of the first one.
        seed = None if self._seeds[0] is None else int(self._seeds[0])
        obs, infos = self.env.reset(seed=seed, options=options or None)
        return self._own(obs), separate(infos, self.num_envs)

    def _step_all(self, actions: np.ndarray) -> Step:
        obs, rewards, terminated, truncated, vector_infos = self.env.step(actions)
        obs = self._own(obs)
        rewards, terminated, truncated = (np.asarray(part) for part in (rewards, terminated, truncated))
        if self._mode != SAME_STEP:
            self._last_obs = obs
            return Step(obs, rewards, terminated, truncated, self._separate_later(vector_infos))
        dones = terminated | truncated
        if not dones.any():
            return Step(obs, rewards, terminated, truncated, self._separate_later(vector_infos))
        return self._take_back(obs, rewards, terminated, truncated, dict(vector_infos))

    def _take_back(self, obs: Any, rewards: Any, terminated: Any, truncated: Any, vector_infos: dict[str, Any]) -> Step:
        """What a step has led to, from what is there after the simulator has already reset."""
        if "final_obs" not in vector_infos:
            raise ValueError(
                f"env={self.env!r} has autoreset_mode={SAME_STEP!r}, but no final_obs in its infos; allowed: "
                "simulators that tell the final observation, since truncated episodes have no value without it"
            )
        final_obs, final_infos = vector_infos.pop("final_obs"), vector_infos.pop("final_info", None)
        for key in ("_final_obs", "_final_info"):
            vector_infos.pop(key, None)
        infos = separate(vector_infos, self.num_envs)
        self._reset_by_simulator = obs, list(infos)
        obs = tree_map(np.copy, obs)
        ended = np.flatnonzero(terminated | truncated).tolist()
        separated = separate(final_infos, self.num_envs) if final_infos is not None else None
        for i in ended:
            put(obs, i, final_obs[i] if isinstance(final_obs, np.ndarray) else pick(final_obs, i))
            infos[i] = dict(infos[i]) if separated is None else separated[i]
        return Step(obs, rewards, terminated, truncated, lambda rows: [infos[i] for i in rows])

    def _separate_later(self, vector_infos: dict[str, Any]) -> MakeInfos:
        """Makes infos when it is called, of what they are now."""
        noted = _noted(vector_infos)
        if noted is None or not self.lazy_infos:
            infos = separate(vector_infos, self.num_envs)
            return lambda rows: [infos[i] for i in rows]
        return partial(separate, noted, self.num_envs)

    def _reset_ended(self, ended: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, VecEnvObs, Infos]:
        if self._mode == SAME_STEP:
            assert self._reset_by_simulator is not None
            obs, infos = self._reset_by_simulator
            return ended, pick(obs, ended), [infos[i] for i in ended]
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[ended] = True
        obs, vector_infos = self.env.reset(options={"reset_mask": mask})
        if not self._has_single:
            self._check_others_untouched(mask, obs)
        return ended, pick(obs, ended), separate(vector_infos, self.num_envs, ended)

    def _check_others_untouched(self, ended: np.ndarray, obs: Any) -> None:
        same: list[bool] = []
        _compare(self._last_obs, obs, ~ended, same)
        if not all(same):
            raise ValueError(
                f"env={self.env!r} has reset all environments where only some had to be; allowed with "
                'partial_reset=True: simulators whose reset() respects options["reset_mask"]'
            )

    def _own(self, obs: Any) -> Any:
        return tree_map(np.array, obs) if self._copies else obs

    def close(self) -> None:
        """Close the vector environment."""
        super().close()
        self.env.close()

    def _render(self) -> Sequence[Any]:
        return self.env.render() or (None,) * self.num_envs

    def _common_attributes(self) -> dict[str, Any]:
        return {"render_mode": self.env.render_mode, "spec": self.env.spec}

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attributes of single environments; where the simulator has none, ``render_mode`` and ``spec`` are known.

        :raises AttributeError: if the environments have no such attribute, or the simulator none that could be asked
        """
        match self._simulator:
            case SyncVectorEnv(envs=envs):
                return [envs[i].get_wrapper_attr(attr_name) for i in self._get_indices(indices)]
            case AsyncVectorEnv():
                self._check_there(attr_name)
                # call() would call an attribute that can be called.
                values = self._simulator.call("get_wrapper_attr", attr_name)
                return [values[i] for i in self._get_indices(indices)]
        return super().get_attr(attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set attributes of single environments, each where it is, or on the outermost wrapper where it is new.

        :raises AttributeError: if the simulator has no single environments; or if they are in other processes, only
            some are chosen, and the others have no such attribute yet
        """
        match self._simulator:
            case SyncVectorEnv(envs=envs):
                for i in self._get_indices(indices):
                    envs[i].set_wrapper_attr(attr_name, value)
            case AsyncVectorEnv():
                chosen = set(self._get_indices(indices))
                values = [value] * self.num_envs
                if len(chosen) < self.num_envs:
                    values = [value if i in chosen else old for i, old in enumerate(self.get_attr(attr_name))]
                self._simulator.set_attr(attr_name, values)
            case _:
                super().set_attr(attr_name, value, indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Call a method of single environments.

        :raises AttributeError: if they have no such method, or the simulator none that could be asked
        :raises ValueError: if they are in other processes, and only some are chosen
        """
        match self._simulator:
            case SyncVectorEnv(envs=envs):
                methods = [envs[i].get_wrapper_attr(method_name) for i in self._get_indices(indices)]
                return [method(*method_args, **method_kwargs) for method in methods]
            case AsyncVectorEnv():
                order = list(self._get_indices(indices))
                if set(order) != set(range(self.num_envs)):
                    raise ValueError(f"indices={indices!r}; allowed with AsyncVectorEnv: None, it calls all or none")
                self._check_there(method_name)
                results = self._simulator.call(method_name, *method_args, **method_kwargs)
                return [results[i] for i in order]
        return super().env_method(method_name, *method_args, indices=indices, **method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether single environments are in a wrapper. All count as in a ``Monitor``: its statistics are given."""
        if issubclass(Monitor, wrapper_class):
            return super().env_is_wrapped(wrapper_class, indices)
        match self._simulator:
            case SyncVectorEnv(envs=envs):
                return [is_wrapped(envs[i], wrapper_class) for i in self._get_indices(indices)]
            case AsyncVectorEnv():
                names = self._simulator.call("__str__")  # "<Outer<Inner<Environment>>>"
                return [f"<{wrapper_class.__name__}<" in names[i] for i in self._get_indices(indices)]
        return super().env_is_wrapped(wrapper_class, indices)

    def _check_there(self, name: str) -> None:
        """Ask before: a worker that does not find an attribute ends."""
        assert isinstance(self._simulator, AsyncVectorEnv)
        if not all(self._simulator.call("has_wrapper_attr", name)):
            raise AttributeError(f"The environments of {self.env!r} have no attribute {name!r}")


def _noted(vector_infos: dict[str, Any]) -> dict[str, Any] | None:
    """Copies of infos that are numbers; None if there is anything else among them."""
    noted: dict[str, Any] = {}
    for key, values in vector_infos.items():
        if isinstance(values, dict):
            noted[key] = _noted(values)
        elif isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            noted[key] = values.copy()
        if noted.get(key) is None:
            return None
    return noted


def _wrappers(env: Any) -> Iterator[Any]:
    while isinstance(env, VectorWrapper):
        yield env
        env = env.env


def _compare(before: Any, after: Any, rows: np.ndarray, same: list[bool]) -> None:
    if isinstance(before, dict):
        for key, part in before.items():
            _compare(part, after[key], rows, same)
    elif isinstance(before, tuple):
        for part, other in zip(before, after, strict=True):
            _compare(part, other, rows, same)
    else:
        same.append(np.array_equal(before[rows], after[rows]))
