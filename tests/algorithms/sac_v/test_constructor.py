"""Bad arguments are refused at construction, with what is allowed; the actor acts the same by NumPy and by PyTorch."""

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces

from sb3_pg_ext import SACV
from sb3_pg_ext.algorithms.base.acting import ModelActionSampler
from sb3_pg_ext.algorithms.sac_v.action_sampling import MLPActionSampler

BAD = {
    "α negative": ({"ent_coef": -0.1}, r"ent_coef=-0\.1; allowed: a number ≥ 0, 'auto', or 'auto_' and a number > 0"),
    "α misspelt": ({"ent_coef": "Auto"}, "ent_coef='Auto'; allowed: a number"),
    "α without a beginning": ({"ent_coef": "auto_"}, "ent_coef='auto_'; allowed"),
    "α from 0": ({"ent_coef": "auto_0"}, "ent_coef='auto_0'; allowed"),
    "entropy": ({"target_entropy": "automatic"}, "target_entropy='automatic'; allowed: 'auto' or a number"),
    "no rewards": ({"reward_scale": 0}, "reward_scale=0; allowed: a number > 0"),
    "gradient": ({"actor_gradient": "reparameterized"}, r"did you mean 'reparametrized'\?"),
    "no critics": ({"policy_kwargs": {"n_critics": 0}}, "n_critics=0; allowed: an integer ≥ 1"),
    "no interval": ({"target_update_interval": 0}, "target_update_interval=0; allowed: an integer ≥ 1"),
}


def make_model(**kwargs):
    arguments = {"policy_kwargs": {"net_arch": [4]}, "buffer_size": 100, "seed": 0, **kwargs}
    return SACV("MlpPolicy", RandomEnv(spaces.Box(-2, 2, (3,), np.float32)), device="cpu", **arguments)


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_construction(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)
    model = make_model()
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        SACV.load(tmp_path / "model", device="cpu")


@pytest.mark.parametrize("n_envs", [1, 7])
def test_the_same_seed_gives_the_same_actions(n_envs):
    model = make_model(policy_kwargs={"net_arch": [16, 16]})
    observations = np.random.default_rng(0).normal(size=(n_envs, 3)).astype(np.float32)
    chosen = []
    for sampler in (MLPActionSampler(model.policy), ModelActionSampler(model)):
        th.manual_seed(0)
        chosen.append(sampler(observations))
    np.testing.assert_allclose(*chosen, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_shared_features_extractors_learn_with_the_actor(shared):
    class Halve(th.nn.Sequential):
        def __init__(self, space):
            super().__init__(th.nn.Linear(3, 2))
            self.features_dim = 2

    model = make_model(
        policy_kwargs={"net_arch": [4], "share_features_extractor": shared, "features_extractor_class": Halve},
        learning_starts=10,
        batch_size=8,
    ).learn(20)
    assert (model.policy.critic.features_extractor is model.policy.actor.features_extractor) == shared
    assert model.policy.value.features_extractor is not model.policy.actor.features_extractor
    assert model.describe_engine() == "autograd, because it extracts features"
