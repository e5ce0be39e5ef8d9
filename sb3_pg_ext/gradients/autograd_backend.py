"""The general engine: PyTorch's autograd, for any policy on any device."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from torch.distributions import Distribution

from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.tensors.curvature import Product, fisher_product
from sb3_pg_ext.functional.tensors.distributions import join, snapshot, take
from sb3_pg_ext.functional.tensors.divergences import kl
from sb3_pg_ext.functional.tensors.vectors import flatten
from sb3_pg_ext.gradients.backend import GradientBackend, PolicyEvaluation
from sb3_pg_ext.gradients.torch_fast_paths import clip_gradients
from sb3_pg_ext.policies.evaluation import action_tensor, chunks
from sb3_pg_ext.policies.observations import Observations


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


class AutogradBackend(GradientBackend):
    """Differentiates a policy as PyTorch does.

    :param policy: any policy
    :param gradient: the memory of all parameters' gradients, where they keep it; ``None``: they get new ones every time
    """

    def __init__(self, policy: ActorCriticPolicy, gradient: np.ndarray | None = None) -> None:
        super().__init__(policy)
        self._gradient = gradient
        self.parameters = [p for group in policy.optimizer.param_groups for p in group["params"]]
        self._frozen: list[th.Tensor] = []
        self._latest: list[th.Tensor | None] = []

    def forward(
        self,
        observations: Observations,
        actions: np.ndarray | None = None,
        old: Snapshot | None = None,
        *,
        with_values: bool = True,
    ) -> PolicyEvaluation:
        """Compute the numbers of a batch."""
        policy, obs = self.policy, obs_as_tensor(observations, self.policy.device)
        log_probs = entropies = kls = values = None
        if actions is None:
            values = policy.predict_values(obs)
        else:
            taken = action_tensor(actions, policy.action_space, policy.device)
            if with_values:
                values, log_probs, entropies = policy.evaluate_actions(obs, taken)
            else:
                evaluated = policy.get_distribution(obs)
                log_probs, entropies = evaluated.log_prob(taken), evaluated.entropy()
            if entropies is None:
                entropies = -log_probs
            # The policy keeps what it has just evaluated, and makes a new torch distribution each time.
            self._distribution = policy.action_dist.distribution
            if old is not None:
                kls = kl(old.distributions, self._distribution)
        self._latest = [log_probs, entropies, kls, None if values is None else values.flatten()]
        return PolicyEvaluation(*(None if q is None else q.detach().cpu().numpy() for q in self._latest))

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        if self._gradient is not None:
            self._gradient.fill(0)
            return
        for parameter in self.parameters:
            parameter.grad = None  # a quarter of the cost of zero_grad()

    def backward(self, derivatives: PolicyEvaluation) -> None:
        """Add a gradient to the parameters'."""
        pairs = [(q, c) for q, c in zip(self._latest, derivatives, strict=True) if q is not None and c is not None]
        backward([(q, self._like(q, c)) for q, c in pairs])
        for parameter in self._frozen:
            parameter.grad = None

    def _like(self, quantity: th.Tensor, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, dtype=quantity.dtype, device=quantity.device)

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return check_number("norm of the gradient", clip_gradients(self.parameters, max_norm))

    def step(self) -> None:
        """Make a step."""
        self.policy.optimizer.step()

    def freeze(self, parameters: Sequence[th.Tensor]) -> None:
        """Leave parameters out."""
        self._frozen = list(parameters)

    def policy_gradient(self, weights: np.ndarray) -> tuple[list[th.Tensor], th.Tensor]:
        """The parameters are found by what the gradient reaches, whatever their names."""
        log_probs, *_ = self._latest
        assert log_probs is not None
        candidates: list[th.Tensor] = [p for p in self.policy.parameters() if p.requires_grad]
        cotangents = self._like(log_probs, weights)
        gradients = th.autograd.grad(log_probs, candidates, cotangents, retain_graph=True, allow_unused=True)
        pairs = [(parameter, g) for parameter, g in zip(candidates, gradients, strict=True) if g is not None]
        self._actor = [parameter for parameter, _ in pairs]
        return self._actor, flatten(g for _, g in pairs)

    def fisher_product(self) -> Product:
        """See :func:`~sb3_pg_ext.functional.tensors.curvature.fisher_product`."""
        return fisher_product(self._distribution, self._actor)

    @th.no_grad()
    def snapshot(self, observations: Observations) -> Snapshot:
        """Copy the action distributions, chunk by chunk."""
        batches = (self.policy.get_distribution(obs) for _, obs in chunks(observations, self.policy.device))
        return Snapshot(join([snapshot(batch.distribution) for batch in batches]))

    @th.no_grad()
    def mean_kl(self, old: Snapshot, observations: Observations) -> float:
        """The mean of KL(old‖π), chunk by chunk."""
        parts: list[Any] = [
            kl(old[part].distributions, self.policy.get_distribution(obs).distribution)
            for part, obs in chunks(observations, self.policy.device)
        ]
        return float(th.cat(parts).mean())
