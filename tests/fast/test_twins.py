"""Stock algorithms on the rollout collector: same updates, same files, guarded steps."""

import json
import zipfile
from inspect import signature

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch as th
from comparison import Exchange, assert_close, exactly, parameters
from envs import ACTION_SPACES, VECTOR, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import fast

TWINS = {
    "PPO": (fast.PPO, stable_baselines3.PPO, {"batch_size": 16, "n_epochs": 3}),
    "A2C": (fast.A2C, stable_baselines3.A2C, {}),
    "A2C with Adam": (fast.A2C, stable_baselines3.A2C, {"use_rms_prop": False}),
    "TRPO": (fast.TRPO, sb3_contrib.TRPO, {"batch_size": 16, "n_critic_updates": 3, "cg_max_steps": 5}),
}
each_twin = pytest.mark.parametrize(("ours", "theirs", "kwargs"), TWINS.values(), ids=TWINS.keys())
FAST = [(ours, kwargs) for ours, _, kwargs in TWINS.values()]
each_fast = pytest.mark.parametrize(("ours", "kwargs"), FAST, ids=TWINS.keys())


def make_model(algorithm, action_space="Box", policy="MlpPolicy", **kwargs):
    env = RandomEnv(ACTION_SPACES[action_space])
    arguments = {"n_steps": 32, "seed": 0, "device": "cpu", **kwargs}
    return algorithm(policy, env, policy_kwargs={"net_arch": [8]}, **arguments)


@each_twin
@pytest.mark.parametrize("action_space", ["Box", "Discrete", "MultiDiscrete", "MultiBinary"])
def test_the_same_rollout_gives_the_same_update(ours, theirs, kwargs, action_space):
    start = parameters(make_model(theirs, action_space, **kwargs))
    models, exchange = [make_model(algorithm, action_space, **kwargs) for algorithm in (theirs, ours)], Exchange()
    for model in models:
        model.learn(32, exchange)
    expected, actual = map(parameters, models)
    assert any(not th.equal(start[name], tensor) for name, tensor in expected.items())
    assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    moments, ours = (model.policy.optimizer.state_dict()["state"] for model in models)
    assert {key: list(state) for key, state in ours.items()} == {key: list(state) for key, state in moments.items()}


@each_twin
def test_the_same_rollout_of_two_environments_gives_the_same_update(ours, theirs, kwargs):
    exchange, trained = Exchange(), []
    for algorithm in (theirs, ours):
        env = DummyVecEnv([RandomEnv, RandomEnv])
        model = algorithm("MlpPolicy", env, n_steps=16, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", **kwargs)
        trained.append(parameters(model.learn(32, exchange)))
    assert_close(*trained, rtol=1e-6, atol=1e-6)


@each_twin
@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("action_space", ["Box", "Discrete"])
def test_logs_are_the_same(ours, theirs, kwargs, engine, action_space):
    """Key by key, beside what this package adds; and of the same rollout, the same numbers."""
    exchange, logs = Exchange(), []
    for algorithm, arguments in ((theirs, kwargs), (ours, {**kwargs, "engine": engine})):
        logger = make_model(algorithm, action_space, **arguments).learn(32, exchange, log_interval=1).logger
        logs.append((logger.name_to_value, logger.name_to_excluded))
    (expected, excluded), (actual, actually_excluded) = logs
    added = {"time/update_seconds", "train/n_skipped", "train/grad_norm"}
    if ours is fast.TRPO:
        added |= {"train/entropy_loss", "train/value_grad_norm"}
        added -= {"train/grad_norm"} if engine == "autograd" else set()
    assert actual.keys() - expected.keys() == added
    assert {key: actual[key] for key in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert {key: actually_excluded[key] for key in excluded} == excluded


def test_early_stopping(capsys):
    models = [make_model(cls, target_kl=1e-5, batch_size=8, verbose=1) for cls in (stable_baselines3.PPO, fast.PPO)]
    exchange, printed = Exchange(), []
    for model in models:
        capsys.readouterr()
        model.learn(32, exchange)
        printed.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("Early stopping")])
    assert printed[0] == printed[1] != []
    assert_close(*map(parameters, models), rtol=1e-6, atol=1e-6)


def test_a_line_search_that_fails():
    kwargs = {"target_kl": 5.0, "cg_damping": 1e-3, "line_search_max_iter": 1, "batch_size": 16, "n_critic_updates": 1}
    models, exchange = [make_model(cls, **kwargs) for cls in (sb3_contrib.TRPO, fast.TRPO)], Exchange()
    start = parameters(models[1])
    for model in models:
        model.learn(32, exchange)
        log = model.logger.name_to_value
        assert (log["train/is_line_search_success"], log["train/kl_divergence_loss"]) == (0, 0)
    assert_close(*map(parameters, models), rtol=1e-6, atol=1e-6)
    assert th.equal(parameters(models[1])["action_net.weight"], start["action_net.weight"])


class OwnMinibatches(RolloutBuffer):
    """Leaves every second step out."""

    def get(self, batch_size=None):
        for batch in super().get(batch_size):
            yield RolloutBufferSamples(*(None if tensor is None else tensor[::2] for tensor in batch))


class OwnSamples(RolloutBuffer):
    """Makes advantages half as large."""

    def _get_samples(self, *args, **kwargs):
        samples = super()._get_samples(*args, **kwargs)
        return samples._replace(advantages=0.5 * samples.advantages)


@each_twin
@pytest.mark.parametrize(("buffer", "name"), [(OwnMinibatches, "get"), (OwnSamples, "_get_samples")])
def test_buffers_with_minibatches_of_their_own(ours, theirs, kwargs, buffer, name, capsys):
    kwargs = {**kwargs, "rollout_buffer_class": buffer}
    with pytest.raises(ValueError, match=rf"engine='array' .*class={buffer.__name__}, which overrides {name}\(\)"):
        make_model(ours, engine="array", **kwargs)
    exchange = Exchange()
    expected, actual = (make_model(cls, verbose=1, **kwargs).learn(32, exchange) for cls in (theirs, ours))
    assert_close(parameters(actual), parameters(expected), rtol=1e-6, atol=1e-6)
    assert f"Differentiating by autograd, because {buffer.__name__} overrides {name}()" in capsys.readouterr().out


@each_twin
def test_files_are_interchangeable(ours, theirs, kwargs, tmp_path):
    for writer, reader in ((ours, theirs), (theirs, ours)):
        model = make_model(writer, **kwargs).learn(32)
        path = tmp_path / f"{writer.__module__}.zip"
        model.save(path)
        loaded = reader.load(path, env=RandomEnv(ACTION_SPACES["Box"]), device="cpu")
        assert type(loaded) is reader
        assert_close(parameters(loaded), parameters(model), **exactly)
        optimizers = [m.policy.optimizer.state_dict() for m in (model, loaded)]
        th.testing.assert_close(optimizers[1]["state"], optimizers[0]["state"], **exactly)
        assert optimizers[1]["param_groups"] == optimizers[0]["param_groups"]
        before = parameters(loaded)
        loaded.learn(32, reset_num_timesteps=False)
        assert loaded.num_timesteps == 64
        assert any(not th.equal(before[name], tensor) for name, tensor in parameters(loaded).items())


@each_twin
def test_files_hold_the_same(ours, theirs, kwargs, tmp_path):
    contents = []
    for algorithm in (theirs, ours):
        make_model(algorithm, **kwargs).learn(32).save(f"{tmp_path / algorithm.__module__}.zip")
        with zipfile.ZipFile(tmp_path / f"{algorithm.__module__}.zip") as archive:
            contents.append((sorted(archive.namelist()), set(json.loads(archive.read("data")))))
    (stock_names, stock_keys), (fast_names, fast_keys) = contents
    assert fast_names == stock_names
    assert fast_keys >= stock_keys


@each_twin
def test_optimizers_are_left_as_the_stock_ones_are(ours, theirs, kwargs):
    ours, theirs = (make_model(algorithm, **kwargs).learn(32).policy.optimizer for algorithm in (ours, theirs))
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]
    assert not ours._optimizer_step_pre_hooks


@each_twin
def test_same_arguments(ours, theirs, kwargs):
    assert vars(make_model(ours, **kwargs)).keys() == vars(make_model(theirs, **kwargs)).keys() | {"engine"}
    assert issubclass(ours, theirs)
    assert list(signature(ours).parameters) == [*signature(theirs).parameters, "engine"]


@each_fast
def test_the_same_seed_gives_the_same_parameters(ours, kwargs):
    one, other = (parameters(make_model(ours, **kwargs).learn(96)) for _ in range(2))
    assert_close(one, other, **exactly)


class Poison(BaseCallback):
    """Puts NaN into the advantages and returns of some rollouts."""

    def __init__(self, rollouts, rows=slice(None)):
        super().__init__()
        self.rollouts, self.rows, self.n_rollouts = rollouts, rows, 0

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        if self.n_rollouts in self.rollouts:
            self.model.rollout_buffer.advantages[self.rows] = np.nan
            self.model.rollout_buffer.returns[self.rows] = np.nan
        self.n_rollouts += 1


def optimizer_state(model):
    return [tensor.clone() for state in model.policy.optimizer.state.values() for tensor in state.values()]


@each_fast
def test_a_bad_gradient_never_reaches_the_parameters(ours, kwargs):
    model = make_model(ours, **kwargs).learn(32)
    before, state = parameters(model), optimizer_state(model)
    with pytest.warns(RuntimeWarning, match=rf"{ours.__name__} after 64 steps: \d+ of .* not finite; no step made"):
        model.learn(32, Poison([0]), reset_num_timesteps=False)
    assert_close(parameters(model), before, **exactly)
    assert len(state) == len(optimizer_state(model)) > 0
    assert all(map(th.equal, state, optimizer_state(model)))
    assert model.n_skipped_updates == 1
    model.learn(32, reset_num_timesteps=False)
    assert any(not th.equal(before[name], tensor) for name, tensor in parameters(model).items())


def test_the_good_minibatches_of_an_update_count():
    model = make_model(fast.PPO, batch_size=8, n_epochs=1)
    before = parameters(model)
    with pytest.warns(RuntimeWarning, match="1 of this update's gradients not finite; no step made along them"):
        model.learn(32, Poison([0], rows=slice(1)))
    after = parameters(model)
    assert any(not th.equal(before[name], tensor) for name, tensor in after.items())
    assert all(tensor.isfinite().all() for tensor in after.values())


@each_fast
@pytest.mark.filterwarnings("ignore:.*not finite:RuntimeWarning")
def test_the_third_bad_update_in_a_row_ends_the_training(ours, kwargs):
    model = make_model(ours, **kwargs)
    with pytest.raises(ValueError, match=rf"{ours.__name__} after 192 steps: .*not finite.*3 in a row"):
        model.learn(320, Poison([0, 1, 3, 4, 5]))
    assert model.n_skipped_updates == 5
    assert all(tensor.isfinite().all() for tensor in parameters(model).values())


def test_a_bad_rollout_is_not_learned_from():
    model = make_model(fast.PPO, batch_size=16)
    before = parameters(model)
    with th.no_grad():
        model.policy.value_net.bias.fill_(float("nan"))
    with pytest.warns(RuntimeWarning, match="value nan at step 0 of the rollout in environment 0; rollout dropped"):
        model.learn(32)
    for name, tensor in parameters(model).items():
        assert name == "value_net.bias" or th.equal(tensor, before[name])


class Corridor(gym.Env):
    """Eight steps; each pays 1 for the action that the observation names."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.wanted)
        self.time += 1
        return self._observe(), reward, self.time == 8, False, {}

    def _observe(self):
        self.wanted = int(self.np_random.integers(3))
        return self.wanted


@pytest.mark.parametrize(
    ("algorithm", "kwargs"),
    [
        (fast.PPO, {"n_steps": 64, "batch_size": 64, "n_epochs": 8, "learning_rate": 0.02}),
        (fast.A2C, {"n_steps": 16, "learning_rate": 0.02}),
        (fast.TRPO, {"n_steps": 64, "batch_size": 128, "target_kl": 0.1, "cg_max_steps": 5, "learning_rate": 0.02}),
    ],
)
def test_learning(algorithm, kwargs):
    env = DummyVecEnv([Corridor, Corridor])
    model = algorithm("MlpPolicy", env, policy_kwargs={"net_arch": []}, gamma=0.5, seed=0, device="cpu", **kwargs)
    model.learn(1500)
    assert [model.predict(obs, deterministic=True)[0] for obs in range(3)] == [0, 1, 2]


class NeverTwo(ActorCriticPolicy):
    """A policy that only its own methods know how to run."""

    def _get_action_dist_from_latent(self, latent_pi):
        logits = self.action_net(latent_pi) - 1e4 * th.tensor([0, 0, 1])
        return self.action_dist.proba_distribution(action_logits=logits)


def test_policies_with_methods_of_their_own_act_by_them():
    def collect(local_variables, _):
        seen.extend(local_variables["actions"])
        return True

    seen = []
    make_model(fast.PPO, "Discrete", NeverTwo, batch_size=16).learn(64, collect)
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("name", ["Box", "Discrete", "MultiDiscrete", "MultiBinary"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("cls", [fast.PPO, fast.A2C])
def test_the_same_seed_trains_as_stock(cls, n_envs, name):
    """Noise is drawn as PyTorch's distributions draw it: actions are the same, and so is what is learned."""
    models = []
    for each in (cls, getattr(stable_baselines3, cls.__name__)):
        env = DummyVecEnv([lambda: RandomEnv(ACTION_SPACES[name])] * n_envs)
        arguments = {"batch_size": 8, "n_epochs": 2} if cls is fast.PPO else {}
        models.append(each("MlpPolicy", env, n_steps=16, seed=3, policy_kwargs={"net_arch": [8]}, **arguments))
        models[-1].learn(16 * n_envs * 5)
    ours, stock = (th.nn.utils.parameters_to_vector(model.policy.parameters()).detach() for model in models)
    th.testing.assert_close(ours, stock, rtol=0, atol=1e-5)


def test_one_seed_gives_the_same_training_by_vectors_and_by_dictionaries():
    class AsDictionary(gym.ObservationWrapper):
        observation_space = gym.spaces.Dict({"vector": VECTOR})

        def observation(self, observation):
            return {"vector": observation}

    models = [
        fast.PPO(policy, DummyVecEnv([make] * 2), n_steps=16, batch_size=16, n_epochs=2, seed=0, device="cpu").learn(96)
        for policy, make in (("MlpPolicy", RandomEnv), ("MultiInputPolicy", lambda: AsDictionary(RandomEnv())))
    ]
    one, other = (th.nn.utils.parameters_to_vector(model.policy.parameters()).detach() for model in models)
    th.testing.assert_close(one, other, rtol=0, atol=1e-5)


class MaskedByInfinity(ActorCriticPolicy):
    """Forbids the first action."""

    def _get_action_dist_from_latent(self, latent_pi):
        logits = self.action_net(latent_pi).index_fill(1, th.tensor([0]), -float("inf"))
        return self.action_dist.proba_distribution(action_logits=logits)


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
def test_a_trust_region_step_that_is_not_finite_is_no_silent_refusal():
    """sb3-contrib's KL has no gradient with such a mask: stock TRPO ends, and the twin says why it cannot go on."""
    model = fast.TRPO(MaskedByInfinity, RandomEnv(ACTION_SPACES["Discrete"]), n_steps=16, batch_size=16, device="cpu")
    before = parameters(model)
    with pytest.raises(ValueError, match=r"line search: .* invalid values.*3 in a row"):
        model.learn(160)
    assert model.n_skipped_updates == 3
    th.testing.assert_close(parameters(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("cls", [fast.PPO, fast.A2C, fast.TRPO])
def test_every_argument_is_documented(cls):
    for name in signature(cls).parameters:
        assert f":param {name}:" in cls.__doc__, name
