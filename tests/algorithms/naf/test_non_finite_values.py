"""Non-finite values never reach the parameters, whatever made them."""

import copy

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_pg_ext import NAF

TINY = {"buffer_size": 400, "learning_starts": 10, "batch_size": 16, "device": "cpu", "seed": 0}

each_engine = pytest.mark.parametrize("engine", ["array", "autograd"])
each_optimizer = pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.SGD, th.optim.RMSprop])


def make_model(env=None, **kwargs):
    policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
    return NAF("MlpPolicy", RandomEnv() if env is None else env, policy_kwargs=policy_kwargs, **{**TINY, **kwargs})


def snapshot(model):
    """Parameters, target network and running statistics, and what the optimiser remembers."""
    parameters = copy.deepcopy(model.get_parameters())
    parameters["policy.optimizer"].pop("param_groups")  # the learning rate is set before an update
    return parameters


def assert_unchanged(model, before):
    th.testing.assert_close(snapshot(model), before, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
@each_engine
@each_optimizer
def test_a_learning_rate_that_is_too_large(engine, optimizer_class):
    model = make_model(engine=engine, learning_rate=3e38, policy_kwargs={"optimizer_class": optimizer_class})
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"norm of the parameters (inf|nan)\. That makes 3 in a row"):
        model.learn(100)
    assert model._n_updates == 0
    assert model.n_skipped_updates == 3
    assert_unchanged(model, before)


@each_engine
@each_optimizer
def test_a_single_step_that_is_too_long(engine, optimizer_class):
    """It is undone, and training goes on from where it was."""
    kwargs = {"engine": engine, "policy_kwargs": {"optimizer_class": optimizer_class}}
    model = make_model(**kwargs).learn(60)
    before, vector, n_updates = snapshot(model), model.policy.parameters_to_vector(), model._n_updates
    model.lr_schedule = lambda _: 3e38
    with pytest.warns(RuntimeWarning, match="norm of the parameters (inf|nan); update skipped, parameters unchanged"):
        model.train(1, 16)
    assert_unchanged(model, before)
    assert (model._n_updates, model.n_skipped_updates) == (n_updates, 1)
    twin = make_model(**kwargs).learn(60)
    for each in (model, twin):
        each.lr_schedule = lambda _: 1e-3
        np.random.seed(0)
        each.train(5, 16)
    assert_unchanged(model, snapshot(twin))
    assert np.abs(model.policy.parameters_to_vector() - vector).max() > 1e-6


@each_engine
def test_a_first_step_that_is_too_long(engine):
    """The optimiser has nothing to remember afterwards, as before."""
    model = make_model(engine=engine)
    model.lr_schedule = lambda _: 3e38 if model.num_timesteps == 11 else 1e-3
    with pytest.warns(RuntimeWarning, match="after 11 steps: norm of the parameters") as warned:
        model.learn(60)
    assert len(warned) == 1
    assert model._n_updates == 49
    steps = {int(state["step"]) for state in model.policy.optimizer.state.values()}
    assert steps == {49}
    assert np.isfinite(model.policy.parameters_to_vector()).all()


class Huge(RandomEnv):
    """Finite rewards that overflow together, from the 20th step on."""

    count = 0

    def step(self, action):
        obs, _, *rest = super().step(action)
        self.count += 1
        return obs, 3e38 if self.count >= 20 else 1.0, *rest


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("n_envs", [1, 2])
@each_engine
def test_finite_rewards_that_overflow_together(n_steps, n_envs, engine):
    model = make_model(DummyVecEnv([Huge] * n_envs), n_steps=n_steps, gamma=1.0, engine=engine, batch_size=64)
    with pytest.raises(ValueError, match=r"norm of the gradient (inf|nan)\. That makes 3 in a row"):
        model.learn(400)
    assert model._n_updates >= 9
    assert np.isfinite(model.policy.parameters_to_vector()).all()
    assert model.num_timesteps < 40 * n_envs


class BatchNorm(nn.Sequential):
    def __init__(self, space, **_):
        super().__init__(nn.BatchNorm1d(space.shape[0]))
        self.features_dim = space.shape[0]


def test_running_statistics_are_put_back():
    model = make_model(policy_kwargs={"features_extractor_class": BatchNorm}).learn(30)
    before = snapshot(model)
    model.replay_buffer.rewards[:] = np.nan
    with pytest.warns(RuntimeWarning, match="norm of the gradient nan; update skipped"):
        model.train(1, 16)
    assert_unchanged(model, before)


def test_the_log_after_an_update_that_was_undone():
    model = make_model().learn(30)
    assert model._undo.distance() > 0
    model.replay_buffer.rewards[:] = np.nan
    with pytest.warns(RuntimeWarning, match="update skipped"):
        model.train(1, 16)
    assert model._undo.distance() == 0
