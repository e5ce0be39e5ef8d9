"""The random generators of the process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import set_random_seed


def note(device: th.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy and PyTorch, on the GPUs too if the model is on one."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": th.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = th.cuda.get_rng_state_all()
    return states


def put_back(states: dict[str, Any]) -> None:
    """Put the generators into the states that were noted."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    if "cuda" in states and th.cuda.is_available():
        for device, state in enumerate(states["cuda"][: th.cuda.device_count()]):
            th.cuda.set_rng_state(state, device)


@contextmanager
def seeded(seed: int, device: th.device) -> Iterator[None]:
    """Within the scope the generators of Python, NumPy and PyTorch run from a seed; then they are put back.

    :param seed: the seed
    :param device: where the model is; of GPUs, that one's generator is seeded
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with th.random.fork_rng([device] if device.type == "cuda" else []):
        set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
