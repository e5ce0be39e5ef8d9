"""By how much the mean that chose the best of many models flatters it, and how often intervals hold.

    python benchmarks/best_of_many.py

Every synthetic training has ``n_evaluations`` evaluations of ``n_episodes`` episodes, whose returns are normal around
the model's true mean, with σ = 1. The model with the highest mean is the best. On a plateau all models are equally
good; on a rise the true means are 3·(1 − exp(−4k/n_evaluations)), k = 1 … n_evaluations.
"""

import argparse
from collections.abc import Callable

import numpy as np

from sb3_pg_ext.evaluation.statistics import mean_interval

CURVES: dict[str, Callable[[int], np.ndarray]] = {
    "plateau": np.zeros,
    "rise": lambda n: 3 * (1 - np.exp(-4 * np.arange(1, n + 1) / n)),
}


def simulate(curve: str, n_evaluations: int, n_episodes: int, n_studies: int, seed: int = 0) -> dict[str, float]:
    """Simulate trainings.

    :param curve: ``"plateau"`` or ``"rise"``
    :param n_evaluations: number of evaluations of a training
    :param n_episodes: number of episodes of an evaluation
    :param n_studies: number of trainings
    :param seed: of the random numbers
    :return: by how much the mean that chose the best model exceeds its true mean, and how often 95 % intervals hold
        that: of the episodes that chose it, and of as many others
    """
    rng = np.random.default_rng(seed)
    true_means = CURVES[curve](n_evaluations)
    optimism, chosen_holds, reported_holds = [], [], []
    for _ in range(n_studies):
        returns = true_means + rng.standard_normal((n_episodes, n_evaluations))
        best = int(returns.mean(axis=0).argmax())
        chosen = mean_interval(returns[:, best])
        reported = mean_interval(true_means[best] + rng.standard_normal(n_episodes))
        optimism.append(chosen.estimate - true_means[best])
        chosen_holds.append(chosen.low <= true_means[best] <= chosen.high)
        reported_holds.append(reported.low <= true_means[best] <= reported.high)
    return {
        "optimism": float(np.mean(optimism)),
        "chosen": float(np.mean(chosen_holds)),
        "reported": float(np.mean(reported_holds)),
    }


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-studies", type=int, default=2000, help="number of synthetic trainings")
    n_studies = parser.parse_args().n_studies
    print("| models | evaluations | episodes | choosing mean − true mean | its interval holds | the report's holds |")
    print("|---|---|---|---|---|---|")
    for curve in CURVES:
        for n_evaluations in (10, 50):
            for n_episodes in (5, 20, 200):
                result = simulate(curve, n_evaluations, n_episodes, n_studies)
                print(
                    f"| {curve} | {n_evaluations} | {n_episodes} | {result['optimism']:.2f} σ "
                    f"| {100 * result['chosen']:.1f} % | {100 * result['reported']:.1f} % |"
                )


if __name__ == "__main__":
    main()
