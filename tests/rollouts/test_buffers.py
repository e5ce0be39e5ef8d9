"""Advantage estimators inside stock SB3 and sb3-contrib algorithms."""

import base64
import io
import json
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_pg_ext.estimators import NStep
from sb3_pg_ext.rollouts.buffers import EstimatorRolloutBuffer, MaskableEstimatorRolloutBuffer

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
PAIR = spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(3)})
STOCK = ["gae", "monte_carlo", "n_step", "td0", "upgo"]


class Task(gym.Env):
    """Random observations and rewards; episodes end at random, or by truncation after ``limit`` steps."""

    def __init__(self, observation_space=VECTOR, limit=5):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3)
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        terminated, truncated = bool(self.np_random.random() < 0.1), self.steps == self.limit
        return self.observation_space.sample(), float(self.np_random.normal()), terminated, truncated, {}

    def action_masks(self):
        return np.array([True, self.steps % 2 == 0, True])


def policy_of(observation_space):
    return "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"


def train(algorithm, observation_space=VECTOR, steps=40, **kwargs):
    """Two rollouts of 20 steps, each with several time limits in it."""
    env = Task(observation_space)
    model = algorithm(
        policy_of(observation_space), env, seed=3, n_steps=20, device="cpu", policy_kwargs={"net_arch": [4]}, **kwargs
    )
    return model.learn(steps)


def small(algorithm):
    return {} if algorithm is A2C else {"batch_size": 10}


def with_estimator(name="gae", buffer=EstimatorRolloutBuffer, **kwargs):
    return {
        "rollout_buffer_class": buffer,
        "rollout_buffer_kwargs": {"advantage_estimator": name, "advantage_estimator_kwargs": kwargs or None},
    }


def assert_same_parameters(one, other):
    for key, tensor in one.policy.state_dict().items():
        assert th.equal(tensor, other.policy.state_dict()[key]), key


@pytest.mark.parametrize("observation_space", [VECTOR, PAIR], ids=["box", "dict"])
@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_gae_trains_stock_algorithms_bit_by_bit_as_before(algorithm, observation_space):
    stock = train(algorithm, observation_space, **small(algorithm))
    ours = train(algorithm, observation_space, **small(algorithm), **with_estimator("gae"))
    assert_same_parameters(stock, ours)


@pytest.mark.parametrize("observation_space", [VECTOR, PAIR], ids=["box", "dict"])
def test_gae_trains_maskable_ppo_bit_by_bit_as_before(observation_space):
    stock = train(MaskablePPO, observation_space, batch_size=10)
    ours = train(MaskablePPO, observation_space, batch_size=10, **with_estimator("gae", MaskableEstimatorRolloutBuffer))
    assert_same_parameters(stock, ours)


@pytest.mark.parametrize("name", [name for name in STOCK if name != "gae"])
def test_other_estimators_train_differently(name):
    assert not np.array_equal(
        train(PPO, batch_size=10, **with_estimator(name)).rollout_buffer.advantages,
        train(PPO, batch_size=10).rollout_buffer.advantages,
    )


@pytest.mark.parametrize(
    ("buffer", "observation_space", "base"),
    [
        (EstimatorRolloutBuffer, VECTOR, RolloutBuffer),
        (EstimatorRolloutBuffer, PAIR, DictRolloutBuffer),
        (MaskableEstimatorRolloutBuffer, VECTOR, MaskableRolloutBuffer),
        (MaskableEstimatorRolloutBuffer, PAIR, MaskableDictRolloutBuffer),
    ],
)
def test_one_class_serves_box_and_dict_observations(buffer, observation_space, base):
    made = buffer(4, observation_space, spaces.Discrete(3), "cpu", n_envs=2)
    assert isinstance(made, buffer)
    assert isinstance(made, base)
    assert isinstance(made, RolloutBuffer)
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is type(made)
    made.full = True
    stock = base(4, observation_space, spaces.Discrete(3), "cpu", n_envs=2)
    stock.full = True
    assert type(next(made.get(3))) is type(next(stock.get(3)))


def test_a_subclass_says_which_one_stores_dict_observations():
    class Own(EstimatorRolloutBuffer):
        pass

    assert type(Own(4, VECTOR, spaces.Discrete(3), "cpu")) is Own
    with pytest.raises(ValueError, match=r"rollout_buffer_class=Own with Dict observations; allowed: .*EstimatorDict"):
        Own(4, PAIR, spaces.Discrete(3), "cpu")


def filled(buffer, rng):
    """Two environments; terminated at step 1 of the first, at the end of the second."""
    buffer.rewards[:] = rng.normal(size=(4, 2))
    buffer.values[:] = rng.normal(size=(4, 2))
    buffer.episode_starts[2, 0] = 1
    buffer.compute_returns_and_advantage(th.tensor([[0.5], [0.7]]), np.array([False, True]))
    return buffer


def test_estimates_of_a_rollout():
    buffer = filled(
        EstimatorRolloutBuffer(4, VECTOR, spaces.Discrete(3), "cpu", gamma=0.9, n_envs=2, advantage_estimator="td0"),
        np.random.default_rng(0),
    )
    following = np.vstack([buffer.values[1:], [0.5, 0.7]]) * [[1, 1], [0, 1], [1, 1], [1, 0]]
    np.testing.assert_allclose(buffer.returns, buffer.rewards + 0.9 * following, rtol=1e-5)
    np.testing.assert_allclose(buffer.advantages, buffer.returns - buffer.values, rtol=1e-5, atol=1e-6)


def test_lambda_is_the_algorithms():
    rng = np.random.default_rng
    args = (4, VECTOR, spaces.Discrete(3), "cpu")
    ours = filled(EstimatorRolloutBuffer(*args, gae_lambda=0.3, n_envs=2), rng(0))
    stock = filled(RolloutBuffer(*args, gae_lambda=0.3, n_envs=2), rng(0))
    np.testing.assert_array_equal(ours.advantages, stock.advantages)
    with pytest.raises(ValueError, match=r"advantage_estimator_kwargs has gae_lambda=0\.3"):
        EstimatorRolloutBuffer(*args, advantage_estimator_kwargs={"gae_lambda": 0.3})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"advantage_estimator": "vtrace"}, "'vtrace' requires target_log_probs, .* algorithms of sb3_pg_ext"),
        ({"advantage_estimator": "n_steps"}, "did you mean 'n_step'"),
        ({"advantage_estimator": NStep()}, r"advantage_estimator=NStep\(n=5\); allowed .* the name of a registered"),
        ({"advantage_estimator": "n_step", "advantage_estimator_kwargs": {"n": 0}}, "n=0; allowed"),
    ],
)
def test_bad_arguments_are_refused_before_training(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PPO("MlpPolicy", Task(), rollout_buffer_class=EstimatorRolloutBuffer, rollout_buffer_kwargs=kwargs)


def test_a_discount_factor_outside_its_range_is_refused_before_training():
    with pytest.raises(ValueError, match=r"gamma=1.5; allowed: a number in \[0, 1\]"):
        PPO("MlpPolicy", Task(), gamma=1.5, **with_estimator())


def test_a_value_that_is_not_finite_is_named():
    buffer = EstimatorRolloutBuffer(4, VECTOR, spaces.Discrete(3), "cpu", n_envs=2)
    buffer.values[2, 1] = np.nan
    with pytest.raises(ValueError, match="values is not finite, first at step 2 of environment 1"):
        buffer.compute_returns_and_advantage(th.zeros(2), np.zeros(2, bool))


@pytest.mark.parametrize("observation_space", [VECTOR, PAIR], ids=["box", "dict"])
def test_a_saved_model_goes_on_and_holds_names_and_numbers(observation_space):
    model = train(PPO, observation_space, batch_size=10, gae_lambda=0.8, **with_estimator("n_step", n=3))
    file = io.BytesIO()
    model.save(file)
    loaded = PPO.load(file, device="cpu")
    assert loaded.rollout_buffer.estimator == NStep(3)
    assert loaded.rollout_buffer.gae_lambda == 0.8
    assert isinstance(loaded.rollout_buffer, EstimatorRolloutBuffer)
    for trained in (model, loaded):
        trained.set_env(Task(observation_space))
        trained.set_random_seed(5)
        trained.learn(20, reset_num_timesteps=False)
    assert_same_parameters(model, loaded)
    data = json.loads(zipfile.ZipFile(file).read("data"))
    kwargs = data["rollout_buffer_kwargs"]
    assert kwargs["advantage_estimator"] == "n_step"
    pickled = {key: value[":serialized:"] for key, value in data.items() if ":serialized:" in str(value)}
    assert [key for key, text in pickled.items() if b"sb3_pg_ext" in base64.b64decode(text)] == ["rollout_buffer_class"]
