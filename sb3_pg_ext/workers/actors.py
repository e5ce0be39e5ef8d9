"""What a learner asks of its actors, wherever they run: the protocol above processes and Ray."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sb3_pg_ext.workers.shared_statistics import Slots

Layout = list[tuple[tuple[int, ...], np.dtype]]
"""Shapes and types of the arrays that an actor fills, one piece of work after the other."""


class Actor(Protocol):
    """What works, in a process of its own."""

    def work(self, parameters: np.ndarray, arrays: list[np.ndarray], goes_on: Callable[[], bool]) -> Any:
        """Do one piece of work.

        :param parameters: the learner's, [P]; they may change, so that they are copied first
        :param arrays: filled with what is made; what was made before may stand in them
        :param goes_on: to be called at every step; whether to go on, otherwise what is made does not matter
        :return: whatever else the learner is to know, of any kind
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


MakeActor = Callable[[int, int, Slots], Actor]
"""From its index, its own seed and the slots of running statistics that all actors share to an actor."""


@dataclass(frozen=True)
class Delivery:
    """One piece of work.

    :param actor: index of the actor that made it
    :param version: of the parameters that it was made with
    :param arrays: what the actor has filled
    :param news: what else it has told
    :param waiting: so many seconds the actor waited before, for a request
    :param working: so many seconds it worked
    """

    actor: int
    version: int
    arrays: list[np.ndarray]
    news: Any
    waiting: float
    working: float


class Actors(ABC):
    """Actors that work at a learner's request. None of them outlives :meth:`stop`.

    Work that an actor did not live to deliver is requested again of the one that replaces it; so everything requested
    comes once, and nothing comes twice.

    :param n_actors: their number
    """

    def __init__(self, n_actors: int) -> None:
        self.n_restarts = 0
        self.n_requested = [0] * n_actors
        """Of every actor, what was requested of it and has not come yet."""

    @abstractmethod
    def start(self) -> None:
        """Start all actors. :meth:`stop` must follow, whatever happens."""

    @abstractmethod
    def publish(self, version: int, parameters: np.ndarray) -> None:
        """Give new parameters to whoever begins a piece of work.

        :param version: greater by one than the one before
        :param parameters: [P], which are copied
        """

    @abstractmethod
    def request(self, actor: int) -> None:
        """Request one more piece of work, with the latest parameters, or with later ones if it begins later.

        :param actor: index of the actor; of one that has two to make already, no more may be requested
        """

    @abstractmethod
    def receive(self, timeout: float) -> list[Delivery]:
        """Replace actors that have failed, and wait a moment for what was requested.

        :param timeout: so long at most, in seconds
        :raises WorkerError: if an actor has failed and is not replaced
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop all actors, by force where they do not end by themselves; what was requested is passed over."""

    @property
    @abstractmethod
    def slots(self) -> Slots:
        """What the actors have seen for running statistics."""
