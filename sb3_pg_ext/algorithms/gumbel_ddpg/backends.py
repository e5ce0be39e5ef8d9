"""How GumbelDDPG differentiates actor and critic: in NumPy, for plain MLPs on the CPU, or by autograd."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ContinuousCritic

from sb3_pg_ext.algorithms.gumbel_ddpg.policies import GumbelPolicy, LinearCritic
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.gradients.choice import choose
from sb3_pg_ext.gradients.networks import (
    ArrayNetwork,
    ArrayNetworkBackend,
    AutogradNetworkBackend,
    NetworkBackend,
    Numbers,
    array_of,
    optimizer_of,
)
from sb3_pg_ext.gradients.protocol import Derivatives
from sb3_pg_ext.policies.plain_mlp import Watch, check_hooks, check_input, check_methods, layers_of
from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead


class GumbelBackend(NamedTuple):
    """Actor and critic, and their targets.

    :param actor: gives ``"logits"`` of observations, [B, Σ k]
    :param critic: gives ``"q_values"`` of observations and one-hot actions, [B, critics]
    :param target_logits: those of the target actor, of observations
    :param target_q: of the target critic, of observations and one-hot actions
    :param is_current: whether the policy still is what the backend was made for
    """

    actor: NetworkBackend
    critic: NetworkBackend
    target_logits: Callable[[Any], np.ndarray]
    target_q: Callable[[Any, np.ndarray], np.ndarray]
    is_current: Callable[[], bool] = lambda: True


def autograd_backend(policy: GumbelPolicy) -> GumbelBackend:
    """The general way: PyTorch, for any policy on any device."""
    actor, critic = policy.actor, policy.critic

    @th.no_grad()
    def target_logits(observations: Any) -> np.ndarray:
        return policy.actor_target(observations).cpu().numpy()

    @th.no_grad()
    def target_q(observations: Any, actions: np.ndarray) -> np.ndarray:
        taken = th.from_numpy(actions).to(policy.device)
        return th.cat(policy.critic_target(observations, taken), 1).cpu().numpy()

    return GumbelBackend(
        AutogradNetworkBackend(actor, lambda obs: {"logits": actor(obs)}, optimizer_of(actor)),
        AutogradNetworkBackend(
            critic, lambda obs, actions: {"q_values": th.cat(critic(obs, actions), 1)}, optimizer_of(critic)
        ),
        target_logits,
        target_q,
    )


def array_backend(policy: GumbelPolicy) -> GumbelBackend:
    """The fast way: NumPy.

    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """
    for network in (policy.actor, policy.actor_target):
        check_actor(network)
    for critic in (policy.critic, policy.critic_target):
        its_class = LinearCritic if policy.linear_critic else ContinuousCritic
        check_methods(critic, its_class, ("forward", "extract_features"))
        check_input(critic, critic.features_extractor)
        check_hooks(critic)
    q_networks: Any = policy.critic.q_networks
    q_targets: Any = policy.critic_target.q_networks
    actor = ArrayNetworkBackend(
        [ArrayNetwork(policy.actor.trunk, {"logits": policy.actor.head})], optimizer_of(policy.actor)
    )
    of_critic = [ArrayNetwork(net[:-1], {"q_values": net[-1]}) for net in q_networks]
    backend_of_critic = LinearCriticBackend if policy.linear_critic else ArrayNetworkBackend
    networks = actor, backend_of_critic(of_critic, optimizer_of(policy.critic))
    of_target_actor = layers_of(policy.actor_target.trunk, policy.actor_target.head)
    of_target_critics = [layers_of(net[:-1], net[-1]) for net in q_targets]

    def target_q(observations: Any, actions: np.ndarray) -> np.ndarray:
        x = array_of(observations)
        if policy.linear_critic:
            return np.stack([(mlp.forward(layers, x) * actions).sum(1) for layers in of_target_critics], 1)
        x = np.concatenate([x, actions], 1)
        return np.concatenate([mlp.forward(layers, x) for layers in of_target_critics], 1)

    watch = Watch(policy)
    return GumbelBackend(
        *networks,
        lambda observations: mlp.forward(of_target_actor, array_of(observations)),
        target_q,
        lambda: all(network.is_current() for network in networks) and watch.is_unchanged(),
    )


class LinearCriticBackend(ArrayNetworkBackend):
    """That of a :class:`LinearCritic`, whose networks take observations alone and give q of every choice."""

    def predict(self, observations: Any, actions: np.ndarray | None = None) -> Numbers:
        """Ask the networks."""
        assert actions is not None
        self._actions = actions
        self._of_choices = super().predict(observations)["q_values"].reshape(len(actions), -1, actions.shape[1])
        return {"q_values": np.einsum("bij,bj->bi", self._of_choices, actions)}

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        of_choices = np.einsum("bi,bj->bij", derivatives["q_values"], self._actions)
        super().backward({"q_values": of_choices.reshape(len(of_choices), -1)})

    def action_gradient(self, c: np.ndarray) -> np.ndarray:
        """It is c times q of every choice."""
        gradient: np.ndarray = c[:, None] * self._of_choices[:, 0]
        return gradient


def check_actor(actor: TrunkAndHead) -> None:
    """Refuse an actor that is no plain MLP, or not on the CPU.

    :raises UnsupportedPolicyError: if it is none
    """
    check_methods(actor, TrunkAndHead, ("forward", "encode", "extract_features"))
    check_input(actor, actor.features_extractor)
    check_hooks(actor)


def make_backend(policy: GumbelPolicy, choice: str) -> tuple[GumbelBackend, str]:
    """The backend of a policy, chosen as by :func:`~sb3_pg_ext.gradients.choice.choose`."""
    return choose(choice, lambda: array_backend(policy), lambda: autograd_backend(policy))
