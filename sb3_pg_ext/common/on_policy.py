"""What the on-policy algorithms of this package share beyond the rollout: set-up, gradients, what is logged."""

from collections.abc import Iterable
from typing import ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch.distributions import Distribution

from sb3_pg_ext.common.arguments import check_range
from sb3_pg_ext.common.checkpoint import Checkpoint
from sb3_pg_ext.common.engine import RolloutEngine
from sb3_pg_ext.common.lean import clip_gradients
from sb3_pg_ext.common.numerics import NonFiniteError, check_number
from sb3_pg_ext.common.observations import Observations
from sb3_pg_ext.common.policies import chunks
from sb3_pg_ext.common.progress import BoundedProgress
from sb3_pg_ext.common.stochastic_policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.functional.divergences import kl

SUPPORTED_ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

Gradient = list[th.Tensor | None]
"""One tensor for every parameter of the policy, or None where a parameter plays no part."""


class OnPolicyBase(BoundedProgress, RolloutEngine):
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
        policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, use_sde=self.use_sde, **self.policy_kwargs
        )
        assert isinstance(policy, ActorCriticPolicy)
        self.policy = policy.to(self.device)
        self._maybe_recommend_cpu()

    def _update(self) -> None:
        self.policy.set_training_mode(True)
        before = Checkpoint(self.policy, self.policy.optimizer)
        try:
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

    def _gradient(self, losses: Iterable[th.Tensor]) -> tuple[Gradient, th.Tensor]:
        """The gradient of a sum of losses, clipped to ``max_grad_norm``, and its norm before that.

        :param losses: the terms; each is differentiated before the next is asked for, so that memory stays flat
        """
        self.policy.optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            loss.backward()
        norm = clip_gradients(self.policy.parameters(), self.max_grad_norm)
        return [parameter.grad for parameter in self.policy.parameters()], norm

    def _step_along(self, *gradients: Gradient) -> None:
        """Let the optimiser make one step along the sum of the gradients."""
        for parameter, parts in zip(self.policy.parameters(), zip(*gradients, strict=True), strict=True):
            present = [part for part in parts if part is not None]
            parameter.grad = th.stack(present).sum(0) if present else None
        self.policy.optimizer.step()

    def _mean_kl(self, old: list[list[Distribution]], observations: Observations) -> th.Tensor:
        """The mean of KL(old‖π) over a batch of states, a scalar.

        :param old: the old action distributions of the batch, chunk by chunk
        :param observations: the states, [B, …]
        """
        with th.no_grad():
            new = (self.policy.get_distribution(obs).distribution for _, obs in chunks(observations, self.device))
            return th.cat([kl(*pair) for pair in zip(old, new, strict=True)]).mean()
