"""One update, and the targets and values in it, against slow and obvious versions."""

import math

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext import NAF
from sb3_pg_ext.algorithms.naf.paths import paths

ACTIONS = spaces.Box(-2, 2, (2,), np.float32)


def make_model(env, **kwargs):
    arguments = {"batch_size": 8, "buffer_size": 200, "learning_starts": 16, "gamma": 0.9, **kwargs}
    return NAF("MlpPolicy", env, seed=0, device="cpu", **{"policy_kwargs": {"net_arch": [8]}, **arguments})


def fill(model, steps=30):
    """Collect transitions without any update."""
    model.learning_starts = 10**9
    model.learn(steps)
    return model


def sample_of_everything(model):
    """A batch that holds every transition once."""
    return model.replay_buffer._get_samples(np.arange(model.replay_buffer.pos))


def values_and_q(model, batch):
    """V and Q, in float64 and one by one, from the networks' outputs for actions of two dimensions."""
    values, outputs = model.policy.critic(batch.observations)
    q = values.double()
    advantages = th.zeros_like(q)
    for b, h in np.ndindex(*values.shape):
        x = outputs[b, h].double()
        (diagonal_0, diagonal_1), below = th.exp(4 * th.tanh(x[2:4] / 4)), th.tanh(x[4])
        rows = [[diagonal_0, 0 * below], [diagonal_1 * below, diagonal_1]]
        factor = th.stack([th.stack(row) for row in rows])
        difference = batch.actions[b].double() - th.tanh(x[:2])
        advantages[b, h] = -0.5 * difference @ (factor @ factor.T) @ difference
    return values, q + advantages


SCRIPTS = [
    Script((1.0, -2.0, 3.0)),
    Script((0.5, 0.25), truncated=True),
    Script((4.0,)),
    Script((-1.0,), truncated=True),
]


@pytest.mark.parametrize("double", [False, True])
def test_the_target_with_every_kind_of_end(double):
    env = ScriptedEnv(ACTIONS, *SCRIPTS)
    model = fill(make_model(env, double=double))
    batch = sample_of_everything(model)
    with th.no_grad():
        for parameter in model.policy.value_target.parameters():
            parameter.normal_()
        next_values = model.policy.value_target(batch.next_observations).min(1).values
    model._improve(batch)

    steps = [
        (reward, episode.observations[t + 1], t + 1 == len(episode.script.rewards) and not episode.script.truncated)
        for episode in env.played
        for t, reward in enumerate(episode.rewards)
    ]
    assert len(steps) == len(batch.rewards)
    assert sum(terminated for *_, terminated in steps) > 2
    for n, (reward, next_observation, terminated) in enumerate(steps):
        np.testing.assert_array_equal(batch.next_observations[n], next_observation)
        expected = reward if terminated else reward + 0.9 * next_values[n].item()
        assert model._latest.targets[n].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_target_of_several_steps():
    env = ScriptedEnv(ACTIONS, *SCRIPTS)
    model = fill(make_model(env, n_steps=2))
    assert isinstance(model.replay_buffer, NStepReplayBuffer)
    batch = sample_of_everything(model)
    with th.no_grad():
        next_values = model.policy.value_target(batch.next_observations).flatten()
    model._improve(batch)
    rows = iter(range(len(batch.rewards)))
    for episode in env.played[:-1]:
        rewards, truncated = episode.script.rewards, episode.script.truncated
        for t in range(len(rewards)):
            n, used = next(rows), rewards[t : t + 2]
            expected = sum(0.9**k * reward for k, reward in enumerate(used))
            if t + 2 < len(rewards) or truncated:
                expected += 0.9 ** len(used) * next_values[n].item()
            assert model._latest.targets[n].item() == pytest.approx(expected, rel=1e-5)


def everything(model):
    """The paths from every transition of a single environment."""
    places = np.arange(model.replay_buffer.size())
    return paths(model.replay_buffer, places, np.zeros_like(places), model.get_vec_normalize_env())


@pytest.mark.parametrize("buffer_size", [200, 23])
@pytest.mark.parametrize("normalized", [False, True])
def test_paths_are_sb3s_transitions_of_several_steps(buffer_size, normalized):
    env = DummyVecEnv([lambda: ScriptedEnv(ACTIONS, *SCRIPTS)])
    model = fill(make_model(VecNormalize(env) if normalized else env, n_steps=3, buffer_size=buffer_size))
    buffer = model.replay_buffer
    samples, theirs = everything(model), buffer._get_samples(np.arange(buffer.size()), model.get_vec_normalize_env())
    for ours, expected in zip(samples[:6], theirs, strict=True):
        th.testing.assert_close(ours, expected)


@pytest.mark.parametrize("n_steps", [2, 4])
def test_corrected_targets_are_exact_whatever_acted(n_steps):
    """Where rewards are such that V and Q are the optimal ones, every target is the Q of the action taken."""
    model = fill(make_model(ScriptedEnv(ACTIONS, *SCRIPTS), n_steps=n_steps, n_step_correction=True))
    model.policy.value_target.load_state_dict(model.policy.critic.value.state_dict())
    buffer = model.replay_buffer
    model.replay_buffer.n_steps = 1
    single = everything(model)
    with th.no_grad():
        _, q = values_and_q(model, single)
        next_values = model.policy.critic(single.next_observations)[0].double()
    buffer.rewards[:30] = q - 0.9 * (1 - single.dones) * next_values
    buffer.n_steps = n_steps
    model._improve(everything(model))
    np.testing.assert_allclose(model._latest.targets, q, atol=1e-4)
    model = fill(make_model(ScriptedEnv(ACTIONS, *SCRIPTS), n_steps=n_steps))
    model.replay_buffer.rewards[:30] = buffer.rewards[:30]
    model.policy.value_target.load_state_dict(model.policy.critic.value.state_dict())
    model._improve(sample_of_everything(model))
    assert (model._latest.targets - q.numpy() < -0.1).any()


def test_two_heads_are_corrected_by_the_smaller_loss():
    model = fill(make_model(ScriptedEnv(ACTIONS, *SCRIPTS), n_steps=2, double=True, n_step_correction=True))
    samples = everything(model)
    with th.no_grad():
        values, q = values_and_q(
            model, samples._replace(observations=samples.path_observations, actions=samples.path_actions)
        )
        next_values = model.policy.value_target(samples.next_observations).min(1, keepdim=True).values
        lost = (values - q).min(1, keepdim=True).values
        expected = samples.rewards + samples.path_discounts * lost
        expected += (1 - samples.dones) * samples.discounts * next_values
    model._improve(samples)
    np.testing.assert_allclose(model._latest.targets, expected, rtol=1e-4, atol=1e-5)


def test_training_with_corrected_targets():
    for kwargs in ({}, {"engine": "autograd"}):
        model = make_model(RandomEnv(ACTIONS), n_steps=3, n_step_correction=True, **kwargs).learn(40)
        assert model._n_updates == 24
    model.replay_buffer = make_model(RandomEnv(ACTIONS)).replay_buffer
    with pytest.raises(ValueError, match="n_step_correction=True with a ReplayBuffer; allowed: an NStepReplayBuffer"):
        model.train(1)


@pytest.mark.parametrize("double", [False, True])
def test_values(double):
    model = fill(make_model(RandomEnv(ACTIONS), double=double))
    batch = sample_of_everything(model)
    values, q = values_and_q(model, batch)
    model._improve(batch)
    assert values.shape == (30, 1 + double)
    np.testing.assert_allclose(model._latest.q_values, q.detach(), rtol=1e-5, atol=1e-5)
    assert (model._latest.q_values <= values.detach().numpy()).all()


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("max_grad_norm", [None, 0.01])
def test_a_step_of_gradient_descent(loss, double, max_grad_norm):
    model = fill(
        make_model(
            RandomEnv(ACTIONS),
            loss=loss,
            double=double,
            max_grad_norm=max_grad_norm,
            learning_rate=0.1,
            policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.SGD},
        )
    )
    batch = sample_of_everything(model)
    parameters = list(model.policy.critic.parameters())
    _, q = values_and_q(model, batch)
    next_values = model.policy.value_target(batch.next_observations).min(1, keepdim=True).values
    errors = q - (batch.rewards + 0.9 * (1 - batch.dones) * next_values).detach()
    quadratic = errors.square() if loss == "mse" else 0.5 * errors.square()
    linear = quadratic if loss == "mse" else errors.abs() - 0.5
    expected_loss = th.where(errors.abs() < 1, quadratic, linear).mean(0).sum()
    gradients = th.autograd.grad(expected_loss, parameters)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    scale = 1 if max_grad_norm is None else min(1, max_grad_norm / norm)
    expected = [p.detach() - 0.1 * scale * gradient for p, gradient in zip(parameters, gradients, strict=True)]

    model.replay_buffer.sample = lambda *args, **kwargs: batch
    model.train(1)
    assert model._latest.loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert model._latest.grad_norm == pytest.approx(norm, rel=1e-5)
    assert model._undo.distance() == pytest.approx(0.1 * scale * norm, rel=1e-4)
    for parameter, by_hand in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach(), by_hand, rtol=1e-5, atol=1e-6)


def test_the_target_network_follows():
    model = fill(make_model(RandomEnv(), tau=0.25, target_update_interval=3))
    model._rollout_is_good = True
    target = [p.detach().clone() for p in model.policy.value_target.parameters()]
    model.train(2, 8)
    for before, now in zip(target, model.policy.value_target.parameters(), strict=True):
        assert th.equal(before, now)
    model.train(1, 8)
    trios = zip(target, model.policy.value_target.parameters(), model.policy.critic.value.parameters(), strict=True)
    for before, now, online in trios:
        np.testing.assert_allclose(now.detach(), (0.75 * before + 0.25 * online).detach(), rtol=1e-6, atol=1e-7)


class BatchNorm(th.nn.Sequential):
    def __init__(self, space, **_):
        super().__init__(th.nn.BatchNorm1d(space.shape[0]))
        self.features_dim = space.shape[0]


def test_running_statistics_are_copied():
    model = fill(make_model(RandomEnv(), policy_kwargs={"net_arch": [4], "features_extractor_class": BatchNorm}))
    model._rollout_is_good = True
    model.train(3, 8)
    of_target, online = (net.features_extractor[0] for net in (model.policy.value_target, model.policy.critic.value))
    assert th.equal(of_target.running_mean, online.running_mean)
    assert of_target.running_mean.abs().sum() > 0
    assert not of_target.training


@pytest.mark.parametrize("double", [False, True])
def test_the_best_action_has_the_largest_value(double):
    model = make_model(RandomEnv(ACTIONS), double=double)
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    best, _ = model.predict(observations, deterministic=True)
    scaled = th.as_tensor(model.policy.scale_action(best))
    with th.no_grad():
        _, outputs = model.policy.critic(th.as_tensor(observations))
        np.testing.assert_allclose(outputs[:, 0, :2].tanh(), scaled, rtol=1e-5, atol=1e-6)
