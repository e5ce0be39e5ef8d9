"""GumbelDDPG."""

from sb3_pg_ext.algorithms.gumbel_ddpg.gumbel_ddpg import GumbelDDPG
from sb3_pg_ext.algorithms.gumbel_ddpg.policies import CnnPolicy, GumbelPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["CnnPolicy", "GumbelDDPG", "GumbelPolicy", "MlpPolicy", "MultiInputPolicy"]
