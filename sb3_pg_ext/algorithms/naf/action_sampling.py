"""How NAF chooses actions during training: by NumPy, where the network is a plain MLP."""

import numpy as np
import torch as th

from sb3_pg_ext.algorithms.naf.policies import NAFPolicy, QuadraticCritic
from sb3_pg_ext.functional import mlp, quadratic
from sb3_pg_ext.functional.finite import check_step
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.policies.plain_mlp import (
    Watch,
    check_input,
    check_methods,
    layers_of,
    network_input,
)
from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead

ACTING_METHODS = ("predict", "obs_to_tensor", "forward", "_predict", "choose_actions")
"""The methods of a policy between an observation and an action: a policy that overrides one is asked itself."""


class MLPActionSampler:
    """The fast path, in NumPy.

    :param policy: a policy whose network is a plain MLP
    :raises UnsupportedPolicyError: if it is none
    """

    def __init__(self, policy: NAFPolicy) -> None:
        self._policy, self._layers = policy, action_layers(policy)
        self._action_dim = policy.critic.action_dim
        self._watch = Watch(policy)

    def __call__(self, obs: Observations) -> np.ndarray:
        """Choose an action for every environment."""
        assert isinstance(obs, np.ndarray)
        of_all_heads = mlp.forward(self._layers, network_input(obs))
        actions = self._choose(of_all_heads[:, : quadratic.n_outputs(self._action_dim)])
        check_step("policy output", actions)
        return actions

    def _choose(self, outputs: np.ndarray) -> np.ndarray:
        """As the policy's ``choose_actions``, from the outputs of the first head, [N, …]."""
        temperature = self._policy.temperature
        if temperature is None:
            return quadratic.best_action(outputs, self._action_dim)
        best_actions, factor = quadratic.best_action_and_factor(outputs, self._action_dim)
        noise = th.randn(best_actions.shape).numpy()  # from the generator that the policy uses
        return quadratic.sample(best_actions, factor, noise, temperature).clip(-1, 1)

    def is_current(self) -> bool:
        """Whether the policy consists of what it consisted of."""
        return self._watch.is_unchanged()


def action_layers(policy: NAFPolicy) -> list[mlp.Layer]:
    """The network from the flat observation to the outputs of the action head, as views of the policy's parameters.

    :raises UnsupportedPolicyError: if it is no plain MLP, or not on the CPU
    """
    critic = policy.critic
    check_methods(policy, NAFPolicy, ACTING_METHODS)
    check_methods(critic, QuadraticCritic, ("split_heads",))
    check_methods(critic.value, TrunkAndHead, ("encode", "extract_features"))
    check_input(critic.value, critic.value.features_extractor)
    return layers_of(critic.value.trunk, critic.action_head)
