"""What is logged of stock algorithms, against slow calculations of the same."""

from typing import Any

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import NAF, fast
from sb3_pg_ext.callbacks import DiagnosticsCallback
from sb3_pg_ext.gradients.norms import GradientNorms

TINY_ON = {"n_steps": 16, "gae_lambda": 0.7, "gamma": 0.9}
TINY_OFF = {"buffer_size": 200, "learning_starts": 16, "batch_size": 16, "gamma": 0.9}
ON_POLICY: dict[Any, dict[str, Any]] = {
    A2C: TINY_ON,
    PPO: {**TINY_ON, "batch_size": 8, "n_epochs": 2},
    TRPO: {**TINY_ON, "batch_size": 8, "cg_max_steps": 3, "n_critic_updates": 2},
    RecurrentPPO: {**TINY_ON, "batch_size": 8, "n_epochs": 2},
}
OFF_POLICY: dict[Any, dict[str, Any]] = dict.fromkeys((DQN, SAC, TD3, DDPG), TINY_OFF)


class Records(KVWriter):
    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.latest |= key_values

    def close(self) -> None:
        """Nothing is open."""


def model_of(algorithm: Any, env: Any = None, **arguments: Any) -> tuple[Any, Records]:
    space = {"action_space": ACTION_SPACES["Discrete"]} if algorithm is DQN else {}
    policy = "MlpLstmPolicy" if algorithm is RecurrentPPO else "MlpPolicy"
    size = {"lstm_hidden_size": 4} if algorithm is RecurrentPPO else {}
    given = {**{**ON_POLICY, **OFF_POLICY}.get(algorithm, {}), **arguments}
    env = DummyVecEnv([lambda: RandomEnv(**space)]) if env is None else env
    model = algorithm(policy, env, seed=0, device="cpu", policy_kwargs={"net_arch": [8], **size}, **given)
    records = Records()
    model.set_logger(Logger(None, [records]))
    return model, records


@pytest.mark.parametrize("algorithm", [*ON_POLICY, *OFF_POLICY])
def test_training_goes_on_as_without_it(algorithm):
    models = []
    for callback in (None, DiagnosticsCallback(log_freq=5)):
        model, records = model_of(algorithm)
        models.append(model.learn(64, callback, log_interval=1))
    th.testing.assert_close(*(model.get_parameters() for model in models), rtol=0, atol=0)
    keys = {"train/td_error_mean", "train/td_error_std", "train/grad_norm"}
    keys |= {"train/advantage_mean", "train/advantage_std"} if algorithm in ON_POLICY else {"train/q_max"}
    keys |= {"train/actor_grad_norm"} if algorithm in (SAC, TD3, DDPG) else set()
    keys |= {"train/value_mean"} if algorithm is DQN else set()
    keys |= {"train/entropy_loss"} if algorithm is TRPO else set()
    assert keys <= records.latest.keys()
    assert all(np.isfinite(records.latest[key]) for key in keys)


class Watch(BaseCallback):
    """Keeps what a rollout saw, to compute its TD errors from the environments' own answers."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Any] = []
        self.errors: list[np.ndarray] = []

    def _on_step(self) -> bool:
        now = self.locals
        self.steps.append((self.model._last_obs.copy(), now["new_obs"].copy(), now["rewards"].copy(), now["infos"]))
        self.steps[-1] += (now["dones"].copy(),)
        return True

    def value(self, obs: np.ndarray) -> float:
        with th.no_grad():
            return self.model.policy.predict_values(th.as_tensor(obs[None])).item()

    def _on_rollout_end(self) -> None:
        errors = []
        for obs, new_obs, rewards, infos, dones in self.steps:
            for i, (reward, info) in enumerate(zip(rewards, infos, strict=True)):
                if dones[i] and not info["TimeLimit.truncated"]:
                    after = 0.0
                else:
                    after = self.value(info["terminal_observation"] if dones[i] else new_obs[i])
                errors.append(reward + self.model.gamma * after - self.value(obs[i]))
        self.errors.append(np.array(errors))
        self.steps = []


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO, fast.PPO, fast.TRPO])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_td_errors_of_a_rollout(algorithm, n_envs):
    stock = {fast.PPO: PPO, fast.TRPO: TRPO}.get(algorithm, algorithm)
    model, records = model_of(algorithm, DummyVecEnv([RandomEnv] * n_envs), **ON_POLICY[stock])
    watch = Watch()
    model.learn(16 * n_envs, [watch, DiagnosticsCallback()], log_interval=1)
    (errors,) = watch.errors
    assert len(errors) == 16 * n_envs
    assert records.latest["train/td_error_mean"] == pytest.approx(errors.mean(), rel=1e-4, abs=1e-5)
    assert records.latest["train/td_error_std"] == pytest.approx(errors.std(), rel=1e-4)


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_entropy_of_fast_trpo(engine):
    """Of a Gaussian: Σ log σ + ½·log(2πe)."""
    model, records = model_of(fast.TRPO, engine=engine, **ON_POLICY[TRPO])
    model.learn(16)
    model.logger.dump()
    assert records.latest["train/entropy_loss"] == pytest.approx(-0.5 * np.log(2 * np.pi * np.e), rel=1e-5)


class Norms(BaseCallback):
    """Computes gradients of stock PPO anew, by wrapping what clips them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.norms: list[float] = []
        clip = th.nn.utils.clip_grad_norm_

        def noted(parameters: Any, *arguments: Any, **keywords: Any) -> th.Tensor:
            norm = clip(parameters, *arguments, **keywords)
            self.norms.append(float(norm))
            return norm

        monkeypatch.setattr(th.nn.utils, "clip_grad_norm_", noted)

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
@pytest.mark.parametrize("max_grad_norm", [1e-2, 1e3])
def test_the_norm_of_gradients_is_that_before_clipping(algorithm, max_grad_norm, monkeypatch):
    clipped = Norms(monkeypatch)
    model, records = model_of(algorithm, max_grad_norm=max_grad_norm)
    diagnostics = DiagnosticsCallback(log_freq=40)
    model.learn(40 if algorithm is DQN else 32, [clipped, diagnostics], log_interval=10**6)
    n_norms = len(clipped.norms)
    # DQN's last update comes after the last call; the first update of the others is logged with the second rollout.
    expected = clipped.norms[:-1:10] if algorithm is DQN else clipped.norms[: n_norms // 2 : 10]
    model.logger.dump()
    assert records.latest["train/grad_norm"] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("max_grad_norm", [1e-2, 1e3])
def test_both_engines_log_the_same_norms(max_grad_norm):
    logged = []
    for engine in ("array", "autograd"):
        model, records = model_of(fast.PPO, engine=engine, max_grad_norm=max_grad_norm, **ON_POLICY[PPO])
        model.learn(16)
        model.logger.dump()
        logged.append(records.latest["train/grad_norm"])
    assert logged[0] == pytest.approx(logged[1], rel=1e-3)


def test_q_values_of_dqn():
    model, records = model_of(DQN, n_steps=1, exploration_fraction=1.0)
    model.learn(40, DiagnosticsCallback(log_freq=40), log_interval=10**6)
    model.logger.dump()
    batch = model.replay_buffer
    n = batch.pos
    with th.no_grad():
        q = model.q_net(th.as_tensor(batch.observations[:n, 0])).numpy()
    taken = q[np.arange(n), batch.actions[:n, 0, 0]]
    assert taken.min() - 1e-5 <= records.latest["train/q_mean"] <= records.latest["train/q_max"] <= taken.max() + 1e-5
    assert records.latest["train/q_mean"] <= records.latest["train/value_mean"] <= q.max() + 1e-5


@pytest.mark.parametrize(("algorithm", "more"), [(SAC, {"ent_coef": 0.0}), (TD3, {}), (DDPG, {})])
@pytest.mark.parametrize("done", [0, 1])
def test_the_td_errors_of_a_critic_that_says_3(algorithm, more, done):
    """With rewards of 2 and γ = 0.5 they are 2 + 0.5·3·(1 − done) − 3."""
    model, records = model_of(algorithm, gamma=0.5, learning_rate=0.0, **more)
    for critic in (model.critic, model.critic_target):
        for parameter in critic.parameters():
            parameter.data.zero_()
        for network in critic.q_networks:
            network[-1].bias.data.fill_(3)
    callback = DiagnosticsCallback(log_freq=40)
    model.learn(39, callback, log_interval=10**6)
    model.replay_buffer.rewards[:], model.replay_buffer.dones[:] = 2, done
    model.replay_buffer.timeouts[:] = 0
    model.learn(1, callback, log_interval=10**6, reset_num_timesteps=False)
    model.logger.dump()
    assert records.latest["train/td_error_mean"] == 2 + 1.5 * (1 - done) - 3
    assert records.latest["train/td_error_std"] == 0
    assert records.latest["train/q_mean"] == records.latest["train/q_max"] == 3


def test_of_this_packages_algorithms_nothing_is_logged_twice():
    alone, watched = ({}, {})
    for latest, callback in ((alone, None), (watched, DiagnosticsCallback(log_freq=5))):
        model, records = model_of(NAF, **TINY_OFF)
        model.learn(40, callback)
        model.logger.dump()
        latest |= {key: value for key, value in records.latest.items() if not key.startswith("time/")}
    assert alone == watched


def test_a_gradient_of_zero_and_none_at_all():
    weight, unused = th.nn.Parameter(th.ones(3)), th.nn.Parameter(th.ones(2))
    optimizer = th.optim.SGD([weight, unused], lr=0.1)
    with GradientNorms(optimizer) as norms:
        optimizer.step()
        (3 * weight).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        (0 * unused).sum().backward()
        optimizer.step()
    assert norms.pop() == pytest.approx([27**0.5, 0])
    assert norms.pop() == []
    optimizer.step()
    assert norms.pop() == []


def test_refuses():
    with pytest.raises(ValueError, match="log_freq=0; allowed: an integer ≥ 1"):
        DiagnosticsCallback(log_freq=0)
