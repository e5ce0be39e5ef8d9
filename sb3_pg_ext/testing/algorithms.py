"""What every algorithm has to satisfy."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from os import PathLike
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pg_ext.algorithms.base.threads import limited_threads, thread_count
from sb3_pg_ext.plugins import AlgorithmSpec
from sb3_pg_ext.plugins.configs import find_config, known_hyperparameters
from sb3_pg_ext.testing.environments import Drift
from sb3_pg_ext.testing.properties import find_failures

ACTION_SPACES: dict[str, gym.Space[Any]] = {
    "discrete actions": gym.spaces.Discrete(3),
    "continuous actions": gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
}
TOTAL_TIMESTEPS = 300

Parameters = dict[str, Any]
Train = Callable[[str, int], tuple[Parameters, BaseAlgorithm]]
"""``train(description of the action space, attempt)`` gives the initial parameters and the trained model."""


def find_algorithm_failures(spec: AlgorithmSpec, **kwargs: Any) -> list[str]:
    """Which properties an algorithm lacks, one message each.

    What concerns RL Zoo is checked where RL Zoo is installed.

    :param spec: the record under which a plug-in provides it
    :param kwargs: constructor arguments, to make it faster for example
    :raises ValueError: if it refuses every action space because of these arguments
    """

    def build(description: str) -> BaseAlgorithm:
        env = Drift(ACTION_SPACES[description])
        return spec.cls("MlpPolicy", env, seed=0, **{"device": "cpu", **kwargs})

    @cache
    def train(description: str, attempt: int) -> tuple[Parameters, BaseAlgorithm]:
        model = build(description)
        with limited_threads(thread_count(model.policy)):
            return _flatten(model.get_parameters()), model.learn(TOTAL_TIMESTEPS)

    refusals = _find_refusals(build)
    supported = {description: description for description in ACTION_SPACES if description not in refusals}
    if supported:
        failures = _find_training_failures(train, supported)
    elif kwargs and all(isinstance(refusal, ValueError) for refusal in refusals.values()):
        raise next(iter(refusals.values()))
    else:
        failures = [f"is built with MlpPolicy: {refusal}, on {on}" for on, refusal in refusals.items()]
    if find_spec("rl_zoo3") is not None:
        failures += find_failures([has_a_config_for_rl_zoo], spec, {str(file): file for file in spec.configs})
        failures += find_failures([samples_hyperparameters], spec, _make_trials())
    return failures


def _find_refusals(build: Callable[[str], BaseAlgorithm]) -> dict[str, Exception]:
    """How an algorithm refuses action spaces that it does not support."""
    refusals: dict[str, Exception] = {}
    for description in ACTION_SPACES:
        try:
            build(description)
        except (AssertionError, ValueError) as refusal:  # SB3 refuses by the one, others by the other
            refusals[description] = refusal
    return refusals


def _find_training_failures(train: Train, supported: dict[str, str]) -> list[str]:
    if failures := find_failures([learns], train, supported):
        return failures
    return find_failures([learns_the_same_from_the_same_seed, survives_saving_and_loading], train, supported)


def _make_trials() -> dict[str, Any]:
    import optuna  # RL Zoo brings it

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    try:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        return {f"random trial {number}": study.ask() for number in range(5)}
    finally:
        optuna.logging.set_verbosity(verbosity)


def learns(train: Train, description: str) -> None:
    """Training changes the parameters and keeps them finite."""
    before, model = train(description, 0)
    after = _flatten(model.get_parameters())
    steps = model.num_timesteps
    assert steps >= TOTAL_TIMESTEPS, f"learn({TOTAL_TIMESTEPS}) has made {steps} steps"
    learned = [name for name in before if "optimizer" not in name]
    assert any(not np.array_equal(before[name], after[name]) for name in learned), "training has changed no parameter"
    broken = [name for name, value in after.items() if isinstance(value, np.ndarray) and not np.isfinite(value).all()]
    assert not broken, f"not finite after training: {', '.join(broken)}"


def learns_the_same_from_the_same_seed(train: Train, description: str) -> None:
    """Two trainings end with identical parameters."""
    first, second = (_flatten(train(description, attempt)[1].get_parameters()) for attempt in range(2))
    different = _difference(first, second)
    assert not different, f"a second training ends with another {different}"


def survives_saving_and_loading(train: Train, description: str) -> None:
    """The loaded model has the same parameters and predicts the same actions, valid ones."""
    _, model = train(description, 0)
    file = BytesIO()
    model.save(file)
    file.seek(0)
    loaded = type(model).load(file, device=model.device)
    different = _difference(_flatten(model.get_parameters()), _flatten(loaded.get_parameters()))
    assert not different, f"the loaded model has another {different}"
    observations = np.random.default_rng(0).uniform(-1, 1, (16, 2)).astype(np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    assert np.array_equal(actions, loaded.predict(observations, deterministic=True)[0]), "it predicts other actions"
    for action in actions:
        assert ACTION_SPACES[description].contains(action), f"it predicts {action!r}, which is no such action"


def has_a_config_for_rl_zoo(spec: AlgorithmSpec, reference: str | PathLike[str]) -> None:
    """It maps environments to constructor arguments and what RL Zoo itself reads; one of RL Zoo's own, to a twin's."""
    import yaml  # RL Zoo brings it

    config = yaml.safe_load(find_config(reference).read_text(encoding="utf-8"))
    assert isinstance(config, dict), f"it holds {type(config).__name__} instead of a mapping"
    for env_id, hyperparams in config.items():
        assert isinstance(hyperparams, dict), f"the entry {env_id} is {hyperparams!r} instead of a mapping"
        missing = {"policy", "n_timesteps"} - hyperparams.keys()
        assert not missing, f"the entry {env_id} lacks {', '.join(sorted(missing))}"
        if not str(reference).startswith("rl_zoo3:"):
            _assert_known(spec, hyperparams, f"the entry {env_id}")


def samples_hyperparameters(spec: AlgorithmSpec, trial: Any) -> None:
    """The sampler gives constructor arguments, and the converter gets the same ones out of the finished trial."""
    sampled = _resolve(spec.sampler)(trial, 1, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})
    _assert_known(spec, sampled, "the sampler")
    converted = _resolve(spec.converter)(trial.params)
    _assert_known(spec, converted, "the converter")
    for name in sampled.keys() & converted.keys():
        assert sampled[name] == converted[name], (
            f"the sampler gave {name}={sampled[name]!r}, the converter made {converted[name]!r} of its trial"
        )


def _resolve(function: Callable[..., dict[str, Any]] | str) -> Callable[..., dict[str, Any]]:
    return resolve_name(function) if isinstance(function, str) else function


def _assert_known(spec: AlgorithmSpec, hyperparams: dict[str, Any], source: str) -> None:
    unknown = sorted(hyperparams.keys() - known_hyperparameters(spec.cls))
    assert not unknown, (
        f"{source} gives {', '.join(unknown)}, which neither {spec.cls.__name__}(…) takes nor RL Zoo reads"
    )


def _flatten(value: Any, name: str = "") -> Parameters:
    """All numbers of nested dictionaries and lists, by the path that leads to them; tensors as arrays."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value)).items()
    else:
        return {name: value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value}
    return {path: leaf for key, item in items for path, leaf in _flatten(item, f"{name}.{key}".lstrip(".")).items()}


def _difference(one: Parameters, other: Parameters) -> str:
    """The first name under which the two differ; empty if they are equal."""
    if one.keys() != other.keys():
        return "set of parameters: " + ", ".join(sorted(one.keys() ^ other.keys()))
    return next((name for name in one if not np.array_equal(one[name], other[name])), "")
