"""Features of small images."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_pg_ext.arguments import check_count, check_flag

KERNEL_SIZE = 3


class SmallCNN(BaseFeaturesExtractor):
    """One convolution and one linear layer, for images that are too small for SB3's ``NatureCNN``.

        h = ReLU(W · ReLU(conv(x)) + b)

    The convolution has filters of 3×3 and stride 1, without padding. It is the network of MinAtar's DQN, whose sizes
    are the defaults (Young and Tian, 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
    Reinforcement Learning Experiments"). Every algorithm of SB3 takes it as ``features_extractor_class``.

    Booleans count as 0 and 1. Integers in ``Box(0, 255, …, np.uint8)`` SB3 divides by 255, as those of all images;
    those of other boxes, such as ``Box(0, 1, …, np.uint8)``, count as they are.

    :param observation_space: a Box of three dimensions: [height, width, channels] or [channels, height, width]
    :param features_dim: number of features
    :param n_filters: number of filters of the convolution
    :param channels_last: whether the last axis holds the channels, or the first one. ``None``: the axis that a square
        image leaves over; of an image that is not square the shorter of the two; where that does not tell, the last
    :raises ValueError: if the space is no such Box, or its images are smaller than 3×3; if a number is not positive; if
        ``channels_last=True`` where the last two axes are those of a square image, as SB3 lays out images of uint8
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        features_dim: int = 128,
        n_filters: int = 16,
        channels_last: bool | None = None,
    ) -> None:
        check_count("features_dim", features_dim)
        check_count("n_filters", n_filters)
        shape = observation_space.shape if isinstance(observation_space, spaces.Box) else ()
        fits = len(shape) == 3
        if fits:
            if channels_last is None:
                channels_last = _has_channels_last(*shape)
            check_flag("channels_last", channels_last, "True, False or None")
            if channels_last and shape[0] != shape[1] == shape[2]:
                raise ValueError(
                    f"channels_last=True with images of shape {shape}, whose channels are first (SB3 transposes images "
                    "of uint8); allowed: None or False"
                )
            n_channels, *size = (shape[2], *shape[:2]) if channels_last else shape
            fits = min(size) >= KERNEL_SIZE
        if not fits:
            raise ValueError(
                f"observation_space={observation_space} with SmallCNN; allowed: a Box of three dimensions, whose "
                f"images are at least {KERNEL_SIZE}×{KERNEL_SIZE}"
            )
        super().__init__(observation_space, features_dim)
        self.channels_last = channels_last
        self.conv = nn.Conv2d(n_channels, n_filters, KERNEL_SIZE)
        height, width = (length - KERNEL_SIZE + 1 for length in size)
        self.linear = nn.Linear(height * width * n_filters, features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """From images, float32, [B, height, width, channels] or [B, channels, height, width], to [B, features_dim]."""
        images = observations.permute(0, 3, 1, 2) if self.channels_last else observations
        # PyTorch lays out the convolution's result as its input is laid out: in this order it need not be copied.
        return self.linear(self.conv(images).relu().permute(0, 2, 3, 1).flatten(1)).relu()


def _has_channels_last(first: int, middle: int, last: int) -> bool:
    if (first == middle) != (middle == last):
        return first == middle
    return last <= first
