"""The streaming actor-critic as a plain loop in PyTorch, to compare speeds with.

    python benchmarks/peers/streaming_loop.py HalfCheetah-v5 5000

Two networks of 128-128 units with LayerNorm and LeakyReLU, ``backward()`` for each, traces and ObGD parameter by
parameter, wrappers of gymnasium for normalisation. Box actions only. It makes the same update as
``ActorCritic.streaming``, but for the time feature, which stands outside of normalisation.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from torch import nn

GAMMA, LAMBDA, ENTROPY = 0.99, 0.8, 0.01


def network(n_inputs: int) -> nn.Sequential:
    """The hidden layers."""
    layers: list[nn.Module] = []
    for size in (128, 128):
        layers += [nn.Linear(n_inputs, size), nn.LayerNorm(size, elementwise_affine=False), nn.LeakyReLU()]
        n_inputs = size
    return nn.Sequential(*layers)


class Actor(nn.Module):
    """A Gaussian whose deviation is softplus of a linear function."""

    def __init__(self, n_inputs: int, n_actions: int) -> None:
        super().__init__()
        self.body = network(n_inputs)
        self.mean, self.std = nn.Linear(128, n_actions), nn.Linear(128, n_actions)

    def forward(self, obs: th.Tensor) -> th.distributions.Normal:
        """The distribution of actions."""
        latent = self.body(obs)
        return th.distributions.Normal(self.mean(latent), nn.functional.softplus(self.std(latent)))


class ObGD:
    """Traces and bounded steps."""

    def __init__(self, module: nn.Module, kappa: float) -> None:
        self.parameters = list(module.parameters())
        self.traces = [th.zeros_like(p) for p in self.parameters]
        self.kappa = kappa

    @th.no_grad()
    def step(self, delta: float, ends: bool) -> None:
        """One step with the gradients that ``backward()`` left."""
        norm = 0.0
        for parameter, trace in zip(self.parameters, self.traces, strict=True):
            trace.mul_(GAMMA * LAMBDA).add_(parameter.grad)  # type: ignore[arg-type]
            norm += trace.abs().sum().item()
        size = 1.0 / max(1.0, self.kappa * max(abs(delta), 1.0) * norm)
        for parameter, trace in zip(self.parameters, self.traces, strict=True):
            parameter.add_(trace, alpha=size * delta)
            if ends:
                trace.zero_()
            parameter.grad = None


class TimeFeature(gym.ObservationWrapper):
    """Appends t/T − ½."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        low, high = np.append(space.low, -0.5), np.append(space.high, 0.5)
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float64)
        assert env.spec is not None
        self.limit, self.t = env.spec.max_episode_steps or 1000, 0

    def reset(self, **kwargs: Any) -> Any:
        """Begin to count."""
        self.t = -1
        return super().reset(**kwargs)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Count, and append."""
        self.t += 1
        return np.append(observation, self.t / self.limit - 0.5)


def make_loop(env_id: str, seed: int = 0) -> Callable[[int], list[float]]:
    """A function that learns for so many steps more, and gives the returns of episodes so far."""
    th.manual_seed(seed)
    env: Any = gym.wrappers.RecordEpisodeStatistics(gym.make(env_id))
    env = gym.wrappers.ClipAction(env)
    env = gym.wrappers.NormalizeReward(env, gamma=GAMMA)
    env = TimeFeature(gym.wrappers.NormalizeObservation(env))
    n_inputs = env.observation_space.shape[0]
    actor, critic = Actor(n_inputs, env.action_space.shape[0]), nn.Sequential(network(n_inputs), nn.Linear(128, 1))
    of_actor, of_critic = ObGD(actor, 3.0), ObGD(critic, 2.0)
    returns: list[float] = []
    obs, _ = env.reset(seed=seed)
    x = th.as_tensor(obs, dtype=th.float32)

    def learn(n_steps: int) -> list[float]:
        nonlocal x
        for _ in range(n_steps):
            with th.no_grad():
                action = actor(x).sample()
            obs, reward, terminated, truncated, info = env.step(action.numpy())
            next_x = th.as_tensor(obs, dtype=th.float32)
            value = critic(x)
            with th.no_grad():
                target = float(reward) + (0.0 if terminated else GAMMA * critic(next_x).item())
            delta = target - value.item()
            distribution = actor(x)
            objective = distribution.log_prob(action).sum() + ENTROPY * np.sign(delta) * distribution.entropy().sum()
            value.backward()
            objective.backward()
            of_critic.step(delta, terminated or truncated)
            of_actor.step(delta, terminated or truncated)
            if terminated or truncated:
                returns.append(float(info["episode"]["r"]))
                obs, _ = env.reset()
                next_x = th.as_tensor(obs, dtype=th.float32)
            x = next_x
        return returns

    return learn


def main() -> None:
    """Learn, and print the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("steps", type=int)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    learn = make_loop(arguments.env)
    learn(200)
    start = time.perf_counter()
    learn(arguments.steps)
    print(f"{arguments.steps / (time.perf_counter() - start):.0f} steps/s")


if __name__ == "__main__":
    main()
