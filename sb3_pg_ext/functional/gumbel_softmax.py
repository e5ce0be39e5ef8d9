"""Differentiable samples of discrete actions: Gumbel-softmax, soft or straight-through.

With logits l and Gumbel noise g, argmax(l + g) is a sample of softmax(l), and y = softmax((l + g)/τ) comes close to it
as τ falls (Jang et al., 2017, https://arxiv.org/abs/1611.01144). Several actions are blocks of logits side by side,
each with a softmax of its own.
"""

from collections.abc import Sequence

import numpy as np

from sb3_pg_ext.functional.heads import Categorical


class GumbelSoftmax:
    """Samples of a batch of distributions.

    :param logits: l, [B, Σ k]
    :param noise: g = −log e, with e exponentially distributed, [B, Σ k]
    :param sizes: the numbers k of choices
    :param temperature: τ
    :param straight_through: whether ``samples`` are one-hot, with the derivatives of y in place of their own

    ``samples`` are y, or one-hot, [B, Σ k].
    """

    def __init__(
        self,
        logits: np.ndarray,
        noise: np.ndarray,
        sizes: Sequence[int],
        temperature: float = 1.0,
        straight_through: bool = True,
    ) -> None:
        perturbed = logits + noise
        self._relaxed = Categorical(perturbed / logits.dtype.type(temperature), sizes)
        self._temperature = logits.dtype.type(temperature)
        self.samples = one_hot(largest(perturbed, sizes), sizes) if straight_through else self._relaxed.probs

    def vjp(self, c: np.ndarray) -> np.ndarray:
        """The gradient of Σ c·y in the logits, y·(c − Σ y·c)/τ block by block.

        :param c: [B, Σ k]
        """
        (product,) = self._relaxed.information((c,))
        return product / self._temperature


def largest(numbers: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The index of the largest number of every block, [B, blocks].

    :param numbers: [B, Σ k]
    :param sizes: the numbers k
    """
    if len(sizes) == 1:
        return numbers.argmax(1)[:, None]
    return np.stack([block.argmax(1) for block in np.split(numbers, np.cumsum(sizes)[:-1], axis=1)], axis=1)


def one_hot(choices: np.ndarray, sizes: Sequence[int], dtype: type = np.float32) -> np.ndarray:
    """One-hot vectors side by side, [B, Σ k].

    :param choices: indices, [B, blocks]
    :param sizes: the numbers k
    :param dtype: of the vectors
    """
    vectors: np.ndarray = np.zeros((len(choices), sum(sizes)), dtype)
    columns = choices.astype(np.intp, copy=False)
    if len(sizes) > 1:
        columns = columns + np.cumsum([0, *sizes[:-1]])
    vectors[np.arange(len(choices))[:, None], columns] = 1
    return vectors
