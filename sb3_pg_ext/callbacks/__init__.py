"""Callbacks for this package's algorithms and for stock ones."""

from sb3_pg_ext.callbacks.gradient_variance import GradientStatistics, GradientVarianceCallback, gradient_statistics

__all__ = ["GradientStatistics", "GradientVarianceCallback", "gradient_statistics"]
