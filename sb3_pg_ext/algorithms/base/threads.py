"""Thread counts, scoped: what training sets is put back when it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch as th
from threadpoolctl import ThreadpoolController
from torch import nn

from sb3_pg_ext.policies.plain_mlp import is_dear

ENVIRONMENT_VARIABLE = "SB3_PG_EXT_THREADS"


def thread_count(policy: nn.Module) -> int | None:
    """How many threads training this policy should use; None leaves the settings alone.

    An MLP of the usual size on the CPU gets one: its matrix products are too small to share, and two runs side
    by side would fight for the cores (docs/performance.md has the measurements). Convolutions, recurrences and CUDA
    keep whatever is set. The environment variable ``SB3_PG_EXT_THREADS`` overrides: a number, or 0 for what is set.
    The decision never depends on timing, so it is the same in every run.

    :raises ValueError: if the environment variable is not an integer ≥ 0
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if override:
        if not override.isdecimal():
            raise ValueError(f"{ENVIRONMENT_VARIABLE}={override!r}; allowed: an integer ≥ 0 (0 leaves threads alone)")
        return int(override) or None
    on_cpu = all(parameter.device.type == "cpu" for parameter in policy.parameters())
    small = all(parameter.numel() <= 2**18 for parameter in policy.parameters())
    return 1 if on_cpu and small and not is_dear(policy) else None


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Within the scope, PyTorch and the BLAS behind NumPy use ``count`` threads; None changes nothing.

    PyTorch's own setting does not reach NumPy's BLAS, hence both.
    """
    if count is None:
        yield
        return
    before = th.get_num_threads()
    th.set_num_threads(count)
    try:
        with _libraries(len(sys.modules)).limit(limits=count, user_api="blas"):
            yield
    finally:
        th.set_num_threads(before)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """The libraries that have threads. To find them takes a millisecond; they are looked for anew after an import.

    :param n_modules: number of modules that are imported
    """
    return ThreadpoolController()
