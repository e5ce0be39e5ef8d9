"""How SACV differentiates its three networks: in NumPy, for plain MLPs on the CPU, or by autograd.

But for gSDE, networks give μ(s) and log σ(s); the squashed Gaussian and its derivatives are the same for both.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.sac.policies import Actor

from sb3_pg_ext.algorithms.sac_v.policies import SACVPolicy
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.squashed_gaussian import SquashedGaussian
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
from sb3_pg_ext.gradients.protocol import Derivatives, GradientBackend
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    Watch,
    check_hooks,
    check_input,
    check_methods,
    layers_of,
)
from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead

ACTOR_METHODS = ("forward", "get_action_dist_params", "action_log_prob", "extract_features")


class GaussianActor(GradientBackend):
    """Samples actions, and takes derivatives by the names ``"actions"`` and ``"log_probs"``, along the path of the
    samples, or by ``"scores"``, of log π(a|s) with the actions as they are.

    :param network: gives ``"mean"`` and ``"log_std"``
    """

    def __init__(self, network: NetworkBackend) -> None:
        self._network = network

    def predict(self, observations: Any) -> Numbers:
        """Sample actions, [B, d]; with their log-probabilities, [B]."""
        said = self._network.predict(observations)
        noise = th.randn(said["mean"].shape).numpy()  # from the generator that the policy uses
        self._samples = SquashedGaussian(said["mean"], said["log_std"], noise)
        return {"actions": self._samples.actions, "log_probs": self._samples.log_probs}

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        if "scores" in derivatives:
            of_mean, of_log_std = self._samples.score(derivatives["scores"])
        else:
            of_mean, of_log_std = self._samples.pathwise(derivatives["actions"], derivatives["log_probs"])
        self._network.backward({"mean": of_mean, "log_std": of_log_std})

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self._network.zero_gradient()

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return self._network.clip_gradient(max_norm)

    def step(self) -> None:
        """Make a step."""
        self._network.step()


class SACVBackend:
    """The three networks.

    :param actor: samples actions, and differentiates them
    :param critic: gives ``"q_values"`` of observations and actions, [B, critics]
    :param value: gives ``"values"`` of observations, [B, 1]
    :param target_values: V' of observations, [B, 1]
    :param is_current: whether the policy still is what the backend was made for
    """

    def __init__(
        self,
        actor: GaussianActor | NetworkBackend,
        critic: NetworkBackend,
        value: NetworkBackend,
        target_values: Callable[[Any], np.ndarray],
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self.actor, self.critic, self.value, self.target_values = actor, critic, value, target_values
        self.is_current = is_current


def autograd_backend(policy: SACVPolicy) -> SACVBackend:
    """The general way: PyTorch, for any policy on any device."""
    actor, critic, value, value_target = policy.actor, policy.critic, policy.value, policy.value_target

    def gaussian(observations: Any) -> dict[str, th.Tensor]:
        mean, log_std, _ = actor.get_action_dist_params(observations)
        return {"mean": mean, "log_std": log_std}

    def state_dependent(observations: Any) -> dict[str, th.Tensor]:
        actions, log_probs = actor.action_log_prob(observations)
        scores = actor.action_dist.log_prob(actions.detach())
        return {"actions": actions, "log_probs": log_probs, "scores": scores}

    @th.no_grad()
    def target_values(observations: Any) -> np.ndarray:
        return value_target(observations).cpu().numpy()

    network = AutogradNetworkBackend(actor, state_dependent if actor.use_sde else gaussian, optimizer_of(actor))
    return SACVBackend(
        network if actor.use_sde else GaussianActor(network),
        AutogradNetworkBackend(
            critic, lambda obs, actions: {"q_values": th.cat(critic(obs, actions), 1)}, optimizer_of(critic)
        ),
        AutogradNetworkBackend(value, lambda obs: {"values": value(obs)}, optimizer_of(value)),
        target_values,
    )


def array_backend(policy: SACVPolicy) -> SACVBackend:
    """The fast way: NumPy.

    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """
    critic = policy.critic
    check_methods(critic, ContinuousCritic, ("forward", "extract_features"))
    check_input(critic, critic.features_extractor)
    check_hooks(critic)
    check_actor(policy.actor)
    for network in (policy.value, policy.value_target):
        check_methods(network, TrunkAndHead, ("forward", "encode", "extract_features"))
        check_input(network, network.features_extractor)
        check_hooks(network)
    heads: Any = {"mean": policy.actor.mu, "log_std": policy.actor.log_std}
    actor = ArrayNetworkBackend([ArrayNetwork(policy.actor.latent_pi, heads)], optimizer_of(policy.actor))
    q_networks: Any = critic.q_networks
    of_critic = [ArrayNetwork(net[:-1], {"q_values": net[-1]}) for net in q_networks]
    of_value = ArrayNetwork(policy.value.trunk, {"values": policy.value.head})
    target = layers_of(policy.value_target.trunk, policy.value_target.head)
    networks = (
        actor,
        ArrayNetworkBackend(of_critic, optimizer_of(critic)),
        ArrayNetworkBackend([of_value], optimizer_of(policy.value)),
    )
    watch = Watch(policy)
    return SACVBackend(
        GaussianActor(actor),
        *networks[1:],
        lambda observations: mlp.forward(target, array_of(observations)),
        lambda: all(network.is_current() for network in networks) and watch.is_unchanged(),
    )


def check_actor(actor: Actor) -> None:
    """Refuse an actor that is no plain MLP, or not on the CPU.

    :raises UnsupportedPolicyError: if it is none
    """
    check_methods(actor, Actor, ACTOR_METHODS)
    check_input(actor, actor.features_extractor)
    check_hooks(actor)
    if actor.use_sde:
        raise UnsupportedPolicyError("it explores with state-dependent noise")


def make_backend(policy: SACVPolicy, choice: str) -> tuple[SACVBackend, str]:
    """The backend of a policy, chosen as by :func:`~sb3_pg_ext.gradients.choice.choose`."""
    return choose(choice, lambda: array_backend(policy), lambda: autograd_backend(policy))
