"""The general engine: PyTorch's autograd, for any policy on any device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.distributions import Distribution

from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.tensors.curvature import Product, fisher_product
from sb3_pg_ext.functional.tensors.distributions import join, snapshot, take
from sb3_pg_ext.functional.tensors.divergences import kl
from sb3_pg_ext.functional.tensors.gradients import influential
from sb3_pg_ext.functional.tensors.kronecker import information_roots, sampled_scores
from sb3_pg_ext.functional.tensors.vectors import flatten
from sb3_pg_ext.gradients.layers import RecordedLayers
from sb3_pg_ext.gradients.policy_backend import (
    ActorCriticEvaluation,
    LayerFactors,
    PolicyBackend,
    PolicyEvaluation,
    sampling_generator,
)
from sb3_pg_ext.gradients.protocol import Derivatives
from sb3_pg_ext.gradients.torch_fast_paths import clip_gradients, make_step
from sb3_pg_ext.policies.evaluation import action_tensor, chunks, torch_distributions
from sb3_pg_ext.policies.inputs import PolicyInputs


def backward(pairs: Iterable[tuple[th.Tensor, th.Tensor]]) -> None:
    """``torch.autograd.backward``, where all that an output depends on may have been frozen by the user.

    :param pairs: outputs, and derivatives with respect to them
    """
    trained = [(output, cotangents) for output, cotangents in pairs if output.requires_grad]
    th.autograd.backward([output for output, _ in trained], [cotangents for _, cotangents in trained])


class Snapshot:
    """Action distributions at the states of a batch, apart from the policy that they came from.

    :param distributions: one torch distribution, or several for several discrete actions
    """

    def __init__(self, distributions: list[Distribution]) -> None:
        self.distributions = distributions

    def __getitem__(self, rows: np.ndarray | slice) -> "Snapshot":
        """Those of some of the states."""
        return Snapshot(take(self.distributions, rows if isinstance(rows, slice) else th.from_numpy(rows)))


@contextmanager
def recorded_distributions(policy: ActorCriticPolicy) -> Iterator[list[Any]]:
    """Within the scope, note the action distributions that the policy makes of its latent features, as SB3's objects.

    SB3 has no public way to get the very distribution that ``evaluate_actions`` has taken log-probabilities from.
    ``policy.action_dist`` need not be it: a policy may make another one of what its base class gives.

    :param policy: the policy
    """
    made: list[Any] = []
    make, overridden = policy._get_action_dist_from_latent, vars(policy).get(METHOD)

    def make_and_note(*args: Any, **kwargs: Any) -> Any:
        made.append(make(*args, **kwargs))
        return made[-1]

    setattr(policy, METHOD, make_and_note)
    try:
        yield made
    finally:
        if overridden is None:
            delattr(policy, METHOD)
        else:
            setattr(policy, METHOD, overridden)


METHOD = "_get_action_dist_from_latent"


class AutogradBackend(PolicyBackend):
    """Differentiates a policy as PyTorch does.

    :param policy: any policy
    :param gradient: the memory of all parameters' gradients, where they keep it; ``None``: they get new ones every time
    """

    def __init__(self, policy: ActorCriticPolicy, gradient: np.ndarray | None = None) -> None:
        super().__init__(policy)
        self._gradient = gradient
        self.parameters = list(policy.parameters())
        self._frozen: list[th.Tensor] = []
        self._latest: dict[str, th.Tensor] = {}
        self._find_distribution: Callable[[], Any]
        self._make_step = make_step(policy.optimizer)

    def evaluate_actions(self, inputs: PolicyInputs, actions: np.ndarray) -> ActorCriticEvaluation:
        """Ask actor and critic."""
        policy, (obs, more) = self.policy, inputs.tensors(self.policy.device)
        taken = action_tensor(actions, policy.action_space, policy.device)
        with recorded_distributions(policy) as made:
            values, log_probs, entropies = policy.evaluate_actions(obs, taken, **more)
        # SB3's object is used again for other states. A policy that evaluates actions in another way is asked once more
        # for its distribution, where it is needed.
        found = torch_distributions(made[0]) if len(made) == 1 else None
        self._find_distribution = lambda: found or torch_distributions(policy.get_distribution(obs, **more))
        return ActorCriticEvaluation(
            *self._keep(
                values=values.flatten(), log_probs=log_probs, entropies=-log_probs if entropies is None else entropies
            )
        )

    def evaluate_policy(self, inputs: PolicyInputs, actions: np.ndarray) -> PolicyEvaluation:
        """Ask the actor alone."""
        policy, (obs, more) = self.policy, inputs.tensors(self.policy.device)
        taken = action_tensor(actions, policy.action_space, policy.device)
        distribution = policy.get_distribution(obs, **more)
        found = torch_distributions(distribution)
        self._find_distribution = lambda: found
        log_probs, entropies = distribution.log_prob(taken), distribution.entropy()
        return PolicyEvaluation(
            *self._keep(log_probs=log_probs, entropies=-log_probs if entropies is None else entropies)
        )

    def predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the critic alone."""
        obs, _ = inputs.tensors(self.policy.device)
        (values,) = self._keep(values=self.policy.predict_values(obs).flatten())
        return values

    def kl(self, old: Snapshot) -> np.ndarray:
        """KL(old‖π) at the states of which the actor was last asked."""
        self._latest["kls"] = kls = kl(old.distributions, self._distribution)
        return _array(kls)

    @property
    def _distribution(self) -> Any:
        """The torch distributions of the states of which the actor was last asked."""
        return self._find_distribution()

    def _keep(self, **numbers: th.Tensor) -> list[np.ndarray]:
        self._latest = numbers
        return [_array(tensor) for tensor in numbers.values()]

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        if self._gradient is not None:
            self._gradient.fill(0)
            return
        for parameter in self.parameters:
            parameter.grad = None  # a quarter of the cost of zero_grad()

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        backward((self._latest[name], self._like(self._latest[name], array)) for name, array in derivatives.items())
        for parameter in self._frozen:
            parameter.grad = None

    def _like(self, numbers: th.Tensor, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, dtype=numbers.dtype, device=numbers.device)

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return check_number("norm of the gradient", clip_gradients(self.parameters, max_norm))

    def step(self) -> None:
        """Make a step."""
        self._make_step()

    def freeze(self, parameters: Sequence[th.Tensor]) -> None:
        """Leave parameters out."""
        self._frozen = list(parameters)

    def policy_gradient(self, weights: np.ndarray) -> tuple[list[th.Tensor], th.Tensor]:
        """The parameters are found by what the gradient reaches, whatever their names."""
        log_probs = self._latest["log_probs"]
        candidates: list[th.Tensor] = [p for p in self.policy.parameters() if p.requires_grad]
        cotangents = self._like(log_probs, weights)
        gradients = th.autograd.grad(log_probs, candidates, cotangents, retain_graph=True, allow_unused=True)
        pairs = [(parameter, g) for parameter, g in zip(candidates, gradients, strict=True) if g is not None]
        self._actor = [parameter for parameter, _ in pairs]
        return self._actor, flatten(g for _, g in pairs)

    def fisher_product(self) -> Product:
        """See :func:`~sb3_pg_ext.functional.tensors.curvature.fisher_product`."""
        return fisher_product(self._distribution, self._actor)

    @contextmanager
    def recorded_layers(self) -> Iterator[None]:
        """By hooks on the layers that :func:`~sb3_pg_ext.gradients.layers.known_layers` finds."""
        self._layers = RecordedLayers(self.policy, self._frozen)
        with self._layers:
            yield

    def kronecker_factors(self, fisher: str | None) -> list[LayerFactors]:
        """By one backward pass for every root of the information."""
        of_actor: list[tuple[th.Tensor, th.Tensor]] = []
        if fisher == "exact":
            of_actor = information_roots(self._distribution)
        elif fisher == "sampled":
            of_actor = sampled_scores(self._distribution, sampling_generator())
        values = self._latest["values"]
        return self._layers.factors(of_actor, [(values, th.ones_like(values))] if values.requires_grad else [])

    def actor_parameters(self) -> list[th.Tensor]:
        """They are found by what the gradient reaches."""
        return influential(self._latest["log_probs"], self.parameters)

    def latest_distributions(self) -> Snapshot:
        """A copy of them."""
        return Snapshot(snapshot(self._distribution))

    @th.no_grad()
    def snapshot(self, inputs: PolicyInputs) -> Snapshot:
        """Copy the action distributions, chunk by chunk."""
        batches = (self.policy.get_distribution(obs, **more) for _, obs, more in chunks(inputs, self.policy.device))
        return Snapshot(join([snapshot(torch_distributions(batch)) for batch in batches]))

    @th.no_grad()
    def mean_kl(self, old: Snapshot, inputs: PolicyInputs) -> float:
        """The mean of KL(old‖π), chunk by chunk."""
        parts: list[Any] = [
            kl(old[part].distributions, torch_distributions(self.policy.get_distribution(obs, **more)))
            for part, obs, more in chunks(inputs, self.policy.device)
        ]
        return float(th.cat(parts).mean())


def _array(numbers: th.Tensor) -> np.ndarray:
    return numbers.detach().cpu().numpy()
