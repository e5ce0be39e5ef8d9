"""Going on from a checkpoint."""

import time
import warnings
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_pg_ext.checkpoints import callback_states, environments, logs, random_states, state_dependent_noise
from sb3_pg_ext.checkpoints.folder import usable_checkpoint
from sb3_pg_ext.checkpoints.replay_buffers import read_replay_buffer
from sb3_pg_ext.checkpoints.saving import ENVIRONMENTS, MODEL, STATE


def resume(folder: str | Path, env: GymEnv | None = None, device: th.device | str | None = None) -> Any:
    """Go on with a training from its latest checkpoint, as if nothing had happened::

        model = resume("runs/1/checkpoint")
        model.learn(100_000 - model.num_timesteps, callback, reset_num_timesteps=False)

    The model, its environments and all random generators are as they were when the checkpoint was saved. Callbacks of
    the same classes, in the same order, remember what those of the interrupted training did, from the beginning of the
    first rollout on. A deterministic training so ends with the very parameters that it would have had. Files of
    ``Monitor`` and of the logger are gone on with.

    Where the state of the environments could not be saved, new episodes begin, and a warning says so. A checkpoint that
    is damaged is passed over for the one before it, with a warning.

    A checkpoint is trusted: it holds pickles, and reading one runs what it says.

    :param folder: the ``save_path`` of a :class:`~sb3_pg_ext.callbacks.TrainingCheckpointCallback`, or one checkpoint
        of it
    :param env: the environments, made and wrapped as those of the training were; ``None`` to make them again from what
        was saved
    :param device: where to compute; ``None`` for where the training did
    :return: the model
    :raises FileNotFoundError: if there is no checkpoint in the folder that is whole
    :raises ValueError: if the environments could not be saved and ``env`` is ``None``; if ``env`` is wrapped in another
        way than the training's, or has another number of environments
    """
    path, _ = usable_checkpoint(Path(folder))
    state = cloudpickle.loads((path / STATE).read_bytes())
    cls: type[BaseAlgorithm] = state["class"]
    if env is None:
        if not (path / ENVIRONMENTS).is_file():
            raise ValueError("env=None; allowed: the environments, made as before, since theirs could not be pickled")
        env = environments.unpack((path / ENVIRONMENTS).read_bytes())
    vec_env = cls._wrap_env(env)
    if vec_env.num_envs != state["n_envs"]:
        raise ValueError(f"env has {vec_env.num_envs} environments; allowed: {state['n_envs']}, as the training had")
    model = cls.load(path / MODEL, env=vec_env, device=device or state["device"], force_reset=False)
    if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
        read_replay_buffer(model.replay_buffer, path)
    vars(model).update(state["attributes"])
    assert model.env is not None
    if state["shares_spaces"]:
        model.action_space, model.observation_space = model.env.action_space, model.env.observation_space
    problem = environments.put_back(model.env, state["envs"])
    if problem:
        warnings.warn(f"New episodes begin, since {problem}", RuntimeWarning, stacklevel=2)
        model._last_obs = None  # then learn() resets the environments
    random_states.put_back(state["random"])
    _await_learn(model, state)
    return model


_awaited: "WeakKeyDictionary[BaseAlgorithm, _Resumption]" = WeakKeyDictionary()
"""Models whose training has not yet come to where it was interrupted."""


def complete_resumption(model: BaseAlgorithm) -> None:
    """At the beginning of a rollout: put back what ``learn()`` has touched, if it is the first one after ``resume``."""
    resumption = _awaited.pop(model, None)
    if resumption is not None:
        resumption.complete(model)


class _Resumption:
    """What is put back at the beginning of the first rollout: until then it changes, or is not known.

    :param state: of the checkpoint
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self.callback: BaseCallback | None = None

    def complete(self, model: BaseAlgorithm) -> None:
        state = self._state
        if model.num_timesteps != state["num_timesteps"]:  # learn() has begun anew
            return
        model.start_time = time.time_ns() - int(state["seconds"] * 1e9)
        vars(model).update(state["counts"])
        if model.action_noise is not None:  # learn() has reset it
            vars(model.action_noise).update(vars(state["action_noise"]))
        callback_states.put_back(self.callback, state["callbacks"])
        logs.put_back(model.logger, state["log"], model.num_timesteps)
        state_dependent_noise.put_back(model.policy, state["noise"])
        random_states.put_back(state["random"])


class _Completing(BaseCallback):
    """Completes the resumption where no other callback has."""

    def _on_rollout_start(self) -> None:
        complete_resumption(self.model)

    def _on_step(self) -> bool:
        return True


def _await_learn(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    """See to it that the resumption is completed when ``learn()`` has begun.

    Until then the model is of a subclass of its class, which notices that ``learn()`` is called.
    """
    cls, resumption = type(model), _Resumption(state)

    def init_callback(self: BaseAlgorithm, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        self.__class__ = cls
        resumption.callback = self._init_callback(callback, progress_bar)
        completing = _Completing()
        both = CallbackList([resumption.callback, completing])
        completing.model = both.model = self
        return both

    model.__class__ = type(cls.__name__, (cls,), {"_init_callback": init_callback, "__module__": cls.__module__})
    _awaited[model] = resumption
