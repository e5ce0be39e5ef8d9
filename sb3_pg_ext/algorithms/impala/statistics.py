"""What is logged of the time since the last entry: who waited for whom, how fast each was, how old unrolls were."""

import time

import numpy as np

from sb3_pg_ext.workers.actors import Delivery


class Statistics:
    """Gathers them.

    :param n_actors: number of actors
    """

    def __init__(self, n_actors: int) -> None:
        self._n_actors = n_actors
        self.n_stale = 0
        self._start()

    def _start(self) -> None:
        self._since = time.perf_counter()
        self._steps = [0] * self._n_actors
        self._waiting = self._working = self._learner_waiting = 0.0
        self._queue_lengths: list[int] = []
        self._lags: list[np.ndarray] = []
        self._n_learned = 0

    def take(self, delivery: Delivery, n_steps: int) -> None:
        """Note what an actor has done.

        :param delivery: what it has made
        :param n_steps: so many steps
        """
        self._steps[delivery.actor] += n_steps
        self._waiting += delivery.waiting
        self._working += delivery.working

    def begin_batch(self, queue_length: int) -> None:
        """Note how many unrolls are there when the learner comes for a batch."""
        self._queue_lengths.append(queue_length)

    def wait(self, seconds: float) -> None:
        """Note that the learner has waited."""
        self._learner_waiting += seconds

    def learn(self, n_steps: int) -> None:
        """Note a gradient step.

        :param n_steps: so many steps it has learned from
        """
        self._n_learned += n_steps

    def end_batch(self, lags: np.ndarray) -> None:
        """Note the lags of a batch's unrolls."""
        self._lags.append(lags)

    def pop(self) -> tuple[dict[str, float], np.ndarray]:
        """Everything to log since the last call, by its key, and the lags of all unrolls."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        numbers = {f"workers/fps_{i}": n / seconds for i, n in enumerate(self._steps)}
        numbers["workers/fps"] = sum(self._steps) / seconds
        numbers["workers/waiting"] = self._waiting / max(self._waiting + self._working, 1e-9)
        numbers["learner/fps"] = self._n_learned / seconds
        numbers["learner/waiting"] = min(1.0, self._learner_waiting / seconds)
        if self._queue_lengths:
            numbers["learner/queue_length"] = float(np.mean(self._queue_lengths))
        lags = np.concatenate(self._lags) if self._lags else np.zeros(0)
        if len(lags):
            numbers["train/policy_lag"], numbers["train/policy_lag_max"] = float(lags.mean()), float(lags.max())
        self._start()
        return numbers, lags
