"""What the matrix products of an off-policy update leave to be won: an update beside nothing but its products.

    python benchmarks/off_policy_limits.py

Milliseconds of process time on one thread, medians of several turns: of ``train()`` with a filled replay buffer, for
SACV on Pendulum-v1 (256-256, batches of 256) and for GumbelDDPG on CartPole-v1 (64-64, batches of 64), and of NumPy's
products of the same shapes.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch as th

from sb3_pg_ext import SACV, GumbelDDPG

N_TURNS, N_UPDATES = 7, 100

Pass = tuple[list[int], str]
"""The widths of a network, and what is done with it: forward, the gradient of the weights, that of the inputs."""


def passes_of_sac_v(observations: int, actions: int, width: int) -> list[Pass]:
    """Actor, V, V', both Q for their own loss and for ã, and Q_1's gradient in the action."""
    body = [width, width]
    actor, value, q = [observations, *body, 2 * actions], [observations, *body, 1], [observations + actions, *body, 1]
    return [(actor, "fw"), (value, "fw"), (value, "f"), *[(q, "fw"), (q, "f")] * 2, (q, "i")]


def passes_of_gumbel_ddpg(observations: int, actions: int, width: int) -> list[Pass]:
    """Actor, target actor, Q for its own loss, target Q, Q for the relaxed action, and its gradient there."""
    body = [width, width]
    actor, q = [observations, *body, actions], [observations + actions, *body, 1]
    return [(actor, "fw"), (actor, "f"), (q, "fw"), (q, "f"), (q, "f"), (q, "i")]


def products(passes: list[Pass], batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The factors of every product. The gradient of weights takes those of hidden layers' outputs, too."""
    for widths, kinds in passes:
        for index, (n, m) in enumerate(pairwise(widths)):
            x, weight, gradient = (np.ones(shape, np.float32) for shape in ((batch, n), (m, n), (batch, m)))
            if "f" in kinds:
                yield x, weight.T
            if "w" in kinds:
                yield gradient.T, x
            if "i" in kinds or ("w" in kinds and index):
                yield gradient, weight


def milliseconds(run: Callable[[], object]) -> float:
    """Process time of an update."""
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start) / N_UPDATES


def row(model: Any, passes: list[Pass]) -> str:
    """A line of the table."""
    model.learn(1000)
    factors = list(products(passes, model.batch_size))

    def alone() -> None:
        for _ in range(N_UPDATES):
            for left, right in factors:
                np.dot(left, right)

    pairs = [(milliseconds(lambda: model.train(N_UPDATES)), milliseconds(alone)) for _ in range(N_TURNS)]
    update, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"| {type(model).__name__} | {update:.2f} | {bare:.2f} | {bare / update:.2f} |"


def main() -> None:
    """Measure, and print a table."""
    th.set_num_threads(1)
    rest: dict[str, Any] = {"learning_starts": 500, "device": "cpu", "seed": 0}
    sac_v = SACV("MlpPolicy", "Pendulum-v1", buffer_size=1000, train_freq=100, **rest)
    networks = {"net_arch": [64, 64]}
    gumbel_ddpg = GumbelDDPG("MlpPolicy", "CartPole-v1", buffer_size=1000, policy_kwargs=networks, **rest)
    print("| | update, ms | products alone, ms | share |\n|---|---|---|---|")
    print(row(sac_v, passes_of_sac_v(3, 1, 256)))
    print(row(gumbel_ddpg, passes_of_gumbel_ddpg(4, 2, 64)))


if __name__ == "__main__":
    main()
