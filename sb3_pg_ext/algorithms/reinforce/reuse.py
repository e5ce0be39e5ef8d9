"""Episodes that earlier policies played, for the present one to learn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import join
from sb3_pg_ext.rollouts.transitions import Transitions

Played = dict[str, Any]
"""Episodes by names and arrays, so that they are saved with the algorithm: what the policy saw, ``observations`` and
``action_masks`` (``None`` where all actions are allowed), ``actions``, ``rewards``, ``t`` within the episode, and
``log_probs``, log μ(a_t|s_t) of the policy that acted; [B, …] each."""


def played(transitions: Transitions, t: np.ndarray) -> Played:
    """The episodes of a rollout, as yet without the policy's log-probabilities.

    :param transitions: the rollout
    :param t: the step within the episode, [B]
    """
    inputs = transitions.inputs.map(transitions.flat)
    numbers = {name: transitions.flat(getattr(transitions, name)) for name in ("actions", "rewards")}
    return {"observations": inputs.observations, "action_masks": inputs.action_masks, **numbers, "t": t}


def inputs_of(batches: Sequence[Played]) -> PolicyInputs:
    """What the policies saw in batches, one after the other, [B, …]."""
    masks = [batch["action_masks"] for batch in batches]
    if any(mask is None for mask in masks) and not all(mask is None for mask in masks):
        raise ValueError("reuse_batches: action masks in some batches, none in others; allowed: in all or in none")
    return PolicyInputs(
        join([batch["observations"] for batch in batches]), None if masks[0] is None else np.concatenate(masks)
    )


def numbers_of(batches: Sequence[Played], name: str) -> np.ndarray:
    """Their numbers of a name, likewise, [B, …]."""
    return np.concatenate([batch[name] for batch in batches])
