"""The names that files may use for classes, and what they stand for.

Exact names only: neither does a pattern stand for many of them, nor does a name with a dot in it lead on from a class.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch as th
from sb3_contrib.common.maskable import buffers as maskable_buffers
from sb3_contrib.common.recurrent import buffers as recurrent_buffers
from stable_baselines3.common import buffers, policies, torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn

import sb3_pg_ext.policies
import sb3_pg_ext.rollouts
from sb3_pg_ext.checkpoints.safety.pickles import Name
from sb3_pg_ext.plugins import AlgorithmSpec, BaselineSpec, EstimatorSpec, registry

Classes = Mapping[Name, type]
"""Which class a name stands for."""

BASES = (policies.BasePolicy, buffers.BaseBuffer, torch_layers.BaseFeaturesExtractor)


@cache
def stock_algorithms() -> Mapping[str, type[BaseAlgorithm]]:
    """The algorithms of SB3 and sb3-contrib, by their names there."""
    found = {}
    for package in (stable_baselines3, sb3_contrib):
        for name in package.__all__:
            cls = getattr(package, name)
            if isinstance(cls, type) and issubclass(cls, BaseAlgorithm):
                found[f"{package.__name__}.{name}"] = cls
    return MappingProxyType(found)


def registered_algorithms() -> dict[str, type[BaseAlgorithm]]:
    """The algorithms of this package and of installed plug-ins, by their names in the registry."""
    return {name: registry().find(AlgorithmSpec, name).cls for name in registry().names(AlgorithmSpec)}


@cache
def known_classes() -> Classes:
    """What the files of stock and registered algorithms may refer to.

    Policies, buffers and features extractors of SB3, sb3-contrib and this package, policies of installed plug-ins'
    algorithms and factories of their estimators and baselines, PyTorch's optimisers and activation functions, NumPy's
    types of numbers.
    """
    return MappingProxyType({Name(cls.__module__, cls.__qualname__): cls for cls in _known()})


def _known() -> Iterator[type]:
    for algorithm in (*stock_algorithms().values(), *registered_algorithms().values()):
        yield from algorithm.policy_aliases.values()
    for module in (policies, buffers, torch_layers, maskable_buffers, recurrent_buffers, sb3_pg_ext.rollouts):
        yield from _classes_of(vars(module).values(), BASES)
    yield from _classes_of(vars(sb3_pg_ext.policies).values(), BASES)
    yield HerReplayBuffer
    yield from _classes_of(vars(th.optim).values(), (th.optim.Optimizer,))
    yield RMSpropTFLike
    yield nn.Identity
    yield from (getattr(nn, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention")
    for record in (EstimatorSpec, BaselineSpec):
        records: Iterable[Any] = (registry().find(record, name) for name in registry().names(record))
        yield from _classes_of((each.factory for each in records), (object,))
    yield from _classes_of((getattr(np, name) for name in NUMBERS), (np.generic,))


NUMBERS = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool_",
)


def _classes_of(values: Iterable[Any], bases: tuple[type, ...]) -> Iterator[type]:
    return (value for value in values if isinstance(value, type) and issubclass(value, bases))


def trusted_classes(trusted: Iterable[str]) -> dict[Name, type]:
    """What the user vouches for.

    :param trusted: names such as ``"my_package.MyExtractor"``; their modules are imported
    :raises ValueError: for one that is no class, or cannot be imported
    """
    found = {}
    for full_name in trusted:
        module, _, name = full_name.rpartition(".")
        try:
            cls = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as problem:
            raise ValueError(f"trusted has {full_name!r}; allowed: classes that can be imported ({problem})") from None
        if not isinstance(cls, type):
            raise ValueError(f"trusted has {full_name!r}, a {type(cls).__name__}; allowed: classes")
        found[Name(module, name)] = cls
        found[Name(cls.__module__, cls.__qualname__)] = cls
    return found
