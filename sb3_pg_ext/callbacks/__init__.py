"""Callbacks for training, to be given to ``learn(callback=…)``."""

from sb3_pg_ext.callbacks.diagnostics import DiagnosticsCallback
from sb3_pg_ext.callbacks.episode_eval import EpisodeEvalCallback
from sb3_pg_ext.callbacks.gradient_plots import plot_gradient_variance
from sb3_pg_ext.callbacks.gradient_variance import GradientVarianceCallback
from sb3_pg_ext.callbacks.off_policy_evaluation import OffPolicyEvaluationCallback
from sb3_pg_ext.callbacks.training_checkpoint import TrainingCheckpointCallback

__all__ = [
    "DiagnosticsCallback",
    "EpisodeEvalCallback",
    "GradientVarianceCallback",
    "OffPolicyEvaluationCallback",
    "TrainingCheckpointCallback",
    "plot_gradient_variance",
]
