"""Tensors of different shapes as one vector, and back."""

from collections.abc import Iterable, Sequence

import torch as th


def flatten(tensors: Iterable[th.Tensor]) -> th.Tensor:
    """Join tensors, flattened, to one vector [n]."""
    return th.cat([tensor.reshape(-1) for tensor in tensors])


def split_like(vector: th.Tensor, tensors: Sequence[th.Tensor]) -> list[th.Tensor]:
    """Cut a vector into pieces of the shapes of some tensors: what :func:`flatten` joined.

    :param vector: shape [n]
    :param tensors: n elements in all
    :return: views of the vector
    """
    pieces = vector.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


@th.no_grad()
def assign(parameters: Sequence[th.Tensor], vector: th.Tensor) -> None:
    """Write a vector into parameters, in place.

    :param parameters: n elements in all
    :param vector: shape [n]
    """
    for parameter, piece in zip(parameters, split_like(vector, parameters), strict=True):
        parameter.copy_(piece)
