"""SACV."""

from sb3_pg_ext.algorithms.sac_v.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SACVPolicy
from sb3_pg_ext.algorithms.sac_v.sac_v import SACV

__all__ = ["SACV", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "SACVPolicy"]
