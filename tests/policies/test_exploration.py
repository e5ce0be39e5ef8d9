"""Temperature and state-dependent deviation: against formulas in double precision, and inside algorithms."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import actor_layers
from sb3_pg_ext.rollouts.action_sampling import MLPActionSampler, PolicyActionSampler, make_action_sampler

VECTOR = OBSERVATION_SPACES["Box"]
GAUSSIAN = spaces.Box(-1, 1, (2,), np.float32)
DISCRETE = {name: space for name, space in ACTION_SPACES.items() if not isinstance(space, spaces.Box)}
each_discrete_space = pytest.mark.parametrize("action_space", DISCRETE.values(), ids=DISCRETE.keys())


def make_policy(action_space, cls=MlpPolicy, observation_space=VECTOR, **kwargs):
    th.manual_seed(1)
    return cls(observation_space, action_space, lambda _: 1e-3, **{"net_arch": [8], "ortho_init": False, **kwargs})


def observe(n=32):
    return np.random.default_rng(0).uniform(-1, 1, size=(n, 3)).astype(np.float32)


def distribution_of(policy, obs):
    with th.no_grad():
        return policy.get_distribution(th.as_tensor(obs))


def double(module):
    return (
        module.weight.detach().double().numpy(),
        None if module.bias is None else module.bias.detach().double().numpy(),
    )


def latent_of(policy, obs):
    """The actor's latent features, tanh(W x + b)."""
    weight, bias = double(policy.mlp_extractor.policy_net[0])
    return np.tanh(obs @ weight.T + bias)


def logits_of(policy, obs):
    weight, bias = double(policy.action_net)
    return latent_of(policy, obs) @ weight.T + bias


def softmax(logits):
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


each_temperature = pytest.mark.parametrize("temperature", [0.3, 1.0, 5])


@each_temperature
def test_softmax(temperature):
    policy, obs = make_policy(spaces.Discrete(4), temperature=temperature), observe()
    expected = softmax(logits_of(policy, obs) / temperature)
    np.testing.assert_allclose(distribution_of(policy, obs).distribution.probs, expected, rtol=1e-5)


@each_temperature
def test_several_softmaxes(temperature):
    policy, obs = make_policy(spaces.MultiDiscrete([3, 2]), temperature=temperature), observe()
    logits = logits_of(policy, obs) / temperature
    for part, expected in zip(distribution_of(policy, obs).distribution, (logits[:, :3], logits[:, 3:]), strict=True):
        np.testing.assert_allclose(part.probs, softmax(expected), rtol=1e-5)


@each_temperature
def test_sigmoid(temperature):
    policy, obs = make_policy(spaces.MultiBinary(2), temperature=temperature), observe()
    expected = 1 / (1 + np.exp(-logits_of(policy, obs) / temperature))
    np.testing.assert_allclose(distribution_of(policy, obs).distribution.probs, expected, rtol=1e-5)


def make_state_dependent(**kwargs):
    policy = make_policy(GAUSSIAN, state_dependent_std=True, **kwargs)
    with th.no_grad():
        policy.action_net.mean.bias.copy_(th.tensor([0.5, -1.0]))
        policy.log_std.copy_(th.tensor([-0.7, 0.2]))
    return policy


def expected_gaussian(policy, obs):
    """μ(s) and log σ(s), not yet clamped."""
    latent, (weight, bias), (std_weight, _) = (
        latent_of(policy, obs),
        double(policy.action_net.mean),
        double(policy.action_net.log_std),
    )
    return latent @ weight.T + bias, policy.log_std.detach().double().numpy() + latent @ std_weight.T


def test_gaussian_with_state_dependent_deviation():
    policy, obs = make_state_dependent(), observe()
    mean, log_std = expected_gaussian(policy, obs)
    assert log_std.std(axis=0).min() > 0.05
    normal = distribution_of(policy, obs).distribution
    np.testing.assert_allclose(normal.loc, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normal.scale, np.exp(log_std), rtol=1e-5)


def test_log_probability_of_the_gaussian():
    policy, obs = make_state_dependent(), observe()
    mean, log_std = expected_gaussian(policy, obs)
    actions = np.random.default_rng(1).normal(size=(32, 2))
    z = (actions - mean) / np.exp(log_std)
    expected = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
    with th.no_grad():
        _, log_probs, entropy = policy.evaluate_actions(th.as_tensor(obs), th.as_tensor(actions, dtype=th.float32))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4)
    np.testing.assert_allclose(entropy, (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum(1), rtol=1e-4)


@pytest.mark.parametrize("kwargs", [{}, {"net_arch": []}, {"layer_norm": True}, {"std_function": "softplus"}])
def test_a_separate_deviation_shares_nothing_with_the_mean(kwargs):
    policy = make_policy(GAUSSIAN, state_dependent_std="separate", **kwargs)
    gaussian = policy.get_distribution(th.as_tensor(observe())).distribution
    parameters = dict(policy.named_parameters())

    def reached(output):
        gradients = th.autograd.grad(output.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
        return {
            name
            for name, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None and gradient.any()
        }

    of_mean, of_std = reached(gaussian.mean), reached(gaussian.stddev)
    hidden = len(policy.net_arch) and 2
    assert len(of_mean) == len(of_std) == hidden + 2
    assert not of_mean & of_std
    assert not any("value" in name for name in of_mean | of_std)


def test_a_separate_deviation_in_double_precision():
    policy = make_policy(GAUSSIAN, state_dependent_std="separate", log_std_init=-0.5)
    layers, head, obs = policy.mlp_extractor.policy_net, policy.action_net, observe()
    gaussian = distribution_of(policy, obs).distribution
    for of_layer, of_head, found in (
        (layers.first[0], head.mean, gaussian.mean),
        (layers.second[0], head.log_std, gaussian.stddev.log() + 0.5),
    ):
        weight, bias = double(of_layer)
        last_weight, last_bias = double(of_head)
        expected = np.tanh(obs @ weight.T + bias) @ last_weight.T + (0 if last_bias is None else last_bias)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert gaussian.stddev.std(0).min() > 0.01


@pytest.mark.parametrize(("log_std", "bound"), [(-50.0, -20.0), (9.0, 2.0)])
def test_the_deviation_stays_within_bounds(log_std, bound):
    policy = make_state_dependent()
    with th.no_grad():
        policy.log_std.fill_(log_std)
    assert distribution_of(policy, observe()).distribution.scale.unique().tolist() == pytest.approx([np.exp(bound)])


def test_the_deviation_starts_at_log_std_init():
    policy = make_policy(GAUSSIAN, state_dependent_std=True, log_std_init=-1.5, ortho_init=True)
    scale = distribution_of(policy, observe()).distribution.scale
    np.testing.assert_allclose(scale.log(), -1.5, atol=0.05)
    assert len(scale.unique()) > 2


@each_discrete_space
def test_the_most_probable_action_stays_the_same(action_space):
    obs = observe()
    actions = [make_policy(action_space, temperature=t).predict(obs, deterministic=True)[0] for t in (0.1, 1, 10)]
    np.testing.assert_array_equal(actions[0], actions[1])
    np.testing.assert_array_equal(actions[0], actions[2])


@each_discrete_space
def test_entropy_grows_with_temperature(action_space):
    obs = observe()
    entropies = [
        distribution_of(make_policy(action_space, temperature=t), obs).entropy().numpy() for t in (0.2, 0.5, 1, 2, 5)
    ]
    assert (np.diff(entropies, axis=0) > 0).all()


@each_discrete_space
def test_the_fast_path_divides_by_the_temperature(action_space):
    policy, obs = make_policy(action_space, temperature=0.2), observe()
    np.testing.assert_allclose(
        mlp.forward(actor_layers(policy), obs), logits_of(policy, obs) / 0.2, rtol=2e-5, atol=1e-5
    )
    assert make_action_sampler(policy, n_envs=1, n_steps=None)[1] == "an MLP in NumPy"


def test_both_paths_sample_the_tempered_softmax():
    policy = make_policy(spaces.Discrete(4), temperature=0.2)
    obs = np.tile(observe(1), (500, 1))
    expected = softmax(logits_of(policy, obs[:1]) / 0.2)[0]
    for act in (PolicyActionSampler(policy), MLPActionSampler(policy, actor_layers(policy), 500, n_steps=16)):
        shares = np.bincount(np.concatenate([act(PolicyInputs(obs)) for _ in range(40)]), minlength=4) / 20_000
        np.testing.assert_allclose(shares, expected, atol=5 * 0.5 / np.sqrt(20_000))


def test_a_state_dependent_deviation_is_sampled_by_the_policy_itself():
    policy = make_state_dependent()
    act, path = make_action_sampler(policy, n_envs=2, n_steps=None)
    assert path.startswith("the policy's own forward pass")
    obs = observe(2)
    mean, log_std = expected_gaussian(policy, obs)
    z = (np.stack([act(PolicyInputs(obs)) for _ in range(4000)]) - mean) / np.exp(log_std)
    np.testing.assert_allclose(z.mean(0), 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(z.std(0), 1, atol=5 / np.sqrt(2 * 4000))


IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
SB3S_OWN = {
    "MlpPolicy": (MlpPolicy, ActorCriticPolicy, VECTOR),
    "CnnPolicy": (CnnPolicy, ActorCriticCnnPolicy, IMAGE),
    "MultiInputPolicy": (MultiInputPolicy, MultiInputActorCriticPolicy, spaces.Dict({"vector": VECTOR})),
}


@pytest.mark.parametrize("name", SB3S_OWN)
@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
def test_by_default_they_are_sb3s_own(name, action_space):
    ours, sb3s, observation_space = SB3S_OWN[name]
    policy, expected = (make_policy(action_space, cls, observation_space, ortho_init=True) for cls in (ours, sb3s))
    assert policy.state_dict().keys() == expected.state_dict().keys()
    assert all(map(th.equal, policy.state_dict().values(), expected.state_dict().values()))
    observation_space.seed(0)
    obs, _ = policy.obs_to_tensor(observation_space.sample())
    for one, other in zip(*(made(obs, deterministic=True) for made in (policy, expected)), strict=True):
        assert th.equal(one, other)


def test_by_default_training_is_that_with_sb3s_policy():
    def trained(policy):
        return PPO(policy, RandomEnv(), n_steps=32, batch_size=16, n_epochs=2, seed=3, device="cpu").learn(64)

    assert all(map(th.equal, trained(MlpPolicy).policy.parameters(), trained("MlpPolicy").policy.parameters()))


def test_temperature_leaves_the_initial_parameters_alone():
    warm, plain = (make_policy(spaces.Discrete(3), temperature=t, ortho_init=True) for t in (2.0, 1.0))
    assert warm.state_dict().keys() == plain.state_dict().keys()
    assert all(map(th.equal, warm.state_dict().values(), plain.state_dict().values()))


EXPLORATION = {
    "temperature": (spaces.Discrete(3), {"temperature": 0.5}),
    "deviation": (GAUSSIAN, {"state_dependent_std": True}),
    "separate deviation": (GAUSSIAN, {"state_dependent_std": "separate"}),
}
each_exploration = pytest.mark.parametrize(("action_space", "kwargs"), EXPLORATION.values(), ids=EXPLORATION.keys())


@each_exploration
@pytest.mark.parametrize("algorithm", [REINFORCE, PPO, A2C])
def test_algorithms_train_save_and_load(algorithm, action_space, kwargs, tmp_path):
    steps = {} if algorithm is REINFORCE else {"n_steps": 20}
    batch = {"batch_size": 10} if algorithm is PPO else {}
    policy = MlpPolicy if algorithm is not REINFORCE else "MlpPolicy"
    model = algorithm(
        policy, RandomEnv(action_space), policy_kwargs=dict(kwargs), seed=0, device="cpu", **steps, **batch
    )
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(60).save(tmp_path / "model")
    moved = [not th.equal(now, then) for now, then in zip(model.policy.parameters(), before, strict=True)]
    critic_only = algorithm is REINFORCE
    names = [name for name, _ in model.policy.named_parameters()]
    assert all(changed or (critic_only and "value" in name) for name, changed in zip(names, moved, strict=True))
    loaded, obs = algorithm.load(tmp_path / "model"), observe()
    for name, parameter in distribution_parameters(model.policy, obs).items():
        assert th.equal(parameter, distribution_parameters(loaded.policy, obs)[name])


def distribution_parameters(policy, obs):
    distribution = distribution_of(policy, obs).distribution
    return {name: getattr(distribution, name) for name in ("logits", "loc", "scale") if hasattr(distribution, name)}


@each_exploration
def test_a_policy_saved_alone_is_loaded_alone(action_space, kwargs, tmp_path):
    policy, obs = make_policy(action_space, **kwargs), observe()
    policy.save(tmp_path / "policy")
    loaded = MlpPolicy.load(tmp_path / "policy", device="cpu")
    for name, parameter in distribution_parameters(policy, obs).items():
        assert th.equal(parameter, distribution_parameters(loaded, obs)[name])


@each_exploration
def test_reinforce_learns(action_space, kwargs):
    """Every component of an action costs its value, so the best action is the smallest."""
    arguments = {"net_arch": [], **kwargs}
    env = RandomEnv(action_space, length=1)
    model = REINFORCE("MlpPolicy", env, 0.1, policy_kwargs=arguments, n_episodes=20, baseline="mean", seed=0).learn(
        1500
    )
    actions, _ = model.predict(observe(), deterministic=True)
    assert (actions == (0 if isinstance(action_space, spaces.Discrete) else -1)).mean() > 0.9


BAD = {
    "no temperature": (spaces.Discrete(3), {"temperature": 0}, r"temperature=0; allowed: \[0.001, 1000\]"),
    "negative": (spaces.Discrete(3), {"temperature": -1.0}, r"temperature=-1.0; allowed: \[0.001, 1000\]"),
    "NaN": (spaces.Discrete(3), {"temperature": float("nan")}, "temperature=nan; allowed"),
    "a word": (spaces.Discrete(3), {"temperature": "hot"}, "temperature='hot'; allowed"),
    "for a Gaussian": (GAUSSIAN, {"temperature": 2.0}, "temperature=2.0 with the action space Box.*Discrete"),
    "deviation of a softmax": (
        spaces.Discrete(3),
        {"state_dependent_std": True},
        "state_dependent_std=True with the action space Discrete.*allowed: False, or a Box",
    ),
    "by name": (
        GAUSSIAN,
        {"state_dependent_std": "no"},
        "state_dependent_std='no'; allowed: True, False or 'separate'",
    ),
    "separate and shared": (
        GAUSSIAN,
        {"state_dependent_std": "separate", "net_arch": {"shared": [4], "pi": [], "vf": []}},
        "state_dependent_std='separate' with net_arch=.*allowed: no shared layers",
    ),
    "with gSDE": (GAUSSIAN, {"state_dependent_std": True, "use_sde": True}, "use_sde=True; allowed: False, or"),
    "out of bounds": (
        GAUSSIAN,
        {"state_dependent_std": True, "log_std_init": 3.0},
        r"log_std_init=3.0; allowed: \[-20, 2\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_say_what_is_allowed(name):
    action_space, kwargs, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make_policy(action_space, **kwargs)


@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("action_space", [spaces.MultiBinary(3), spaces.Discrete(3)], ids=["MultiBinary", "Discrete"])
def test_policies_that_are_nearly_certain_go_on_learning(engine, action_space):
    """Their KL is finite, though probabilities are rounded to 0 and 1."""
    arguments = {"learning_rate": 3e-3, "policy_kwargs": {"temperature": 1e-3, "net_arch": [8]}, "device": "cpu"}
    model = REINFORCE("MlpPolicy", RandomEnv(action_space), n_episodes=4, seed=0, engine=engine, **arguments)
    model.learn(800)
    assert model.n_skipped_updates == 0
