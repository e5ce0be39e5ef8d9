"""Saving all of a training."""

import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_pg_ext.checkpoints import callback_states, environments, logs, random_states, state_dependent_noise
from sb3_pg_ext.checkpoints.folder import new_checkpoint
from sb3_pg_ext.checkpoints.replay_buffers import ReplayBufferWriter
from sb3_pg_ext.version import __version__

MODEL, STATE, ENVIRONMENTS = "model.zip", "state.pkl", "environments.pkl"

COUNTS = ("_num_timesteps_at_start", "_current_progress_remaining")
"""What ``learn()`` begins anew."""


def save_checkpoint(model: BaseAlgorithm, folder: str | Path, callback: BaseCallback | None = None) -> Path:
    """Save all of a training, to go on from there by :func:`~sb3_pg_ext.checkpoints.resume`.

    Call it between an update and the next rollout, at ``on_rollout_start`` of a callback, as
    :class:`~sb3_pg_ext.callbacks.TrainingCheckpointCallback` does: of a rollout that has begun nothing is saved.
    Nothing of the training changes by it.

    :param model: an algorithm that is being trained
    :param folder: where checkpoints are; the latest two are kept
    :param callback: the callback of the training, whose state is saved, with all that it calls
    :return: the checkpoint, a folder
    :raises ValueError: if the model is neither an on-policy nor an off-policy algorithm of SB3's kind
    """
    return CheckpointWriter(folder).save(model, callback)


class CheckpointWriter:
    """Saves checkpoints of one training.

    :param folder: where they are
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._packed: bytes | None = None
        self._is_packed = False
        self._replay_buffer = ReplayBufferWriter()

    def save(
        self,
        model: BaseAlgorithm,
        callback: BaseCallback | None = None,
        settings: callback_states.Settings | None = None,
    ) -> Path:
        """Save a checkpoint, see :func:`save_checkpoint`.

        :param settings: what callbacks were set to when the training began
        """
        check_model(model)
        env = model.get_env()
        assert env is not None
        where_envs_stand = environments.note(env)
        if getattr(model, "steps_in_workers", False):
            where_envs_stand["problem"] = f"the workers of {type(model).__name__} keep their environments to themselves"
        record = {
            "algorithm": f"{type(model).__module__}.{type(model).__qualname__}",
            "total_timesteps": model._total_timesteps,
            "seed": model.seed,
            "goes_on_within_episodes": not where_envs_stand["problem"],
            "problem": where_envs_stand["problem"],
            "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        state = {
            "class": type(model),
            "device": str(model.device),
            "attributes": {name: value for name, value in vars(model).items() if name.startswith("_last_")},
            "counts": {name: getattr(model, name) for name in COUNTS},
            "seconds": (time.time_ns() - model.start_time) / 1e9,
            "envs": where_envs_stand,
            "num_timesteps": model.num_timesteps,
            "n_envs": model.n_envs,
            "shares_spaces": model.action_space is env.action_space,
            "action_noise": getattr(model, "action_noise", None),
            "noise": state_dependent_noise.note(model.policy),
            "random": random_states.note(model.device),
            "callbacks": callback_states.note(callback, settings or {}),
            "log": logs.note(model.logger),
        }
        with new_checkpoint(self.folder, model.num_timesteps, record) as checkpoint:
            path = checkpoint.path
            model.save(path / MODEL)
            (path / STATE).write_bytes(cloudpickle.dumps(state))
            if (packed := self._pack(env)) is not None:
                (path / ENVIRONMENTS).write_bytes(packed)
            if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
                checkpoint.measures.update(self._replay_buffer.write(model.replay_buffer, path))
        self._replay_buffer.written_to(checkpoint.place)
        return checkpoint.place

    def _pack(self, env: Any) -> bytes | None:
        """The environments as they are made; None if they cannot be pickled. They are the same all along."""
        if not self._is_packed:
            self._is_packed = True
            try:
                self._packed = environments.pack(env)
            except Exception:  # whatever a class makes of being pickled
                self._packed = None
        return self._packed


def check_model(model: BaseAlgorithm) -> None:
    """Refuse algorithms that have neither rollouts nor a replay buffer.

    :raises ValueError: if the model is one
    """
    if not isinstance(model, OnPolicyAlgorithm | OffPolicyAlgorithm):
        raise ValueError(
            f"model is a {type(model).__name__}; allowed: subclasses of OnPolicyAlgorithm and OffPolicyAlgorithm"
        )


def versions() -> dict[str, str]:
    """What a training depends on."""
    return {
        "sb3_pg_ext": __version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": th.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "python": platform.python_version(),
    }
