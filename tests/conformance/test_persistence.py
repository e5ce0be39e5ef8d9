"""What is saved is all that matters, and nothing of this package but references to classes."""

import base64
import copy
import importlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import EstimatorRolloutBuffer, MaskableEstimatorRolloutBuffer
from sb3_pg_ext.policies import MlpPolicy

from .algorithms import STEPS, Algorithm, assert_identical, vector

CLASS_REFERENCES = {"policy_class", "rollout_buffer_class", "replay_buffer_class"}


def vec_env(n_envs=1, **kwargs):
    return DummyVecEnv([lambda: RandomEnv(**kwargs)] * n_envs)


def save_and_load(model: BaseAlgorithm, path: Path, env=None) -> BaseAlgorithm:
    """Everything that SB3 saves of a model, its replay buffer included if it has one."""
    model.save(path / "model")
    loaded = type(model).load(path / "model", env=env, device=model.device)
    if hasattr(model, "save_replay_buffer"):
        model.save_replay_buffer(path / "replay_buffer")
        loaded.load_replay_buffer(path / "replay_buffer")
    return loaded


def go_on(model: BaseAlgorithm, env, seed=7) -> BaseAlgorithm:
    model.set_env(env)
    model.set_random_seed(seed)
    return model.learn(2 * STEPS, reset_num_timesteps=False)


def test_predicts_the_same_after_loading(algorithm: Algorithm, tmp_path):
    model = algorithm().learn(STEPS)
    loaded = save_and_load(model, tmp_path, env=RandomEnv())
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    assert_identical(model, loaded)
    for deterministic in (True, False):
        actions = []
        for each in (model, loaded):
            set_random_seed(1)
            actions.append(each.predict(observations, deterministic=deterministic)[0])
        np.testing.assert_array_equal(*actions)


def test_it_loads_to_act_with_what_rl_zoo_puts_in_place_of_schedules(algorithm: Algorithm, tmp_path):
    """Its ``enjoy`` and ``record_video`` do so with every algorithm."""
    model = algorithm().learn(STEPS)
    model.save(tmp_path / "model")
    instead = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    loaded = type(model).load(tmp_path / "model", device=model.device, custom_objects=instead)
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    expected, actual = (each.predict(observations, deterministic=True)[0] for each in (model, loaded))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: cloudpickle.loads(cloudpickle.dumps(model))])
@pytest.mark.parametrize("n_steps", [0, STEPS])
def test_a_copy_learns_apart_from_the_original(algorithm: Algorithm, duplicate, n_steps):
    if algorithm.device == "cuda" and duplicate is copy.deepcopy and not algorithm.has_own_constructor:
        pytest.skip("stock updates leave a graph of autograd in the policy, which PyTorch does not copy")
    model = algorithm()
    if n_steps:
        model.learn(n_steps)
    other, before = duplicate(model), vector(model)
    th.testing.assert_close(vector(other), before, rtol=0, atol=0)
    other.learn(STEPS)
    assert (vector(other) - before).abs().max() > 0
    th.testing.assert_close(vector(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_loaded_copy_goes_on_like_the_original(algorithm: Algorithm, tmp_path, n_envs):
    if algorithm.traits.asynchronous and n_envs > 1:
        pytest.skip("depends on who comes first")
    model = algorithm(vec_env(n_envs), learning_rate=lambda remaining: 1e-3 * remaining).learn(STEPS)
    before = vector(model)
    loaded = save_and_load(model, tmp_path)
    assert_identical(go_on(model, vec_env(n_envs)), go_on(loaded, vec_env(n_envs)))
    assert not th.equal(before, vector(model))


@pytest.mark.thorough
def test_a_loaded_copy_goes_on_like_the_original_with_dict_observations(algorithm: Algorithm, tmp_path):
    space = OBSERVATION_SPACES["Dict"]
    if "MultiInputPolicy" not in algorithm.traits.policies:
        pytest.skip("supports no Dict observations")
    model = algorithm(vec_env(observation_space=space), "MultiInputPolicy").learn(STEPS)
    loaded = save_and_load(model, tmp_path)
    assert_identical(*(go_on(each, vec_env(observation_space=space)) for each in (model, loaded)))


def test_a_copy_of_a_copy_saved_within_an_episode(algorithm: Algorithm, tmp_path):
    model = algorithm(vec_env()).learn(STEPS, lambda caller, _: caller["self"].num_timesteps < 23)
    copy = save_and_load(save_and_load(model, tmp_path), tmp_path)
    assert_identical(go_on(model, vec_env()), go_on(copy, vec_env()))


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_loads_with_another_number_of_environments(algorithm: Algorithm, tmp_path, n_envs):
    model = algorithm(vec_env(2)).learn(STEPS)
    model.save(tmp_path / "model")
    loaded = algorithm.cls.load(tmp_path / "model", env=vec_env(n_envs), device=algorithm.device)
    assert loaded.n_envs == n_envs
    loaded.learn(STEPS)
    assert not th.equal(vector(model), vector(loaded))


def test_parameters_can_be_taken_and_given(algorithm: Algorithm):
    model, other = algorithm(seed=0).learn(STEPS), algorithm(seed=1)
    other.set_parameters(model.get_parameters(), exact_match=True, device=algorithm.device)
    th.testing.assert_close(other.get_parameters(), model.get_parameters(), rtol=0, atol=0)


def test_given_parameters_are_those_that_act(algorithm: Algorithm):
    model, other = algorithm(vec_env()).learn(STEPS), algorithm(vec_env(), seed=1)
    other.set_parameters(model.get_parameters(), device=algorithm.device)
    observations = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)
    np.testing.assert_array_equal(*(each.predict(observations, deterministic=True)[0] for each in (model, other)))


def test_saves_names_and_numbers_and_references_to_classes(algorithm: Algorithm, tmp_path):
    algorithm().learn(STEPS).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
    for name, value in data.items():
        if isinstance(value, dict) and ":serialized:" in value:
            ours = {reference for reference in references(value[":serialized:"]) if reference.startswith("sb3_pg_ext")}
            assert not ours or name in CLASS_REFERENCES, f"{name} refers to {ours}"


PUBLIC = {
    "sb3_pg_ext",
    "sb3_pg_ext.policies",
    "sb3_pg_ext.rollouts",
    "sb3_pg_ext.algorithms.naf",
    "sb3_pg_ext.algorithms.sac_v",
    "sb3_pg_ext.algorithms.gumbel_ddpg",
}
"""The modules that saved files may name, for ever."""


def test_saved_files_name_public_and_lasting_places(algorithm: Algorithm, tmp_path):
    """A class may move within the package, and no file breaks."""
    for policy in sorted(algorithm.traits.policies):
        space = {"CnnPolicy": "image", "MultiInputPolicy": "Dict"}.get(policy, "Box")
        model = algorithm(RandomEnv(observation_space=OBSERVATION_SPACES[space]), policy)
        model.save(tmp_path / policy)
        assert_public(tmp_path / f"{policy}.zip")


@pytest.mark.parametrize("space", ["Box", "Dict"])
@pytest.mark.parametrize("masks", [False, True])
def test_files_of_stock_algorithms_do_so_too(space, masks, tmp_path):
    buffer = MaskableEstimatorRolloutBuffer if masks else EstimatorRolloutBuffer
    env = RandomEnv(ACTION_SPACES["Discrete"], OBSERVATION_SPACES[space])
    model = (MaskablePPO if masks else PPO)(
        "MultiInputPolicy" if space == "Dict" else MlpPolicy if not masks else "MlpPolicy",
        env,
        n_steps=8,
        batch_size=8,
        rollout_buffer_class=buffer,
        rollout_buffer_kwargs={"advantage_estimator": "td0"},
    )
    model.save(tmp_path / "model")
    assert_public(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model", env=env)
    assert type(loaded.rollout_buffer) is type(model.rollout_buffer)


def assert_public(path: Path):
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    named = {
        reference
        for value in data.values()
        if isinstance(value, dict) and ":serialized:" in value
        for reference in classes(value[":serialized:"])
        if reference[0].startswith("sb3_pg_ext")
    }
    for module, name in named:
        assert module in PUBLIC, f"it names {module}.{name}"
        assert name in importlib.import_module(module).__all__


def references(serialized: str) -> set[str]:
    """The modules that a pickle refers to."""
    return {module for module, _ in classes(serialized)}


def classes(serialized: str) -> set[tuple[str, str]]:
    """What a pickle refers to, by module and name."""
    found = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            found.add((module, name))
            return super().find_class(module, name)

    Unpickler(io.BytesIO(base64.b64decode(serialized))).load()
    return found
