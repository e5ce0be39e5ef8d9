"""Minibatches hold every step once, with everything that belongs to it."""

import numpy as np
import pytest
import torch as th
from envs import OBSERVATION_SPACES, VECTOR
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_pg_ext.gradients.minibatches import Steps

T, N = 5, 2
NAMES = ("log_probs", "values", "advantages", "returns")


def full_buffer(observation_space, action_space):
    """A buffer whose every array holds the number of the step, by name on another scale."""
    cls = DictRolloutBuffer if isinstance(observation_space, spaces.Dict) else RolloutBuffer
    buffer = cls(T, observation_space, action_space, device="cpu", n_envs=N)
    number = np.arange(T * N).reshape(T, N)
    for scale, name in enumerate(NAMES, start=1):
        getattr(buffer, name)[:] = scale * number
    for array in buffer.observations.values() if isinstance(buffer.observations, dict) else [buffer.observations]:
        array[:] = number.reshape(T, N, *[1] * (array.ndim - 2))
    buffer.actions[:] = number[..., None]
    return buffer


@pytest.mark.parametrize("action_space", [spaces.Discrete(20), spaces.Box(-1, 1, (2,))], ids=["Discrete", "Box"])
@pytest.mark.parametrize("name", ["Box", "image", "Dict", "Discrete"])
@pytest.mark.parametrize("rows", [np.array([7, 0, 3]), slice(2, 5)], ids=["indices", "slice"])
def test_what_belongs_together_stays_together(name, action_space, rows):
    steps = Steps.of(full_buffer(OBSERVATION_SPACES[name], action_space), action_space)
    assert len(steps) == T * N
    some, numbers = steps[rows], np.arange(T * N)[rows]
    for scale, array in enumerate(NAMES, start=1):
        np.testing.assert_array_equal(getattr(some, array), scale * numbers)
    assert some.actions.dtype == (np.int64 if isinstance(action_space, spaces.Discrete) else np.float32)
    assert (some.actions == numbers[:, None]).all()
    observations = some.inputs.observations.values() if name == "Dict" else [some.inputs.observations]
    for array in observations:
        assert (array.reshape(3, -1) == numbers[:, None]).all()


def test_double_precision_becomes_single():
    space = spaces.Box(-1, 1, (2,), np.float64)
    steps = Steps.of(full_buffer(space, spaces.Discrete(20)), spaces.Discrete(20))
    assert steps.inputs.observations.dtype == np.float32
    assert Steps.of(full_buffer(OBSERVATION_SPACES["image"], space), space).inputs.observations.dtype == np.uint8


def test_a_new_estimate_replaces_advantages_and_returns_alone():
    buffer = full_buffer(VECTOR, spaces.Discrete(20))
    steps = Steps.of(buffer, spaces.Discrete(20))
    buffer.advantages, buffer.returns = buffer.advantages + 1, buffer.returns + 2
    new = steps.with_estimate_of(buffer)
    assert (new.advantages == steps.advantages + 1).all()
    assert (new.returns == steps.returns + 2).all()
    assert new.values is steps.values


def test_memory_is_shared_with_the_buffer():
    buffer = full_buffer(VECTOR, spaces.Box(-1, 1, (2,)))
    steps = Steps.of(buffer, spaces.Box(-1, 1, (2,)))
    for name in NAMES:
        assert np.shares_memory(getattr(steps, name), getattr(buffer, name)), name
    assert np.shares_memory(steps.inputs.observations, buffer.observations)


@pytest.fixture
def steps():
    return Steps.of(full_buffer(VECTOR, spaces.Discrete(20)), spaces.Discrete(20))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_an_epoch_holds_every_step_once(steps, batch_size):
    minibatches = list(steps.minibatches(batch_size))
    sizes = {len(batch) for batch in minibatches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(minibatches) == -(-10 // batch_size)
    assert sorted(np.concatenate([batch.log_probs for batch in minibatches])) == list(range(10))


def test_the_order_follows_the_seed(steps):
    def order(seed, n_epochs=1):
        th.manual_seed(seed)
        return [[batch.log_probs.tolist() for batch in steps.minibatches(4)] for _ in range(n_epochs)]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0, 2) != order(0) * 2
