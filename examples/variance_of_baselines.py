"""How much noise each baseline takes out of REINFORCE's gradient, and what that does to learning.

    python examples/variance_of_baselines.py

Six studies, of which docs/variance.md tells:

- ``variance``: halfway through training the policy stays as it is, and the variance of the gradient is measured;
- ``actions``: the same for baselines that see the action, or the time, beside V, all fitted to the policy;
- ``parts``: what of the variance of a single step is due to the state, the action, and what follows;
- ``batch_size``: the same with batches of 2 to 64 episodes, for the baselines that are estimated from the batch;
- ``learning``: learning curves, and the steps that it takes to reach a return of 475;
- ``speed``: the time that the gradients of 2000 single steps take.

A finished run is one JSON line in the output folder. Stopped and started again, the script goes on with the runs that
are missing; one whose settings have changed is made again. In the end it prints tables and draws plots.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib
import numpy as np
import stable_baselines3
import torch as th
from scipy import stats
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

import sb3_pg_ext
from sb3_pg_ext import REINFORCE, make_baseline
from sb3_pg_ext.callbacks import GradientVarianceCallback

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Task = dict[str, Any]
"""The settings of a run: what it is known by, and what its line begins with."""

CROSS_FIT: dict[str, Any] = {"cross_fit": True}
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "total returns": ("none", {}),
    "rewards-to-go": ("none", {}),
    "mean": ("mean", {}),
    "moving_average": ("moving_average", {}),
    "time": ("time", {}),
    "linear": ("linear", {}),
    "value, one step": ("value", {}),
    "value": ("value", {}),
    "value, bootstrapped": ("value", {}),
    "value, fitted": ("value", {}),
    "value_time": ("value_time", {}),
    "q_prop": ("q_prop", {}),
    "leave_one_out": ("leave_one_out", {}),
    "optimal": ("optimal", {}),
    "optimal, cross-fitted": ("optimal", CROSS_FIT),
    "per time step": ("optimal", {"per_time_step": True}),
    "per time step, cross-fitted": ("optimal", {"per_time_step": True} | CROSS_FIT),
    "per component": ("optimal_per_component", {}),
    "per component, cross-fitted": ("optimal_per_component", CROSS_FIT),
}
"""The curves and rows of plots and tables: the registered name and its arguments. All but the first are subtracted from
rewards-to-go. The critic of "value, one step" makes a single step for every update, as A2C's does; that of "value,
fitted" is fitted to the policy that is measured, which training does not do. With "value, bootstrapped" an episode that
the time limit cuts goes on with V, and the critic learns at a rate of 1e-3 instead of 5e-4."""

OF_VARIANCE = [name for name in BASELINES if name not in ("value", "value, bootstrapped", "value_time", "q_prop")]
OF_ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "value": ("value", {}),
    "value_time": ("value_time", {}),
    "q_prop": ("q_prop", {}),
    "q_prop, full": ("q_prop", {"conservative": False}),
    "action_factorized": ("action_factorized", {}),
}
"""Fitted to 200 episodes of the policy that is measured, like the critic that all of them have."""
OF_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rewards-to-go": ("none", {}),
    **{name: OF_ACTIONS[name] for name in ("value", "value_time", "q_prop")},
}

OF_TRAINING = [
    name
    for name in BASELINES
    if (not name.startswith(("optimal", "per ")) and name != "value, fitted") or "cross" in name
]
STYLES = ("-", "--", ":")
CARTPOLE_ONLY = [name for name in OF_TRAINING if "cross" in name or "bootstrapped" in name]

FROM_THE_BATCH = [name for name in BASELINES if name == "mean" or name.startswith(("leave", "optimal", "per "))]
SOLVED, WINDOW = 475, 100  # a mean return of so much, over so many training episodes in a row
N_ENVS = 8


def main() -> None:
    """Make the runs that are missing, then print the tables and draw the plots."""
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = list(make_tasks(options.quick))
    missing = [task for task in tasks if find(task, options.output) is None]
    start = time.perf_counter()
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), begin) as pool:
        futures = {pool.submit(run, task): task for task in missing}
        for n_done, future in enumerate(as_completed(futures), start=1):
            task = futures[future]
            with (options.output / f"{task['study']}.jsonl").open("a") as file:
                file.write(json.dumps(future.result()) + "\n")
            left = (time.perf_counter() - start) / n_done * (len(missing) - n_done)
            print(f"[{n_done}/{len(missing)}, {left / 60:.1f} min left] {task}", file=sys.stderr, flush=True)
    report([line for task in tasks if (line := find(task, options.output))], options.images or options.output)


def begin() -> None:
    """What a process does first. Ctrl-C ends it; without that it would go on with the next run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    th.set_num_threads(1)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs side by side (default: all cores)")
    parser.add_argument("--output", type=Path, default=Path("variance_of_baselines"), help="folder of the runs")
    parser.add_argument("--images", type=Path, help="folder of the plots (default: that of the runs)")
    parser.add_argument("--quick", action="store_true", help="a few tiny runs, to see that everything works")
    return parser.parse_args()


def make_tasks(quick: bool) -> Iterable[Task]:
    """All runs, seed by seed."""
    seeds = {"CartPole-v1": 10, "InvertedPendulum-v5": 5}
    n_timesteps = {"CartPole-v1": 120_000, "InvertedPendulum-v5": 80_000}
    levels = {"CartPole-v1": 150, "InvertedPendulum-v5": 150, "Hopper-v5": 300}
    measured, few, sizes = {"level": 150, "n_batches": 40}, {"level": 80, "n_batches": 12}, [2, 4, 8, 16, 32, 64]
    if quick:
        seeds, n_timesteps, sizes = {"CartPole-v1": 2}, {"CartPole-v1": 300}, [2, 4]
        measured = few = {"level": 15, "n_batches": 3}
        levels = {"CartPole-v1": 15}
    yield {"study": "speed", "n_steps": 2000}
    for env in seeds:
        for seed in range(min(5, seeds[env])):
            yield {"study": "variance", "env": env, "seed": seed, "n_episodes": 10, **measured}
    for env, level in levels.items():
        for seed in range(2 if quick else 5):
            size = {"n_episodes": 10, "n_batches": measured["n_batches"]}
            yield {"study": "actions", "env": env, "seed": seed, "level": level, **size}
            parts = {"n_episodes": 10, "n_batches": 2, "n_states": 4 if quick else 100}
            yield {"study": "parts", "env": env, "seed": seed, "level": level, **parts}
    for env, n_seeds in seeds.items():
        for seed in range(n_seeds):
            for name in (
                OF_TRAINING if env == "CartPole-v1" else [name for name in OF_TRAINING if name not in CARTPOLE_ONLY]
            ):
                choice = {"env": env, "seed": seed, "baseline": name}
                yield {"study": "learning", **choice, "n_timesteps": n_timesteps[env]}
    for seed in range(min(5, seeds["CartPole-v1"])):
        for n_episodes in sizes:
            yield {"study": "batch_size", "env": "CartPole-v1", "seed": seed, "n_episodes": n_episodes, **few}


def find(task: Task, output: Path) -> Task | None:
    """The line of a run, if it was made with the same settings."""
    path = output / f"{task['study']}.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else []
    return next((line for line in lines if task.items() <= {key: line.get(key) for key in task}.items()), None)


def run(task: Task) -> Task:
    """Make one run."""
    studies = {
        "actions": measure_actions,
        "parts": measure_actions,
        "variance": measure,
        "batch_size": measure,
        "learning": learn,
        "speed": time_score_functions,
    }
    modules = (sb3_pg_ext, stable_baselines3, th, np, gymnasium)
    versions = {module.__name__: module.__version__ for module in modules} | {"python": platform.python_version()}
    return {**task, **studies[task["study"]](task), "versions": versions}


def measure(task: Task) -> Task:
    """Train up to a level, then measure the gradient's statistics by every baseline, on the same episodes for all.

    Nothing is discounted, so that with total returns and with rewards-to-go the same gradient is estimated.
    """
    model = train_halfway(task["env"], task["seed"], task["level"], n_critic_updates=0)
    made = {name: make_baseline(BASELINES[name][0], **BASELINES[name][1]) for name in OF_VARIANCE}
    if task["study"] == "batch_size":
        return {"statistics": statistics_of(model, task, {name: made[name] for name in FROM_THE_BATCH}, {})}
    total = {"total returns": made.pop("total returns")}
    fitted = {"mean": made["mean"], "value, fitted": made.pop("value, fitted")}
    statistics = statistics_of(model, task, made, total)
    fit_critic(model, task["env"], task["seed"])
    statistics |= statistics_of(model, task, fitted, {})
    return {"steps_before": model.num_timesteps, "statistics": {name: statistics[name] for name in OF_VARIANCE}}


def measure_actions(task: Task) -> Task:
    """Likewise, for baselines that see the action, or the time, beside V alone; all that is fitted, to 200 episodes.

    Here rewards are discounted by 0.99.
    """
    model = train_halfway(task["env"], task["seed"], task["level"], gamma=0.99)
    player = fit_critic(model, task["env"], task["seed"], baseline="q_prop")
    episodes = player._fresh
    with th.no_grad():
        values = model.policy.predict_values(th.as_tensor(episodes.observations)).flatten().numpy()
    chosen = OF_PARTS if task["study"] == "parts" else OF_ACTIONS
    made = {name: make_baseline(registered, **kwargs) for name, (registered, kwargs) in chosen.items()}
    for baseline in made.values():
        if hasattr(baseline, "fit"):
            for _ in range(2):  # q_prop looks back at what it had predicted
                baseline.fit(replace(episodes, values=values))
    return {"steps_before": model.num_timesteps, "statistics": statistics_of(model, task, made, {})}


def train_halfway(env_id: str, seed: int, level: float, gamma: float = 1.0, **critic: Any) -> REINFORCE:
    """A policy that has learned something, but not all: the mean return of its last two updates is at a level."""
    env = make_vec_env(env_id, N_ENVS, seed=seed)
    model = REINFORCE(
        "MlpPolicy",
        env,
        3e-3,
        n_episodes=N_ENVS,
        gamma=gamma,
        baseline="value",
        stats_window_size=2 * N_ENVS,
        seed=seed,
        **critic,
    )
    while np.mean([episode["r"] for episode in model.learn(1, reset_num_timesteps=False).ep_info_buffer or []]) < level:
        pass
    return model


def statistics_of(model: REINFORCE, task: Task, to_go: dict[str, Any], total: dict[str, Any]) -> dict[str, Any]:
    """By the baseline's name variance, signal-to-noise ratio and cosine, and, with ``n_states``, Σ_τ, Σ_a and Σ_s."""
    env = make_vec_env(task["env"], 2)
    sizes = {key: task[key] for key in ("n_batches", "n_episodes", "n_states") if key in task}
    reference = "mean" if "mean" in to_go else next(iter(to_go))
    callback = GradientVarianceCallback(env, to_go, total, seed=1000 + task["seed"], reference=reference, **sizes)
    callback.init_callback(model)
    return {
        name.removeprefix("total_"): [float(f"{x:.4g}") for x in (s.variance, s.snr, s.cosine, *(s.parts or ()))]
        for name, s in callback.measure().items()
    }


def fit_critic(model: REINFORCE, env_id: str, seed: int, baseline: str = "none") -> REINFORCE:
    """Regress V on the returns of 200 episodes of the present policy, which stays as it is; gives who played them."""
    env = make_vec_env(env_id, N_ENVS, seed=2000 + seed)
    player = REINFORCE(
        "MlpPolicy", env, learning_rate=0.0, n_episodes=200, gamma=model.gamma, baseline=baseline, seed=seed
    )
    player.policy.load_state_dict(model.policy.state_dict())
    buffer = player.learn(1).rollout_buffer
    obs, returns = (th.as_tensor(array[:, 0]) for array in (buffer.observations, buffer.returns))
    policy = model.policy
    with th.no_grad():
        policy.value_net.bias.fill_(returns.mean())
    optimizer = th.optim.Adam([*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()], lr=3e-3)
    for _ in range(2000):
        part = th.randint(len(obs), (512,))
        loss = (policy.predict_values(obs[part]).flatten() - returns[part]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return player


class LearningCurve(BaseCallback):
    """Notes the mean return of every update's episodes, and when a window of episodes reached a level."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[list[float]] = []
        self.steps_to_solve: int | None = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or []]
        self.points.append([self.num_timesteps, round(float(np.mean(returns[-N_ENVS:])), 1)])
        if self.steps_to_solve is None and len(returns) == WINDOW and np.mean(returns) >= SOLVED:
            self.steps_to_solve = self.num_timesteps


def learn(task: Task) -> Task:
    """One training: its curve, and the steps until the latest 100 training episodes had a mean return of 475."""
    name, kwargs = BASELINES[task["baseline"]]
    env = make_vec_env(task["env"], N_ENVS, seed=task["seed"])
    returns = "total" if task["baseline"] == "total returns" else "reward_to_go"
    bootstrapped = "bootstrapped" in task["baseline"]
    model = REINFORCE(
        "MlpPolicy",
        env,
        learning_rate=lambda progress: 1e-2 * progress,
        n_episodes=N_ENVS,
        returns=returns,
        baseline=name,
        baseline_kwargs=kwargs,
        n_critic_updates=0 if task["baseline"] == "value, one step" else 10,
        bootstrap_truncated=bootstrapped,
        critic_learning_rate=1e-3 if bootstrapped else 5e-4,
        stats_window_size=WINDOW,
        seed=task["seed"],
    )
    curve = LearningCurve()
    model.learn(task["n_timesteps"], curve)
    thinned = [curve.points[i] for i in np.unique(np.linspace(0, len(curve.points) - 1, 40).astype(int))]
    return {"steps_to_solve": curve.steps_to_solve, "curve": thinned}


def time_score_functions(task: Task) -> Task:
    """Seconds for ∇log π of every single step, with the policy of CartPole and two layers of 64; best of five."""
    from sb3_pg_ext.gradients.scores import ScoreFunctions
    from sb3_pg_ext.policies.inputs import PolicyInputs

    model = REINFORCE("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [64, 64]}, device="cpu")
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=(task["n_steps"], 4)).astype(np.float32), rng.integers(2, size=(task["n_steps"], 1))
    scores, seconds = ScoreFunctions(model.policy, PolicyInputs(obs), actions), []
    for _ in range(5):
        start = time.perf_counter()
        scores[:]
        seconds.append(time.perf_counter() - start)
    return {"seconds": round(min(seconds), 4), "n_parameters": scores.shape[1]}


def interval(numbers: Iterable[float]) -> tuple[float, float, float]:
    """The mean and Student's 95 % confidence interval."""
    x = np.array(list(numbers))
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x)
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def ratio(lines: list[Task], name: str, to: str) -> tuple[float, float, float]:
    """The variance by one baseline divided by that by another: geometric mean over seeds, with its interval."""
    logs = [np.log(line["statistics"][name][0] / line["statistics"][to][0]) for line in lines]
    mean, low, high = np.exp(interval(logs))
    return float(mean), float(low), float(high)


def report(lines: list[Task], images: Path) -> None:
    """Print the tables, draw the plots."""

    def of(study: str, **settings: Any) -> list[Task]:
        return [x for x in lines if x["study"] == study and settings.items() <= x.items()]

    envs = list(dict.fromkeys(line["env"] for line in of("variance")))
    for env in envs:
        print(variance_table(env, of("variance", env=env)), end="\n\n")
    of_actions = {env: of("actions", env=env) for env in dict.fromkeys(line["env"] for line in of("actions"))}
    print(actions_table(of_actions), end="\n\n")
    print(parts_table({env: of("parts", env=env) for env in of_actions}), end="\n\n")
    print(batch_size_table(of("batch_size")), end="\n\n")
    print(learning_table(of("learning", env="CartPole-v1")), end="\n\n")
    print(speed_table(of("speed")), end="\n\n")
    plot_variance({env: of("variance", env=env) for env in envs}, images / "variance.png")
    plot_actions(of_actions, images / "actions.png")
    plot_batch_sizes(of("batch_size"), images / "batch_size.png")
    plot_learning({env: of("learning", env=env) for env in envs}, images / "learning.png")


def variance_table(env: str, lines: list[Task]) -> str:
    """Markdown: ratios to rewards-to-go without a baseline, and signal-to-noise ratios."""
    rows = [f"| {env}, {len(lines)} seeds | variance | 95 % | signal-to-noise | cosine |", "|---|---|---|---|---|"]
    for name in OF_VARIANCE:
        mean, low, high = ratio(lines, name, "rewards-to-go")
        snr, cosine = (np.mean([line["statistics"][name][i] for line in lines]) for i in (1, 2))
        rows.append(f"| {name} | {mean:.3g} | {low:.3g} to {high:.3g} | {snr:.2f} | {cosine:.2f} |")
    return "\n".join(rows)


def actions_table(by_env: dict[str, list[Task]]) -> str:
    """Markdown: variances as ratios to that of V."""
    heads = (f"{env}, {len(lines)} seeds" for env, lines in by_env.items())
    rows = ["| fitted baseline | " + " | ".join(heads) + " |", "|---" * (len(by_env) + 1) + "|"]
    for name in list(OF_ACTIONS)[1:]:
        ratios = [ratio(lines, name, "value") for lines in by_env.values()]
        rows.append(f"| {name} | " + " | ".join(f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in ratios) + " |")
    return "\n".join(rows)


def parts_table(by_env: dict[str, list[Task]]) -> str:
    """Markdown: what the variance of a single step consists of, in relation to all of it without a baseline."""
    rows = ["| baseline | Σ_τ | Σ_a | Σ_s | removable |", "|---|---|---|---|---|"]
    for env, lines in by_env.items():
        of = f"{env}, " if len(by_env) > 1 else ""
        for name in OF_PARTS if len(lines) > 1 else ():
            parts = np.array([line["statistics"][name][3:] for line in lines])
            whole = np.array([sum(line["statistics"]["rewards-to-go"][3:]) for line in lines])
            cells = [f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in map(interval, (parts.T / whole))]
            share, low, high = interval(parts[:, 1] / parts.sum(axis=1))
            rows.append(f"| {of}{name} | {' | '.join(cells)} | {share:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(rows)


def plot_actions(by_env: dict[str, list[Task]], path: Path) -> None:
    """The same with one panel an environment."""
    figure, panels = plt.subplots(1, len(by_env), figsize=(4 * len(by_env), 2.8), layout="constrained", squeeze=False)
    for axes, (env, lines) in zip(panels[0], by_env.items(), strict=True):
        names = list(OF_ACTIONS)[:0:-1]
        mean, low, high = np.transpose([ratio(lines, name, "value") for name in names])
        axes.errorbar(mean, names, xerr=(mean - low, high - mean), fmt="o", color="tab:blue", capsize=3)
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set(title=f"{env}, {len(lines)} seeds", xlabel="variance of the gradient (V alone = 1)")
        axes.grid(alpha=0.3)
    for axes in panels[0, 1:]:
        axes.set_yticklabels([])
    save(figure, path)


def batch_size_table(lines: list[Task]) -> str:
    """Markdown: ratios to ``mean`` by the number of episodes."""
    sizes = sorted({line["n_episodes"] for line in lines})
    rows = [f"| episodes | {' | '.join(map(str, sizes))} |", "|---" * (len(sizes) + 1) + "|"]
    for name in FROM_THE_BATCH[1:]:
        cells = []
        for size in sizes:
            mean, low, high = ratio([line for line in lines if line["n_episodes"] == size], name, "mean")
            cells.append(f"{mean:.3g} ({low:.2g} to {high:.2g})")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def learning_table(lines: list[Task]) -> str:
    """Markdown: how many seeds were solved, when, and the mean return over the whole training."""
    header = f"| baseline | reached {SOLVED} | median steps | range | mean return of the training, 95 % |"
    rows = [header, "|---|---|---|---|---|"]
    for name in dict.fromkeys(line["baseline"] for line in lines):
        runs = [line for line in lines if line["baseline"] == name]
        steps = sorted(line["steps_to_solve"] or np.inf for line in runs)
        solved = [int(n) for n in steps if np.isfinite(n)]
        median = spaced(int(np.median(steps))) if np.isfinite(np.median(steps)) else "–"
        span = f"{spaced(solved[0])} to {spaced(solved[-1])}" if solved else "–"
        mean, low, high = interval(area(line) for line in runs)
        rows.append(
            f"| {name} | {len(solved)} of {len(runs)} | {median} | {span} | {mean:.0f} ({low:.0f} to {high:.0f}) |"
        )
    return "\n".join(rows)


def spaced(number: int) -> str:
    """A whole number, with a space between thousands."""
    return f"{number:,}".replace(",", " ")


def speed_table(lines: list[Task]) -> str:
    """Markdown: what the gradients of single steps take."""
    rows = ["| steps | parameters | s |", "|---|---|---|"]
    return "\n".join(rows + [f"| {x['n_steps']} | {x['n_parameters']} | {x['seconds']:.2f} |" for x in lines])


def area(line: Task) -> float:
    """The mean return over the steps of a training."""
    steps, returns = np.transpose(line["curve"])
    return float(np.interp(np.linspace(0, line["n_timesteps"], 1000), steps, returns).mean())


def plot_variance(by_env: dict[str, list[Task]], path: Path) -> None:
    """The ratios with their intervals, a panel an environment; what lies far beyond is written at the edge."""
    figure, panels = plt.subplots(1, len(by_env), figsize=(6 * len(by_env), 4.5), layout="constrained", squeeze=False)
    for axes, (env, lines) in zip(panels[0], by_env.items(), strict=True):
        names = OF_VARIANCE[::-1]
        mean, low, high = np.transpose([ratio(lines, name, "rewards-to-go") for name in names])
        axes.errorbar(mean, names, xerr=(mean - low, high - mean), fmt="o", color="tab:blue", capsize=3)
        axes.axvline(1, color="grey", linewidth=0.8)
        for name, x in zip(names, mean, strict=True):
            if x > 10:
                axes.text(9, name, f"{x:,.0f} →", ha="right", va="center")
        axes.set(xscale="log", xlim=(0.1, 10), xlabel="variance of the gradient (rewards-to-go = 1)")
        axes.set_title(f"{env}, {len(lines)} seeds")
        axes.set_xticks((0.1, 0.2, 0.5, 1, 2, 5, 10), ("0.1", "0.2", "0.5", "1", "2", "5", "10"))
        axes.grid(alpha=0.3)
    save(figure, path)


def plot_batch_sizes(lines: list[Task], path: Path) -> None:
    """The variance relative to that with ``mean``, against the number of episodes."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    sizes = sorted({line["n_episodes"] for line in lines})
    for name in FROM_THE_BATCH[1:]:
        ratios = [ratio([line for line in lines if line["n_episodes"] == size], name, "mean") for size in sizes]
        mean, low, high = np.transpose(ratios)
        style = "-" if "cross" in name or "leave" in name else "--"
        (drawn,) = axes.plot(sizes, mean, style, marker="o", label=name)
        axes.fill_between(sizes, low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="episodes in a batch", ylabel="variance of the gradient (mean = 1)")
    axes.set_xticks(sizes, map(str, sizes), minor=False)
    axes.minorticks_off()
    figure.legend(loc="outside right upper", fontsize="small")
    axes.grid(alpha=0.3)
    save(figure, path)


def plot_learning(by_env: dict[str, list[Task]], path: Path) -> None:
    """One panel an environment: mean returns over the seeds with their intervals."""
    figure, panels = plt.subplots(1, len(by_env), figsize=(6 * len(by_env), 5.5), layout="constrained", squeeze=False)
    for axes, (env, lines) in zip(panels[0], by_env.items(), strict=True):
        grid, n_seeds = np.linspace(0, lines[0]["n_timesteps"], 60), len({line["seed"] for line in lines})
        for name in dict.fromkeys(line["baseline"] for line in lines):
            number = OF_TRAINING.index(name)
            curves = [np.interp(grid, *np.transpose(line["curve"])) for line in lines if line["baseline"] == name]
            mean, low, high = np.transpose([interval(column) for column in np.transpose(curves)])
            axes.plot(grid, mean, STYLES[number // 5], color=f"C{number % 5}", label=name)
            axes.fill_between(grid, low, high, color=f"C{number % 6}", alpha=0.07, linewidth=0)
        axes.set(xlabel="environment steps", ylabel="return of training episodes", title=f"{env}, {n_seeds} seeds")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a plot."""
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
