"""How GumbelDDPG chooses actions during training: by NumPy, where the actor is a plain MLP."""

import numpy as np
import torch as th

from sb3_pg_ext.algorithms.gumbel_ddpg.backends import check_actor
from sb3_pg_ext.algorithms.gumbel_ddpg.policies import GumbelPolicy
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.finite import check_step
from sb3_pg_ext.functional.gumbel_softmax import largest
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.policies.plain_mlp import Watch, check_methods, layers_of, network_input


class MLPActionSampler:
    """The fast path, in NumPy: the largest of l(s) + g.

    :param policy: a policy whose actor is a plain MLP
    :raises UnsupportedPolicyError: if it is none
    """

    def __init__(self, policy: GumbelPolicy) -> None:
        check_methods(policy, GumbelPolicy, ("predict", "obs_to_tensor", "forward", "_predict"))
        check_actor(policy.actor)
        self._layers = layers_of(policy.actor.trunk, policy.actor.head)
        self._sizes = policy.sizes
        self._watch = Watch(policy.actor)

    def __call__(self, obs: Observations) -> np.ndarray:
        """Choose an action for every environment."""
        assert isinstance(obs, np.ndarray)
        logits = mlp.forward(self._layers, network_input(obs))
        check_step("policy output", logits)
        noise = th.empty(logits.shape).exponential_().numpy()  # from the generator that the policy uses
        return largest(logits - np.log(noise), self._sizes)

    def is_current(self) -> bool:
        """Whether the actor consists of what it consisted of."""
        return self._watch.is_unchanged()
