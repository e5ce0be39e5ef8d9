"""MaskablePPO's fast twin against sb3-contrib's: masks in rollouts, updates, files; and what goes beyond it."""

from functools import partial

import numpy as np
import pytest
import sb3_contrib
import torch as th
from comparison import Exchange, Pair, assert_close, assert_trains_alike, exactly, parameters
from envs import ACTION_SPACES, OBSERVATION_SPACES, MaskedEnv, RandomEnv
from sb3_contrib.common.envs import (
    InvalidActionEnvDiscrete,
    InvalidActionEnvMultiBinary,
    InvalidActionEnvMultiDiscrete,
)
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_pg_ext import MaskableEstimatorRolloutBuffer, fast

SEEN_AT_A_STEP = ("actions", "action_masks", "rewards", "dones", "new_obs")
MASKABLE_PPO = Pair(sb3_contrib.MaskablePPO, fast.MaskablePPO, {"batch_size": 16, "n_epochs": 2}, SEEN_AT_A_STEP)
SPACES = ["Discrete", "MultiDiscrete", "MultiBinary"]
each_space = pytest.mark.parametrize("space", SPACES)


def masked(space="Discrete", n_envs=2, **kwargs):
    return DummyVecEnv([lambda: MaskedEnv(ACTION_SPACES[space], **kwargs)] * n_envs)


class AsksForMasks(MaskableActorCriticPolicy):
    """Overrides a method, so that no shortcut is taken."""

    def _predict(self, *args, **kwargs):
        return super()._predict(*args, **kwargs)


# ---- as sb3-contrib's -----------------------------------------------------------------------------------------------


@each_space
@pytest.mark.parametrize("policy", ["MlpPolicy", AsksForMasks])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_same_seed_trains_as_stock(space, policy, n_envs):
    """Same actions, same masks in the buffer, same parameters in the end."""
    _, twin = assert_trains_alike(MASKABLE_PPO, lambda: masked(space, n_envs), policy, total_timesteps=48 * n_envs)
    path = "autograd, because it overrides _predict()" if policy is AsksForMasks else ("compiled arrays", "arrays")
    assert twin.describe_engine().startswith(path)


def test_dict_observations_train_as_stock():
    make_env = partial(masked, observation_space=OBSERVATION_SPACES["Dict"])
    kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 8}}
    assert_trains_alike(MASKABLE_PPO, make_env, "MultiInputPolicy", policy_kwargs=kwargs)


def test_images_train_as_stock():
    make_env = partial(masked, observation_space=OBSERVATION_SPACES["image"])
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    assert_trains_alike(MASKABLE_PPO, make_env, "CnnPolicy", policy_kwargs=kwargs)


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: InvalidActionEnvDiscrete(dim=6, n_invalid_actions=3),
        lambda: InvalidActionEnvMultiDiscrete(dims=[3, 4], n_invalid_actions=3),
        lambda: InvalidActionEnvMultiBinary(dims=3, n_invalid_actions=2),
    ],
)
def test_the_environments_of_sb3_contrib_train_as_stock(make_env):
    assert_trains_alike(MASKABLE_PPO, make_env, "MlpPolicy", total_timesteps=96)


@each_space
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"ent_coef": 0.1, "clip_range": 1e-3, "clip_range_vf": 1e-3},
        {"batch_size": 7, "normalize_advantage": False},
        {"batch_size": None},
        {"target_kl": 1e-4, "batch_size": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_the_same_rollout_gives_the_same_update(space, kwargs, engine):
    models = MASKABLE_PPO.make_both(lambda: masked(space), **kwargs)
    models[1].engine, exchange = engine, Exchange()
    start = parameters(models[0])
    for model in models:
        model.learn(32, exchange)
    expected, actual = map(parameters, models)
    assert any(not th.equal(start[name], tensor) for name, tensor in expected.items())
    assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    logs = [model.logger.name_to_value for model in models]
    for key in logs[0].keys() - {"time/fps"}:
        assert logs[1][key] == pytest.approx(logs[0][key], rel=1e-5, abs=1e-6), key


def test_estimators_inside_the_buffer_train_as_stock():
    kwargs = {"rollout_buffer_class": MaskableEstimatorRolloutBuffer, "normalize_advantage": False}
    kwargs["rollout_buffer_kwargs"] = {"advantage_estimator": "n_step", "advantage_estimator_kwargs": {"n": 3}}
    _, twin = assert_trains_alike(MASKABLE_PPO, masked, "MlpPolicy", **kwargs)
    assert twin.describe_engine().startswith(("compiled arrays", "arrays"))


def test_normalization_trains_as_stock():
    assert_trains_alike(MASKABLE_PPO, lambda: VecNormalize(masked()), "MlpPolicy")


class OwnSteps(MaskableRolloutBuffer):
    """Takes its steps one by one."""

    def add(self, *args, action_masks=None, **kwargs):
        super().add(*args, action_masks=action_masks, **kwargs)


def test_buffers_that_take_steps_one_by_one_get_masks():
    assert_trains_alike(MASKABLE_PPO, masked, "MlpPolicy", rollout_buffer_class=OwnSteps)


class OwnMinibatches(MaskableRolloutBuffer):
    """Makes advantages half as large."""

    def _get_samples(self, *args, **kwargs):
        samples = super()._get_samples(*args, **kwargs)
        return samples._replace(advantages=0.5 * samples.advantages)


def test_buffers_with_minibatches_of_their_own():
    kwargs = {"rollout_buffer_class": OwnMinibatches, "normalize_advantage": False}
    _, twin = assert_trains_alike(MASKABLE_PPO, masked, "MlpPolicy", **kwargs)
    assert twin.describe_engine() == "autograd, because OwnMinibatches overrides _get_samples()"


def test_subprocesses_train_as_stock():
    assert_trains_alike(MASKABLE_PPO, lambda: SubprocVecEnv([MaskedEnv] * 2), "MlpPolicy")


def test_evaluation_with_masks(tmp_path):
    logs = []
    for model in MASKABLE_PPO.make_both(masked):
        folder = tmp_path / type(model).__module__
        env = DummyVecEnv([lambda: Monitor(MaskedEnv())])
        env.seed(1)
        callback = MaskableEvalCallback(env, eval_freq=24, n_eval_episodes=3, log_path=str(folder), verbose=0)
        set_random_seed(5)
        model.learn(96, callback)
        with np.load(folder / "evaluations.npz") as log:
            logs.append({name: log[name] for name in log})
    assert len(logs[0]["results"]) >= 2
    for name, expected in logs[0].items():
        np.testing.assert_allclose(logs[1][name], expected, rtol=1e-5)


def test_files_are_interchangeable(tmp_path):
    for writer, reader in ((0, 1), (1, 0)):
        models = MASKABLE_PPO.make_both(masked)
        model = models[writer].learn(32)
        model.save(tmp_path / f"{writer}.zip")
        loaded = type(models[reader]).load(tmp_path / f"{writer}.zip", env=masked(), device="cpu")
        assert type(loaded) is type(models[reader])
        assert_close(parameters(loaded), parameters(model), **exactly)
        optimizers = [each.policy.optimizer.state_dict() for each in (model, loaded)]
        th.testing.assert_close(optimizers[1]["state"], optimizers[0]["state"], **exactly)
        before = parameters(loaded)
        loaded.learn(32, reset_num_timesteps=False)
        assert any(not th.equal(before[name], tensor) for name, tensor in parameters(loaded).items())


def test_predict_takes_masks():
    models = MASKABLE_PPO.make_both(masked)
    obs = models[0].env.reset()
    for masks in np.eye(3, dtype=bool):
        actions = [model.predict(obs, action_masks=np.stack([masks] * 2))[0].tolist() for model in models]
        assert actions == [[masks.argmax()] * 2] * 2


def test_without_masking_any_action_is_taken():
    class Allows(MaskedEnv):
        step = RandomEnv.step

    models = MASKABLE_PPO.make_both(lambda: DummyVecEnv([Allows]))
    for model in models:
        set_random_seed(5)
        model.learn(64, use_masking=False)
        assert model.rollout_buffer.action_masks.all()
    assert_close(*map(parameters, models), rtol=1e-4, atol=1e-4)


# ---- beyond it ------------------------------------------------------------------------------------------------------


def test_environments_without_masks_train_unmasked_unless_masks_are_asked_for():
    model = MASKABLE_PPO.make_ours(RandomEnv(ACTION_SPACES["Discrete"]))
    with pytest.raises(
        ValueError, match=r"use_masking=True, .*does not support action masking.*; allowed: None, False"
    ):
        model.learn(16, use_masking=True)
    before = parameters(model)
    model.learn(16)
    assert any(not th.equal(before[name], tensor) for name, tensor in parameters(model).items())


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("Discrete", "without any allowed action at step 3 of the rollout in environment 1$"),
        ("MultiDiscrete", "without any allowed action for component 1 of the action at step 3 of .* in environment 1$"),
        ("MultiBinary", "without any allowed action for component 1 of the action at step 3 of .* in environment 1$"),
    ],
)
@pytest.mark.parametrize("policy", ["MlpPolicy", AsksForMasks])
def test_a_mask_without_any_allowed_action(space, message, policy):
    class AtAnEnd(MaskedEnv):
        """Allows nothing after the third step, in the last component."""

        def action_masks(self):
            if self.time == 3:
                self.masks[-1][:] = False
            return super().action_masks()

    make = partial(MaskedEnv, ACTION_SPACES[space])
    env = DummyVecEnv([make, partial(AtAnEnd, ACTION_SPACES[space])])
    with pytest.raises(ValueError, match=message):
        MASKABLE_PPO.make_ours(env, policy).learn(32)


def test_masks_of_a_wrong_size():
    class TooMany(MaskedEnv):
        def action_masks(self):
            return np.ones(4, bool)

    with pytest.raises(ValueError, match=r"masks of shape \[1, 4\] .* Discrete\(3\); allowed: \[1, 3\], one"):
        MASKABLE_PPO.make_ours(TooMany()).learn(16)


def test_buffers_without_masks_are_refused():
    with pytest.raises(ValueError, match="rollout_buffer_class=RolloutBuffer does not store action masks; allowed"):
        MASKABLE_PPO.make_ours(masked(), rollout_buffer_class=RolloutBuffer)


class Poison(BaseCallback):
    """Puts NaN into the advantages of every rollout."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.model.rollout_buffer.advantages[:] = np.nan


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_a_bad_gradient_never_reaches_the_parameters(engine):
    model = MASKABLE_PPO.make_ours(masked(), engine=engine)
    before = parameters(model)
    with pytest.warns(RuntimeWarning, match=r"MaskablePPO after 32 steps: \d+ of .* not finite; no step made"):
        model.learn(32, Poison())
    assert_close(parameters(model), before, **exactly)
    assert model.n_skipped_updates == 1


def test_learning():
    """The identity task, with half of the actions forbidden."""
    env = InvalidActionEnvDiscrete(dim=6, n_invalid_actions=3)
    model = fast.MaskablePPO("MlpPolicy", env, n_steps=128, batch_size=64, gamma=0.4, learning_rate=0.005, seed=1)
    model.learn(8000)
    wanted = np.arange(6)
    assert (model.predict(wanted, deterministic=True)[0] == wanted).all()
