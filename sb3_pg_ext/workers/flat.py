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
    flat = nn.Parameter(th.empty(sum(parameter.numel() for parameter in parameters), dtype=parameters[0].dtype))
    flat.grad = th.zeros_like(flat)
    lay_out(policy, flat)
    return flat


def frozen_elements(policy: nn.Module) -> th.Tensor:
    """Which elements of such a vector belong to parameters that are not trained, [P]."""
    return th.cat([th.full((parameter.numel(),), not parameter.requires_grad) for parameter in policy.parameters()])


@th.no_grad()
def lay_out(policy: nn.Module, flat: nn.Parameter) -> None:
    """Put a policy's parameters into a vector that has room for them, and make them views of it. Again does no harm.

    :param policy: the policy
    :param flat: the vector, [P]; a copied one has no gradient, and needs none to be trained by workers
    """
    parameters = list(policy.parameters())
    flat.copy_(parameters_to_vector(parameters))
    start = 0
    for parameter in parameters:
        part = slice(start, start := start + parameter.numel())
        parameter.data = flat.data[part].view_as(parameter)
        if parameter.requires_grad and flat.grad is not None:
            parameter.grad = flat.grad[part].view_as(parameter)
