"""Saving all of a training now and then, so that it can be gone on with."""

from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext.arguments import check_count
from sb3_pg_ext.checkpoints.callback_states import Settings, settings_of
from sb3_pg_ext.checkpoints.environments import prepare
from sb3_pg_ext.checkpoints.resuming import complete_resumption
from sb3_pg_ext.checkpoints.saving import CheckpointWriter, check_model


class TrainingCheckpointCallback(BaseCallback):
    """Saves all of a training every ``save_freq`` steps, for :func:`sb3_pg_ext.checkpoints.resume`.

    That is done after the first update that is complete then, where the next rollout begins: the rollouts of on-policy
    algorithms begin anew there. Training is not disturbed by it: it ends with the same parameters, bit by bit.

    Give it to ``learn()`` itself, alone or in a list; callbacks that are called by others do not see rollouts begin.

    :param save_freq: number of steps, of all environments together, after which a checkpoint is due
    :param save_path: a folder of this training's own; the latest two checkpoints are kept in it
    :param verbose: 1 to tell of every checkpoint
    :raises ValueError: if ``save_freq`` is not an integer ≥ 1; when training begins, if the model is neither an
        on-policy nor an off-policy algorithm of SB3's kind, or if another callback calls this one
    """

    def __init__(self, save_freq: int, save_path: str | Path, verbose: int = 0) -> None:
        super().__init__(verbose)
        check_count("save_freq", save_freq)
        self.save_freq = save_freq
        self.save_path = save_path
        self.saved_at = 0
        self._writer: CheckpointWriter | None = None
        self._settings: Settings = {}

    def _init_callback(self) -> None:
        check_model(self.model)
        if self.parent is not None:
            raise ValueError(
                f"{type(self).__name__} is called by {type(self.parent).__name__}; allowed: to give it to learn()"
            )

    def _on_training_start(self) -> None:
        self.saved_at = self.model.num_timesteps
        prepare(self.training_env, None if self.model.num_timesteps else self.model.seed)
        self._writer, self._settings = CheckpointWriter(self.save_path), settings_of(self._root)

    @property
    def _root(self) -> BaseCallback:
        """The callback of the training, which calls all others."""
        return self.locals.get("callback", self)

    def _on_rollout_start(self) -> None:
        complete_resumption(self.model)
        if self.model.num_timesteps // self.save_freq > self.saved_at // self.save_freq:
            self.saved_at = self.model.num_timesteps
            assert self._writer is not None
            path = self._writer.save(self.model, self._root, self._settings)
            if self.verbose >= 1:
                print(f"Saved {path}")

    def _on_step(self) -> bool:
        return True

    def state_dict(self) -> dict[str, int]:
        """What it remembers."""
        return {name: getattr(self, name) for name in ("n_calls", "num_timesteps", "saved_at")}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Remember what another did.

        :param state: its :meth:`state_dict`
        """
        vars(self).update(state)
