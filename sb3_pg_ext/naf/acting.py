"""How NAF chooses actions during training: by NumPy, where the network is a plain perceptron."""

from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from sb3_pg_ext.common.numerics import check_step
from sb3_pg_ext.common.observations import Observations
from sb3_pg_ext.common.perceptrons import UnfitPolicy, check_input, check_methods, layers_of, network_input
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.naf.policies import NAFPolicy, QuadraticCritic, ValueNetwork

ACTING_METHODS = ("forward", "_predict", "choose_actions")
"""The methods of a policy between an observation and an action: a policy that overrides one is its own master."""

Actor = Callable[[Observations], np.ndarray]
"""From the observations of all environments, [N, …], to actions in [−1, 1], [N, d]."""


def make_actor(policy: NAFPolicy) -> Actor:
    """Choose actions as the policy's own ``forward`` does, faster where that is possible.

    :param policy: the policy; the actor follows every in-place change of its parameters
    :return: the actor, which raises ``NonFiniteError`` where the policy gives no numbers
    """
    try:
        layers = action_layers(policy)
    except UnfitPolicy:
        return lambda obs: _checked(policy(obs_as_tensor(obs, policy.device)).cpu())

    def act(obs: Observations) -> np.ndarray:
        assert isinstance(obs, np.ndarray)
        return _checked(policy.choose_actions(th.from_numpy(mlp.forward(layers, network_input(obs)))))

    return act


def action_layers(policy: NAFPolicy) -> list[mlp.Layer]:
    """The network from the flat observation to the outputs of the action head, as views of the policy's parameters.

    :raises UnfitPolicy: if it is no plain perceptron, or not on the CPU
    """
    critic = policy.critic
    check_methods(policy, NAFPolicy, ACTING_METHODS)
    check_methods(critic, QuadraticCritic, ("split_heads",))
    check_methods(critic.value, ValueNetwork, ("encode", "extract_features"))
    check_input(critic.value, critic.value.features_extractor)
    return layers_of(critic.value.trunk, critic.action_head)


def _checked(actions: th.Tensor) -> np.ndarray:
    chosen = actions.numpy()
    check_step("policy output", chosen)
    return chosen
