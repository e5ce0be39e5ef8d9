"""Directions for one step of an actor, from one rollout: by Kronecker factors, conjugate gradients, and neither.

    python benchmarks/natural_gradients.py --plot docs/images/acktr_directions.png

An actor of HalfCheetah-v4, 64-64, is trained for 50 000 steps. Then, for rollouts of several sizes, the cosine between
each direction and (F + εI)⁻¹g, with the rollout's own F and g and ε = 0.1, solved by conjugate gradients to the end;
and the milliseconds that a direction takes, the gradient included: the median of 15, in turns, on one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from threadpoolctl import threadpool_limits

from sb3_pg_ext import ACKTR
from sb3_pg_ext.algorithms.acktr.curvature import Layer, Plain, Step
from sb3_pg_ext.envs import make_vec_env
from sb3_pg_ext.functional.surrogates import normalize
from sb3_pg_ext.functional.tensors.solvers import conjugate_gradients
from sb3_pg_ext.functional.tensors.vectors import flatten
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.minibatches import Steps

RESULTS = Path(__file__).parent / "results" / "natural_gradients.json"
DAMPING = 0.1
SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)
REPETITIONS = 15
N_ENVS = 4

Direction = Callable[[ArrayBackend, Steps], th.Tensor]
"""From the rollout to one vector, in the order of the backend's actor parameters."""


def plain(backend: ArrayBackend, steps: Steps) -> th.Tensor:
    """The gradient itself."""
    backend.evaluate_policy(steps.inputs, steps.actions)
    _, gradient = backend.policy_gradient(normalize(steps.advantages) / len(steps))
    return gradient.clone()


def by_conjugate_gradients(backend: ArrayBackend, steps: Steps, n_steps: int) -> th.Tensor:
    """As NPG has it, after so many steps."""
    gradient = plain(backend, steps)
    return conjugate_gradients(backend.fisher_product(), gradient, n_steps, DAMPING).x


def by_kronecker_factors(backend: ArrayBackend, steps: Steps, fisher: str) -> th.Tensor:
    """As ACKTR has it in its first update, the critic's factors included."""
    backend.evaluate_actions(steps.inputs, steps.actions)
    factors = backend.kronecker_factors(fisher)
    parameters, _ = backend.policy_gradient(normalize(steps.advantages) / len(steps))
    parts: list[Any] = [Layer(each, {}) for each in factors if each.of_actor]
    for layer in parts:
        layer.average(0.99)
        layer.decompose()
    parts.append(Plain(backend.policy.log_std, 2.0))
    Step.of(parts, DAMPING).write(1.0)
    return flatten(parameter.grad for parameter in parameters if parameter.grad is not None)


DIRECTIONS: dict[str, Direction] = {
    "ACKTR, exact": partial(by_kronecker_factors, fisher="exact"),
    "ACKTR, sampled": partial(by_kronecker_factors, fisher="sampled"),
    "NPG, 10 steps": partial(by_conjugate_gradients, n_steps=10),
    "NPG, to the end": partial(by_conjugate_gradients, n_steps=300),
    "plain gradient": plain,
}


def measure() -> dict[str, Any]:
    """Cosines and milliseconds by direction, a number for every size."""
    env = make_vec_env("HalfCheetah-v4", N_ENVS, seed=0)
    trained = ACKTR("MlpPolicy", env, n_steps=256, learning_rate=1.0, momentum=0.0, kfac_clip=0.06, seed=0)
    trained.learn(50_000)
    found: dict[str, Any] = {name: {"cosine": [], "milliseconds": []} for name in DIRECTIONS}
    for size in SIZES:
        model = ACKTR("MlpPolicy", env, n_steps=size // N_ENVS, learning_rate=0.0, seed=0)
        model.policy.load_state_dict(trained.policy.state_dict())
        model.learn(size)
        steps, backend = Steps.of(model.rollout_buffer, model.action_space), ArrayBackend(model.policy)
        times: dict[str, list[float]] = {name: [] for name in DIRECTIONS}
        for _ in range(REPETITIONS):
            vectors = {}
            for name, direction in DIRECTIONS.items():
                start = time.perf_counter()
                vectors[name] = direction(backend, steps).double()
                times[name].append(1000 * (time.perf_counter() - start))
        for name, vector in vectors.items():
            cosine = th.nn.functional.cosine_similarity(vector, vectors["NPG, to the end"], dim=0)
            found[name]["cosine"].append(round(float(cosine), 4))
            found[name]["milliseconds"].append(round(float(np.median(times[name])), 3))
    return {"sizes": SIZES, "damping": DAMPING, "directions": found}


def plot(results: dict[str, Any], path: Path) -> None:
    """Both against the size of the rollout."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for (name, numbers), style in zip(results["directions"].items(), ("-o", "--o", "-s", ":s", "-^"), strict=True):
        for axis, key in zip(axes, ("cosine", "milliseconds"), strict=True):
            axis.plot(results["sizes"], numbers[key], style, label=name, markersize=4)
    axes[0].set(xscale="log", ylabel="cosine to (F + εI)⁻¹g", ylim=(0, 1.03))
    axes[1].set(xscale="log", yscale="log", ylabel="ms for a direction")
    for axis in axes:
        axis.set(xlabel="steps of the rollout", xticks=results["sizes"], xticklabels=results["sizes"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    parser.add_argument("--again", action="store_true", help="measure anew, also where there are results")
    arguments = parser.parse_args()
    if arguments.again or not RESULTS.exists():
        th.set_num_threads(1)
        with threadpool_limits(1):
            RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    for name, numbers in results["directions"].items():
        print(f"{name:16}", *(f"{c:.2f} {ms:7.2f} ms |" for c, ms in zip(*numbers.values(), strict=True)))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
