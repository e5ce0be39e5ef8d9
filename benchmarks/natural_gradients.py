"""Directions for one step of an actor, from one rollout: by Kronecker factors, conjugate gradients, and neither.

    python benchmarks/natural_gradients.py --plot docs/images/acktr_directions.png
    python benchmarks/natural_gradients.py --products

An actor of HalfCheetah-v4, 64-64, is trained for 50 000 steps. Then, for rollouts of several sizes, the cosine between
each direction and (F + εI)⁻¹g, with the rollout's own F and g and ε = 0.1, solved by conjugate gradients to the end;
and the milliseconds that a direction takes, the gradient included: the median of 15, in turns, on one thread.

With ``--products`` 15 products with the Fisher matrix of 2048 states, by four ways to compute them.
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
from stable_baselines3.common.policies import ActorCriticPolicy
from threadpoolctl import threadpool_limits

from sb3_pg_ext import ACKTR
from sb3_pg_ext.algorithms.acktr.curvature import Layer, Plain, Step
from sb3_pg_ext.envs import make_vec_env
from sb3_pg_ext.functional.surrogates import normalize
from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.functional.tensors.solvers import conjugate_gradients
from sb3_pg_ext.functional.tensors.vectors import flatten, split_like
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
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


def table(results: dict[str, Any]) -> str:
    """A Markdown table of both numbers, a column for every size of the rollout."""
    lines = [
        "| cosine, ms | " + " | ".join(map(str, results["sizes"])) + " |",
        "|---" * (1 + len(results["sizes"])) + "|",
    ]
    for name, numbers in results["directions"].items():
        pairs = zip(numbers["cosine"], numbers["milliseconds"], strict=True)
        lines.append(f"| {name} | " + " | ".join(f"{c:.2f}, {ms:.1f}" for c, ms in pairs) + " |")
    return "\n".join(lines)


def by_kl_twice(policy: ActorCriticPolicy, observations: th.Tensor) -> Product:
    """F v as the derivative of (∇KL)ᵀv."""
    distribution: Any = policy.get_distribution(observations).distribution
    old = th.distributions.Normal(distribution.mean.detach(), distribution.stddev.detach())
    divergence = th.distributions.kl_divergence(old, distribution).sum(1).mean()
    parameters = actor_parameters(policy)
    gradient = flatten(th.autograd.grad(divergence, parameters, create_graph=True))
    return lambda vector: flatten(th.autograd.grad(gradient @ vector, parameters, retain_graph=True))


def by_forward_mode(policy: ActorCriticPolicy, observations: th.Tensor) -> Product:
    """F v = Jᵀ M J v, where J v is propagated beside the forward pass."""
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    parameters = {names[id(parameter)]: parameter for parameter in actor_parameters(policy)}

    class Outputs(th.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self) -> tuple[th.Tensor, th.Tensor]:
            normal: Any = self.policy.get_distribution(observations).distribution
            return normal.mean, normal.stddev

    module = Outputs()

    def outputs(values: dict[str, th.Tensor]) -> tuple[th.Tensor, th.Tensor]:
        return th.func.functional_call(module, {f"policy.{name}": value for name, value in values.items()}, ())

    of_outputs: Any = th.func.vjp(outputs, parameters)
    (_, stddev), pull_back = of_outputs

    def product(vector: th.Tensor) -> th.Tensor:
        tangent = dict(zip(parameters, split_like(vector, list(parameters.values())), strict=True))
        pushed: Any = th.func.jvp(outputs, (parameters,), (tangent,))
        _, (of_mean, of_stddev) = pushed
        (pulled,) = pull_back((of_mean / stddev**2, 2 * of_stddev / stddev**2))
        return flatten(pulled.values()) / len(observations)

    return product


def actor_parameters(policy: ActorCriticPolicy) -> list[th.nn.Parameter]:
    """Those of the plain MLP that acts, in the policy's order."""
    return [policy.log_std, *policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]


def products(n_products: int = 15, size: int = 2048) -> str:
    """A Markdown table of the times of as many products, relative to what policies get that NumPy does not take."""
    model = ACKTR("MlpPolicy", make_vec_env("HalfCheetah-v4", N_ENVS, seed=0), n_steps=size // N_ENVS, seed=0)
    model.learn(size)
    steps = Steps.of(model.rollout_buffer, model.action_space)
    backends = ArrayBackend(model.policy), AutogradBackend(model.policy)
    for backend in backends:
        backend.evaluate_policy(steps.inputs, steps.actions)
        backend.policy_gradient(normalize(steps.advantages) / size)
    observations = th.from_numpy(steps.inputs.observations)
    usual = "derivative of w ↦ Jᵀ w"
    ways = {
        "tangents propagated in NumPy": backends[0].fisher_product(),
        usual: backends[1].fisher_product(),
        "differentiating the gradient of the KL twice": by_kl_twice(model.policy, observations),
        "forward-mode differentiation": by_forward_mode(model.policy, observations),
    }
    vector = th.randn(sum(p.numel() for p in actor_parameters(model.policy)), generator=th.Generator().manual_seed(0))
    lengths = [float(product(vector).detach().norm()) for product in ways.values()]
    assert np.allclose(lengths, lengths[0], rtol=1e-3), lengths
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, product in ways.items():
            start = time.perf_counter()
            for _ in range(n_products):
                product(vector)
            times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    rows = [f"| {name} | {median / medians[usual]:.2f} |" for name, median in medians.items()]
    return "\n".join(["| | time |", "|---|---|", *rows])


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
    parser.add_argument("--products", action="store_true", help="compare products with the Fisher matrix instead")
    arguments = parser.parse_args()
    if arguments.products:
        th.set_num_threads(1)
        with threadpool_limits(1):
            print(products())
        return
    if arguments.again or not RESULTS.exists():
        th.set_num_threads(1)
        with threadpool_limits(1):
            RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    print(table(results))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
