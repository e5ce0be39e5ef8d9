"""What a plug-in's factory is given, and what it may give back."""

import pytest

from sb3_pg_ext.plugins import BaselineSpec, factory, load_registry, make

SOURCE = """
def halve(number=2.0):
    return lambda episodes: number / 2 if number > 0 else None

@hookimpl
def sb3_pg_ext_baselines():
    yield BaselineSpec("halve", halve)
    yield BaselineSpec("three", lambda: 3)
"""


@pytest.fixture(autouse=True)
def installed(install, monkeypatch):
    install("fake", SOURCE)
    loaded = load_registry()
    monkeypatch.setattr(factory, "registry", lambda: loaded)


def test_parameters_reach_the_factory():
    assert make(BaselineSpec, "halve", {"number": 8.0})(None) == 4.0


def test_unknown_parameters_name_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"Baseline 'halve': .*'decay'; its parameters: number=2.0; given: baseline_kwargs={'decay': 8.0}",
    ):
        make(BaselineSpec, "halve", {"decay": 8.0})


def test_a_factory_that_cannot_use_a_value_is_named():
    with pytest.raises(
        ValueError,
        match=r"Baseline 'moving_average': .*; its parameters: decay.*; given: baseline_kwargs={'decay': None}",
    ):
        make(BaselineSpec, "moving_average", {"decay": None})


def test_what_is_made_can_be_called():
    with pytest.raises(ValueError, match="Baseline 'three': its factory made 3; allowed: a callable"):
        make(BaselineSpec, "three", {})
