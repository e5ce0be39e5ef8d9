"""What workers tell the parent, and how it is gathered."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

REPORT_SECONDS = 0.05
"""So often a worker reports; more often costs time, more rarely makes callbacks late."""


Sums = Counter[Any]
"""Sums of statistics over updates or over steps, by name: floats."""


Step = tuple[int, float, bool, dict[str, Any]]
"""A step as callbacks see it: index of the worker, reward, whether the episode ended, and SB3's info."""


@dataclass(frozen=True)
class Problem:
    """A non-finite value, and what it spoilt.

    :param message: what was not finite, and where
    :param in_a_row: how many times in a row this has happened to the worker
    :param dropped: whether a rollout was dropped; otherwise an update was skipped
    """

    message: str
    in_a_row: int
    dropped: bool


@dataclass
class Report:
    """What a worker did since its last report. Column by column, its steps take half the time to send.

    :param rewards: of every step, as the algorithm got it
    :param dones: of every step, whether the episode ended with it
    :param infos: of every step SB3's info, without the final observation
    :param sums: sums of statistics over updates or over steps, by name
    :param latest: statistics of single updates, by the key under which they are logged
    :param problems: in the order of time
    """

    rewards: list[float] = field(default_factory=list)
    dones: list[bool] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    sums: Sums = field(default_factory=Counter)
    latest: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class Update(NamedTuple):
    """Numbers of one update, kept as they come; they are summed up once in a report.

    :param rewards: [T]
    :param advantages: [T]
    :param returns: [T]
    :param values: [T]
    :param td_errors: δ_t, [T]
    :param losses: policy, value and entropy loss and the norm of the gradient before clipping
    :param lag: updates by other workers between reading the parameters and applying the gradient
    :param seconds: duration
    """

    rewards: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    values: np.ndarray
    td_errors: np.ndarray
    losses: tuple[float, float, float, float]
    lag: int
    seconds: float


LOSSES = ("policy_loss", "value_loss", "entropy_loss", "grad_norm")


class Outbox:
    """Gathers what the parent is to hear of, and sends it now and then.

    :param send: sends a report to the parent
    """

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._start_report()

    def _start_report(self) -> None:
        self.report = Report()
        self._updates: list[Update] = []
        self._due = time.monotonic() + REPORT_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether it is time for a report."""
        return time.monotonic() >= self._due

    def add_step(self, reward: float, done: bool, info: dict[str, Any]) -> None:
        """Note a step."""
        if done:
            bad = "episode" in info and not math.isfinite(info["episode"]["r"])
            left_out = ("terminal_observation", "episode") if bad else ("terminal_observation",)
            info = {key: value for key, value in info.items() if key not in left_out}
        self.report.rewards.append(reward)
        self.report.dones.append(done)
        self.report.infos.append(info)

    def add_update(self, update: Update) -> None:
        """Note an update."""
        self._updates.append(update)

    def add_problem(self, problem: Problem) -> None:
        """Note a non-finite value."""
        self.report.problems.append(problem)

    def flush(self) -> None:
        """Send a report."""
        if self._updates:
            self.report.sums = _sum_up(self._updates)
        self._send(self.report)
        self._start_report()


def _sum_up(updates: list[Update]) -> Sums:
    columns = zip(*((u.rewards, u.advantages, u.returns, u.values, u.td_errors) for u in updates), strict=True)
    rewards, advantages, returns, values, errors = (np.concatenate(column).astype(np.float64) for column in columns)
    sums: Sums = Counter({"n_updates": len(updates), "n_steps": len(rewards)})
    residuals = returns - values
    measured = {"advantage": advantages, "return": returns, "residual": residuals, "td_error": errors}
    for name, numbers in measured.items():
        sums[name] = numbers.sum()
        sums[f"{name}²"] = np.square(numbers).sum()
    sums["reward"] = rewards.sum()
    sums.update(dict(zip(LOSSES, np.sum([u.losses for u in updates], axis=0).tolist(), strict=True)))
    sums.update({"lag": sum(u.lag for u in updates), "seconds": math.fsum(u.seconds for u in updates)})
    return sums


def _summarize(sums: Sums) -> dict[str, float]:
    """Means and standard deviations out of the sums of any number of reports, by their keys in the log."""
    if not sums["n_updates"]:
        return {}

    def variance(name: str) -> float:
        mean = sums[name] / sums["n_steps"]
        return max(0.0, sums[f"{name}²"] / sums["n_steps"] - mean * mean)

    means = {f"train/{name}": sums[name] / sums["n_updates"] for name in LOSSES}
    for name in ("advantage", "td_error"):
        means[f"train/{name}_mean"] = sums[name] / sums["n_steps"]
        means[f"train/{name}_std"] = math.sqrt(variance(name))
    if variance("return") > 0:
        means["train/explained_variance"] = 1 - variance("residual") / variance("return")
    means["train/policy_lag"] = sums["lag"] / sums["n_updates"]
    means["time/update_seconds"] = sums["seconds"] / sums["n_updates"]
    means["rollout/reward_mean"] = sums["reward"] / sums["n_steps"]
    return means


class Inbox:
    """Gathers what workers report.

    :param n_workers: number of workers
    """

    def __init__(self, n_workers: int) -> None:
        self.steps: deque[Step] = deque()
        self.latest: dict[str, float] = {}
        self.n_reported = dict.fromkeys(range(n_workers), 0)
        """How many steps every worker, with those that it replaces, has reported."""
        self._start_statistics()

    def _start_statistics(self) -> None:
        self._since = time.monotonic()
        self._sums: Sums = Counter()
        self._n_reported_before = dict(self.n_reported)

    def take(self, worker: int, report: Report) -> None:
        """Take in a report.

        :param worker: index of the worker
        :param report: its report
        """
        self.steps.extend(zip(repeat(worker), report.rewards, report.dones, report.infos, strict=False))
        self.latest.update(report.latest)
        self._sums.update(report.sums)
        self.n_reported[worker] += len(report.rewards)

    def pop_statistics(self) -> dict[str, float]:
        """Everything to log about the time since the last call, by its key."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        before = self._n_reported_before
        speeds = {f"workers/fps_{worker}": (n - before[worker]) / seconds for worker, n in self.n_reported.items()}
        statistics = {**self.latest, **_summarize(self._sums), **speeds}
        self._start_statistics()
        return statistics
