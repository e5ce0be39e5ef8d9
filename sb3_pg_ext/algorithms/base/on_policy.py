"""What the on-policy algorithms of this package share beyond the rollout: set-up, and updates that are undone."""

from typing import ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_pg_ext.algorithms.base.progress import BoundedProgress
from sb3_pg_ext.algorithms.base.training import OnPolicyTraining
from sb3_pg_ext.arguments import check_range
from sb3_pg_ext.functional.finite import NonFiniteError, check_number
from sb3_pg_ext.guards.rollback import Rollback
from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy

SUPPORTED_ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class OnPolicyBase(BoundedProgress, OnPolicyTraining):
    """The base of this package's on-policy algorithms. Each adds its arguments and its update."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def _check_arguments(self) -> None:
        """Refuse bad arguments; runs at construction, and when a saved model is loaded."""
        check_range("gamma", self.gamma, 0, 1)
        check_range("ent_coef", self.ent_coef)
        check_range("vf_coef", self.vf_coef, 0)
        if self.max_grad_norm not in (None, float("inf")):
            check_range("max_grad_norm", self.max_grad_norm, 0)

    def _setup_model(self) -> None:
        self._check_arguments()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._make_rollout_buffer()
        policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, use_sde=self.use_sde, **self.policy_kwargs
        )
        assert isinstance(policy, ActorCriticPolicy)
        self.policy = policy.to(self.device)
        self._check_engine()
        self._maybe_recommend_cpu()

    def _make_rollout_buffer(self) -> None:
        """Make ``rollout_buffer``, of SB3's class for the observations unless there is another."""
        if self.rollout_buffer_class is None:
            is_dict = isinstance(self.observation_space, spaces.Dict)
            self.rollout_buffer_class = DictRolloutBuffer if is_dict else RolloutBuffer
        self.rollout_buffer = self.rollout_buffer_class(
            self.n_steps or 0,
            self.observation_space,
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )

    def _update(self) -> None:
        self.policy.set_training_mode(True)
        before = Rollback(self.policy, self.policy.optimizer)
        try:
            with np.errstate(all="ignore"):  # non-finite values are looked for
                self._improve()
            self.logger.record("train/step_norm", check_number("norm of the step", before.distance()))
        except NonFiniteError as problem:
            before.restore()
            self._skip_update(problem)
        else:
            self._n_updates += 1
            self._keep_update()

    def _improve(self) -> None:
        """One update of the policy with the rollout: what makes an algorithm.

        :raises NonFiniteError: if a loss, a gradient or KL(old‖new) is not finite; then everything is put back
        """
        raise NotImplementedError
