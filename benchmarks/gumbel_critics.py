"""Whether GumbelDDPG's actor is led to the action that its own critic prefers, by kind of critic and of samples.

    python benchmarks/gumbel_critics.py --steps 20000 --seeds 0 1 2

On CartPole-v1. Of 300 states of the latest 5000, the gradient of the actor's loss in the logits, without the penalty,
is averaged over 100 samples of the noise. It leads the right way where descent raises the logit of the action with the
larger Q, of both critics' mean, above the other's. This is done at every fifth of the training, beside the mean return
of five greedy episodes and the mean gap between the two Q. Of the last two fifths the table has the least and the most.
"""

import argparse
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_pg_ext import GumbelDDPG
from sb3_pg_ext.functional.gumbel_softmax import GumbelSoftmax

N_STATES, N_LATEST, N_SAMPLES = 300, 5000, 100
SETTINGS: dict[str, Any] = {
    "learning_rate": lambda remaining: 1e-3 * remaining,
    "learning_starts": 1000,
    "buffer_size": 100_000,
    "train_freq": 2,
    "tau": 0.02,
    "logit_penalty": 0.1,
    "policy_kwargs": {"n_critics": 2},
}
LINEAR: dict[str, Any] = {"n_critics": 2, "linear_critic": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "straight-through": {},
    "soft": {"straight_through": False},
    "soft, `logit_penalty=0.5`": {"logit_penalty": 0.5, "straight_through": False},
    "soft, `temperature=5`": {"straight_through": False, "temperature": 5.0},
    "straight-through, `n_steps=3`": {"n_steps": 3},
    "straight-through, `linear_critic=True`": {"policy_kwargs": LINEAR},
}


def leads_right(model: GumbelDDPG, rng: np.random.Generator) -> tuple[float, float]:
    """In how many of the latest states the gradient leads to the critic's own best action, and the mean gap of Q."""
    buffer, policy, sizes = model.replay_buffer, model.policy, model.policy.sizes
    assert buffer is not None
    latest = rng.integers(max(0, buffer.pos - N_LATEST), buffer.pos, N_STATES)
    observations = th.as_tensor(buffer.observations[latest, 0])
    k = sum(sizes)
    with th.no_grad():
        logits = policy.actor(observations).numpy().repeat(N_SAMPLES, 0)
        corners = np.eye(k, dtype=np.float32)
        each = [policy.critic(observations, th.from_numpy(corners[[i] * N_STATES])) for i in range(k)]
        of_corners = [th.cat(of_critics, 1).mean(1, keepdim=True) for of_critics in each]
    q = th.cat(of_corners, 1).numpy()
    noise = -np.log(rng.exponential(size=logits.shape)).astype(np.float32)
    sampled = GumbelSoftmax(logits, noise, sizes, model._temperature, model.straight_through)
    actions = th.from_numpy(sampled.samples).requires_grad_()
    of_samples = policy.critic(observations.repeat_interleave(N_SAMPLES, 0), actions)[0]
    (gradient,) = th.autograd.grad(of_samples.sum(), actions)
    ascent = sampled.vjp(gradient.numpy()).reshape(N_STATES, N_SAMPLES, k).mean(1)
    rows = np.arange(N_STATES)
    led = ascent[rows, q.argmax(1)] > ascent[rows, q.argmin(1)]
    return float(led.mean()), float(np.ptp(q, 1).mean())


class Report(BaseCallback):
    """Looks at the model at every fifth of the training.

    :param seed: of the states, and of the episodes
    :param n_steps: of the training
    """

    model: GumbelDDPG

    def __init__(self, seed: int, n_steps: int) -> None:
        super().__init__()
        self.found: list[tuple[float, float, float]] = []
        """The share of states that are led right, the gap, and the return."""
        self._every = n_steps // 5
        self._rng = np.random.default_rng(seed)
        self._env = make_vec_env("CartPole-v1", seed=1000 + seed)

    def _on_step(self) -> bool:
        if self.n_calls % self._every == 0:
            score = evaluate_policy(self.model, self._env, 5, warn=False)[0]
            self.found.append((*leads_right(self.model, self._rng), float(np.mean(score))))
        return True


def row(name: str, reports: list[Report]) -> str:
    """A line of the table, over all seeds."""
    found = np.array([report.found for report in reports])
    right, gap = (f"{numbers.min():.2f} to {numbers.max():.2f}" for numbers in np.moveaxis(found[:, -2:, :2], -1, 0))
    best, last = found[..., 2].max(1), found[:, -1, 2]
    returns = "; ".join(f"{most:.0f}, {end:.0f}" for most, end in zip(best, last, strict=True))
    return f"| {name} | {right} | {gap} | {returns} |"


def main() -> None:
    """Train every variant with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="of every training (default: 20000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    seeds = ", ".join(map(str, arguments.seeds))
    print(f"| actor's loss | right | gap of Q | best return on the way, last one; seeds {seeds} |\n|---|---|---|---|")
    for name, chosen in VARIANTS.items():
        reports = [Report(seed, arguments.steps) for seed in arguments.seeds]
        for seed, report in zip(arguments.seeds, reports, strict=True):
            env = make_vec_env("CartPole-v1", seed=seed)
            model = GumbelDDPG("MlpPolicy", env, seed=seed, device="cpu", **{**SETTINGS, **chosen})
            model.learn(arguments.steps, report, log_interval=None)
        print(row(name, reports), flush=True)


if __name__ == "__main__":
    main()
