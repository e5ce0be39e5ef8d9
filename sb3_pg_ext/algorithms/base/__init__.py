"""What algorithms have in common: the bases that those of this package, and those of plug-ins, derive from."""

from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase
from sb3_pg_ext.algorithms.base.on_policy import SUPPORTED_ACTION_SPACES, OnPolicyBase

__all__ = ["SUPPORTED_ACTION_SPACES", "ActorCriticBase", "OffPolicyBase", "OnPolicyBase", "arguments_of"]
