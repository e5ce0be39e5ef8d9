"""Where the variance of a policy gradient comes from."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class VarianceParts(NamedTuple):
    """The variance of what a single step adds to a gradient, in parts (Tucker et al., 2018, section 3).

    With x = ∇log π(a|s)·Â(s, a, τ), by the law of total variance over what follows, the action, and the state,

        tr Cov(x) = E_{s,a} tr Cov_τ(x) + E_s tr Cov_a(E_τ x) + tr Cov_s(E_{a,τ} x)

    A baseline of state and action can take away the second part, and nothing else; one of the state alone takes away a
    part of that.

    :param trajectory: Σ_τ, of what follows the action
    :param action: Σ_a, of the action
    :param state: Σ_s, of the state
    """

    trajectory: float
    action: float
    state: float

    @property
    def total(self) -> float:
        """tr Cov(x), the sum of the parts."""
        return self.trajectory + self.action + self.state

    @property
    def removable(self) -> float:
        """Σ_a / tr Cov(x), the share that some baseline could take away."""
        return self.action / self.total if self.total else 0.0


def variance_parts(blocks: Iterable[np.ndarray], weights: np.ndarray) -> VarianceParts:
    """Estimate the parts from several actions in every state, and several continuations of every action.

    These are the estimates of a nested analysis of variance. None has a bias if all weights are equal and states
    independent, and so one that is small may come out below 0.

    :param blocks: x of some states each, [k, actions, continuations, n], with K ≥ 2 states in all and at least two
        actions; with a single continuation, nothing after the action is taken to be random
    :param weights: how much every state counts, [K]
    """
    sums, mean, self_products, start = np.zeros(3), 0.0, 0.0, 0
    for block in blocks:
        x = np.float64(block)
        n_actions, n_continuations = x.shape[1:3]
        w = weights[start : start + len(x)]
        start += len(x)
        of_actions = x.mean(axis=2)
        of_states = of_actions.mean(axis=1)
        if n_continuations > 1:
            squares = np.square(x - of_actions[:, :, None]).sum(axis=(1, 2, 3))
            trajectory = squares / (n_actions * (n_continuations - 1))
        else:
            trajectory = np.zeros(len(x))
        between = np.square(of_actions - of_states[:, None]).sum(axis=(1, 2)) / (n_actions - 1)
        size = np.square(of_states).sum(axis=1)
        sums += w @ np.stack([trajectory, between - trajectory / n_continuations, size - between / n_actions], axis=1)
        mean = mean + w @ of_states
        self_products += float(np.square(w) @ size)
    total, squared = float(weights.sum()), float(np.square(weights).sum())
    trajectory, action, second_moment = sums / total
    size_of_mean = (float(np.square(mean).sum()) - self_products) / (total * total - squared)
    return VarianceParts(float(trajectory), float(action), float(second_moment - size_of_mean))
