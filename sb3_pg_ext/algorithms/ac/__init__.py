"""Actor-critics that learn at every step."""

from sb3_pg_ext.algorithms.ac.ac import ActorCritic
from sb3_pg_ext.algorithms.ac.dac import DAC

__all__ = ["DAC", "ActorCritic"]
