"""Policy classes, which of them are plain MLPs, and what they say of whole rollouts.

``MlpPolicy``, ``CnnPolicy`` and ``MultiInputPolicy`` live here as far as saved files are concerned: where they are
defined may change.
"""

from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy"]

for _public in (CnnPolicy, MlpPolicy, MultiInputPolicy):
    _public.__module__ = __name__
