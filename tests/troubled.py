"""Environments in which things go wrong. They live in a module that workers can import."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Troubled(gym.Env[np.ndarray, Any]):
    """Random observations; at step ``at`` of its life something happens, in a worker only.

    :param trouble: ``"raise"``, ``"kill"``, ``"exit"``, ``"block"`` or ``"none"``
    :param at: at which step
    :param mark: a file; the trouble happens only if it is not there, and makes it
    :param delay: how long a step takes, in seconds
    """

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, trouble: str = "none", at: int = 50, mark: str | None = None, delay: float = 0.0) -> None:
        self.trouble, self.at, self.mark, self.delay = trouble, at, mark, delay
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        time.sleep(self.delay)
        if self.time == self.at and not (self.mark and os.path.exists(self.mark)):
            if self.mark:
                open(self.mark, "w").close()
            self._make_trouble()
        return self._observe(), 1.0, self.time % 10 == 0, False, {}

    def _make_trouble(self) -> None:
        match self.trouble:
            case "raise":
                raise ZeroDivisionError("the environment is out of order")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "block":
                time.sleep(3600)

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


class Assisted(Troubled):
    """Its observations come from a process that it starts in its constructor.

    :param folder: where that process leaves a file with its process id for a name
    :param kwargs: see :class:`Troubled`
    """

    def __init__(self, folder: str, *trouble: Any, **kwargs: Any) -> None:
        super().__init__(*trouble, **kwargs)
        context = multiprocessing.get_context("fork")
        self.connection, other = context.Pipe()
        self.assistant = context.Process(target=_assist, args=(other, folder), daemon=True)
        self.assistant.start()

    def _observe(self) -> np.ndarray:
        self.connection.send(super()._observe())
        return self.connection.recv()

    def close(self) -> None:
        self.assistant.kill()
        self.assistant.join()


def _assist(connection: Any, folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    while True:
        connection.send(connection.recv() / 2)
