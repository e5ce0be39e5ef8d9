"""Steps per second of RLlib's IMPALA on CartPole-v1 with two env runners, by the Python of an environment that has it.

    python -m venv rllib && rllib/bin/pip install torch 'ray[rllib]'
    rllib/bin/python benchmarks/peers/rllib_impala.py 20

So many seconds after the first 2000 steps are counted. Unrolls of 40 steps, two layers of 64 with tanh; everything else
is RLlib's default, of which an update for 500 steps is one. The last line is JSON.
"""

import json
import sys
import time
from importlib.metadata import version

from ray.rllib.algorithms.impala import IMPALAConfig

WARM_UP = 2000


def main() -> None:
    """Train, count, print."""
    config = (
        IMPALAConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, rollout_fragment_length=40)
        .learners(num_learners=0)
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
    )
    algorithm = config.build_algo()
    steps = 0
    while steps < WARM_UP:
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    steps_before, begin = steps, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < float(sys.argv[1]):
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    algorithm.stop()
    print(json.dumps({"steps_per_second": (steps - steps_before) / seconds, "ray": version("ray")}))


if __name__ == "__main__":
    main()
