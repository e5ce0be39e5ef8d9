"""Stock PPO, faster, and what its update shares with that of MaskablePPO."""

from typing import Any

import numpy as np
import stable_baselines3

from sb3_pg_ext.fast.mixin import FastUpdate
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.gradients.policy_backend import PolicyBackend


class ClippedUpdate(FastUpdate):
    """The update of PPO: epochs of minibatches, with the clipped ratio."""

    compiles = True

    clip_range: Any
    clip_range_vf: Any
    batch_size: Any
    n_epochs: int
    normalize_advantage: bool
    target_kl: float | None

    def _improve(self, engine: PolicyBackend) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        schedules = self.clip_range, self.clip_range_vf
        clip_range, clip_range_vf = (s and s(self._current_progress_remaining) for s in schedules)
        objective = Objective(
            self.ent_coef, self.vf_coef, self.normalize_advantage, clip_range=clip_range, clip_range_vf=clip_range_vf
        )
        steps, history = self._steps(engine), []
        for epoch in range(self.n_epochs):
            approximate_kls: list[float] = []
            for batch in self._minibatches(steps, self.batch_size or len(steps)):
                losses = engine.differentiate(objective, batch)
                approximate_kls.append(losses["approx_kl"])
                history.append(losses)
                if self._is_too_far(approximate_kls[-1]):
                    break
                with self._unless_spoilt():
                    self._gradient_norms.append(engine.step_along_gradient(self.max_grad_norm))
            self._n_updates += 1
            if self._is_too_far(approximate_kls[-1]):
                if self.verbose >= 1:
                    print(f"Early stopping at step {epoch} due to reaching max kl: {approximate_kls[-1]:.2f}")
                break
        names = ("entropy_loss", "policy_gradient_loss", "value_loss", "clip_fraction")
        means = {name: float(np.mean([numbers[name] for numbers in history])) for name in names}
        self._log(**means, approx_kl=float(np.mean(approximate_kls)), loss=history[-1]["loss"], clip_range=clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def _is_too_far(self, approximate_kl: float) -> bool:
        return self.target_kl is not None and approximate_kl > 1.5 * self.target_kl


class PPO(ClippedUpdate, stable_baselines3.PPO):
    """:class:`stable_baselines3.PPO`, faster."""
