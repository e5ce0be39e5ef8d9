"""A rollout leaves in SB3's buffer what SB3's own rollout would have left there.

Both are compared bit by bit: the policy is linear with weights and observations that floats represent exactly, so that
values are the same however they are computed, and its actions are certain.
"""

import copy

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch as th
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import EstimatorRolloutBuffer, fast
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.assessment import evaluate_transitions
from sb3_pg_ext.rollouts.transitions import Transitions

SCRIPTS = [
    Script((1.1, -2.3, 0.7)),
    Script((0.3, 0.9), truncated=True),
    Script((5.5,)),
    Script((-0.1, 0.2, 0.4, -3.0, 1.7), truncated=True),
    Script((2.2,), truncated=True),
]
DISCRETE = spaces.Discrete(3)
ARRAYS = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")


class Numbers(ScriptedEnv):
    """Observes a number."""

    observation_space = spaces.Discrete(5)

    def _observe(self):
        return int(super()._observe()[0] * 8) % 5


class Pairs(ScriptedEnv):
    """Observes a vector and a number."""

    observation_space = spaces.Dict({"number": spaces.Discrete(5), "vector": ScriptedEnv.observation_space})

    def _observe(self):
        vector = super()._observe()
        return {"vector": vector, "number": int(vector[0] * 8) % 5}


class Keep(BaseCallback):
    """Keeps a copy of every rollout buffer at the end of its rollout."""

    def __init__(self):
        super().__init__()
        self.buffers = []

    def _on_rollout_end(self):
        self.buffers.append(copy.deepcopy(self.model.rollout_buffer))

    def _on_step(self):
        return True


def make_envs(n_envs, cls=ScriptedEnv, action_space=DISCRETE):
    return [cls(action_space, *SCRIPTS[n:], *SCRIPTS[:n], first=9 * n) for n in range(n_envs)]


def make_model(algorithm, envs, **kwargs):
    is_dict = isinstance(envs[0].observation_space, spaces.Dict)
    arguments = {"n_steps": 12, "gamma": 0.97, "gae_lambda": 0.9, "device": "cpu", "seed": 0, "verbose": 0, **kwargs}
    if "A2C" not in algorithm.__name__:
        arguments.setdefault("batch_size", 12 * len(envs))
    model = algorithm(
        "MultiInputPolicy" if is_dict else "MlpPolicy",
        DummyVecEnv([lambda env=env: env for env in envs]),
        policy_kwargs={"net_arch": []},
        **arguments,
    )
    with th.no_grad():
        rng = np.random.default_rng(0)
        value_net, action_net = model.policy.value_net, model.policy.action_net
        value_net.weight.copy_(th.as_tensor(rng.integers(-8, 8, value_net.weight.shape) / 4))
        value_net.bias.fill_(0.75)
        # The logits differ by 400 at least.
        action_net.weight.copy_(th.as_tensor(rng.integers(-8, 8, action_net.weight.shape) * 3200 * 8))
        action_net.bias.copy_(th.tensor([0.0, 400.0, 800.0]))
    return model


def rollouts_of(algorithm, envs, n_rollouts=3, **kwargs):
    keep = Keep()
    model = make_model(algorithm, envs, learning_rate=0.0, **kwargs)
    model.learn(n_rollouts * 12 * len(envs), keep)
    assert len(keep.buffers) == n_rollouts
    return keep.buffers


def assert_same_rollouts(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one.pos, one.full, one.generator_ready) == (other.pos, other.full, other.generator_ready)
        for name in ARRAYS:
            for key, array in as_dict(getattr(other, name)).items():
                actual = as_dict(getattr(one, name))[key]
                assert (actual.dtype, actual.shape) == (array.dtype, array.shape), name
                np.testing.assert_array_equal(actual, array, err_msg=name)


def as_dict(arrays):
    return arrays if isinstance(arrays, dict) else {"": arrays}


each_number_of_envs = pytest.mark.parametrize("n_envs", [1, 2, 5])


@each_number_of_envs
@pytest.mark.parametrize("cls", [ScriptedEnv, Numbers, Pairs])
def test_the_stock_buffer(n_envs, cls):
    ours, theirs = (rollouts_of(algorithm, make_envs(n_envs, cls)) for algorithm in (fast.PPO, stable_baselines3.PPO))
    assert len(np.unique(theirs[0].actions)) > 1
    assert (theirs[-1].episode_starts.sum(axis=0) > 1).all()
    assert_same_rollouts(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(fast.A2C, stable_baselines3.A2C), (fast.TRPO, sb3_contrib.TRPO)], ids=["A2C", "TRPO"]
)
def test_the_other_algorithms(ours, theirs):
    assert_same_rollouts(*(rollouts_of(algorithm, make_envs(2)) for algorithm in (ours, theirs)))


class Recording(RolloutBuffer):
    """Notes how it is used, and halves the rewards."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def add(self, obs, action, reward, episode_start, value, log_prob):
        self.calls.append(("add", action.shape[0], reward.shape, episode_start.shape, value.shape, log_prob.shape))
        super().add(obs, action, reward / 2, episode_start, value, log_prob)


class OwnAdvantages(RolloutBuffer):
    """Advantages of its own."""

    def compute_returns_and_advantage(self, last_values, dones):
        assert last_values.shape == (self.n_envs, 1)
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages *= 3


class OwnDictionary(DictRolloutBuffer):
    """Adds as DictRolloutBuffer does, by its own method."""

    def add(self, *args):
        super().add(*args)


@each_number_of_envs
@pytest.mark.parametrize(
    ("buffer", "cls"),
    [(Recording, ScriptedEnv), (Recording, Numbers), (OwnAdvantages, ScriptedEnv), (OwnDictionary, Pairs)],
)
def test_buffers_of_users(n_envs, buffer, cls):
    ours, theirs = (
        rollouts_of(algorithm, make_envs(n_envs, cls), rollout_buffer_class=buffer)
        for algorithm in (fast.PPO, stable_baselines3.PPO)
    )
    assert_same_rollouts(ours, theirs)
    if buffer is Recording:
        assert ours[-1].calls == theirs[-1].calls


@each_number_of_envs
@pytest.mark.parametrize("cls", [ScriptedEnv, Pairs])
@pytest.mark.parametrize("name", ["gae", "n_step", "monte_carlo"])
def test_estimators(n_envs, cls, name):
    kwargs = {"rollout_buffer_class": EstimatorRolloutBuffer, "rollout_buffer_kwargs": {"advantage_estimator": name}}
    ours, theirs = (
        rollouts_of(algorithm, make_envs(n_envs, cls), **kwargs) for algorithm in (fast.PPO, stable_baselines3.PPO)
    )
    assert_same_rollouts(ours, theirs)


@each_number_of_envs
@pytest.mark.parametrize("cls", [ScriptedEnv, Numbers, Pairs])
def test_values_and_log_probs_of_a_rollout(n_envs, cls):
    """Against one call of the policy for each step, with a policy like any other."""
    envs = make_envs(n_envs, cls)
    model = make_model(fast.PPO, envs)
    th.manual_seed(3)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.normal_()
    vec_env, obs = model.env, model.env.reset()
    transitions = Transitions(model.observation_space, DISCRETE, n_envs, n_steps=12)
    expected = {"values": [], "next_values": [], "log_probs": []}
    for _ in range(12):
        with th.no_grad():
            actions, values, log_probs = model.policy(model.policy.obs_to_tensor(obs)[0])
        new_obs, rewards, dones, infos = vec_env.step(actions.numpy())
        transitions.add(PolicyInputs(obs), actions.numpy(), rewards, dones, infos)
        obs = new_obs
        next_values = model.policy.predict_values(model.policy.obs_to_tensor(obs)[0]).detach().numpy().ravel()
        for n in np.flatnonzero(dones):
            next_values[n] = 0.0
            if infos[n]["TimeLimit.truncated"]:
                final = model.policy.obs_to_tensor(infos[n]["terminal_observation"])[0]
                next_values[n] = model.policy.predict_values(final).item()
        expected["values"].append(values.numpy().ravel())
        expected["next_values"].append(next_values)
        expected["log_probs"].append(log_probs.numpy())
    assert transitions.terminated.any()
    assert transitions.truncated.any()
    actual = evaluate_transitions(model.policy, transitions, PolicyInputs(obs))
    for name, rows in expected.items():
        np.testing.assert_allclose(getattr(actual, name), np.stack(rows), rtol=1e-5, atol=1e-5, err_msg=name)


class Watch(BaseCallback):
    """Checks what a callback sees."""

    def __init__(self, stop_after=float("inf")):
        super().__init__()
        self.stop_after = stop_after
        self.rewards = []
        self.obs = None

    def _on_step(self):
        seen = self.locals
        assert {"self", "env", "rollout_buffer", "n_steps", "new_obs", "rewards", "dones", "infos"} <= seen.keys()
        assert {"actions", "clipped_actions"} <= seen.keys()
        assert seen["self"] is self.model
        assert seen["env"] is self.training_env
        assert seen["rollout_buffer"] is self.model.rollout_buffer
        assert seen["n_steps"] == (self.n_calls - 1) % 12
        n_envs = self.training_env.num_envs
        assert {len(seen[name]) for name in ("new_obs", "rewards", "dones", "infos", "actions")} == {n_envs}
        if self.obs is not None:
            np.testing.assert_array_equal(self.model._last_obs, self.obs)
        self.obs = seen["new_obs"]
        self.rewards.append(seen["rewards"])
        return self.n_calls < self.stop_after


@pytest.mark.parametrize("n_envs", [1, 2])
def test_what_callbacks_see(n_envs):
    envs, watch = make_envs(n_envs), Watch()
    make_model(fast.PPO, envs).learn(24 * n_envs, watch)
    assert watch.n_calls == 24
    for n, env in enumerate(envs):
        played = [reward for episode in env.played for reward in episode.rewards]
        np.testing.assert_array_equal(np.float32(played), np.array(watch.rewards)[:, n])


@pytest.mark.parametrize("stop_after", [1, 3, 12, 13])
def test_training_resumes_where_it_was_stopped(stop_after):
    (env,) = envs = make_envs(1)
    model = make_model(fast.PPO, envs, learning_rate=0.0)
    model.learn(24, Watch(stop_after))
    assert model.num_timesteps == stop_after
    episode_starts_next = len(env.played[-1].rewards) == 0
    seen = len(env.played[-1].observations), len(env.played)
    keep = Keep()
    model.learn(12, keep, reset_num_timesteps=False)
    (buffer,) = keep.buffers
    observations = [obs for played in env.played[seen[1] - 1 :] for obs in played.observations[: len(played.rewards)]]
    np.testing.assert_array_equal(buffer.observations[:, 0], observations[seen[0] - 1 :])
    assert buffer.episode_starts[0, 0] == episode_starts_next


class Overwrite(BaseCallback):
    """Sets the actor's bias at the start and at the end of each rollout."""

    def _set(self, number):
        with th.no_grad():
            self.model.policy.action_net.weight.zero_()
            self.model.policy.action_net.bias.copy_(1e4 * th.eye(3)[number])

    def _on_rollout_start(self):
        self._set(self.num_timesteps // 12 % 3)

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self._set(0)


def test_parameters_set_at_the_start_of_a_rollout_are_those_that_act():
    envs = make_envs(1)
    make_model(fast.PPO, envs, learning_rate=0.0).learn(36, Overwrite())
    actions = [int(action) for played in envs[0].played for action in played.actions]
    assert actions == [0] * 12 + [1] * 12 + [2] * 12


def test_actions_are_clipped_for_the_environment_only():
    space = spaces.Box(np.float32([[-0.1, -0.2]]), np.float32([[0.1, 0.3]]), (1, 2))
    env, keep = ScriptedEnv(space, *SCRIPTS), Keep()
    fast.PPO("MlpPolicy", env, n_steps=12, batch_size=12, device="cpu", seed=0).learn(12, keep)
    played = np.array([action for episode in env.played for action in episode.actions])
    stored = keep.buffers[0].actions.reshape(12, 1, 2)
    np.testing.assert_array_equal(played, np.clip(stored, space.low, space.high))
    assert not np.array_equal(played, stored)


def test_squashed_actions_are_scaled():
    space = spaces.Box(2.0, 6.0, (2,), np.float32)
    env, keep = ScriptedEnv(space, *SCRIPTS), Keep()
    fast.PPO(
        "MlpPolicy", env, n_steps=12, batch_size=12, use_sde=True, policy_kwargs={"squash_output": True}, device="cpu"
    ).learn(12, keep)
    played = np.array([action for episode in env.played for action in episode.actions])
    np.testing.assert_allclose(played, 4 + 2 * keep.buffers[0].actions[:, 0], rtol=1e-6)


@pytest.mark.parametrize("frequency", [-1, 4])
def test_noise_is_reset_as_often_as_asked_for(frequency, monkeypatch):
    env = ScriptedEnv(spaces.Box(-1, 1, (2,), np.float32), *SCRIPTS)
    model = fast.A2C("MlpPolicy", env, n_steps=12, use_sde=True, sde_sample_freq=frequency, device="cpu")
    calls, reset = [], model.policy.reset_noise
    monkeypatch.setattr(model.policy, "reset_noise", lambda n_envs: calls.append(reset(n_envs)))
    model.learn(12)
    assert len(calls) == (1 if frequency < 0 else 1 + 3)


def test_the_way_of_acting_is_announced_once(capsys):
    model = make_model(fast.PPO, make_envs(1), verbose=1, learning_rate=0.0)
    model.learn(24, log_interval=None)
    model.policy.action_net.register_forward_hook(lambda *_: None)
    model.learn(24, log_interval=None)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Choosing actions" in line]
    assert lines == [
        "Choosing actions by an MLP in NumPy",
        "Choosing actions by the policy's own forward pass, because a module has a forward hook",
    ]


def test_nothing_is_said_by_default(capsys):
    make_model(fast.PPO, make_envs(1)).learn(24)
    assert capsys.readouterr().out == ""


class Spoilt(ScriptedEnv):
    """An observation that is not a number, at the end of the first episode or as the last of the rollout."""

    bad: int

    def _observe(self):
        obs = super()._observe()
        return obs * np.float32("nan") if self.count == self.bad else obs


@pytest.mark.parametrize(
    ("script", "bad", "place"),
    [
        (Script((1.0,) * 5, truncated=True), 6, "observation with NaN or infinity after step 4 in environment 0"),
        (Script((1.0,) * 50), 13, "observation with NaN or infinity after the last step"),
        (Script((1.0,) * 50), 4, "observation nan in environment 0"),
    ],
)
def test_bad_observations_are_found_wherever_they_are(script, bad, place):
    env = Spoilt(DISCRETE, script)
    env.bad = bad
    model = make_model(fast.PPO, [env])
    with pytest.warns(RuntimeWarning, match=f"{place}.*; rollout dropped"):
        model.learn(12)
