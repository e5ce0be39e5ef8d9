"""Trains a stock algorithm and its fast twin side by side, and compares all that a user could see of them."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch as th
from envs import RandomEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import fast

SEEN_AT_A_STEP = ("actions", "clipped_actions", "rewards", "dones", "new_obs")


@dataclass(frozen=True)
class Pair:
    """A stock algorithm, its fast twin, arguments that keep a run tiny, and what both show callbacks at a step."""

    theirs: type[BaseAlgorithm]
    ours: type[BaseAlgorithm]
    arguments: dict[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = SEEN_AT_A_STEP

    def make(self, cls: type[BaseAlgorithm], env: Any = None, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
        policy_kwargs = deepcopy({"net_arch": [8], **kwargs.pop("policy_kwargs", {})})  # SB3 writes into it
        arguments = {"n_steps": 16, "seed": 0, "device": "cpu", **self.arguments, **kwargs}
        return cls(policy, RandomEnv() if env is None else env, policy_kwargs=policy_kwargs, **arguments)

    def make_ours(self, env: Any = None, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
        return self.make(self.ours, env, policy, **kwargs)

    def make_both(self, make_env: Callable[[], Any] = RandomEnv, policy: Any = "MlpPolicy", **kwargs: Any) -> list[Any]:
        return [self.make(cls, make_env(), policy, **kwargs) for cls in (self.theirs, self.ours)]


PAIRS = {
    "PPO": Pair(stable_baselines3.PPO, fast.PPO, {"batch_size": 16, "n_epochs": 2}),
    "A2C": Pair(stable_baselines3.A2C, fast.A2C),
    "TRPO": Pair(sb3_contrib.TRPO, fast.TRPO, {"batch_size": 16, "n_critic_updates": 2, "cg_max_steps": 4}),
}
each_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
PPO, A2C, TRPO = PAIRS.values()


class AskedItself(ActorCriticPolicy):
    """An MLP that overrides a method, so that no shortcut is taken: both classes draw the same random numbers."""

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return super()._predict(observation, deterministic)


exactly = {"rtol": 0, "atol": 0}


def parameters(model: BaseAlgorithm) -> dict[str, th.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def assert_close(one: dict[str, th.Tensor], other: dict[str, th.Tensor], **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        th.testing.assert_close(tensor, other[name], **tolerance, msg=lambda message, name=name: f"{name}: {message}")


def moved(model: BaseAlgorithm, before: dict[str, th.Tensor]) -> bool:
    return any(not th.equal(before[name], tensor) for name, tensor in parameters(model).items())


class Exchange(BaseCallback):
    """Keeps the first rollout buffer that it sees, and puts it in the place of all others."""

    def __init__(self):
        super().__init__()
        self.arrays = None

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = vars(self.model.rollout_buffer)
        if self.arrays is None:
            self.arrays = {name: array.copy() for name, array in buffer.items() if isinstance(array, np.ndarray)}
        buffer.update({name: array.copy() for name, array in self.arrays.items()})
        set_random_seed(1)


class Record(BaseCallback):
    """Keeps what callbacks see at every step, the rollout buffer at the end of every rollout, and what is logged."""

    def __init__(self, seen: tuple[str, ...] = SEEN_AT_A_STEP):
        super().__init__()
        self.seen = seen
        self.steps: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = []
        self.modes: list[bool] = []

    def _on_step(self):
        self.steps.append({name: _copy(self.locals[name]) for name in self.seen})
        self.modes.append(self.model.policy.training)
        return True

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        assert buffer.full
        assert not buffer.generator_ready
        self.buffers.append({name: _copy(value) for name, value in vars(buffer).items() if _is_data(value)})


def _is_data(value: Any) -> bool:
    return isinstance(value, np.ndarray | int | float | bool) or (
        isinstance(value, dict) and all(isinstance(array, np.ndarray) for array in value.values())
    )


def _copy(value: Any) -> Any:
    return {key: array.copy() for key, array in value.items()} if isinstance(value, dict) else np.copy(value)


def assert_alike(actual: Any, expected: Any, name: str, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    """Of the same kind, shape and type, and the same numbers to rounding."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), name
        for key in expected:
            assert_alike(actual[key], expected[key], f"{name}[{key!r}]", rtol, atol)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), name
    np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol, atol, err_msg=name)


ADDED = {
    "rollout/n_dropped",
    "rollout/reward_mean",
    "time/update_seconds",
    "train/entropy_loss",
    "train/grad_norm",
    "train/n_skipped",
    "train/td_error_mean",
    "train/td_error_std",
    "train/value_grad_norm",
}
CLOCK = {"time/fps", "time/time_elapsed"}


def assert_same_state(ours: BaseAlgorithm, theirs: BaseAlgorithm) -> None:
    """What is left after training."""
    rtol = atol = 1e-4
    assert_close(parameters(ours), parameters(theirs), rtol=rtol, atol=atol)
    for name in ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_current_progress_remaining"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("_last_obs", "_last_original_obs", "_last_episode_starts"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None), name
        if getattr(theirs, name) is not None:
            assert_alike(getattr(ours, name), getattr(theirs, name), name)
    for name in ("ep_info_buffer", "ep_success_buffer"):
        actual, expected = getattr(ours, name), getattr(theirs, name)
        assert (actual.maxlen, len(actual)) == (expected.maxlen, len(expected)), name
    assert [info["l"] for info in ours.ep_info_buffer] == [info["l"] for info in theirs.ep_info_buffer]
    assert [info["r"] for info in ours.ep_info_buffer] == pytest.approx([info["r"] for info in theirs.ep_info_buffer])
    assert ours.policy.training == theirs.policy.training
    actual, expected = (
        {name: value for name, value in vars(model.rollout_buffer).items() if _is_data(value)}
        for model in (ours, theirs)
    )
    assert_alike(actual, expected, "rollout_buffer after training")
    actual, expected = ours.logger.name_to_value, theirs.logger.name_to_value
    assert actual.keys() - expected.keys() <= ADDED
    for key in expected.keys() - CLOCK:
        assert actual[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-4, nan_ok=True), key


def assert_trains_alike(
    pair: Pair,
    make_env: Callable[[], Any] = RandomEnv,
    policy: Any = AskedItself,
    total_timesteps: int = 48,
    prepare: Callable[[Any], Any] = lambda model: None,
    **kwargs: Any,
) -> list[Any]:
    """Whole trainings compared: what callbacks see, every rollout, and what is left.

    :param pair: the algorithms
    :param make_env: makes their environments
    :param policy: one whose actions are drawn from the same random numbers by both, or are certain
    :param total_timesteps: for so many steps
    :param prepare: what to do with the models before
    :param kwargs: constructor arguments
    :return: the trained models, the stock one first
    """
    models = pair.make_both(make_env, policy, **kwargs)
    start = parameters(models[0])
    assert_close(parameters(models[1]), start, **exactly)
    records = [Record(pair.seen), Record(pair.seen)]
    for model, record in zip(models, records, strict=True):
        prepare(model)
        set_random_seed(5)
        model.learn(total_timesteps, CallbackList([record]), log_interval=None)
    (stock, twin), (expected, actual) = models, records
    assert len(actual.steps) == len(expected.steps) > 0
    assert len(actual.buffers) == len(expected.buffers) > 0
    for t, (ours, theirs) in enumerate(zip(actual.steps, expected.steps, strict=True)):
        assert_alike(ours, theirs, f"step {t}")
    for n, (ours, theirs) in enumerate(zip(actual.buffers, expected.buffers, strict=True)):
        assert_alike(ours, theirs, f"rollout {n}")
    assert actual.modes == expected.modes
    assert_same_state(twin, stock)
    assert moved(twin, start)
    for model in models:
        model.env.close()
    return models


class Logs(KVWriter):
    """A logger's output, kept in memory: one dictionary for every time that something was written."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.written.append(dict(key_values))

    def close(self) -> None:
        """Nothing is open."""


def keep_logs(model: BaseAlgorithm) -> Logs:
    """Let a model log into memory."""
    logs = Logs()
    model.set_logger(Logger(None, [logs]))
    return logs


def vec_env(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: RandomEnv(**kwargs)] * n_envs)
