"""Policy-gradient algorithms and pluggable advantage estimators for Stable-Baselines3.

A name is imported when it is first asked for: who wants one estimator, or ``sb3-pg --help``, does not wait for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sb3_pg_ext.version import __version__

if TYPE_CHECKING:
    from sb3_pg_ext.algorithms.a3c import A3C
    from sb3_pg_ext.algorithms.ac import DAC, ActorCritic
    from sb3_pg_ext.algorithms.acktr import ACKTR
    from sb3_pg_ext.algorithms.gumbel_ddpg import GumbelDDPG
    from sb3_pg_ext.algorithms.impala import IMPALA
    from sb3_pg_ext.algorithms.naf import NAF
    from sb3_pg_ext.algorithms.npg import NPG
    from sb3_pg_ext.algorithms.ppo_kl import AdaptiveKLPPO
    from sb3_pg_ext.algorithms.reinforce import REINFORCE
    from sb3_pg_ext.algorithms.sac_v import SACV
    from sb3_pg_ext.baselines import list_baselines, make_baseline
    from sb3_pg_ext.checkpoints import inspect_model, safe_load, safe_save
    from sb3_pg_ext.estimators import AdvantageEstimate, Rollout, list_estimators, make_estimator
    from sb3_pg_ext.plugins import AlgorithmSpec, BaselineSpec, EstimatorSpec, hookimpl
    from sb3_pg_ext.rollouts.buffers import EstimatorRolloutBuffer, MaskableEstimatorRolloutBuffer

__all__ = [
    "A3C",
    "ACKTR",
    "DAC",
    "IMPALA",
    "NAF",
    "NPG",
    "REINFORCE",
    "SACV",
    "ActorCritic",
    "AdaptiveKLPPO",
    "AdvantageEstimate",
    "AlgorithmSpec",
    "BaselineSpec",
    "EstimatorRolloutBuffer",
    "EstimatorSpec",
    "GumbelDDPG",
    "MaskableEstimatorRolloutBuffer",
    "Rollout",
    "__version__",
    "hookimpl",
    "inspect_model",
    "list_baselines",
    "list_estimators",
    "make_baseline",
    "make_estimator",
    "safe_load",
    "safe_save",
]

_ROOMS = {
    "algorithms.a3c": ("A3C",),
    "algorithms.ac": ("DAC", "ActorCritic"),
    "algorithms.acktr": ("ACKTR",),
    "algorithms.gumbel_ddpg": ("GumbelDDPG",),
    "algorithms.impala": ("IMPALA",),
    "algorithms.naf": ("NAF",),
    "algorithms.npg": ("NPG",),
    "algorithms.ppo_kl": ("AdaptiveKLPPO",),
    "algorithms.reinforce": ("REINFORCE",),
    "algorithms.sac_v": ("SACV",),
    "baselines": ("list_baselines", "make_baseline"),
    "checkpoints": ("inspect_model", "safe_load", "safe_save"),
    "estimators": ("AdvantageEstimate", "Rollout", "list_estimators", "make_estimator"),
    "plugins": ("AlgorithmSpec", "BaselineSpec", "EstimatorSpec", "hookimpl"),
    "rollouts.buffers": ("EstimatorRolloutBuffer", "MaskableEstimatorRolloutBuffer"),
}
"""Where each name comes from; the imports above tell the same to type checkers."""


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            globals()[name] = value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
            return value
    if name in {room.partition(".")[0] for room in _ROOMS}:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
