"""A body whose first layers policy and value share."""

from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import MlpExtractor, create_mlp
from torch import nn

from sb3_pg_ext.arguments import check_choice, check_count


class TrunkExtractor(MlpExtractor):
    """Layers that actor and critic share, then those of each: SB3's ``MlpExtractor`` on a trunk.

    :param feature_dim: number of features
    :param net_arch: the sizes of the layers: ``shared`` of the trunk, at least one; ``pi`` and ``vf`` of what follows
    :param activation_fn: the activation function after each layer
    :param device: where the layers go
    """

    def __init__(
        self, feature_dim: int, net_arch: dict[str, Any], activation_fn: type[nn.Module], device: th.device | str
    ) -> None:
        sizes = list(net_arch["shared"])
        super().__init__(sizes[-1], {name: net_arch.get(name, []) for name in ("pi", "vf")}, activation_fn, device)
        self.shared_net = nn.Sequential(*create_mlp(feature_dim, -1, sizes, activation_fn)).to(device)

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The latent features of actor and critic, [B, …] each; the trunk is evaluated once."""
        latent = self.shared_net(features)
        return super().forward_actor(latent), super().forward_critic(latent)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        """Those of the actor alone."""
        return super().forward_actor(self.shared_net(features))

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        """Those of the critic alone."""
        return super().forward_critic(self.shared_net(features))


def check_net_arch(net_arch: Any) -> None:
    """Refuse what says of the layers of an actor-critic policy what is not understood.

    :param net_arch: the policy's argument: a dictionary of lists of sizes, or what SB3 takes besides
    :raises ValueError: if a key is not ``shared``, ``pi`` or ``vf``, or a size no positive integer
    """
    for name, sizes in net_arch.items() if isinstance(net_arch, dict) else ():
        check_choice("a key of net_arch", name, ("shared", "pi", "vf"))
        if not isinstance(sizes, list | tuple):
            raise ValueError(f"net_arch: {name}={sizes!r}; allowed: a list of integers ≥ 1")
        for size in sizes:
            check_count(f"net_arch: {name}", size)


def has_trunk(net_arch: Any) -> bool:
    """Whether the argument ``net_arch`` of a policy asks for layers that actor and critic share."""
    return isinstance(net_arch, dict) and bool(net_arch.get("shared"))
