"""NAF and stock DDPG share one replay buffer: each learns from what both have seen.

    python examples/naf_and_ddpg.py --env Pendulum-v1 --steps 20000

The two take turns in the environment. Off-policy algorithms do not ask who made a transition, and both store the same:
the observations as they are, the actions scaled to [−1, 1].
"""

import argparse

import numpy as np
from stable_baselines3 import DDPG
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pg_ext import NAF

TURN = 1000  # steps


def build(cls: type[OffPolicyAlgorithm], env_id: str, steps: int, seed: int) -> OffPolicyAlgorithm:
    """The same settings for both."""
    model = cls(
        "MlpPolicy",
        env_id,
        learning_rate=1e-3,
        buffer_size=steps,
        learning_starts=TURN,
        gamma=0.98,
        policy_kwargs={"net_arch": [200, 200]},
        seed=seed,
        device="cpu",
    )
    shape = model.action_space.shape or ()
    model.action_noise = NormalActionNoise(np.zeros(shape), np.full(shape, 0.1))
    return model


def main() -> None:
    """Train both, evaluating them after every round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="Gymnasium id of a task with continuous actions")
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps, of both together")
    parser.add_argument("--episodes", type=int, default=5, help="episodes of each evaluation")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    naf, ddpg = (build(cls, args.env, args.steps, args.seed) for cls in (NAF, DDPG))
    ddpg.replay_buffer = naf.replay_buffer
    assert naf.replay_buffer is not None
    eval_env = make_vec_env(args.env, seed=args.seed + 1)  # those of training go on where they are
    while naf.num_timesteps + ddpg.num_timesteps < args.steps:
        for model in (naf, ddpg):
            model.learn(min(TURN, args.steps // 2), reset_num_timesteps=False)
            mean, std = evaluate_policy(model, eval_env, args.episodes)
            steps = f"{model.num_timesteps} steps of its own, {naf.replay_buffer.size()} in the buffer"
            print(f"{type(model).__name__:<4} after {steps}: {mean:.1f} ± {std:.1f}", flush=True)


if __name__ == "__main__":
    main()
