"""From a name to an estimator that runs, and the errors on the way."""

from dataclasses import dataclass

import numpy as np
import pytest

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.estimators import (
    GAE,
    UPGO,
    AdvantageEstimate,
    NStep,
    Rollout,
    VTrace,
    estimate_advantages,
    list_estimators,
    make_estimator,
    resolve_estimator,
)
from sb3_pg_ext.plugins import Registry

EVERYTHING = frozenset({"truncation", "raw_rewards", "target_log_probs"})


def resolve(estimator, kwargs=None, gae_lambda=0.9, provides=EVERYTHING):
    return resolve_estimator(estimator, kwargs, gae_lambda=gae_lambda, provides=provides)


def test_built_in_names():
    assert {"gae", "monte_carlo", "n_step", "td0", "vtrace", "upgo"} <= set(list_estimators())


def test_make_estimator():
    assert make_estimator("n_step", n=3) == NStep(3)
    assert make_estimator("gae") == GAE(0.95)


def test_an_unknown_name_suggests_close_ones():
    with pytest.raises(ValueError, match="Unknown estimator 'nstep'; did you mean 'n_step'"):
        make_estimator("nstep")


def test_wrong_parameters_name_the_right_ones():
    with pytest.raises(
        ValueError, match=r"'n_step': got an unexpected keyword argument 'k'; its parameters: n: int = 5"
    ):
        make_estimator("n_step", k=3)
    with pytest.raises(
        ValueError, match=r"'td0': .*; its parameters: none; given: advantage_estimator_kwargs={'n': 3}"
    ):
        make_estimator("td0", n=3)


def test_the_host_gives_lambda_to_estimators_that_have_one():
    assert resolve("gae") == GAE(0.9)
    assert resolve("upgo") == UPGO(0.9)
    assert resolve("n_step", {"n": 3}) == NStep(3)
    assert resolve("vtrace", {"lambda_": 0.5}) == VTrace(lambda_=0.5)


def test_lambda_has_one_source():
    with pytest.raises(ValueError, match=r"advantage_estimator_kwargs has gae_lambda=0.9; .* argument gae_lambda"):
        resolve("gae", {"gae_lambda": 0.9})
    with pytest.raises(ValueError, match=r"GAE\(gae_lambda=0.5\) contradicts the algorithm's gae_lambda=0.9"):
        resolve(GAE(0.5))


def test_instances_pass_through():
    for estimator in (GAE(0.9), NStep(3), VTrace()):
        assert resolve(estimator) is estimator
    with pytest.raises(ValueError, match="allowed: kwargs for a name, none for an instance"):
        resolve(NStep(), {"n": 3})


@pytest.mark.parametrize("estimator", [NStep, None, 3])
def test_what_is_no_estimator(estimator):
    with pytest.raises(ValueError, match=r"advantage_estimator=.*; allowed: a name, one of gae, .*, or an instance"):
        resolve(estimator)


def test_kwargs_must_be_a_dictionary():
    with pytest.raises(ValueError, match="advantage_estimator_kwargs='n=3'; allowed: a dictionary or None"):
        resolve("n_step", "n=3")


@pytest.mark.parametrize("estimator", ["vtrace", VTrace()], ids=["name", "instance"])
def test_a_host_refuses_what_requires_more_than_it_gives(estimator):
    with pytest.raises(
        ValueError, match=r"'vtrace' requires target_log_probs, which this host cannot give.*sb3_pg_ext"
    ):
        resolve(estimator, provides=frozenset({"truncation", "raw_rewards"}))


def ones():
    return np.ones((4, 2), np.float32)


@dataclass(frozen=True)
class Fixed:
    """Returns what it was told to."""

    estimate: object

    def __call__(self, rollout):
        return self.estimate


@pytest.fixture
def rollout():
    ends = np.zeros((4, 2), bool)
    return Rollout(ones(), ones(), ones(), ends, ends, gamma=0.9)


def test_a_good_estimate_passes(rollout):
    estimate = AdvantageEstimate(ones(), ones())
    assert estimate_advantages(Fixed(estimate), rollout) is estimate


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        ((ones(), ones()), "it returned tuple; allowed: AdvantageEstimate"),
        (AdvantageEstimate(ones()[:, :1], ones()), r"advantages has the shape \(4, 1\); allowed: \(4, 2\)"),
        (AdvantageEstimate(ones(), ones().astype(np.float64)), "returns is float64; allowed: an array of float32"),
        (AdvantageEstimate(ones(), ones() * np.nan), "returns is not finite, first at step 0 of environment 0: nan"),
    ],
)
def test_a_bad_estimate_names_the_estimator(estimate, message, rollout):
    with pytest.raises(ValueError, match=rf"Estimator Fixed\((?s:.*) of module {__name__}: {message}"):
        estimate_advantages(Fixed(estimate), rollout)


def test_a_function_is_an_estimator_too(rollout):
    def broken(rollout):
        return None

    with pytest.raises(ValueError, match=f"broken.* of module {__name__}: it returned NoneType"):
        estimate_advantages(resolve(broken), rollout)


def test_a_name_is_looked_up_once(monkeypatch):
    looked_up, find = [], Registry.find
    monkeypatch.setattr(Registry, "find", lambda self, kind, name: looked_up.append(name) or find(self, kind, name))
    resolve("n_step")
    REINFORCE("MlpPolicy", "CartPole-v1", baseline="mean")
    assert looked_up == ["n_step", "mean"]
