"""A training that is meant to be killed, and to be gone on with: ``killed.py ALGORITHM FOLDER``."""

import sys
from pathlib import Path

from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume

TOTAL = 2_500
ARGUMENTS = {
    PPO: {"n_steps": 64, "batch_size": 64, "n_epochs": 4, "clip_range": lambda remaining: 0.2 * remaining},
    DQN: {"buffer_size": 1500, "learning_starts": 100, "train_freq": 8, "target_update_interval": 200},
}


def train(name: str, folder: Path):
    """Begin or go on, and come to the end."""
    cls = {"PPO": PPO, "DQN": DQN}[name]
    try:
        model = resume(folder / "checkpoint")
        print("resumed at", model.num_timesteps)
    except FileNotFoundError:
        env = VecNormalize(make_vec_env("CartPole-v1", 2, monitor_dir=str(folder)))
        schedule = {"learning_rate": lambda remaining: 1e-3 * remaining}
        model = cls("MlpPolicy", env, seed=1, device="cpu", **schedule, **ARGUMENTS[cls])
    callback = TrainingCheckpointCallback(150, folder / "checkpoint")
    return model.learn(TOTAL - model.num_timesteps, callback, reset_num_timesteps=False)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2])).save(Path(sys.argv[2], "model"))
