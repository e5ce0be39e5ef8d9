"""Gradients of single samples, for whole batches at a time."""

from collections.abc import Sequence

import torch as th
from torch.func import vmap


def influential(outputs: th.Tensor, parameters: Sequence[th.Tensor]) -> list[th.Tensor]:
    """The parameters that something depends on, in their order.

    :param outputs: what was computed, any shape
    :param parameters: the candidates; those that require no gradient are left out
    """
    candidates = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = th.autograd.grad(outputs.sum(), candidates, retain_graph=True, allow_unused=True)
    return [parameter for parameter, gradient in zip(candidates, gradients, strict=True) if gradient is not None]


def per_sample_gradients(outputs: th.Tensor, parameters: Sequence[th.Tensor]) -> th.Tensor:
    """∇_θ f_θ(x_j) for every sample x_j of a batch, from an ordinary forward pass and a vectorised backward pass.

    The backward pass costs as much as B passes of the whole batch side by side, so that small batches are cheaper: for
    the 64-64 networks of SB3 about 64 samples. Only backward formulas are vectorised: the forward pass may branch on
    values and validate arguments.

    :param outputs: f_θ(x_j), one number for every sample, shape [B], with its graph; sample j has no influence on the
        others' numbers
    :param parameters: θ, all of which the outputs depend on
    :return: shape [B, n], the gradients with respect to all of θ, flattened and joined in the order of ``parameters``
    """
    rows = th.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)
    gradients = vmap(lambda row: th.autograd.grad(outputs, parameters, row, retain_graph=True))(rows)
    return th.cat([gradient.flatten(1) for gradient in gradients], dim=1)
