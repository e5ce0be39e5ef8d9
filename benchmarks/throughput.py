"""Steps per second: this package against stock SB3 and sb3-contrib, and against the environment alone.

    python benchmarks/throughput.py             # the table of ratios
    python benchmarks/throughput.py --threads   # one thread against all
    python benchmarks/throughput.py --memory    # peak memory
    python benchmarks/throughput.py --only images-ppo images-a2c minatar-ppo
    python benchmarks/throughput.py --only images-ppo large-ppo --device cuda --output cuda.json

Every comparison runs in a process of its own, on one thread, and alternates between the two sides: A, B, A, B, … Only
ratios mean anything on a machine that others use, too: of each repetition B's neighbour A, of all of them the median.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3
import torch as th
from gymnasium import spaces
from runs import spaced, with_range
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from threadpoolctl import threadpool_limits
from torch import nn

import sb3_pg_ext
from sb3_pg_ext import ACKTR, NAF, NPG, REINFORCE, SACV, AdaptiveKLPPO, GumbelDDPG, fast
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.policies import SmallCNN

RESULTS = Path(__file__).parent / "results" / "throughput.json"
COLUMNS = [("CartPole-v1", 1), ("HalfCheetah-v5", 1), ("CartPole-v1", 8), ("HalfCheetah-v5", 8)]
MASKED = [("Masked20-v0", 8), ("Masked200-v0", 8)]
IMAGES, MINATAR, LARGE = ("Images-v0", 8), ("MinAtar/Breakout-v0", 8), ("CartPole-v1", 64)
OWN_COLUMNS = {
    "naf": [("Pendulum-v1", 1)],
    "naf-autograd": [("Pendulum-v1", 1)],
    "sac_v": [("Pendulum-v1", 1)],
    "gumbel_ddpg": [("CartPole-v1", 1)],
    "maskable_ppo": MASKED,
    "maskable_ppo-autograd": MASKED,
    "images-ppo": [IMAGES],
    "images-a2c": [IMAGES],
    "images-ppo_kl": [IMAGES],
    "images-acktr": [IMAGES],
    "minatar-ppo": [MINATAR],
    "minatar-ppo_kl": [MINATAR],
    "dict-ppo": [("Parts-v0", 8)],
    "sde-ppo": [("HalfCheetah-v5", 8)],
    "extractor-ppo": [("CartPole-v1", 8)],
    "large-ppo": [LARGE],
    "large-ppo-autograd": [LARGE],
}
"""Comparisons that are made on environments of their own instead of those in ``COLUMNS``."""

STEPS_PER_UPDATE = 2048
AT_LEAST = {"CnnPolicy": 1024}
"""So many steps a run, by the policy, where it is not two updates of the above."""

DEVICE = os.environ.get("THROUGHPUT_DEVICE", "cpu")
"""Where the policies live."""

Run = Callable[[], int]
"""Does some work and returns how many environment steps it made."""


def training(
    cls: type[BaseAlgorithm], env: VecEnv, policy: str = "MlpPolicy", n_updates: int = 2, **arguments: Any
) -> Run:
    """Whole training: rollouts and updates, at least so many of them."""
    arguments = {"n_steps": STEPS_PER_UPDATE // env.num_envs, **arguments}
    model = cls(policy, env, device=DEVICE, seed=0, **arguments)
    n_steps = max(n_updates * arguments["n_steps"] * env.num_envs, AT_LEAST.get(policy, 2 * STEPS_PER_UPDATE))

    def run() -> int:
        before = model.num_timesteps
        model.learn(n_steps, reset_num_timesteps=False)
        if DEVICE == "cuda":
            th.cuda.synchronize()
        return model.num_timesteps - before

    return run


def rollouts(cls: type[OnPolicyAlgorithm], env: VecEnv) -> Run:
    """Rollouts without updates, with values, log-probabilities and advantages."""
    n_steps = STEPS_PER_UPDATE // env.num_envs
    model = cls("MlpPolicy", env, n_steps=n_steps, device="cpu", seed=0)  # type: ignore[call-arg]
    _, callback = model._setup_learn(10**9, CallbackList([]))

    def run() -> int:
        for _ in range(2):
            model.collect_rollouts(env, callback, model.rollout_buffer, n_steps)
        return 2 * STEPS_PER_UPDATE

    return run


def training_off_policy(cls: type[OffPolicyAlgorithm], env: VecEnv) -> Run:
    """Whole training with one update a step, from batches of 256 and with networks of 200-200."""
    sizes = {"buffer_size": 10_000, "batch_size": 256, "policy_kwargs": {"net_arch": [200, 200]}}
    model = cls("MlpPolicy", env, device="cpu", seed=0, **sizes)  # type: ignore[arg-type]
    model.action_noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))

    def run() -> int:
        before = model.num_timesteps
        model.learn(500, reset_num_timesteps=False)
        return model.num_timesteps - before

    return run


def training_at_defaults(cls: type[OffPolicyAlgorithm], env: VecEnv, n_steps: int, **arguments: Any) -> Run:
    """Whole training with an algorithm's own networks, batches and updates a step, but for what is given."""
    model = cls("MlpPolicy", env, device="cpu", seed=0, buffer_size=10_000, **arguments)

    def run() -> int:
        before = model.num_timesteps
        model.learn(n_steps, reset_num_timesteps=False)
        return model.num_timesteps - before

    return run


def environment_alone(env: VecEnv) -> Run:
    """The VecEnv with actions drawn beforehand."""
    env.reset()
    rng = np.random.default_rng(0)
    env.action_space.seed(0)
    actions = [np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(64)]
    order = rng.integers(64, size=2 * STEPS_PER_UPDATE // env.num_envs)

    def run() -> int:
        for i in order:
            env.step(actions[i])
        return len(order) * env.num_envs

    return run


def lean(env: VecEnv) -> VecEnv:
    """As many of the same environments, in a ``FastDummyVecEnv``."""
    return make_vec_env(env.get_attr("spec")[0].id, env.num_envs, seed=0, vec_env_cls=FastDummyVecEnv)


def on_autograd(cls: Any) -> Any:
    """The algorithm, whose updates are differentiated by autograd."""
    return partial(cls, engine="autograd")


def sbx_ppo() -> type[BaseAlgorithm]:
    """PPO of SBX, which must be installed for that: SB3's in JAX."""
    return import_module("sbx").PPO


class TwoLayers(BaseFeaturesExtractor):
    """A features extractor that a user might have written.

    :param observation_space: a Box
    """

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 64)
        size = int(np.prod(observation_space.shape))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Features, [B, 64]."""
        return self.net(observations)


IMAGES_PPO: dict[str, Any] = {"policy": "CnnPolicy", "n_steps": 64, "batch_size": 256, "n_epochs": 4}
MINATAR_PPO = IMAGES_PPO | {
    "n_steps": 128,
    "policy_kwargs": {"features_extractor_class": SmallCNN, "net_arch": []},
}
DISCRETE: dict[str, Any] = {"batch_size": 64, "train_freq": 4, "policy_kwargs": {"net_arch": [64, 64]}}
LARGE_PPO: dict[str, Any] = {"n_steps": 64, "batch_size": 512}
EXTRACTOR: dict[str, Any] = {"policy_kwargs": {"features_extractor_class": TwoLayers}}

COMPARISONS: dict[str, tuple[str, Callable[[VecEnv], Run], Callable[[VecEnv], Run]]] = {
    "vec_env": (
        "`FastDummyVecEnv` ÷ `DummyVecEnv`",
        lambda env: environment_alone(lean(env)),
        environment_alone,
    ),
    "rollout": (
        "rollout of `fast.PPO` ÷ VecEnv alone",
        lambda env: rollouts(fast.PPO, env),
        environment_alone,
    ),
    "stock-rollout": (
        "rollout of stock PPO ÷ VecEnv alone",
        lambda env: rollouts(stable_baselines3.PPO, env),
        environment_alone,
    ),
    "reinforce": (
        "`REINFORCE` ÷ SB3 A2C",
        lambda env: training(REINFORCE, env),
        lambda env: training(stable_baselines3.A2C, env),
    ),
    "a2c": (
        "`fast.A2C` ÷ stock A2C",
        lambda env: training(fast.A2C, env),
        lambda env: training(stable_baselines3.A2C, env),
    ),
    "ppo": (
        "`fast.PPO` ÷ stock PPO",
        lambda env: training(fast.PPO, env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "ppo-lean": (
        "`fast.PPO` in a `FastDummyVecEnv` ÷ stock PPO",
        lambda env: training(fast.PPO, lean(env)),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "ppo-autograd": (
        "`fast.PPO`, autograd ÷ stock PPO",
        lambda env: training(on_autograd(fast.PPO), env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "ppo-sbx": (
        "PPO of SBX (JAX) ÷ stock PPO",
        lambda env: training(sbx_ppo(), env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "ppo_kl": (
        "`AdaptiveKLPPO` ÷ stock PPO",
        lambda env: training(AdaptiveKLPPO, env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "ppo_kl-autograd": (
        "`AdaptiveKLPPO`, autograd ÷ stock PPO",
        lambda env: training(on_autograd(AdaptiveKLPPO), env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "npg": (
        "`NPG` ÷ stock TRPO",
        lambda env: training(NPG, env),
        lambda env: training(sb3_contrib.TRPO, env),
    ),
    "npg-autograd": (
        "`NPG`, autograd ÷ stock TRPO",
        lambda env: training(on_autograd(NPG), env),
        lambda env: training(sb3_contrib.TRPO, env),
    ),
    "acktr": (
        "`ACKTR` ÷ SB3 A2C",
        lambda env: training(ACKTR, env),
        lambda env: training(stable_baselines3.A2C, env),
    ),
    "acktr-fast": (
        "`ACKTR` ÷ `fast.A2C`",
        lambda env: training(ACKTR, env),
        lambda env: training(fast.A2C, env),
    ),
    "naf": (
        "`NAF` ÷ SB3 DDPG",
        lambda env: training_off_policy(NAF, env),
        lambda env: training_off_policy(stable_baselines3.DDPG, env),
    ),
    "naf-autograd": (
        "`NAF`, autograd ÷ SB3 DDPG",
        lambda env: training_off_policy(on_autograd(NAF), env),
        lambda env: training_off_policy(stable_baselines3.DDPG, env),
    ),
    "sac_v": (
        "`SACV` ÷ SB3 SAC",
        lambda env: training_at_defaults(SACV, env, 500),
        lambda env: training_at_defaults(stable_baselines3.SAC, env, 500),
    ),
    "gumbel_ddpg": (
        "`GumbelDDPG` ÷ SB3 DQN",
        lambda env: training_at_defaults(GumbelDDPG, env, 5000, learning_starts=100, **DISCRETE),
        lambda env: training_at_defaults(stable_baselines3.DQN, env, 5000, learning_starts=100, **DISCRETE),
    ),
    "trpo": (
        "`fast.TRPO` ÷ stock TRPO",
        lambda env: training(fast.TRPO, env),
        lambda env: training(sb3_contrib.TRPO, env),
    ),
    "maskable_ppo": (
        "`fast.MaskablePPO` ÷ stock MaskablePPO",
        lambda env: training(fast.MaskablePPO, env),
        lambda env: training(sb3_contrib.MaskablePPO, env),
    ),
    "maskable_ppo-autograd": (
        "`fast.MaskablePPO`, autograd ÷ stock MaskablePPO",
        lambda env: training(on_autograd(fast.MaskablePPO), env),
        lambda env: training(sb3_contrib.MaskablePPO, env),
    ),
    "images-ppo": (
        "`fast.PPO` ÷ stock PPO, 64 steps, minibatches of 256, 4 epochs",
        lambda env: training(fast.PPO, env, **IMAGES_PPO),
        lambda env: training(stable_baselines3.PPO, env, **IMAGES_PPO),
    ),
    "images-ppo_kl": (
        "`AdaptiveKLPPO` ÷ stock PPO, the same",
        lambda env: training(AdaptiveKLPPO, env, **IMAGES_PPO),
        lambda env: training(stable_baselines3.PPO, env, **IMAGES_PPO),
    ),
    "images-a2c": (
        "`fast.A2C` ÷ stock A2C, 5 steps",
        lambda env: training(fast.A2C, env, "CnnPolicy", n_steps=5),
        lambda env: training(stable_baselines3.A2C, env, "CnnPolicy", n_steps=5),
    ),
    "images-acktr": (
        "`ACKTR` ÷ stock A2C, 20 steps",
        lambda env: training(ACKTR, env, "CnnPolicy", n_steps=20),
        lambda env: training(stable_baselines3.A2C, env, "CnnPolicy", n_steps=20),
    ),
    "minatar-ppo": (
        "`fast.PPO` ÷ stock PPO, `SmallCNN`, 128 steps, minibatches of 256, 4 epochs",
        lambda env: training(fast.PPO, env, **MINATAR_PPO),
        lambda env: training(stable_baselines3.PPO, env, **MINATAR_PPO),
    ),
    "minatar-ppo_kl": (
        "`AdaptiveKLPPO` ÷ stock PPO, the same",
        lambda env: training(AdaptiveKLPPO, env, **MINATAR_PPO),
        lambda env: training(stable_baselines3.PPO, env, **MINATAR_PPO),
    ),
    "dict-ppo": (
        "`fast.PPO` ÷ stock PPO, `MultiInputPolicy`",
        lambda env: training(fast.PPO, env, "MultiInputPolicy"),
        lambda env: training(stable_baselines3.PPO, env, "MultiInputPolicy"),
    ),
    "sde-ppo": (
        "`fast.PPO` ÷ stock PPO, gSDE",
        lambda env: training(fast.PPO, env, use_sde=True),
        lambda env: training(stable_baselines3.PPO, env, use_sde=True),
    ),
    "extractor-ppo": (
        "`fast.PPO` ÷ stock PPO, a features extractor of one's own",
        lambda env: training(fast.PPO, env, **EXTRACTOR),
        lambda env: training(stable_baselines3.PPO, env, **EXTRACTOR),
    ),
    "large-ppo": (
        "`fast.PPO` ÷ stock PPO, 64 steps, minibatches of 512",
        lambda env: training(fast.PPO, env, **LARGE_PPO),
        lambda env: training(stable_baselines3.PPO, env, **LARGE_PPO),
    ),
    "large-ppo-autograd": (
        "`fast.PPO`, autograd ÷ stock PPO, the same",
        lambda env: training(on_autograd(fast.PPO), env, **LARGE_PPO),
        lambda env: training(stable_baselines3.PPO, env, **LARGE_PPO),
    ),
}


class Masked(gymnasium.Env[np.ndarray, np.int64]):
    """States drawn beforehand. Half of the actions are allowed, and one episode in a hundred steps ends.

    :param n_actions: number of actions
    """

    N_STATES = 1000

    def __init__(self, n_actions: int) -> None:
        self.observation_space = spaces.Box(-1, 1, (8,), np.float32)
        self.action_space = spaces.Discrete(n_actions)
        rng = np.random.default_rng(0)
        self.observations = rng.uniform(-1, 1, (self.N_STATES, 8)).astype(np.float32)
        self.rewards = rng.normal(size=self.N_STATES).tolist()
        self.masks = rng.permuted(np.tile(np.arange(n_actions) % 2 == 0, (self.N_STATES, 1)), axis=1)
        self.ends = (rng.random(self.N_STATES) < 0.01).tolist()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin somewhere."""
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(self.N_STATES))
        return self.observations[self.state], {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go to the next state, whatever the action."""
        self.state = (self.state + 1) % self.N_STATES
        return self.observations[self.state], self.rewards[self.state], self.ends[self.state], False, {}

    def action_masks(self) -> np.ndarray:
        """Which actions are allowed, [n_actions]."""
        return self.masks[self.state]


def alternate(runs: dict[str, Run], repetitions: int) -> dict[str, list[float]]:
    """Steps per second of every side, in turns on one thread, after a turn to warm up."""
    speeds: dict[str, list[float]] = {side: [] for side in runs}
    with threadpool_limits(1):
        for repetition in range(repetitions + 1):
            for side, run in runs.items():
                start = time.perf_counter()
                steps = run()
                if repetition > 0:
                    speeds[side].append(steps / (time.perf_counter() - start))
    return speeds


def measure(comparison: str, env_id: str, n_envs: int, repetitions: int) -> dict[str, Any]:
    """Alternate between the two sides of a comparison and return all speeds, in steps per second."""
    th.set_num_threads(1)
    _, make_ours, make_theirs = COMPARISONS[comparison]
    runs = {
        "ours": make_ours(make_vec_env(env_id, n_envs, seed=0)),
        "theirs": make_theirs(make_vec_env(env_id, n_envs, seed=0)),
    }
    speeds = alternate(runs, repetitions)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"comparison": comparison, "env": env_id, "n_envs": n_envs, **speeds, "peak_mib": peak_mib}


class Images(gymnasium.Env[np.ndarray, np.int64]):
    """Random frames as large as Atari's, at no cost."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """A new frame."""
        super().reset(seed=seed)
        self.frame = self.np_random.integers(256, size=(4, 84, 84), dtype=np.uint8)
        return self.frame, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """The same frame; one episode in a hundred steps ends."""
        return self.frame, 1.0, bool(self.np_random.random() < 0.01), False, {}


class Parts(Masked):
    """:class:`Masked`, whose observations come in three parts.

    :param n_actions: number of actions
    """

    def __init__(self, n_actions: int) -> None:
        super().__init__(n_actions)
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {name: spaces.Box(-1, 1, (size,), np.float32) for name, size in (("a", 3), ("b", 3), ("c", 2))}
        )

    def split(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """The three parts."""
        return {"a": observation[:3], "b": observation[3:6], "c": observation[6:]}

    def reset(self, **arguments: Any) -> tuple[Any, dict]:
        """Begin somewhere."""
        observation, info = super().reset(**arguments)
        return self.split(observation), info

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict]:
        """Go to the next state."""
        observation, reward, terminated, truncated, info = super().step(action)
        return self.split(observation), reward, terminated, truncated, info


for n_actions in (20, 200):
    gymnasium.register(f"Masked{n_actions}-v0", partial(Masked, n_actions))
gymnasium.register("Parts-v0", partial(Parts, 4))
gymnasium.register("Images-v0", partial(Images))
if find_spec("minatar"):
    import_module("minatar.gym").register_envs()


MEMORY_TASKS: dict[str, tuple[str, Callable[[], VecEnv], dict[str, Any]]] = {
    "CartPole-v1 × 8": ("MlpPolicy", lambda: make_vec_env("CartPole-v1", 8, seed=0), {"n_steps": 2048}),
    "images × 8": ("CnnPolicy", lambda: make_vec_env(Images, 8, seed=0), {"n_steps": 256}),
}


def peak_memory(library: str, algorithm: str, task: str) -> float:
    """The peak memory, in MiB, of a process that trains for two updates."""
    cls = getattr({"ours": fast, "stock": stable_baselines3}[library], algorithm)
    policy, make_env, arguments = MEMORY_TASKS[task]
    epochs = {"n_epochs": 1, "batch_size": 256} if algorithm == "PPO" else {}
    model = cls(policy, make_env(), device="cpu", seed=0, **arguments, **epochs)
    model.learn(2 * model.n_steps * 8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory() -> list[dict[str, Any]]:
    """Peak memory of fast and of stock PPO, each in a process of its own."""
    results = []
    for task in MEMORY_TASKS:
        peaks = {}
        for library in ("ours", "stock"):
            command = [sys.executable, __file__, "--peak-memory", library, "PPO", task]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[library] = float(output.split()[-1])
        results.append({"task": task, **peaks})
    return results


def memory_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of peak memory."""
    lines = ["| task | `fast.PPO`, MiB | stock PPO, MiB | ratio |", "|---|---|---|---|"]
    for result in results:
        ours, stock = result["ours"], result["stock"]
        lines.append(f"| {result['task']} | {ours:.0f} | {stock:.0f} | {ours / stock:.2f} |")
    return "\n".join(lines)


def train_without_limits(n_updates: int) -> float:
    """Seconds that REINFORCE takes for some updates, on the threads that the environment variable grants."""
    model = REINFORCE("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), n_steps=512, device="cpu", seed=0)
    model.learn(1)
    start = time.perf_counter()
    model.learn(n_updates * 512 * 8)
    return time.perf_counter() - start


def measure_threads(repetitions: int) -> list[dict[str, Any]]:
    """The same training on one thread and on all, alone and with a twin beside it; all times, in seconds."""
    command = [sys.executable, __file__, "--train-without-limits", "20"]
    results: list[dict[str, Any]] = [
        {"threads": threads, "side_by_side": side_by_side, "seconds": []}
        for threads in ("1", "0")
        for side_by_side in (1, 2)
    ]
    for _ in range(repetitions):
        for result in results:
            environment = os.environ | {"SB3_PG_EXT_THREADS": result["threads"]}
            processes = [
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                for _ in range(result["side_by_side"])
            ]
            result["seconds"] += [float(process.communicate()[0].split()[-1]) for process in processes]
    return results


def threads_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the times, relative to one thread alone."""
    median = {(r["threads"], r["side_by_side"]): statistics.median(r["seconds"]) for r in results}
    lines = ["| threads | one training | two side by side |", "|---|---|---|"]
    for threads, title in (("1", "1"), ("0", "all")):
        alone, beside = (median[threads, n] / median["1", 1] for n in (1, 2))
        lines.append(f"| {title} | {alone:.2f} | {beside:.2f} |")
    return "\n".join(lines)


def table(results: list[dict[str, Any]], speeds: bool = True) -> str:
    """A Markdown table of the ratios: median, in brackets the smallest and the largest.

    :param results: what was measured
    :param speeds: with our steps a second
    """
    measured = [(result["env"], result["n_envs"]) for result in results]
    columns = [column for column in dict.fromkeys([*COLUMNS, *measured]) if column in measured]
    lines = [
        "| ratio of steps/s | " + " | ".join(f"{env_id} × {n_envs}" for env_id, n_envs in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, (title, _, _) in COMPARISONS.items():
        cells = []
        for env_id, n_envs in columns:
            found = [r for r in results if (r["comparison"], r["env"], r["n_envs"]) == (name, env_id, n_envs)]
            if found:
                ratios = [ours / theirs for ours, theirs in zip(found[0]["ours"], found[0]["theirs"], strict=True)]
                speed = f", {spaced(statistics.median(found[0]['ours']))}/s" if speeds else ""
                cells.append(f"{with_range(ratios)}{speed}")
            else:
                cells.append("")
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """What was measured."""
    modules = (sb3_pg_ext, stable_baselines3, sb3_contrib, th, np)
    return {module.__name__: module.__version__ for module in modules} | {"python": platform.python_version()}


def write(path: Path, results: list[dict[str, Any]]) -> None:
    """Write results with the versions that they were measured with."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"versions": versions(), "results": results}, indent=1) + "\n")


def renew(path: Path, results: list[dict[str, Any]]) -> None:
    """Put results in place of older ones of the same comparisons, and leave the others as they are.

    Each has the versions that it was measured with.
    """
    document = json.loads(path.read_text()) if path.exists() else {"results": []}
    older = ({"versions": document.get("versions"), **result} for result in document["results"])
    newer = ({"versions": versions(), **result} for result in results)
    by_comparison = {
        (result["comparison"], result["env"], result["n_envs"], result.get("device", "cpu")): result
        for result in (*older, *newer)
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"results": [*by_comparison.values()]}, indent=1) + "\n")


def main() -> None:
    """Run every comparison in a process of its own, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    needs = {"ppo-sbx": "sbx", "minatar-ppo": "minatar", "minatar-ppo_kl": "minatar"}
    usual = [name for name in COMPARISONS if name not in needs or find_spec(needs[name])]
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=usual, help="some comparisons (default: all)")
    parser.add_argument(
        "--columns", nargs="+", type=int, choices=range(4), default=range(4), help="some of the shared columns"
    )
    parser.add_argument("--repetitions", type=int, default=7, help="counted repetitions of each side (default: 7)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where policies live, cpu or cuda (default: cpu)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go, as JSON")
    parser.add_argument("--threads", action="store_true", help="compare one thread with all instead")
    parser.add_argument("--memory", action="store_true", help="compare peak memory instead")
    parser.add_argument("--peak-memory", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--train-without-limits", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("COMPARISON", "ENV", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error(f"--repetitions {options.repetitions}; allowed: an integer ≥ 1")
    if options.device == "cuda" and not th.cuda.is_available():
        parser.error("--device cuda without a GPU that PyTorch can use; allowed: cpu")
    if options.one:
        comparison, env_id, n_envs = options.one
        print(json.dumps(measure(comparison, env_id, int(n_envs), options.repetitions)))
        return
    if options.train_without_limits:
        print(train_without_limits(options.train_without_limits))
        return
    if options.peak_memory:
        print(peak_memory(*options.peak_memory))
        return
    if options.memory:
        results = measure_memory()
        write(options.output.with_name("memory.json"), results)
        print(memory_table(results))
        return
    if options.threads:
        results = measure_threads(options.repetitions)
        write(options.output.with_name("threads.json"), results)
        print(threads_table(results))
        return
    results = []
    for comparison in options.only:
        shared = [COLUMNS[column] for column in options.columns]
        for env_id, n_envs in OWN_COLUMNS.get(comparison, shared):
            print(f"{comparison}: {env_id} × {n_envs}", file=sys.stderr)
            command = [sys.executable, __file__, "--one", comparison, env_id, str(n_envs)]
            command += ["--repetitions", str(options.repetitions)]
            environment = os.environ | {"THROUGHPUT_DEVICE": options.device}
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            results.append(json.loads(output.splitlines()[-1]) | {"device": options.device})
    renew(options.output, results)
    print(table(results))


if __name__ == "__main__":
    main()
