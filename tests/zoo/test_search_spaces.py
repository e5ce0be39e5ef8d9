"""Search spaces: what a study stores of a trial, which has to stay readable, and what becomes of it."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import nn

from sb3_pg_ext.algorithms.base.hyperparams import (
    Space,
    choice,
    integer,
    log_uniform,
    named_choice,
    one_minus,
    power_of_two,
    uniform,
)
from sb3_pg_ext.plugins import AlgorithmSpec, registry

PLAIN = {"using_her_replay_buffer": False, "her_kwargs": {}}
HINDSIGHT = {"using_her_replay_buffer": True, "her_kwargs": {}}


def log(low, high):
    return FloatDistribution(low, high, log=True)


def any_of(*values):
    return CategoricalDistribution(values)


NETWORK = {"net_arch": any_of("tiny", "small", "medium"), "activation_fn": any_of("tanh", "relu")}
SMALL_TANH = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}

REINFORCE = {
    "one_minus_gamma": log(1e-4, 0.1),
    "learning_rate": log(1e-4, 3e-2),
    "ent_coef": log(1e-8, 0.1),
    "baseline": any_of("none", "mean", "value"),
    "normalize_advantage": any_of(False, True),
    **NETWORK,
}
NAF = {
    "one_minus_gamma": log(1e-4, 0.1),
    "learning_rate": log(1e-5, 1e-2),
    "log2_batch_size": IntDistribution(5, 9),
    "tau": log(1e-3, 0.1),
    "train_freq": IntDistribution(1, 10),
    "loss": any_of("mse", "huber"),
    "double": any_of(False, True),
    "net_arch": any_of("small", "medium", "big"),
    "layer_norm": any_of(False, True),
}
SAC_V = {
    "one_minus_gamma": log(1e-4, 0.1),
    "learning_rate": log(1e-5, 1e-2),
    "log2_batch_size": IntDistribution(5, 9),
    "tau": log(1e-3, 0.1),
    "train_freq": IntDistribution(1, 10),
    "reward_scale": log(0.1, 10),
    "net_arch": any_of("small", "medium", "big"),
    "n_critics": any_of(1, 2),
}
GUMBEL_DDPG = {
    "one_minus_gamma": log(1e-4, 0.1),
    "learning_rate": log(1e-5, 1e-2),
    "log2_batch_size": IntDistribution(5, 9),
    "tau": log(1e-3, 0.1),
    "train_freq": IntDistribution(1, 10),
    "temperature": log(0.1, 10),
    "straight_through": any_of(False, True),
    "logit_penalty": log(1e-5, 1e-1),
    "exploration_eps": FloatDistribution(0, 0.2),
    "net_arch": any_of("small", "medium"),
    "n_critics": any_of(1, 2),
    "linear_critic": any_of(False, True),
}
STORED = {
    "a3c": {
        "n_steps": any_of(5, 8, 16, 32, 64),
        "one_minus_gamma": log(1e-4, 0.1),
        "gae_lambda": FloatDistribution(0.8, 1.0),
        "learning_rate": log(1e-5, 1e-2),
        "ent_coef": log(1e-8, 0.1),
        "vf_coef": FloatDistribution(0.1, 1.0),
        "max_grad_norm": log(0.3, 5.0),
        "use_rms_prop": any_of(False, True),
        "normalize_advantage": any_of(False, True),
        **NETWORK,
    },
    "impala": {
        "n_steps": any_of(16, 20, 32, 40, 64),
        "batch_size": any_of(1, 2, 4, 8),
        "surrogate": any_of("policy_gradient", "clipped"),
        "one_minus_gamma": log(1e-4, 0.1),
        "learning_rate": log(1e-5, 1e-2),
        "ent_coef": log(1e-8, 0.1),
        "vf_coef": FloatDistribution(0.1, 1.0),
        "max_grad_norm": log(0.3, 5.0),
        "use_rms_prop": any_of(False, True),
        "normalize_advantage": any_of(False, True),
        **NETWORK,
    },
    "npg": {
        "n_steps_pow": IntDistribution(5, 12),
        "batch_size_pow": IntDistribution(5, 10),
        "one_minus_gamma": log(1e-4, 0.03),
        "one_minus_gae_lambda": log(1e-4, 0.2),
        "learning_rate": log(1e-4, 1e-2),
        "n_critic_updates": IntDistribution(5, 30),
        "target_kl": log(3e-3, 0.1),
        "cg_max_steps": IntDistribution(5, 30),
        "cg_damping": log(1e-4, 0.3),
        "line_search": any_of(False, True),
        **NETWORK,
    },
    "ppo_kl": {
        "n_steps_pow": IntDistribution(5, 12),
        "batch_size_pow": IntDistribution(4, 10),
        "n_epochs": any_of(1, 5, 10, 20),
        "one_minus_gamma": log(1e-4, 0.03),
        "one_minus_gae_lambda": log(1e-4, 0.2),
        "learning_rate": log(1e-5, 2e-3),
        "ent_coef": log(1e-8, 0.1),
        "max_grad_norm": FloatDistribution(0.3, 2.0),
        "adaptive_kl": any_of(True, False),
        "kl_coef": log(0.1, 10.0),
        "target_kl": log(3e-3, 0.1),
        **NETWORK,
    },
    "reinforce": {"n_episodes": IntDistribution(1, 64), **REINFORCE},
    "reinforce in 6 environments": {"n_episodes": IntDistribution(6, 60, step=6), **REINFORCE},
    "reinforce in 100 environments": {"n_episodes": IntDistribution(100, 100, step=100), **REINFORCE},
    "naf": NAF,
    "sac_v": SAC_V,
    "gumbel_ddpg": GUMBEL_DDPG,
    "naf with hindsight": {
        **NAF,
        "n_sampled_goal": IntDistribution(1, 5),
        "goal_selection_strategy": any_of("final", "episode", "future"),
    },
}
"""The names and distributions, in the order of sampling: a study's sampler goes by them, and so does ``--trial-id``."""

TRIALS = {
    "a3c": (
        {"n_steps": 8, "one_minus_gamma": 0.25, "use_rms_prop": True, "net_arch": "small", "activation_fn": "tanh"},
        {"n_steps": 8, "gamma": 0.75, "use_rms_prop": True, "policy_kwargs": SMALL_TANH},
    ),
    "impala": (
        {"n_steps": 20, "batch_size": 4, "one_minus_gamma": 0.25, "net_arch": "small", "activation_fn": "tanh"},
        {"n_steps": 20, "batch_size": 4, "gamma": 0.75, "policy_kwargs": SMALL_TANH},
    ),
    "npg": (
        {
            "n_steps_pow": 5,
            "batch_size_pow": 6,
            "one_minus_gamma": 0.25,
            "one_minus_gae_lambda": 0.125,
            "cg_max_steps": 7,
            "net_arch": "small",
            "activation_fn": "tanh",
        },
        {
            "n_steps": 32,
            "batch_size": 64,
            "gamma": 0.75,
            "gae_lambda": 0.875,
            "cg_max_steps": 7,
            "policy_kwargs": SMALL_TANH,
        },
    ),
    "ppo_kl": (
        {
            "n_steps_pow": 12,
            "batch_size_pow": 4,
            "one_minus_gamma": 0.25,
            "one_minus_gae_lambda": 0.125,
            "kl_coef": 2.0,
            "net_arch": "medium",
            "activation_fn": "relu",
        },
        {
            "n_steps": 4096,
            "batch_size": 16,
            "gamma": 0.75,
            "gae_lambda": 0.875,
            "kl_coef": 2.0,
            "policy_kwargs": {"net_arch": {"pi": [256, 256], "vf": [256, 256]}, "activation_fn": nn.ReLU},
        },
    ),
    "reinforce": (
        {"n_episodes": 12, "one_minus_gamma": 0.25, "baseline": "mean", "net_arch": "tiny", "activation_fn": "relu"},
        {
            "n_episodes": 12,
            "n_steps": None,
            "gamma": 0.75,
            "baseline": "mean",
            "policy_kwargs": {"net_arch": {"pi": [64], "vf": [64]}, "activation_fn": nn.ReLU},
        },
    ),
    "naf": (
        {"one_minus_gamma": 0.25, "log2_batch_size": 5, "train_freq": 3, "net_arch": "big", "layer_norm": True},
        {
            "gamma": 0.75,
            "batch_size": 32,
            "train_freq": 3,
            "gradient_steps": 3,
            "policy_kwargs": {"net_arch": [400, 300], "layer_norm": True},
        },
    ),
    "sac_v": (
        {"one_minus_gamma": 0.25, "log2_batch_size": 5, "train_freq": 3, "net_arch": "small", "n_critics": 1},
        {
            "gamma": 0.75,
            "batch_size": 32,
            "train_freq": 3,
            "gradient_steps": 3,
            "policy_kwargs": {"net_arch": [64, 64], "n_critics": 1},
        },
    ),
    "gumbel_ddpg": (
        {"temperature": 0.5, "train_freq": 3, "net_arch": "medium", "straight_through": False},
        {
            "temperature": 0.5,
            "train_freq": 3,
            "gradient_steps": 3,
            "straight_through": False,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "naf with hindsight": (
        {
            "one_minus_gamma": 0.5,
            "log2_batch_size": 9,
            "train_freq": 2,
            "net_arch": "small",
            "layer_norm": False,
            "n_sampled_goal": 4,
            "goal_selection_strategy": "final",
        },
        {
            "gamma": 0.5,
            "batch_size": 512,
            "train_freq": 2,
            "gradient_steps": 2,
            "policy_kwargs": {"net_arch": [64, 64], "layer_norm": False},
            "replay_buffer_kwargs": {"n_sampled_goal": 4, "goal_selection_strategy": "final"},
        },
    ),
}


def find(case):
    return registry().find(AlgorithmSpec, case.split()[0])


def ask(number):
    """A new trial of a study that is random, but always the same."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return study.ask()


@pytest.mark.parametrize("case", STORED)
def test_names_and_distributions_are_those_of_old_studies(case):
    n_envs = int(case.split()[2]) if "environments" in case else 1
    trial = ask(0)
    find(case).sampler(trial, 1, n_envs, HINDSIGHT if "hindsight" in case else PLAIN)
    assert list(trial.distributions.items()) == list(STORED[case].items())


@pytest.mark.parametrize("case", TRIALS)
def test_a_stored_trial_becomes_the_arguments_that_it_stands_for(case):
    params, arguments = TRIALS[case]
    assert find(case).converter(params) == arguments


@pytest.mark.parametrize("case", STORED)
def test_what_is_sampled_is_what_its_trial_is_converted_to(case):
    for number in range(5):
        trial = ask(number)
        sampled = find(case).sampler(trial, 1, 6, HINDSIGHT if "hindsight" in case else PLAIN)
        assert find(case).converter(trial.params) == sampled


def test_every_transform_is_declared_once():
    """Golden numbers of each kind of dimension: what is sampled, and by which name it is stored."""
    space = Space(
        {
            "gamma": one_minus(uniform(0.25, 0.25)),
            "learning_rate": log_uniform(0.5, 0.5),
            "n_steps": power_of_two(3, 3),
            "batch_size": power_of_two(4, 4, stored_as="log2_batch_size"),
            "n_epochs": integer(7, 7),
            "returns": choice("total"),
            "policy_kwargs": {"activation_fn": named_choice({"relu": nn.ReLU})},
        },
        conditional={"extra": {"gae_lambda": one_minus(one_minus(uniform(0.75, 0.75)))}},
        derive=lambda arguments: {"capacity": 10 * arguments["n_steps"]},
    )
    trial = ask(0)
    assert space.sample(trial, 1, 1, {"extra": True}) == {
        "gamma": 0.75,
        "learning_rate": 0.5,
        "n_steps": 8,
        "batch_size": 16,
        "n_epochs": 7,
        "returns": "total",
        "policy_kwargs": {"activation_fn": nn.ReLU},
        "gae_lambda": 0.75,
        "capacity": 80,
    }
    assert trial.params == {
        "one_minus_gamma": 0.25,
        "learning_rate": 0.5,
        "n_steps_pow": 3,
        "log2_batch_size": 4,
        "n_epochs": 7,
        "returns": "total",
        "activation_fn": "relu",
        "one_minus_one_minus_gae_lambda": 0.75,
    }


def test_a_condition_that_does_not_hold_samples_nothing():
    space = Space({"tau": uniform(0, 1)}, conditional={"extra": {"replay_buffer_kwargs": {"n": integer(1, 5)}}})
    assert space.sample(ask(0), 1, 1, {"extra": False}).keys() == {"tau"}


def test_trials_of_a_smaller_and_of_a_larger_space_are_read():
    """What an old trial lacks is left to the YAML file, what it has beyond the space is passed on."""
    space = Space({"tau": uniform(0, 1), "gamma": one_minus(uniform(0, 1))})
    assert space.convert({"one_minus_gamma": 0.25}) == {"gamma": 0.75}
    assert space.convert({"tau": 0.5, "ent_coef": 0.1}) == {"tau": 0.5, "ent_coef": 0.1}


def test_two_arguments_cannot_be_stored_by_one_name():
    """Optuna would give both the same number without a word."""
    with pytest.raises(ValueError, match=r"policy_kwargs\.net_arch is stored as 'net_arch'"):
        Space({"net_arch": choice("small"), "policy_kwargs": {"net_arch": choice("big")}})
