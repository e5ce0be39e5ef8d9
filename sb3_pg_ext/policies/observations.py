"""Observations come as an array, or as a dictionary of arrays: functions that treat both alike."""

from collections.abc import Callable

import numpy as np

Observations = np.ndarray | dict[str, np.ndarray]
"""A batch of observations; a dictionary of batches where the observation space is a Dict."""


def map_arrays(function: Callable[[np.ndarray], np.ndarray], observations: Observations) -> Observations:
    """Apply a function to observations, array by array where they are a dictionary."""
    if isinstance(observations, dict):
        return {key: function(array) for key, array in observations.items()}
    return function(observations)


def arrays_of(observations: Observations) -> list[np.ndarray]:
    """The arrays that observations consist of."""
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def stack(observations: list[Observations]) -> Observations:
    """Stack single observations, or batches of them, along a new first axis."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in first}
    return np.stack(observations)  # type: ignore[arg-type]


def join(batches: list[Observations]) -> Observations:
    """Append batches of observations to each other."""
    first = batches[0]
    if isinstance(first, dict):
        return {key: np.concatenate([batch[key] for batch in batches]) for key in first}
    return np.concatenate(batches)  # type: ignore[arg-type]
