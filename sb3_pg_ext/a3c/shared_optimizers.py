"""Optimisers whose whole state can lie in shared memory, allocated before the workers start.

They work on one flat parameter, so that a step is a few operations on one vector. Nothing is locked: where two workers
write at once, an element may lose one of the two changes, as in the paper.
"""

from collections.abc import Callable
from typing import Any

import torch as th


class SharedOptimizer(th.optim.Optimizer):
    """What both optimisers have in common.

    :param parameter: the flat parameter, [P]
    :param defaults: options of the optimiser, ``lr`` among them
    """

    def copy_to(self, parameter: th.nn.Parameter) -> "SharedOptimizer":
        """A copy with the same options and state for another parameter of the same shape."""
        (group,) = self.param_groups
        options = {key: value for key, value in group.items() if key in self.OPTIONS}
        copy = type(self)(parameter, **options)
        copy.take_state(self)
        return copy

    OPTIONS: tuple[str, ...] = ()

    @property
    def parameter(self) -> th.nn.Parameter:
        """The flat parameter."""
        return self.param_groups[0]["params"][0]

    @property
    def statistics(self) -> dict[str, th.Tensor]:
        """The state, by name."""
        return self.state[self.parameter]

    def take_state(self, other: "SharedOptimizer") -> None:
        """Copy the state of another optimiser of the same class into this one's."""
        for name, tensor in self.statistics.items():
            tensor.copy_(other.statistics[name])

    def share_memory(self) -> None:
        """Move the state into shared memory."""
        for tensor in self.statistics.values():
            tensor.share_memory_()


class SharedRMSprop(SharedOptimizer):
    """RMSProp as in the A3C paper (Mnih et al., 2016, https://arxiv.org/abs/1602.01783, equations S2 and S3).

        g ← αg + (1−α)Δθ²,   θ ← θ − ηΔθ/√(g + ε)

    PyTorch's has ε outside of the root. g starts at zero.

    :param parameter: θ, flat, [P]
    :param lr: η
    :param alpha: α
    :param eps: ε, in units of the squared gradient
    """

    OPTIONS = ("lr", "alpha", "eps")

    def __init__(self, parameter: th.nn.Parameter, lr: float = 7e-4, alpha: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__([parameter], {"lr": lr, "alpha": alpha, "eps": eps})
        self.state[parameter]["square_avg"] = th.zeros_like(parameter, requires_grad=False)

    @th.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step along the parameter's gradient."""
        (group,) = self.param_groups
        gradient, square_avg = self.parameter.grad, self.statistics["square_avg"]
        assert gradient is not None
        square_avg.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        self.parameter.addcdiv_(gradient, (square_avg + group["eps"]).sqrt_(), value=-group["lr"])


class SharedAdam(SharedOptimizer, th.optim.Adam):
    """Adam (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980) with shared moments and a shared count of the steps.

    :param parameter: θ, flat, [P]
    :param lr: learning rate
    :param betas: decay of the two moments
    :param eps: ε, outside of the root
    """

    OPTIONS = ("lr", "betas", "eps")

    def __init__(
        self,
        parameter: th.nn.Parameter,
        lr: float = 7e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        th.optim.Adam.__init__(self, [parameter], lr=lr, betas=betas, eps=eps, foreach=False)
        state: dict[str, Any] = self.state[parameter]
        state["step"] = th.zeros((), dtype=th.float32)
        state["exp_avg"] = th.zeros_like(parameter, requires_grad=False)
        state["exp_avg_sq"] = th.zeros_like(parameter, requires_grad=False)
