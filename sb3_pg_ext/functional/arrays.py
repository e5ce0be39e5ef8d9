"""What is asked of small arrays so often that NumPy's own methods are too slow."""

import numpy as np


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity; integers and Booleans cannot.

    :param array: any shape
    """
    return array.dtype.kind != "f" or np.count_nonzero(np.isfinite(array)) == array.size  # a third of all()


def mean(numbers: np.ndarray) -> float:
    """Their mean, at a third of the cost of NumPy's method.

    :param numbers: shape [batch]
    """
    return float(numbers.sum()) / len(numbers)
