"""Where a single environment stands in its episode: copied or, where that cannot be, reached again.

An environment is its wrappers and itself. Where all their attributes can be pickled, these are copied. Otherwise, as
with the simulators of Box2D, the episode is recorded: what can be pickled just before its ``reset``, random generators
included, and the actions since. It is played again in an environment that was made in the same way, and has to come to
the very observation where it stood. So any environment that is deterministic can be gone on with.
"""

import copy as copying
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor

from sb3_pg_ext.checkpoints.layers import Place, copy, find_uncopyable, layers_of, names_of, paste

LONGEST = 100_000
"""Of longer episodes no actions are kept."""
HISTORIES = frozenset({"episode_returns", "episode_lengths", "episode_times"})
"""What ``Monitor`` keeps of earlier episodes: it grows, and an episode that is played again does not change it."""


@dataclass
class Episode:
    """What leads to where an environment stands.

    :param before: what could be copied of its layers, before it was reset
    :param arguments: of ``reset``
    :param actions: since then
    :param observation: the latest
    """

    before: bytes
    arguments: dict[str, Any]
    actions: list[Any] = field(default_factory=list)
    observation: Any = None


@dataclass
class Recording:
    """What is recorded of an environment.

    :param left_out: attributes of its layers that cannot be pickled
    :param episode: the running one; None if it is not known from its beginning
    """

    left_out: set[Place]
    episode: Episode | None = None


def _recorded(cls: type[gym.Env]) -> type[gym.Env]:
    """A subclass of an environment's class, which notes where episodes begin, and the actions.

    It has nothing else, so that an environment that is there can become one.
    """

    def reset(self: Any, **arguments: Any) -> Any:
        recording: Recording = self.recording
        recording.episode = None
        episode = _begin(self, recording, arguments)
        result = cls.reset(self, **arguments)
        recording.episode, episode.observation = episode, result[0]
        return result

    def step(self: Any, action: Any) -> Any:
        episode = self.recording.episode
        if episode is None:
            return cls.step(self, action)
        episode.actions.append(copying.copy(action))
        result = cls.step(self, action)
        episode.observation = result[0]
        if len(episode.actions) > LONGEST:
            self.recording.episode = None
        return result

    body = {
        "reset": reset,
        "step": step,
        "stands_for": getattr(cls, "stands_for", cls.__name__),
        "__module__": cls.__module__,
    }
    return type(cls.__name__, (cls,), body)


def prepare(env: gym.Env, seed: int | None) -> None:
    """Before a training: record an environment whose state cannot be copied.

    :param env: the environment, which has just been reset
    :param seed: with what; ``None`` if that is not known
    """
    if "recording" in vars(env):
        return
    try:
        copy(layers_of(env))
    except Exception:  # whatever a class makes of being pickled
        recording = _record(env)
        if seed is not None:
            # What stands there now is overwritten when it is reset in the same way.
            recording.episode = _begin(env, recording, {"seed": seed})


def note(env: gym.Env) -> dict[str, Any]:
    """Note where an environment stands.

    :return: for :func:`put_back`; ``problem`` says, if it is not empty, why its episode cannot be gone on with
    """
    layers = layers_of(env)
    noted: dict[str, Any] = {"layers": names_of(layers), "problem": "", "state": None, "episode": None, "rest": None}
    recording: Recording | None = vars(env).get("recording")
    if recording is None:
        try:
            noted["state"] = copy(layers)
            return noted
        except Exception:  # whatever a class makes of being pickled
            recording = _record(env)
    noted["rest"] = _copy_rest(env, recording)
    if recording.episode is None:
        what = ", ".join(name for _, name in sorted(recording.left_out))
        noted["problem"] = f"{env}: {what} cannot be copied, and its episode is not known from its beginning"
    else:
        noted["episode"] = recording.episode
    return noted


def put_back(env: gym.Env, noted: dict[str, Any]) -> str:
    """Let an environment stand where another stood.

    :param env: one that was made in the same way
    :param noted: what :func:`note` gave
    :return: why its episode cannot be gone on with; empty if it can
    """
    layers = layers_of(env)
    if names_of(layers) != noted["layers"]:
        return f"env consists of {' of '.join(names_of(layers))}, and {' of '.join(noted['layers'])} was saved"
    if noted["state"] is not None:
        paste(layers, noted["state"], complete=True)
        return ""
    paste(layers, noted["rest"], complete=False)
    episode: Episode | None = noted["episode"]
    if episode is None:
        return noted["problem"]
    paste(layers, episode.before, complete=False)
    observation, _ = env.reset(**episode.arguments)
    for action in episode.actions:
        observation = env.step(action)[0]
    if not _are_equal(observation, episode.observation):
        paste(layers, noted["rest"], complete=False)
        return f"{env}: its episode, played again, took another course"
    _record(env).episode = episode
    return ""


def _record(env: gym.Env) -> Recording:
    """Let an environment be recorded from its next reset on."""
    if "recording" not in vars(env):
        vars(env)["recording"] = Recording(set(find_uncopyable(layers_of(env))))
        env.__class__ = _recorded(type(env))
    return vars(env)["recording"]


def _begin(env: gym.Env, recording: Recording, arguments: dict[str, Any]) -> Episode:
    layers = layers_of(env)
    histories = {(index, name) for index, layer in enumerate(layers) for name in HISTORIES & vars(layer).keys()}
    return Episode(_copy_rest(env, recording, histories), arguments)


def _copy_rest(env: gym.Env, recording: Recording, but: Set[Place] = frozenset()) -> bytes:
    """What can be copied of an environment; that more cannot may turn out at any time."""
    layers = layers_of(env)
    try:
        return copy(layers, recording.left_out | but)
    except Exception:  # whatever a class makes of being pickled
        recording.left_out |= find_uncopyable(layers).keys()
        return copy(layers, recording.left_out | but)


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_are_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return bool(np.array_equal(one, other, equal_nan=np.issubdtype(np.asarray(one).dtype, np.floating)))


class MonitorInWorker(Monitor):
    """What a ``Monitor`` becomes in a process of a ``SubprocVecEnv``, so that it can be asked where it stands."""

    stands_for = Monitor.__name__

    def prepare_for_checkpoints(self, seed: int | None) -> None:
        """See :func:`prepare`."""
        prepare(self, seed)

    def note_for_checkpoint(self) -> dict[str, Any]:
        """See :func:`note`."""
        return note(self)

    def put_back_from_checkpoint(self, noted: dict[str, Any]) -> str:
        """See :func:`put_back`."""
        return put_back(self, noted)
