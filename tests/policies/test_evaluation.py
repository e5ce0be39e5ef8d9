"""Values and log-probabilities of whole batches."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES
from gymnasium import spaces
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)

from sb3_pg_ext.policies import evaluation as policies
from sb3_pg_ext.policies.evaluation import chunks, evaluate, predict_values
from sb3_pg_ext.policies.inputs import PolicyInputs

CPU = th.device("cpu")
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
PAIR = spaces.Dict({"vector": OBSERVATION_SPACES["Box"], "number": spaces.Discrete(3)})


def make_policy(observation_space, action_space=ACTION_SPACES["Discrete"], **kwargs):
    th.manual_seed(0)
    cls = ActorCriticPolicy
    if isinstance(observation_space, spaces.Dict):
        cls = MultiInputActorCriticPolicy
    elif observation_space == IMAGE:
        cls, kwargs = ActorCriticCnnPolicy, {"features_extractor_kwargs": {"features_dim": 8}, **kwargs}
    return cls(observation_space, action_space, lambda _: 1e-3, ortho_init=False, **kwargs)


def batch_of(space, n):
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space}
    return np.stack(samples)


def one_by_one(observations, n):
    for i in range(n):
        if isinstance(observations, dict):
            yield {key: th.as_tensor(array[i : i + 1]) for key, array in observations.items()}
        else:
            yield th.as_tensor(observations[i : i + 1])


def assert_as_the_policy_says(policy, n=9):
    space = policy.observation_space
    space.seed(0)
    observations = batch_of(space, n)
    actions = batch_of(policy.action_space, n).reshape(n, -1)
    values, log_probs = evaluate(policy, PolicyInputs(observations), actions)
    assert values.shape == log_probs.shape == (n,)
    assert values.dtype == log_probs.dtype == np.float32
    np.testing.assert_allclose(predict_values(policy, PolicyInputs(observations)), values, rtol=1e-5, atol=1e-6)
    is_discrete = isinstance(policy.action_space, spaces.Discrete)
    for i, obs in enumerate(one_by_one(observations, n)):
        taken = th.as_tensor(actions[i : i + 1]).float()
        with th.no_grad():
            value, log_prob, _ = policy.evaluate_actions(obs, taken[:, 0] if is_discrete else taken)
        np.testing.assert_allclose(values[i], value.item(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_probs[i], log_prob.item(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("chunk_bytes", [1, 40, 2**22])
def test_every_action_space(name, chunk_bytes, monkeypatch):
    monkeypatch.setattr(policies, "CHUNK_BYTES", chunk_bytes)
    assert_as_the_policy_says(make_policy(OBSERVATION_SPACES["Box"], ACTION_SPACES[name]))


OBSERVATIONS = {
    **{name: space for name, space in OBSERVATION_SPACES.items() if name not in ("image", "Dict")},
    "image": IMAGE,
    "Dict": PAIR,
}


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("chunk_bytes", [100, 2**22])
def test_every_observation_space(name, chunk_bytes, monkeypatch):
    monkeypatch.setattr(policies, "CHUNK_BYTES", chunk_bytes)
    assert_as_the_policy_says(make_policy(OBSERVATIONS[name]))


@pytest.mark.parametrize("squash", [False, True])
def test_state_dependent_exploration(squash):
    policy = make_policy(OBSERVATION_SPACES["Box"], spaces.Box(-0.9, 0.9, (2,)), use_sde=True, squash_output=squash)
    assert_as_the_policy_says(policy)


@pytest.mark.parametrize(
    ("chunk_bytes", "lengths"), [(1, [1] * 10), (12, [1] * 10), (36, [3, 3, 3, 1]), (119, [9, 1]), (120, [10])]
)
def test_chunks_cover_the_batch_in_order(chunk_bytes, lengths, monkeypatch):
    monkeypatch.setattr(policies, "CHUNK_BYTES", chunk_bytes)
    batch = np.arange(30, dtype=np.float32).reshape(10, 3)
    parts = list(chunks(PolicyInputs(batch), CPU))
    assert [len(obs) for _, obs, _ in parts] == lengths
    np.testing.assert_array_equal(np.concatenate([obs for _, obs, _ in parts]), batch)
    np.testing.assert_array_equal(np.concatenate([batch[part] for part, _, _ in parts]), batch)


def test_chunks_of_images():
    batch = np.zeros((1100, 2, 2, 3), bool)
    assert [len(obs) for _, obs, _ in chunks(PolicyInputs(batch), CPU)] == [512, 512, 76]


def test_chunks_of_dictionaries_count_all_their_arrays(monkeypatch):
    monkeypatch.setattr(policies, "CHUNK_BYTES", 32)
    batch = {"vector": np.zeros((10, 3), np.float32), "number": np.zeros(10, np.float32)}
    assert [len(obs["vector"]) for _, obs, _ in chunks(PolicyInputs(batch), CPU)] == [2] * 5
