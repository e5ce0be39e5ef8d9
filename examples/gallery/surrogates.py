"""Surrogate objectives along a line: what each of them promises for a longer and longer step, and what is true.

    python examples/gallery/surrogates.py

A small Markov decision process with random transitions, in which everything can be computed exactly. From a softmax
policy π_old a line leads along the gradient of the expected return. At every point of it: the true return J, the
surrogate of TRPO, PPO's clipped one, both with the penalties that keep a step short, and the bound of the theory,

    J(π) ≥ J(π_old) + L(π) − C·max_s KL(π_old‖π),   C = 4γ·max|A| / (1 − γ)²   (Schulman et al., 2015)
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure

from sb3_pg_ext.functional.heads import Categorical
from sb3_pg_ext.functional.surrogates import ratio_loss

GAMMA, N_STATES, N_ACTIONS, CLIP, NOISE = 0.9, 12, 4, 0.2, 3.0


class Process:
    """A Markov decision process whose transitions and rewards are drawn at random; it starts in state 0."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.transitions = rng.dirichlet(np.full(N_STATES, 0.1), (N_STATES, N_ACTIONS))  # [S, A, S]
        self.rewards = rng.standard_normal((N_STATES, N_ACTIONS))

    def solve(self, probs: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """J, the advantages [S, A], and how often states are visited, with discounts, [S]; of a policy [S, A]."""
        steps = np.einsum("sa,sat->st", probs, self.transitions)
        values = np.linalg.solve(np.eye(N_STATES) - GAMMA * steps, (probs * self.rewards).sum(1))
        advantages = self.rewards + GAMMA * self.transitions @ values - values[:, None]
        visits = np.linalg.solve(np.eye(N_STATES) - GAMMA * steps.T, np.eye(N_STATES)[0])
        return float(values[0]), advantages, visits


def policy(logits: np.ndarray) -> Categorical:
    """The softmax policy of a table of logits, [S, A]."""
    return Categorical(logits, [N_ACTIONS])


def expectation(
    old: Categorical, new: Categorical, advantages: np.ndarray, visits: np.ndarray, clip: float | None
) -> float:
    """E_old[r·A], or E_old[min(r·A, clip(r)·A)], of states as often as they are visited.

    The package's loss is a mean over samples: here every action of every state is one, its advantage weighted by how
    often it is seen, which is as good since weights are positive.
    """
    states, actions = (index.ravel() for index in np.indices((N_STATES, N_ACTIONS)))
    log_probs, old_log_probs = (each[states].log_prob(actions[:, None]) for each in (new, old))
    weighted = advantages.ravel() * (visits[:, None] * old.probs).ravel()
    return -len(states) * ratio_loss(log_probs, old_log_probs, weighted, clip).value


def draw(short: bool) -> Figure:
    """The curves, near to π_old and far from it."""
    process, logits = Process(seed=25), np.random.default_rng(0).standard_normal((N_STATES, N_ACTIONS))
    old = policy(logits)
    start, advantages, visits = process.solve(old.probs)
    gradient = visits[:, None] * old.probs * advantages  # ∇J in the logits
    noise = np.random.default_rng(25).standard_normal(gradient.shape)
    direction = gradient / np.linalg.norm(gradient) + NOISE * noise / np.sqrt(gradient.size)
    direction /= np.linalg.norm(direction)
    print(f"cosine of the direction and the gradient: {(gradient * direction).sum() / np.linalg.norm(gradient):.2f}")
    bound = 4 * GAMMA * np.abs(advantages).max() / (1 - GAMMA) ** 2
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    for axes, length in zip(panels, (12.0, 0.12), strict=True):
        steps = np.linspace(0, length, 5 if short else 121)
        curves: dict[str, list[float]] = {name: [] for name in ("J", "L", "clipped", "penalty", "root", "bound")}
        for step in steps:
            new = policy(logits + step * direction)
            kl = new.kl(old)
            surrogate = start + expectation(old, new, advantages, visits, None)
            mean_kl = float(visits @ kl / visits.sum())
            curves["J"].append(process.solve(new.probs)[0])
            curves["L"].append(surrogate)
            curves["clipped"].append(start + expectation(old, new, advantages, visits, CLIP))
            curves["penalty"].append(surrogate - 10 * mean_kl)
            curves["root"].append(surrogate - 2 * np.sqrt(mean_kl))
            curves["bound"].append(surrogate - bound * kl.max())
        axes.plot(steps, curves["J"], "k", linewidth=2.5, label="J, the truth")
        axes.plot(steps, curves["L"], label="L, TRPO's surrogate")
        axes.plot(steps, curves["clipped"], label=f"PPO's, clipped at {CLIP}")
        axes.plot(steps, curves["penalty"], label="L − 10·mean KL")
        axes.plot(steps, curves["root"], label="L − 2·√mean KL")
        axes.plot(steps, curves["bound"], "--", label=f"the bound, L − {bound:,.0f}·max KL".replace(",", " "))
        axes.axhline(start, color="grey", linewidth=0.5)
        gained = np.array(curves["J"])
        axes.set_ylim(start - 0.7 * np.ptp(gained) - 1e-9, gained.max() + 0.5 * np.ptp(gained) + 1e-9)
        axes.set(xlabel="length of the step, in the logits")
        print(
            f"up to {length}: J rises by {np.ptp(gained):.4f}; the bound is best at {steps[np.argmax(curves['bound'])]}"
        )
    panels[0].set(title="A long way", ylabel="return")
    panels[1].set(title="The first hundredth of it")
    panels[1].legend(fontsize=7, loc="lower left")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "surrogates", draw, arguments)


if __name__ == "__main__":
    main()
