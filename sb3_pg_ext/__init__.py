"""Policy-gradient algorithms and pluggable advantage estimators for Stable-Baselines3."""

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
from sb3_pg_ext.version import __version__

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

# Saved files name the classes of rollout buffers by their modules: these stay, wherever the classes are defined.
for _public in (EstimatorRolloutBuffer, MaskableEstimatorRolloutBuffer):
    _public.__module__ = __name__
