import pytest
from envs import ACTION_SPACES, RandomEnv

from .algorithms import NAMES, Algorithm, find


@pytest.fixture(params=NAMES)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Every registered algorithm."""
    return find(request.param)


@pytest.fixture(autouse=True)
def usual_action_space(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let environments have actions that the algorithm supports, where a test does not choose them."""
    if "algorithm" in request.fixturenames:
        traits = request.getfixturevalue("algorithm").traits
        monkeypatch.setattr(RandomEnv, "usual_action_space", ACTION_SPACES[traits.usual_action_space])
