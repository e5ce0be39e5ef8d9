"""Masked policies: log-probabilities, entropy, KL, gradients, Fisher products and scores against a slow reference.

The reference works in double precision, and knows only the choices that are allowed: it never sees a mask.
"""

import re
from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, VECTOR
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.scores import ScoreFunctions
from sb3_pg_ext.policies import MlpPolicy, MultiInputPolicy
from sb3_pg_ext.policies.evaluation import action_array, action_tensor, evaluate
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.masking import MaskLayout

B = 24
SPACES = ["Discrete", "MultiDiscrete", "MultiBinary"]
each_space = pytest.mark.parametrize("space", SPACES)
each_backend = pytest.mark.parametrize("backend", [ArrayBackend, AutogradBackend])


class Case:
    """A policy, states, masks, an allowed action in each state, and what the reference says of them.

    :param space: name of the action space
    """

    def __init__(self, space, policy_class=MlpPolicy, **kwargs):
        th.manual_seed(0)
        rng = np.random.default_rng(1)
        self.action_space = ACTION_SPACES[space]
        self.layout = MaskLayout(self.action_space)
        arguments = {"net_arch": [8], "ortho_init": False, **kwargs}
        self.policy = policy_class(VECTOR, self.action_space, lambda _: 1e-3, **arguments)
        self.obs = rng.uniform(-1, 1, (B, 3)).astype(np.float32)
        self.masks = rng.random((B, self.layout.width)) < 0.5
        for start, size in zip(np.cumsum([0, *self.layout.sizes[:-1]]), self.layout.sizes, strict=True):
            self.masks[np.arange(B), start + rng.integers(size, size=B)] = True
        self.inputs = PolicyInputs(self.obs, self.masks)
        allowed = [self.allowed_actions(row) for row in range(B)]
        self.actions = action_array(np.stack([rng.choice(actions) for actions in allowed]), self.action_space)
        self.c, self.d, self.e = rng.normal(size=(3, B)).astype(np.float32)

    def allowed_actions(self, row):
        """All actions that the mask of a state allows, [number, action_dim]."""
        pieces = np.split(self.masks[row], np.cumsum(self.layout.sizes)[:-1])
        return np.array(list(product(*(np.flatnonzero(piece) for piece in pieces))))

    def double(self, change=0.0):
        """The policy in double precision, its parameters changed."""
        copy = deepcopy(self.policy).double()
        with th.no_grad():
            for parameter in copy.parameters():
                parameter += change
        return copy

    def log_probs(self, policy, row):
        """Log π(a|s) of all allowed actions of a state, from the logits of allowed choices alone."""
        x = th.as_tensor(self.obs[row : row + 1]).double()
        logits = policy.action_net(policy.mlp_extractor.forward_actor(x))[0]
        if isinstance(self.action_space, spaces.MultiBinary):
            logits = th.stack([th.zeros_like(logits), logits], dim=1).flatten()
        pieces = logits.split(self.layout.sizes)
        masks = np.split(self.masks[row], np.cumsum(self.layout.sizes)[:-1])
        joint = []
        for action in self.allowed_actions(row):
            total = 0
            for piece, mask, choice in zip(pieces, masks, action, strict=True):
                place = np.flatnonzero(np.flatnonzero(mask) == choice)[0]
                total = total + th.log_softmax(piece[th.as_tensor(mask)], 0)[place]
            joint.append(total)
        return th.stack(joint)

    def of_taken(self, policy, row):
        """Log π(a|s) of the action taken."""
        place = (self.allowed_actions(row) == self.actions[row]).all(1).argmax()
        return self.log_probs(policy, row)[place]


@pytest.fixture
def case(space):
    return Case(space)


def gradient_of(backend):
    return th.cat(
        [th.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in backend.policy.parameters()]
    )


@each_space
@each_backend
def test_numbers_and_derivatives(case, backend):
    """Log-probabilities, entropies, KL(old‖π), and the gradient of a sum of all three."""
    changed, old = case.double(0.1), case.double()
    loss, expected = 0, []
    for row in range(B):
        new, before = case.log_probs(changed, row), case.log_probs(old, row).detach()
        taken, entropy = case.of_taken(changed, row), -(new.exp() * new).sum()
        kl = (before.exp() * (before - new)).sum()
        expected.append([number.item() for number in (taken, entropy, kl)])
        loss = loss + case.c[row] * taken + case.d[row] * entropy + case.e[row] * kl
    loss.backward()

    engine = backend(case.policy)
    snapshot = engine.snapshot(case.inputs)
    with th.no_grad():
        for parameter in case.policy.parameters():
            parameter += 0.1
    computed = engine.evaluate_actions(case.inputs, case.actions)
    kls = engine.kl(snapshot)
    actual = np.stack([computed.log_probs, computed.entropies, kls], axis=1)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)
    assert engine.mean_kl(snapshot, case.inputs) == pytest.approx(np.mean([row[2] for row in expected]), rel=1e-4)
    engine.zero_gradient()
    engine.backward({"log_probs": case.c, "entropies": case.d, "kls": case.e})
    reference = th.cat(
        [th.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in changed.parameters()]
    )
    th.testing.assert_close(gradient_of(engine).double(), reference, rtol=1e-4, atol=2e-5)
    values, log_probs = evaluate(case.policy, case.inputs, case.actions)
    np.testing.assert_allclose(log_probs, computed.log_probs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, computed.values, rtol=1e-5, atol=1e-6)


@each_space
@each_backend
def test_fisher_products(case, backend):
    """F v = (1/B) Σ_s Σ_a π(a|s) ∇log π (∇log π · v), over the actions that are allowed."""
    policy, engine = case.double(), backend(case.policy)
    engine.evaluate_policy(case.inputs, case.actions)
    parameters, _ = engine.policy_gradient(case.c)
    names = [name for p in parameters for name, q in case.policy.named_parameters() if q is p]
    actor = [dict(policy.named_parameters())[name] for name in names]
    vector = th.randn(sum(p.numel() for p in parameters))
    expected = th.zeros(len(vector), dtype=th.float64)
    for row in range(B):
        for log_prob in case.log_probs(policy, row):
            score = th.cat([g.flatten() for g in th.autograd.grad(log_prob, actor, retain_graph=True)])
            expected += log_prob.detach().exp() * score * (score @ vector.double())
    th.testing.assert_close(engine.fisher_product()(vector).double(), expected / B, rtol=1e-4, atol=1e-5)


@each_space
def test_scores(case):
    policy, scores = case.double(), ScoreFunctions(case.policy, case.inputs, case.actions)
    names = [name for p in scores.parameters for name, q in case.policy.named_parameters() if q is p]
    actor = [dict(policy.named_parameters())[name] for name in names]
    for row in range(B):
        expected = th.autograd.grad(case.of_taken(policy, row), actor)
        expected = th.cat([g.flatten() for g in expected]).numpy()
        np.testing.assert_allclose(scores[row : row + 1][0], expected, rtol=1e-4, atol=1e-6)


@each_space
def test_a_temperature_divides_the_logits_that_are_left(space):
    case = Case(space, temperature=2.0)
    expected = [case.of_taken(case.double(), row).item() for row in range(B)]
    for backend in (ArrayBackend, AutogradBackend):
        log_probs = backend(case.policy).evaluate_policy(case.inputs, case.actions).log_probs
        np.testing.assert_allclose(log_probs, expected, rtol=2e-5, atol=2e-6)


@each_space
@each_backend
def test_forbidden_actions_have_probability_zero(case, backend):
    """Exactly; and a state in which one action is allowed has neither entropy nor a gradient."""
    engine = backend(case.policy)
    everything = np.array(list(product(*map(range, case.layout.sizes))))
    for row in range(B):
        allowed = {tuple(action) for action in case.allowed_actions(row)}
        inputs = PolicyInputs(*(np.repeat(array[row : row + 1], len(everything), 0) for array in case.inputs))
        actions = action_array(everything, case.action_space)
        probabilities = np.exp(engine.evaluate_policy(inputs, actions).log_probs)
        assert [bool(p) for p in probabilities] == [tuple(action) in allowed for action in everything.tolist()]
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    single = np.zeros_like(case.masks)
    single[:, np.cumsum([0, *case.layout.sizes[:-1]])] = True
    computed = engine.evaluate_policy(PolicyInputs(case.obs, single), np.zeros_like(case.actions))
    assert not computed.log_probs.any()
    assert not computed.entropies.any()
    engine.zero_gradient()
    engine.backward({"log_probs": case.c, "entropies": case.d})
    assert not gradient_of(engine).any()


@each_space
def test_methods_agree(case):
    """Of the four ways to ask a policy, with masks; the mode is the most probable allowed action."""
    reference, policy, obs = case.double(), case.policy, th.as_tensor(case.obs)
    th.manual_seed(3)
    actions, values, log_probs = policy(obs, action_masks=case.masks)
    th.manual_seed(3)
    assert th.equal(policy.get_distribution(obs, case.masks).get_actions().reshape(actions.shape), actions)
    again = policy.evaluate_actions(obs, actions, th.as_tensor(case.masks))
    th.testing.assert_close(again[:2], (values, log_probs))
    modes, _ = policy.predict(case.obs, deterministic=True, action_masks=case.masks)
    for row, mode in enumerate(modes):
        best = case.allowed_actions(row)[int(case.log_probs(reference, row).argmax())]
        assert np.atleast_1d(mode).tolist() == best.tolist()
        alone, _ = policy.predict(case.obs[row], deterministic=True, action_masks=case.masks[row].tolist())
        assert np.array_equal(alone, mode)
        assert case.action_space.contains(alone.astype(case.action_space.dtype))
    assert np.isfinite(log_probs.detach().numpy()).all()


@each_space
def test_masks_that_allow_everything_change_nothing(case):
    obs, all_allowed = th.as_tensor(case.obs), np.ones_like(case.masks)
    actions = action_tensor(case.actions, case.action_space, th.device("cpu"))
    masked, unmasked = (case.policy.evaluate_actions(obs, actions, masks) for masks in (all_allowed, None))
    th.testing.assert_close(masked, unmasked)


@pytest.mark.parametrize("shared", [True, False])
def test_dict_observations(shared):
    space = spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(3)})
    policy = MultiInputPolicy(
        space,
        ACTION_SPACES["Discrete"],
        lambda _: 1e-3,
        share_features_extractor=shared,
    )
    obs = space.sample()
    for masks in np.eye(3, dtype=bool):
        for deterministic in (False, True):
            assert policy.predict(obs, deterministic=deterministic, action_masks=masks)[0] == masks.argmax()
        tensors, _ = policy.obs_to_tensor(obs)
        actions, values, log_probs = policy(tensors, action_masks=masks)
        assert actions.tolist() == [masks.argmax()]
        assert log_probs.item() == 0
        th.testing.assert_close(values, policy.predict_values(tensors))


def test_messages():
    case = Case("MultiDiscrete")
    masks = case.masks.copy()
    masks[7, 3:] = False
    with pytest.raises(
        ValueError, match=r"without any allowed action for component 1 of the action for observation 7$"
    ):
        case.policy.predict(case.obs, action_masks=masks)
    for wrong in (masks[:, :4], masks.T):
        message = f"action masks of shape {[*wrong.shape]}; allowed: [24, 5], one value for every choice"
        with pytest.raises(ValueError, match=re.escape(message)):
            case.policy.get_distribution(th.as_tensor(case.obs), wrong)
    gaussian = MlpPolicy(VECTOR, ACTION_SPACES["Box"], lambda _: 1e-3)
    with pytest.raises(ValueError, match="masks with DiagGaussianDistribution; allowed: a Discrete, MultiDiscrete or"):
        gaussian.get_distribution(th.as_tensor(case.obs), masks)
    with pytest.raises(
        ValueError, match=r"masks with the action space Box\(.*; allowed: Discrete, MultiDiscrete, Multi"
    ):
        gaussian.predict(case.obs, action_masks=masks)


def test_without_masks_it_is_the_policy_of_sb3():
    case = Case("Discrete")
    stock = ActorCriticPolicy(VECTOR, case.action_space, lambda _: 1e-3, net_arch=[8], ortho_init=False)
    stock.load_state_dict(case.policy.state_dict())
    obs, actions = th.as_tensor(case.obs), th.as_tensor(case.actions).flatten()
    for ask in (lambda p: p(obs), lambda p: p.evaluate_actions(obs, actions), lambda p: p._predict(obs)):
        results = []
        for policy in (case.policy, stock):
            th.manual_seed(0)
            results.append(ask(policy))
        th.testing.assert_close(*results, rtol=0, atol=0)
