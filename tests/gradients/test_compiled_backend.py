"""The compiled gradient of a minibatch is that of NumPy: for every network, distribution and objective."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, MaskedEnv, RandomEnv
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from sb3_pg_ext import A3C, NPG, AdaptiveKLPPO, fast
from sb3_pg_ext.functional import compiling, minibatch
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.compiled_backend import CompiledBackend
from sb3_pg_ext.gradients.minibatches import Steps, action_array
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.policies.exploration import MlpPolicy
from sb3_pg_ext.policies.inputs import PolicyInputs

SPACES = ["Box", "Discrete", "MultiDiscrete", "MultiBinary"]
SIZE = 14
USUAL = {"ent_coef": 0.0, "vf_coef": 0.5, "normalize_advantage": True}
OBJECTIVES = {
    "PPO": {"clip_range": 0.2},
    "PPO that clips values": {"clip_range": 0.1, "clip_range_vf": 0.2, "ent_coef": 0.3},
    "A2C": {"with_ratio": False, "normalize_advantage": False, "ent_coef": 0.01},
    "a penalty on KL": {"kl_coef": 2.0, "ent_coef": -0.1},
    "all of it": {"clip_range": 0.3, "clip_range_vf": 0.1, "kl_coef": 0.5, "ent_coef": 0.1},
}


@pytest.fixture(params=["interpreted", "compiled"])
def backend(request, monkeypatch):
    """Makes a backend; the function that is compiled is ordinary Python, too."""
    if request.param == "interpreted":
        monkeypatch.setattr(compiling, "is_available", lambda: True)
        monkeypatch.setattr(compiling, "compiled", lambda: minibatch.differentiate)
    else:
        pytest.importorskip("numba")
    return CompiledBackend


def make_policy(action_space="Discrete", cls=MlpPolicy, observation_space="Box", **kwargs):
    th.manual_seed(0)
    arguments = {"net_arch": [8, 7], "ortho_init": False, **kwargs}
    policy = cls(OBSERVATION_SPACES[observation_space], ACTION_SPACES[action_space], lambda _: 1e-2, **arguments)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    return policy


def make_steps(policy, size=SIZE, masks=False):
    """A minibatch, of which the old policy and the old values are near the new ones."""
    rng = np.random.default_rng(0)
    policy.action_space.seed(0)
    observations = rng.uniform(-1, 1, (size, *policy.observation_space.shape)).astype(np.float32)
    actions = np.stack([np.reshape(policy.action_space.sample(), -1) for _ in range(size)])
    actions, inputs = action_array(actions, policy.action_space), PolicyInputs(observations)
    if masks:
        sizes = {"Discrete": [3], "MultiDiscrete": [3, 2], "MultiBinary": [2, 2]}[type(policy.action_space).__name__]
        allowed = rng.random((size, sum(sizes))) < 0.4
        allowed[np.arange(size)[:, None], actions.astype(int) + np.cumsum([0, *sizes[:-1]])] = True
        inputs = inputs._replace(action_masks=allowed)
    engine = ArrayBackend(policy)
    values, log_probs, _ = engine.evaluate_actions(inputs, actions)
    near = [(x + rng.normal(0, 0.2, size)).astype(np.float32) for x in (log_probs, values)]
    advantages, returns = rng.normal(size=(2, size)).astype(np.float32)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.9)
    old = engine.snapshot(inputs)
    policy.load_state_dict(before)
    return Steps(inputs, actions, *near, advantages, returns, old)


def assert_same(make, policy, steps, **objective):
    """Losses and gradients of both backends."""
    objective = Objective(**{**USUAL, **objective})
    results = []
    for cls in (ArrayBackend, make):
        engine = cls(policy)
        losses = engine.differentiate(objective, steps)
        assert type(engine) is cls
        results.append((losses, [parameter.grad.clone() for parameter in policy.parameters()]))
    (expected, theirs), (actual, ours) = results
    assert actual.keys() == expected.keys()
    assert actual == pytest.approx(expected, rel=2e-5, abs=1e-6)
    th.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6)
    assert any(gradient.any() for gradient in ours)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("space", SPACES)
def test_objectives(backend, space, objective):
    policy = make_policy(space)
    assert_same(backend, policy, make_steps(policy), **OBJECTIVES[objective])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("space", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_masks(backend, space, objective):
    policy = make_policy(space, MaskableActorCriticPolicy)
    assert_same(backend, policy, make_steps(policy, masks=True), **OBJECTIVES[objective])


NETWORKS = {
    "one layer": {"net_arch": [5]},
    "none, and three": {"net_arch": {"pi": [], "vf": [6, 7, 8]}},
    "temperature": {"temperature": 3.0},
    **{f.__name__: {"activation_fn": f} for f in (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.SiLU)},
}


@pytest.mark.parametrize("kwargs", NETWORKS.values(), ids=NETWORKS)
def test_networks(backend, kwargs):
    policy = make_policy("MultiDiscrete", **kwargs)
    assert_same(backend, policy, make_steps(policy), **OBJECTIVES["all of it"])


def test_layers_without_bias(backend):
    policy = make_policy()
    policy.action_net, policy.value_net = nn.Linear(7, 3, bias=False), nn.Linear(7, 1, bias=False)
    assert_same(backend, policy, make_steps(policy))


@pytest.mark.parametrize("size", [2, 128, 129, 300])
@pytest.mark.parametrize("space", ["Box of two dimensions", "MultiDiscrete", "MultiBinary"])
def test_sizes(space, size):
    pytest.importorskip("numba")
    is_choice = space == "MultiDiscrete"
    policy = make_policy(space, *[MaskableActorCriticPolicy] * is_choice, observation_space="Box of two dimensions")
    assert_same(CompiledBackend, policy, make_steps(policy, size, masks=is_choice), **OBJECTIVES["all of it"])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_hyperbolic_tangent(scale):
    x = np.float32(scale) * np.linspace(-1, 1, 2001, dtype=np.float32)
    y = np.array([minibatch.tanh(number) for number in x])
    np.testing.assert_allclose(y, np.tanh(x.astype(float)), rtol=6e-7, atol=1e-12)
    assert abs(y).max() < 1
    assert np.isnan(minibatch.tanh(np.float32(np.nan)))


@pytest.mark.parametrize("where", ["observations", "log_probs", "advantages", "returns"])
def test_what_is_not_finite_shows(backend, where):
    policy = make_policy()
    steps = make_steps(policy)
    array = steps.inputs.observations if where == "observations" else getattr(steps, where)
    array[3] = np.nan
    engine = backend(policy)
    with np.errstate(all="ignore"):
        engine.differentiate(Objective(**USUAL, clip_range=0.2), steps)
    assert not np.isfinite(engine.gradient).all()


def test_gradients_can_be_added_to_it(backend):
    policy = make_policy("Box")
    steps = make_steps(policy)
    engine = backend(policy)
    engine.differentiate(Objective(**USUAL), steps)
    once = engine.gradient.copy()
    computed = engine.evaluate_actions(steps.inputs, steps.actions)
    engine.backward(Objective(**USUAL)(computed, steps)[1])
    np.testing.assert_allclose(engine.gradient, 2 * once, rtol=1e-4, atol=1e-6)


# ---- whole trainings ------------------------------------------------------------------------------------------------

needs_numba = pytest.mark.skipif(not compiling.is_available(), reason="needs numba and SciPy")
ROUNDS = {"n_steps": 16, "batch_size": 8, "n_epochs": 3}
TRAININGS = {
    "PPO": (fast.PPO, {**ROUNDS, "ent_coef": 0.01}),
    "PPO that clips values": (fast.PPO, {**ROUNDS, "clip_range_vf": 0.1, "max_grad_norm": 0.1}),
    "PPO that stops early": (fast.PPO, {**ROUNDS, "target_kl": 1e-5}),
    "A2C": (fast.A2C, {"n_steps": 8, "ent_coef": 0.01}),
    "A2C with Adam": (fast.A2C, {"n_steps": 8, "use_rms_prop": False, "normalize_advantage": True}),
    "AdaptiveKLPPO": (AdaptiveKLPPO, {**ROUNDS, "clip_range": 0.2}),
}


def train(cls, env, engine, **kwargs):
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "learning_rate": 1e-3, **kwargs}
    return cls("MlpPolicy", env, engine=engine, seed=0, device="cpu", **kwargs).learn(160)


@needs_numba
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("training", TRAININGS)
def test_trainings_are_the_same(training, space):
    cls, kwargs = TRAININGS[training]
    array, compiled = (
        train(cls, DummyVecEnv([lambda: RandomEnv(ACTION_SPACES[space])] * 2), engine, **kwargs)
        for engine in ("array", "compiled")
    )
    assert compiled.describe_engine() == "compiled arrays"
    th.testing.assert_close(compiled.policy.state_dict(), array.policy.state_dict(), rtol=0, atol=1e-6)
    ours, theirs = (model.policy.optimizer.state_dict()["state"] for model in (compiled, array))
    th.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("space", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_masked_trainings_are_the_same(space):
    array, compiled = (
        train(fast.MaskablePPO, DummyVecEnv([lambda: MaskedEnv(ACTION_SPACES[space])] * 2), engine, **ROUNDS)
        for engine in ("array", "compiled")
    )
    th.testing.assert_close(compiled.policy.state_dict(), array.policy.state_dict(), rtol=0, atol=1e-6)


def leaky(model):
    model.policy.mlp_extractor.policy_net[1] = nn.LeakyReLU(0.3)


def frozen(model):
    model.policy.value_net.bias.requires_grad_(False)


def without_a_step(model):
    model.policy.optimizer = th.optim.SGD(model.policy.parameters(), lr=0.0)


def moved(model):
    weight = model.policy.action_net.weight
    weight.data = 2 * weight.data


def evaluating_otherwise(model):
    evaluate = model.policy.evaluate_actions
    model.policy.evaluate_actions = lambda obs, actions: (evaluate(obs, actions)[0] + 1, *evaluate(obs, actions)[1:])


def with_a_hook(model):
    model.policy.value_net.register_forward_hook(lambda module, inputs, outputs: 2 * outputs)


def cleared(model):
    model.policy.optimizer.zero_grad(set_to_none=True)


@needs_numba
@pytest.mark.parametrize(
    "change",
    [leaky, frozen, without_a_step, moved, evaluating_otherwise, with_a_hook, cleared],
    ids=lambda f: f.__name__,
)
def test_a_policy_that_is_changed_between_two_updates(change):
    """The backend of the first update is not asked again for what is no longer so."""
    models = []
    for engine in ("auto", "autograd"):
        env = RandomEnv(ACTION_SPACES["Discrete"])
        model = fast.A2C("MlpPolicy", env, engine=engine, n_steps=8, seed=0, device="cpu").learn(16)
        change(model)
        models.append(model.learn(16, reset_num_timesteps=False))
    ours, theirs = (model.policy.state_dict() for model in models)
    th.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@needs_numba
def test_a_policy_that_stays_the_same_is_looked_at_once():
    model = fast.A2C("MlpPolicy", RandomEnv(ACTION_SPACES["Box"]), n_steps=8, seed=0, device="cpu").learn(8)
    backend = model._make_backend()
    model.learn(16, reset_num_timesteps=False)
    assert model._make_backend() is backend
    model.engine = "array"
    assert type(model._make_backend()) is ArrayBackend


# ---- the choice -----------------------------------------------------------------------------------------------------


@needs_numba
def test_it_is_the_first_choice():
    model = fast.PPO("MlpPolicy", "CartPole-v1", device="cpu", verbose=0)
    assert model.describe_engine() == "compiled arrays"
    assert fast.PPO("MlpPolicy", "CartPole-v1", device="cpu", engine="array").describe_engine() == "arrays"


def test_without_numba(monkeypatch):
    monkeypatch.setattr(compiling, "is_available", lambda: False)
    model = fast.PPO("MlpPolicy", "CartPole-v1", device="cpu", n_steps=16, batch_size=16).learn(16)
    assert model.describe_engine() == "arrays, because numba is not installed"
    with pytest.raises(ValueError, match=r"engine='compiled' .*numba is not installed; allowed: 'auto', 'array'"):
        fast.PPO("MlpPolicy", "CartPole-v1", device="cpu", engine="compiled")


@pytest.mark.parametrize("cls", [NPG, fast.TRPO, A3C])
def test_where_there_is_nothing_to_compile(cls):
    with pytest.raises(ValueError, match=r"engine='compiled'; allowed: 'auto', 'autograd', 'array'"):
        cls("MlpPolicy", "CartPole-v1", device="cpu", engine="compiled")


class Threads(BaseCallback):
    """Looks how many threads every BLAS has."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.counts = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@needs_numba
def test_its_matrix_products_have_one_thread():
    with threadpool_limits(2):
        threads = Threads()
        fast.PPO("MlpPolicy", "CartPole-v1", device="cpu", n_steps=16, batch_size=16).learn(16, threads)
    assert threads.counts == {1}
