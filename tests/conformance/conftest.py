from dataclasses import replace

import pytest
from envs import ACTION_SPACES, RandomEnv

from .algorithms import DEVICES, NAMES, Algorithm, find

EVERYWHERE = [
    pytest.param((name, device), id=name if device == "cpu" else f"{name} on {device}", marks=marks)
    for device in DEVICES
    for marks in [pytest.mark.cuda if device == "cuda" else ()]
    for name in NAMES
    if device == "cpu" or not find(name).traits.asynchronous  # workers share parameters in main memory
]


@pytest.fixture(params=EVERYWHERE)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Every registered algorithm, on every device that there is."""
    name, device = request.param
    return replace(find(name), device=device)


@pytest.fixture(autouse=True)
def usual_action_space(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let environments have actions that the algorithm supports, where a test does not choose them."""
    if "algorithm" in request.fixturenames:
        traits = request.getfixturevalue("algorithm").traits
        monkeypatch.setattr(RandomEnv, "usual_action_space", ACTION_SPACES[traits.usual_action_space])
