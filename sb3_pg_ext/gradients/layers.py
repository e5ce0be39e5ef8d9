"""What passes through the layers of a policy, for their Kronecker-factored curvature."""

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from sb3_pg_ext.functional.tensors.kronecker import (
    has_factors,
    input_factor,
    output_factor,
    positions_of_inputs,
    positions_of_outputs,
)
from sb3_pg_ext.gradients.policy_backend import LayerFactors
from sb3_pg_ext.policies.exploration import TemperedLinear

Cotangents = Sequence[tuple[th.Tensor, th.Tensor]]
"""Outputs of a graph, and derivatives with respect to them; each pair by itself."""


def known_layers(policy: BasePolicy) -> dict[str, nn.Module]:
    """The layers of a policy whose curvature is known, by their names.

    :param policy: the policy
    """
    return {name: module for name, module in policy.named_modules() if _is_known(module)}


def unknown_parameters(policy: BasePolicy) -> dict[str, th.Tensor]:
    """The other parameters of a policy, by their names. Weights that several layers share are among them.

    :param policy: the policy
    """
    layers = list(known_layers(policy).values())
    of_layers = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    counts = {parameter: sum(parameter is other for other in of_layers) for parameter in of_layers}
    return {name: p for name, p in policy.named_parameters() if counts.get(p) != 1}


def _is_known(module: nn.Module) -> bool:
    return has_factors(module) or type(module) is TemperedLinear


class RecordedLayers:
    """Within the scope, keeps the inputs and outputs of a policy's known layers.

    :param policy: the policy
    :param without: parameters of layers to leave out
    """

    def __init__(self, policy: BasePolicy, without: Sequence[th.Tensor] = ()) -> None:
        left_out = {*unknown_parameters(policy).values(), *without}
        self._modules = [m for m in known_layers(policy).values() if not left_out & {m.weight, m.bias}]
        self._passed: dict[nn.Module, list[tuple[th.Tensor, th.Tensor]]] = {}

    def __enter__(self) -> None:
        self._hooks = [module.register_forward_hook(self._note) for module in self._modules]

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], outputs: th.Tensor) -> None:
        if outputs.requires_grad:
            self._passed.setdefault(module, []).append((inputs[0].detach(), outputs))

    def factors(self, of_actor: Cotangents, of_critic: Cotangents) -> list[LayerFactors]:
        """The curvature of the layers.

        A layer that is used several times for a sample is treated like a convolution that has as many places.

        :param of_actor: roots of the curvature of log π
        :param of_critic: those of V
        """
        passes = [(module, output) for module, pairs in self._passed.items() for _, output in pairs]
        totals: dict[nn.Module, th.Tensor] = {}
        reached: set[nn.Module] = set()
        for is_actor, pairs in ((True, of_actor), (False, of_critic)):
            for output, cotangents in pairs:
                found = th.autograd.grad(
                    output, [o for _, o in passes], cotangents, retain_graph=True, allow_unused=True
                )
                here = {module for (module, _), gradient in zip(passes, found, strict=True) if gradient is not None}
                places: dict[nn.Module, list[th.Tensor]] = {}
                for (module, of_layer), gradient in zip(passes, found, strict=True):
                    if module in here:
                        known = th.zeros_like(of_layer) if gradient is None else gradient / _temperature(module)
                        places.setdefault(module, []).append(positions_of_outputs(module, known))
                for module, parts in places.items():
                    term = output_factor(th.cat(parts, 1))
                    totals[module] = totals[module] + term if module in totals else term
                if is_actor:
                    reached |= here
        return [
            LayerFactors(*_parameters(module), self._input_factor(module), total, module in reached)
            for module, total in totals.items()
        ]

    def _input_factor(self, module: nn.Module) -> th.Tensor:
        return input_factor(th.cat([positions_of_inputs(module, x) for x, _ in self._passed[module]], 1))


def _parameters(module: Any) -> tuple[th.Tensor, th.Tensor | None]:
    return module.weight, module.bias


def _temperature(module: nn.Module) -> float:
    return module.temperature if isinstance(module, TemperedLinear) else 1.0
