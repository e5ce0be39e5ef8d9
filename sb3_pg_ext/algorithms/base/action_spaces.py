"""Action spaces that SB3's policies would misunderstand."""

import numpy as np
from gymnasium import spaces


def check_action_space(space: spaces.Space) -> None:
    """Refuse choices that are not numbered from 0, and those that are more than a list.

    Policies give numbers from 0, which SB3 hands to the environment as they are.

    :raises ValueError: if the space has such
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        raise ValueError(f"action_space={space}; allowed: start=0 (a wrapper can add the start to the action)")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and len(space.shape) != 1:
        raise ValueError(f"action_space={space}; allowed: one dimension (a wrapper can flatten it)")
