"""PPO with a penalty on KL(old‖new)."""

from sb3_pg_ext.algorithms.ppo_kl.ppo_kl import AdaptiveKLPPO

__all__ = ["AdaptiveKLPPO"]
