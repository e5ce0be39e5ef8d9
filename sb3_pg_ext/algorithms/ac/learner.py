"""What an actor-critic of single steps remembers, and how it learns from a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_pg_ext.algorithms.ac.q_network import QNetwork
from sb3_pg_ext.algorithms.ac.samples import Layout, SampleBackend, Vector, union, vector_of
from sb3_pg_ext.functional.eligibility import (
    LONGEST_STEP,
    Step,
    adaptive_obgd,
    decay_and_add,
    obgd,
    rmsprop,
    sgd,
)
from sb3_pg_ext.functional.finite import NonFiniteError, check_number
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.online import Transition


@dataclass
class Settings:
    """What is chosen: the arguments of :class:`~sb3_pg_ext.ActorCritic` of the same names."""

    critic: str
    critic_target: str | None
    optimizer: str
    gamma: float
    trace_lambda: float
    ent_coef: float
    actor_kappa: float
    critic_kappa: float
    beta2: float
    optimizer_eps: float
    discounted: bool
    averages: bool


class Memory(nn.Module):
    """What has to survive saving: traces of every environment, moments, discounts, Q and the compatible weights.

    :param layouts: the parameters of actor and V
    :param q_net: Q, or None
    :param n_envs: N
    :param settings: what is chosen
    :param device: where it lies
    """

    def __init__(
        self,
        layouts: tuple[Layout, Layout],
        q_net: QNetwork | None,
        n_envs: int,
        settings: Settings,
        device: th.device,
    ) -> None:
        super().__init__()
        self.q_net = q_net
        actor, critic = (layout.size for layout in layouts)
        shared = union(*layouts).size
        sizes: dict[str, int] = {}
        match settings.critic:
            case "v" if settings.optimizer == "rmsprop":
                sizes["shared"] = shared
            case "v":
                sizes |= {"actor": actor, "critic": critic}
            case "compatible":
                sizes |= {"critic": critic, "weights": actor}
            case "q":
                sizes["q"] = Layout(list(q_net.parameters())).size  # type: ignore[union-attr]
            case _:
                sizes |= {"critic": critic, "q": Layout(list(q_net.parameters())).size}  # type: ignore[union-attr]
        for name, size in sizes.items():
            self.register_buffer(f"{name}_traces", th.zeros(n_envs, size))
        moments = {"adaptive_obgd": {**sizes, "actor": actor}, "rmsprop": sizes}.get(settings.optimizer, {})
        for name, size in moments.items():
            self.register_buffer(f"{name}_moments", th.zeros(size))
        if settings.critic == "compatible":
            self.register_buffer("weights", th.zeros(actor))
        self.register_buffer("discounts", th.ones(n_envs, dtype=th.float64))
        self.register_buffer("n_updates", th.zeros((), dtype=th.int64))
        self.to(device)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what another has remembered; of another number of environments the traces are left out."""
        own = self.state_dict()
        left_out = {
            name
            for name, tensor in state_dict.items()
            if name in own and tensor.shape != own[name].shape and name.partition("_")[2] in ("traces", "")
        }
        return super().load_state_dict(
            {name: own[name] if name in left_out else tensor for name, tensor in state_dict.items()}, strict, assign
        )


class Report:
    """What is summed up between two entries of the log."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: dict[str, float] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count an update."""
        self.n += 1
        for name, number in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + number

    @property
    def means(self) -> dict[str, float]:
        """The mean of everything that was added."""
        return {name: total / max(1, self.n) for name, total in self._sums.items()}


class Learner:
    """Learns from transitions, one environment after the other.

    :param memory: what is remembered
    :param backend: acts, and differentiates
    :param settings: what is chosen
    :param learning_rates: of actor and critic
    """

    def __init__(
        self, memory: Memory, backend: SampleBackend, settings: Settings, learning_rates: tuple[float, float]
    ) -> None:
        self.memory, self.backend, self.settings = memory, backend, settings
        self.actor_rate, self.critic_rate = learning_rates
        buffers = dict(memory.named_buffers())
        self.traces = {n.removesuffix("_traces"): vector_of(b) for n, b in buffers.items() if n.endswith("_traces")}
        self.moments = {n.removesuffix("_moments"): vector_of(b) for n, b in buffers.items() if n.endswith("_moments")}
        self.weights = vector_of(buffers["weights"]) if "weights" in buffers else None
        self.discounts: Any = vector_of(buffers["discounts"])
        self.layouts = {"actor": backend.actor, "critic": backend.critic, "shared": backend.both}
        if backend.q is not None:
            self.layouts["q"] = backend.q
        self.n_updates = int(buffers["n_updates"])
        self.report = Report()
        self.needs_next_actions = settings.critic_target == "sarsa"
        self._pending: list[tuple[str, Vector]] | None = None
        self._clear_frozen()

    def finish(self) -> None:
        """Keep the count of updates."""
        self.memory.n_updates.fill_(self.n_updates)  # type: ignore[operator]

    def learn_from(self, transition: Transition, next_actions: np.ndarray | None) -> list[NonFiniteError]:
        """Learn from a step of every environment.

        :param transition: the step
        :param next_actions: a', chosen at the next states, [N, action_dim]; None where the target does not need them
        :return: for every update that was skipped, why
        """
        problems = []
        n_envs = len(transition.rewards)
        self._pending = [] if self.settings.averages and n_envs > 1 else None
        for i in range(n_envs):
            if transition.starts[i]:
                for traces in self.traces.values():
                    traces[i] = 0
                self.discounts[i] = 1.0
            self.n_updates += 1
            try:
                self._learn_from_one(i, transition, next_actions)
            except NonFiniteError as problem:
                problems.append(problem)
                for traces in self.traces.values():
                    traces[i] = 0
            if self.settings.discounted:
                self.discounts[i] *= self.settings.gamma
        if self._pending:
            pending, self._pending = self._pending, None
            for name, step in pending:
                self.backend.move(self.layouts[name], 1 / n_envs, step)
        return problems

    def _learn_from_one(self, i: int, transition: Transition, next_actions: np.ndarray | None) -> None:
        rows = slice(i, i + 1)
        one = len(transition.rewards) == 1
        inputs = transition.inputs if one else transition.inputs.rows(rows)
        next_inputs = transition.next_inputs if one else transition.next_inputs.rows(rows)
        step = OneStep(
            i,
            inputs,
            transition.actions[rows],
            float(transition.rewards[i]),
            bool(transition.terminated[i]),
            next_inputs,
            None if next_actions is None else next_actions[rows],
        )
        match self.settings.critic:
            case "v" if self.settings.optimizer == "rmsprop":
                self._shared_trace(step)
            case "v":
                self._td(step)
            case "compatible":
                self._compatible(step)
            case _:
                self._q(step)

    # ---- V ----------------------------------------------------------------------------------------------------------

    def _td_error(self, step: "OneStep", value: float) -> float:
        next_value = 0.0 if step.terminated else float(self.backend.values(step.next_inputs)[0])
        return check_number("TD error", step.reward + self.settings.gamma * next_value - value)

    def _td(self, step: "OneStep") -> None:
        """TD(λ) actor-critic: one δ for both."""
        value, gradient = self.backend.value_gradient(step.inputs)
        delta = self._td_error(step, value)
        self._remember("critic", step.i, gradient)
        log_prob, entropy, gradient = self._actor_gradient(step, delta)
        self._remember("actor", step.i, gradient)
        steps = {
            "critic": self._step("critic", self.traces["critic"][step.i], delta, self.critic_rate),
            "actor": self._step("actor", self.traces["actor"][step.i], delta, self.actor_rate),
        }
        self._make(steps)
        self._count(delta, value, log_prob, entropy, steps)

    def _shared_trace(self, step: "OneStep") -> None:
        """The AC(λ) of MinAtar: one trace of V + ½ log π over all parameters."""
        value, log_prob, entropy, gradient, of_entropy = self.backend.gradients_of_both(step.inputs, step.actions)
        delta = self._td_error(step, value)
        check_number("log-probability", log_prob)
        check_number("entropy", entropy)
        self._remember("shared", step.i, gradient)
        of_entropy *= self.settings.ent_coef
        of_entropy += delta * self.traces["shared"][step.i]
        moments, beta2, eps = self.moments["shared"], self.settings.beta2, self.settings.optimizer_eps
        made = rmsprop(of_entropy, self.actor_rate, moments, beta2, eps)
        _check(made, "step")
        self._move("shared", made.scale, made.direction)
        self._count(delta, value, log_prob, entropy, {"actor": made, "critic": made})

    # ---- Q ----------------------------------------------------------------------------------------------------------

    def _q(self, step: "OneStep") -> None:
        """Q actor-critic, alone or with V as baseline."""
        with_v = self.settings.critic == "q_minus_v"
        critic_first = self.settings.critic_target != "max"
        q_value, gradient = self.backend.q_gradient(step.inputs, step.actions)
        delta = check_number("TD error", step.reward + self.settings.gamma * self._next_q(step) - q_value)
        self._remember("q", step.i, gradient)
        steps = {"q": self._step("q", self.traces["q"][step.i], delta, self.critic_rate)}
        value = 0.0
        if with_v:
            value, gradient = self.backend.value_gradient(step.inputs)
            value_delta = self._td_error(step, value)
            self._remember("critic", step.i, gradient)
            steps["critic"] = self._step("critic", self.traces["critic"][step.i], value_delta, self.critic_rate)
        if critic_first:
            self._make(steps)
            q_value = float(self.backend.q_values(step.inputs, step.actions)[0])
            value = float(self.backend.values(step.inputs)[0]) if with_v else 0.0
        weight = check_number("advantage", q_value - value)
        log_prob, entropy, gradient = self._actor_gradient(step, weight)
        of_actor = {"actor": self._step("actor", gradient, weight, self.actor_rate)}
        self._make(of_actor if critic_first else {**of_actor, **steps})
        self._count(delta, q_value, log_prob, entropy, {"critic": steps["q"], **of_actor})

    def _next_q(self, step: "OneStep") -> float:
        if step.terminated:
            return 0.0
        if self.settings.critic_target == "sarsa":
            assert step.next_actions is not None
            return float(self.backend.q_values(step.next_inputs, step.next_actions)[0])
        q_values = self.backend.all_q_values(step.next_inputs)[0]
        if self.settings.critic_target == "max":
            return float(q_values.max())
        return float((self.backend.probabilities(step.next_inputs)[0] * q_values).sum())

    def _compatible(self, step: "OneStep") -> None:
        """Q = V + ωᵀψ with ψ = ∇log π."""
        assert self.weights is not None
        value, of_value = self.backend.value_gradient(step.inputs)
        next_value = 0.0
        if not step.terminated:
            next_value = float(self.backend.values(step.next_inputs)[0])
            if step.next_actions is not None:
                _, _, next_score = self.backend.actor_gradient(step.next_inputs, step.next_actions, 0.0)
                next_value += float((self.weights * next_score).sum())
        log_prob, entropy, score = self.backend.actor_gradient(step.inputs, step.actions, 0.0)
        score = _copy(score)
        advantage = float((self.weights * score).sum())
        delta = check_number("TD error", step.reward + self.settings.gamma * next_value - value - advantage)
        self._remember("critic", step.i, of_value)
        self._remember("weights", step.i, score)
        steps = {
            "critic": self._step("critic", self.traces["critic"][step.i], delta, self.critic_rate),
            "weights": self._step("weights", self.traces["weights"][step.i], delta, self.critic_rate),
        }
        self._make(steps)
        weight = check_number("advantage", (self.weights * score).sum())
        log_prob, entropy, gradient = self._actor_gradient(step, weight)
        steps["actor"] = self._step("actor", gradient, weight, self.actor_rate)
        self._make({"actor": steps["actor"]})
        self._count(delta, value + weight, log_prob, entropy, steps)

    # ---- what they share --------------------------------------------------------------------------------------------

    def _actor_gradient(self, step: "OneStep", weight: float) -> tuple[float, float, Vector]:
        """∇[log π + τ·sgn(weight)·H], weighted with the discount of the state."""
        c = self.settings.ent_coef * float(np.sign(weight))
        log_prob, entropy, gradient = self.backend.actor_gradient(step.inputs, step.actions, c)
        check_number("log-probability", log_prob)
        check_number("entropy", entropy)
        if self.settings.discounted:
            gradient = float(self.discounts[step.i]) * gradient
        return log_prob, entropy, gradient

    def _remember(self, name: str, i: int, gradient: Vector) -> None:
        decay_and_add(self.traces[name][i], self.settings.gamma * self.settings.trace_lambda, gradient)

    def _step(self, name: str, trace: Vector, delta: float, rate: float) -> Step:
        settings = self.settings
        kappa = settings.actor_kappa if name == "actor" else settings.critic_kappa
        if settings.optimizer == "sgd":
            step = sgd(trace, delta, rate)
        elif settings.optimizer == "obgd":
            step = obgd(trace, delta, rate, kappa)
        else:
            moments = self.moments[name]
            beta2, eps = settings.beta2, settings.optimizer_eps
            step = adaptive_obgd(trace, delta, rate, kappa, moments, self.n_updates, beta2, eps)
        _check(step, f"step of the {name}")
        return step

    def _make(self, steps: Mapping[str, Step]) -> None:
        for name, step in steps.items():
            if name == "weights":
                self.weights += step.scale * step.direction
            else:
                self._move(name, step.scale, step.direction)

    def _move(self, name: str, scale: float, direction: Vector) -> None:
        if self._pending is None:
            self.backend.move(self.layouts[name], scale, direction)
        else:
            self._pending.append((name, scale * direction))

    def _count(self, delta: float, value: float, log_prob: float, entropy: float, steps: Mapping[str, Step]) -> None:
        actor, critic = steps["actor"], steps["critic"]
        self.report.add(
            {
                "delta": delta,
                "squared_delta": delta * delta,
                "value": value,
                "log_prob": log_prob,
                "entropy": entropy,
                "actor_step_size": actor.step_size,
                "critic_step_size": critic.step_size,
                "actor_step": actor.length,
                "critic_step": critic.length,
            }
        )

    def _clear_frozen(self) -> None:
        """Let traces forget frozen parameters."""
        for name, traces in self.traces.items():
            layout = self.layouts.get(name, self.backend.actor)
            for parameter, part in zip(layout.parameters, layout.slices, strict=True):
                if not parameter.requires_grad:
                    traces[:, part] = 0


@dataclass
class OneStep:
    """A step of one environment."""

    i: int
    inputs: PolicyInputs
    actions: np.ndarray
    reward: float
    terminated: bool
    next_inputs: PolicyInputs
    next_actions: np.ndarray | None


def _check(step: Step, name: str) -> None:
    if not step.length <= LONGEST_STEP:
        raise NonFiniteError(f"{name}: the sum of its absolute values is {step.length}")


def _copy(vector: Vector) -> Vector:
    return vector.copy() if isinstance(vector, np.ndarray) else vector.clone()
