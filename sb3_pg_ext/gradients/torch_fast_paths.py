"""PyTorch without what small networks pay dearly for, scoped: what is set within is put back at the end."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from torch.optim import optimizer as torch_optimizer

from sb3_pg_ext.functional.finite import check_number

FUSED = (th.optim.Adam, th.optim.AdamW)
"""Optimisers that have a fused step on the CPU, too, from PyTorch 2.4 on."""

HAS_FUSED_ON_CPU = tuple(int(part) for part in th.__version__.split(".")[:2]) >= (2, 4)


@contextmanager
def fused_step(optimizer: th.optim.Optimizer) -> Iterator[None]:
    """Within the scope, the optimiser makes its step in one fused kernel, where PyTorch has one.

    The step is the same to rounding. Settings that a user chose (``fused``, ``foreach``, ``capturable``,
    ``differentiable``) are left alone.
    """
    groups = [group for group in optimizer.param_groups if _can_be_fused(optimizer, group)]
    for group in groups:
        group["fused"] = True
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = None


def _can_be_fused(optimizer: th.optim.Optimizer, group: dict) -> bool:
    chosen = any(group.get(key) is not None for key in ("fused", "foreach")) or any(
        group.get(key) for key in ("capturable", "differentiable")
    )
    return (
        type(optimizer) in FUSED
        and HAS_FUSED_ON_CPU
        and not chosen
        and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"])
    )


def make_step(optimizer: th.optim.Optimizer) -> Callable[[], object]:
    """What makes many steps of an optimiser in a row, whose parameters and state stay the same tensors meanwhile.

    For a plain Adam or AdamW that is, after the first step, PyTorch's fused kernel itself, on the optimiser's own
    state: ``step()`` takes five times as long, since it looks everything up anew. A plain RMSprop makes its step in one
    call for every operation. Others make their own steps.

    :param optimizer: the optimiser
    """
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    hooked = any(hooks) or "step" in vars(optimizer)
    if not hooked and type(optimizer) is th.optim.RMSprop and all(map(_is_plain, optimizer.param_groups)):
        return lambda: _step_of_rms_prop(optimizer)
    fused = [_can_be_fused(optimizer, group) or group.get("fused") for group in optimizer.param_groups]
    if hooked or type(optimizer) not in FUSED or not all(fused):
        return optimizer.step
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kernels: list[Callable[[], object]] = []
    served: list[bool] = []

    def step() -> None:
        have_gradient = [parameter.grad is not None for parameter in parameters]
        if have_gradient == served:
            for kernel in kernels:
                kernel()
            return
        optimizer.step()  # it allots its state
        served[:] = have_gradient
        groups = (group for group in optimizer.param_groups if any(p.grad is not None for p in group["params"]))
        kernels[:] = [_fused_kernel(optimizer, group) for group in groups]

    return step


def _is_plain(group: dict[str, Any]) -> bool:
    """Of RMSprop: whether there is nothing but the running mean of squares, and nothing that a user chose."""
    special = ("momentum", "weight_decay", "centered", "maximize", "capturable", "differentiable")
    chosen = any(group.get(key) for key in special) or group.get("foreach") is not None
    return not chosen and isinstance(group["lr"], float)


@th.no_grad()
def _step_of_rms_prop(optimizer: th.optim.RMSprop) -> None:
    """θ ← θ − lr·g / (√v + eps), v ← alpha·v + (1 − alpha)·g², for all parameters at once."""
    groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in optimizer.param_groups]
    if not all(optimizer.state.get(parameter) for _, parameters in groups for parameter in parameters):
        optimizer.step()  # it allots its state
        return
    for group, parameters in groups:
        if not parameters:
            continue
        states = [optimizer.state[parameter] for parameter in parameters]
        squares, gradients = [state["square_avg"] for state in states], [parameter.grad for parameter in parameters]
        th._foreach_add_([state["step"] for state in states], 1)
        th._foreach_mul_(squares, group["alpha"])
        th._foreach_addcmul_(squares, gradients, gradients, value=1 - group["alpha"])
        roots = th._foreach_sqrt(squares)
        th._foreach_add_(roots, group["eps"])
        th._foreach_addcdiv_(parameters, gradients, roots, value=-group["lr"])


def _fused_kernel(optimizer: th.optim.Optimizer, group: dict[str, Any]) -> Callable[[], None]:
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    states = [optimizer.state[parameter] for parameter in parameters]
    # Counted in one vector, of which each parameter's own count becomes a view: thirteen of them take longer than Adam.
    counts = th.stack([state["step"] for state in states])
    for state, count in zip(states, counts, strict=True):
        state["step"] = count
    moments = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
    most = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
    data, rest = [p.data for p in parameters], [*moments, most, list(counts)]
    amsgrad = group["amsgrad"]
    decoupled = type(optimizer) is th.optim.AdamW or group.get("decoupled_weight_decay")
    kernel = th._fused_adamw_ if decoupled else th._fused_adam_

    def step() -> None:
        counts.add_(1)
        beta1, beta2 = group["betas"]
        options = {name: group[name] for name in ("lr", "eps", "maximize", "weight_decay")}
        kernel(data, [p.grad for p in parameters], *rest, amsgrad=amsgrad, beta1=beta1, beta2=beta2, **options)

    return step


def clip_gradients(parameters: Iterable[th.Tensor], max_norm: float | None) -> th.Tensor:
    """``torch.nn.utils.clip_grad_norm_`` at half its cost: scale gradients down to a norm.

    :param parameters: those without a gradient are left out
    :param max_norm: the largest norm allowed; ``None`` for no clipping
    :return: the norm of all gradients together before that, a scalar
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return th.zeros(())
    norm = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)))
    if max_norm is not None:
        th._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def clip_flat_gradient(gradient: np.ndarray, max_norm: float | None) -> float:
    """The same for a gradient that is one array.

    :param gradient: [P], scaled in place
    :param max_norm: the largest norm allowed; ``None`` for no clipping
    :return: its norm before that
    :raises NonFiniteError: if that is not finite; then the gradient is as it was
    """
    norm = check_number("norm of the gradient", np.sqrt(np.dot(gradient, gradient)))
    if max_norm is not None and (factor := max_norm / (norm + 1e-6)) < 1:
        gradient *= factor
    return norm
