"""A convolution of small images in NumPy, with its derivative."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Convolution:
    """max(0, x ∗ W + b), of stride 1 and without padding: one matrix product over all places of the filters.

    :param weight: W, [filters, channels, height, width], as PyTorch stores it; followed where it changes
    :param bias: b, [filters]; likewise
    :param shape: of an image
    :param channels_last: whether that is [height, width, channels], or [channels, height, width]
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray, shape: tuple[int, ...], channels_last: bool) -> None:
        numbers = np.arange(np.prod(shape)).reshape(shape)
        images = numbers.transpose(2, 0, 1) if channels_last else numbers
        windows = sliding_window_view(images, weight.shape[2:], axis=(1, 2)).transpose(1, 2, 0, 3, 4)
        self.weight, self.bias = weight.reshape(len(weight), -1), bias
        self.index = np.ascontiguousarray(windows.reshape(-1, self.weight.shape[1]))

    def patches(self, x: np.ndarray) -> np.ndarray:
        """What the filters see, place by place.

        :param x: flat images, [B, numbers]
        :return: [B, places, numbers of a filter]
        """
        return x.take(self.index, axis=1)

    def forward(self, patches: np.ndarray) -> np.ndarray:
        """What they make of it.

        :param patches: [B, places, numbers of a filter]
        :return: place by place, [B, places·filters]
        """
        y = np.dot(patches, self.weight.T)
        y += self.bias
        return np.maximum(y, 0, out=y).reshape(len(y), -1)

    def vjp(self, patches: np.ndarray, y: np.ndarray, cotangents: np.ndarray, out: tuple[np.ndarray, ...]) -> None:
        """The gradient of Σ_k c_k·y_k with respect to W and b, for one image.

        :param patches: [1, places, numbers of a filter]
        :param y: what :meth:`forward` made of them, [1, places·filters]
        :param cotangents: c, [1, places·filters]
        :param out: where the gradients go, in the shapes of W and b
        """
        of_weight, of_bias = out
        of_filters = (cotangents * (y > 0)).reshape(-1, len(self.bias))
        np.dot(of_filters.T, patches[0], out=of_weight.reshape(self.weight.shape))
        of_filters.sum(0, out=of_bias)
