"""Deterministic policy gradients against the score function, on a problem small enough to know everything exactly.

    python examples/ddpg_against_reinforce.py --output docs/images

Four choices of three each, 81 joint actions, one state. The policy is a softmax for every choice. Two rewards: a smooth
one, quadratic in the sum of the choices, and a rough one, a table of random numbers. Critics are networks that are
fitted to noisy rewards at one-hot actions, as GumbelDDPG's; its gradient goes through straight-through samples. The
exact gradient is a sum over all joint actions. Five studies, of which docs/gumbel_ddpg.md tells, with a figure each:

- ``off_policy``: learning from a fixed batch of another policy's actions;
- ``horizon``: the same, by the number of decisions of an episode;
- ``variance``: of single-sample gradients, by smoothness of the reward;
- ``tuning``: what is reached, by the learning rates;
- ``bias``: of the deterministic gradient, by the size of the critic and by its age.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import torch as th
from matplotlib.axes import Axes
from torch import nn

from sb3_pg_ext.functional.gumbel_softmax import GumbelSoftmax, largest, one_hot
from sb3_pg_ext.functional.heads import Categorical

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZES = [3, 3, 3, 3]
N_LOGITS = sum(SIZES)
JOINT = np.array(list(product(*map(range, SIZES))))
"""All joint actions, [81, 4]."""
VECTORS = one_hot(JOINT, SIZES, np.float64)
NOISE = 0.3
"""Standard deviation of what is added to rewards."""

Critic = Callable[[th.Tensor], th.Tensor]
Gradient = Callable[[np.ndarray], np.ndarray]
"""From logits to an ascent direction, [Σ k] → [Σ k]."""


def rewards_of(kind: str, seed: int = 0) -> np.ndarray:
    """The mean reward of every joint action, [81], scaled to a standard deviation of 1."""
    smooth = -np.square(JOINT.sum(1) - 5.0)
    table = smooth if kind == "smooth" else np.random.default_rng(seed).normal(size=len(JOINT))
    return (table - table.mean()) / table.std()


def probabilities(logits: np.ndarray) -> np.ndarray:
    """π of every joint action, [81], for logits [Σ k]."""
    head = Categorical(logits[None], SIZES)
    return np.exp(VECTORS @ head.logits[0])


def exact_gradient(logits: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """∇ Σ_a π(a) r(a), [Σ k]."""
    probs = probabilities(logits)
    scores = VECTORS - Categorical(logits[None], SIZES).probs
    return (probs * rewards) @ scores


def gumbel(rng: np.random.Generator, n: int) -> np.ndarray:
    """Gumbel noise, [n, Σ k]."""
    return -np.log(rng.exponential(size=(n, N_LOGITS)))


def score_gradients(logits: np.ndarray, rewards: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    """Of single samples: ∇log π(a)·(r − mean reward of the policy), [n, Σ k]."""
    choices = largest(logits + gumbel(rng, n), SIZES)
    earned = rewards[np.ravel_multi_index(choices.T, SIZES)] + NOISE * rng.normal(size=n)
    scores = one_hot(choices, SIZES, np.float64) - Categorical(logits[None], SIZES).probs
    return scores * (earned - probabilities(logits) @ rewards)[:, None]


def deterministic_gradients(logits: np.ndarray, critic: Critic, rng: np.random.Generator, n: int) -> np.ndarray:
    """Of single samples: the critic's gradient at a straight-through sample, [n, Σ k]."""
    samples = GumbelSoftmax(np.tile(logits, (n, 1)), gumbel(rng, n), SIZES)
    x = th.tensor(samples.samples, dtype=th.float32, requires_grad=True)
    (of_actions,) = th.autograd.grad(critic(x).sum(), x)
    return samples.vjp(of_actions.double().numpy())


def fitted(
    rewards: np.ndarray, logits: np.ndarray, rng: np.random.Generator, width: int, n_steps: int = 400
) -> nn.Module:
    """A critic, fitted to 2000 noisy rewards of a policy's actions; of width 0 it is linear."""
    th.manual_seed(int(rng.integers(2**31)))
    critic: nn.Module = nn.Linear(N_LOGITS, 1)
    if width:
        hidden = nn.Linear(N_LOGITS, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        critic = nn.Sequential(*hidden, nn.Linear(width, 1))
    choices = largest(logits + gumbel(rng, 2000), SIZES)
    earned = rewards[np.ravel_multi_index(choices.T, SIZES)] + NOISE * rng.normal(size=2000)
    x, y = th.tensor(one_hot(choices, SIZES)), th.tensor(earned, dtype=th.float32)[:, None]
    return refit(critic, x, y, n_steps)


def refit(critic: nn.Module, x: th.Tensor, y: th.Tensor, n_steps: int) -> nn.Module:
    """Steps of Adam along the gradient of the squared error."""
    optimizer = th.optim.Adam(critic.parameters(), lr=5e-3)
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(critic(x), y).backward()
        optimizer.step()
    return critic


def ascend(gradient: Gradient, rewards: np.ndarray, rate: float, n_steps: int) -> np.ndarray:
    """The exact mean reward after every step of plain gradient ascent from the uniform policy, [n_steps + 1]."""
    logits = np.zeros(N_LOGITS)
    reached = [float(probabilities(logits) @ rewards)]
    for _ in range(n_steps):
        logits = logits + rate * gradient(logits)
        reached.append(float(probabilities(logits) @ rewards))
    return np.array(reached)


def importance_weighted(
    logits: np.ndarray, choices: np.ndarray, earned: np.ndarray, behaviour: np.ndarray, length: int = 1
) -> np.ndarray:
    """REINFORCE from another policy's episodes: mean of ∇log π(a_t)·Σ_u≥t ρ_0…ρ_u·(r_u − mean r), ρ = π/μ, [Σ k].

    :param length: the number of decisions of an episode; one after another they are the rows of the batch
    """
    flat = np.ravel_multi_index(choices.T, SIZES)
    ratios = probabilities(logits)[flat] / behaviour[flat]
    weighted = ratios.reshape(-1, length).cumprod(1) * (earned - earned.mean()).reshape(-1, length)
    to_go = weighted[:, ::-1].cumsum(1)[:, ::-1]
    scores = one_hot(choices, SIZES, np.float64) - Categorical(logits[None], SIZES).probs
    return (scores * to_go.reshape(-1, 1)).mean(0)


def tell(study: str, case: str, number: float) -> None:
    """Print what was found, a row of a Markdown table."""
    print(f"| {study} | {case} | {number:.2f} |", flush=True)


def off_policy(axes: Axes, n_seeds: int) -> None:
    """Learning from 100 actions of another policy, whose rewards are noisier than elsewhere: of the uniform one, and of
    one that prefers low choices.
    """
    rewards = rewards_of("smooth")
    behaviours = {"uniform actions": np.zeros(N_LOGITS), "low actions": np.tile([1.5, 0.0, -1.5], len(SIZES))}
    for style, (of_whom, behaviour_logits) in zip(("-", "--"), behaviours.items(), strict=True):
        behaviour = probabilities(behaviour_logits)
        curves: dict[str, list[np.ndarray]] = {"DDPG": [], "REINFORCE, weighted": []}
        for seed in range(n_seeds):
            rng = np.random.default_rng(seed)
            choices, earned, by_critic = from_a_batch(rewards, behaviour_logits, 100, rng)
            by_score: Gradient = partial(importance_weighted, choices=choices, earned=earned, behaviour=behaviour)
            for reached, gradient in zip(curves.values(), (by_critic, by_score), strict=True):
                reached.append(ascend(gradient, rewards, 0.5, 100))
        for index, (name, reached) in enumerate(curves.items()):
            draw(axes, np.array(reached), f"{name}, {of_whom}", f"C{index}", style)
            tell("off-policy", f"{of_whom}, {name}", np.mean([curve[-1] for curve in reached]))
    axes.axhline(rewards.max(), color="black", linewidth=0.8, linestyle=":", label="best action")
    axes.set(xlabel="steps of gradient ascent", ylabel="mean reward, exact", title="From a fixed batch of 100 actions")
    axes.legend(fontsize="small")


def from_a_batch(
    rewards: np.ndarray, logits: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Gradient]:
    """Actions of a policy, what they earned, and the gradient of a critic that was fitted to them."""
    choices = largest(logits + gumbel(rng, n), SIZES)
    earned = rewards[np.ravel_multi_index(choices.T, SIZES)] + rng.normal(size=n)
    th.manual_seed(int(rng.integers(2**31)))
    critic = nn.Sequential(nn.Linear(N_LOGITS, 32), nn.Tanh(), nn.Linear(32, 1))
    refit(critic, th.tensor(one_hot(choices, SIZES)), th.tensor(earned, dtype=th.float32)[:, None], 200)
    return choices, earned, partial(mean_deterministic_gradient, critic=critic, rng=rng)


def horizon(axes: Axes, n_seeds: int) -> None:
    """Learning from 128 uniform decisions, in episodes of one to 32; the state stays the same one."""
    rewards, uniform, lengths = rewards_of("smooth"), np.zeros(N_LOGITS), 2 ** np.arange(6)
    reached = {name: np.zeros((n_seeds, len(lengths))) for name in ("DDPG", "REINFORCE, weighted")}
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        choices, earned, by_critic = from_a_batch(rewards, uniform, 128, rng)
        reached["DDPG"][seed] = ascend(by_critic, rewards, 0.5, 100)[-1]  # its critic needs no episodes
        behaviour = probabilities(uniform)
        for column, length in enumerate(lengths):
            by_score = partial(
                importance_weighted, choices=choices, earned=earned, behaviour=behaviour, length=int(length)
            )
            reached["REINFORCE, weighted"][seed, column] = ascend(by_score, rewards, 0.5, 100)[-1]
    for index, (name, scores) in enumerate(reached.items()):
        axes.plot(lengths, scores.mean(0), marker="o", markersize=3, color=f"C{index}", label=name)
        axes.fill_between(lengths, scores.min(0), scores.max(0), alpha=0.12, color=f"C{index}")
        for length, score in zip(lengths, scores.mean(0), strict=True):
            tell("horizon", f"{name}, {length}", score)
    axes.axhline(rewards.max(), color="black", linewidth=0.8, linestyle=":", label="best action")
    axes.set(xscale="log", xlabel="decisions of an episode", ylabel="mean reward after 100 steps, exact")
    axes.set_xticks(lengths, [str(length) for length in lengths], minor=False)
    axes.set(title="From a fixed batch of 128 decisions")
    axes.legend(fontsize="small")


def mean_deterministic_gradient(logits: np.ndarray, critic: Critic, rng: np.random.Generator) -> np.ndarray:
    """Of 50 samples, [Σ k]."""
    return deterministic_gradients(logits, critic, rng, 50).mean(0)


def draw(axes: Axes, curves: np.ndarray, label: str, color: str, style: str) -> None:
    """The mean over seeds, and the worst and the best of them."""
    axes.plot(curves.mean(0), style, color=color, label=label)
    axes.fill_between(np.arange(curves.shape[1]), curves.min(0), curves.max(0), alpha=0.12, color=color)


def noise_and_bias(gradients: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Of single samples, relative to the exact gradient: √ of the summed variance, and the norm of the mean's error."""
    size = np.linalg.norm(exact)
    return float(np.sqrt(gradients.var(0).sum()) / size), float(np.linalg.norm(gradients.mean(0) - exact) / size)


def variance(axes: Axes, n_seeds: int) -> None:
    """Noise and bias of single-sample gradients at the uniform policy, with critics of width 32."""
    logits, labels = np.zeros(N_LOGITS), ["noise", "bias"]
    for place, kind in enumerate(("smooth", "rough")):
        found: dict[str, list[tuple[float, float]]] = {"DDPG": [], "REINFORCE": []}
        for seed in range(n_seeds):
            rng, rewards = np.random.default_rng(seed), rewards_of(kind, seed)
            exact = exact_gradient(logits, rewards)
            if np.linalg.norm(exact) < 0.05:
                continue
            critic = fitted(rewards, logits, rng, 32)
            found["DDPG"].append(noise_and_bias(deterministic_gradients(logits, critic, rng, 20_000), exact))
            found["REINFORCE"].append(noise_and_bias(score_gradients(logits, rewards, rng, 20_000), exact))
        for offset, (name, pairs) in enumerate(found.items()):
            positions = 3 * place + np.arange(2) + 0.4 * offset
            means = np.mean(pairs, 0)
            axes.bar(positions, means, 0.35, color=f"C{offset}", label=None if place else name)
            for label, mean in zip(labels, means, strict=True):
                tell("variance", f"{kind}, {name}, {label}", mean)
    axes.set_xticks([0.2, 1.2, 3.2, 4.2], [f"{kind}\n{label}" for kind in ("smooth", "rough") for label in labels])
    axes.set(ylabel="÷ length of the exact gradient", title="One sample at the uniform policy", yscale="log")
    axes.legend(fontsize="small")


def tuning(axes: Axes, n_seeds: int) -> None:
    """What is reached within 200 steps of 20 samples, by the learning rate of the policy and the critic's."""
    rewards, rates = rewards_of("smooth"), np.logspace(-1.5, 2, 8)
    scores = {"REINFORCE": np.zeros((n_seeds, len(rates)))}
    scores |= {f"DDPG, critic {rate:g}": np.zeros((n_seeds, len(rates))) for rate in (1e-4, 1e-2, 1.0)}
    for seed, (column, rate) in product(range(n_seeds), enumerate(rates)):
        for name in scores:
            rng = np.random.default_rng(seed)
            if name == "REINFORCE":
                gradient = lambda logits: score_gradients(logits, rewards, rng, 20).mean(0)  # noqa: B023, E731
            else:
                gradient = ActorCritic(rewards, rng, float(name.split()[-1]))
            scores[name][seed, column] = ascend(gradient, rewards, rate, 200)[-1]
    for name, reached in scores.items():
        axes.plot(rates, reached.mean(0), marker="o", markersize=3, label=name)
        for rate, score in zip(rates, reached.mean(0), strict=True):
            tell("tuning", f"{name}, policy {rate:.3g}", score)
    axes.axhline(rewards.max(), color="black", linewidth=0.8, linestyle=":", label="best action")
    axes.set(xscale="log", xlabel="learning rate of the policy", ylabel="mean reward after 200 steps")
    axes.set(title="Two learning rates, or one")
    axes.legend(fontsize="small")


class ActorCritic:
    """The deterministic gradient while the critic is learned: a step for each of the policy's, from the same actions.

    :param rewards: [81]
    :param rng: the generator of all noise
    :param rate: learning rate of the critic
    """

    def __init__(self, rewards: np.ndarray, rng: np.random.Generator, rate: float) -> None:
        self._rewards, self._rng = rewards, rng
        th.manual_seed(int(rng.integers(2**31)))
        self._critic = nn.Sequential(nn.Linear(N_LOGITS, 32), nn.Tanh(), nn.Linear(32, 1))
        self._optimizer = th.optim.Adam(self._critic.parameters(), lr=rate)

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """The gradient of 20 samples, [Σ k]."""
        choices = largest(logits + gumbel(self._rng, 20), SIZES)
        earned = self._rewards[np.ravel_multi_index(choices.T, SIZES)] + NOISE * self._rng.normal(size=20)
        x, y = th.tensor(one_hot(choices, SIZES)), th.tensor(earned, dtype=th.float32)[:, None]
        self._optimizer.zero_grad()
        nn.functional.mse_loss(self._critic(x), y).backward()
        self._optimizer.step()
        return deterministic_gradients(logits, self._critic, self._rng, 20).mean(0)


def bias(axes: Axes, n_seeds: int) -> None:
    """The angle between the deterministic gradient and the exact one, while the policy moves on along the exact one."""
    rewards, ages = rewards_of("smooth"), np.arange(0, 101, 10)
    for width, label in ((0, "linear critic"), (4, "2 × 4 units"), (64, "2 × 64 units")):
        cosines = np.zeros((n_seeds, len(ages)))
        for seed in range(n_seeds):
            rng, logits = np.random.default_rng(seed), np.tile([1.0, 0.0, -1.0], len(SIZES))
            critic = fitted(rewards, logits, rng, width)
            for row in range(len(ages)):
                exact = exact_gradient(logits, rewards)
                mean = deterministic_gradients(logits, critic, rng, 2000).mean(0)
                cosines[seed, row] = mean @ exact / (np.linalg.norm(mean) * np.linalg.norm(exact) + 1e-12)
                for _ in range(10):
                    logits = logits + 0.5 * exact_gradient(logits, rewards)
        axes.plot(ages, cosines.mean(0), marker="o", markersize=3, label=label)
        for age, cosine in zip(ages, cosines.mean(0), strict=True):
            tell("bias", f"{label}, age {age}", cosine)
        axes.fill_between(ages, cosines.min(0), cosines.max(0), alpha=0.15)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="age of the critic: steps of the policy since it was fitted")
    axes.set(ylabel="cosine with the exact gradient", title="Bias of weak and of old critics")
    axes.legend(fontsize="small")


STUDIES = {"off_policy": off_policy, "horizon": horizon, "variance": variance, "tuning": tuning, "bias": bias}


def main() -> None:
    """Draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES), help="some of them")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--output", type=Path, default=Path(), help="the folder for the figures (default: this one)")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"argument --seeds: {arguments.seeds}; allowed: an integer ≥ 1")
    th.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("| study | case | mean over seeds |\n|---|---|---|")
    for name in arguments.studies:
        figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
        STUDIES[name](axes, arguments.seeds)
        axes.grid(alpha=0.3)
        figure.savefig(arguments.output / f"gumbel_ddpg_{name}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
