"""Bad arguments are refused at construction and at loading, with what is allowed."""

from inspect import signature

import pytest
from envs import RandomEnv
from sb3_contrib import TRPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import NPG


def make_model(n_envs=1, **kwargs):
    env = DummyVecEnv([RandomEnv] * n_envs)
    return NPG("MlpPolicy", env, device="cpu", policy_kwargs={"net_arch": [4]}, **{"n_steps": 16, **kwargs})


BAD = {
    "no KL": ({"target_kl": 0}, "target_kl=0; allowed: a number > 0"),
    "negative KL": ({"target_kl": -0.01}, r"target_kl=-0\.01; allowed: a number > 0"),
    "KL not a number": ({"target_kl": float("nan")}, "target_kl=nan; allowed: a number > 0"),
    "infinite KL": ({"target_kl": float("inf")}, "target_kl=inf; allowed: a number > 0"),
    "no KL at all": ({"target_kl": None}, "target_kl=None; allowed: a number > 0"),
    "negative damping": ({"cg_damping": -1e-3}, r"cg_damping=-0\.001; allowed: a number ≥ 0"),
    "no steps of CG": ({"cg_max_steps": 0}, "cg_max_steps=0; allowed: an integer ≥ 1"),
    "half a step of CG": ({"cg_max_steps": 2.5}, r"cg_max_steps=2\.5; allowed: an integer ≥ 1"),
    "no steps": ({"n_steps": 0}, "n_steps=0; allowed: an integer ≥ 1"),
    "no minibatch": ({"batch_size": 0}, "batch_size=0; allowed: an integer ≥ 1"),
    "no critic": ({"n_critic_updates": 0}, "n_critic_updates=0; allowed: an integer ≥ 1"),
    "no sub-sample": ({"sub_sampling_factor": 0}, "sub_sampling_factor=0; allowed: an integer ≥ 1"),
    "nothing left": (
        {"sub_sampling_factor": 33, "n_envs": 2},
        r"sub_sampling_factor=33 leaves no data of n_steps=16 in 2 environment\(s\); allowed: at most 32",
    ),
    "misspelled step": (
        {"step": "normalised"},
        r"step='normalised' \(did you mean 'normalized'\?\); allowed: 'normalized', 'fixed'",
    ),
    "fixed step with a line search": (
        {"step": "fixed", "line_search": True},
        "line_search=True together with step='fixed', where it is unused; allowed: False",
    ),
    "fixed step with a KL": (
        {"step": "fixed", "target_kl": 0.05},
        r"target_kl=0\.05 together with step='fixed', where it is unused; allowed: 0\.01",
    ),
    "normalized step with a size": (
        {"step_size": 0.1},
        r"step_size=0\.1 together with step='normalized', where it is unused; allowed: None",
    ),
    "no step": ({"step": "fixed", "step_size": 0}, "step_size=0; allowed: a number > 0"),
    "schedule of no steps": ({"step": "fixed", "step_size": lambda _: 0.0}, r"step_size=0\.0; allowed: a number > 0"),
    "line search that grows": (
        {"line_search": True, "line_search_shrinking_factor": 1.2},
        r"line_search_shrinking_factor=1\.2; allowed: a number between 0 and 1",
    ),
    "line search without a try": (
        {"line_search": True, "line_search_max_iter": 0},
        "line_search_max_iter=0; allowed: an integer ≥ 1",
    ),
    "line search that is not made": (
        {"line_search_max_iter": 5},
        "line_search_max_iter=5 together with line_search=False, where it is unused; allowed: 10",
    ),
    "deviation of one number": ({"n_steps": 1}, "normalize_advantage=True .*at least 2"),
    "λ": ({"gae_lambda": 1.1}, r"gae_lambda=1\.1; allowed: \[0, 1\]"),
    "unknown estimator": ({"advantage_estimator": "gea"}, "gea.*gae"),
}
each = pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())


@each
def test_construction(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make_model(**arguments)


@each
def test_loading(arguments, message, tmp_path):
    arguments = dict(arguments)
    model = make_model(arguments.pop("n_envs", 1))
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        NPG.load(tmp_path / "model", device="cpu")


@pytest.mark.parametrize(
    "arguments",
    [
        {"cg_damping": 0},
        {"sub_sampling_factor": 16},
        {"step": "fixed"},
        {"step": "fixed", "step_size": lambda remaining: remaining},
        {"line_search": True, "line_search_shrinking_factor": 0.5, "line_search_max_iter": 1},
        {"normalize_advantage": False, "n_steps": 1},
        {"batch_size": 1000},
    ],
)
def test_what_is_allowed(arguments):
    model = make_model(**arguments)
    model.learn(model.n_steps)
    assert model._n_updates == 1


def test_a_fixed_step_is_a_tenth_by_default():
    model = make_model(step="fixed").learn(16, log_interval=None)
    assert model.logger.name_to_value["train/step_size"] == 0.1


def test_takes_every_argument_of_trpo_in_its_order():
    ours, theirs = (list(signature(cls).parameters.values()) for cls in (NPG, TRPO))
    names = [parameter.name for parameter in theirs]
    shared = [parameter for parameter in ours if parameter.name in names]
    assert [(p.name, p.default) for p in shared] == [(p.name, p.default) for p in theirs]
    assert [p.name for p in ours[:19]] == names[:19]
