"""Registered algorithms inside RL Zoo: everything that touches RL Zoo's internals."""

import argparse
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from pkgutil import resolve_name
from pprint import pprint
from typing import Any, ClassVar

import rl_zoo3.train
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.plugins import AlgorithmSpec, Registry
from sb3_pg_ext.plugins.configs import find_config
from sb3_pg_ext.zoo.hyperparams import EXTENDED, overlay, parse_schedules, resolve_rollout_buffer

STOCK = frozenset(ALGOS)


def install(plugins: Registry, *, play: bool = False) -> None:
    """Enter the registered algorithms into RL Zoo's tables, for this process only. A second call does no harm.

    An algorithm that claims a name of RL Zoo's own is left out, with a warning; one that several plug-ins provide is
    left out until somebody asks for it (see :func:`require_algorithm`).

    :param plugins: what is registered
    :param play: whether models are loaded only to act, so that their replay buffers need no memory
    """
    for spec in _find_algorithms(plugins):
        ALGOS[spec.name] = _without_replay_memory(spec.cls) if play and spec.off_policy else spec.cls
        HYPERPARAMS_SAMPLER[spec.name] = _lazily(spec.sampler)
        HYPERPARAMS_CONVERTER[spec.name] = _lazily(spec.converter)
        PluginExperimentManager.specs[spec.name] = spec
    rl_zoo3.train.ExperimentManager = PluginExperimentManager  # type: ignore[misc]


def require_algorithm(plugins: Registry, name: str) -> None:
    """Make sure that RL Zoo knows an algorithm.

    :raises ValueError: if it does not; the message names the registered algorithms and the plug-ins that failed
    """
    if name in ALGOS:
        return
    try:
        plugins.find(AlgorithmSpec, name)
    except ValueError as error:
        close = get_close_matches(name, STOCK)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"{error}\nRL Zoo's own algorithms: {', '.join(sorted(STOCK))}{hint}") from error


class PluginExperimentManager(ExperimentManager):
    """RL Zoo's experiment manager, which also knows registered algorithms and rollout buffers given by name.

    For registered algorithms it finds the shipped configuration, parses every schedule, and keeps the user's
    ``policy_kwargs`` beside those that a hyper-parameter search has sampled. Their environments go into a
    :class:`~sb3_pg_ext.envs.fast_dummy.FastDummyVecEnv` instead of a ``DummyVecEnv``, or, where the algorithm's class
    has an attribute ``vec_env_class``, into that, whatever ``--vec-env`` says. For RL Zoo's own algorithms it resolves
    ``rollout_buffer_class`` and changes nothing else.
    """

    specs: ClassVar[dict[str, AlgorithmSpec]] = {}

    def __init__(self, args: argparse.Namespace, algo: str, *positional: Any, **keywords: Any) -> None:
        super().__init__(args, algo, *positional, **keywords)
        self.spec = self.specs.get(algo)
        if self.spec is None:
            return
        if not keywords.get("config"):
            self.config = str(find_config(self.spec.config))
        default = FastDummyVecEnv if self.vec_env_class is DummyVecEnv else self.vec_env_class
        # An algorithm whose workers build their own environments needs a VecEnv that remembers how.
        self.vec_env_class = getattr(self.spec.cls, "vec_env_class", default)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the hyper-parameters: those of the YAML file, over them the trial's, over them the command line's."""
        if self.spec is None or self.trial_id is None or not (self.storage and self.study_name):
            return super().read_hyperparameters()
        trial_id, self.trial_id = self.trial_id, None  # the base class would replace policy_kwargs, and ignores trial 0
        hyperparams, _ = super().read_hyperparameters()
        self.trial_id = trial_id
        hyperparams = overlay(hyperparams, self.load_trial(self.storage, self.study_name, trial_id))
        hyperparams = overlay(hyperparams, self.custom_hyperparams or {})
        saved_hyperparams = OrderedDict(sorted(hyperparams.items()))
        print(f"Hyperparameters with those of trial {trial_id}:")
        pprint(saved_hyperparams)
        return hyperparams, saved_hyperparams

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any], Any]:
        resolve_rollout_buffer(hyperparams)
        preprocessed = super()._preprocess_hyperparams(hyperparams)
        if self.spec is not None:
            parse_schedules(preprocessed[0], self.spec.cls)
        return preprocessed

    def hyperparameters_optimization(self) -> None:
        """Search hyper-parameters, with what is sampled extending the user's dictionaries of arguments."""
        if self.spec is None:
            super().hyperparameters_optimization()
            return
        sample = HYPERPARAMS_SAMPLER[self.algo]
        given = {key: value for key, value in self._hyperparams.items() if key in EXTENDED}
        HYPERPARAMS_SAMPLER[self.algo] = lambda *arguments: overlay(given, sample(*arguments))
        try:
            super().hyperparameters_optimization()
        finally:
            HYPERPARAMS_SAMPLER[self.algo] = sample


def _find_algorithms(plugins: Registry) -> Iterator[AlgorithmSpec]:
    for name in plugins.names(AlgorithmSpec):
        try:
            spec = plugins.find(AlgorithmSpec, name)
        except ValueError:
            continue
        if name in STOCK:
            warnings.warn(
                f"The algorithm {name!r} of {spec.cls.__module__} is left out: RL Zoo has its own", stacklevel=3
            )
        else:
            yield spec


def _lazily(function: Callable[..., dict[str, Any]] | str) -> Callable[..., dict[str, Any]]:
    if not isinstance(function, str):
        return function
    return lambda *arguments: resolve_name(function)(*arguments)


def _without_replay_memory(cls: type[Any]) -> type[Any]:
    """The class, whose ``load`` allots a replay buffer of one step: RL Zoo does so for its own algorithms, by name."""
    load = partial(cls.load, buffer_size=1, optimize_memory_usage=False)
    return type(cls.__name__, (cls,), {"load": staticmethod(load)})
