"""Rollout buffers that bring advantage estimators into stock SB3 and sb3-contrib algorithms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_pg_ext.estimators import resolve_estimator
from sb3_pg_ext.estimators.contract import check_unit_interval
from sb3_pg_ext.rollouts.assessment import StepOutcomes, estimate


class EstimatorRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer with any registered advantage estimator, for PPO, A2C and TRPO::

        PPO("MlpPolicy", env, rollout_buffer_class=EstimatorRolloutBuffer,
            rollout_buffer_kwargs=dict(advantage_estimator="n_step", advantage_estimator_kwargs=dict(n=5)))

    With ``"gae"`` training is identical, bit by bit, to training without it. For Dict observations the same class gives
    a ``DictRolloutBuffer``. λ and γ are those of the algorithm.

    SB3 folds γV(terminal observation) into the reward at a time limit before a buffer sees it. So every end is
    presented to the estimator as a termination with the folded reward, which gives the same temporal difference. An
    estimator that ``requires`` more than that is refused.

    :param buffer_size: number of steps T in each environment
    :param observation_space: observation space
    :param action_space: action space
    :param device: PyTorch device
    :param gae_lambda: λ, for the estimators that have one
    :param gamma: discount factor γ
    :param n_envs: number of parallel environments N
    :param advantage_estimator: a registered name. An instance is no choice: a saved model holds names and numbers only
    :param advantage_estimator_kwargs: parameters of the estimator
    :raises ValueError: if there is no such estimator, or it requires what SB3 does not give, or γ is outside [0, 1]
    """

    def __new__(
        cls, buffer_size: int = 0, observation_space: spaces.Space | None = None, *args: Any, **kwargs: Any
    ) -> "EstimatorRolloutBuffer":
        """Choose the variant that stores this kind of observation; the defaults are for pickle."""
        dict_variants: dict[type, type[EstimatorRolloutBuffer]] = {
            EstimatorRolloutBuffer: EstimatorDictRolloutBuffer,
            MaskableEstimatorRolloutBuffer: MaskableEstimatorDictRolloutBuffer,
        }
        if not isinstance(observation_space, spaces.Dict) or issubclass(cls, DictRolloutBuffer):
            return super().__new__(cls)
        if cls not in dict_variants:
            raise ValueError(
                f"rollout_buffer_class={cls.__name__} with Dict observations; allowed: a subclass of "
                "EstimatorDictRolloutBuffer or MaskableEstimatorDictRolloutBuffer, which store them"
            )
        return super().__new__(dict_variants[cls])

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
        advantage_estimator: str = "gae",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
    ):
        if not isinstance(advantage_estimator, str):
            raise ValueError(
                f"advantage_estimator={advantage_estimator!r}; allowed in rollout_buffer_kwargs: the name of a "
                "registered estimator, so that a saved model holds names and numbers only"
            )
        check_unit_interval("gamma", gamma)
        self.estimator = resolve_estimator(
            advantage_estimator, advantage_estimator_kwargs, gae_lambda=gae_lambda, provides=frozenset()
        )
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)

    def compute_returns_and_advantage(self, last_values: th.Tensor, dones: np.ndarray) -> None:
        """Let the estimator fill ``advantages`` and ``returns``.

        :param last_values: V of the observations after the last step, N numbers
        :param dones: whether the last step was the last of its episode, [N]
        :raises ValueError: if a reward, a value or the estimate is not finite
        """
        ends = np.vstack([self.episode_starts[1:], dones]).astype(bool)
        outcomes = StepOutcomes(self.rewards, terminated=ends, truncated=np.zeros_like(ends))
        next_values = np.vstack([self.values[1:], last_values.cpu().numpy().reshape(1, -1)])
        estimated = estimate(self.estimator, outcomes, self.values, next_values, self.gamma)
        self.advantages, self.returns = estimated.advantages, estimated.returns


class EstimatorDictRolloutBuffer(EstimatorRolloutBuffer, DictRolloutBuffer):
    """What :class:`EstimatorRolloutBuffer` gives for Dict observations."""


class MaskableEstimatorRolloutBuffer(EstimatorRolloutBuffer, MaskableRolloutBuffer):
    """:class:`EstimatorRolloutBuffer` for sb3-contrib's MaskablePPO: it also stores action masks."""


class MaskableEstimatorDictRolloutBuffer(MaskableEstimatorRolloutBuffer, MaskableDictRolloutBuffer):
    """What :class:`MaskableEstimatorRolloutBuffer` gives for Dict observations."""

    get = MaskableDictRolloutBuffer.get  # type: ignore[assignment]
    _get_samples = MaskableDictRolloutBuffer._get_samples  # type: ignore[assignment]
