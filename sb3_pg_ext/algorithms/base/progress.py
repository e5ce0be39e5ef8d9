"""The remaining progress of a training, which schedules are functions of."""

from stable_baselines3.common.base_class import BaseAlgorithm


class BoundedProgress(BaseAlgorithm):
    """A mix-in for algorithms whose last rollout may end after ``total_timesteps``: the remaining progress stops at 0.

    SB3's goes on below 0, and a learning rate that falls linearly to 0 with it: the last update would climb.
    """

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)
