"""From an RL Zoo configuration to a learning curve: train an agent, evaluate it, plot how it learned."""

import argparse
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.results_plotter import X_TIMESTEPS, ts2xy, window_func

from sb3_pg_ext.zoo.evaluation import evaluate_latest_run

ALGO = "reinforce"
ENV_ID = "CartPole-v1"
N_EPISODES = 100
DESCRIPTION = (
    f"Train REINFORCE on {ENV_ID} with the shipped hyper-parameters, evaluate the trained policy with deterministic "
    f"actions on {N_EPISODES} episodes in a fresh environment, and draw the learning curve. "
    'The last line says "mean return X ± Y": Y is the standard deviation over the episodes.'
)


def main() -> None:
    """Train, evaluate and plot; the last line sums it up."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--n-timesteps", type=int, default=-1, help="training steps (default: the configuration's)")
    parser.add_argument("--folder", default="demo_logs", help="where everything is written (default: demo_logs)")
    options = parser.parse_args()

    train(options.folder, options.seed, options.n_timesteps)
    returns, run = evaluate_latest_run(ALGO, ENV_ID, options.folder, N_EPISODES, seed=options.seed + 1_000_000)
    picture = plot_learning_curve(run, Path(run) / "learning_curve.png")
    print(
        f"{ENV_ID}: mean return {np.mean(returns):.1f} ± {np.std(returns):.1f} over {len(returns)} episodes; "
        f"learning curve: {picture}"
    )


def train(folder: str, seed: int, n_timesteps: int) -> None:
    """Train as anybody would from the shell."""
    arguments = ["train", "--algo", ALGO, "--env", ENV_ID, "--log-folder", folder, "--seed", str(seed)]
    arguments += ["--n-timesteps", str(n_timesteps), "--eval-freq", "-1", "--progress"]
    print("sb3-pg", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "sb3_pg_ext.zoo", *arguments], check=True)


def plot_learning_curve(run: str, path: Path) -> Path:
    """Draw the return of every training episode, and their moving average, against the steps until its end."""
    steps, returns = ts2xy(load_results(run), X_TIMESTEPS)
    window = max(1, min(50, len(returns) // 10))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(steps, returns, ".", markersize=4, alpha=0.3, color="tab:blue", label="one episode")
    axes.plot(*window_func(steps, returns, window, np.mean), color="tab:red", label=f"mean of {window} episodes")
    axes.set(title=f"REINFORCE on {ENV_ID}", xlabel="environment steps", ylabel="training return (sum of rewards)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
