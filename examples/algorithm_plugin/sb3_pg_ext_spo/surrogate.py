"""The mathematics of Simple Policy Optimization."""

import numpy as np

from sb3_pg_ext.functional.surrogates import Loss


def spo_loss(log_probs: np.ndarray, old_log_probs: np.ndarray, advantages: np.ndarray, epsilon: float) -> Loss:
    """The negative objective of SPO (Xie et al., 2025, https://arxiv.org/abs/2401.16025),

        −mean(r·A − |A|·(r − 1)²/(2ε)),  r = π(a|s) / π_old(a|s)

    It is least where r = 1 + ε·sign(A). Beyond that its gradient leads back, where PPO's clipped objective has none.

    :param log_probs: log π(a|s), shape [batch]
    :param old_log_probs: log π_old(a|s), shape [batch]
    :param advantages: A, shape [batch]
    :param epsilon: ε > 0
    :return: the loss, and its derivatives with respect to log π(a|s)
    """
    ratios = np.exp(log_probs - old_log_probs)
    objective = ratios * advantages - np.abs(advantages) * (ratios - 1) ** 2 / (2 * epsilon)
    of_ratios = advantages - np.abs(advantages) * (ratios - 1) / epsilon
    return Loss(-float(objective.mean()), -ratios * of_ratios / len(ratios))
