"""One worker, in the process of the test: what it shares, and the gradient that it applies."""

import cloudpickle
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import nn
from torch.nn import functional as F

from sb3_pg_ext.algorithms.a3c import A3C
from sb3_pg_ext.algorithms.a3c.shared_state import SharedState
from sb3_pg_ext.algorithms.a3c.worker import Worker
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.workers.process import WorkerContext
from sb3_pg_ext.workers.shared_statistics import SharedRunningMeanStd, combine_into

SCRIPTS = [Script((1.0, -2.0, 3.0)), Script((0.5, 0.25), truncated=True), Script((4.0,)), Script((-1.0,) * 7)]


def employ(env=None, n_workers=1, index=0, **kwargs):
    """A model, and a worker for it that has not worked yet."""
    arguments = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}, "max_grad_norm": None, **kwargs}
    env = ScriptedEnv(spaces.Discrete(3), *SCRIPTS) if env is None else env
    model = A3C("MlpPolicy", env, **arguments)
    model._total_timesteps = 1000
    shared = SharedState.of(model.policy.optimizer, n_workers, {})
    (config,) = cloudpickle.loads(cloudpickle.dumps(model._make_configs(model.env)))
    worker = Worker(WorkerContext(index, 1, config, shared, lambda report: None))
    worker.open()
    return model, worker


def test_what_is_shared_is_shared_and_what_is_local_is_local():
    model, one = employ()
    two = Worker(WorkerContext(0, 2, one.config, one.shared, lambda report: None))
    shared = one.shared.optimizer
    assert shared.parameter.is_shared()
    assert shared.parameter.data_ptr() == two.shared.optimizer.parameter.data_ptr()
    pointers = {each.flat.data_ptr() for each in (one, two)} | {each.flat.grad.data_ptr() for each in (one, two)}
    assert len(pointers | {shared.parameter.data_ptr(), model.policy.optimizer.parameter.data_ptr()}) == 6
    for worker in (one, two):
        lowest, size = worker.flat.data_ptr(), worker.flat.numel() * 4
        for parameter in worker.policy.parameters():
            assert lowest <= parameter.data_ptr() < lowest + size
            assert 0 <= parameter.grad.data_ptr() - worker.flat.grad.data_ptr() < size


def test_a_plain_mlp_evaluates_a_rollout_once(monkeypatch):
    """With the pass that the gradient needs; beside it only what was not acted upon gets a value."""
    _, worker = employ(ScriptedEnv(spaces.Discrete(3), Script((1.0,) * 20)), n_steps=5)
    evaluated = []
    monkeypatch.setattr(
        worker, "_predict_values", lambda inputs: evaluated.append(len(inputs.observations)) or np.zeros(1)
    )
    worker.work()
    assert evaluated == [1]


def spy_on_gradient(worker):
    """The gradient and the learning rate of every step, instead of the step."""
    applied = []
    worker.shared.optimizer.apply = lambda rate: applied.append((worker.flat.grad.clone(), rate))
    return applied


def _end(played, t):
    if t + 1 < len(played.script.rewards):
        return None
    return "truncated" if played.script.truncated else "terminated"


def expected_gradient(worker, env, n_steps, start, gamma, ent_coef, vf_coef):
    """By loops over what the environment has played, and autograd on the whole policy."""
    steps = [
        (played.observations[t], played.actions[t], reward, played.observations[t + 1], _end(played, t))
        for played in env.played
        for t, reward in enumerate(played.rewards)
    ]
    chosen = range(start, start + n_steps)
    policy = worker.policy

    def value(obs):
        with th.no_grad():
            return policy.predict_values(th.from_numpy(obs)[None]).item()

    returns = {}
    for t in reversed(chosen):
        _, _, reward, following, end = steps[t]
        if end == "terminated":
            tail = 0.0
        else:
            tail = value(following) if end == "truncated" or t == chosen[-1] else returns[t + 1]
        returns[t] = reward + gamma * tail
    observations = th.from_numpy(np.stack([steps[t][0] for t in chosen]))
    actions = th.as_tensor(np.stack([steps[t][1] for t in chosen]))
    targets = th.tensor([returns[t] for t in chosen])
    values, log_probs, entropies = policy.evaluate_actions(observations, actions)
    loss = (
        -(log_probs * (targets - values.flatten()).detach()).mean()
        + vf_coef * F.mse_loss(values.flatten(), targets)
        - ent_coef * entropies.mean()
    )
    return th.cat([g.flatten() for g in th.autograd.grad(loss, list(policy.parameters()))])


@pytest.mark.parametrize(("activation", "engine"), [(nn.Tanh, ArrayBackend), (nn.Softplus, AutogradBackend)])
def test_gradients_of_n_step_returns_with_every_kind_of_end(activation, engine):
    """Terminations, truncations and cut rollouts, one after the other, by both ways of computing."""
    _, worker = employ(
        n_steps=5,
        gamma=0.9,
        ent_coef=0.03,
        vf_coef=0.7,
        policy_kwargs={"net_arch": [8], "activation_fn": activation},
    )
    assert type(worker.engine) is engine
    env = worker.env.envs[0].unwrapped
    env.played = env.played[-1:]
    applied = spy_on_gradient(worker)
    for update in range(8):
        worker.work()
        expected = expected_gradient(worker, env, 5, 5 * update, 0.9, 0.03, 0.7)
        th.testing.assert_close(applied[-1][0], expected, rtol=1e-4, atol=1e-5)


def test_workers_have_the_engine_that_was_asked_for():
    assert [type(employ(engine=name)[1].engine) for name in ("array", "autograd")] == [ArrayBackend, AutogradBackend]


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_both_ways_of_computing_agree(name):
    _, worker = employ(ScriptedEnv(ACTION_SPACES[name], *SCRIPTS), n_steps=6, ent_coef=0.1)
    applied = spy_on_gradient(worker)
    worker.take_parameters()
    transitions = worker._collect()
    for engine in ("array", "autograd"):
        worker.engine, _ = make_backend(worker.policy, engine, worker.flat.grad.numpy())
        worker._update(transitions)
    th.testing.assert_close(applied[0][0], applied[1][0], rtol=1e-4, atol=1e-6)
    assert applied[0][0].norm() > 0


def test_clipping():
    gradients = []
    for limit in (None, 1e-2):
        _, worker = employ(max_grad_norm=limit)
        applied = spy_on_gradient(worker)
        worker.work()
        gradients.append(applied[0][0])
    assert gradients[1].norm() == pytest.approx(1e-2, rel=1e-3)
    th.testing.assert_close(F.normalize(gradients[0], dim=0), F.normalize(gradients[1], dim=0))


def test_the_learning_rate_follows_the_steps_of_all_workers():
    _, worker = employ(n_steps=5, learning_rate=lambda remaining: remaining)
    applied = spy_on_gradient(worker)
    worker.work()
    worker.shared.steps.array[:] += 100
    worker.work()
    assert [rate for _, rate in applied] == pytest.approx([1 - 5 / 1000, 1 - 110 / 1000])


def test_policy_lag():
    _, worker = employ()
    spy_on_gradient(worker)
    update = worker._update

    def update_late(transitions):
        worker.shared.updates.array[0] += 3
        update(transitions)

    worker._update = update_late
    worker.work()
    worker.outbox.flush()
    worker.work()
    assert worker.outbox._updates[-1].lag == 3


def test_bad_gradients_are_not_applied():
    _, worker = employ(learning_rate=lambda remaining: 1e-3 if remaining == 1 else float("nan"))
    before = worker.shared.optimizer.parameter.detach().clone()
    worker.work()
    assert th.equal(before, worker.shared.optimizer.parameter)
    assert (worker.dropped_in_a_row, worker.skipped_in_a_row) == (0, 1)


def test_statistics_of_several_workers_are_those_of_all_their_data():
    rng = np.random.default_rng(0)
    base = RunningMeanStd(shape=(3,))
    base.update(rng.normal(5, 2, (10, 3)))
    slots = np.zeros((2, 7))
    workers = [SharedRunningMeanStd(base, slots, index) for index in range(2)]
    data = rng.normal(1, 3, (2, 50, 3))
    for batch in range(5):
        for worker, own in zip(workers, data, strict=True):
            worker.update(own[10 * batch : 10 * batch + 10])
            worker.exchange()
    workers[0].exchange()
    expected, combined = base.copy(), base.copy()
    expected.update(data.reshape(-1, 3))
    combine_into(combined, slots)
    replacement = SharedRunningMeanStd(base, slots, 1)
    for actual in (*workers, combined, replacement):
        assert actual.count == pytest.approx(expected.count)
        np.testing.assert_allclose(actual.mean, expected.mean, rtol=1e-10)
        np.testing.assert_allclose(actual.var, expected.var, rtol=1e-10)


def test_states_are_discounted_over_the_ends_of_rollouts():
    """Episodes of 3, 2, 1, 7, 3, … steps; without a discount of states the same advantages are not weighted."""
    gradients = []
    for discounted in (False, True):
        _, worker = employ(n_steps=4, gamma=0.5, discount_state_distribution=discounted)
        applied, weights, weigh = spy_on_gradient(worker), [], worker._weigh_states

        def note(transitions, weigh=weigh, weights=weights):
            weights.append(weigh(transitions))
            return weights[-1]

        worker._weigh_states = note
        for _ in range(4):
            worker.work()
        gradients.append(applied[0][0])
        t = [t for n in (3, 2, 1, 7, 3) for t in range(n)]
        expected = 0.5 ** np.array(t) if discounted else np.ones(16)
        np.testing.assert_allclose(np.concatenate([np.broadcast_to(w, (4, 1))[:, 0] for w in weights]), expected)
    assert not th.allclose(*gradients)
