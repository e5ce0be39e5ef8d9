"""``learn()``, with one signature for all algorithms of this package."""

from typing import Any, TypeVar

from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule

from sb3_pg_ext.algorithms.base.action_spaces import check_action_space
from sb3_pg_ext.algorithms.base.constructor import complete_docstring
from sb3_pg_ext.algorithms.base.saving import SavesItsName
from sb3_pg_ext.arguments import check_count, check_flag, check_learning_rate, check_range, read_schedule

SelfLearning = TypeVar("SelfLearning", bound="Learning")


class Learning(SavesItsName):
    """What the bases of all algorithms share: ``learn()``, shared arguments, and docstrings that tell of them.

    The remaining progress stops at 0, where a last rollout ends after ``total_timesteps``. SB3's goes on below 0, and a
    learning rate that falls linearly to 0 with it: the last update would climb.
    """

    gamma: float

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        complete_docstring(cls)

    def _check_arguments(self) -> None:
        """Refuse bad arguments; runs at construction, and when a saved model is loaded."""
        check_learning_rate(self.learning_rate)
        check_range("gamma", self.gamma, 0, 1)
        check_flag("use_sde", self.use_sde)
        check_count("sde_sample_freq", self.sde_sample_freq, -1)
        check_action_space(self.action_space)

    def learn(
        self: SelfLearning,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfLearning:
        """Train, as every SB3 algorithm does.

        :param total_timesteps: number of environment steps; the last rollout is finished
        :param callback: called at every step
        :param log_interval: log every so many updates; ``None`` for never
        :param tb_log_name: name of the run for TensorBoard; ``None`` for that of the algorithm
        :param reset_num_timesteps: whether to count steps from 0 again
        :param progress_bar: whether to show one (needs tqdm and rich)
        :return: the model itself
        """
        name = tb_log_name or type(self).__name__
        try:
            return super().learn(  # type: ignore[safe-super]
                total_timesteps,
                callback,
                log_interval,  # type: ignore[arg-type]  # SB3 takes None, too
                name,
                reset_num_timesteps,
                progress_bar,
            )
        finally:
            self._end_training()

    def _end_training(self) -> None:
        """Whatever has to end with a training, however it ends."""

    def _now(self, name: str, value: float | Schedule) -> float:
        """What an argument that may be a schedule is at this point of the training.

        :raises ValueError: if it has fallen below 0
        """
        return read_schedule(name, FloatSchedule(value), self._current_progress_remaining)

    def _update_learning_rate(self, optimizers: Any) -> None:
        self._now("learning_rate", self.lr_schedule)
        super()._update_learning_rate(optimizers)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)
