"""Soft policy iteration in a table, of which SACV is the form with networks and samples.

    python examples/soft_policy_iteration.py --plot soft_policy_iteration.png

A walk over five states, of which the last one ends the episode. Evaluation is exact, by solving linear equations;
improvement is π ∝ exp(Q/α). Every round prints by how much Q rose, at the least and at the most over all states and
actions, and how far it still is from the optimum of the soft Bellman equation.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GAMMA, ALPHA = 0.9, 0.05


def corridor() -> tuple[np.ndarray, np.ndarray]:
    """States 0 to 4 in a row; actions are left, stay and right, and slip to "stay" with a probability of 0.2. A step
    costs 0.1, the last state ends the episode and earns 1.

    :return: probabilities of the next state, [S, A, S], without those of an ended episode; rewards, [S, A]
    """
    transitions, rewards = np.zeros((5, 3, 5)), np.full((5, 3), -0.1)
    for state in range(4):
        for action, move in enumerate((-1, 0, 1)):
            target = max(state + move, 0)
            transitions[state, action, target] += 0.8
            transitions[state, action, state] += 0.2
            rewards[state, action] += transitions[state, action, 4]
    transitions[4], rewards[4] = 0, 0  # ended
    return transitions, rewards


def soft_q(transitions: np.ndarray, rewards: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Soft evaluation: Q = r + γ P V with V(s) = Σ_a π(a|s)(Q(s, a) − α log π(a|s)), solved exactly, [S, A]."""
    ended = transitions.sum((1, 2)) == 0
    entropies = np.where(ended, 0, -(policy * np.log(policy)).sum(1))
    of_policy = np.einsum("sa,sat->st", policy, transitions)
    values = np.linalg.solve(np.eye(len(rewards)) - GAMMA * of_policy, (policy * rewards).sum(1) + ALPHA * entropies)
    return rewards + GAMMA * transitions @ values


def improved(q: np.ndarray) -> np.ndarray:
    """π(a|s) ∝ exp(Q(s, a)/α), [S, A]: where α·log π − Q has its smallest mean."""
    policy = np.exp((q - q.max(1, keepdims=True)) / ALPHA)
    return policy / policy.sum(1, keepdims=True)


def optimal_q(transitions: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """The fixed point of Q = r + γ P (α log Σ_a exp(Q/α)), by iterating it."""
    q = np.zeros_like(rewards)
    ended = transitions.sum((1, 2)) == 0
    for _ in range(1000):
        q = rewards + GAMMA * transitions @ np.where(ended, 0, ALPHA * np.log(np.exp(q / ALPHA).sum(1)))
    return q


def losses(transitions: np.ndarray, rewards: np.ndarray, q: np.ndarray, policy: np.ndarray) -> tuple[float, float]:
    """Two of SACV's losses in the table: that of Q, and by how much that of π exceeds its least. V is where its own
    loss has its minimum.
    """
    ended = transitions.sum((1, 2)) == 0
    values = np.where(ended, 0, (policy * (q - ALPHA * np.log(policy))).sum(1))
    of_q = 0.5 * np.square(q - rewards - GAMMA * transitions @ values).mean()
    best = np.where(ended, 0, ALPHA * np.log(np.exp(q / ALPHA).sum(1)))
    return float(of_q), float((best - values)[~ended].mean())


def iterate(n_rounds: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Q and π of every round, from the uniform policy on."""
    transitions, rewards = corridor()
    policies = [np.full(rewards.shape, 1 / rewards.shape[1])]
    tables = [soft_q(transitions, rewards, policies[0])]
    for _ in range(n_rounds):
        policies.append(improved(tables[-1]))
        tables.append(soft_q(transitions, rewards, policies[-1]))
    return tables, policies


def plot(tables: list[np.ndarray], path: Path) -> None:
    """Q of going right and of going left, in every state that does not end the episode, round by round."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for state in range(4):
        for action, style in ((2, "-"), (0, ":")):
            label = f"state {state}" if action else None
            values = [table[state, action] for table in tables]
            axes.plot(values, style, color=f"C{state}", marker="o", markersize=3, label=label)
    axes.set(xlabel="round", ylabel="soft Q(s, a); right —, left ···", xticks=range(len(tables)))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the rounds, and draw them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of improvements (default: 5)")
    parser.add_argument("--plot", type=Path, help="where a figure goes, as PNG")
    arguments = parser.parse_args()
    transitions, rewards = corridor()
    tables, policies = iterate(arguments.rounds)
    optimum = optimal_q(transitions, rewards)
    print("| round | least rise of Q | largest rise | distance to the optimum | loss of Q | loss of π |")
    print("|---|---|---|---|---|---|")
    for index in range(1, len(tables)):
        rise = (tables[index] - tables[index - 1])[:4]
        distance = np.abs(tables[index] - optimum).max()
        of_q, of_policy = losses(transitions, rewards, tables[index], policies[index])
        numbers = (rise.min(), rise.max(), distance, of_q, of_policy)
        print(f"| {index} | {' | '.join(f'{number:.0e}' for number in numbers)} |")
    if arguments.plot:
        plot(tables, arguments.plot)


if __name__ == "__main__":
    main()
