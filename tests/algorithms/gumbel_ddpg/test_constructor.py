"""Bad arguments are refused at construction, with what is allowed; the actor acts the same by NumPy and by PyTorch."""

import re

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv

from sb3_pg_ext import GumbelDDPG
from sb3_pg_ext.algorithms.base.acting import ModelActionSampler
from sb3_pg_ext.algorithms.gumbel_ddpg.action_sampling import MLPActionSampler

BAD = {
    "no temperature": ({"temperature": 0}, "temperature=0; allowed: a number > 0"),
    "negative penalty": ({"logit_penalty": -1}, "logit_penalty=-1; allowed: a number ≥ 0"),
    "ε too large": ({"exploration_eps": 1.5}, r"exploration_eps=1\.5; allowed: \[0, 1\]"),
    "loss": ({"loss": "hubert"}, r"loss='hubert' \(did you mean 'huber'\?\)"),
    "straight through by name": ({"straight_through": "no"}, "straight_through='no'; allowed: True or False"),
    "no critics": ({"policy_kwargs": {"n_critics": 0}}, "n_critics=0; allowed: an integer ≥ 1"),
    "a linear critic by name": (
        {"policy_kwargs": {"linear_critic": "no"}},
        "linear_critic='no'; allowed: True or False",
    ),
    "gradient norm": ({"max_grad_norm": -1}, "max_grad_norm=-1; allowed: a number > 0, or None"),
}


def make_model(space="Discrete", **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [4]}, "buffer_size": 100, "seed": 0, **kwargs}
    return GumbelDDPG("MlpPolicy", RandomEnv(ACTION_SPACES[space]), device="cpu", **arguments)


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_construction(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)
    model = make_model()
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        GumbelDDPG.load(tmp_path / "model", device="cpu")


def test_exploration_that_leaves_its_range_on_the_way_is_refused():
    model = make_model(exploration_eps=lambda remaining: remaining - 0.5, learning_starts=2)
    with pytest.raises(ValueError, match=r"exploration_eps=-0\.\d+; allowed: \[0, 1\]"):
        model.learn(50)


def test_other_actions_are_refused_by_sb3():
    with pytest.raises(AssertionError, match=re.escape("only supports")):
        make_model("Box")


@pytest.mark.parametrize("space", ["Discrete", "MultiDiscrete"])
@pytest.mark.parametrize("n_envs", [1, 7])
def test_the_same_seed_gives_the_same_actions(space, n_envs):
    model = make_model(space, policy_kwargs={"net_arch": [16, 16]})
    observations = np.random.default_rng(0).normal(size=(n_envs, 3)).astype(np.float32)
    chosen = []
    for sampler in (MLPActionSampler(model.policy), ModelActionSampler(model)):
        th.manual_seed(0)
        chosen.append([sampler(observations).reshape(n_envs, -1) for _ in range(20)])
    np.testing.assert_array_equal(*chosen)
    assert len(np.unique(chosen[0])) > 1


def test_a_temperature_may_fall_to_0():
    model = make_model(temperature=lambda remaining: remaining, learning_starts=8, batch_size=8, train_freq=1).learn(40)
    assert model._current_progress_remaining == 0
    assert model.n_skipped_updates == 0
    assert model._summarize()["temperature"] == 0.01


def test_random_actions_come_with_their_probability():
    """With ε = 1 all actions are uniformly distributed, however sure the policy is."""
    model = make_model(exploration_eps=lambda remaining: remaining, learning_starts=0)
    with th.no_grad():
        model.policy.actor.head.bias[:] = th.tensor([50.0, 0.0, 0.0])
    model.learn(1)
    taken = np.array([model._sample_action(0)[0][0] for _ in range(300)])
    eps = model._current_progress_remaining
    assert eps == 0
    assert set(taken) == {0}
    model._current_progress_remaining = 1.0
    counts = np.bincount([model._sample_action(0)[0][0] for _ in range(600)], minlength=3)
    assert (counts > 150).all()
