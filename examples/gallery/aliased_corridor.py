"""The aliased corridor: where every deterministic policy gets stuck, and a stochastic one does not.

    python examples/gallery/aliased_corridor.py

Five cells in a row. Below the middle one is the goal, below both ends is death. The cells beside the middle look
alike, and what is right in one is wrong in the other: a policy that always does the same there never arrives from one
side. The gradient finds ½ and ½. REINFORCE needs no change for that; DQN, which acts greedily on values, stays stuck.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import REINFORCE

LEFT, RIGHT, DOWN = range(3)
APPEARANCE = (0, 1, 2, 1, 3)
"""What the cells look like: the second and the fourth are alike."""
STEP, GOAL, DEATH, TIME_LIMIT = -0.05, 1.0, -1.0, 20


class Corridor(gym.Env):
    """Five cells in a row, of which the agent sees the appearance alone. It starts beside the middle one."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Discrete(4)
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """Begin in one of the cells that look alike."""
        super().reset(seed=seed)
        self._t, self._cell = 0, int(self.np_random.choice([1, 3]))
        return APPEARANCE[self._cell], {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """Go left or right, or down, which only the ends and the middle allow."""
        self._t += 1
        if action == DOWN and self._cell in (0, 2, 4):
            return APPEARANCE[self._cell], GOAL if self._cell == 2 else DEATH, True, False, {}
        self._cell = int(np.clip(self._cell + (action == RIGHT) - (action == LEFT), 0, 4))
        return APPEARANCE[self._cell], STEP, False, self._t >= TIME_LIMIT, {}


def expected_return(right: np.ndarray) -> np.ndarray:
    """The return of a policy that goes right with these probabilities in the cells that look alike, and otherwise does
    what is best; without a time limit.
    """
    returns = []
    for p in right:
        # With cells numbered from 0: V1 = STEP + p·GOAL + (1 − p)·V0, V0 = STEP + V1, and V3, V4 likewise with 1 − p
        one, three = (STEP + q * GOAL + (1 - q) * STEP for q in (p, 1 - p))
        returns.append((one / p + three / (1 - p)) / 2)
    return np.array(returns)


class Progress(BaseCallback):
    """What a policy reaches: its return over 200 episodes, every so many steps, as it acts in the end.

    :param every: so many steps
    :param deterministic: whether it acts greedily
    """

    def __init__(self, every: int, deterministic: bool) -> None:
        super().__init__()
        self.every, self.deterministic = every, deterministic
        self.steps: list[int] = []
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        if self.num_timesteps >= len(self.steps) * self.every:
            self.steps.append(self.num_timesteps)
            self.returns.append(play(self.model, self.deterministic))
        return True


def play(model: BaseAlgorithm, deterministic: bool) -> float:
    """The mean return of 200 episodes, played side by side."""
    envs = [Corridor() for _ in range(200)]
    seen = np.array([env.reset(seed=seed)[0] for seed, env in enumerate(envs)])
    total, alive = 0.0, np.arange(len(envs))
    while len(alive):
        actions = model.predict(seen, deterministic=deterministic)[0]
        outcomes = [envs[i].step(int(action)) for i, action in zip(alive, actions, strict=True)]
        total += sum(reward for _, reward, *_ in outcomes)
        going = [not (terminated or truncated) for _, _, terminated, truncated, _ in outcomes]
        seen, alive = np.array([each[0] for each in outcomes])[going], alive[going]
    return total / len(envs)


def probabilities(model: REINFORCE) -> np.ndarray:
    """π(a|appearance), [4, 3]."""
    observations = model.policy.obs_to_tensor(np.arange(4))[0]
    distribution: Any = model.policy.get_distribution(observations).distribution
    return distribution.probs.detach().numpy()


def draw(short: bool) -> Figure:
    """The expected return against the probability, and learning curves."""
    n_steps, every, seeds = (300, 150, 1) if short else (8_000, 1000, 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    p = np.linspace(0.02, 0.98, 97)
    left.plot(p, expected_return(p), "k")
    left.set(xlabel="probability to go right in the cells that look alike", ylabel="expected return", ylim=(-3, 1))
    left.set_title("The return has its maximum inside")
    for seed in range(seeds):
        agents = {
            "REINFORCE": (
                REINFORCE(
                    "MlpPolicy",
                    Corridor(),
                    0.05,
                    n_episodes=20,
                    baseline="leave_one_out",
                    seed=seed,
                    policy_kwargs={"net_arch": []},
                ),
                False,
            ),
            "DQN": (
                DQN(
                    "MlpPolicy",
                    Corridor(),
                    1e-3,
                    learning_starts=200,
                    target_update_interval=500,
                    seed=seed,
                    exploration_fraction=0.3,
                    policy_kwargs={"net_arch": [32]},
                ),
                True,
            ),
        }
        for color, (name, (model, deterministic)) in zip(("C0", "C3"), agents.items(), strict=True):
            progress = Progress(every, deterministic)
            model.learn(n_steps, callback=progress)
            right.plot(progress.steps, progress.returns, color=color, linewidth=1, label=name if seed == 0 else None)
            print(f"{name}, seed {seed}: {progress.returns[-1]:.2f}")
            if isinstance(model, REINFORCE):
                of_alias = probabilities(model)[1]
                print(f"  in the cells that look alike: left {of_alias[LEFT]:.2f}, right {of_alias[RIGHT]:.2f}")
                x = of_alias[RIGHT] / (of_alias[LEFT] + of_alias[RIGHT])
                left.plot(
                    x, expected_return(np.array([x])), "o", color="C0", label="REINFORCE found" if seed == 0 else None
                )
    right.axhline(expected_return(np.array([0.5]))[0], color="grey", linestyle="--", label="the best policy")
    right.set(xlabel="steps", title="Return as they act in the end: sampled, and greedy")
    for axes in (left, right):
        axes.legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "aliased_corridor", draw, arguments)


if __name__ == "__main__":
    main()
