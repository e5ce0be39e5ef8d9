"""sb3-contrib's TRPO, faster."""

import math

import numpy as np
import sb3_contrib
import torch as th
from sb3_contrib.common.utils import conjugate_gradient_solver
from stable_baselines3.common.distributions import BernoulliDistribution, DiagGaussianDistribution

from sb3_pg_ext.fast.mixin import FastUpdate
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.surrogates import normalize, ratio_loss, value_loss
from sb3_pg_ext.functional.tensors.distributions import validated_distributions
from sb3_pg_ext.functional.tensors.solvers import backtrack
from sb3_pg_ext.functional.tensors.vectors import assign, flatten
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.policies.evaluation import mean_entropy
from sb3_pg_ext.rollouts.filling import rollout_inputs


class TRPO(FastUpdate, sb3_contrib.TRPO):
    """:class:`sb3_contrib.TRPO`, faster."""

    _backends = (ArrayBackend,)
    gradient_norm_key = "train/value_grad_norm"

    def _train_as_stock(self) -> None:
        if (entropy := mean_entropy(self.policy, rollout_inputs(self.rollout_buffer))) is not None:
            self.logger.record("train/entropy_loss", -entropy)
        # Its line search refuses a step that is not finite without a word, and for ever, unless PyTorch complains.
        with validated_distributions():
            try:
                super()._train_as_stock()
            except ValueError as error:
                if "invalid values" not in str(error):
                    raise
                first = str(error).splitlines()[0].rstrip(":")
                raise NonFiniteError(f"policy after a step of the line search: {first}") from error

    def _improve(self, engine: ArrayBackend) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        steps = self._steps(engine)
        self.logger.record("train/entropy_loss", -float(engine.snapshot(steps.inputs).entropy().mean()))
        (shuffled,) = self._minibatches(steps, len(steps))
        engine.freeze(self._improve_policy(engine, shuffled[:: self.sub_sampling_factor]))
        losses = []
        for _ in range(self.n_critic_updates):
            for batch in self._minibatches(steps, self.batch_size):
                loss = value_loss(engine.predict_values(batch.inputs), batch.returns)
                losses.append(loss.value)
                with self._unless_spoilt():
                    self._gradient_norms.append(engine.descend({"values": loss.gradient}, None))
        self._n_updates += 1
        self._log(value_loss=float(np.mean(losses)))

    def _improve_policy(self, engine: ArrayBackend, steps: Steps) -> list[th.Tensor]:
        """A step in the trust region; gives the parameters that the action distribution depends on."""
        advantages = normalize(steps.advantages) if self.normalize_advantage else steps.advantages
        old = engine.snapshot(steps.inputs)
        computed = engine.evaluate_policy(steps.inputs, steps.actions)
        before = ratio_loss(computed.log_probs, steps.log_probs, advantages)
        parameters, gradient = engine.policy_gradient(-before.gradient)
        product, share = engine.fisher_product(), self._share_of_kl()

        def damped(vector: th.Tensor) -> th.Tensor:
            return share * product(vector) + self.cg_damping * vector

        direction = conjugate_gradient_solver(damped, gradient, self.cg_max_steps)
        curvature = float(direction @ damped(direction))
        length = math.sqrt(2 * self.target_kl / curvature) if curvature > 0 else math.nan
        start = flatten(parameters).detach()
        kl, objective = 0.0, -before.value

        def accepts(scale: float) -> bool:
            nonlocal kl, objective
            assign(parameters, start + scale * length * direction)
            computed = engine.evaluate_policy(steps.inputs, steps.actions)
            kl = share * float(old.kl(engine.snapshot(steps.inputs)).mean())
            objective = -ratio_loss(computed.log_probs, steps.log_probs, advantages).value
            return kl < self.target_kl and objective > -before.value

        search = backtrack(accepts, self.line_search_shrinking_factor, self.line_search_max_iter)
        if not search.scale:
            assign(parameters, start)
            kl, objective = 0.0, -before.value
        self.logger.record("train/grad_norm", float(gradient.norm()))
        self.logger.record("train/policy_objective", objective)
        self.logger.record("train/kl_divergence_loss", kl)
        self.logger.record("train/is_line_search_success", float(search.scale > 0))
        return parameters

    def _share_of_kl(self) -> float:
        """By which sb3-contrib's KL differs: it is averaged over action dimensions where these have one each."""
        per_dimension = isinstance(self.policy.action_dist, DiagGaussianDistribution | BernoulliDistribution)
        return 1 / self.rollout_buffer.action_dim if per_dimension else 1.0
