"""How the variance of importance sampling grows with the distance of the policies, exactly and sampled.

    python examples/importance_sampling.py

A process with two states, two actions and six steps, in which each state has one action that pays, has 2048 episodes:
what one episode's estimate varies by is a sum over all of them. That of self-normalised estimates is sampled, from
batches of 100 episodes, and multiplied by 100. docs/off_policy.md tells of the result.
"""

import argparse
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np

from sb3_pg_ext.functional import importance

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HORIZON, M, N_BATCHES = 6, 100, 1000
BEHAVIOUR = np.array([[0.5, 0.5], [0.5, 0.5]])
TOWARDS = np.array([[0.6, -0.6], [-0.6, 0.6]])
REWARDS = np.array([[1.0, 0.0], [0.0, 2.0]])
STAYS = np.array([[0.8, 0.3], [0.3, 0.8]])
"""The probability that a state is followed by itself, by state and action."""


def policy_at(distance: float) -> np.ndarray:
    """The behaviour, with its logits moved."""
    odds = BEHAVIOUR * np.exp(distance * TOWARDS)
    return odds / odds.sum(axis=1, keepdims=True)


def all_episodes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The states and actions of all episodes from state 0, [n, T] each, and their probabilities under the behaviour."""
    paths = np.array(list(product(range(2), repeat=2 * HORIZON - 1)))
    actions = paths[:, :HORIZON]
    states = np.concatenate([np.zeros((len(paths), 1), int), paths[:, HORIZON:]], axis=1)
    stays = STAYS[states[:, :-1], actions[:, :-1]]
    moves = np.where(states[:, 1:] == states[:, :-1], stays, 1 - stays)
    return states, actions, moves.prod(axis=1) * BEHAVIOUR[states, actions].prod(axis=1)


def q_of(policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true Q and V of a policy, [T, state, action] and [T, state]."""
    q, v = np.zeros((HORIZON, 2, 2)), np.zeros((HORIZON + 1, 2))
    for t in reversed(range(HORIZON)):
        q[t] = REWARDS + STAYS * v[t + 1][:, None] + (1 - STAYS) * v[t + 1][::-1][:, None]
        v[t] = (policy * q[t]).sum(axis=1)
    return q, v


def kl(policy: np.ndarray) -> float:
    """KL(π‖μ) of whole episodes of π."""
    states, actions, probabilities = all_episodes()
    log_ratios = np.log(policy / BEHAVIOUR)[states, actions].sum(axis=1)
    return float(probabilities * np.exp(log_ratios) @ log_ratios)


def estimates(
    rewards: np.ndarray, log_ratios: np.ndarray, q: np.ndarray, v: np.ndarray, normalized: bool
) -> dict[str, importance.OffPolicyEstimate]:
    """All of them, by name."""
    return {
        "trajectory": importance.trajectory(rewards, log_ratios, 1.0, normalized),
        "per decision": importance.per_decision(rewards, log_ratios, 1.0, normalized),
        "doubly robust, Q of μ": importance.doubly_robust(rewards, log_ratios, q, v, 1.0, normalized),
    }


def study(distances: np.ndarray) -> dict[str, list[float]]:
    """The variance of a single episode's estimate at every distance, by the estimate."""
    states, actions, probabilities = all_episodes()
    rewards, steps = REWARDS[states, actions], np.arange(HORIZON)
    rng = np.random.default_rng(0)
    result: dict[str, list[float]] = {}
    model_q, _ = q_of(BEHAVIOUR)
    for distance in distances:
        policy = policy_at(distance)
        log_ratios = np.log(policy / BEHAVIOUR)[states, actions]
        v = (policy * model_q).sum(axis=2)[steps, states]
        q = model_q[steps, states, actions]

        tables = rewards, log_ratios, q, v
        for name, estimate in estimates(*tables, False).items():
            mean = probabilities @ estimate.contributions
            result.setdefault(name, []).append(float(probabilities @ (estimate.contributions - mean) ** 2))
        drawn = rng.choice(len(states), (N_BATCHES, M), p=probabilities)
        sampled = [estimates(rewards[rows], log_ratios[rows], q[rows], v[rows], True) for rows in drawn]
        for name in sampled[0]:
            spread = np.var([each[name].value for each in sampled], ddof=1)
            result.setdefault(f"{name}, normalised", []).append(float(M * spread))
        returns = rewards.sum(axis=1)
        log_p = np.log(probabilities) + log_ratios.sum(axis=1)
        formula = importance.ratio_variance(returns, log_p, np.log(probabilities))
        assert np.isclose(formula, result["trajectory"][-1]), "Var_q[f p/q] is what the sum over all episodes gives"
        on_policy = np.exp(log_p) @ returns**2 - (np.exp(log_p) @ returns) ** 2
        result.setdefault("episodes of π itself", []).append(float(on_policy))
    return result


def main() -> None:
    """Print a table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("importance.png"), help="where the figure goes")
    options = parser.parse_args()
    distances = np.linspace(0, 3, 13)
    divergences = [kl(policy_at(distance)) for distance in distances]
    result = study(distances)
    shown = [0, 2, 4, 6, 8, 12]
    print("| KL(π‖μ) of an episode | " + " | ".join(f"{divergences[i]:.2f}" for i in shown) + " |")
    print("|---" * (len(shown) + 1) + "|")
    for name, variances in result.items():
        print(f"| {name} | " + " | ".join(f"{variances[i]:.3g}" for i in shown) + " |")
    figure, axes = plt.subplots(figsize=(9.5, 4.5), layout="constrained")
    for number, (name, variances) in enumerate(result.items()):
        if name.startswith("episodes"):
            axes.plot(divergences, variances, color="black", label=name)
        else:
            linestyle, marker = ("--", "o") if "normalised" in name else ("-", "")
            axes.plot(divergences, variances, linestyle, marker=marker, color=f"C{number % 3}", label=name)
    axes.set(yscale="log", xlabel="KL(π‖μ) of an episode, nats", ylabel="variance of one episode's estimate")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(options.output, dpi=100)


if __name__ == "__main__":
    main()
