"""Search spaces for RL Zoo's ``-optimize``: every hyper-parameter is declared once, to be sampled and to be read back.

Optuna stores numbers and names, and some of them in another form than that of the argument: 1 − γ on a logarithmic
scale, the exponent of a batch size, the name of a network. A :class:`Space` knows both forms. ::

    SPACE = Space({"gamma": one_minus(log_uniform(1e-4, 0.1)), "n_steps": power_of_two(5, 12)})
    AlgorithmSpec("mine", Mine, config="my_package:mine.yml", sampler=SPACE.sample, converter=SPACE.convert)
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn


def _unchanged(stored: Any) -> Any:
    return stored


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter of a search space.

    :param suggest: ``suggest(trial, name, n_envs)`` samples what Optuna stores under this name
    :param decode: makes the argument of what is stored
    :param stored_as: the name by which it is stored; ``{}`` stands for that of the argument. Studies go by this name
        and by the distribution: a change of either makes old ones useless.
    """

    suggest: Callable[[Any, str, int], Any]
    decode: Callable[[Any], Any] = _unchanged
    stored_as: str = "{}"


def uniform(low: float, high: float) -> Dimension:
    """A number in [low, high]."""
    return Dimension(lambda trial, name, n_envs: trial.suggest_float(name, low, high))


def log_uniform(low: float, high: float) -> Dimension:
    """A number in [low, high] whose logarithm is uniformly distributed."""
    return Dimension(lambda trial, name, n_envs: trial.suggest_float(name, low, high, log=True))


def integer(low: int, high: int) -> Dimension:
    """An integer in {low, …, high}."""
    return Dimension(lambda trial, name, n_envs: trial.suggest_int(name, low, high))


def choice(*values: Any) -> Dimension:
    """One of several values, which Optuna can store: strings, numbers, True, False or None."""
    return Dimension(lambda trial, name, n_envs: trial.suggest_categorical(name, values))


def named_choice(values: Mapping[str, Any]) -> Dimension:
    """One of several values of any kind, stored by their names."""
    return replace(choice(*values), decode=values.__getitem__)


def one_minus(dimension: Dimension) -> Dimension:
    """1 − x, where x is stored, as ``one_minus_<argument>``: for what is near 1, such as γ."""
    return replace(
        dimension,
        decode=lambda stored: 1 - dimension.decode(stored),
        stored_as=f"one_minus_{dimension.stored_as}",
    )


def power_of_two(low: int, high: int, stored_as: str = "{}_pow") -> Dimension:
    """2^low, …, 2^high, of which the exponent is stored.

    :param stored_as: by which name
    """
    return replace(integer(low, high), decode=lambda exponent: 2**exponent, stored_as=stored_as)


NETWORKS = {
    "net_arch": named_choice(
        {
            name: {"pi": hidden, "vf": hidden}
            for name, hidden in {"tiny": [64], "small": [64, 64], "medium": [256, 256]}.items()
        }
    ),
    "activation_fn": named_choice({"tanh": nn.Tanh, "relu": nn.ReLU}),
}
"""The ``policy_kwargs`` of a policy with a critic."""

HINDSIGHT = {
    "n_sampled_goal": integer(1, 5),
    "goal_selection_strategy": choice("final", "episode", "future"),
}
"""The ``replay_buffer_kwargs`` of hindsight."""

Dimensions = Mapping[str, Dimension | Mapping[str, Dimension]]
"""Dimensions by argument. What is a dictionary itself, such as ``policy_kwargs``, has dimensions by its keys."""


class Space:
    """The hyper-parameters of an algorithm that a search varies.

    :meth:`sample` and :meth:`convert` are the ``sampler`` and the ``converter`` of an
    :class:`~sb3_pg_ext.AlgorithmSpec`.

    :param dimensions: the hyper-parameters, in the order in which they are sampled
    :param conditional: further ones, sampled after these, by the key of RL Zoo's ``additional_args`` that asks for them
    :param derive: ``derive(arguments)`` gives further arguments: they follow from the sampled ones, or never change
    :raises ValueError: if two hyper-parameters are stored by the same name
    """

    def __init__(
        self,
        dimensions: Dimensions,
        conditional: Mapping[str, Dimensions] | None = None,
        derive: Callable[[dict[str, Any]], dict[str, Any]] = lambda arguments: {},
    ) -> None:
        self._derive = derive
        self._entries: dict[str, tuple[str | None, tuple[str, ...], Dimension]] = {}
        groups: list[tuple[str | None, Dimensions]] = [(None, dimensions), *(conditional or {}).items()]
        for condition, group in groups:
            for path, dimension in _walk(group):
                name = dimension.stored_as.format(path[-1])
                if name in self._entries:
                    raise ValueError(f"{'.'.join(path)} is stored as {name!r}, by which another hyper-parameter is")
                self._entries[name] = condition, path, dimension

    def sample(self, trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        """Sample constructor arguments for one trial.

        :param trial: the Optuna trial
        :param n_actions: number of action dimensions; unused
        :param n_envs: number of environments
        :param additional_args: what else RL Zoo says of the training: ``using_her_replay_buffer``, …
        """
        return self.convert(
            {
                name: dimension.suggest(trial, name, n_envs)
                for name, (condition, _, dimension) in self._entries.items()
                if condition is None or additional_args[condition]
            }
        )

    def convert(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """From what Optuna stores of a trial to constructor arguments.

        A study may be older than the space: what it lacks is left to the environment's file, and what the space does
        not know is passed on.

        :param stored: ``trial.params``
        """
        arguments: dict[str, Any] = {}
        for name, value in stored.items():
            _, path, dimension = self._entries.get(name, (None, (name,), None))
            *outer, argument = path
            target = arguments
            for key in outer:
                target = target.setdefault(key, {})
            target[argument] = dimension.decode(value) if dimension else value
        return arguments | self._derive(arguments)


def _walk(dimensions: Dimensions) -> Iterator[tuple[tuple[str, ...], Dimension]]:
    """The dimensions with the keys that lead to them."""
    for key, value in dimensions.items():
        if isinstance(value, Dimension):
            yield (key,), value
        else:
            yield from (((key, *path), dimension) for path, dimension in _walk(value))
