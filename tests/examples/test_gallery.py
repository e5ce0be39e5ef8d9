"""Every example of the gallery runs in short, has its picture and page, and plays in proper environments."""

import importlib
import inspect
import re
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.optimize import approx_fprime

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "gallery"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))

each_example = pytest.mark.parametrize("name", EXAMPLES)


@pytest.fixture
def gallery(monkeypatch):
    """Imports an example."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.slow
@each_example
def test_examples_run_in_short(gallery, name, tmp_path):
    picture = tmp_path / "picture.png"
    gallery(name).main(["--short", "--output", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")


@each_example
def test_environments_are_proper_ones(gallery, name):
    module = gallery(name)
    for env_class in vars(module).values():
        if inspect.isclass(env_class) and env_class.__module__ == name and issubclass(env_class, gym.Env):
            make = getattr(module, "make", env_class)
            env = make(*module.one_hot(2)) if name == "features" else make()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that spaces are wide, and that there is no spec
                check_env(env, skip_render_check=True)


@pytest.mark.parametrize("kind", ["one_hot(3)", "coarse_coding(3, 4)", "random_projection(20)", "identity()"])
def test_features_stay_in_their_space(gallery, kind):
    module = gallery("features")
    env = module.make(*eval(kind, vars(module)))
    observations = [env.reset(seed=0)[0], *(env.step(t % 2)[0] for t in range(20))]
    assert all(env.observation_space.contains(each) for each in observations)
    if "coarse" in kind or "one_hot" in kind:
        np.testing.assert_allclose([each @ each for each in observations], 1, rtol=1e-6)


def test_the_gradient_of_lqr_is_that_of_its_cost(gallery):
    lqr = gallery("lqr")
    for k in lqr.STARTS:
        numerical = approx_fprime(k, lqr.cost, 1e-6)
        np.testing.assert_allclose(lqr.gradient(k)[0], numerical, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(lqr.gradient(lqr.best())[0], 0, atol=1e-8)


def test_the_corridors_return_is_what_is_played(gallery):
    corridor = gallery("aliased_corridor")
    rng, env, totals = np.random.default_rng(0), corridor.Corridor(), []
    for seed in range(2000):
        seen, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            action = {0: corridor.RIGHT, 2: corridor.DOWN, 3: corridor.LEFT}.get(seen, int(rng.random() < 0.4))
            seen, reward, terminated, truncated, _ = env.step(action)
            total, done = total + reward, terminated or truncated
        totals.append(total)
    assert np.mean(totals) == pytest.approx(corridor.expected_return(np.array([0.4]))[0], abs=0.03)


def test_the_gradient_along_the_line_of_surrogates_is_the_true_one(gallery):
    surrogates = gallery("surrogates")
    process, logits = surrogates.Process(1), np.random.default_rng(2).standard_normal((12, 4))
    old = surrogates.policy(logits)
    _, advantages, visits = process.solve(old.probs)
    direction = np.random.default_rng(3).standard_normal(logits.shape)
    step = 1e-5
    new = surrogates.policy(logits + step * direction)
    slope = (process.solve(new.probs)[0] - process.solve(old.probs)[0]) / step
    surrogate = surrogates.expectation(old, new, advantages, visits, None) / step
    assert slope == pytest.approx(float((visits[:, None] * old.probs * advantages * direction).sum()), rel=1e-3)
    assert surrogate == pytest.approx(slope, rel=1e-3)


def test_the_walks_true_advantages_are_those_of_its_values(gallery):
    walk = gallery("estimators_side_by_side")
    probs = np.array([1 - walk.P_RIGHT, walk.P_RIGHT])
    np.testing.assert_allclose(walk.true_advantages() @ probs, 0, atol=1e-12)


@each_example
def test_pictures_are_shown_and_small(name):
    assert (ROOT / "docs" / "gallery" / "images" / f"{name}.png").stat().st_size < 100_000
    page = (ROOT / "docs" / "gallery" / f"{name}.md").read_text()
    assert re.search(rf"!\[[^\]]+\]\(images/{name}\.png\)", page)
    assert f"examples/gallery/{name}.py" in page
