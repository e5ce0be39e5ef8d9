"""The records that plug-ins yield: what a name stands for, and what its host has to know about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

REQUIREMENTS = frozenset({"truncation", "raw_rewards", "target_log_probs"})


@dataclass(frozen=True)
class Spec:
    """What the records of every kind share.

    :param name: the name that users write in Python and in YAML
    :raises ValueError: if the name is empty or no string
    """

    kind: ClassVar[str] = "name"  # what messages call it: here, a name of any kind

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name={self.name!r}; allowed: a string that is not empty")


@dataclass(frozen=True)
class EstimatorSpec(Spec):
    """An advantage estimator.

    :param name: the name that users write in Python and in YAML
    :param factory: ``factory(**kwargs)`` returns the estimator, a callable ``Rollout -> AdvantageEstimate``
    :param requires: what the estimator reads beyond rewards, values and episode boundaries; any of ``"truncation"``
        (terminated apart from truncated), ``"raw_rewards"`` (without the bootstrap that SB3 folds in at a time limit)
        and ``"target_log_probs"``. A host that cannot give it refuses, before any training.
    :raises ValueError: if the factory cannot be called, or ``requires`` is not a frozenset of these
    """

    kind: ClassVar[str] = "estimator"
    argument: ClassVar[str] = "advantage_estimator_kwargs"  # by which algorithms take the factory's parameters

    factory: Callable[..., Any]
    requires: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factory(self.factory)
        if not isinstance(self.requires, frozenset) or not self.requires <= REQUIREMENTS:
            raise ValueError(f"requires={self.requires!r}; allowed: a frozenset with any of {sorted(REQUIREMENTS)}")


@dataclass(frozen=True)
class BaselineSpec(Spec):
    """A baseline of REINFORCE.

    :param name: the name that users write in Python and in YAML
    :param factory: ``factory(**kwargs)`` returns the baseline, a callable ``Episodes -> array``
    :param per_component: whether it gives one number for every component of the gradient instead of one per step
    :param unbiased: whether subtracting it leaves the expected gradient as it is
    :raises ValueError: if the factory cannot be called
    """

    kind: ClassVar[str] = "baseline"
    argument: ClassVar[str] = "baseline_kwargs"

    factory: Callable[..., Any]
    per_component: bool = False
    unbiased: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factory(self.factory)


@dataclass(frozen=True)
class AlgorithmSpec(Spec):
    """An algorithm that RL Zoo can train.

    :param name: the Zoo id, as in ``--algo NAME``
    :param cls: the class, a subclass of SB3's ``BaseAlgorithm``
    :param config: its tuned hyper-parameters in RL Zoo's format: a path, or ``"package:file"`` for a file inside an
        installed package (``"sb3_pg_ext:zoo_configs/reinforce.yml"``); or several of them, of which the first with an
        entry for the environment counts
    :param sampler: RL Zoo's sampler ``(trial, n_actions, n_envs, additional_args) -> dict``, or ``"module:attribute"``
        where importing it has to wait until it is used
    :param converter: ``dict -> dict``, from the numbers of a finished trial to constructor arguments; or
        ``"module:attribute"``
    :param off_policy: whether it keeps a replay buffer
    :raises ValueError: if ``cls`` is no class, or ``config`` neither a path nor a list of paths
    """

    kind: ClassVar[str] = "algorithm"

    cls: type[Any]
    config: str | PathLike[str] | Sequence[str | PathLike[str]]
    sampler: Callable[..., dict[str, Any]] | str
    converter: Callable[[dict[str, Any]], dict[str, Any]] | str
    off_policy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cls, type):
            raise ValueError(f"cls={self.cls!r}; allowed: a class")
        files = self.configs if isinstance(self.config, str | PathLike | Sequence) else ()
        if not files or not all(isinstance(file, str | PathLike) for file in files):
            raise ValueError(f"config={self.config!r}; allowed: a path, 'package:file', or a list of them")

    @property
    def configs(self) -> Sequence[str | PathLike[str]]:
        """The files of its hyper-parameters, in the order in which they are searched for an entry."""
        return [self.config] if isinstance(self.config, str | PathLike) else self.config


def _check_factory(factory: Any) -> None:
    if not callable(factory):
        raise ValueError(f"factory={factory!r}; allowed: a callable, such as a class")
