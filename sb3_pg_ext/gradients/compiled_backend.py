"""The array backend with one compiled function for the gradient of a minibatch."""

import math
from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional import compiling, minibatch, mlp
from sb3_pg_ext.functional.heads import Bernoulli, Categorical, DiagGaussian, Head
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Losses, Objective
from sb3_pg_ext.policies.plain_mlp import (
    ACTING_METHODS,
    VALUING_METHODS,
    UnsupportedPolicyError,
    Watch,
    check_methods,
    make_head,
    network_input,
    stock_class,
)

NO_NUMBERS = np.empty(0, np.float32)
NO_ROWS = np.empty((0, 0), np.float32)
NO_MASKS = np.empty((0, 0), bool)


class CompiledBackend(ArrayBackend):
    """Differentiates objectives by :func:`sb3_pg_ext.functional.minibatch.differentiate`, everything else by NumPy.

    :param policy: the policy
    :param gradient: as in :class:`~sb3_pg_ext.gradients.array_backend.ArrayBackend`
    :raises UnsupportedPolicyError: if PyTorch would compute something else, or numba is not installed
    """

    def __init__(self, policy: ActorCriticPolicy, gradient: np.ndarray | None = None) -> None:
        super().__init__(policy, gradient)
        if not compiling.is_available():
            raise UnsupportedPolicyError("numba is not installed")
        if self._trunk:
            raise UnsupportedPolicyError("actor and critic share layers")
        nets = self._actor, self._critic
        tables = [table for net in nets for table in _tables(net.layers, net.arrays(self._gradients))]
        kind, sizes = _kind_of(make_head(policy, np.zeros((1, len(self._actor.layers[-1].weight)), np.float32)))
        self._is_binary = kind == minibatch.BERNOULLI
        of_gaussian = NO_NUMBERS, NO_NUMBERS
        if self._log_std is not None:
            of_gaussian = self._log_std.detach().numpy(), self._gradients[self._log_std].numpy()
        self._networks = *tables, kind, sizes, *of_gaussian
        self._differentiate = compiling.compiled()
        self._distribution, self._watch = policy.action_dist, Watch(policy)

    def renew(self) -> bool:
        """Addresses of arrays are all that there is of the last update."""
        try:
            check_methods(self.policy, stock_class(self.policy), (*ACTING_METHODS, *VALUING_METHODS))
        except UnsupportedPolicyError:
            return False
        if self.policy.action_dist is not self._distribution or not self._watch.is_unchanged():
            return False
        for net in (self._actor, self._critic):
            net.forget()
        for parameter in self._gradients:
            parameter.grad = None
        self._begin()
        return True

    def differentiate(self, objective: Objective, steps: Steps) -> Losses:
        """In one go, but for masks of binary actions, which the compiled function does not have: these by NumPy."""
        masks = steps.inputs.action_masks
        if masks is not None and self._is_binary:
            return super().differentiate(objective, steps)
        penalised = bool(objective.kl_coef)
        policy, value, entropy, kl, *statistics = self._differentiate(
            *self._networks,
            _numbers(network_input(steps.inputs.observations)),
            NO_MASKS if masks is None else np.ascontiguousarray(masks, bool),
            _numbers(steps.actions),
            *map(_numbers, (steps.log_probs, steps.values, steps.advantages, steps.returns)),
            _numbers_of(steps.old) if penalised else (NO_ROWS, NO_ROWS),
            objective.ent_coef,
            objective.vf_coef,
            objective.kl_coef,
            bool(objective.normalize_advantage),
            objective.with_ratio,
            math.inf if objective.clip_range is None else objective.clip_range,
            math.inf if objective.clip_range_vf is None else objective.clip_range_vf,
        )
        self._actor.has_gradient()
        self._critic.has_gradient()
        self._leave_out_frozen()
        moved = (statistics[0], statistics[1]) if objective.has_statistics else None
        return objective.terms(policy, value, entropy, kl if penalised else None, moved)


def _numbers(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _numbers_of(old: Head) -> tuple[np.ndarray, np.ndarray]:
    match old:
        case Categorical() | Bernoulli():
            return _numbers(old.logits), _numbers(old.probs)
        case DiagGaussian():
            return _numbers(old.mean), _numbers(old.std[None])
    raise TypeError(f"No numbers of {type(old).__name__}")


def _kind_of(head: Head) -> tuple[int, np.ndarray]:
    """Which distribution it is, and how many actions every choice has."""
    match head:
        case Categorical():
            return minibatch.CATEGORICAL, np.array(head.sizes, np.int64)
        case Bernoulli():
            return minibatch.BERNOULLI, np.empty(0, np.int64)
        case DiagGaussian():
            return minibatch.GAUSSIAN, np.empty(0, np.int64)
    raise UnsupportedPolicyError(f"it acts by {type(head).__name__}")


def _tables(layers: Sequence[mlp.Layer], gradients: mlp.Parameters) -> tuple[np.ndarray, np.ndarray]:
    """A network as :mod:`sb3_pg_ext.functional.minibatch` takes it; whoever uses it keeps layers and gradients alive.

    :raises UnsupportedPolicyError: if there is an activation function that it does not have
    """
    rows, numbers = [], []
    for (weight, bias, activations), (of_weight, of_bias) in zip(layers, gradients, strict=True):
        kind, number = ("identity", 1.0) if not activations else (activations[0].kind, activations[0].number)
        if len(activations) > 1 or kind not in minibatch.ACTIVATIONS:
            raise UnsupportedPolicyError("its activation functions are not among those that are compiled")
        arrays = weight, bias, of_weight, of_bias
        if not all(array is None or (array.flags.c_contiguous and array.dtype == np.float32) for array in arrays):
            raise UnsupportedPolicyError("its parameters do not lie in order")
        addresses = [0 if array is None else array.ctypes.data for array in arrays]
        rows.append([*addresses, *weight.shape, minibatch.ACTIVATIONS.index(kind)])
        numbers.append(number)
    return np.array(rows, np.int64), np.array(numbers, np.float32)
