"""Every property has an algorithm that lacks it."""

import gymnasium as gym
import pytest
import torch
import yaml
from stable_baselines3 import A2C

from sb3_pg_ext.plugins import AlgorithmSpec
from sb3_pg_ext.testing import check

pytest.importorskip("rl_zoo3")

SAMPLER = "rl_zoo3.hyperparams_opt:sample_a2c_params"
CONVERTER = "rl_zoo3.hyperparams_opt:convert_onpolicy_params"
CONFIG = "rl_zoo3:hyperparams/a2c.yml"


class NoParameterMoves(A2C):
    def train(self):
        pass


class StopsEarly(A2C):
    def learn(self, total_timesteps, **kwargs):
        return super().learn(total_timesteps // 2, **kwargs)


class EndsInNaN(A2C):
    def learn(self, *args, **kwargs):
        super().learn(*args, **kwargs)
        with torch.no_grad():
            self.policy.value_net.bias.fill_(torch.nan)
        return self


class Unseeded(A2C):
    def learn(self, *args, **kwargs):
        torch.seed()
        return super().learn(*args, **kwargs)


class Forgets(A2C):
    def set_parameters(self, *args, **kwargs):
        pass


class SupportsNothing(A2C):
    def __init__(self, *args, **kwargs):
        raise AssertionError("only MultiBinary actions")


class RefusesDiscreteActions(A2C):
    def _setup_model(self):
        if isinstance(self.action_space, gym.spaces.Discrete):
            raise ValueError(f"action_space={self.action_space}; allowed: Box")
        super()._setup_model()


class RefusesEverything(A2C):
    def _setup_model(self):
        raise ValueError("action_space=…; allowed: MultiBinary")


NOT_BUILT = "is built with MlpPolicy"
FAULTS = {
    NoParameterMoves: "learns",
    StopsEarly: "learns",
    EndsInNaN: "learns",
    Unseeded: "learns the same from the same seed",
    Forgets: "survives saving and loading",
    SupportsNothing: NOT_BUILT,
    RefusesEverything: NOT_BUILT,
}


def spec(cls=A2C, config=CONFIG, sampler=SAMPLER, converter=CONVERTER):
    return AlgorithmSpec("some", cls, str(config), sampler, converter)


def test_a_stock_algorithm_keeps_the_contract():
    check(spec(), n_steps=50)


def test_an_action_space_may_be_refused_by_a_value_error():
    check(spec(RefusesDiscreteActions), n_steps=50)


def test_wrong_arguments_are_no_matter_of_the_contract():
    with pytest.raises(ValueError, match=r"gamma=2; allowed: \[0, 1\]"):
        check("npg", gamma=2)


def test_nothing_is_printed(capfd):
    check(spec(), n_steps=50)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("cls", "fault"), FAULTS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_a_fault_is_named(failing, cls, fault):
    kwargs = {} if cls is RefusesEverything else {"n_steps": 50}  # with arguments, these are to blame
    assert failing(spec(cls), **kwargs) == {fault}


CONFIGS = {
    "a list": ["policy"],
    "no mapping": {"CartPole-v1": "MlpPolicy"},
    "no policy": {"CartPole-v1": {"n_timesteps": 1000}},
    "an unknown argument": {"CartPole-v1": {"n_timesteps": 1000, "policy": "MlpPolicy", "n_stepz": 5}},
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_rl_zoo_cannot_use_is_found(failing, tmp_path, content):
    path = tmp_path / "some.yml"
    path.write_text(yaml.safe_dump(content))
    assert failing(spec(SupportsNothing, path)) == {NOT_BUILT, "has a config for rl zoo"}


def test_a_config_that_is_missing_is_found(failing):
    assert failing(spec(SupportsNothing, "rl_zoo3:hyperparams/missing.yml")) == {NOT_BUILT, "has a config for rl zoo"}


def sample_something_unknown(trial, n_actions, n_envs, additional_args):
    return {"n_stepz": trial.suggest_int("n_stepz", 1, 5)}


def convert_to_something_else(params):
    return {"gamma": 0.5}


@pytest.mark.parametrize(
    "search",
    [
        {"sampler": sample_something_unknown, "converter": dict},
        {"converter": convert_to_something_else},
        {"sampler": "rl_zoo3.hyperparams_opt:missing"},
    ],
    ids=["unknown argument", "another value", "no such function"],
)
def test_a_search_that_cannot_work_is_found(failing, search):
    assert failing(spec(SupportsNothing, **search)) == {NOT_BUILT, "samples hyperparameters"}


def test_a_configuration_may_be_a_path_object(failing, tmp_path):
    path = tmp_path / "some.yml"
    path.write_text(yaml.safe_dump({"CartPole-v1": {"n_timesteps": 1000, "policy": "MlpPolicy"}}))
    some = AlgorithmSpec("some", SupportsNothing, path, SAMPLER, CONVERTER)
    assert failing(some) == {NOT_BUILT}
