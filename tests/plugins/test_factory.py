"""What a plug-in's factory is given, and what it may give back."""

import pytest

from sb3_pg_ext.plugins import BaselineSpec, load_registry, make

SOURCE = """
def halve(number=2.0):
    half = number / 2
    return lambda episodes: half

@hookimpl
def sb3_pg_ext_baselines():
    yield BaselineSpec("halve", halve)
    yield BaselineSpec("three", lambda: 3)
"""


@pytest.fixture
def find(install):
    """``find(name)`` gives the record of a baseline, of the built-in ones or of a plug-in."""
    install("fake", SOURCE)
    loaded = load_registry()
    return lambda name: loaded.find(BaselineSpec, name)


def test_parameters_reach_the_factory(find):
    assert make(find("halve"), {"number": 8.0})(None) == 4.0


def test_unknown_parameters_name_the_known_ones(find):
    with pytest.raises(
        ValueError,
        match=r"Baseline 'halve': .*'decay'; its parameters: number=2.0; given: baseline_kwargs={'decay': 8.0}",
    ):
        make(find("halve"), {"decay": 8.0})


def test_a_factory_that_cannot_use_a_value_is_named(find):
    with pytest.raises(
        ValueError,
        match=r"Baseline 'halve': .*; its parameters: number=2.0; given: baseline_kwargs={'number': None}",
    ):
        make(find("halve"), {"number": None})


def test_what_is_made_can_be_called(find):
    with pytest.raises(ValueError, match="Baseline 'three': its factory made 3; allowed: a callable"):
        make(find("three"), {})
