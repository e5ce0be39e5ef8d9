"""Targets for the tests of the pool. They live in a module that workers can import."""

import os
import signal
import sys
import time

import torch as th


def tell(worker):
    """Report everything that it was given, change the shared array, and end."""
    worker.shared.array[worker.index] += 1
    worker.send({"result": worker.config(5), "seed": worker.seed, "pid": os.getpid()})
    worker.send(None)


def optimize(worker):
    """Report what the first optimiser imports."""
    before = set(sys.modules)
    th.optim.SGD([th.nn.Parameter(th.zeros(1))])
    worker.send(sorted(set(sys.modules) - before))


def count(worker):
    """Count until it is to stop."""
    while not worker.stopping.array[0]:
        worker.shared.array[worker.index] += 1
        time.sleep(0.001)
    worker.shared.array[worker.index] = -1


def misbehave(worker):
    """Worker 1 does what it is told, after three reports; the others count. One that replaces it does, too."""
    if worker.index != 1:
        return count(worker)
    for _ in range(3):
        worker.shared.array[1] += 1
        worker.send(worker.seed)
    match worker.config:
        case "raise":
            raise ZeroDivisionError("out of order")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "leave":
            raise SystemExit(4)
        case "block":
            time.sleep(3600)
    return None
