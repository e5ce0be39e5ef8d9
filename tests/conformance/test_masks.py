"""Action masks, in every algorithm whose ``learn()`` has ``use_masking``, as sb3-contrib's users know them."""

import inspect
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, VECTOR, MaskedEnv, RandomEnv
from gymnasium import spaces
from sb3_contrib.common.envs import (
    InvalidActionEnvDiscrete,
    InvalidActionEnvMultiBinary,
    InvalidActionEnvMultiDiscrete,
)
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.evaluation.episodes import play_episodes
from sb3_pg_ext.fast.mixin import FastUpdate
from sb3_pg_ext.policies import MlpPolicy

from .algorithms import NAMES, assert_identical, find, record, vector

MASKED = [name for name in NAMES if "use_masking" in inspect.signature(find(name).cls.learn).parameters]
OURS = [name for name in MASKED if not issubclass(find(name).cls, FastUpdate)]
SYNCHRONOUS = [name for name in OURS if not find(name).traits.asynchronous]
each_algorithm = pytest.mark.parametrize("algorithm", MASKED, indirect=True)
each_of_ours = pytest.mark.parametrize("algorithm", OURS, indirect=True)
each_synchronous = pytest.mark.parametrize("algorithm", SYNCHRONOUS, indirect=True)


@pytest.fixture
def algorithm(request):
    return find(request.param)


def masked(space="Discrete", n_envs=1, env_class=MaskedEnv, **kwargs):
    return FastDummyVecEnv([partial(env_class, ACTION_SPACES[space], **kwargs)] * n_envs)


def trained(algorithm, env, *args, **kwargs):
    """A model trained by one update, of 16 steps at least."""
    model = algorithm(env, *args, **kwargs)
    before = vector(model)
    model.learn(16)
    assert not th.equal(vector(model), before)
    return model


def test_these_have_masks():
    assert {*MASKED} >= {"a3c", "fast_maskable_ppo", "impala", "npg", "ppo_kl", "reinforce"}


class AsksItself(MlpPolicy):
    """Overrides a method, so that no shortcut is taken."""

    def _predict(self, *args, **kwargs):
        return super()._predict(*args, **kwargs)


@pytest.mark.parametrize("space", ["Discrete", "MultiDiscrete", "MultiBinary"])
@each_of_ours
def test_every_way_trains_alike(algorithm, space):
    """No forbidden action is ever chosen, which the environment would refuse; both engines, both ways of acting."""
    kwargs = {"ent_coef": 0.1} if "ent_coef" in algorithm.parameters else {}
    one, other, slow = (
        trained(algorithm, masked(space), policy, engine=engine, **kwargs)
        for policy, engine in (("MlpPolicy", "array"), ("MlpPolicy", "autograd"), (AsksItself, "auto"))
    )
    assert "_predict()" in slow.describe_engine()
    for model in (other, slow):
        th.testing.assert_close(vector(model), vector(one), rtol=1e-4, atol=1e-5)


@each_algorithm
def test_dict_observations(algorithm):
    space = spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(3)})
    trained(algorithm, masked(observation_space=space), "MultiInputPolicy")


@each_algorithm
def test_normalisation_and_several_environments(algorithm):
    trained(algorithm, VecNormalize(masked("MultiDiscrete", n_envs=2)))


@pytest.mark.parametrize("algorithm", ["npg"], indirect=True)
def test_subprocesses(algorithm):
    env = SubprocVecEnv([MaskedEnv] * 2)
    try:
        trained(algorithm, env)
    finally:
        env.close()


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: InvalidActionEnvDiscrete(dim=6, n_invalid_actions=3, ep_length=8),
        lambda: InvalidActionEnvMultiDiscrete(dims=[3, 4], n_invalid_actions=3, ep_length=8),
        lambda: InvalidActionEnvMultiBinary(dims=3, n_invalid_actions=2, ep_length=8),
    ],
)
@each_synchronous
def test_the_environments_of_sb3_contrib(algorithm, make_env):
    trained(algorithm, make_env())


@each_synchronous
def test_masks_are_those_of_the_rollout(algorithm):
    """They stand in the rollout buffer, as in sb3-contrib's, and every action is one of those allowed."""
    model = trained(algorithm, masked("MultiDiscrete", n_envs=2))
    buffer = model.rollout_buffer
    masks, actions = buffer.action_masks.reshape(-1, 5), buffer.actions.reshape(-1, 2).astype(int)
    rows = np.arange(len(actions))
    assert masks[rows, actions[:, 0]].all()
    assert masks[rows, 3 + actions[:, 1]].all()
    assert not masks.all()


class OneAction(MaskedEnv):
    """Allows a single action in every state."""

    def _choose_masks(self):
        self.masks = [np.arange(size) == self.np_random.integers(size) for size in self.sizes]


@pytest.mark.parametrize("space", ["Discrete", "MultiBinary"])
@each_algorithm
def test_without_a_choice_there_is_no_entropy(algorithm, space):
    model = algorithm(masked(space, env_class=OneAction))
    records = record(model)
    model.learn(16, log_interval=1)
    if "train/entropy_loss" not in records.latest:
        model.logger.dump(0)
    assert records.latest["train/entropy_loss"] == pytest.approx(0, abs=1e-7)


# ---- learning -------------------------------------------------------------------------------------------------------


class Refuses(gym.Wrapper):
    """The identity task of sb3-contrib in 20 steps, of which each can give 1. It refuses a forbidden action."""

    def __init__(self):
        super().__init__(InvalidActionEnvDiscrete(dim=6, n_invalid_actions=3, ep_length=20))
        self.observation_space = spaces.Box(0, 1, (6,))

    def reset(self, **kwargs):
        state, info = self.env.reset(**kwargs)
        return np.eye(6, dtype=np.float32)[state], info

    def step(self, action):
        assert action not in self.env.invalid_actions
        state, *rest = self.env.step(action)
        return np.eye(6, dtype=np.float32)[state], *rest


FASTER = {
    "a3c": {"n_steps": 20, "learning_rate": 3e-3},
    "acktr": {"n_steps": 100, "kfac_clip": 0.2, "kfac_damping": 0.1, "momentum": 0.0, "learning_rate": 1.0},
    "fast_maskable_ppo": {"n_steps": 200, "batch_size": 50, "n_epochs": 5, "learning_rate": 0.01},
    "impala": {"n_steps": 20, "learning_rate": 3e-3},
    "npg": {"n_steps": 200, "batch_size": 50, "cg_max_steps": 10, "target_kl": 0.1},
    "ppo_kl": {"n_steps": 200, "batch_size": 50, "n_epochs": 5, "learning_rate": 0.01},
    "reinforce": {"n_episodes": 10, "learning_rate": 0.02},
}


@each_algorithm
def test_learning(algorithm):
    model = algorithm(Refuses(), gamma=0.4, seed=1, **FASTER[algorithm.spec.name])
    model.learn(4000)
    returns, _ = evaluate_policy(model, Monitor(Refuses()), n_eval_episodes=5, return_episode_rewards=True)
    assert returns == [20.0] * 5


# ---- use_masking ----------------------------------------------------------------------------------------------------


class AllowsAll(MaskedEnv):
    """Has masks, and takes any action."""

    step = RandomEnv.step


@each_algorithm
def test_use_masking(algorithm):
    model = algorithm(RandomEnv(ACTION_SPACES["Discrete"]))
    with pytest.raises(ValueError, match=r"use_masking=True, but the environment .*action_masks\(\)"):
        model.learn(16, use_masking=True)
    assert model.num_timesteps == 0
    model.learn(16)
    with pytest.raises(ValueError, match="use_masking='yes'; allowed: None, True or False"):
        model.learn(16, use_masking="yes")
    algorithm(masked()).learn(16, use_masking=True)


@each_algorithm
def test_masks_of_some_environments(algorithm):
    make = [partial(cls, ACTION_SPACES["Discrete"]) for cls in (AllowsAll, RandomEnv)]
    model = algorithm(FastDummyVecEnv(make))
    with pytest.raises(ValueError, match=r"use_masking=None, but environments 1 have no action_masks\(\), and"):
        model.learn(16)
    assert model.num_timesteps == 0


@each_synchronous
def test_use_masking_false(algorithm):
    """Trains as in an environment without masks."""
    models = [algorithm(cls(ACTION_SPACES["Discrete"])) for cls in (AllowsAll, RandomEnv)]
    for model in models:
        set_random_seed(3)
        model.learn(32, use_masking=False)
    masked_model, _ = models
    assert masked_model.rollout_buffer.action_masks is None


def without_the_first(distribution):
    """Forbids the first action by a logit of −∞."""
    logits = distribution.distribution.logits.masked_fill(th.tensor([True, False, False]), -th.inf)
    return CategoricalDistribution(3).proba_distribution(logits)


class OwnMasks(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi):
        return without_the_first(super()._get_action_dist_from_latent(latent_pi))


@each_synchronous
def test_policies_that_take_no_masks(algorithm):
    with pytest.warns(UserWarning, match=r"action_masks\(\) are not used, since OwnMasks.forward\(\) has no argument"):
        algorithm(AllowsAll(), OwnMasks).learn(16)
    with pytest.raises(ValueError, match=r"use_masking=True, but OwnMasks.forward\(\) has no argument action_masks"):
        algorithm(AllowsAll(), OwnMasks).learn(16, use_masking=True)
    model = algorithm(AllowsAll(), OwnMasks)
    model.learn(16, use_masking=False)
    assert (model.rollout_buffer.actions > 0).all()
    with pytest.raises(ValueError, match=r"action_masks were given, but OwnMasks.forward\(\) has no .*; allowed: None"):
        model.predict(np.zeros(3, np.float32), action_masks=[True, True, True])


class MasksInsideMasks(MlpPolicy):
    """Takes masks, and has one of its own besides."""

    def _get_action_dist_from_latent(self, latent_pi):
        return without_the_first(super()._get_action_dist_from_latent(latent_pi))


class SecondOrThird(MaskedEnv):
    """Refuses the first action without saying so."""

    def step(self, action):
        assert action > 0
        return super().step(action)

    def _choose_masks(self):
        super()._choose_masks()
        self.masks[0][0], self.masks[0][self.np_random.integers(1, 3)] = True, True


@each_of_ours
def test_masks_go_together_with_logits_of_minus_infinity(algorithm):
    trained(algorithm, masked(env_class=SecondOrThird), MasksInsideMasks)


# ---- errors ---------------------------------------------------------------------------------------------------------


class NothingAllowed(MaskedEnv):
    """Allows nothing after the third step, in the last component."""

    def action_masks(self):
        if self.time == 3:
            self.masks[-1][:] = False
        return super().action_masks()


@each_algorithm
def test_a_mask_without_any_allowed_action(algorithm):
    make = [partial(env, ACTION_SPACES["MultiDiscrete"]) for env in (MaskedEnv, NothingAllowed)]
    with pytest.raises(Exception, match="for component 1 of the action at step 3 of the rollout in environment 1"):
        algorithm(FastDummyVecEnv(make)).learn(5000 if algorithm.traits.asynchronous else 16)


# ---- acting and evaluating ------------------------------------------------------------------------------------------


@each_algorithm
def test_predict(algorithm):
    model, obs = algorithm(masked()), np.zeros((3, 3), np.float32)
    for deterministic in (True, False):
        actions, _ = model.predict(obs, deterministic=deterministic, action_masks=np.eye(3, dtype=bool))
        assert actions.tolist() == [0, 1, 2]
        action, _ = model.predict(obs[0], deterministic=deterministic, action_masks=[False, False, True])
        assert action == 2
    assert model.predict(obs)[0].shape == (3,)
    assert model.predict(obs[0], action_masks=np.float32([[0, 1, 0]]))[0] == 1


@pytest.mark.parametrize(
    ("n", "masks", "message"),
    [
        (2, np.zeros((2, 3), bool), "mask without any allowed action for observation 0$"),
        (2, np.ones((3, 2), bool), r"masks of shape \[3, 2\] with the action space Discrete\(3\); allowed: \[2, 3\]"),
        (2, np.ones(3, bool), r"masks of shape \[3\] .*; allowed: \[2, 3\], one value for every choice"),
        (2, np.ones(6, bool), r"masks of shape \[6\] .*; allowed: \[2, 3\]"),
        (None, np.ones((2, 3), bool), r"masks of shape \[2, 3\] .*; allowed: \[1, 3\]"),
        (None, [1, 1, 1, 1], r"masks of shape \[4\] .*; allowed: \[1, 3\]"),
        (None, [1, np.nan, 0], r"mask with nan for observation 0; allowed: True, False, 1, 0"),
        (2, [[0, 0, 1], [0.5, 0, 1]], "mask with 0.5 for observation 1; allowed"),
        (None, ["yes", "no", "no"], "mask with yes for observation 0; allowed"),
    ],
)
@each_algorithm
def test_predict_refuses_masks(algorithm, n, masks, message):
    obs = np.zeros(3 if n is None else (n, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        algorithm(masked()).predict(obs, action_masks=masks)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 1), bool), r"action masks of shape \[2, 3, 1\] with .*; allowed: \[2, 3\]"),
        (None, r"action masks of shape \[2\] with .*; allowed: \[2, 3\]"),
        ([1, 2, 0], "action mask with 2 at step 0 of the rollout in environment 0; allowed: True, False, 1, 0"),
    ],
)
@each_synchronous
def test_masks_of_the_environment_that_are_none(algorithm, mask, message):
    class Says(MaskedEnv):
        def action_masks(self):
            return mask

    with pytest.raises(ValueError, match=message):
        algorithm(masked(env_class=Says, n_envs=2)).learn(16)


@each_synchronous
def test_evaluation_refuses_a_mask_without_any_allowed_action(algorithm):
    with pytest.raises(ValueError, match="without any allowed action for component 1 of the action for observation 0"):
        play_episodes(algorithm(masked("MultiDiscrete")), masked("MultiDiscrete", env_class=NothingAllowed), [1, 2])


@each_of_ours
def test_files(algorithm, tmp_path):
    """Trained with masks, a model acts with masks and without, and goes on as the original does."""
    model = trained(algorithm, masked())
    model.save(tmp_path / "model.zip")
    loaded = algorithm.cls.load(tmp_path / "model.zip", env=masked(), device="cpu")
    obs = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    masks = np.random.default_rng(1).random((20, 3)) < 0.5
    masks[:, 1] = True
    for arguments in ({}, {"action_masks": masks}):
        expected, _ = model.predict(obs, deterministic=True, **arguments)
        assert np.array_equal(loaded.predict(obs, deterministic=True, **arguments)[0], expected)
    if not algorithm.traits.asynchronous:
        for each in (model, loaded):
            each.set_env(masked())
            set_random_seed(5)
            each.env.seed(5)
            each.learn(32, reset_num_timesteps=False)
        assert_identical(model, loaded)


@each_synchronous
def test_evaluation_by_sb3_contrib(algorithm, tmp_path):
    env = FastDummyVecEnv([lambda: Monitor(MaskedEnv())])
    callback = MaskableEvalCallback(env, eval_freq=8, n_eval_episodes=2, log_path=str(tmp_path), verbose=0)
    model = algorithm(masked())
    model.learn(16, callback)
    with np.load(tmp_path / "evaluations.npz") as log:
        assert np.isfinite(log["results"]).all()
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=3, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 3


class SaysNone(FastDummyVecEnv):
    """As VecEnvs of one's own often do, knows no attributes, and says None of each."""

    has_attr = VecEnv.has_attr

    def get_attr(self, attr_name, indices=None):
        return [None] * self.num_envs


class KnowsNothing(SaysNone):
    def get_attr(self, attr_name, indices=None):
        if attr_name != "render_mode":
            raise NotImplementedError
        return [None] * self.num_envs


@pytest.mark.parametrize("env_class", [SaysNone, KnowsNothing])
@pytest.mark.parametrize("algorithm", ["npg", "fast_maskable_ppo"], indirect=True)
def test_vec_envs_that_know_no_attributes(algorithm, env_class):
    trained(algorithm, env_class([lambda: RandomEnv(ACTION_SPACES["Discrete"])]))
