"""Train IMPALA with actors of a Ray cluster, or of this machine.

python examples/cluster/train.py --actors 2
python examples/cluster/train.py --actors 32 --address auto
"""

import argparse

from sb3_pg_ext import IMPALA


def main() -> None:
    """Train, and save the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--address", help="of the cluster: auto, or HOST:PORT; without it, processes of this machine")
    parser.add_argument("--n-timesteps", type=int, default=500_000)
    parser.add_argument("--output", default="impala.zip")
    options = parser.parse_args()
    on_ray = {} if options.address is None else {"backend": "ray", "ray_address": options.address}
    model = IMPALA(
        "MlpPolicy",
        options.env,
        n_actors=options.actors,
        on_worker_failure="restart",
        max_restarts=100,
        verbose=1,
        **on_ray,
    )
    try:
        model.learn(options.n_timesteps)
    finally:
        model.save(options.output)


if __name__ == "__main__":
    main()
