"""All parameters of a policy as one vector."""

import torch as th
from torch import nn
from torch.nn.utils import parameters_to_vector


def flatten(policy: nn.Module) -> nn.Parameter:
    """Lay a policy's parameters one after the other into one vector, of which they and their gradients become views.

    To take other parameters, or to make a step, is one operation on the vector then.

    :param policy: the policy; it computes as before
    :return: the vector, [P], whose ``grad`` is the vector of the gradients
    :raises ValueError: if parameters differ in type, or the policy has buffers, which have no gradient to share
    """
    parameters = list(policy.parameters())
    dtypes = {parameter.dtype for parameter in parameters}
    buffers = [name for name, _ in policy.named_buffers()]
    if len(dtypes) > 1 or buffers:
        raise ValueError(
            f"policy={type(policy).__name__} has parameters of the types {sorted(map(str, dtypes))} and the buffers "
            f"{buffers}; allowed: parameters of one type, and no buffers, such as those of batch normalisation, since "
            "workers share parameters only"
        )
    flat = nn.Parameter(parameters_to_vector(parameters).detach().clone())
    flat.grad = th.zeros_like(flat)
    start = 0
    for parameter in parameters:
        part = slice(start, start := start + parameter.numel())
        parameter.data = flat.data[part].view_as(parameter)
        if parameter.requires_grad:
            parameter.grad = flat.grad[part].view_as(parameter)
    return flat
