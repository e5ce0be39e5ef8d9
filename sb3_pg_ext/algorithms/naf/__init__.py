"""NAF."""

from sb3_pg_ext.algorithms.naf.naf import NAF
from sb3_pg_ext.algorithms.naf.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, NAFPolicy

__all__ = ["NAF", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "NAFPolicy"]
