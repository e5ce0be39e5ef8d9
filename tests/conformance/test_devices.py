"""A GPU computes what the CPU computes."""

from typing import Any

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import NPG, REINFORCE, EstimatorRolloutBuffer
from sb3_pg_ext.callbacks import GradientVarianceCallback
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.policies.inputs import PolicyInputs

from .algorithms import record

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not th.cuda.is_available(), reason="there is no GPU")]

TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}
N = 32


def both(action_space: str, observation_space: str = "Box", policy: str = "MlpPolicy") -> tuple[Any, Any]:
    """The same model twice, on the CPU and on the GPU."""
    env = RandomEnv(ACTION_SPACES[action_space], OBSERVATION_SPACES[observation_space])
    cpu, cuda = (NPG(policy, env, n_steps=N, batch_size=N, seed=0, device=device) for device in ("cpu", "cuda"))
    cuda.set_parameters(cpu.get_parameters(), device="cuda")
    return cpu, cuda


def sample(model: Any) -> tuple[PolicyInputs, np.ndarray]:
    """Observations and actions, of a seed."""
    spaces = model.observation_space, model.action_space
    for space in spaces:
        space.seed(0)
    observations, actions = (np.stack([space.sample() for _ in range(N)]) for space in spaces)
    return PolicyInputs(observations), actions.reshape(N, -1)


@pytest.fixture(autouse=True)
def full_precision():
    """Convolutions by default round their inputs to 10 bits."""
    with th.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize("action_space", ["Box", "Discrete", "MultiDiscrete", "MultiBinary"])
@pytest.mark.parametrize(("observation_space", "policy"), [("Box", "MlpPolicy"), ("image", "CnnPolicy")])
def test_gradients_and_curvature_are_those_of_the_cpu(action_space, observation_space, policy):
    results = []
    models = both(action_space, observation_space, policy)
    inputs, actions = sample(models[0])
    for model in models:
        backend, _ = make_backend(model.policy, "autograd")
        evaluation = backend.evaluate_actions(inputs, actions)
        parameters, gradient = backend.policy_gradient(np.linspace(-1, 1, N).astype(np.float32))
        old = backend.snapshot(inputs)
        product = backend.fisher_product()(gradient)
        with th.no_grad():
            for parameter in parameters:
                parameter.add_(0.01)
        kl = backend.mean_kl(old, inputs)
        results.append([*map(th.as_tensor, evaluation), gradient.cpu(), product.cpu(), th.tensor(kl)])
    for of_cpu, of_gpu in zip(*results, strict=True):
        th.testing.assert_close(of_gpu, of_cpu, **TOLERANCE)


@pytest.mark.parametrize("estimator", ["gae", "upgo"])
def test_stock_algorithms_take_estimators_there(estimator):
    kwargs = {"advantage_estimator": estimator}
    env = DummyVecEnv([RandomEnv] * 2)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=16,
        batch_size=16,
        rollout_buffer_class=EstimatorRolloutBuffer,
        rollout_buffer_kwargs=kwargs,
        device="cuda",
    )
    model.learn(64)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


def test_the_variance_of_the_gradient_is_measured_there():
    callback = GradientVarianceCallback(RandomEnv(), n_batches=2, n_episodes=2)
    model = REINFORCE("MlpPolicy", RandomEnv(), n_episodes=6, device="cuda", seed=0)
    records = record(model)
    model.learn(200, callback, log_interval=1)
    assert np.isfinite(records.latest["gradient/mean/variance"])
