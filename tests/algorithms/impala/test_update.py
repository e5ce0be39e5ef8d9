"""The learner's gradient, with actors in the process of the test."""

import copy

import cloudpickle
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext import IMPALA
from sb3_pg_ext.algorithms.impala.batches import Batch
from sb3_pg_ext.algorithms.impala.unrolls import UnrollLayout
from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.estimators import VTrace
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.rollouts.assessment import assess
from sb3_pg_ext.workers.actors import Actors, Delivery

SCRIPTS = [Script((1.0, -2.0, 3.0)), Script((0.5, 0.25), truncated=True), Script((4.0,)), Script((-1.0,) * 7)]
SMALL = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}, "max_grad_norm": 1e9}


class Here(Actors):
    """Actors in this process, which work when they are waited for."""

    slots = {}  # noqa: RUF012

    def __init__(self, model, seed=1):
        configs = cloudpickle.loads(cloudpickle.dumps(model._make_configs(model.env, use_masking=False)))
        super().__init__(len(configs))
        self.actors = [config(index, seed + index, {}) for index, config in enumerate(configs)]
        self.layout = layout_of(model)
        self.requests = []

    def start(self):
        pass

    def publish(self, version, parameters):
        self.version, self.parameters = version, parameters

    def request(self, actor):
        self.n_requested[actor] += 1
        self.requests.append((actor, self.version, self.parameters))

    def receive(self, timeout):
        actor, version, parameters = self.requests.pop(0)
        self.n_requested[actor] -= 1
        arrays = [np.full(shape, 7, dtype) for shape, dtype in self.layout.arrays]
        news = self.actors[actor].work(parameters, arrays, lambda: True)
        return [Delivery(actor, version, arrays, news, 0.0, 1.0)]

    def stop(self):
        for actor in self.actors:
            actor.close()


def layout_of(model):
    spaces_ = model.observation_space, model.action_space
    return UnrollLayout(*spaces_, model.n_steps, model.n_envs_per_actor, use_masking=False)


def employ(monkeypatch, model):
    """Let a model have such actors."""

    def start(env, use_masking):
        actors = Here(model)
        actors.publish(0, model._parameters())
        monkeypatch.setattr(model, "_make_actors", lambda *args: actors)
        start_actors(env, use_masking)

    start_actors = model._start_actors
    monkeypatch.setattr(model, "_start_actors", start)


def gradient(model):
    return th.cat([parameter.grad.flatten() for parameter in model.policy.parameters()])


def spy_on_gradients(monkeypatch, model):
    """The gradient of every step, which is not made."""
    gradients = []
    monkeypatch.setattr(model.policy.optimizer, "step", lambda *_: gradients.append(gradient(model).clone()))
    return gradients


@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("name", ["Discrete", "Box", "MultiBinary"])
def test_without_lag_the_gradient_is_that_of_a2c(monkeypatch, engine, name):
    """SB3's own, over the same steps, terminations, truncations and cut episodes among them."""
    env = ScriptedEnv(ACTION_SPACES[name], *SCRIPTS)
    model = IMPALA(
        "MlpPolicy",
        env,
        n_steps=9,
        batch_size=1,
        max_lag=0,
        ent_coef=0.03,
        vf_coef=0.7,
        gamma=0.9,
        engine=engine,
        **SMALL,
    )
    employ(monkeypatch, model)
    ours = spy_on_gradients(monkeypatch, model)
    model.learn(9 * 4, log_interval=None)
    arguments = {**copy.deepcopy(SMALL), "n_steps": 9, "ent_coef": 0.03, "vf_coef": 0.7, "gamma": 0.9}
    other = A2C("MlpPolicy", copy.deepcopy(env), **arguments)
    other.policy.load_state_dict(model.policy.state_dict())
    theirs = spy_on_gradients(monkeypatch, other)
    seed_as_an_actor(other, policy_factory(model))
    other.learn(9 * 4, log_interval=None)
    assert len(ours) == len(theirs) == 4
    for one, another in zip(ours, theirs, strict=True):
        th.testing.assert_close(one, another, rtol=0, atol=1e-5)
        assert another.norm() > 0.1


def seed_as_an_actor(model, make_policy):
    """The random numbers of an actor that was made with seed 1, and has made its policy."""
    set_up_learning = model._setup_learn

    def set_up(*args, **kwargs):
        result = set_up_learning(*args, **kwargs)
        th.manual_seed(1)
        make_policy()
        return result

    model._setup_learn = set_up


@pytest.mark.parametrize(("n_envs", "n_envs_per_actor", "batch_size"), [(2, 1, 2), (4, 2, 2), (3, 3, 1)])
def test_several_environments_are_as_several_columns(monkeypatch, n_envs, n_envs_per_actor, batch_size):
    """A batch of unrolls has the gradient that the mean over all of their steps has."""
    env = FastDummyVecEnv([lambda: ScriptedEnv(spaces.Discrete(3), *SCRIPTS)] * n_envs)
    model = IMPALA(
        "MlpPolicy", env, n_steps=6, batch_size=batch_size, n_envs_per_actor=n_envs_per_actor, max_lag=0, **SMALL
    )
    assert model.n_actors == n_envs // n_envs_per_actor
    employ(monkeypatch, model)
    gradients, batches = spy_on_gradients(monkeypatch, model), []
    of = Batch.of
    monkeypatch.setattr(Batch, "of", lambda unrolls, version: batches.append(unrolls) or of(unrolls, version))
    model.learn(6 * n_envs, log_interval=None)
    parts = []
    for unroll in batches[0]:
        batch = of([unroll], 0)
        model._descend(batch, *batch.steps(model.action_space))
        parts.append(gradients[-1])
    th.testing.assert_close(gradients[0], th.stack(parts).mean(0), rtol=1e-4, atol=1e-5)
    assert gradients[0].norm() > 0.1


def assessed(policy, unrolls, estimator):
    batch = Batch.of(unrolls, 0)
    return assess(policy, batch.transitions, batch.last_inputs, estimator, 0.9, behaviour_log_probs=batch.log_probs)


def collected(monkeypatch, n_steps, n_updates, **kwargs):
    """Unrolls of a policy, and another policy, which learns from them."""
    model = IMPALA("MlpPolicy", ScriptedEnv(spaces.Discrete(3), *SCRIPTS), n_steps=n_steps, batch_size=1, **SMALL)
    here = Here(model)
    here.publish(0, model._parameters())
    unrolls = []
    for _ in range(n_updates):
        here.request(0)
        (delivery,) = here.receive(0)
        unroll = here.layout.view(delivery.arrays)
        unroll.transitions.final_observations = delivery.news.final_observations
        unrolls.append(unroll)
    policy = copy.deepcopy(model.policy)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=th.Generator().manual_seed(0)))
    return policy, unrolls


def test_vtrace_over_trajectories_side_by_side_is_that_of_each_alone(monkeypatch):
    policy, unrolls = collected(monkeypatch, 7, 5)
    estimator = VTrace(rho_bar=1.2, c_bar=0.9, lambda_=0.95)
    evaluation, together = assessed(policy, unrolls, estimator)
    ratios = np.exp(evaluation.log_probs - Batch.of(unrolls, 0).log_probs)
    assert ratios.max() > 1.2 > 0.8 > ratios.min()
    for n, unroll in enumerate(unrolls):
        _, alone = assessed(policy, [unroll], estimator)
        np.testing.assert_allclose(together.advantages[:, n], alone.advantages[:, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together.returns[:, n], alone.returns[:, 0], rtol=1e-5, atol=1e-6)


def reference(rewards, values, next_values, terminated, ends, ratios, gamma, rho_bar, c_bar, lambda_):
    """V-trace's definition as a double sum, with every product written out, in double precision."""
    n_steps = len(rewards)
    targets = np.zeros(n_steps)
    for s in range(n_steps):
        total, trace = 0.0, 1.0
        for t in range(s, n_steps):
            delta = rewards[t] + gamma * (0.0 if terminated[t] else next_values[t]) - values[t]
            total += gamma ** (t - s) * trace * min(rho_bar, ratios[t]) * delta
            if ends[t]:
                break
            trace *= lambda_ * min(c_bar, ratios[t])
        targets[s] = values[s] + total
    advantages = np.zeros(n_steps)
    for t in range(n_steps):
        following = 0.0 if terminated[t] else next_values[t]
        if not ends[t] and t + 1 < n_steps:
            following = lambda_ * targets[t + 1] + (1 - lambda_) * next_values[t]
        advantages[t] = rewards[t] + gamma * following - values[t]
    return targets, advantages


@th.no_grad()
def test_truncation_at_an_unrolls_end_bootstraps_with_the_value_of_the_right_observation(monkeypatch):
    """The last episode of an unroll is cut by a time limit in its very last step; the observation that follows belongs
    to the next episode."""
    policy, unrolls = collected(monkeypatch, 5, 4)
    (unroll,) = [each for each in unrolls if each.transitions.truncated[-1, 0]]
    assert [*unroll.transitions.final_observations] == [(4, 0)]
    policy = policy.double()

    def value(observations):
        return policy.value_net(policy.mlp_extractor.forward_critic(th.as_tensor(observations).double())).numpy()[:, 0]

    transitions = unroll.transitions
    observations = transitions.observations[:, 0]
    values = value(observations)
    final = value(transitions.final_observations[4, 0][None])
    logits = policy.action_net(policy.mlp_extractor.forward_actor(th.as_tensor(observations).double()))
    log_probs = logits.log_softmax(1).gather(1, th.as_tensor(transitions.actions[:, 0])).numpy()[:, 0]
    ratios = np.exp(log_probs - unroll.log_probs[:, 0])
    expected = reference(
        transitions.rewards[:, 0].astype(float), values, np.append(values[1:], final), transitions.terminated[:, 0],
        transitions.ends[:, 0], ratios, 0.9, 1.0, 1.0, 1.0,
    )  # fmt: skip
    following = value(unroll.last_observations)
    _, estimate = assessed(policy.float(), [unroll], VTrace())
    np.testing.assert_allclose(estimate.returns[:, 0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(estimate.advantages[:, 0], expected[1], rtol=1e-5, atol=1e-5)
    assert abs(final - following) > 1e-2


def test_the_policy_gradient_has_the_ratio_that_vtrace_leaves_to_it(monkeypatch):
    """Against autograd over the loss as the class's docstring has it, with a policy that has moved."""
    model = IMPALA(
        "MlpPolicy", ScriptedEnv(spaces.Discrete(3), *SCRIPTS), n_steps=7, batch_size=1, gamma=0.9, ent_coef=0.02,
        advantage_estimator_kwargs={"rho_bar": 1.1, "c_bar": 0.8}, **SMALL,
    )  # fmt: skip
    policy, unrolls = collected(monkeypatch, 7, 3)
    model.policy.load_state_dict(policy.state_dict())
    employ(monkeypatch, model)
    gradients = spy_on_gradients(monkeypatch, model)
    model.learn(7, log_interval=None)
    batch = Batch.of(unrolls, 0)
    inputs, actions = batch.steps(model.action_space)
    learned = model._descend(batch, inputs, actions)
    values, log_probs, entropies = model.policy.evaluate_actions(
        th.as_tensor(inputs.observations), th.as_tensor(actions)[:, 0]
    )
    advantages, targets = (
        th.as_tensor(array.reshape(-1)) for array in (learned.estimate.advantages, learned.estimate.returns)
    )
    rho = (log_probs.detach() - th.as_tensor(batch.log_probs.reshape(-1))).exp().clamp(max=1.1)
    assert rho.max() == pytest.approx(1.1)
    loss = (
        -(rho * log_probs * advantages).mean() - 0.02 * entropies.mean() + 0.5 * (values[:, 0] - targets).pow(2).mean()
    )
    model.policy.optimizer.zero_grad()
    loss.backward()
    th.testing.assert_close(gradients[-1], gradient(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("estimator", "corrects"), [("vtrace", True), ("gae", False), (VTrace(c_bar=0.5), True)])
def test_estimators_are_told_apart_by_what_they_require(estimator, corrects):
    model = IMPALA("MlpPolicy", RandomEnv(), advantage_estimator=estimator, **SMALL)
    assert model._corrects is corrects


def lags_of(monkeypatch, **kwargs):
    env = FastDummyVecEnv([RandomEnv] * kwargs.pop("n_envs", 1))
    model = IMPALA("MlpPolicy", env, n_steps=4, **SMALL, **kwargs)
    employ(monkeypatch, model)
    lags, of = [], Batch.of

    def note(unrolls, version):
        batch = of(unrolls, version)
        lags.append(batch.lags.tolist())
        return batch

    monkeypatch.setattr(Batch, "of", note)
    model.learn(4 * 12 * model.n_envs, log_interval=None)
    return lags


def test_a_single_actor_is_one_update_behind(monkeypatch):
    assert lags_of(monkeypatch, batch_size=1)[:5] == [[0], [1], [1], [1], [1]]
    assert lags_of(monkeypatch, batch_size=3)[:3] == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(("max_lag", "n_envs", "batch_size"), [(0, 1, 1), (0, 4, 2), (1, 4, 1), (3, 4, 1)])
def test_a_maximal_lag_is_kept(monkeypatch, max_lag, n_envs, batch_size):
    lags = lags_of(monkeypatch, max_lag=max_lag, n_envs=n_envs, batch_size=batch_size)
    assert max(max(each) for each in lags) == max_lag


def test_replayed_unrolls_come_on_top_and_grow_older(monkeypatch):
    lags = lags_of(monkeypatch, batch_size=2, max_lag=3, replay_size=6, replay_ratio=2)
    assert [len(each) for each in lags[:4]] == [2, 4, 6, 6]
    assert all(max(each) <= 3 for each in lags)
    assert max(lags[5][2:]) > 1


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_statistics_of_normalization_are_those_of_all_actors(monkeypatch):
    """Through real processes: what they have seen is seen here."""
    env = VecNormalize(FastDummyVecEnv([RandomEnv] * 2))
    model = IMPALA("MlpPolicy", env, n_steps=8, batch_size=2, max_lag=0, start_method="fork", **SMALL)
    before = env.obs_rms.count
    model.learn(64)
    assert env.obs_rms.count - before >= 64
    assert env.ret_rms.count >= 64


@pytest.mark.parametrize("space", ["Box", "Dict", "image"])
def test_layouts_hold_what_actors_make(monkeypatch, space):
    policy = {"Dict": "MultiInputPolicy", "image": "CnnPolicy"}.get(space, "MlpPolicy")
    env = FastDummyVecEnv([lambda: RandomEnv(observation_space=OBSERVATION_SPACES[space])] * 2)
    model = IMPALA(policy, env, n_steps=5, n_envs_per_actor=2, batch_size=1, seed=0, device="cpu")
    here = Here(model)
    here.publish(0, model._parameters())
    here.request(0)
    (delivery,) = here.receive(0)
    unroll = here.layout.view(delivery.arrays)
    assert unroll.transitions.rewards.shape == unroll.log_probs.shape == (5, 2)
    batch = Batch.of([unroll, unroll], 0)
    assert batch.transitions.actions.shape[:2] == (5, 4)
    evaluation, _ = assess(model.policy, batch.transitions, batch.last_inputs, VTrace(), 0.9, batch.log_probs)
    np.testing.assert_allclose(evaluation.log_probs, batch.log_probs, rtol=1e-4, atol=1e-5)
