"""Training on collected rollouts: on as many threads as pay, with the backend that suits the policy."""

import time
from typing import Any, TypeVar

from stable_baselines3.common.utils import explained_variance

from sb3_pg_ext.algorithms.base.threads import limited_threads, thread_count
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.gradients.torch_fast_paths import fused_step
from sb3_pg_ext.rollouts.collector import RolloutCollector

SelfTraining = TypeVar("SelfTraining", bound="OnPolicyTraining")


class OnPolicyTraining(RolloutCollector):
    """A collector that also trains: it chooses what differentiates the policy, and runs updates without ballast."""

    engine = "auto"

    def learn(self: SelfTraining, *args: Any, **kwargs: Any) -> SelfTraining:
        """Train, as SB3's ``learn`` and with its arguments, on as many threads as :func:`thread_count` says."""
        with limited_threads(thread_count(self.policy)):
            return super().learn(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_engine()

    def describe_engine(self) -> str:
        """What differentiates the policy as it is now, and why: ``"arrays"``, or ``"autograd, because …"``."""
        return self._choose_backend()[1]

    def _check_engine(self) -> None:
        """Refuse an unknown engine, or one that cannot do what is asked of it."""
        if self.engine != "auto":
            self._choose_backend()

    def train(self) -> None:
        """Update the policy with the rollout; a rollout that was dropped is passed over."""
        if not self._rollout_is_good:
            return
        start = time.perf_counter()
        with unvalidated_distributions(), fused_step(self.policy.optimizer):
            self._update()
        self.logger.record("time/update_seconds", time.perf_counter() - start)

    def _update(self) -> None:
        """What ``train()`` does with a good rollout; here, the ``train()`` of the stock class."""
        super().train()

    def _log_critic(self) -> None:
        """Log how much of the returns the critic explained."""
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)

    def _log_exploration(self) -> None:
        """Log the standard deviation of actions, where a parameter says it."""
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.detach().exp().mean().item())

    def _make_backend(self) -> PolicyBackend:
        """What differentiates the policy in the coming update."""
        engine, path = self._choose_backend()
        self._announce("Differentiating", path)
        return engine

    def _choose_backend(self) -> tuple[PolicyBackend, str]:
        """The engine and, in words, which it is and why.

        :raises ValueError: if it cannot do what is asked of it
        """
        return make_backend(self.policy, self.engine)
