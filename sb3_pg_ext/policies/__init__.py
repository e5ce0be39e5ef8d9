"""Policy classes, features extractors and initial weights, which policies are plain MLPs, what they say of rollouts.

``MlpPolicy``, ``CnnPolicy``, ``MultiInputPolicy``, ``SmallCNN`` and ``SparseInit`` live here as far as saved files are
concerned: where they are defined may change.
"""

from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.policies.small_cnn import SmallCNN
from sb3_pg_ext.policies.sparse_init import SparseInit

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "SmallCNN", "SparseInit"]

for _public in (CnnPolicy, MlpPolicy, MultiInputPolicy, SmallCNN, SparseInit):
    _public.__module__ = __name__
