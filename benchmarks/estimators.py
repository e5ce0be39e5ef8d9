"""How fast the estimators are, next to SB3's own loop over the same data.

Every round times SB3's ``RolloutBuffer.compute_returns_and_advantage`` and then each estimator in an
``EstimatorRolloutBuffer`` with the same content, so all checks of input and output are counted. What is reported is the
median over the rounds of the time and of SB3's time divided by the estimator's: load on the machine hits both alike.
"""

import argparse
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_pg_ext.estimators import Rollout, VTrace, estimate_advantages, list_estimators
from sb3_pg_ext.plugins import EstimatorSpec, registry
from sb3_pg_ext.rollouts.buffers import EstimatorRolloutBuffer

SHAPES = [(2048, 1), (128, 64)]
GAMMA, GAE_LAMBDA = 0.99, 0.95


def fill(buffer: RolloutBuffer) -> RolloutBuffer:
    """The same random rollout for every buffer; an episode ends at one step in a hundred."""
    rng = np.random.default_rng(0)
    shape = buffer.rewards.shape
    buffer.rewards[:] = rng.normal(size=shape)
    buffer.values[:] = rng.normal(size=shape)
    buffer.episode_starts[:] = rng.random(shape) < 0.01
    return buffer


def estimation_in(buffer_class: type[RolloutBuffer], shape: tuple[int, int], **kwargs: Any) -> Callable[[], object]:
    """What a stock algorithm calls at the end of a rollout."""
    buffer = fill(
        buffer_class(
            shape[0],
            spaces.Box(-1, 1, (1,)),
            spaces.Discrete(2),
            device="cpu",
            gae_lambda=GAE_LAMBDA,
            gamma=GAMMA,
            n_envs=shape[1],
            **kwargs,
        )
    )
    last_values, dones = th.zeros(shape[1]), np.zeros(shape[1], dtype=bool)
    return lambda: buffer.compute_returns_and_advantage(last_values, dones)


def vtrace_on(shape: tuple[int, int]) -> Callable[[], object]:
    """V-trace with the checks of its hosts: stock buffers have no target log-probabilities."""
    rng = np.random.default_rng(0)
    rewards, values, next_values, behaviour, target = rng.normal(size=(5, *shape)).astype(np.float32)
    terminated = rng.random(shape) < 0.01
    truncated = np.zeros(shape, dtype=bool)

    def estimate() -> object:
        rollout = Rollout(rewards, values, next_values, terminated, truncated, GAMMA, behaviour, target)
        return estimate_advantages(VTrace(), rollout)

    return estimate


def candidates(shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Everything to time, SB3's loop first."""
    found = {"SB3's loop": estimation_in(RolloutBuffer, shape)}
    for name in list_estimators():
        if not registry().find(EstimatorSpec, name).requires:
            found[name] = estimation_in(EstimatorRolloutBuffer, shape, advantage_estimator=name)
    return found | {"vtrace": vtrace_on(shape)}


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Time each function once a round; the first round warms up and is dropped."""
    times = np.empty((rounds + 1, len(functions)))
    for row in times:
        for column, function in enumerate(functions.values()):
            start = perf_counter()
            function()
            row[column] = perf_counter() - start
    times = times[1:]
    milliseconds = 1000 * np.median(times, axis=0)
    ratios = np.median(times[:, :1] / times, axis=0)
    return {
        name: {"milliseconds": float(milliseconds[i]), "times_as_fast_as_sb3": float(ratios[i])}
        for i, name in enumerate(functions)
    }


def main() -> None:
    """Print one table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="how often everything is timed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    results = {f"T={steps}, N={envs}": measure(candidates((steps, envs)), args.rounds) for steps, envs in SHAPES}
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print("| estimator |" + "".join(f" {shape} |" for shape in results))
    print("|---|" + "---:|" * len(results))
    for name in next(iter(results.values())):
        cells = (results[shape][name] for shape in results)
        print(
            f"| {name} |"
            + "".join(f" {cell['milliseconds']:.2f} ms, {cell['times_as_fast_as_sb3']:.1f}× |" for cell in cells)
        )


if __name__ == "__main__":
    main()
