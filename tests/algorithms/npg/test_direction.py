"""The natural gradient as the weights of a compatible critic."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import NPG
from sb3_pg_ext.algorithms.npg.compatible import fit_episodes, scores_of
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.scores import ScoreFunctions


def make(direction="compatible", n_envs=2, **kwargs):
    env = DummyVecEnv([lambda: RandomEnv(ACTION_SPACES["Discrete"])] * n_envs)
    arguments = {"n_steps": 40, "batch_size": 16, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    return NPG("MlpPolicy", env, direction=direction, **{**arguments, **kwargs})


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_the_step_is_along_the_weights(engine):
    """θ' − θ = α ω with (Ψ̃ᵀΨ̃/B + λI) ω = Ψ̃ᵀA/B, where Ψ̃ are the centred scores."""
    model = make(engine=engine, cg_damping=0.2, step="fixed", step_size=0.01, n_critic_updates=1)
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(80)
    buffer = model.rollout_buffer
    after = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.policy.load_state_dict(before, strict=False)
    steps = Steps.of(buffer, model.action_space)
    functions = ScoreFunctions(model.policy, steps.inputs, steps.actions)
    psi, y = functions[:].astype(float), steps.advantages.astype(float)
    y = (y - y.mean()) / (y.std(ddof=1) + 1e-8)
    centred = psi - psi.mean(0)
    matrix = centred.T @ centred / len(y) + 0.2 * np.eye(psi.shape[1])
    expected = 0.01 * np.linalg.solve(matrix, centred.T @ y / len(y))
    own = dict(model.policy.named_parameters())
    names = [name for p in functions.parameters for name in own if own[name] is p]
    moved = th.cat([(after[name] - before[name]).flatten() for name in names])
    np.testing.assert_allclose(moved, expected, atol=2e-6)
    assert np.abs(expected).max() > 1e-4


def test_episodes_are_told_apart():
    """ψ_e and R_e of every episode, or its part in the rollout, summed up by hand."""
    model = make("episodic", gae_lambda=1.0).learn(80)
    buffer, rng = model.rollout_buffer, np.random.default_rng(0)
    scores = rng.normal(size=(80, 3))
    grid = scores.reshape(40, 2, 3)
    rows, targets, features = [], [], []
    for n in range(2):
        starts = [0, *(t for t in range(1, 40) if buffer.episode_starts[t, n])]
        for start, end in zip(starts, [*starts[1:], 40], strict=True):
            rows.append(sum(0.99 ** (t - start) * grid[t, n] for t in range(start, end)))
            targets.append(buffer.returns[start, n])
            features.append([1.0, buffer.values[start, n]])
    psi, y, phi = map(np.array, (rows, targets, features))
    assert 15 < len(y) < 20
    both = np.concatenate([psi, phi], axis=1)
    penalty = 0.1 * len(y) * np.diag([1.0, 1, 1, 0, 0])
    expected = np.linalg.solve(both.T @ both + penalty, both.T @ y)[:3]
    np.testing.assert_allclose(fit_episodes(buffer, scores, 0.99, 0.1), expected, atol=1e-5)


def test_scores_come_in_the_order_that_is_asked_for():
    model = make().learn(80)
    steps = Steps.of(model.rollout_buffer, model.action_space)
    functions = ScoreFunctions(model.policy, steps.inputs, steps.actions)
    turned = scores_of(model.policy, steps, functions.parameters[::-1])
    first = functions.parameters[0].numel()
    np.testing.assert_array_equal(turned[:, -first:], functions[:][:, :first])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"direction": "natural"}, "direction='natural'; allowed: 'fisher', 'compatible', 'episodic'"),
        ({"cg_max_steps": 5}, "cg_max_steps=5 together with direction='compatible', where it is unused"),
        ({"sub_sampling_factor": 2}, "sub_sampling_factor=2 together with direction='compatible'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)
