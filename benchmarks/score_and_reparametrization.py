"""The variance of the score-function gradient against that of the reparametrised one, as the reward grows rougher.

    python benchmarks/score_and_reparametrization.py --output benchmarks/results/variance --images docs/images

The policy is a Gaussian, a ~ N(θ, I), the reward a sum over its d dimensions of f(a_i) = −½a_i² + sin(k·a_i): a hill
with ripples, the finer the larger k. Of ∇_θ E Σ_i f(a_i) there are two estimates from a single action,

    score function:  (Σ_i f(a_i) − b)·(a − θ),  b = E Σ_i f(a_i)
    reparametrised:  (f'(a_1), …, f'(a_d))

whose variances are computed exactly, and estimated from samples beside. Then both are measured in SACV, whose actor can
follow either, by GradientVarianceCallback.

Results go to ``roughness.json`` in the output folder, the plot to ``roughness.png``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch as th

from sb3_pg_ext import SACV
from sb3_pg_ext.callbacks import GradientVarianceCallback

matplotlib.use("Agg")
import matplotlib.pyplot as plt

THETA = 0.5
FREQUENCIES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0]
DIMENSIONS = [1, 4, 16]
N_SAMPLES = 20_000


def reward(a: np.ndarray, k: float) -> np.ndarray:
    """f(a)."""
    return -0.5 * a**2 + np.sin(k * a)


def derivative(a: np.ndarray, k: float) -> np.ndarray:
    """f'(a)."""
    return -a + k * np.cos(k * a)


def true_gradient(k: float) -> float:
    """d/dθ E f(a) = −θ + k·cos(kθ)·exp(−k²/2): of fine ripples nothing is left."""
    return float(-THETA + k * np.cos(k * THETA) * np.exp(-k * k / 2))


def expectations(k: float) -> tuple[float, float, float]:
    """E f, Var f, and E[(f − E f)²(a − θ)²], by the trapezoidal rule, exact to rounding for such integrands."""
    z = np.linspace(-12, 12, 40_001)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    f = reward(THETA + z, k)
    mean = float(density @ f)
    centred = (f - mean) ** 2
    return mean, float(density @ centred), float(density @ (centred * z * z))


def score_variance(k: float, d: int) -> float:
    """tr Cov of the score-function estimate: every component carries the noise of all d rewards.

    With S the rewards of the other dimensions, E[(f(a_i) − E f + S − E S)² z_i²] = E[(f − E f)² z²] + (d − 1)·Var f.
    """
    _, variance, weighted = expectations(k)
    return d * (weighted + (d - 1) * variance - true_gradient(k) ** 2)


def reparametrized_variance(k: float, d: int) -> float:
    """tr Cov of the reparametrised estimate: d·Var f'(a), in closed form.

    Var cos(ka) = ½(1 + e^{−2k²}cos 2kθ) − e^{−k²}cos² kθ, and Cov(a, cos ka) = −k·e^{−k²/2}·sin kθ.
    """
    square = k * k
    of_cosine = 0.5 * (1 + np.exp(-2 * square) * np.cos(2 * k * THETA)) - np.exp(-square) * np.cos(k * THETA) ** 2
    covariance = -k * np.exp(-square / 2) * np.sin(k * THETA)
    return float(d * (1 + square * of_cosine - 2 * k * covariance))


def sampled_variances(k: float, d: int, n_samples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Both, from samples."""
    z = rng.normal(size=(n_samples, d))
    a = THETA + z
    mean, _, _ = expectations(k)
    score = (reward(a, k).sum(axis=1, keepdims=True) - d * mean) * z
    return float(score.var(axis=0, ddof=1).sum()), float(derivative(a, k).var(axis=0, ddof=1).sum())


def crossing(d: int) -> float:
    """The largest k at which the reparametrised estimate still has the smaller variance, to 0.01."""
    better = [k for k in np.arange(0, 20, 0.1) if reparametrized_variance(k, d) < score_variance(k, d)]
    fine = np.arange(better[-1], better[-1] + 0.1, 0.01)
    return float(max(k for k in fine if reparametrized_variance(k, d) < score_variance(k, d)))


def in_sac(seed: int, steps: list[int]) -> list[dict[str, Any]]:
    """The gradients of SACV's actor on Pendulum-v1, with the critic of that moment."""
    model = SACV("MlpPolicy", "Pendulum-v1", learning_starts=500, seed=seed, device="cpu")
    callback = GradientVarianceCallback(None, n_batches=40, n_states=1000, seed=seed)
    measured = []
    for n in steps:
        model.learn(n - model.num_timesteps, reset_num_timesteps=False)
        callback.init_callback(model)
        statistics = {
            name: {key: float(f"{x:.4g}") for key, x in s.numbers().items()} for name, s in callback.measure().items()
        }
        measured.append({"seed": seed, "steps": n, **statistics})
    return measured


def main() -> None:
    """Compute, sample, measure; write, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the results")
    parser.add_argument("--images", type=Path, help="folder of the plot (default: that of the results)")
    parser.add_argument("--quick", action="store_true", help="few samples and steps, to see that it works")
    options = parser.parse_args()
    th.set_num_threads(1)
    rng, n_samples = np.random.default_rng(0), 1000 if options.quick else N_SAMPLES
    rows = []
    for d in DIMENSIONS:
        for k in FREQUENCIES:
            sampled = sampled_variances(k, d, n_samples, rng)
            exact = (score_variance(k, d), reparametrized_variance(k, d))
            rows.append({"d": d, "k": k, "exact": exact, "sampled": sampled})
    steps, seeds = ([600, 700], [0]) if options.quick else ([1000, 3000, 10_000], [0, 1, 2])
    results: dict[str, Any] = {
        "theta": THETA,
        "n_samples": n_samples,
        "rows": rows,
        "crossing": {str(d): crossing(d) for d in DIMENSIONS},
        "sac_v": [line for seed in seeds for line in in_sac(seed, steps)],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "roughness.json").write_text(json.dumps(results, indent=1) + "\n")
    report(results, (options.images or options.output) / "roughness.png")


def table(results: dict[str, Any]) -> str:
    """A Markdown table of the exact variances."""
    lines = ["| k | " + " | ".join(f"d = {d}: score | reparametrised" for d in DIMENSIONS) + " |"]
    lines.append("|---" * (1 + 2 * len(DIMENSIONS)) + "|")
    by_place = {(row["d"], row["k"]): row for row in results["rows"]}
    for k in FREQUENCIES:
        cells = [f"{x:.4g}" for d in DIMENSIONS for x in by_place[d, k]["exact"]]
        lines.append(f"| {k:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def crossing_table(results: dict[str, Any]) -> str:
    """A Markdown table of where both variances are the same, as frequency and as length of a ripple."""
    lines = ["| d | k | crest to crest |", "|---|---|---|"]
    return "\n".join(lines + [f"| {d} | {k:.2f} | {2 * np.pi / k:.2f} |" for d, k in results["crossing"].items()])


def sac_table(results: dict[str, Any]) -> str:
    """A Markdown table of both gradients in SACV, by the steps of training: means over seeds, and ranges.

    That of the ratio of variances is geometric.
    """
    lines = ["| steps | seeds | variance, score ÷ reparametrised | signal-to-noise ratio, score | reparametrised |"]
    lines.append("|---|---|---|---|---|")
    by_steps: dict[int, list[dict[str, Any]]] = {}
    for line in results["sac_v"]:
        by_steps.setdefault(line["steps"], []).append(line)
    for steps, measured in by_steps.items():
        ratios = [line["score"]["variance"] / line["reparametrized"]["variance"] for line in measured]
        snrs = [[line[name]["snr"] for line in measured] for name in ("score", "reparametrized")]
        means = [np.exp(np.mean(np.log(ratios))), *map(np.mean, snrs)]
        cells = (f"{mean:.2f} ({min(x):.2f} to {max(x):.2f})" for mean, x in zip(means, [ratios, *snrs], strict=True))
        lines.append(f"| {steps} | {len(measured)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(results: dict[str, Any], path: Path) -> None:
    """The tables in Markdown, and the plot."""
    print(table(results))
    print(crossing_table(results))
    by_place = {(row["d"], row["k"]): row for row in results["rows"]}
    print(sac_table(results))
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    grid = np.linspace(0, FREQUENCIES[-1], 400)
    for d, color in zip(DIMENSIONS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        for i, (name, style, exact) in enumerate(
            (("score function", "--", score_variance), ("reparametrised", "-", reparametrized_variance))
        ):
            label = f"{name}, d = {d}"
            axes.plot(grid, [exact(k, d) / d for k in grid], style, color=color, label=label)
            axes.plot(FREQUENCIES, [by_place[d, k]["sampled"][i] / d for k in FREQUENCIES], ".", color=color)
    axes.set(yscale="log", xlabel="frequency k of the ripples", ylabel="variance of a component")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
