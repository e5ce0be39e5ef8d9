"""Bad arguments are refused at construction and at loading, with what is allowed."""

import inspect

import pytest
from stable_baselines3 import PPO

from sb3_pg_ext import AdaptiveKLPPO

from .models import make_model

BAD = {
    "negative β": ({"kl_coef": -1.0}, r"kl_coef=-1\.0; allowed: \[0, "),
    "negative fixed β": ({"kl_coef": -1.0, "adaptive_kl": False}, r"kl_coef=-1\.0; allowed"),
    "β not a number": ({"kl_coef": float("nan")}, "kl_coef=nan; allowed"),
    "infinite β": ({"kl_coef": float("inf"), "adaptive_kl": False}, "kl_coef=inf; allowed"),
    "β as text": ({"kl_coef": "1"}, "kl_coef='1'; allowed"),
    "adaptive β of 0": ({"kl_coef": 0.0}, r"kl_coef=0\.0 together with adaptive_kl=True; allowed: .*0\.0001.*False"),
    "β below its range": ({"kl_coef": 1e-5}, "kl_coef=1e-05 together with adaptive_kl=True"),
    "β above its range": ({"kl_coef": 5, "kl_coef_range": (1, 4)}, r"kl_coef=5 together .*allowed: .*\[1, 4\]"),
    "range upside down": ({"kl_coef_range": (2, 1)}, r"kl_coef_range=.2, 1.; allowed: two numbers, 0 < smallest"),
    "range from 0": ({"kl_coef_range": (0, 1)}, r"kl_coef_range=.0, 1.; allowed"),
    "range without an end": ({"kl_coef_range": (1, float("inf"))}, r"kl_coef_range=.1, inf.; allowed"),
    "range of one number": ({"kl_coef_range": 3}, "kl_coef_range=3; allowed"),
    "range of three": ({"kl_coef_range": (1, 2, 3)}, r"kl_coef_range=.1, 2, 3.; allowed"),
    "no target": ({"target_kl": None}, "target_kl=None; allowed: a number > 0"),
    "target of 0": ({"target_kl": 0}, "target_kl=0; allowed: a number > 0"),
    "negative target": ({"target_kl": -0.01}, r"target_kl=-0\.01; allowed: a number > 0"),
    "early stop at 0": ({"early_stop_kl": 0}, "early_stop_kl=0; allowed: a number > 0"),
    "clip range of 0": ({"clip_range": 0}, "clip_range=0; allowed: a number > 0"),
    "negative clip range": ({"clip_range_vf": -0.2}, r"clip_range_vf=-0\.2; allowed: a number > 0"),
    "no steps": ({"n_steps": 0}, "n_steps=0; allowed: an integer ≥ 1"),
    "half a minibatch": ({"batch_size": 0.5}, r"batch_size=0\.5; allowed: an integer ≥ 1"),
    "no epochs": ({"n_epochs": 0}, "n_epochs=0; allowed: an integer ≥ 1"),
    "deviation of a single step": ({"n_steps": 1}, "normalize_advantage=True .*batch_size=8, n_steps=1, n_envs=1"),
    "deviation of a minibatch of one": ({"batch_size": 1}, "normalize_advantage=True .*batch_size=1, n_steps=16"),
    "gradient norm": ({"max_grad_norm": -1}, "max_grad_norm=-1; allowed: a number > 0, or None"),
    "estimator": ({"advantage_estimator": "gea"}, "'gea'.*'gae'"),
}
each = pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())


@each
def test_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


@each
def test_loading(arguments, message, tmp_path):
    model = make_model()
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        AdaptiveKLPPO.load(tmp_path / "model", device="cpu")


@pytest.mark.parametrize(
    "arguments",
    [
        {"kl_coef": 0.0, "adaptive_kl": False},
        {"kl_coef": 1e6, "adaptive_kl": False},
        {"kl_coef": 2, "kl_coef_range": [2, 2]},
        {"batch_size": 1, "normalize_advantage": False},
        {"n_steps": 1, "n_envs": 2},
        {"batch_size": 7},
        {"batch_size": 1000},
        {"max_grad_norm": None},
        {"clip_range": lambda remaining: 0.2 * remaining},
    ],
)
def test_what_is_allowed(arguments):
    make_model(**arguments).learn(32)


def test_the_arguments_of_ppo_keep_their_order():
    ours, theirs = (list(inspect.signature(cls).parameters) for cls in (AdaptiveKLPPO, PPO))
    assert [name for name in ours if name in theirs] == theirs


def test_it_just_works():
    assert AdaptiveKLPPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(1).num_timesteps == 64
