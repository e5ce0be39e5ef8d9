"""Norms of the gradients along which an optimiser of PyTorch steps, whoever calls it."""

from collections.abc import Callable
from typing import Any

import torch as th


class GradientNorms:
    """Measures the norm of the gradient at every step of an optimiser, as it was before ``clip_grad_norm_``.

    Clipping scales all gradients alike. So the gradient of one parameter, seen before and after it, tells by how much;
    where that is 0 the norm is the one after clipping. A context manager: it measures within its scope.

    :param optimizer: the optimiser
    :param before_step: called with the norm before the step is made; it may change the gradient
    :param every: measure the first of so many steps
    """

    def __init__(
        self, optimizer: th.optim.Optimizer, before_step: Callable[[float], None] | None = None, every: int = 1
    ) -> None:
        self.optimizer, self.before_step, self.every = optimizer, before_step, every
        self._n_steps = 0
        self.norms: list[float] = []
        self._before: float | th.Tensor = 0.0

    def __enter__(self) -> "GradientNorms":
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._witness = parameters[-1] if parameters else None
        self._hooks: list[Any] = [self.optimizer.register_step_pre_hook(self._measure)]
        if self._witness is not None:
            self._hooks.append(self._witness.register_post_accumulate_grad_hook(self._see))
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def pop(self) -> list[float]:
        """The norms since the last call."""
        norms, self.norms = self.norms, []
        return norms

    def _see(self, parameter: th.Tensor) -> None:
        if self._n_steps % self.every:
            return
        assert parameter.grad is not None
        self._before = th.linalg.vector_norm(parameter.grad)

    def _measure(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._n_steps += 1
        if (self._n_steps - 1) % self.every:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        norms = th.stack(th._foreach_norm([p.grad for p in parameters]))
        norm = th.linalg.vector_norm(norms)
        if parameters[-1] is self._witness:
            scale = self._before / norms[-1]
            norm = th.where((norms[-1] > 0) & (scale > 1), norm * scale, norm)
        self.norms.append(float(norm))
        self._before = 0.0
        if self.before_step is not None:
            self.before_step(self.norms[-1])
