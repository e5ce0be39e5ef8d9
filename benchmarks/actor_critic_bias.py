"""Bias and variance of what weighs ∇log π in an actor-critic, on a decision process whose episodes can all be listed.

    python benchmarks/actor_critic_bias.py --plot docs/images/actor_critic.png

Three states, two actions, four steps, a softmax policy with a parameter for each state and action. A critic that is off
by ε is the true one plus ε times fixed random numbers: V and Q each their own, the same in all four steps. Every number
is an exact expectation over all 1296 episodes, relative to the length of the true gradient; bias and standard deviation
are those of the gradient of one episode, averaged over 200 critics.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).parent / "results" / "actor_critic_bias.json"
N_STATES, N_ACTIONS, HORIZON, GAMMA = 3, 2, 4, 0.9
ERRORS = (0.0, 0.25, 0.5, 1.0)
LAMBDAS = (0.0, 0.5, 0.8, 0.95)
N_CRITICS = 200


class Process:
    """The decision process, its policy, and all of its episodes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rewards = rng.normal(size=(N_STATES, N_ACTIONS))
        self.transitions = rng.dirichlet(np.ones(N_STATES), size=(N_STATES, N_ACTIONS))
        logits = rng.normal(size=(N_STATES, N_ACTIONS))
        self.policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        self.q, self.v = np.zeros((HORIZON + 1, N_STATES, N_ACTIONS)), np.zeros((HORIZON + 1, N_STATES))
        for t in range(HORIZON - 1, -1, -1):
            self.q[t] = self.rewards + GAMMA * self.transitions @ self.v[t + 1]
            self.v[t] = (self.policy * self.q[t]).sum(1)
        steps = list(product(range(N_ACTIONS), range(N_STATES)))
        paths = np.array(list(product(steps, repeat=HORIZON)))  # [E, T, 2]: an action, and the next state
        self.actions, next_states = paths[..., 0], paths[..., 1]
        self.states = np.concatenate([np.zeros((len(paths), 1), int), next_states], axis=1)
        taken = self.policy[self.states[:, :-1], self.actions]
        moved = self.transitions[self.states[:, :-1], self.actions, next_states]
        self.probabilities = (taken * moved).prod(1)
        # The last state changes nothing: it is summed over.
        scores = np.zeros((*self.actions.shape, N_STATES, N_ACTIONS))
        rows, columns = np.indices(self.actions.shape)
        scores[rows, columns, self.states[:, :-1]] = -self.policy[self.states[:, :-1]]
        scores[rows, columns, self.states[:, :-1], self.actions] += 1
        self.scores = scores.reshape(*self.actions.shape, -1)
        self.earned = self.rewards[self.states[:, :-1], self.actions]

    def gradient(self) -> np.ndarray:
        """Σ_t E[∇log π·Q], without γᵗ, as all of these estimate it."""
        return self.expectation(self.of_episodes(self.q_of(self.q)))

    def q_of(self, q: np.ndarray) -> np.ndarray:
        """Q(s_t, a_t) of every episode, [E, T]."""
        return q[np.arange(HORIZON), self.states[:, :-1], self.actions]

    def v_of(self, v: np.ndarray) -> np.ndarray:
        """V(s_t) of every episode, [E, T + 1]; 0 at the end."""
        return v[np.arange(HORIZON + 1), self.states]

    def of_episodes(self, weights: np.ndarray) -> np.ndarray:
        """Σ_t w_t·∇log π, [E, n]."""
        return (weights[..., None] * self.scores).sum(1)

    def expectation(self, of_episodes: np.ndarray) -> np.ndarray:
        """Over all episodes."""
        return self.probabilities @ of_episodes

    def td_lambda(self, v: np.ndarray, lam: float) -> np.ndarray:
        """Σ_k (γλ)ᵏδ_{t+k}, [E, T]."""
        values = self.v_of(v)
        deltas = self.earned + GAMMA * values[:, 1:] - values[:, :-1]
        sums = np.zeros_like(deltas)
        following = np.zeros(len(deltas))
        for t in range(HORIZON - 1, -1, -1):
            following = sums[:, t] = deltas[:, t] + GAMMA * lam * following
        return sums


def measure(process: Process) -> dict[str, list[tuple[float, float]]]:
    """By estimator, bias and standard deviation at every error of the critic."""
    truth = process.gradient()
    length = float(np.linalg.norm(truth))
    results: dict[str, list[tuple[float, float]]] = {}
    for error in ERRORS:
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(N_CRITICS):
            rng = np.random.default_rng(seed)
            v, q = process.v.copy(), process.q.copy()
            v[:-1] += error * rng.normal(size=N_STATES)
            q[:-1] += error * rng.normal(size=(N_STATES, N_ACTIONS))
            weights = {"MC": process.td_lambda(np.zeros_like(v), 1.0), "Q": process.q_of(q)}
            weights |= {("TD" if lam == 0 else f"TD({lam})"): process.td_lambda(v, lam) for lam in LAMBDAS}
            weights["Q − V"] = process.q_of(q) - process.v_of(v)[:, :-1]
            for name, each in weights.items():
                estimates = process.of_episodes(each)
                mean = process.expectation(estimates)
                variance = float(process.expectation(((estimates - mean) ** 2).sum(1)))
                found.setdefault(name, []).append((float(np.linalg.norm(mean - truth)) / length, variance / length**2))
        for name, pairs in found.items():
            bias, variance = np.mean(pairs, axis=0)
            results.setdefault(name, []).append((round(float(bias), 4), round(float(variance) ** 0.5, 4)))
    return results


def table(results: dict[str, list[tuple[float, float]]]) -> str:
    """A Markdown table: bias / standard deviation."""
    lines = ["| weight | " + " | ".join(f"ε = {error:g}" for error in ERRORS) + " |", "|---" * (len(ERRORS) + 1) + "|"]
    for name, pairs in results.items():
        lines.append(f"| {name} | " + " | ".join(f"{bias:.2f} / {sd:.2f}" for bias, sd in pairs) + " |")
    return "\n".join(lines)


def plot(results: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """A line for every estimator, from a critic that is right to one that is off by the largest ε."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, pairs in results.items():
        bias, sd = zip(*pairs, strict=True)
        (line,) = axes.plot(bias, sd, marker="o", markersize=3, label=name)
        axes.plot(bias[0], sd[0], marker="o", markersize=8, color=line.get_color())
    axes.set(xlabel="bias / ‖∇J‖", ylabel="standard deviation / ‖∇J‖", title="The gradient of one episode")
    axes.grid(alpha=0.3)
    axes.legend(title="weight of ∇log π")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, write the numbers down, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    arguments = parser.parse_args()
    results = measure(Process())
    RESULTS.write_text(json.dumps({"errors": ERRORS, "bias and standard deviation": results}) + "\n")
    print(table(results))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
