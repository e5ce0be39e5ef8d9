"""SACV's networks: SB3's actor and critics, and V with a target network."""

from typing import Any

from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy

from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead

PUBLIC_MODULE = "sb3_pg_ext.algorithms.sac_v"
"""Where saved files look for the policies, wherever they are defined."""


class SACVPolicy(SACPolicy):
    """SB3's policy of SAC, with its arguments, and with V(s) in place of a target network for Q.

    V has as many layers as Q, the same widths, a features extractor of its own, an optimiser of its own, and a target
    network, which begins as a copy.
    """

    __module__ = PUBLIC_MODULE

    value: TrunkAndHead
    value_target: TrunkAndHead

    def _build(self, lr_schedule: Schedule) -> None:
        rate = lr_schedule(1)
        self.actor = self.make_actor()
        shared = self.actor.features_extractor if self.share_features_extractor else None
        self.critic = self.make_critic(features_extractor=shared)
        self.value, self.value_target = self.make_value(), self.make_value()
        self.value_target.load_state_dict(self.value.state_dict())
        self.value_target.set_training_mode(False)
        # What actor and critic share is learned with the actor, as in SB3.
        of_critic = [p for name, p in self.critic.named_parameters() if shared is None or "features_ex" not in name]
        networks = {self.actor: self.actor.parameters(), self.critic: of_critic, self.value: self.value.parameters()}
        make_optimizer: Any = self.optimizer_class
        for network, parameters in networks.items():
            network.optimizer = make_optimizer(parameters, lr=rate, **self.optimizer_kwargs)

    def make_value(self) -> TrunkAndHead:
        """A network for V."""
        net_arch: Any = self.critic_kwargs["net_arch"]
        return TrunkAndHead(
            self.observation_space,
            self.action_space,
            self.make_features_extractor(),
            net_arch,
            self.activation_fn,
            normalize_images=self.normalize_images,
        ).to(self.device)

    def set_training_mode(self, mode: bool) -> None:
        """Put all networks into training or evaluation mode; the target network stays in evaluation mode."""
        if {self.actor.training, self.critic.training, self.value.training} != {mode}:  # asked at every step, and slow
            super().set_training_mode(mode)
            self.value.set_training_mode(mode)


MlpPolicy = SACVPolicy


class CnnPolicy(SACVPolicy):
    """:class:`SACVPolicy` for images."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(SACVPolicy):
    """:class:`SACVPolicy` for Dict observations."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})
