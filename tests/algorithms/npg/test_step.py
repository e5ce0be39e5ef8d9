"""The step of the policy, against natural gradients written out by hand in double precision."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import NPG

MIN_CURVATURE = 1e-3  # the default

SCRIPTS = (Script((1.0, -2.0, 0.5)), Script((3.0, 0.25), truncated=True), Script((-1.0,)))


def make_model(env, **kwargs):
    policy_kwargs = {"net_arch": [], **kwargs.pop("policy_kwargs", {})}
    arguments = {"n_steps": 32, "batch_size": 16, "n_critic_updates": 2, "seed": 0, "device": "cpu", **kwargs}
    return NPG("MlpPolicy", env, policy_kwargs=policy_kwargs, **arguments)


def scripted(action_space, **kwargs):
    model = make_model(ScriptedEnv(action_space, *SCRIPTS), **kwargs)
    with th.no_grad():  # away from the uniform distribution that SB3 starts near
        for i, parameter in enumerate((model.policy.action_net.weight, model.policy.action_net.bias)):
            parameter.copy_(th.linspace(-0.5 - i, 0.7, parameter.numel()).view_as(parameter))
    return model


def parameters_of(model):
    """The linear policy's parameters in double precision: [W b], and log σ if there is one."""
    net = model.policy.action_net
    matrix = np.column_stack([net.weight.detach().numpy(), net.bias.detach().numpy()]).astype(float)
    log_std = model.policy.log_std.detach().numpy().astype(float) if hasattr(model.policy, "log_std") else np.empty(0)
    return matrix, log_std


def data_of(model, normalized=True):
    """The rollout in double precision: observations with a 1 behind, actions, advantages."""
    buffer = model.rollout_buffer
    obs = buffer.observations.reshape(-1, 2).astype(float)
    advantages = buffer.advantages.ravel().astype(float)
    if normalized:
        advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
    return np.column_stack([obs, np.ones(len(obs))]), buffer.actions.reshape(len(obs), -1), advantages


def softmax_gradient(matrix, inputs, actions, advantages):
    """The policy gradient and the Fisher matrix of π(a|s) ∝ exp(W s + b)."""
    gradient, fisher = 0, 0
    for x, (action,), advantage in zip(inputs, actions.astype(int), advantages, strict=True):
        p = np.exp(matrix @ x) / np.exp(matrix @ x).sum()
        scores = [np.outer(unit - p, x).ravel() for unit in np.eye(len(p))]
        gradient = gradient + advantage * scores[action]
        fisher = fisher + sum(weight * np.outer(score, score) for weight, score in zip(p, scores, strict=True))
    return gradient / len(inputs), fisher / len(inputs)


def gaussian_gradient(matrix, log_std, inputs, actions, advantages):
    """The same of a ∼ N(W s + b, σ²), with respect to [W b] and log σ."""
    variance = np.exp(2 * log_std)
    gradient, n_means = 0, matrix.size
    for x, action, advantage in zip(inputs, actions, advantages, strict=True):
        noise = action - matrix @ x
        score = np.concatenate([np.outer(noise / variance, x).ravel(), noise**2 / variance - 1])
        gradient = gradient + advantage * score
    fisher = 2 * np.eye(n_means + len(log_std))
    fisher[:n_means, :n_means] = np.kron(np.diag(1 / variance), inputs.T @ inputs / len(inputs))
    return gradient / len(inputs), fisher


def natural_step(gradient, fisher, damping, target_kl):
    x = np.linalg.solve(fisher + damping * np.eye(len(gradient)), gradient)
    assert x @ fisher @ x > 2 * MIN_CURVATURE * x @ x
    return np.sqrt(2 * target_kl / (x @ fisher @ x)) * x, x


def logged(model):
    """What the latest update logged."""
    return model.logger.name_to_value


def train_once(model):
    return model.learn(model.n_steps * model.n_envs, log_interval=None)


@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_softmax_by_hand(normalize_advantage):
    model = scripted(
        spaces.Discrete(3), target_kl=0.02, cg_damping=0.05, normalize_advantage=normalize_advantage, cg_max_steps=30
    )
    before, _ = parameters_of(model)
    train_once(model)
    after, _ = parameters_of(model)
    gradient, fisher = softmax_gradient(before, *data_of(model, normalize_advantage))
    step, x = natural_step(gradient, fisher, 0.05, 0.02)
    np.testing.assert_allclose((after - before).ravel(), step, rtol=1e-3, atol=1e-5)
    log = logged(model)
    assert log["train/grad_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert log["train/natural_grad_norm"] == pytest.approx(np.linalg.norm(x), rel=1e-3)
    assert log["train/step_size"] == pytest.approx(np.linalg.norm(step) / np.linalg.norm(x), rel=1e-3)
    assert log["train/surrogate_gain_predicted"] == pytest.approx(gradient @ step, rel=1e-3)
    assert log["train/kl_predicted"] == pytest.approx(0.02, rel=1e-4)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_gaussian_by_hand(damping):
    model = scripted(spaces.Box(-1, 1, (2,), np.float32), target_kl=0.01, cg_damping=damping, cg_max_steps=30)
    with th.no_grad():
        model.policy.log_std.copy_(th.tensor([-0.5, 0.25]))
    before, log_std_before = parameters_of(model)
    train_once(model)
    after, log_std_after = parameters_of(model)
    gradient, fisher = gaussian_gradient(before, log_std_before, *data_of(model))
    step, _ = natural_step(gradient, fisher, damping, 0.01)
    taken = np.concatenate([(after - before).ravel(), log_std_after - log_std_before])
    np.testing.assert_allclose(taken, step, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("step_size", [0.05, lambda remaining: 0.05 * remaining**0])
def test_a_fixed_step_by_hand(step_size):
    model = scripted(spaces.Discrete(3), step="fixed", step_size=step_size, cg_damping=0.05, cg_max_steps=30)
    before, _ = parameters_of(model)
    train_once(model)
    gradient, fisher = softmax_gradient(before, *data_of(model))
    x = np.linalg.solve(fisher + 0.05 * np.eye(len(gradient)), gradient)
    np.testing.assert_allclose((parameters_of(model)[0] - before).ravel(), 0.05 * x, rtol=1e-3, atol=1e-5)
    assert logged(model)["train/kl_predicted"] == pytest.approx(0.5 * 0.05**2 * x @ fisher @ x, rel=1e-3)


def test_a_fixed_step_follows_its_schedule():
    model = scripted(spaces.Discrete(3), step="fixed", step_size=lambda remaining: 0.5 * remaining)
    sizes = []
    model.learn(4 * 32, lambda caller, _: sizes.append(logged(model).get("train/step_size")) or True, log_interval=None)
    assert sizes[-1] == pytest.approx(0.125)  # of the third of four updates: a quarter of all steps remains


@pytest.mark.parametrize("line_search", [False, True])
def test_the_kl_of_a_step_follows_its_schedule(line_search):
    """Down to nothing: nothing remains at the last of four updates."""
    model = scripted(spaces.Discrete(3), target_kl=lambda remaining: 0.04 * remaining, line_search=line_search)
    kls = []
    model.learn(4 * 32, lambda caller, _: kls.append(logged(model).get("train/kl_predicted")) or True, None)
    kls = [kl for kl in dict.fromkeys(kls) if kl is not None]
    assert len(kls) == 3
    assert all(kl <= most * (1 + 1e-4) for kl, most in zip(kls, (0.03, 0.02, 0.01), strict=True))
    if not line_search:
        np.testing.assert_allclose(kls, (0.03, 0.02, 0.01), rtol=1e-4)
    assert logged(model)["train/step_size"] == 0


def test_a_schedule_that_falls_below_0_is_named():
    model = scripted(spaces.Discrete(3), target_kl=lambda remaining: 0.04 * (remaining - 0.6))
    with pytest.raises(
        ValueError, match=r"^target_kl=-0\.00\d+ at a remaining progress of 0\.5; allowed: a number ≥ 0$"
    ):
        model.learn(4 * 32)


@pytest.mark.parametrize(
    ("name", "state_dependent_std"),
    [(name, False) for name in ACTION_SPACES] + [("Box", True), ("Box of two dimensions", True)],
)
def test_a_small_step_has_the_kl_and_the_gain_that_were_predicted(name, state_dependent_std):
    policy_kwargs = {"net_arch": [8], "state_dependent_std": state_dependent_std}
    model = make_model(RandomEnv(ACTION_SPACES[name]), target_kl=1e-4, n_steps=256, policy_kwargs=policy_kwargs)
    log = logged(train_once(model))
    assert log["train/kl_predicted"] == pytest.approx(1e-4, rel=1e-3)
    assert log["train/kl"] == pytest.approx(1e-4, rel=0.05)
    assert log["train/surrogate_gain"] == pytest.approx(log["train/surrogate_gain_predicted"], rel=0.1)
    assert log["train/surrogate_gain"] > 0
    assert log["train/effective_sample_size"] == pytest.approx(1 - 2e-4, abs=2e-4)  # 1 − 2·KL to second order


@pytest.mark.parametrize("squash_output", [False, True])
def test_state_dependent_exploration_too(squash_output):
    policy_kwargs = {"net_arch": [8], "squash_output": squash_output}
    env = RandomEnv(ACTION_SPACES["Box of two dimensions"])
    model = make_model(env, use_sde=True, target_kl=1e-4, n_steps=256, policy_kwargs=policy_kwargs)
    assert logged(train_once(model))["train/kl"] == pytest.approx(1e-4, rel=0.1)


def test_few_steps_of_conjugate_gradients_leave_a_residual():
    env = RandomEnv(ACTION_SPACES["Discrete"])
    few, many = (make_model(env, cg_max_steps=n, policy_kwargs={"net_arch": [16]}) for n in (1, 60))
    for model in (few, many):
        train_once(model)
    assert logged(few)["train/cg_steps"] == 1
    assert logged(few)["train/cg_residual"] > 0.01
    assert 1 < logged(many)["train/cg_steps"] <= 60
    assert logged(many)["train/cg_residual"] < 1e-4


def test_tiny_curvature_bounds_the_step():
    """A policy that is nearly certain hardly changes with its parameters; what the quadratic model says is nonsense."""
    model = scripted(spaces.Discrete(3), target_kl=0.01)
    with th.no_grad():
        model.policy.action_net.bias.copy_(th.tensor([14.0, 0.0, 0.0]))
    before, _ = parameters_of(model)
    log = logged(train_once(model))
    length = np.linalg.norm(parameters_of(model)[0] - before)
    assert 0 < length <= np.sqrt(2 * 0.01 / MIN_CURVATURE) * 1.0001
    assert log["train/kl_predicted"] < 0.01


def test_sub_sampling_thins_out_the_matrix_only():
    def train(k):
        model = scripted(spaces.Discrete(3), sub_sampling_factor=k)
        return logged(train_once(model)), parameters_of(model)[0]

    (full, theta), (half, other) = train(1), train(2)
    assert full["train/grad_norm"] == half["train/grad_norm"]
    assert not np.array_equal(theta, other)
    np.testing.assert_allclose(theta, other, atol=0.3)
    assert half["train/kl_predicted"] == pytest.approx(0.01, rel=1e-3)


TARGET = 2.0


class TestLineSearch:
    """Far from where the quadratic model holds."""

    def train(self, **kwargs):
        model = scripted(spaces.Box(-1, 1, (2,), np.float32), target_kl=TARGET, cg_damping=0.01, seed=8, **kwargs)
        before = parameters_of(model)
        return logged(train_once(model)), before, parameters_of(model)

    def test_without_it_the_step_goes_too_far(self):
        assert self.train()[0]["train/kl"] > 2 * TARGET

    def test_it_keeps_kl_within_bounds_and_improves(self):
        full, before, after_full = self.train()
        log, _, after = self.train(line_search=True)
        assert 0 < log["train/kl"] <= TARGET
        assert log["train/surrogate_gain"] > 0
        assert log["train/is_line_search_success"] == 1
        n_refused = log["train/line_search_steps"] - 1
        assert n_refused >= 1
        scale = 0.8**n_refused
        assert log["train/step_size"] == pytest.approx(full["train/step_size"] * scale)
        assert log["train/kl_predicted"] == pytest.approx(scale**2 * TARGET, rel=1e-3)
        for start, end, far in zip(before, after, after_full, strict=True):
            np.testing.assert_allclose(end - start, scale * (far - start), rtol=1e-3, atol=1e-6)

    def test_where_nothing_is_accepted_the_policy_stays(self):
        log, before, after = self.train(line_search=True, line_search_max_iter=1)
        assert log["train/is_line_search_success"] == 0
        assert log["train/line_search_steps"] == 1
        for name in ("kl", "kl_predicted", "surrogate_gain", "step_size"):
            assert log[f"train/{name}"] == 0
        for start, end in zip(before, after, strict=True):
            np.testing.assert_array_equal(start, end)
        assert log["train/value_loss"] > 0


def test_the_least_curvature_bounds_the_step():
    """A nearly certain policy: the bound is at work, and four times the curvature makes half the step."""
    moved = []
    for min_curvature in (1.0, 4.0):
        model = scripted(spaces.Discrete(3), min_curvature=min_curvature)
        before = np.concatenate([each.ravel() for each in parameters_of(model)])
        model.learn(1)
        moved.append(np.linalg.norm(np.concatenate([each.ravel() for each in parameters_of(model)]) - before))
    assert moved == pytest.approx([np.sqrt(2 * 0.01 / 1.0), np.sqrt(2 * 0.01 / 4.0)], rel=1e-3)
