"""What constructors share is written once, and told of everywhere."""

import inspect
import re

import pytest

from sb3_pg_ext import A3C, IMPALA, NAF, NPG, REINFORCE, AdaptiveKLPPO
from sb3_pg_ext.algorithms.base.constructor import arguments_of, complete_docstring


@pytest.mark.parametrize("cls", [A3C, IMPALA, NAF, NPG, REINFORCE, AdaptiveKLPPO])
def test_every_argument_is_documented_once(cls):
    told = re.findall(r"^ *:param (\w+):", cls.__doc__, re.MULTILINE)
    assert sorted(told) == sorted(inspect.signature(cls).parameters)
    assert cls.__doc__.index(":raises") > cls.__doc__.rindex(":param")


def test_what_a_class_says_itself_stands():
    class Own:
        """One.

        :param seed: a seed of my own
        :param mine: mine
        :raises ValueError: never
        """

        def __init__(self, mine, seed, verbose):
            pass

    complete_docstring(Own)
    assert Own.__doc__.splitlines()[2:] == [
        ":param seed: a seed of my own",
        ":param mine: mine",
        ":param verbose: 0 for no output, 1 for information, 2 for debugging",
        ":raises ValueError: never",
    ]


def test_arguments_are_passed_on_by_name():
    class Base:
        def __init__(self, a, b=2):
            pass

    assert arguments_of(Base, {"self": 0, "a": 1, "c": 3, "__class__": None}) == {"a": 1}


@pytest.mark.parametrize("cls", [NPG, REINFORCE, AdaptiveKLPPO])
def test_runs_are_named_after_the_class(cls, tmp_path):
    model = cls("MlpPolicy", "CartPole-v1", tensorboard_log=str(tmp_path), device="cpu")
    model.learn(1, lambda *_: False)
    model.learn(1, lambda *_: False, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {f"{cls.__name__}_1", "mine_1"}
