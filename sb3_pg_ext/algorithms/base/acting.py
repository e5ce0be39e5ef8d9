"""How off-policy algorithms choose actions during training."""

from typing import Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pg_ext.functional.finite import check_step
from sb3_pg_ext.policies.observations import Observations


class ActionSampler(Protocol):
    """Chooses actions, as the model's ``predict`` does; those of a Box in [−1, 1]."""

    def __call__(self, obs: Observations) -> np.ndarray:
        """From the observations of all environments, [N, …], to actions, [N, …].

        :raises NonFiniteError: if the policy gives no numbers
        """

    def is_current(self) -> bool:
        """Whether the policy still is what the sampler was made for."""


class ModelActionSampler:
    """The general path: asks the model.

    :param model: the model
    """

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self._model = model

    def __call__(self, obs: Observations) -> np.ndarray:
        """Choose an action for every environment."""
        actions, _ = self._model.predict(obs, deterministic=False)
        if isinstance(self._model.action_space, spaces.Box):
            actions = self._model.policy.scale_action(actions)
        check_step("policy output", actions)
        return actions

    def is_current(self) -> bool:
        """It is: nothing is kept."""
        return True
