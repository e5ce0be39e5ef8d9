"""sb3-contrib's MaskablePPO, faster."""

from typing import Any, TypeVar

import numpy as np
import sb3_contrib
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_pg_ext.fast.ppo import ClippedUpdate
from sb3_pg_ext.policies.masking import check_masks
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

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act, as sb3-contrib's ``predict`` and with its arguments.

        :param observation: one observation, or several
        :param state: unused: there is no recurrence
        :param episode_start: likewise
        :param deterministic: whether to take the most probable actions
        :param action_masks: which actions are allowed, [k] or [B, k]; ``None`` for all
        :return: actions, and ``state``
        :raises ValueError: if a mask allows no action, or has another shape or other values
        """
        if action_masks is not None:
            obs, _ = self.policy.obs_to_tensor(observation)
            action_masks = check_masks(self.action_space, obs, action_masks)
        return super().predict(observation, state, episode_start, deterministic, action_masks)
