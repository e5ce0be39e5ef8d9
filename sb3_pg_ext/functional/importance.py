"""How far importance ratios r = π(a|s) / π_old(a|s) have come from 1. NumPy, any shape."""

import numpy as np


def effective_sample_size(ratios: np.ndarray) -> float:
    """Kish's effective sample size (Σr)² / Σr² as a fraction of the number of samples: 1 if all ratios are equal.

    :param ratios: not all 0
    """
    scaled = ratios / ratios.max()  # whose squares do not overflow
    return float(scaled.mean() ** 2 / np.square(scaled).mean())


def fraction_outside(ratios: np.ndarray, clip_range: float) -> float:
    """Which fraction of the ratios lies outside [1 − ε, 1 + ε].

    :param ratios: the ratios
    :param clip_range: ε
    """
    return float((np.abs(ratios - 1) > clip_range).mean())
