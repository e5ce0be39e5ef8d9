"""Clipping against KL penalties: Table 1 of the PPO paper (Schulman et al., 2017), by default in a smaller size.

    python benchmarks/ppo_surrogates.py --plot docs/images/ppo_surrogates.png            # 4 settings × 300 000 steps
    python benchmarks/ppo_surrogates.py --full --plot docs/images/ppo_surrogates.png     # all 11 settings × 1 000 000

The paper's protocol: seven MuJoCo tasks, 2048 steps for an update, 10 epochs of minibatches of 64, Adam at 3e-4,
γ = .99, λ = .95, two 64-64 tanh networks, no entropy bonus. From the authors' code and not in the paper: observations
and rewards are normalised, and the learning rate falls linearly to 0 at a million steps (short runs stop on the way). A
score is the mean return of the last 100 episodes of the training; it is scaled so that uniformly random actions have 0
and the best run on the task has 1, and averaged over tasks and seeds.

A finished run is one line of ``benchmarks/results/ppo_surrogates.jsonl``, so an interrupted benchmark goes on where it
stopped.
"""

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from runs import Run, complete, processes, read, versions
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext import AdaptiveKLPPO, fast

RESULTS = Path(__file__).parent / "results" / "ppo_surrogates.jsonl"
TASKS = ("HalfCheetah", "Hopper", "InvertedDoublePendulum", "InvertedPendulum", "Reacher", "Swimmer", "Walker2d")
ENV_IDS = tuple(f"{task}-v4" for task in TASKS)
ANNEALING_HORIZON = 1_000_000
LEARNING_RATE = 3e-4
N_EPISODES = 100
N_RESAMPLES = 10_000
RANDOM = "random actions"

Setting = tuple[type[OnPolicyAlgorithm], dict[str, object]]


def _clipped(clip_range: float) -> Setting:
    return fast.PPO, {"clip_range": clip_range}


def _adaptive(target_kl: float) -> Setting:
    return AdaptiveKLPPO, {"target_kl": target_kl}


def _fixed(kl_coef: float) -> Setting:
    return AdaptiveKLPPO, {"kl_coef": kl_coef, "adaptive_kl": False}


SETTINGS: dict[str, Setting] = {
    "no clipping or penalty": _fixed(0.0),
    "clipping, ε = 0.1": _clipped(0.1),
    "clipping, ε = 0.2": _clipped(0.2),
    "clipping, ε = 0.3": _clipped(0.3),
    "adaptive KL, target 0.003": _adaptive(0.003),
    "adaptive KL, target 0.01": _adaptive(0.01),
    "adaptive KL, target 0.03": _adaptive(0.03),
    "fixed KL, β = 0.3": _fixed(0.3),
    "fixed KL, β = 1": _fixed(1.0),
    "fixed KL, β = 3": _fixed(3.0),
    "fixed KL, β = 10": _fixed(10.0),
}
PUBLISHED = dict(zip(SETTINGS, (-0.39, 0.76, 0.82, 0.70, 0.68, 0.74, 0.71, 0.62, 0.71, 0.72, 0.69), strict=True))
REDUCED = ("no clipping or penalty", "clipping, ε = 0.2", "adaptive KL, target 0.01", "fixed KL, β = 1")
REFERENCE = "clipping, ε = 0.2"


def train(setting: str, env_id: str, seed: int, n_steps: int) -> Run:
    """Train once; the score is the mean return of the last 100 episodes."""
    start = time.perf_counter()
    cls, arguments = SETTINGS[setting]
    env = VecNormalize(make_vec_env(env_id, seed=seed), gamma=0.99)
    model = cls("MlpPolicy", env, partial(annealed, n_steps), seed=seed, device="cpu", **arguments)  # type: ignore[arg-type]
    model.learn(n_steps)
    assert model.ep_info_buffer is not None
    returns = [episode["r"] for episode in list(model.ep_info_buffer)[-N_EPISODES:]]
    env.close()
    return report(setting, env_id, seed, n_steps, returns, start)


def annealed(n_steps: int, progress_remaining: float) -> float:
    """The learning rate, which would reach 0 at :data:`ANNEALING_HORIZON` steps."""
    return LEARNING_RATE * max(0.0, 1 - (1 - progress_remaining) * n_steps / ANNEALING_HORIZON)


def act_at_random(env_id: str) -> Run:
    """What a task gives for uniformly random actions."""
    start = time.perf_counter()
    env = make_vec_env(env_id, seed=0)
    env.action_space.seed(0)
    env.reset()
    returns: list[float] = []
    while len(returns) < N_EPISODES:
        _, _, dones, infos = env.step(np.array([env.action_space.sample()]))
        if dones[0]:
            returns.append(infos[0]["episode"]["r"])
    env.close()
    return report(RANDOM, env_id, 0, 0, returns, start)


def report(setting: str, env_id: str, seed: int, n_steps: int, returns: list[float], start: float) -> Run:
    """The line of a run."""
    return {
        "setting": setting,
        "env": env_id,
        "seed": seed,
        "steps": n_steps,
        "score": round(float(np.mean(returns)), 3),
        "episodes": len(returns),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
    }


def describe(run: Run) -> str:
    """The score of a run, in a line."""
    return f"{run['setting']}, {run['env']}, seed {run['seed']}: {run['score']:.1f}"


def select(
    runs: list[Run], n_steps: int, env_ids: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, str, int], Run]:
    """The latest run of every setting, task and seed, and random actions as seed 0."""
    return {
        (run["setting"], run["env"], run["seed"]): run
        for run in runs
        if run["env"] in env_ids and ((run["steps"] == n_steps and run["seed"] in seeds) or run["setting"] == RANDOM)
    }


def normalized(chosen: dict[tuple[str, str, int], Run]) -> dict[str, np.ndarray]:
    """Scores with random actions at 0 and the best run of the task at 1, [tasks, seeds], of every complete setting."""
    env_ids = sorted({env_id for _, env_id, _ in chosen})
    seeds = sorted({seed for setting, _, seed in chosen if setting != RANDOM})
    rows: dict[str, list[list[float]]] = {}
    for setting in SETTINGS:
        if all((setting, env_id, seed) in chosen for env_id in env_ids for seed in seeds):
            rows[setting] = [[chosen[setting, env_id, seed]["score"] for seed in seeds] for env_id in env_ids]
    scores = {setting: np.array(row) for setting, row in rows.items()}
    low = np.array([chosen[RANDOM, env_id, 0]["score"] for env_id in env_ids])[:, None]
    high = np.max([score.max(1) for score in scores.values()], axis=0)[:, None]
    return {setting: (score - low) / (high - low) for setting, score in scores.items()}


def resampled(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean over tasks and seeds, for many samples of the seeds of each task with replacement.

    :param scores: [tasks, seeds]
    :param rng: source of randomness
    :return: [:data:`N_RESAMPLES`]
    """
    n_tasks, n_seeds = scores.shape
    chosen = rng.integers(n_seeds, size=(N_RESAMPLES, n_tasks, n_seeds))
    return np.take_along_axis(scores[None], chosen, axis=2).mean((1, 2))


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Their middle 95 %."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def table(scores: dict[str, np.ndarray]) -> str:
    """A Markdown table of mean scores with bootstrap intervals beside the paper's."""
    rng = np.random.default_rng(0)
    lines = ["| surrogate | score here | 95 % (bootstrap) | score in the paper |", "|---|---|---|---|"]
    for setting, values in scores.items():
        low, high = interval(resampled(values, rng))
        lines.append(f"| {setting} | {values.mean():.2f} | {low:.2f} … {high:.2f} | {PUBLISHED[setting]:.2f} |")
    return "\n".join(lines)


def raw_table(chosen: dict[tuple[str, str, int], Run], settings: Sequence[str]) -> str:
    """A Markdown table of the returns themselves: means over seeds, task by task."""
    lines = ["| task | " + " | ".join([RANDOM, *settings]) + " |", "|---" * (2 + len(settings)) + "|"]
    for env_id in sorted({env_id for _, env_id, _ in chosen}):
        cells = []
        for setting in (RANDOM, *settings):
            scores = [run["score"] for key, run in chosen.items() if key[:2] == (setting, env_id)]
            cells.append(f"{np.mean(scores):.1f}")
        lines.append(f"| {env_id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(scores: dict[str, np.ndarray]) -> str:
    """Which settings differ from the paper's best one, and which cannot be told apart from it."""
    if REFERENCE not in scores:
        return f"No verdict without {REFERENCE!r}."
    rng = np.random.default_rng(0)
    reference = resampled(scores[REFERENCE], rng)
    lines = []
    for setting, values in scores.items():
        if setting != REFERENCE:
            low, high = interval(resampled(values, rng) - reference)
            outcome = "worse than" if high < 0 else "better than" if low > 0 else "not to be told apart from"
            lines.append(f"- {setting} is {outcome} {REFERENCE} (difference {low:+.2f} … {high:+.2f})")
    return "\n".join(lines)


def plot(scores: dict[str, np.ndarray], path: Path) -> None:
    """Mean scores with bootstrap intervals, the paper's as crosses."""
    figure, axes = plt.subplots(figsize=(7, 1 + 0.35 * len(scores)), layout="constrained")
    rows = np.arange(len(scores))
    means = np.array([values.mean() for values in scores.values()])
    rng = np.random.default_rng(0)
    ends = np.array([interval(resampled(values, rng)) for values in scores.values()])
    axes.errorbar(means, rows, xerr=np.abs(ends.T - means), fmt="o", color="tab:red", capsize=3, label="here, 95 %")
    axes.plot([PUBLISHED[setting] for setting in scores], rows, "x", color="black", label="paper")
    axes.set_yticks(rows, list(scores))
    axes.invert_yaxis()
    axes.set_xlabel("normalised score, mean over tasks and seeds")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, then print the table and the verdict, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all settings, 1 000 000 steps")
    parser.add_argument("--steps", type=int, help="steps of a run (default: 300 000, or 1 000 000 with --full)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="some surrogates (default: four, or all)")
    parser.add_argument("--envs", nargs="+", choices=ENV_IDS, default=ENV_IDS, help="some tasks (default: all seven)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where finished runs are kept")
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    options = parser.parse_args(arguments)
    n_steps = options.steps or (1_000_000 if options.full else 300_000)
    settings = options.settings or (SETTINGS if options.full else REDUCED)

    done = select(read(options.results), n_steps, options.envs, options.seeds)
    jobs = [partial(act_at_random, env_id) for env_id in options.envs if (RANDOM, env_id, 0) not in done]
    jobs += [
        partial(train, setting, env_id, seed, n_steps)
        for seed in options.seeds
        for env_id in options.envs
        for setting in settings
        if (setting, env_id, seed) not in done
    ]
    with processes(options.workers) as pool:
        complete(options.results, jobs, pool, describe)
    chosen = select(read(options.results), n_steps, options.envs, options.seeds)
    scores = normalized(chosen)
    print(table(scores), verdict(scores), raw_table(chosen, list(scores)), sep="\n\n")
    if options.plot:
        plot(scores, options.plot)


if __name__ == "__main__":
    main()
