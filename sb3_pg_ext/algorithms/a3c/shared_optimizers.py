"""Optimisers whose whole state can lie in shared memory, allocated before the workers start.

They work on one flat parameter, so that a step is a few operations on one vector. Nothing is locked: where two workers
write at once, an element may lose one of the two changes, as in the paper.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch as th

from sb3_pg_ext.functional.arrays import is_finite
from sb3_pg_ext.functional.finite import NonFiniteError


class SharedOptimizer(th.optim.Optimizer):
    """What both optimisers have in common.

    :param parameter: the flat parameter, [P]
    :param defaults: options of the optimiser, ``lr`` among them
    """

    OPTIONS: ClassVar[tuple[str, ...]]

    def copy_to(self, parameter: th.nn.Parameter) -> "SharedOptimizer":
        """A copy with the same options and state for another parameter of the same shape."""
        (group,) = self.param_groups
        options = {key: value for key, value in group.items() if key in self.OPTIONS}
        copy = type(self)(parameter, **options)
        copy.take_state(self)
        return copy

    def apply(self, learning_rate: float) -> None:
        """Make one step along the parameter's gradient, without the hooks that PyTorch puts around ``step``.

        Of a gradient whose squared norm is finite no element exceeds the root of the largest number. While the step is
        not so much longer that it reaches what the largest numbers are apart from each other, it leaves every finite
        number finite, whatever others add meanwhile. Any other step is tried on copies first.

        :param learning_rate: its learning rate
        :raises NonFiniteError: if parameter or state would not be finite after it; then they are as they were
        """
        parameter, gradient, statistics = arrays = self._arrays()
        numbers = np.finfo(parameter.dtype)
        safe = float(numbers.eps) * math.sqrt(numbers.max) / 1024
        if self._stretch(learning_rate) < safe and math.isfinite(np.dot(gradient, gradient)):
            self._advance(*arrays, learning_rate)
            return
        copies = parameter.copy(), gradient, [array.copy() for array in statistics]
        self._advance(*copies, learning_rate)
        parameter_copy, _, statistics_copies = copies
        for name, array in zip(["parameters", *self.statistics], [parameter_copy, *statistics_copies], strict=True):
            if not is_finite(array):
                step = f"a step of {type(self).__name__} with learning rate {learning_rate}"
                raise NonFiniteError(f"{name} not finite after {step}")
        for array, new in zip([parameter, *statistics], [parameter_copy, *statistics_copies], strict=True):
            np.copyto(array, new)

    def _advance(
        self, parameter: np.ndarray, gradient: np.ndarray, statistics: list[np.ndarray], learning_rate: float
    ) -> None:
        """Make a step, in place.

        :param parameter: [P]
        :param gradient: [P]
        :param statistics: the state
        :param learning_rate: η
        """
        raise NotImplementedError

    def _stretch(self, learning_rate: float) -> float:
        """How many times as long as the longest gradient a step may be, whatever the state."""
        raise NotImplementedError

    @th.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step along the parameter's gradient, unless it is not finite: see :meth:`apply`."""
        with np.errstate(all="ignore"):  # non-finite values are looked for
            self.apply(self.param_groups[0]["lr"])

    @property
    def parameter(self) -> th.nn.Parameter:
        """The flat parameter."""
        return self.param_groups[0]["params"][0]

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """The parameter, its gradient and the statistics as NumPy sees them, which is faster for a small network."""
        assert self.parameter.grad is not None
        arrays = [tensor.numpy() for tensor in self.statistics.values()]
        return self.parameter.detach().numpy(), self.parameter.grad.numpy(), arrays

    @property
    def statistics(self) -> dict[str, th.Tensor]:
        """The state, by name."""
        return self.state[self.parameter]

    def hold(self, frozen: th.Tensor) -> None:
        """Let no momentum of former steps move elements of the parameter that are no longer trained.

        :param frozen: which elements, [P]
        """
        if "exp_avg" in self.statistics:
            self.statistics["exp_avg"][frozen] = 0

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

    def _stretch(self, learning_rate: float) -> float:
        """η/√ε."""
        (group,) = self.param_groups
        return abs(learning_rate) / math.sqrt(group["eps"])

    def _advance(
        self, parameter: np.ndarray, gradient: np.ndarray, statistics: list[np.ndarray], learning_rate: float
    ) -> None:
        (group,), (square_avg,) = self.param_groups, statistics
        change = gradient * gradient
        change *= 1 - group["alpha"]
        square_avg *= group["alpha"]
        square_avg += change
        np.add(square_avg, group["eps"], out=change)
        np.divide(gradient, np.sqrt(change, out=change), out=change)
        change *= learning_rate
        parameter -= change


class SharedAdam(SharedOptimizer):
    """Adam (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980) with shared moments and a shared count t of the steps.

        m ← β₁m + (1−β₁)g,   v ← β₂v + (1−β₂)g²,   θ ← θ − η·m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

    :param parameter: θ, flat, [P]
    :param lr: η
    :param betas: β₁ and β₂
    :param eps: ε
    """

    OPTIONS = ("lr", "betas", "eps")

    def __init__(
        self,
        parameter: th.nn.Parameter,
        lr: float = 7e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        super().__init__([parameter], {"lr": lr, "betas": betas, "eps": eps})
        self.state[parameter]["step"] = th.zeros((), dtype=th.int64)
        for moment in ("exp_avg", "exp_avg_sq"):
            self.state[parameter][moment] = th.zeros_like(parameter, requires_grad=False)

    def _stretch(self, learning_rate: float) -> float:
        """η/((1−β₁)ε)."""
        (group,) = self.param_groups
        return abs(learning_rate) / ((1 - group["betas"][0]) * group["eps"])

    def _advance(
        self, parameter: np.ndarray, gradient: np.ndarray, statistics: list[np.ndarray], learning_rate: float
    ) -> None:
        (group,), (step, mean, square) = self.param_groups, statistics
        step += 1
        beta1, beta2 = group["betas"]
        correction1, correction2 = (1 - beta ** int(step) for beta in group["betas"])
        change = gradient - mean
        change *= 1 - beta1
        mean += change
        np.multiply(gradient, gradient, out=change)
        change *= 1 - beta2
        square *= beta2
        square += change
        np.sqrt(square, out=change)
        change /= math.sqrt(correction2)
        change += group["eps"]
        np.divide(mean, change, out=change)
        change *= learning_rate / correction1
        parameter -= change
