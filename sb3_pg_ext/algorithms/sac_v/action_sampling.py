"""How SACV chooses actions during training: by NumPy, where the actor is a plain MLP."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.sac.policies import SACPolicy

from sb3_pg_ext.algorithms.sac_v.backends import check_actor
from sb3_pg_ext.algorithms.sac_v.policies import SACVPolicy
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.finite import check_step
from sb3_pg_ext.functional.squashed_gaussian import LOG_STD_MAX, LOG_STD_MIN
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.policies.plain_mlp import Watch, check_methods, layers_of, network_input


class MLPActionSampler:
    """The fast path, in NumPy: a = tanh(μ(s) + σ(s)·ε).

    :param policy: a policy whose actor is a plain MLP
    :raises UnsupportedPolicyError: if it is none
    """

    def __init__(self, policy: SACVPolicy) -> None:
        check_methods(policy, SACPolicy, ("predict", "obs_to_tensor", "forward", "_predict"))
        actor = policy.actor
        check_actor(actor)
        heads: Any = actor.mu, actor.log_std
        to_mean, to_log_std = (layers_of(actor.latent_pi, head) for head in heads)
        self._trunk, self._mean, self._log_std = to_mean[:-1], to_mean[-1:], to_log_std[-1:]
        self._watch = Watch(actor)

    def __call__(self, obs: Observations) -> np.ndarray:
        """Choose an action for every environment."""
        assert isinstance(obs, np.ndarray)
        latent = mlp.forward(self._trunk, network_input(obs))
        mean, log_std = (mlp.forward(head, latent) for head in (self._mean, self._log_std))
        noise = th.randn(mean.shape).numpy()  # from the generator that the policy uses
        std = np.exp(np.minimum(np.maximum(log_std, LOG_STD_MIN), LOG_STD_MAX))
        actions = np.tanh(mean + std * noise)
        check_step("policy output", actions)
        return actions

    def is_current(self) -> bool:
        """Whether the actor consists of what it consisted of."""
        return self._watch.is_unchanged()
