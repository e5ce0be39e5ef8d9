"""The curvature of a policy's parameters: running Kronecker factors, and what has none.

Everything that lasts is kept in the optimiser's state of a layer's weight: so it is saved, loaded and undone with it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_pg_ext.functional import kronecker
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.kronecker import Block, Eigen
from sb3_pg_ext.functional.tensors.kronecker import decompose
from sb3_pg_ext.gradients.policy_backend import LayerFactors

FACTORS = ("inputs", "outputs")

OfParameter = Callable[[th.Tensor], th.Tensor]
"""Something of a parameter, of its shape."""


def gradient_of(parameter: th.Tensor) -> th.Tensor:
    """Its gradient."""
    assert parameter.grad is not None
    return parameter.grad


def _array(tensor: th.Tensor) -> Any:
    """For NumPy, which is several times as fast with small matrices; on a GPU for PyTorch."""
    return tensor.numpy() if tensor.is_cpu else tensor


class Layer:
    """The curvature of a layer.

    :param factors: those of the latest batch
    :param state: what the optimiser remembers of the layer's weight
    """

    def __init__(self, factors: LayerFactors, state: dict[str, Any]) -> None:
        self.parameters = [p for p in (factors.weight, factors.bias) if p is not None]
        self._latest = [th.as_tensor(factor) for factor in (factors.inputs, factors.outputs)]
        self._state = state
        self._is_finite = all(math.isfinite(float(factor.sum())) for factor in self._latest)

    def average(self, decay: float) -> bool:
        """Let the batch's factors into the running averages.

        :param decay: the weight of the averages
        :return: whether it did; factors that are not finite are left out
        """
        if not self._is_finite:
            return False
        if "n_averaged" not in self._state:
            self._state |= {name: th.zeros_like(factor) for name, factor in zip(FACTORS, self._latest, strict=True)}
            self._state["n_averaged"] = th.zeros((), device=self._latest[0].device)  # where loading puts it
        count = self._state["n_averaged"]
        weight = kronecker.averaging_weight(float(count), decay)
        count += 1
        for name, factor in zip(FACTORS, self._latest, strict=True):
            self._state[name].lerp_(factor, weight)
        return True

    def is_due(self, interval: int) -> bool:
        """Whether to decompose now: after each of the first batches, and then after one in so many.

        :param interval: how many batches that is
        """
        count = int(self._state.get("n_averaged", 0))
        return count <= interval or count % interval == 0

    def decompose(self) -> bool:
        """Decompose the averages.

        :return: whether that was possible; if not, the former decomposition stays
        """
        try:
            found = {f"{name}_{key}": part for name in FACTORS for key, part in self._decomposed(name)}
        except (NonFiniteError, KeyError):  # there is no average where all factors were left out
            return False
        if self.is_decomposed:
            for key, tensor in found.items():
                self._state[key].copy_(tensor)
        else:
            self._state |= found
        return True

    def _decomposed(self, name: str) -> Iterable[tuple[str, th.Tensor]]:
        return decompose(self._state[name])._asdict().items()

    @property
    def is_decomposed(self) -> bool:
        """Whether there is a decomposition."""
        return "inputs_values" in self._state

    @property
    def block(self) -> Block:
        """The decomposition."""
        state = self._state
        return Block(*(Eigen(*(_array(state[f"{name}_{key}"]) for key in Eigen._fields)) for name in FACTORS))

    def matrix(self, of: OfParameter) -> Any:
        """Something of the weight and of the bias as one matrix, [m, n + 1], or [m, n] without a bias."""
        known = (th.zeros_like(p, requires_grad=False) if p.grad is None else of(p) for p in self.parameters)
        columns = [_array(tensor).reshape(len(tensor), -1) for tensor in known]
        if len(columns) == 1:
            return columns[0]
        concatenate: Any = np.concatenate if isinstance(columns[0], np.ndarray) else th.concatenate
        return concatenate(columns, axis=1)

    def write(self, matrix: Any) -> None:
        """Put such a matrix into the gradients."""
        start = 0
        for parameter in self.parameters:
            width = parameter.numel() // len(parameter)
            if parameter.grad is not None:
                _array(parameter.grad)[...] = matrix[:, start : start + width].reshape(parameter.shape)
            start += width

    def precondition(self, gradient: Any, damping: float) -> Any:
        """See :func:`~sb3_pg_ext.functional.kronecker.precondition`."""
        if not self.is_decomposed:
            raise NonFiniteError("Kronecker factors: none of a layer has been finite, so there is none to invert")
        return kronecker.precondition(gradient, self.block, damping)

    def curvature(self, step: Any) -> float:
        """ΔᵀFΔ by the factors of the latest batch, which do not lag behind, unless they are not finite."""
        factors = self._latest if self._is_finite else [self._state[name] for name in FACTORS]
        return kronecker.curvature(step, *map(_array, factors))


class Plain:
    """A parameter whose curvature is the same number in all directions.

    :param parameter: the parameter
    :param curvature: that number; ``None`` where it is unknown: then its step is its gradient
    """

    def __init__(self, parameter: th.Tensor, curvature: float | None) -> None:
        self.parameters = [parameter]
        self._curvature = curvature

    def matrix(self, of: OfParameter) -> Any:
        """Something of the parameter."""
        return _array(of(self.parameters[0]))

    def write(self, matrix: Any) -> None:
        """Put such an array into the gradient."""
        _array(gradient_of(self.parameters[0]))[...] = matrix

    def precondition(self, gradient: Any, damping: float) -> Any:
        """Divide by the damped curvature."""
        return gradient if self._curvature is None else gradient / (self._curvature + damping)

    def curvature(self, step: Any) -> float:
        """Its part of ΔᵀFΔ."""
        return float((step * step).sum()) * (self._curvature or 0.0)


def curvature_bound(parts: Sequence[Layer | Plain], steps: Sequence[Any]) -> float:
    """The most that ΔᵀFΔ can be, given that of each of n layers by itself: n times their sum.

    That holds for every positive semi-definite F (Cauchy-Schwarz), and there is equality where all layers change the
    output alike, to which natural gradients come near. Other parameters add theirs.

    :param parts: layers and other parameters
    :param steps: Δ of each
    """
    n_layers = sum(isinstance(part, Layer) for part in parts)
    weights = (n_layers if isinstance(part, Layer) else 1 for part in parts)
    return sum(w * part.curvature(step) for w, part, step in zip(weights, parts, steps, strict=True))


class Step(NamedTuple):
    """Preconditioned gradients Δ, and what is predicted of a step along them.

    :param parts: what they belong to
    :param matrices: Δ of each
    :param decrease: Σ Δ·∇
    :param curvature: what ΔᵀFΔ is at most
    """

    parts: Sequence[Layer | Plain]
    matrices: list[Any]
    decrease: float
    curvature: float

    @classmethod
    def of(cls, parts: Sequence[Layer | Plain], damping: float) -> "Step":
        """Precondition the gradients that there are.

        :param parts: what they belong to
        :param damping: ε
        """
        gradients = [part.matrix(gradient_of) for part in parts]
        matrices = [part.precondition(gradient, damping) for part, gradient in zip(parts, gradients, strict=True)]
        decrease = sum(float((step * gradient).sum()) for step, gradient in zip(matrices, gradients, strict=True))
        return cls(parts, matrices, decrease, curvature_bound(parts, matrices))

    @property
    def norm(self) -> float:
        """‖Δ‖."""
        return math.sqrt(sum(float((step * step).sum()) for step in self.matrices))

    def write(self, scale: float) -> None:
        """Replace the gradients by scale·Δ.

        :param scale: the factor
        """
        for part, step in zip(self.parts, self.matrices, strict=True):
            part.write(scale * step)
