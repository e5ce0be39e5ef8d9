"""Both engines compute the same, arrays are left to plain MLPs, and the policy stays the truth."""

import copy
import pickle

import numpy as np
import pytest
import stable_baselines3
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pg_ext import NPG, REINFORCE, AdaptiveKLPPO, fast
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.minibatches import action_array
from sb3_pg_ext.policies.exploration import MlpPolicy
from sb3_pg_ext.policies.inputs import PolicyInputs

ENGINES = ["array", "autograd"]
SPACES = ["Box", "Discrete", "MultiDiscrete", "MultiBinary"]
VECTOR = OBSERVATION_SPACES["Box"]
TOLERANCE = {"rtol": 0, "atol": 1e-5}
EXACTLY = {"rtol": 0, "atol": 0}


def make_policy(cls=MlpPolicy, action_space="Discrete", observation_space=VECTOR, **kwargs):
    th.manual_seed(0)
    space = ACTION_SPACES[action_space]
    return cls(observation_space, space, lambda _: 1e-2, **{"net_arch": [8, 8], "ortho_init": False, **kwargs})


def make_batch(policy, size=16):
    """What the policy sees, actions, and derivatives of every number."""
    rng = np.random.default_rng(0)
    policy.action_space.seed(0)
    observations = rng.uniform(-1, 1, (size, *policy.observation_space.shape)).astype(np.float32)
    actions = np.stack([np.reshape(policy.action_space.sample(), -1) for _ in range(size)])
    numbers = rng.normal(size=(4, size)).astype(np.float32)
    derivatives = dict(zip(("log_probs", "entropies", "kls", "values"), numbers, strict=True))
    return PolicyInputs(observations), action_array(actions, policy.action_space), derivatives


def without_kl(derivatives):
    return {name: array for name, array in derivatives.items() if name != "kls"}


def gradient_of(policy):
    return th.cat([th.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in policy.parameters()]).clone()


def move(policy):
    """Change all parameters in place."""
    th.manual_seed(1)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * th.randn_like(parameter))


def compute_everything(policy, choice, with_masks=False):
    """All that an engine gives: numbers at a policy that has moved from the old one, gradients, products and KL."""
    engine, _ = make_backend(policy, choice)
    inputs, actions, derivatives = make_batch(policy)
    if with_masks:
        inputs = inputs._replace(action_masks=masks_that_allow(actions, policy.action_space))
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    old = engine.snapshot(inputs)
    move(policy)
    numbers = [*engine.evaluate_actions(inputs, actions), engine.kl(old)]
    engine.zero_gradient()
    engine.backward(derivatives)
    gradient = gradient_of(policy)
    numbers += [engine.predict_values(inputs), *engine.evaluate_policy(inputs, actions)]
    _, policy_gradient = engine.policy_gradient(derivatives["log_probs"])
    product = engine.fisher_product()(th.linspace(-1, 1, len(policy_gradient)))
    kl = engine.mean_kl(old, inputs)
    compared = engine.compare(old, inputs, actions)
    np.testing.assert_allclose(compared[0], numbers[1], rtol=1e-6)
    np.testing.assert_allclose(compared[1].mean(), kl, rtol=1e-5)
    engine.evaluate_policy(inputs.rows(slice(None, None, 2)), actions[::2])
    part = engine.kl(old[np.arange(0, 16, 2)])
    policy.load_state_dict(start)
    return [*map(th.as_tensor, numbers), gradient, policy_gradient, product, th.tensor(kl), part]


FIT = {
    "as it is": {},
    "two networks": {"net_arch": {"pi": [5], "vf": [6, 7, 8]}},
    "no hidden layer": {"net_arch": []},
    "no hidden layer in one": {"net_arch": {"pi": [], "vf": [4]}},
    "a trunk": {"net_arch": {"shared": [6], "pi": [], "vf": []}},
    "layers on a trunk": {"net_arch": {"shared": [6, 7], "pi": [5], "vf": [4, 3]}},
    "two extractors": {"share_features_extractor": False},
    "orthogonal weights": {"ortho_init": True},
    **{
        activation.__name__: {"activation_fn": activation}
        for activation in (nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.SiLU)
    },
}


@pytest.mark.parametrize("action_space", SPACES)
@pytest.mark.parametrize("kwargs", FIT.values(), ids=FIT.keys())
def test_both_compute_the_same(kwargs, action_space):
    assert_both_compute_the_same(make_policy(action_space=action_space, **kwargs))


def assert_both_compute_the_same(policy, **kwargs):
    assert type(make_backend(policy)[0]) is ArrayBackend
    expected, actual = (compute_everything(policy, choice, **kwargs) for choice in ("autograd", "array"))
    for ours, theirs in zip(actual, expected, strict=True):
        th.testing.assert_close(th.as_tensor(ours), th.as_tensor(theirs), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("action_space", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_temperature(action_space):
    assert_both_compute_the_same(make_policy(action_space=action_space, temperature=3.0))


def test_initial_deviation():
    assert_both_compute_the_same(make_policy(action_space="Box of two dimensions", log_std_init=-0.5))


def test_layers_without_bias():
    policy = make_policy()
    policy.action_net, policy.value_net = nn.Linear(8, 3, bias=False), nn.Linear(8, 1, bias=False)
    assert_both_compute_the_same(policy)


def test_policies_of_sb3():
    assert_both_compute_the_same(make_policy(ActorCriticPolicy))


@pytest.mark.parametrize("choice", ENGINES)
def test_gradients_add_up(choice):
    policy = make_policy()
    engine, _ = make_backend(policy, choice)
    inputs, actions, derivatives = make_batch(policy)

    def backward(rows):
        engine.evaluate_actions(inputs.rows(rows), actions[rows])
        engine.backward({name: c[rows] for name, c in without_kl(derivatives).items()})

    engine.zero_gradient()
    backward(slice(None))
    whole = gradient_of(policy)
    engine.zero_gradient()
    for rows in (slice(5), slice(5, 16)):
        backward(rows)
    th.testing.assert_close(gradient_of(policy), whole)


@pytest.mark.parametrize("choices", [ENGINES, ENGINES[::-1]])
def test_no_gradient_leaks_from_one_engine_to_the_other(choices):
    policy = make_policy(action_space="Box")
    expected = gradient_by("autograd", make_policy(action_space="Box"))
    for choice in choices:
        th.testing.assert_close(gradient_by(choice, policy), expected, **TOLERANCE)


def gradient_by(choice, policy):
    engine, _ = make_backend(policy, choice)
    inputs, actions, derivatives = make_batch(policy)
    engine.evaluate_actions(inputs, actions)
    engine.zero_gradient()
    engine.backward(without_kl(derivatives))
    return gradient_of(policy)


@pytest.mark.parametrize("choice", ENGINES)
def test_what_no_derivative_reaches_has_no_gradient(choice):
    policy = make_policy()
    gradient_by(choice, policy)
    engine, _ = make_backend(policy, choice)
    inputs, actions, derivatives = make_batch(policy)
    engine.evaluate_actions(inputs, actions)
    engine.zero_gradient()
    engine.backward({"log_probs": derivatives["log_probs"]})
    without = {name for name, parameter in policy.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in policy.named_parameters() if name.startswith(CRITIC)}


CRITIC = ("mlp_extractor.value_net", "value_net")


@pytest.mark.parametrize("choice", ENGINES)
def test_frozen_parameters_stay_where_they_are(choice):
    policy = make_policy(action_space="Box", optimizer_class=th.optim.AdamW)
    engine, _ = make_backend(policy, choice)
    inputs, actions, derivatives = make_batch(policy)
    engine.evaluate_actions(inputs, actions)
    parameters, _ = engine.policy_gradient(derivatives["log_probs"])
    engine.freeze(parameters)
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    for _ in range(3):
        engine.predict_values(inputs)
        engine.descend({"values": derivatives["values"]}, None)
    moved = {name for name, parameter in policy.named_parameters() if not th.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith(CRITIC)}


@pytest.mark.parametrize("size", [1.0, 1e-7])
@pytest.mark.parametrize("max_norm", [None, 0.0, 1e-7, 0.5, 1e6, float("inf")])
def test_clipping(max_norm, size):
    norms, clipped = [], []
    for choice in ENGINES:
        policy = make_policy()
        inputs, actions, derivatives = make_batch(policy)
        engine, _ = make_backend(policy, choice)
        engine.evaluate_actions(inputs, actions)
        engine.zero_gradient()
        engine.backward({name: np.float32(size) * c for name, c in without_kl(derivatives).items()})
        before = gradient_of(policy)
        norms.append(engine.clip_gradient(max_norm))
        clipped.append(gradient_of(policy))
        assert norms[-1] == pytest.approx(float(before.norm()), rel=1e-6)
    th.testing.assert_close(*clipped, rtol=0, atol=1e-5 * float(clipped[1].norm()))
    if max_norm is not None:
        assert clipped[0].norm() <= max_norm * 1.0001


@pytest.mark.parametrize("choice", ENGINES)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_no_step_along_a_gradient_that_is_not_finite(choice, number):
    policy = make_policy()
    inputs, actions, derivatives = make_batch(policy)
    engine, _ = make_backend(policy, choice)

    def descend(derivatives):
        engine.evaluate_actions(inputs, actions)
        return engine.descend(without_kl(derivatives), 0.5)

    descend(derivatives)
    before = copy.deepcopy((policy.state_dict(), policy.optimizer.state_dict()))
    spoilt = derivatives["log_probs"].copy()
    spoilt[3] = number
    with pytest.raises(NonFiniteError, match="norm of the gradient"), np.errstate(all="ignore"):
        descend(derivatives | {"log_probs": spoilt})
    th.testing.assert_close((policy.state_dict(), policy.optimizer.state_dict()), before, **EXACTLY)
    descend(derivatives)  # nothing of it is left
    assert all(p.isfinite().all() for p in policy.parameters())


# Which policies are for arrays.


class Values(ActorCriticPolicy):
    def predict_values(self, obs):
        return 2 * super().predict_values(obs)


class Evaluations(ActorCriticPolicy):
    def evaluate_actions(self, obs, actions):
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return values, log_prob, 2 * entropy


class Head(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi):
        return super()._get_action_dist_from_latent(2 * latent_pi)


class Extractor(FlattenExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


class Body(nn.Module):
    latent_dim_pi = latent_dim_vf = 3

    def forward(self, features):
        return features, features

    def forward_actor(self, features):
        return features

    def forward_critic(self, features):
        return features


class OwnBody(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = Body()


IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
CONSTRUCTED = {
    "CNN": ("CnnPolicy", IMAGE, {"features_extractor_kwargs": {"features_dim": 8}}, "its observations are Box"),
    "Dict": ("MultiInputPolicy", spaces.Dict({"vector": VECTOR}), {}, "its observations are Dict"),
    "one-hot": ("MlpPolicy", spaces.Discrete(4), {}, "its observations are Discrete"),
    "extractor": ("MlpPolicy", VECTOR, {"features_extractor_class": Extractor}, "it extracts features"),
    "activation": ("MlpPolicy", VECTOR, {"activation_fn": nn.GELU}, "its activation function is GELU"),
    "deviation": ("MlpPolicy", VECTOR, {"state_dependent_std": True}, "it acts by StateDependentGaussianDistribution"),
    "values": (Values, VECTOR, {}, r"it overrides predict_values\(\)"),
    "evaluations": (Evaluations, VECTOR, {}, r"it overrides evaluate_actions\(\)"),
    "head": (Head, VECTOR, {}, r"it overrides _get_action_dist_from_latent\(\)"),
    "body": (OwnBody, VECTOR, {}, "its body is a Body"),
}


FEW_STEPS = {
    AdaptiveKLPPO: {"batch_size": 8, "n_epochs": 3},
    NPG: {"batch_size": 8, "n_critic_updates": 3},
    fast.PPO: {"batch_size": 8, "n_epochs": 3},
    stable_baselines3.PPO: {"batch_size": 8, "n_epochs": 3},
}


def make_model(cls=AdaptiveKLPPO, policy="MlpPolicy", observation_space=VECTOR, action_space="Box", **kwargs):
    of_cls = FEW_STEPS.get(cls, {})
    env = RandomEnv(ACTION_SPACES[action_space], observation_space)
    policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
    return cls(
        policy, env, policy_kwargs=policy_kwargs, **{"n_steps": 16, "seed": 0, "device": "cpu", **of_cls, **kwargs}
    )


@pytest.mark.parametrize(("policy", "space", "kwargs", "reason"), CONSTRUCTED.values(), ids=CONSTRUCTED.keys())
def test_models_with_other_policies(policy, space, kwargs, reason, capsys):
    arguments = {"policy": policy, "observation_space": space, "policy_kwargs": kwargs}
    with pytest.raises(ValueError, match=rf"engine='array' cannot differentiate this policy: {reason}.*; allowed:"):
        make_model(**arguments, engine="array")
    capsys.readouterr()
    automatic = make_model(**arguments, engine="auto", verbose=1).learn(16)
    assert capsys.readouterr().out.count("Differentiating by autograd, because it") == 1
    expected = make_model(**arguments, engine="autograd", verbose=1).learn(16)
    assert "Differentiating by autograd, as asked for" in capsys.readouterr().out
    th.testing.assert_close(automatic.policy.state_dict(), expected.policy.state_dict(), **EXACTLY)


def test_state_dependent_exploration():
    with pytest.raises(ValueError, match=r"engine='array' .* it acts by StateDependentNoiseDistribution"):
        make_model(use_sde=True, engine="array")


def with_frozen_layer(policy):
    policy.mlp_extractor.policy_net[0].requires_grad_(False)


def with_frozen_deviation(policy):
    policy.log_std.requires_grad_(False)


def with_shared_body(policy):
    policy.mlp_extractor.value_net = policy.mlp_extractor.policy_net


def with_shared_weight(policy):
    policy.mlp_extractor.value_net[0].weight = policy.mlp_extractor.policy_net[0].weight


def with_one_layer_twice(policy):
    layer = policy.mlp_extractor.policy_net[2]
    policy.mlp_extractor.policy_net = nn.Sequential(*policy.mlp_extractor.policy_net, layer, nn.Tanh())


def with_parameter_beside(policy):
    policy.scale = nn.Parameter(th.ones(1))


def with_parameter_hook(policy):
    policy.action_net.weight.register_hook(lambda gradient: 0 * gradient)


def with_late_parameter_hook(policy):
    policy.action_net.weight.register_post_accumulate_grad_hook(lambda parameter: parameter.grad.zero_())


def with_forward_hook(policy):
    policy.value_net.register_forward_hook(lambda module, args, output: 2 * output)


def with_hook_in_extractor(policy):
    policy.features_extractor.flatten.register_forward_hook(lambda module, args, output: 2 * output)


def with_backward_hook(policy):
    policy.action_net.register_full_backward_hook(lambda module, inputs, outputs: tuple(2 * g for g in inputs))


def with_early_backward_hook(policy):
    policy.action_net.register_full_backward_pre_hook(lambda module, outputs: tuple(2 * g for g in outputs))


def with_other_forward(policy):
    policy.action_net.forward = lambda x: 2 * nn.functional.linear(x, policy.action_net.weight)


def with_other_method(policy):
    policy.evaluate_actions = policy.evaluate_actions


def in_double_precision(policy):
    policy.double()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_frozen_layer, "it has frozen parameters"),
        (with_frozen_deviation, "it has frozen parameters"),
        (with_shared_body, "its layers share parameters"),
        (with_shared_weight, "its layers share parameters"),
        (with_one_layer_twice, "its layers share parameters"),
        (with_parameter_beside, "it has parameters beside its networks'"),
        (with_parameter_hook, "a parameter has a hook"),
        (with_late_parameter_hook, "a parameter has a hook"),
        (with_forward_hook, "a module has a forward hook"),
        (with_hook_in_extractor, "a module has a forward hook"),
        (with_backward_hook, "a module has a backward hook"),
        (with_early_backward_hook, "a module has a backward hook"),
        (with_other_forward, r"a module has another forward\(\) than its class"),
        (with_other_method, r"it overrides evaluate_actions\(\)"),
        (in_double_precision, "its parameters are not all float32"),
    ],
)
def test_policies_that_were_changed(change, reason):
    policy = make_policy(action_space="Box")
    change(policy)
    with pytest.raises(ValueError, match=f"engine='array' cannot differentiate this policy: {reason}; allowed: "):
        make_backend(policy, "array")
    engine, path = make_backend(policy)
    assert type(engine) is AutogradBackend
    assert path.startswith("autograd, because it") == reason.startswith("it")


def test_a_choice_that_no_longer_fits_is_an_error_at_the_next_update():
    model = make_model(engine="array").learn(16)
    with_shared_body(model.policy)
    with pytest.raises(ValueError, match="engine='array' cannot differentiate this policy: its layers share"):
        model.learn(16)


# The policy stays the truth.

MODELS = {"AdaptiveKLPPO": AdaptiveKLPPO, "NPG": NPG, "REINFORCE": REINFORCE, "PPO": fast.PPO, "A2C": fast.A2C}
each_model = pytest.mark.parametrize("cls", MODELS.values(), ids=MODELS.keys())


def state(model):
    """Copies of all parameters and of the optimiser's state."""
    return copy.deepcopy(model.get_parameters())


OPTIMIZERS = {
    "Adam": (th.optim.Adam, {}),
    "Adam that decays": (th.optim.Adam, {"weight_decay": 0.1}),
    "AMSGrad": (th.optim.Adam, {"amsgrad": True, "betas": (0.5, 0.9)}),
    "Adam, not fused": (th.optim.Adam, {"foreach": False}),
    "AdamW": (th.optim.AdamW, {"weight_decay": 0.1}),
    "RMSprop": (th.optim.RMSprop, {"eps": 1e-5}),
    "RMSprop with momentum": (th.optim.RMSprop, {"eps": 1e-5, "momentum": 0.5, "centered": True}),
    "RMSpropTFLike": (RMSpropTFLike, {"eps": 1e-5}),
    "SGD": (th.optim.SGD, {}),
    "SGD with momentum": (th.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
}


@pytest.mark.thorough
@each_model
@pytest.mark.parametrize(("optimizer", "kwargs"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_every_optimizer(optimizer, kwargs, cls):
    policy_kwargs = {"optimizer_class": optimizer, "optimizer_kwargs": kwargs}
    one, other = (
        make_model(cls, engine=engine, learning_rate=1e-3, policy_kwargs=policy_kwargs).learn(48) for engine in ENGINES
    )
    # The momentum of some adds up to tens, of which float32 keeps seven digits.
    th.testing.assert_close(state(one), state(other), atol=TOLERANCE["atol"], rtol=2e-6)


@each_model
def test_what_is_trained_is_what_acts_and_what_is_saved(cls, tmp_path):
    model = make_model(cls, engine="array")
    before = state(model)["policy"]
    model.learn(48)
    after = model.get_parameters()["policy"]
    for name, parameter in model.policy.named_parameters():
        assert parameter.data_ptr() == after[name].data_ptr()
    assert any(not th.equal(before[name], after[name]) for name in before)
    observations = np.random.default_rng(0).uniform(-1, 1, (16, 3)).astype(np.float32)
    fresh = make_model(cls, seed=1)
    fresh.set_parameters(model.get_parameters(), device="cpu")
    model.save(tmp_path / "model")
    for other in (fresh, cls.load(tmp_path / "model", device="cpu")):
        for each in (observations, observations[0]):
            expected, _ = model.predict(each, deterministic=True)
            np.testing.assert_array_equal(other.predict(each, deterministic=True)[0], expected)


def add_in_place(model):
    move(model.policy)


def give_new_data(model):
    for parameter in model.policy.parameters():
        parameter.data = 0.5 * parameter.data


def load_state_dict(model):
    model.policy.load_state_dict({name: 0.5 * p for name, p in model.policy.state_dict().items()})


def set_parameters(model):
    parameters = copy.deepcopy(model.get_parameters())
    for moments in parameters["policy.optimizer"]["state"].values():
        moments["exp_avg"] *= 2
    parameters["policy"] = {name: 0.5 * p for name, p in parameters["policy"].items()}
    model.set_parameters(parameters, device="cpu")


def replace_parameters(model):
    for module in model.policy.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(0.5 * module.weight.detach())
    model.policy.optimizer = th.optim.Adam(model.policy.parameters(), lr=1e-3)


def replace_optimizer(model):
    model.policy.optimizer = th.optim.SGD(model.policy.parameters(), lr=1e-3)


def replace_policy(model):
    policy_kwargs = {"optimizer_class": type(model.policy.optimizer)}
    model.policy = make_model(type(model), seed=1, learning_rate=1e-3, policy_kwargs=policy_kwargs).policy


class Change(BaseCallback):
    """Changes the model before the second rollout, or after it."""

    def __init__(self, change, event):
        super().__init__()
        self.change, self.event, self.n_rollouts = change, event, 0

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        self.n_rollouts += 1
        self._note("before")

    def _on_rollout_end(self):
        self._note("after")

    def _note(self, event):
        if self.n_rollouts == 2 and event == self.event:
            self.change(self.model)


@pytest.mark.thorough
@each_model
@pytest.mark.parametrize("event", ["before", "after"])
@pytest.mark.parametrize(
    "change",
    [
        add_in_place,
        give_new_data,
        load_state_dict,
        set_parameters,
        replace_parameters,
        replace_optimizer,
        replace_policy,
    ],
)
def test_what_a_callback_changes_is_seen(cls, change, event):
    changed, expected = (train_with_adam(cls, engine, Change(change, event)) for engine in ENGINES)
    th.testing.assert_close(changed, expected, **TOLERANCE)
    unchanged = train_with_adam(cls, "array")["policy"]
    assert any(not th.allclose(tensor, unchanged[name], **TOLERANCE) for name, tensor in changed["policy"].items())


def train_with_adam(cls, engine, callback=None):
    policy_kwargs = {"optimizer_class": th.optim.Adam}
    return state(make_model(cls, engine=engine, learning_rate=1e-3, policy_kwargs=policy_kwargs).learn(32, callback))


def copied(policy):
    return copy.deepcopy(policy)


def pickled(policy):
    return pickle.loads(pickle.dumps(policy))


@each_model
@pytest.mark.parametrize("make_copy", [copied, pickled])
def test_copies_of_the_policy_are_on_their_own(cls, make_copy):
    model = make_model(cls, engine="array").learn(32)
    twin = make_copy(model.policy)
    assert all(parameter.grad is None for parameter in twin.parameters())
    kept, moments = copy.deepcopy((twin.state_dict(), twin.optimizer.state_dict()))
    th.testing.assert_close((twin.state_dict(), twin.optimizer.state_dict()), (kept, moments), **EXACTLY)
    model.learn(32, reset_num_timesteps=False)
    th.testing.assert_close((twin.state_dict(), twin.optimizer.state_dict()), (kept, moments), **EXACTLY)
    descended = []
    for policy, choice in ((twin, "array"), (make_copy(twin), "autograd")):
        policy.load_state_dict(kept)
        policy.optimizer.load_state_dict(copy.deepcopy(moments))  # PyTorch would go on in the same memory
        descended.append(descend(policy, choice))
    th.testing.assert_close(*descended, **TOLERANCE)


def descend(policy, choice, n_steps=3):
    """Some steps of the optimiser, and what they make of parameters and moments."""
    inputs, actions, derivatives = make_batch(policy)
    engine, _ = make_backend(policy, choice)
    for _ in range(n_steps):
        engine.evaluate_actions(inputs, actions)
        engine.descend(without_kl(derivatives), 0.5)
    return copy.deepcopy((policy.state_dict(), policy.optimizer.state_dict()))


@pytest.mark.parametrize("optimizer", [th.optim.Adam, th.optim.AdamW, th.optim.RMSprop])
def test_the_state_of_the_optimizer_is_as_pytorch_leaves_it(optimizer, tmp_path):
    kwargs = {"learning_rate": 1e-3, "policy_kwargs": {"optimizer_class": optimizer}}
    model = make_model(fast.PPO, engine="array", **kwargs).learn(48)
    stock = make_model(stable_baselines3.PPO, **kwargs).learn(48)
    ours, theirs = (m.policy.optimizer.state_dict() for m in (model, stock))
    assert ours["param_groups"] == theirs["param_groups"]
    assert [list(moments) for moments in ours["state"].values()] == [list(m) for m in theirs["state"].values()]
    for one, other in zip(ours["state"].values(), theirs["state"].values(), strict=True):
        for key, tensor in one.items():
            assert type(tensor) is th.Tensor
            assert (tensor.shape, tensor.dtype, tensor.requires_grad) == (other[key].shape, other[key].dtype, False)
        assert th.equal(th.as_tensor(one["step"]), th.as_tensor(other["step"]))
    model.save(tmp_path / "model")
    loaded = stable_baselines3.PPO.load(tmp_path / "model", device="cpu")
    th.testing.assert_close(loaded.get_parameters(), model.get_parameters(), **EXACTLY)
    # Each parameter's count of steps is its own, in whatever memory it lies.
    n_steps = float(ours["state"][0]["step"])
    for policy in (loaded.policy, model.policy):
        descend(policy, "autograd", n_steps=1)
        assert {float(moments["step"]) for moments in policy.optimizer.state.values()} == {n_steps + 1}


def test_stock_files_go_on_with_either_engine(tmp_path):
    stock = make_model(stable_baselines3.PPO).learn(32)
    stock.save(tmp_path / "model")
    trained = []
    for engine in ENGINES:
        model = fast.PPO.load(tmp_path / "model", env=RandomEnv(), device="cpu", engine=engine)
        model.set_random_seed(1)
        trained.append(state(model.learn(32, reset_num_timesteps=False)))
    th.testing.assert_close(*trained, **TOLERANCE)


@each_model
@pytest.mark.parametrize("engine", ENGINES)
def test_an_update_leaves_gradients_and_numbers_that_are_the_users_own(cls, engine):
    """Whatever is done with ``grad`` between two updates has no influence on the next one."""

    def train(callback):
        return state(make_model(cls, engine=engine).learn(48, callback))

    def spoil(caller, _):
        for parameter in caller["self"].policy.parameters():
            parameter.grad = th.full_like(parameter, np.nan)
        return True

    th.testing.assert_close(train(spoil), train(None), **EXACTLY)


# The distribution that gives the log-probabilities.


class Masked(ActorCriticPolicy):
    """Forbids the first action, by a distribution of its own."""

    def _get_action_dist_from_latent(self, latent_pi):
        logits = super()._get_action_dist_from_latent(latent_pi).distribution.logits
        allowed = th.tensor([False, True, True])
        return CategoricalDistribution(3).proba_distribution(logits.masked_fill(~allowed, -float("inf")))


class Apart(ActorCriticPolicy):
    """Never touches ``action_dist``."""

    def _get_action_dist_from_latent(self, latent_pi):
        return CategoricalDistribution(3).proba_distribution(2 * self.action_net(latent_pi))


class Evaluated(Apart):
    """Evaluates actions in a way of its own, too."""

    def evaluate_actions(self, obs, actions):
        distribution = CategoricalDistribution(3).proba_distribution(
            2 * self.action_net(self.mlp_extractor.forward_actor(self.extract_features(obs)))
        )
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


OWN_DISTRIBUTIONS = [Masked, Apart, Evaluated]


@pytest.mark.parametrize("cls", OWN_DISTRIBUTIONS)
def test_kl_and_fisher_products_are_those_of_the_distribution_that_the_policy_makes(cls):
    policy = make_policy(cls)
    inputs, _, derivatives = make_batch(policy)
    actions = np.full((16, 1), 2)
    engine, _ = make_backend(policy)
    old = engine.snapshot(inputs)

    def p():
        return policy.get_distribution(th.from_numpy(inputs.observations)).distribution.probs.double()

    before = p().detach()
    engine.evaluate_actions(inputs, actions)
    np.testing.assert_allclose(engine.kl(old), 0, atol=1e-6)
    move(policy)
    computed = engine.evaluate_actions(inputs, actions)
    after = p().detach()
    np.testing.assert_allclose(computed.log_probs, after[:, 2].log(), rtol=1e-5)
    expected = th.where(before > 0, before * (before / after).log(), 0).sum(1)
    np.testing.assert_allclose(engine.kl(old), expected, rtol=1e-4, atol=1e-6)
    engine.evaluate_policy(inputs, actions)
    parameters, gradient = engine.policy_gradient(derivatives["log_probs"])
    v = th.linspace(-1, 1, len(gradient))
    # F = Σ_s Σ_a p ∇log p ∇log pᵀ / B, one action at a time.
    product = th.zeros_like(v).double()
    for action in range(3):
        for s in range(16):
            chosen = p()[s, action]
            if chosen > 0:
                row = th.cat([g.flatten() for g in th.autograd.grad(chosen.log(), parameters)]).double()
                product += after[s, action] * row * (row @ v.double()) / 16
    th.testing.assert_close(engine.fisher_product()(v).double(), product, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", [REINFORCE, NPG, AdaptiveKLPPO, fast.PPO, fast.A2C])
@pytest.mark.parametrize("cls", OWN_DISTRIBUTIONS)
def test_models_train_with_policies_that_make_their_own_distributions(model, cls):
    trained = make_model(model, cls, action_space="Discrete").learn(32)
    assert trained.n_dropped_rollouts == trained.n_skipped_updates == 0
    assert trained._n_updates > 0
    if cls is Masked:
        env = trained.get_env()
        assert 0 not in {trained.predict(env.reset())[0].item() for _ in range(30)}


@pytest.mark.parametrize("choice", ENGINES)
def test_parameters_frozen_before_the_first_backward_pass_stay_where_they_are(choice):
    policy = make_policy(action_space="Box")
    inputs, actions, derivatives = make_batch(policy)
    engine, _ = make_backend(policy, choice)
    actor = [parameter for name, parameter in policy.named_parameters() if not name.startswith(CRITIC)]
    engine.freeze(actor)
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    for _ in range(2):
        engine.evaluate_actions(inputs, actions)
        norm = engine.descend(without_kl(derivatives), None)
        of_critic = [p.grad for name, p in policy.named_parameters() if name.startswith(CRITIC)]
        assert norm == pytest.approx(float(th.cat([g.flatten() for g in of_critic]).norm()), rel=1e-5)
    moved = {name for name, parameter in policy.named_parameters() if not th.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith(CRITIC)}


def test_the_norm_is_that_of_all_parameters_whatever_the_optimiser_holds():
    """As stock SB3 clips."""
    norms = []
    for choice in ENGINES:
        policy = make_policy()
        policy.optimizer = th.optim.Adam(policy.value_net.parameters(), lr=1e-3)
        inputs, actions, derivatives = make_batch(policy)
        engine, _ = make_backend(policy, choice)
        for _ in range(2):  # nothing of the first one is left
            engine.evaluate_actions(inputs, actions)
            engine.zero_gradient()
            engine.backward(without_kl(derivatives))
        gradient = gradient_of(policy)
        norms.append(engine.clip_gradient(0.5))
        assert norms[-1] == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_masks_reach_a_policy_that_takes_them():
    th.manual_seed(0)
    policy = MaskableActorCriticPolicy(VECTOR, spaces.Discrete(3), lambda _: 1e-2, net_arch=[8])
    inputs, _, _ = make_batch(policy)
    masks = np.ones((16, 3), bool)
    masks[:, 1] = False
    masked, actions = PolicyInputs(inputs.observations, masks), np.full((16, 1), 2)
    engine = AutogradBackend(policy)
    computed = engine.evaluate_actions(masked, actions)
    obs = th.from_numpy(inputs.observations)
    p = policy.get_distribution(obs).distribution.probs.detach()
    np.testing.assert_allclose(computed.log_probs, (p[:, 2] / (p[:, 0] + p[:, 2])).log(), rtol=1e-5)
    old = engine.snapshot(masked)
    np.testing.assert_allclose(engine.kl(old), 0, atol=1e-6)
    np.testing.assert_allclose(engine.kl(old[np.arange(16)]), 0, atol=1e-7)
    part = masked.rows(slice(4))
    np.testing.assert_allclose(engine.evaluate_policy(part, actions[:4]).log_probs, computed.log_probs[:4], rtol=1e-6)


def masks_that_allow(actions, space):
    """Masks of half of the choices, and of those that were made."""
    sizes = {"Discrete": [3], "MultiDiscrete": [3, 2], "MultiBinary": [2, 2]}[type(space).__name__]
    masks = np.random.default_rng(1).random((len(actions), sum(sizes))) < 0.5
    starts = np.cumsum([0, *sizes[:-1]])
    masks[np.arange(len(actions))[:, None], actions.astype(int) + starts] = True
    assert not masks.all()
    return masks


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("action_space", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_both_compute_the_same_with_masks(action_space, with_masks):
    """Numbers, derivatives, KL and Fisher products."""
    policy = make_policy(MaskableActorCriticPolicy, action_space)
    assert_both_compute_the_same(policy, with_masks=with_masks)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("action_space", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_a_masked_action_has_no_probability_and_no_derivative(engine, action_space):
    policy = make_policy(MaskableActorCriticPolicy, action_space)
    inputs, actions, derivatives = make_batch(policy)
    masks = masks_that_allow(actions, policy.action_space)
    masks[:, 0] = actions[:, 0] == 0  # allowed where taken
    masked, engine = inputs._replace(action_masks=masks), make_backend(policy, engine)[0]
    old = engine.snapshot(masked)
    found = [old.probs] if hasattr(old, "probs") else [part.probs for part in old.distributions]
    assert (np.concatenate(found, axis=1)[~masks] == 0).all()
    never = actions[:, 0] != 0  # here the first choice is masked everywhere
    rows = {name: array[never] for name, array in derivatives.items()}
    engine.evaluate_actions(masked.rows(never), actions[never])
    engine.kl(old[never.nonzero()[0]])
    engine.zero_gradient()
    engine.backward(rows)
    gradient = policy.action_net.weight.grad
    assert gradient[0].abs().max() < 1e-7
    assert gradient[1:].abs().max() > 1e-3


def test_what_differentiates_can_be_asked_for():
    model = make_model()
    assert model.describe_engine().startswith(("compiled arrays", "arrays"))
    assert make_model(policy_kwargs={"activation_fn": nn.GELU}).describe_engine().startswith("autograd, because")
