"""Advantage estimators side by side: what each makes of the same rollouts, and how wrong and how noisy it is.

    python examples/gallery/estimators_side_by_side.py

A walk over nine states that drifts to the right and is paid when it arrives there. Its true values are known, so every
estimate can be compared with the true advantage: with a critic that is right, and with one that is wrong.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure

from sb3_pg_ext import AdvantageEstimate, Rollout, make_estimator

N_STATES, GAMMA, P_RIGHT = 9, 0.95, 0.6
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "td0": ("td0", {}),
    "n_step, 3": ("n_step", {"n": 3}),
    "gae, λ = 0.8": ("gae", {"gae_lambda": 0.8}),
    "gae, λ = 0.95": ("gae", {"gae_lambda": 0.95}),
    "monte_carlo": ("monte_carlo", {}),
    "upgo": ("upgo", {}),
}


def true_values() -> np.ndarray:
    """V of every state; beside the last one lies the end, where 1 is paid, and the first one's left is itself."""
    steps = np.zeros((N_STATES, N_STATES))
    for s in range(N_STATES):
        steps[s, max(s - 1, 0)] += 1 - P_RIGHT
        if s + 1 < N_STATES:
            steps[s, s + 1] += P_RIGHT
    rewards = np.zeros(N_STATES)
    rewards[-1] = P_RIGHT
    return np.linalg.solve(np.eye(N_STATES) - GAMMA * steps, rewards)


def walk(n_steps: int, n_walks: int, critic: np.ndarray, rng: np.random.Generator) -> tuple[Rollout, np.ndarray]:
    """A rollout of many walks, and what they did, 2·state + (1 to the right), [n_steps, n_walks]."""
    shape = (n_steps, n_walks)
    rewards, values, next_values = (np.zeros(shape, np.float32) for _ in range(3))
    terminated, done = np.zeros(shape, bool), np.zeros(shape, int)
    states = rng.integers(0, N_STATES, n_walks)
    for t in range(n_steps):
        right = rng.random(n_walks) < P_RIGHT
        there = np.where(right, states + 1, np.maximum(states - 1, 0))
        terminated[t] = there == N_STATES
        rewards[t] = terminated[t]
        values[t], next_values[t] = critic[states], np.append(critic, 0)[there]
        done[t] = 2 * states + right
        states = np.where(terminated[t], rng.integers(0, N_STATES, n_walks), there)
    return Rollout(rewards, values, next_values, terminated, np.zeros(shape, bool), GAMMA), done


def true_advantages() -> np.ndarray:
    """A(s, a), [S, 2], left and right."""
    values = true_values()
    left = GAMMA * values[np.maximum(np.arange(N_STATES) - 1, 0)]
    right = np.append(GAMMA * values[1:], 1.0)
    return np.stack([left, right], 1) - values[:, None]


def errors(estimate: AdvantageEstimate, done: np.ndarray) -> tuple[float, float]:
    """Bias and noise of estimates, given state and action; both as root mean squares over states and actions.

    What is wrong by the same number for both actions of a state does not bias the gradient, and is left out. Only steps
    long before the end of the rollout count, so that what is cut off there does not.
    """
    guesses, done = estimate.advantages[: len(done) // 2], done[: len(done) // 2]
    kinds = np.arange(2 * N_STATES)
    groups = [guesses[done == kind] for kind in kinds]
    wrong = np.array([group.mean() for group in groups]).reshape(N_STATES, 2) - true_advantages()
    probs = np.array([1 - P_RIGHT, P_RIGHT])
    bias = wrong - (wrong @ probs)[:, None]
    weights = np.array([group.size for group in groups]) / guesses.size
    return float(np.sqrt(weights @ bias.ravel() ** 2)), float(
        np.sqrt(weights @ np.array([group.var() for group in groups]))
    )


def draw(short: bool) -> Figure:
    """Bias against noise with two critics, and one walk as every estimator sees it."""
    rng, truth = np.random.default_rng(0), true_values()
    wrong = (truth + rng.normal(0, 0.2, N_STATES)).clip(0)
    n_walks = 50 if short else 4000
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6))
    critics = {"with a critic that is right": truth, "with one that is wrong": wrong}
    for axes, (title, critic) in zip(panels[:2], critics.items(), strict=True):
        rollout, done = walk(200, n_walks, critic.astype(np.float32), rng)
        for number, (label, (name, arguments)) in enumerate(ESTIMATORS.items()):
            bias, noise = errors(make_estimator(name, **arguments)(rollout), done)
            axes.plot(bias, noise, "o", color=f"C{number}", label=label)
            print(f"{title}, {label}: bias {bias:.3f}, noise {noise:.3f}")
        axes.set(title=title, xlabel="bias", ylabel="noise", xlim=(-0.005, 0.12), ylim=(-0.01, 0.25))
    panels[0].legend(fontsize=8)
    rollout, done = walk(30, 1, wrong.astype(np.float32), np.random.default_rng(4))
    for number, (name, arguments) in enumerate(ESTIMATORS.values()):
        panels[2].plot(make_estimator(name, **arguments)(rollout).advantages[:, 0], color=f"C{number}", linewidth=1)
    panels[2].plot(true_advantages().ravel()[done[:, 0]], "k.", markersize=4, label="the truth")
    for end in np.flatnonzero(rollout.terminated[:, 0]):
        panels[2].axvline(end + 0.5, color="grey", linewidth=0.5)
    panels[2].set(title="30 steps, the wrong critic", xlabel="step", ylabel="advantage")
    panels[2].legend(fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "estimators_side_by_side", draw, arguments)


if __name__ == "__main__":
    main()
