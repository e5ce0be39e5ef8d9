"""Which algorithm a file is of. SB3's do not say so; those of this package do, under the key :data:`KEY`."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pg_ext.checkpoints.safety.names import registered_algorithms, stock_algorithms
from sb3_pg_ext.checkpoints.safety.pickles import UnsafeFileError

KEY = "saved_as"
"""The attribute in which algorithms of this package have their own name."""


def algorithms() -> dict[str, type[BaseAlgorithm]]:
    """All that a file may be of, by name: ``"stable_baselines3.PPO"``, ``"npg"``."""
    return {**stock_algorithms(), **registered_algorithms()}


def find_algorithm(algorithm: str | type[BaseAlgorithm]) -> type[BaseAlgorithm]:
    """The algorithm that a user names.

    :param algorithm: a class; or its name in the registry, or in SB3 or sb3-contrib (``"PPO"``)
    :raises ValueError: for an unknown name
    """
    if isinstance(algorithm, type):
        return algorithm
    by_name = {**algorithms(), **{name.rpartition(".")[2]: cls for name, cls in stock_algorithms().items()}}
    if algorithm not in by_name:
        raise ValueError(f"algorithm={algorithm!r}; allowed: a class, or one of {', '.join(sorted(by_name))}")
    return by_name[algorithm]


def infer_algorithm(data: Mapping[str, Any], refused: Iterable[str] = ()) -> type[BaseAlgorithm]:
    """Tell of which algorithm a model is from its attributes.

    :param data: the attributes of the model
    :param refused: the names of those that could not be read
    :raises UnsafeFileError: if there is none, or several
    """
    fitting = candidates(data, refused)
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    found = sorted(fitting)
    raise UnsafeFileError(
        f"the file does not say of which algorithm it is; candidates: {', '.join(found) or 'none that is known'}; "
        f"give algorithm={found[-1] if found else '…'!r}, if it is that"
    )


def candidates(data: Mapping[str, Any], refused: Iterable[str] = ()) -> dict[str, type[BaseAlgorithm]]:
    """The algorithms that a model may be of, by name: those whose models' attributes are nearest to this one's.

    A policy rules out algorithms that have no such policies. Stock algorithms come before registered ones, whose files
    have their name.
    """
    name = data.get(KEY)
    if isinstance(name, str) and name in registered_algorithms():
        return {name: registered_algorithms()[name]}
    present = {*data, *refused}
    distances = {
        name: (
            not any(data.get("policy_class") is policy for policy in cls.policy_aliases.values()),
            len(attributes(cls) ^ present),
            name not in stock_algorithms(),
        )
        for name, cls in algorithms().items()
        if _acts_by(cls, data.get("policy_class")) and len(attributes(cls) - present) < len(attributes(cls)) / 2
    }
    nearest = min(distances.values(), default=None)
    return {name: algorithms()[name] for name, distance in distances.items() if distance == nearest}


@cache
def attributes(cls: type[BaseAlgorithm]) -> frozenset[str]:
    """The names of what a file of an algorithm holds, whatever it has learned."""
    model = _unmade(cls)
    return frozenset(vars(model)) - set(model._excluded_save_params())


@cache
def never_saved(cls: type[BaseAlgorithm]) -> frozenset[str]:
    """What ``save`` leaves out of every file: the environment, the logger, buffers."""
    return frozenset(BaseAlgorithm._excluded_save_params(_unmade(cls)))


def _unmade(cls: type[BaseAlgorithm]) -> BaseAlgorithm:
    return cls(next(iter(cls.policy_aliases)), None, _init_setup_model=False)  # type: ignore[call-arg]


def _acts_by(cls: type[BaseAlgorithm], policy_class: Any) -> bool:
    """Whether a policy is one of the algorithm's, or derived from one."""
    if not isinstance(policy_class, type):
        return True
    return any(issubclass(policy_class, policy) for policy in cls.policy_aliases.values())
