"""Trials of a hyper-parameter search with several seeds each."""

import os
from copy import copy
from typing import Any

import numpy as np
import optuna
from rl_zoo3.exp_manager import ExperimentManager

SCORES = "scores of the seeds"
"""Under this name a study keeps what every seed of a trial has reached."""


def median_of_seeds(manager: ExperimentManager, trial: optuna.Trial, n_seeds: int) -> float:
    """Train a trial with several seeds, one after the other.

    The evaluations of the first seed may prune it, as in a search with one seed. Of the following ones each reports,
    when it has finished, the median so far, which may prune the trial, too: so medians are compared with medians of as
    many seeds.

    :param manager: RL Zoo's, of the search; its own seed is the first
    :param trial: to be trained
    :param n_seeds: how many
    :return: the median of the scores, each that of the last evaluation
    :raises optuna.TrialPruned: if it was pruned, or the training has failed as RL Zoo expects it of bad values
    """
    scores: list[float] = []
    for k in range(n_seeds):
        each = copy(manager)
        each.seed = manager.seed + k
        if manager.optimization_log_path is not None:
            each.optimization_log_path = os.path.join(manager.optimization_log_path, f"seed_{k}")
        scores.append(ExperimentManager.objective(each, trial if k == 0 else _Silent(trial)))  # type: ignore[arg-type]
        trial.set_user_attr(SCORES, scores)
        if k > 0:
            trial.report(float(np.median(scores)), manager.n_evaluations + k)
            if trial.should_prune():
                raise optuna.TrialPruned
    return float(np.median(scores))


class _Silent:
    """A trial that suggests what it has suggested, and keeps to itself what is reported.

    :param trial: the trial
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def report(self, value: float, step: int) -> None:
        """Pass it over: of every step the study knows the first seed's value."""

    def should_prune(self) -> bool:
        """Not within a seed."""
        return False
