"""Networks, optimisers, exploration and prediction of the fast twins, against those of the stock classes."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from comparison import (
    A2C,
    PPO,
    AskedItself,
    Exchange,
    Record,
    assert_close,
    assert_trains_alike,
    each_pair,
    moved,
    parameters,
    vec_env,
)
from envs import ACTION_SPACES, IMAGE, OBSERVATION_SPACES, VECTOR, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)
from torch import nn

pytestmark = pytest.mark.thorough

each_actor_critic = pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])


class Scale(BaseFeaturesExtractor):
    """Features with a parameter of their own."""

    def __init__(self, observation_space, start=0.5):
        super().__init__(observation_space, features_dim=observation_space.shape[0])
        self.scale = nn.Parameter(th.full((self.features_dim,), start))

    def forward(self, observations):
        return self.scale * observations


NETWORKS = {
    "linear": {"net_arch": []},
    "one layer": {"net_arch": [4]},
    "two layers": {"net_arch": [4, 4]},
    "an actor alone": {"net_arch": {"pi": [4], "vf": []}},
    "a critic alone": {"net_arch": {"vf": [4]}},
    "different ones": {"net_arch": {"pi": [6], "vf": [4, 5]}},
    "the default": {"net_arch": None},
    "ReLU": {"activation_fn": nn.ReLU},
    "ELU": {"activation_fn": nn.ELU},
    "GELU": {"activation_fn": nn.GELU},
    "not orthogonal": {"ortho_init": False},
    "log_std_init": {"log_std_init": -1.0},
    "features": {"features_extractor_class": Scale},
    "features twice": {"features_extractor_class": Scale, "share_features_extractor": False},
    "features with arguments": {"features_extractor_class": Scale, "features_extractor_kwargs": {"start": 2.0}},
}


@each_pair
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(pair, name):
    """The same ones are made, and the same rollout changes them in the same way."""
    models, exchange = pair.make_both(policy_kwargs=NETWORKS[name]), Exchange()
    start = parameters(models[0])
    assert_close(parameters(models[1]), start, rtol=0, atol=0)
    for model in models:
        model.learn(32, exchange)
    assert moved(models[0], start)
    assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-5, atol=1e-5)


@each_actor_critic
@pytest.mark.parametrize("name", ["different ones", "GELU", "features", "features twice"])
def test_training_of_networks(pair, name):
    assert_trains_alike(pair, policy_kwargs=NETWORKS[name])


@each_actor_critic
@pytest.mark.parametrize("net_arch", [[{"vf": [8]}], [{"pi": [4], "vf": [8]}]])
def test_the_old_format_of_networks(pair, net_arch):
    with pytest.warns(UserWarning, match="shared layers in the mlp_extractor are removed"):
        models = pair.make_both(policy_kwargs={"net_arch": net_arch})
    assert_close(*map(parameters, models), rtol=0, atol=0)


OPTIMIZERS = {
    "AdamW": (th.optim.AdamW, {"weight_decay": 0.1}),
    "AdamW as it is": (th.optim.AdamW, None),
    "AMSGrad": (th.optim.Adam, {"amsgrad": True, "eps": 1e-3, "betas": (0.5, 0.9)}),
    "momentum": (th.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "RMSprop": (th.optim.RMSprop, {"alpha": 0.5, "centered": True}),
    "as in TensorFlow": (RMSpropTFLike, {"alpha": 0.9}),
    "Adagrad": (th.optim.Adagrad, None),
}


@each_pair
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(pair, name):
    optimizer, kwargs = OPTIMIZERS[name]
    policy_kwargs = {"optimizer_class": optimizer, "optimizer_kwargs": kwargs}
    models, exchange = pair.make_both(policy_kwargs=policy_kwargs, learning_rate=1e-3), Exchange()
    start = parameters(models[0])
    for model in models:
        assert type(model.policy.optimizer) is optimizer
        model.learn(32, exchange)
    assert moved(models[0], start)
    assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-5, atol=1e-5)
    settings = [
        [{k: v for k, v in g.items() if k != "params"} for g in m.policy.optimizer.param_groups] for m in models
    ]
    assert settings[0] == settings[1]


def image_env(shape=IMAGE.shape, dtype=np.uint8, n_envs=1):
    return vec_env(n_envs, action_space=ACTION_SPACES["Discrete"], observation_space=spaces.Box(0, 255, shape, dtype))


SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 8}}


@each_actor_critic
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("shape", [(36, 36, 1), (1, 36, 36)], ids=["channel last", "channel first"])
def test_images(pair, share, shape, tmp_path):
    kwargs = {**SMALL_CNN, "share_features_extractor": share}
    _, model = assert_trains_alike(
        pair, lambda: image_env(shape), "CnnPolicy", total_timesteps=32, policy_kwargs=kwargs
    )
    assert is_vecenv_wrapped(model.env, VecTransposeImage) == (shape[-1] == 1)
    obs = image_env(shape).reset()
    action, _ = model.predict(obs, deterministic=True)
    model.save(tmp_path / "model")
    loaded = pair.ours.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], action)


def test_stacked_images():
    def make_env():
        return VecTransposeImage(VecFrameStack(image_env((2, 37, 36)), 5, channels_order="first"), skip=True)

    assert_trains_alike(A2C, make_env, "CnnPolicy", total_timesteps=32, policy_kwargs=SMALL_CNN)


@each_actor_critic
def test_images_that_are_normalised_already(pair):
    def make_env():
        return VecNormalize(image_env((1, 36, 36)))

    with pytest.raises(AssertionError, match="only with images"):
        pair.make_ours(make_env(), "CnnPolicy", policy_kwargs=SMALL_CNN)
    kwargs = {**SMALL_CNN, "normalize_images": False}
    assert_trains_alike(pair, make_env, "CnnPolicy", total_timesteps=32, policy_kwargs=kwargs)


@each_pair
@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_policies_that_take_no_dictionaries(pair, policy):
    for cls in (pair.theirs, pair.ours):
        with pytest.raises(ValueError, match="You must use `MultiInputPolicy`"):
            pair.make(cls, RandomEnv(observation_space=OBSERVATION_SPACES["Dict"]), policy)


@each_pair
def test_nested_dictionaries_are_refused(pair):
    space = spaces.Dict({"outer": spaces.Dict({"inner": VECTOR})})
    for cls in (pair.theirs, pair.ours):
        with pytest.raises(NotImplementedError, match="Nested observation spaces are not supported"):
            pair.make(cls, RandomEnv(observation_space=space), "MultiInputPolicy")


@each_pair
def test_matrices_of_bits_are_refused(pair):
    for cls in (pair.theirs, pair.ours):
        with pytest.raises(AssertionError, match="Multi-dimensional MultiBinary"):
            pair.make(cls, RandomEnv(spaces.MultiBinary([2, 3])))


@pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_expln": True},
        {"full_std": False},
        {"squash_output": True},
        {"squash_output": True, "use_expln": True},
        {"log_std_init": -2.0, "net_arch": []},
        {"share_features_extractor": False},
    ],
    ids=str,
)
def test_state_dependent_exploration(pair, settings):
    space = ACTION_SPACES["Box of two dimensions"]
    kwargs = {"use_sde": True, "sde_sample_freq": 4, "policy_kwargs": settings}
    assert_trains_alike(pair, lambda: vec_env(action_space=space), "MlpPolicy", **kwargs)


@each_pair
def test_one_noise_matrix_a_rollout(pair):
    assert_trains_alike(pair, policy="MlpPolicy", use_sde=True)


@each_pair
def test_squashed_actions_are_kept_scaled(pair):
    """The buffer has them within ±1, the environment within its bounds."""
    space = spaces.Box(-7, 3, (2,), np.float32)
    kwargs = {"use_sde": True, "policy_kwargs": {"squash_output": True, "log_std_init": 1.0}}
    model, record = pair.make_ours(vec_env(action_space=space), **kwargs), Record()
    model.learn(32, record)
    stored, taken = (np.array([step[name] for step in record.steps]) for name in ("actions", "clipped_actions"))
    assert np.abs(stored).max() <= 1
    assert taken.min() < -1
    np.testing.assert_allclose(taken, -7 + 5 * (stored + 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(record.buffers[0]["actions"], stored[: model.n_steps])


@each_pair
def test_exploration_that_does_not_go_with_the_space(pair):
    for cls in (pair.theirs, pair.ours):
        with pytest.raises(ValueError, match="can only be used with continuous actions"):
            pair.make(cls, RandomEnv(ACTION_SPACES["Discrete"]), use_sde=True)
        with pytest.raises(AssertionError, match="use_sde=True"):
            pair.make(cls, policy_kwargs={"squash_output": True})


class Noisy(BaseFeaturesExtractor):
    """Batch normalisation and dropout, which work differently in training mode."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=observation_space.shape[0])
        self.layers = nn.Sequential(nn.BatchNorm1d(self.features_dim), nn.Dropout(0.5))

    def forward(self, observations):
        return self.layers(observations)


NOISY = {"features_extractor_class": Noisy}


@each_actor_critic
@pytest.mark.parametrize("space", ["Box", "Discrete"])
@pytest.mark.parametrize("share", [True, False])
def test_training_and_evaluation_modes(pair, space, share):
    """The same draws of dropout in updates, none in rollouts, and the same running statistics at every point."""
    kwargs = {**NOISY, "share_features_extractor": share}
    assert_trains_alike(
        pair, lambda: vec_env(action_space=ACTION_SPACES[space]), "MlpPolicy", total_timesteps=64, policy_kwargs=kwargs
    )


@each_pair
def test_rollouts_leave_running_statistics_alone(pair):
    model = pair.make_ours(vec_env(), policy_kwargs=NOISY)
    start = parameters(model)
    _, callback = model._setup_learn(64)
    for _ in range(2):
        model.policy.set_training_mode(True)
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        assert not model.policy.training
    assert_close(parameters(model), start, rtol=0, atol=0)
    model.train()
    assert model.policy.training
    running_mean = "features_extractor.layers.0.running_mean"
    assert not th.equal(parameters(model)[running_mean], start[running_mean])


@each_pair
def test_predictions_with_dropout(pair):
    model = pair.make_ours(vec_env(), policy_kwargs=NOISY).learn(32)
    before, observations = parameters(model), vec_env(8).reset()
    model.policy.set_training_mode(True)
    actions = [model.predict(observations, deterministic=True)[0] for _ in range(4)]
    assert all(np.array_equal(action, actions[0]) for action in actions)
    assert_close(parameters(model), before, rtol=0, atol=0)


PREDICTED = {
    **{name: (space, VECTOR) for name, space in ACTION_SPACES.items()},
    **{f"{name} observations": (ACTION_SPACES["Box"], space) for name, space in OBSERVATION_SPACES.items()},
}
POLICIES = {"image observations": "CnnPolicy", "Dict observations": "MultiInputPolicy"}
SMALL = {"CnnPolicy": SMALL_CNN, "MultiInputPolicy": {"features_extractor_kwargs": {"cnn_output_dim": 8}}}


@each_actor_critic
@pytest.mark.parametrize("name", PREDICTED)
def test_predictions(pair, name):
    """Of one observation and of several, sampled and not: the stock class's, types and shapes included."""
    action_space, space = PREDICTED[name]
    policy = POLICIES.get(name, "MlpPolicy")
    both = pair.make_both(
        lambda: vec_env(2, action_space=action_space, observation_space=space),
        policy,
        policy_kwargs=SMALL.get(policy, {}),
    )
    space.seed(3)
    one, several = space.sample(), both[0].env.reset()
    for obs in (one, several):
        for deterministic in (False, True):
            predicted = []
            for model in both:
                set_random_seed(2)
                action, state = model.predict(obs, deterministic=deterministic)
                assert state is None
                predicted.append(action)
            expected, actual = predicted
            assert (type(actual), actual.dtype, actual.shape) == (type(expected), expected.dtype, expected.shape)
            np.testing.assert_array_equal(actual, expected)
    assert action_space.contains(both[1].predict(one)[0])


@each_pair
def test_mixed_interfaces_are_pointed_out(pair):
    with pytest.raises(ValueError, match="mixing Gym API with SB3 VecEnv API"):
        pair.make_ours().predict(RandomEnv().reset())


@each_pair
def test_subclasses_of_spaces(pair):
    class OwnBox(spaces.Box):
        pass

    env = RandomEnv(OwnBox(-1, 1, (2,), np.float32), OwnBox(-1, 1, (2,), np.float32))
    model = pair.make_ours(env).learn(32)
    assert env.action_space.contains(model.predict(env.reset()[0])[0])


@each_pair
def test_double_precision_actions(pair):
    space = spaces.Box(-1, 1, (2,), np.float64)
    assert_trains_alike(pair, lambda: vec_env(action_space=space))
    model = pair.make_ours(RandomEnv(space)).learn(32)
    action, _ = model.predict(VECTOR.sample())
    assert action.dtype == np.float64
    assert model.rollout_buffer.actions.dtype == np.float64


@each_pair
def test_evaluation(pair):
    stock, twin = pair.make_both()
    twin.set_parameters(stock.get_parameters())
    results = []
    for model in (stock, twin, twin.policy):
        env = DummyVecEnv([lambda: Monitor(gym.wrappers.TimeLimit(RandomEnv(length=9), 6))] * 2)
        env.seed(1)
        results.append(evaluate_policy(model, env, 5, return_episode_rewards=True))
    assert results[0] == results[1] == results[2]
    assert results[0][1] == [6] * 5


class Doubled(ActorCriticPolicy):
    """A policy of a user's own with an argument of its own."""

    def __init__(self, *args, factor=2, **kwargs):
        self.factor = factor
        super().__init__(*args, **kwargs)

    def extract_features(self, obs, *args, **kwargs):
        return self.factor * super().extract_features(obs, *args, **kwargs)


@each_pair
def test_custom_policies(pair):
    assert_trains_alike(pair, policy=Doubled, policy_kwargs={"factor": 3})


class OwnDistribution(AskedItself):
    """``get_distribution()`` is for whoever calls it; a rollout acts by ``forward()``."""

    def get_distribution(self, obs):
        return self.action_dist.proba_distribution(*self._shifted(super().get_distribution(obs).distribution))

    def _shifted(self, normal):
        return normal.mean + 1, normal.stddev.log()


class OwnEvaluation(AskedItself):
    """``evaluate_actions()`` is for updates; a rollout takes values and log-probabilities from ``forward()``."""

    def evaluate_actions(self, obs, actions):
        values, log_probs, entropies = super().evaluate_actions(obs, actions)
        return values + 1, log_probs - 0.3, entropies


class OwnExtractor(MlpExtractor):
    """Gives other latent features to ``forward()`` than to ``forward_actor()`` and ``forward_critic()``."""

    def forward(self, features):
        of_actor, of_critic = super().forward(features)
        return 2 * of_actor, of_critic - 1


class OwnExtractorPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = OwnExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device)


class NoisyFeatures(AskedItself):
    """Draws random numbers of its own, always."""

    def extract_features(self, obs, *args, **kwargs):
        features = super().extract_features(obs, *args, **kwargs)
        return features + 0.1 * th.randn_like(features)


@each_pair
@pytest.mark.parametrize("policy", [OwnDistribution, OwnEvaluation, OwnExtractorPolicy, NoisyFeatures])
def test_rollouts_are_what_forward_says(pair, policy):
    assert_trains_alike(pair, vec_env, policy)


@each_pair
@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself])
def test_hooks_of_policies_are_called(pair, policy):
    calls = []
    for model in pair.make_both(policy=policy):
        seen = []
        model.policy.register_forward_hook(lambda module, inputs, outputs, seen=seen: seen.append(len(outputs)))
        model.learn(32)
        calls.append(seen)
    assert calls[1] == calls[0] == [3] * 32


class OwnBody(nn.Module):
    """A body of a user's own: actor and critic share a layer."""

    def __init__(self, inputs):
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 6
        self.shared = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh())

    def forward(self, features):
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features):
        return self.shared(features)

    def forward_critic(self, features):
        return self.shared(features)


class SharedPolicy(ActorCriticPolicy):
    def _build_mlp_extractor(self):
        self.mlp_extractor = OwnBody(self.features_dim)


@each_actor_critic
def test_custom_bodies(pair):
    assert_trains_alike(pair, policy=SharedPolicy)


@each_pair
def test_dictionaries_learn_as_vectors_do(pair):
    """One vector in a dictionary makes the network of the vector alone, and the same training."""

    class InDict(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.observation_space = spaces.Dict({"it": env.observation_space})

        def observation(self, observation):
            return {"it": observation}

    plain = pair.make_ours(policy=AskedItself)
    wrapped = pair.make_ours(InDict(RandomEnv()), "MultiInputPolicy")
    for model in (plain, wrapped):
        set_random_seed(4)
        model.learn(48)
    for one, other in zip(wrapped.policy.parameters(), plain.policy.parameters(), strict=True):
        th.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
