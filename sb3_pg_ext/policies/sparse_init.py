"""Initial weights of which most are zero."""

import math

import torch as th
from torch import nn

from sb3_pg_ext.arguments import check_range


class SparseInit:
    """Sets the weights of linear layers and convolutions (Elsayed, Vasan and Mahmood, 2024, "Streaming Deep
    Reinforcement Learning Finally Works").

        w ~ U(−1/√fan_in, 1/√fan_in),   ⌈sparsity·fan_in⌉ of the inputs of every unit get the weight 0,   b = 0

    Which inputs these are is drawn for every unit apart. The inputs of a unit of a convolution are all the numbers that
    one of its filters covers. ::

        SparseInit()(module)

    :param sparsity: which part of the weights is zero, in [0, 1]
    :raises ValueError: if it is another number
    """

    def __init__(self, sparsity: float = 0.9) -> None:
        check_range("sparsity", sparsity, 0, 1)
        self.sparsity = sparsity

    @th.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Set the weights of a module and of everything in it, drawn from PyTorch's global generator."""
        for each in module.modules():
            if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                weights = each.weight.flatten(1)
                fan_in = weights.shape[1]
                new = th.empty_like(weights).uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
                n_zeros = math.ceil(self.sparsity * fan_in - 1e-9)
                zeros = th.rand(weights.shape).argsort(1)[:, :n_zeros].to(new.device)
                each.weight.copy_(new.scatter_(1, zeros, 0.0).view_as(each.weight))
                if each.bias is not None:
                    each.bias.zero_()
