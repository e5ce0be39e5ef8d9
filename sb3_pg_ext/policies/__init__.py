"""Policy classes and features extractors, which policies are plain MLPs, and what they say of whole rollouts.

``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy`` and ``SmallCNN`` live here as far as saved files are concerned:
where they are defined may change.
"""

from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.policies.small_cnn import SmallCNN

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "SmallCNN"]

for _public in (CnnPolicy, MlpPolicy, MultiInputPolicy, SmallCNN):
    _public.__module__ = __name__
