"""Stock A2C, faster."""

import stable_baselines3

from sb3_pg_ext.fast.mixin import FastUpdate
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.gradients.policy_backend import PolicyBackend


class A2C(FastUpdate, stable_baselines3.A2C):
    """:class:`stable_baselines3.A2C`, faster."""

    compiles = True

    def _improve(self, engine: PolicyBackend) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        objective = Objective(self.ent_coef, self.vf_coef, self.normalize_advantage, with_ratio=False)
        steps = self._steps(engine)
        (steps,) = self._minibatches(steps, len(steps))
        losses = engine.differentiate(objective, steps)
        with self._unless_spoilt():
            self._gradient_norms.append(engine.step_along_gradient(self.max_grad_norm))
        self._n_updates += 1
        self._log(
            entropy_loss=losses["entropy_loss"],
            policy_loss=losses["policy_gradient_loss"],
            value_loss=losses["value_loss"],
        )
