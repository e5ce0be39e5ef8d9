"""A TD(λ) actor-critic whose steps are one compiled function."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_pg_ext.algorithms.ac.learner import Learner, OneStep, Settings
from sb3_pg_ext.algorithms.ac.samples import ArraySamples, Layout, SampleNet
from sb3_pg_ext.algorithms.ac.shared import SharedSamples
from sb3_pg_ext.functional import compiling, minibatch, mlp, streaming
from sb3_pg_ext.functional.eligibility import Step
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError, network_input

OPTIMIZERS = {"sgd": streaming.SGD, "obgd": streaming.OBGD, "adaptive_obgd": streaming.ADAPTIVE_OBGD}
NO_NUMBERS = np.empty(0, np.float32)


def check_compiler() -> None:
    """Refuse what would have to be compiled.

    :raises UnsupportedPolicyError: if numba is not installed
    """
    if not compiling.is_available():
        raise UnsupportedPolicyError("numba is not installed")


class CompiledSamples(ArraySamples):
    """The same as :class:`~sb3_pg_ext.algorithms.ac.samples.ArraySamples`, with tables for compiled functions.

    :raises UnsupportedPolicyError: if the policy is no plain MLP, numba is not installed, or what is asked for is not
        compiled
    """

    def __init__(self, *args: Any, settings: Settings) -> None:
        super().__init__(*args)
        if settings.critic != "v":
            raise UnsupportedPolicyError(f"critic={settings.critic!r} is not compiled")
        if settings.averages:
            raise UnsupportedPolicyError("averages over environments are not compiled")
        check_compiler()
        self.actor_table, self.critic_table = _table(self.actor_net, self.actor), _table(self.critic_net, self.critic)
        self.memories = tuple(_memory(table, net) for table, net in self._tables)
        self.learn, self._predict = compiling.compiled_streaming()

    @property
    def _tables(self) -> list[tuple[np.ndarray, SampleNet]]:
        return [(self.actor_table[0], self.actor_net), (self.critic_table[0], self.critic_net)]

    def act(self, inputs: PolicyInputs) -> np.ndarray:
        """By a compiled pass for every environment."""
        x = network_input(inputs.observations)
        table, memory = self.actor_table, self.memories[0]
        return self.sample(np.array([self._predict(*table, memory, row).copy() for row in x]))


class CompiledLearner(Learner):
    """Learns from one transition in one call."""

    backend: CompiledSamples

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        settings, backend = self.settings, self.backend
        self._out = np.zeros(8)
        self._moments = self.moments.get("actor", NO_NUMBERS), self.moments.get("critic", NO_NUMBERS)
        self._networks = *backend.actor_table, *backend.critic_table, *backend.memories, backend.kind, backend.sizes
        self._chosen = (
            float(settings.ent_coef),
            OPTIMIZERS[settings.optimizer],
            (float(self.actor_rate), float(self.critic_rate)),
            (float(settings.actor_kappa), float(settings.critic_kappa)),
            float(settings.beta2),
        )
        self._decays = float(settings.gamma), float(settings.gamma * settings.trace_lambda)
        self._of_env = [(self.traces["actor"][i], self.traces["critic"][i]) for i in range(len(self.traces["actor"]))]

    def _td(self, step: OneStep) -> None:
        out = self._out
        problem = self.backend.learn(
            *self._networks,
            network_input(step.inputs.observations)[0],
            step.actions[0].astype(np.float32, copy=False),
            step.reward,
            step.terminated,
            network_input(step.next_inputs.observations)[0],
            self._of_env[step.i],
            self._moments,
            *self._decays,
            float(self.discounts[step.i]),
            *self._chosen,
            1.0 - self.settings.beta2**self.n_updates,
            float(self.settings.optimizer_eps),
            out,
        )
        delta, value, log_prob, entropy, *sizes, actor_length, critic_length = out.tolist()
        if problem == 1:
            raise NonFiniteError(f"TD error {delta}")
        if problem:
            raise NonFiniteError(f"step: the sums of its absolute values are {actor_length} and {critic_length}")
        direction = NO_NUMBERS
        steps = {
            "actor": Step(delta, direction, sizes[0], actor_length),
            "critic": Step(delta, direction, sizes[1], critic_length),
        }
        self._count(delta, value, log_prob, entropy, steps)


class CompiledTrace:
    """Beside :class:`~sb3_pg_ext.algorithms.ac.samples.ArraySamples` or one of its subclasses: what
    ``optimizer="rmsprop"`` does, for compiled functions.

    :raises UnsupportedPolicyError: if the policy is not done in NumPy, numba is not installed, or averages over
        environments are asked for
    """

    both: Layout
    parts: tuple[SampleNet | None, SampleNet, SampleNet]
    sample: Callable[[np.ndarray], np.ndarray]

    def __init__(self, *args: Any, settings: Settings) -> None:
        super().__init__(*args)
        if settings.averages:
            raise UnsupportedPolicyError("averages over environments are not compiled")
        check_compiler()
        self.trunk_part, self.actor_part, self.critic_part = (_part(net, self.both) for net in self.parts)
        self.convolution, self.places = _convolution(self.parts[0], self.both)
        self.learn, self._predict = compiling.compiled_shared_trace()

    def act(self, inputs: PolicyInputs) -> np.ndarray:
        """By a compiled pass for every environment."""
        x = network_input(inputs.observations)
        parts = self.convolution, self.trunk_part, self.actor_part
        return self.sample(np.array([self._predict(*parts, row).copy() for row in x]))


class CompiledTraceSamples(CompiledTrace, ArraySamples):
    """Of actor and critic apart."""


class CompiledSharedSamples(CompiledTrace, SharedSamples):
    """Where they share layers."""


class CompiledTraceLearner(Learner):
    """Learns from one transition in one call, with one trace for all parameters."""

    backend: CompiledTraceSamples | CompiledSharedSamples

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        backend = self.backend
        self._out = np.zeros(5)
        self._parts = backend.convolution, backend.places, backend.trunk_part, backend.actor_part, backend.critic_part
        self._direction = np.zeros(backend.both.size, np.float32)

    def _shared_trace(self, step: OneStep) -> None:
        settings, rate, out = self.settings, self.actor_rate, self._out
        problem = self.backend.learn(
            *self._parts,
            self.backend.kind,
            self.backend.sizes,
            network_input(step.inputs.observations)[0],
            step.actions[0].astype(np.float32, copy=False),
            step.reward,
            step.terminated,
            network_input(step.next_inputs.observations)[0],
            (self.traces["shared"][step.i], self.moments["shared"], self._direction),
            float(settings.gamma),
            float(settings.gamma * settings.trace_lambda),
            float(settings.ent_coef),
            float(rate),
            float(settings.beta2),
            float(settings.optimizer_eps),
            out,
        )
        delta, value, log_prob, entropy, length = out.tolist()
        if problem == 1:
            raise NonFiniteError(f"TD error {delta}")
        if problem:
            raise NonFiniteError(f"step: the sum of its absolute values is {length}")
        made = Step(rate, self._direction, rate, length)
        self._count(delta, value, log_prob, entropy, {"actor": made, "critic": made})


def _part(net: SampleNet | None, layout: Layout) -> tuple[np.ndarray, ...]:
    """A part of the network as :mod:`sb3_pg_ext.functional.shared_trace` takes it; None for no layers."""
    if net is None:
        return np.empty((0, 9), np.int64), np.empty((0, 2), np.float32), NO_NUMBERS, NO_NUMBERS, NO_NUMBERS
    table = _table(net, layout)
    return *table, *_memory(table[0], net)[:3]


def _convolution(trunk: SampleNet | None, layout: Layout) -> tuple[tuple[np.ndarray, ...], tuple[int, int]]:
    """What comes before the trunk, and where its parameters begin in the trace."""
    if trunk is None or trunk.convolution is None:
        nothing = np.empty((0, 0), np.float32)
        return (nothing, NO_NUMBERS, np.empty((0, 0), np.int64), nothing, nothing), (0, 0)
    convolution, module = trunk.convolution
    begins = {id(p): part.start for p, part in zip(layout.parameters, layout.slices, strict=True)}
    weight, bias, index = convolution.weight, convolution.bias, convolution.index
    memory = np.zeros(index.shape, np.float32), np.zeros((len(index), len(bias)), np.float32)
    return (weight, bias, index, *memory), (begins[id(module.weight)], begins[id(module.bias)])


def _table(net: SampleNet, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """A network as :mod:`sb3_pg_ext.functional.streaming` takes it; the network keeps its parameters alive.

    :param layout: of the trace
    :raises UnsupportedPolicyError: if there is an activation function that it does not have
    """
    places = dict(zip(layout.parameters, layout.slices, strict=True))
    rows, numbers = [], []
    for layer, module in zip(net.layers, net.modules, strict=True):
        activations = list(layer.activations)
        normalizes = bool(activations) and activations[0].kind == "layer_norm"
        eps = activations.pop(0).number if normalizes else 0.0
        kind, number = (activations[0].kind, activations[0].number) if activations else ("identity", 1.0)
        if len(activations) > 1 or kind not in minibatch.ACTIVATIONS:
            raise UnsupportedPolicyError("its activation functions are not among those that are compiled")
        rows.append(_row(layer, module.weight, module.bias, places, minibatch.ACTIVATIONS.index(kind), normalizes, 0))
        numbers.append((number, eps))
    if net.std is not None:
        beside, bias = net.std
        weight = None if beside is None else beside.weight
        last = net.layers[-1]
        array = np.empty(last.weight.shape, np.float32) if weight is None else weight.detach().numpy()
        layer = mlp.Layer(array, bias.detach().numpy())
        rows.append(_row(layer, weight, bias, places, minibatch.IDENTITY, False, 1))
        numbers.append((1.0, 0.0))
    return np.array(rows, np.int64), np.array(numbers, np.float32)


def _row(layer: mlp.Layer, weight: Any, bias: Any, places: Any, kind: int, normalizes: bool, beside: int) -> list[int]:
    arrays = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    if not all(array.flags.c_contiguous and array.dtype == np.float32 for array in arrays):
        raise UnsupportedPolicyError("its parameters do not lie in order")
    addresses = [
        0 if weight is None else layer.weight.ctypes.data,
        0 if bias is None or layer.bias is None else layer.bias.ctypes.data,
    ]
    begin = [0 if parameter is None else places[parameter].start for parameter in (weight, bias)]
    return [*addresses, *begin, *layer.weight.shape, kind, int(normalizes), beside]


def _memory(table: np.ndarray, net: SampleNet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    size = int(table[:, streaming.OUTPUTS].sum())
    return (
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
        np.zeros(len(table), np.float32),
        np.zeros(net.layout.size, np.float32),
    )
