"""What an update does: where it steps, how far, and what becomes of what cannot be used."""

import copy

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pg_ext import ACKTR
from sb3_pg_ext.algorithms.acktr.acktr import adapt
from sb3_pg_ext.functional import kronecker
from sb3_pg_ext.gradients.minibatches import Steps


def make(action_space="Box", observation_space="Box", policy="MlpPolicy", **kwargs):
    env = RandomEnv(ACTION_SPACES[action_space], OBSERVATION_SPACES[observation_space])
    policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
    return ACKTR(policy, env, **{"n_steps": 64, "seed": 0, "policy_kwargs": policy_kwargs, **kwargs})


def train(model, updates=1):
    """So many updates; what each of them has logged."""
    rows = []
    for _ in range(updates):
        model.set_logger(Logger(None, []))
        model.learn(1, log_interval=None, reset_num_timesteps=False)
        rows.append(dict(model.logger.name_to_value))
    return rows


def trained(**kwargs):
    """After one update; right after construction, since that seeds the generator that actions come from."""
    model = make(**kwargs)
    train(model)
    return model


def vector(model):
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def test_the_first_step_is_the_natural_gradient_of_the_rollout():
    """Of every layer: (A ⊗ G + εI)⁻¹ ∇W, by a dense solve in double precision, scaled to the trust region."""
    model = make("Discrete", momentum=0.0, learning_rate=1.0, kfac_damping=0.1, kfac_clip=1e-3)
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    (row,) = train(model)
    moved = {name: before[name] - p.detach() for name, p in model.policy.named_parameters()}
    model.policy.load_state_dict(before, strict=False)
    steps = Steps.of(model.rollout_buffer, model.action_space)
    obs = th.from_numpy(steps.inputs.observations).flatten(1).double()
    policy = copy.deepcopy(model.policy).double()
    hidden, head = policy.mlp_extractor.policy_net[0], policy.action_net
    a1, a2 = obs, th.tanh(hidden(obs))
    log_probs = head(a2).log_softmax(1).gather(1, th.from_numpy(steps.actions))[:, 0]
    advantages = th.from_numpy(steps.advantages).double()
    loss = -(log_probs * (advantages - advantages.mean()) / (advantages.std() + 1e-8)).mean()
    gradients = th.autograd.grad(loss, [hidden.weight, hidden.bias, head.weight, head.bias])
    p = head(a2).softmax(1)
    fisher_of_logits = th.diag_embed(p) - p[:, :, None] * p[:, None]
    jacobian = head.weight * (1 - a2**2)[:, None]
    g1 = th.einsum("bki,bkl,blj->bij", jacobian, fisher_of_logits, jacobian).mean(0)
    found = []
    for a, g, (of_weight, of_bias) in ((a1, g1, gradients[:2]), (a2, fisher_of_logits.mean(0), gradients[2:])):
        extended = th.cat([a, th.ones(len(a), 1).double()], 1)
        dense = th.kron(g, extended.T @ extended / len(a))
        gradient = th.cat([of_weight, of_bias[:, None]], 1).flatten()
        found.append(th.linalg.solve(dense + 0.1 * th.eye(len(dense)), gradient))
    scale = row["train/trust_region_scale"]
    assert 0 < scale < 1
    for step, name in zip(found, ("mlp_extractor.policy_net.0", "action_net"), strict=True):
        ours = th.cat([moved[f"{name}.weight"], moved[f"{name}.bias"][:, None]], 1).flatten()
        th.testing.assert_close(ours.double(), scale * step, rtol=1e-3, atol=1e-5)


def test_log_std_has_its_exact_fisher_information():
    """2 in every direction: Δ = ∇/(2 + ε), with ∇ = −mean((z² − 1)·A)."""
    model = make("Box of two dimensions", momentum=0.0, learning_rate=1.0, kfac_damping=0.5)
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    (row,) = train(model)
    moved = before["log_std"] - model.policy.log_std.detach()
    model.policy.load_state_dict(before)
    steps = Steps.of(model.rollout_buffer, model.action_space)
    with th.no_grad():
        distribution = model.policy.get_distribution(th.from_numpy(steps.inputs.observations)).distribution
    z = (th.from_numpy(steps.actions) - distribution.mean) / distribution.stddev
    advantages = th.from_numpy(steps.advantages)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    gradient = -((z**2 - 1) * advantages[:, None]).mean(0)
    expected = row["train/trust_region_scale"] * gradient / 2.5
    th.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("action_space", ["Box of two dimensions", "Discrete", "MultiDiscrete", "MultiBinary"])
def test_kl_is_what_the_trust_region_allows(action_space):
    """Measured, not above what is predicted by more than the quadratic model is off."""
    model = make(action_space, momentum=0.0, learning_rate=1.0, kfac_clip=2e-3, kfac_damping=0.01, kfac_decay=0.9)
    for row in train(model, 8):
        assert row["train/kl_predicted"] <= 1.001e-3
        assert 0.2 * row["train/kl_predicted"] < row["train/kl"] < 1.3e-3


def test_adaptive_kl_brings_kl_near_its_target():
    model = make(momentum=0.0, kfac_clip=1e-4, adaptive_kl=4e-3)
    rows = train(model, 30)
    assert rows[0]["train/kl"] < 1e-4
    assert all(2e-3 / 1.5 < row["train/kl"] < 8e-3 * 1.5 for row in rows[-5:])
    assert rows[-1]["train/kl_factor"] == model.kl_factor > 1


def test_adapt():
    assert adapt(1.0, kl=0.021, target_kl=0.01) == pytest.approx(1 / 1.5)
    assert adapt(1.0, kl=0.0049, target_kl=0.01) == pytest.approx(1.5)
    assert adapt(1.0, kl=0.01, target_kl=0.01) == 1
    assert adapt(1.0, kl=float("inf"), target_kl=0.01) == pytest.approx(1 / 1.5)
    assert adapt(1.0, kl=float("nan"), target_kl=0.01) == 1
    assert adapt(1e4, kl=0.0, target_kl=0.01) == 1e4


def test_cold_steps_follow_the_plain_gradient():
    model = make(cold_start_steps=2, momentum=0.0, learning_rate=0.3, max_grad_norm=0.01)
    before = vector(model)
    first, second, third = train(model, 3)
    assert first["train/step_norm"] == pytest.approx(0.3 * 0.01, rel=1e-3)
    assert "train/trust_region_scale" not in first
    assert second["train/step_norm"] == pytest.approx(0.3 * 0.01, rel=1e-3)
    assert "train/trust_region_scale" in third
    assert (vector(model) - before).abs().max() > 0


def test_further_steps_of_the_critic_leave_the_actor_alone_and_lower_the_loss():
    one, many = (trained(n_critic_updates=n, momentum=0.0, learning_rate=1.0) for n in (1, 20))

    def error(model):
        steps = Steps.of(model.rollout_buffer, model.action_space)
        with th.no_grad():
            values = model.policy.predict_values(th.from_numpy(steps.inputs.observations)).flatten().numpy()
        return float(np.mean((values - steps.returns) ** 2))

    for name in ("log_std", "action_net.weight", "mlp_extractor.policy_net.0.weight"):
        th.testing.assert_close(one.policy.get_parameter(name), many.policy.get_parameter(name), rtol=0, atol=0)
    assert error(many) < 0.9 * error(one)


def test_momentum_averages_steps():
    """v ← m·v + νΔ, θ ← θ − η(1 − m)·v: the first step is 1 − m of that without momentum."""
    start = vector(make())
    long, short = (trained(momentum=m, learning_rate=0.01) for m in (0.0, 0.9))
    th.testing.assert_close(vector(short) - start, 0.1 * (vector(long) - start), rtol=1e-2, atol=1e-6)


def test_a_factor_that_is_not_finite_is_left_out_and_counted(monkeypatch):
    """Here those of one batch: the running ones stay, and the step is made with them."""
    model = make("Discrete", eigen_interval=1)
    train(model, 2)
    weight = model.policy.action_net.weight
    remembered = model.policy.optimizer.state[weight]["inputs"].clone()
    original = kronecker.input_factor

    def spoilt(inputs, has_bias):
        factor = original(inputs, has_bias)
        if len(factor) == 9:  # of the layers behind the hidden ones
            factor[0, 0] = np.nan
        return factor

    monkeypatch.setattr(kronecker, "input_factor", spoilt)
    before = vector(model)
    train(model)
    assert model.n_skipped_factors == 2
    th.testing.assert_close(model.policy.optimizer.state[weight]["inputs"], remembered, rtol=0, atol=0)
    assert (vector(model) - before).abs().max() > 0
    assert th.isfinite(vector(model)).all()


def test_an_eigen_decomposition_that_fails_is_left_out_and_counted(monkeypatch):
    model = make("Discrete", eigen_interval=1)
    train(model, 2)
    state = model.policy.optimizer.state[model.policy.action_net.weight]
    before = state["inputs_vectors"].clone()

    def fails(matrix):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", fails)
    train(model)
    assert model.n_skipped_factors == 4
    th.testing.assert_close(state["inputs_vectors"], before, rtol=0, atol=0)


def test_no_update_where_no_factor_has_ever_been_finite(monkeypatch):
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (matrix[0] * np.nan, matrix))
    model = make("Discrete")
    before = vector(model)
    with pytest.warns(RuntimeWarning, match="none of a layer has been finite"):
        train(model)
    th.testing.assert_close(vector(model), before, rtol=0, atol=0)
    assert model.n_skipped_updates == 1


def test_without_advantages_nothing_of_the_actor_moves():
    """Σ Δ·∇ = 0: there is no direction, and no division by 0."""
    model = make("Discrete", gamma=0.0, gae_lambda=0.0, normalize_advantage=False, vf_coef=0.0)
    model.learn(1)
    model.rollout_buffer.advantages[:] = 0
    before = vector(model)
    for state in model.policy.optimizer.state.values():
        state.pop("momentum_buffer", None)
    model.train()
    th.testing.assert_close(vector(model), before, rtol=0, atol=0)
    assert model.n_skipped_updates == 0


# ---- layers that it does not know -----------------------------------------------------------------------------------


class Normalized(FlattenExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.norm = nn.LayerNorm(self.features_dim)

    def forward(self, observations):
        return self.norm(super().forward(observations))


def test_an_unknown_layer_is_named():
    message = "the policy has the parameter 'features_extractor.norm.weight' of a LayerNorm"
    with pytest.raises(ValueError, match=message):
        make(policy_kwargs={"features_extractor_class": Normalized})


def test_or_steps_along_its_gradient():
    kwargs = {"policy_kwargs": {"features_extractor_class": Normalized}, "momentum": 0.0, "learning_rate": 1.0}
    model = make(unsupported_layers="sgd", **kwargs)
    norm = model.policy.features_extractor.norm.weight
    before = norm.detach().clone()
    (row,) = train(model)
    moved = before - norm.detach()
    assert moved.abs().max() > 0
    th.testing.assert_close(moved, norm.grad, rtol=1e-3, atol=1e-6)  # ν·∇, at a rate of 1
    assert row["train/trust_region_scale"] < 1


@pytest.mark.parametrize(("policy", "space"), [("CnnPolicy", "image"), ("MultiInputPolicy", "Dict")])
def test_images_and_dictionaries(policy, space):
    model = make("Discrete", space, policy, n_steps=16)
    before = vector(model)
    rows = train(model, 2)
    assert (vector(model) - before).abs().max() > 0
    assert rows[-1]["train/n_skipped_factors"] == 0
    assert rows[-1]["train/kl"] < 2e-3
