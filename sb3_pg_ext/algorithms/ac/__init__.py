"""Actor-critics that learn at every step."""

from sb3_pg_ext.algorithms.ac.ac import ActorCritic

__all__ = ["ActorCritic"]
