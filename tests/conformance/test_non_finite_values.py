"""NaN and infinity from the environment never reach the parameters."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv, SpoiltEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from .algorithms import STEPS, Algorithm, record, vector

SPOILT = [
    ("observation", float("nan")),
    ("reward", float("inf")),
]


@pytest.mark.parametrize(("what", "number"), SPOILT)
@pytest.mark.parametrize("name", ["Box", "Discrete"])
def test_the_third_bad_rollout_in_a_row_ends_the_training(algorithm: Algorithm, what, number, name):
    if name not in algorithm.traits.action_spaces:
        pytest.skip("test_action_spaces sees to it that this is refused")
    model = algorithm(SpoiltEnv(what, number, range(10, 10**6), action_space=ACTION_SPACES[name]))
    with pytest.warns(RuntimeWarning, match="dropped") as warned, pytest.raises(ValueError, match="3 in a row"):
        model.learn(20 * STEPS)
    assert len(warned) == 2
    assert th.isfinite(vector(model)).all()
    assert model.num_timesteps < 20 * STEPS


@pytest.mark.filterwarnings("ignore:.*dropped:RuntimeWarning")  # again, where workers get copies of the environment
@pytest.mark.parametrize(("what", "number"), SPOILT)
def test_training_survives_single_bad_numbers(algorithm: Algorithm, what, number):
    model = algorithm(SpoiltEnv(what, number, (5, 25, 45)))
    records = record(model)
    with pytest.warns(RuntimeWarning, match="dropped") as warned:
        model.learn(6 * STEPS, log_interval=1)
    assert len(warned) == 3
    assert records.latest["rollout/n_dropped"] == 3
    assert th.isfinite(vector(model)).all()
    before = vector(model)
    model.learn(STEPS)
    assert not th.equal(before, vector(model))


@pytest.mark.filterwarnings("ignore:.*dropped:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # from VecNormalize, of ∞ − ∞
@pytest.mark.parametrize(("what", "number"), SPOILT)
def test_statistics_of_normalization_survive_single_bad_numbers(algorithm: Algorithm, what, number):
    """They are running ones: what is not finite would stay in them for ever, and spoil every rollout after it."""
    env = VecNormalize(DummyVecEnv([lambda: SpoiltEnv(what, number, (5, 25, 45))]))
    model = algorithm(env).learn(6 * STEPS)
    assert model.n_dropped_rollouts >= 1
    for rms in (env.obs_rms, env.ret_rms):
        assert rms.count > STEPS
        for moment in (rms.mean, rms.var):
            assert np.isfinite(moment).all()


@pytest.mark.filterwarnings("ignore:.*dropped:RuntimeWarning")
def test_a_bad_rollout_leaves_the_parameters_alone(algorithm: Algorithm):
    model = algorithm(SpoiltEnv("reward", float("nan"), range(10**6)))
    before = vector(model)
    with pytest.raises(ValueError, match=f"{algorithm.cls.__name__}.*nan"):
        model.learn(20 * STEPS)
    if algorithm.traits.online:  # it has learned from the step before, in each of three episodes
        assert model._n_updates == 3
        assert th.isfinite(vector(model)).all()
    else:
        assert th.equal(before, vector(model))


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_finite_rewards_that_overflow_end_as_others_that_are_not_finite(algorithm: Algorithm):
    """Three of 3e38 are finite each, and their sum is not."""
    model = algorithm(HugeRewards())
    before = vector(model)
    with pytest.raises(ValueError, match="3 in a row"):
        model.learn(40 * STEPS)
    assert th.isfinite(vector(model)).all()
    assert model.n_dropped_rollouts + model.n_skipped_updates >= 3
    assert th.equal(before, vector(model)) or algorithm.spec.off_policy


class HugeRewards(RandomEnv):
    """Every reward is as large as a float32 can nearly be."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, 3e38, *rest


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_huge_learning_rate_leaves_parameters_finite(algorithm: Algorithm):
    model = algorithm(learning_rate=3e38)
    try:
        model.learn(20 * STEPS)
    except ValueError as error:
        assert "3 in a row" in str(error)  # noqa: PT017
    assert th.isfinite(vector(model)).all()
    assert (model.n_dropped_rollouts + model.n_skipped_updates > 0) != algorithm.traits.bounds_steps


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
def test_impossible_actions_are_no_matter(algorithm: Algorithm):
    """A logit of −∞, the usual mask in a policy of one's own, makes an action impossible and nothing else."""
    if algorithm.spec.off_policy or "Discrete" not in algorithm.traits.action_spaces:
        pytest.skip("has no such policies")

    class Policy(NeverFirst, algorithm.traits.policy_class):
        pass

    model = algorithm(Forbidding(ACTION_SPACES["Discrete"]), Policy)
    before = vector(model)
    if not algorithm.traits.supports_infinite_logits:
        with pytest.raises(ValueError, match=r"(gradients not finite|invalid values).*3 in a row"):
            model.learn(3 * STEPS)
        assert th.equal(before, vector(model))
        return
    model.learn(3 * STEPS)
    assert not th.equal(before, vector(model))
    assert th.isfinite(vector(model)).all()
    assert model.n_dropped_rollouts == model.n_skipped_updates == 0


class NeverFirst:
    """Forbids the first action, before a class of policies."""

    def _get_action_dist_from_latent(self, latent_pi):
        first = th.tensor([0], device=latent_pi.device)
        logits = self.action_net(latent_pi).index_fill(1, first, -float("inf"))
        return self.action_dist.proba_distribution(action_logits=logits)


class Forbidding(RandomEnv):
    """Fails if the first action is taken."""

    def step(self, action):
        assert action != 0
        return super().step(action)
