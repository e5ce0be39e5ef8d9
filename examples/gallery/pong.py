"""Pong from pixels, in a minute or two: what the agent sees, and how little it has learned by then.

    python examples/gallery/pong.py

The screen is cropped, coarsened to 40 × 40 and made black and white; the agent sees the present one and what has
changed since the last. It moves up or down, by fast.PPO with a plain network, which the NumPy engine trains. Winning
takes millions of steps and hours. This takes two minutes, and shows how much is missing. Needs ``ale-py``.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from gymnasium.utils import RecordConstructorArgs
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from sb3_pg_ext import fast
from sb3_pg_ext.envs import FastDummyVecEnv

UP_AND_DOWN = (2, 3)
BACKGROUND = 144


class Pong(gym.Wrapper, RecordConstructorArgs):
    """Pong as 2 × 40 × 40 numbers, with two actions. An observation is the screen, then its change."""

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.action_space = gym.spaces.Discrete(len(UP_AND_DOWN))
        self.observation_space = gym.spaces.Box(-1, 1, (2 * 40 * 40,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin a game to 21 points."""
        screen, info = self.env.reset(seed=seed, options=options)
        self._last = self.look(screen)
        return self.observe(self._last), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move, for four frames."""
        screen, reward, terminated, truncated, info = self.env.step(UP_AND_DOWN[action])
        return self.observe(self.look(screen)), float(reward), terminated, truncated, info

    def look(self, screen: np.ndarray) -> np.ndarray:
        """The field without the score, in squares of 4 × 4, 1 where something is in it, [40, 40]."""
        field = screen[34:194, :, 0] != BACKGROUND
        return field.reshape(40, 4, 40, 4).any((1, 3)).astype(np.float32)

    def observe(self, now: np.ndarray) -> np.ndarray:
        """The screen and its change, [3200]."""
        change, self._last = now - self._last, now
        return np.concatenate([now.ravel(), change.ravel()])


def make() -> Pong:
    """Pong with four frames a step, and no chance but the players."""
    import ale_py

    gym.register_envs(ale_py)
    return Pong(gym.make("ALE/Pong-v5", frameskip=4, repeat_action_probability=0.0))


class Games(BaseCallback):
    """Keeps the score of every game."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.scores: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.steps.append(self.num_timesteps)
                self.scores.append(info["episode"]["r"])
        return True


def draw(short: bool) -> Figure:
    """What is seen, and the scores."""
    n_steps, n_envs, rollout = (64, 1, 32) if short else (40_000, 8, 128)
    env = VecMonitor(FastDummyVecEnv([make] * n_envs))
    model = fast.PPO(
        "MlpPolicy",
        env,
        5e-4,
        n_steps=rollout,
        batch_size=32 if short else 256,
        n_epochs=4,
        ent_coef=0.01,
        engine="array",
        policy_kwargs={"net_arch": [64]},
        seed=0,
    )
    games = Games()
    model.learn(n_steps, callback=games)
    one = make()
    seen, _ = one.reset(seed=1)
    for t in range(40):
        seen = one.step(t % 2)[0]
    figure, (screen, now, change, curve) = plt.subplots(1, 4, figsize=(12, 3), width_ratios=(0.8, 1, 1, 1.6))
    game: Any = one.env.unwrapped
    screen.imshow(game.ale.getScreenRGB())
    now.imshow(seen[:1600].reshape(40, 40), cmap="gray")
    change.imshow(seen[1600:].reshape(40, 40), cmap="gray")
    for axes, title in ((screen, "the screen"), (now, "what is seen of it"), (change, "and its change")):
        axes.set(title=title, xticks=[], yticks=[])
    curve.plot(games.steps, games.scores, ".", markersize=3, color="C0")
    if len(games.scores) >= 20:
        means = np.convolve(games.scores, np.full(20, 1 / 20), "valid")
        curve.plot(games.steps[19:], means, "k", label="mean of 20 games")
        print(f"{len(games.scores)} games: the first 20 ended {means[0]:.1f} on average, the last 20 {means[-1]:.1f}")
        curve.legend(fontsize=8, loc="upper left")
    curve.locator_params(axis="x", nbins=4)
    curve.set(title="score of a game; 21 wins", xlabel="steps", ylim=(-21.5, 0))
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "pong", draw, arguments)


if __name__ == "__main__":
    main()
