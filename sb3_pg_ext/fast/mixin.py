"""What puts a stock algorithm on this package's engines and guards its updates."""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_pg_ext.algorithms.base.on_policy import OnPolicyTraining
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.norms import GradientNorms
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.policies.evaluation import action_array
from sb3_pg_ext.policies.images import lay_out_images
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import map_arrays
from sb3_pg_ext.policies.plain_mlp import network_input
from sb3_pg_ext.policies.trunk import has_trunk
from sb3_pg_ext.rollouts.collector import RolloutCollector
from sb3_pg_ext.rollouts.filling import STOCK_BUFFERS, flattened_names


class FastUpdate(OnPolicyTraining):
    """A stock algorithm whose parameters stay finite.

    Its optimiser makes no step along a gradient that is not finite, and an update that leaves a parameter that is not
    finite is undone.

    An update is that of the stock ``train()``, to rounding. A rollout buffer with a ``get()`` or ``_get_samples()`` of
    its own has it called by the stock ``train()`` itself.

    :param engine: how updates are differentiated: ``"array"`` in NumPy, for plain MLPs on the CPU; ``"compiled"``
        likewise with numba, but for TRPO; ``"autograd"`` by PyTorch; ``"auto"`` for the fastest that can
    """

    _backends: tuple[type[PolicyBackend], ...] = (ArrayBackend, AutogradBackend)
    gradient_norm_key: ClassVar = "train/grad_norm"
    """Under which the mean norm of the gradients along which the optimiser steps is logged."""

    def __init__(self, *args: Any, engine: str = "auto", **kwargs: Any) -> None:
        self.engine = engine
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        stock = next(
            base
            for base in cls.__mro__
            if issubclass(base, OnPolicyAlgorithm) and not issubclass(base, RolloutCollector)
        )
        own = inspect.signature(FastUpdate.__init__).parameters["engine"]
        *arguments, last = inspect.signature(stock).parameters.values()
        cls.__doc__ = f"{cls.__doc__}\n\n{_parameters_of(stock)}\n{_parameters_of(FastUpdate)}"
        cls.__signature__ = inspect.Signature([*arguments, last, own])  # type: ignore[attr-defined]

    def _setup_model(self) -> None:
        net_arch = self.policy_kwargs.get("net_arch")
        if has_trunk(net_arch):
            raise ValueError(
                f"policy_kwargs: net_arch={net_arch!r}; allowed: pi and vf, since stock policies have no shared layers "
                "(those of sb3_pg_ext.policies do, which this package's own on-policy algorithms have)"
            )
        super()._setup_model()

    def train(self) -> None:
        """Update the policy with the rollout buffer, whoever filled it; a rollout that was dropped is passed over."""
        self._rollout_is_good = not self._dropped_in_a_row
        super().train()

    def _update(self) -> None:
        self._n_spoilt = 0
        self._gradient_norms: list[float] = []
        engine, undo = self._make_backend(), self._keep_for_undo([self.policy.optimizer])
        try:
            with np.errstate(all="ignore"):  # non-finite values are looked for
                if isinstance(engine, self._backends) and not self._own_minibatches():
                    self._improve(engine)
                else:
                    self._train_as_stock()
            undo.check()
        except NonFiniteError as problem:
            undo.restore()
            self._skip_update(problem)
            return
        if self._gradient_norms:
            self.logger.record(self.gradient_norm_key, sum(self._gradient_norms) / len(self._gradient_norms))
        if self._n_spoilt:
            spoilt = NonFiniteError(f"{self._n_spoilt} of this update's gradients not finite")
            self._skip_update(spoilt, consequence="no step made along them")
        else:
            self._keep_update()

    def _choose_backend(self) -> tuple[PolicyBackend, str]:
        engine, path = super()._choose_backend()
        own = self._own_minibatches()
        if isinstance(engine, AutogradBackend) or not own:
            return engine, path
        buffer = type(self.rollout_buffer).__name__
        if self.engine in ("array", "compiled"):
            raise ValueError(
                f"engine={self.engine!r} together with rollout_buffer_class={buffer}, which overrides {own}(); "
                "allowed: 'auto', 'autograd'"
            )
        return AutogradBackend(self.policy), f"autograd, because {buffer} overrides {own}()"

    def _own_minibatches(self) -> str | None:
        """The method by which the rollout buffer makes minibatches in a way of its own."""
        buffer = type(self.rollout_buffer)
        stock = next((stock for stock in reversed(STOCK_BUFFERS) if issubclass(buffer, stock)), RolloutBuffer)
        own = [name for name in ("get", "_get_samples") if getattr(buffer, name) is not getattr(stock, name)]
        return own[0] if own else None

    def _improve(self, engine: Any) -> None:
        """The stock ``train()`` on one of ``_backends``."""
        raise NotImplementedError

    def _train_as_stock(self) -> None:
        def skip_if_not_finite(norm: float) -> None:
            if not math.isfinite(norm):
                # Without gradients the step changes neither parameters nor the optimiser's state.
                self.policy.optimizer.zero_grad(set_to_none=True)
                self._n_spoilt += 1

        with GradientNorms(self.policy.optimizer, skip_if_not_finite) as norms:
            super()._update()
        self._gradient_norms = [norm for norm in norms.pop() if math.isfinite(norm)]

    @contextmanager
    def _unless_spoilt(self) -> Iterator[None]:
        """For a step of the optimiser: where the gradient is not finite, it is counted, and that is all."""
        try:
            yield
        except NonFiniteError:
            self._n_spoilt += 1

    def _steps(self, engine: PolicyBackend) -> Steps:
        """The rollout, as the backend takes it, in SB3's order, environment by environment.

        The buffer is left in that order, as SB3's update leaves it.
        """
        buffer = self.rollout_buffer
        assert buffer.full, "the rollout buffer is not full"
        if not buffer.generator_ready:
            flat: Any = map_arrays(buffer.swap_and_flatten, buffer.observations)
            buffer.observations = flat
            for name in flattened_names(buffer):
                setattr(buffer, name, buffer.swap_and_flatten(getattr(buffer, name)))
            buffer.generator_ready = True
        observations: Any = buffer.observations
        masks = getattr(buffer, "action_masks", None)
        inputs = PolicyInputs(observations, None if masks is None or masks.all() else masks.astype(bool))
        if isinstance(engine, ArrayBackend):
            inputs = inputs._replace(observations=network_input(observations))
        else:
            inputs = lay_out_images(self.policy, inputs)
        return Steps(
            inputs,
            action_array(buffer.actions, self.action_space),
            *(getattr(buffer, name).ravel() for name in ("log_probs", "values", "advantages", "returns")),
        )

    def _minibatches(self, steps: Steps, batch_size: int) -> Iterator[Steps]:
        """One epoch as SB3 makes it: with its permutation, and the rest of the steps as a last minibatch."""
        return steps.cut(np.random.permutation(len(steps)), range(0, len(steps), batch_size))

    def _log(self, **numbers: float) -> None:
        """Log what every update logs, and more."""
        self._log_critic()
        self._log_exploration()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, number in numbers.items():
            self.logger.record(f"train/{name}", number)


def _parameters_of(cls: type) -> str:
    """What a class's docstring tells of the arguments of its constructor."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return text[text.index(":param") :] if ":param" in text else ""
