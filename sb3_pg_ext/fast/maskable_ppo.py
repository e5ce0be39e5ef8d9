"""sb3-contrib's MaskablePPO, faster."""

from typing import TypeVar

import sb3_contrib
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_pg_ext.fast.ppo import ClippedUpdate
from sb3_pg_ext.rollouts.filling import MASKABLE_BUFFERS

SelfMaskablePPO = TypeVar("SelfMaskablePPO", bound="MaskablePPO")


class MaskablePPO(ClippedUpdate, sb3_contrib.MaskablePPO):
    """:class:`sb3_contrib.MaskablePPO`, faster; here a mask that allows no action is an error."""

    def _setup_model(self) -> None:
        given = self.rollout_buffer_class
        if given is not None and not issubclass(given, MASKABLE_BUFFERS):
            raise ValueError(
                f"rollout_buffer_class={given.__name__} does not store action masks; allowed: None, or a subclass of "
                f"{' or '.join(buffer.__name__ for buffer in MASKABLE_BUFFERS)}"
            )
        super()._setup_model()

    def learn(  # type: ignore[override]  # sb3-contrib's
        self: SelfMaskablePPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MaskablePPO",
        reset_num_timesteps: bool = True,
        use_masking: bool | None = None,
        progress_bar: bool = False,
    ) -> SelfMaskablePPO:
        """Train, as sb3-contrib's ``learn`` and with its arguments.

        :param total_timesteps: number of environment steps; the last rollout is finished
        :param callback: called at every step
        :param log_interval: log every so many updates
        :param tb_log_name: name of the run for TensorBoard
        :param reset_num_timesteps: whether to count steps from 0 again
        :param use_masking: whether to ask the environments which actions are allowed; ``None``: where they have
            ``action_masks()``
        :param progress_bar: whether to show one (needs tqdm and rich)
        :return: the model itself
        :raises ValueError: with ``use_masking=True``, if they have no masks; if a mask allows no action
        """
        return super().learn(
            total_timesteps,
            callback,
            log_interval,
            tb_log_name,
            reset_num_timesteps,
            use_masking,
            progress_bar,
        )
