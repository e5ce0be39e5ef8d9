"""Choosing actions during a rollout: all that a step needs of the policy while it stays fixed.

Values and log-probabilities are computed afterwards, for the whole rollout at once; but no state passes twice through
what is dear.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.arrays import is_finite
from sb3_pg_ext.functional.finite import NonFiniteError, check_step
from sb3_pg_ext.functional.tensors import distributions
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.policies.evaluation import action_array, parts_of
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    actor_layers,
    check_hooks,
    check_methods,
    is_dear,
    layers_behind_features,
    make_head,
    mask_binary_logits,
    mask_logits,
    network_input,
    stock_class,
)

Evaluated = tuple[np.ndarray | None, np.ndarray]
"""V(s_t), or None, and log π(a_t|s_t), [T, N] each."""


class ActionSampler(Protocol):
    """Samples actions while the policy stays fixed."""

    def __call__(self, inputs: PolicyInputs) -> np.ndarray:
        """From what the policy sees in all environments, [N, …], to an action for each, [N, …], not yet clipped."""

    @property
    def evaluated(self) -> Evaluated | None:
        """V(s_t), where sampling gives it as well, and log π(a_t|s_t) of all steps so far; None: not even that."""

    def finish(self) -> None:
        """The rollout is over."""


BLOCK = 256
"""For so many steps noise is drawn ahead, or until the end of the rollout."""

WORTH_LAYING_OUT = 16
"""So many steps with the same parameters pay for a copy of them that is faster to use."""


def make_action_sampler(policy: ActorCriticPolicy, n_envs: int, n_steps: int | None) -> tuple[ActionSampler, str]:
    """Choose how actions are sampled in the coming rollout.

    All ways sample the policy's own distribution with PyTorch's global generator, and use it alike: the same seed
    gives the same actions, up to rounding.

    :param policy: the policy, fixed during the rollout
    :param n_envs: number of environments
    :param n_steps: number of steps of the rollout, ``None`` if not known
    :return: the actor and, in words, which path it is and why
    """
    try:
        return MLPActionSampler(policy, actor_layers(policy), n_envs, n_steps), "an MLP in NumPy"
    except UnsupportedPolicyError as problem:
        reason = problem
    try:
        layers = layers_behind_features(policy)
        return FeaturesActionSampler(
            policy, *layers, n_envs, n_steps
        ), f"an MLP in NumPy behind features, because {reason}"
    except UnsupportedPolicyError:
        return PolicyActionSampler(policy), f"the policy's own forward pass, because {reason}"


def make_bounds(policy: ActorCriticPolicy, n_envs: int) -> Callable[[np.ndarray], np.ndarray]:
    """How a policy's actions become actions as the environments take them.

    SB3 clips a Gaussian's, scales those of a squashed one, and leaves those of other distributions alone.

    :param policy: the policy
    :param n_envs: number of environments
    :return: a function of actions [N, …]
    """
    space = policy.action_space
    if not isinstance(space, spaces.Box):
        return lambda actions: actions
    if policy.squash_output:
        return policy.unscale_action
    # NumPy takes three times as long to broadcast them.
    low, high = (np.array(np.broadcast_to(bound, (n_envs, *space.shape))) for bound in (space.low, space.high))
    return lambda actions: np.minimum(np.maximum(actions, low), high)


class PolicyActionSampler:
    """The general path: asks the policy itself.

    A policy with a ``forward()`` of its own, or one whose forward pass is dear, is asked by it, as stock algorithms do,
    for actions, values and log-probabilities in one.

    :param policy: any SB3 policy of an on-policy algorithm
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy
        self._acts_by_forward = is_dear(policy) or not _is_what_forward_says(policy)
        self._evaluated: list[tuple[th.Tensor, th.Tensor]] = []

    def __call__(self, inputs: PolicyInputs) -> np.ndarray:
        """Sample an action for every environment."""
        with th.no_grad():
            obs, more = inputs.tensors(self.policy.device)
            actions = self._sample_by_forward(obs, more) if self._acts_by_forward else self._sample(obs, more)
        sampled = actions.cpu().numpy().reshape((-1, *(self.policy.action_space.shape or ())))
        if isinstance(self.policy.action_space, spaces.Box):
            check_step("policy output", sampled)
        return sampled

    @property
    def evaluated(self) -> Evaluated | None:
        """What ``forward()`` gave beside the actions."""
        if not self._evaluated:
            return None
        values, log_probs = (
            th.stack([numbers.flatten() for numbers in column]).cpu().numpy()
            for column in zip(*self._evaluated, strict=True)
        )
        return values, log_probs

    def finish(self) -> None:
        """Nothing was drawn ahead."""

    def _sample_by_forward(self, obs: Any, more: dict[str, Any]) -> th.Tensor:
        try:
            actions, values, log_probs = self.policy(obs, **more)
        except (RuntimeError, ValueError) as error:  # PyTorch's, of a distribution that it cannot sample
            numbers = [*self.policy.parameters(), *(obs.values() if isinstance(obs, dict) else [obs])]
            if all(bool(number.isfinite().all()) for number in numbers):
                raise
            raise NonFiniteError("policy output: the parameters of the action distribution are not finite") from error
        self._evaluated.append((values, log_probs))
        return actions

    def _sample(self, obs: Any, more: dict[str, Any]) -> th.Tensor:
        with unvalidated_distributions():
            distribution = self.policy.get_distribution(obs, **more)
            if not distributions.is_finite(parts_of(distribution)):
                raise NonFiniteError("policy output: the parameters of the action distribution are not finite")
            return distribution.get_actions()


EVALUATING_METHODS = ("forward", "extract_features", "get_distribution", "evaluate_actions")


def _is_what_forward_says(policy: ActorCriticPolicy) -> bool:
    """Whether a policy's other methods give what its ``forward()`` gives, which is what stock rollouts consist of."""
    try:
        check_methods(policy, stock_class(policy), EVALUATING_METHODS)
        check_hooks(policy, policy.mlp_extractor)
    except UnsupportedPolicyError:
        return False
    return type(policy.mlp_extractor) is MlpExtractor


class Noise:
    """For every step an array [N, outputs] that makes a sample of the network's outputs, whatever the parameters.

    It is what PyTorch's distributions would draw from its global generator, step by step: so a policy that is asked
    itself takes the same actions from the same seed, and so do SB3's algorithms. It is drawn many steps ahead, since a
    call of PyTorch between two steps of an environment costs ten times as much as one in a row of them.

    :param policy: a policy that :func:`~sb3_pg_ext.policies.plain_mlp.actor_layers` finds fit
    :param n_envs: N
    :param n_steps: number of steps of the rollout; ``None`` if not known
    """

    def __init__(self, policy: ActorCriticPolicy, n_envs: int, n_steps: int | None) -> None:
        self._draw, self._sizes, self._finish_block = _noise_of(policy)
        self._n_envs, self._left, self._ends_exactly = n_envs, n_steps or 0, n_steps is not None
        self._rows: Iterator[np.ndarray] = iter(())
        self._state: th.Tensor | None = None
        self._n_drawn = self._n_used = 0

    def __next__(self) -> np.ndarray:
        """The noise of the next step."""
        row = next(self._rows, None)
        if row is None:
            self._rows = iter(self._draw_block())
            row = next(self._rows)
        self._n_used += 1
        return row

    def _draw_block(self) -> np.ndarray:
        if self._ends_exactly:
            self._n_drawn = min(BLOCK, self._left) or BLOCK
            self._left -= self._n_drawn
        else:
            self._state, self._n_drawn = th.get_rng_state(), BLOCK
        self._n_used = 0
        return self._draw_rows(self._n_drawn)

    def _draw_rows(self, n_steps: int) -> np.ndarray:
        blocks = [th.empty(n_steps, self._n_envs, size) for size in self._sizes]
        for rows in zip(*(block.unbind() for block in blocks), strict=True):
            for row in rows:
                self._draw(row)
        return self._finish_block(np.concatenate([block.numpy() for block in blocks], axis=2))

    def give_back(self) -> None:
        """At the end of a rollout of unknown length: leave the generator as if nothing had been drawn ahead."""
        if self._state is not None and self._n_used < self._n_drawn:
            th.set_rng_state(self._state)
            self._draw_rows(self._n_used)
            self._rows = iter(())


def _noise_of(policy: ActorCriticPolicy) -> tuple[Callable[[th.Tensor], object], list[int], Callable[..., np.ndarray]]:
    """How noise is drawn, the sizes of what is drawn in one go, and what becomes of it."""
    match policy.action_dist:
        case CategoricalDistribution(action_dim=size) | MaskableCategoricalDistribution(action_dim=size):
            return th.Tensor.exponential_, [int(size)], np.log  # PyTorch sees to it that none is 0
        case MultiCategoricalDistribution(action_dims=sizes) | MaskableMultiCategoricalDistribution(action_dims=sizes):
            return th.Tensor.exponential_, [*map(int, sizes)], np.log
        case BernoulliDistribution(action_dims=size):
            return th.Tensor.uniform_, [int(size)], np.asarray
        case DiagGaussianDistribution(action_dim=size):
            return th.Tensor.normal_, [int(size)], np.asarray
    raise TypeError(f"No noise for {type(policy.action_dist).__name__}")


class MLPActionSampler:
    """The fast path: the actor's forward pass in NumPy.

    :param policy: a policy that :func:`~sb3_pg_ext.policies.plain_mlp.actor_layers` finds fit
    :param layers: its actor
    :param n_envs: number of environments
    :param n_steps: number of steps of the rollout; ``None`` if not known
    :raises NonFiniteError: if a parameter is not finite
    """

    def __init__(self, policy: ActorCriticPolicy, layers: list[mlp.Layer], n_envs: int, n_steps: int | None) -> None:
        if not all(is_finite(array) for layer in layers for array in layer[:2] if array is not None):
            raise NonFiniteError("policy output: NaN or infinity among the parameters of the actor")
        self.layers = mlp.laid_out(layers, n_envs) if n_steps is None or n_steps >= WORTH_LAYING_OUT else layers
        self._shape = (n_envs, *(policy.action_space.shape or ()))
        self._sample = _sampler(policy)
        self._mask = mask_binary_logits if isinstance(policy.action_dist, BernoulliDistribution) else mask_logits
        self._noise = Noise(policy, n_envs, n_steps)
        self._policy = policy
        self._sampled: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, inputs: PolicyInputs) -> np.ndarray:
        """Sample an action for every environment."""
        x = network_input(inputs.observations)
        check_step("observation", x)  # all that can spoil an output while the parameters are fixed
        return self._act(x, inputs.action_masks)

    def _act(self, x: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        outputs = self._mask(mlp.forward(self.layers, x), masks)
        actions = self._sample(outputs, next(self._noise)).reshape(self._shape)
        self._sampled.append((outputs, actions))
        return actions

    @property
    def evaluated(self) -> Evaluated | None:
        """Only log π(a_t|s_t), from the outputs that the actions were sampled from."""
        if not self._sampled:
            return None
        outputs, actions = map(np.concatenate, zip(*self._sampled, strict=True))
        taken = action_array(actions.reshape(len(outputs), -1), self._policy.action_space)
        return None, make_head(self._policy, outputs).log_prob(taken).reshape(len(self._sampled), -1)

    def finish(self) -> None:
        """Give back what was drawn ahead."""
        self._noise.give_back()


class FeaturesActionSampler(MLPActionSampler):
    """An actor in NumPy behind the policy's own features extractor, which sees every state once.

    :param policy: a policy that :func:`~sb3_pg_ext.policies.plain_mlp.layers_behind_features` finds fit
    :param actor: its actor
    :param critic: its critic
    :param n_envs: number of environments
    :param n_steps: number of steps of the rollout; ``None`` if not known
    :raises NonFiniteError: if a parameter of the actor is not finite
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        actor: list[mlp.Layer],
        critic: list[mlp.Layer],
        n_envs: int,
        n_steps: int | None,
    ) -> None:
        super().__init__(policy, actor, n_envs, n_steps)
        self._critic = critic
        self._features: list[np.ndarray] = []

    def __call__(self, inputs: PolicyInputs) -> np.ndarray:
        """Sample an action for every environment, and keep what its value is computed from."""
        with th.no_grad():
            obs, _ = inputs.tensors(self._policy.device)
            features: Any = self._policy.extract_features(obs)
        x = features.numpy()
        check_step("policy output: feature", x)
        self._features.append(x)
        return self._act(x, inputs.action_masks)

    @property
    def evaluated(self) -> Evaluated | None:
        """Log π(a_t|s_t), and V(s_t) from the features."""
        evaluated = super().evaluated
        if evaluated is None:
            return None
        _, log_probs = evaluated
        return mlp.forward(self._critic, np.concatenate(self._features))[:, 0].reshape(log_probs.shape), log_probs


Sample = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _sampler(policy: ActorCriticPolicy) -> Sample:
    """How an action comes from the network's output and from noise: reparameterised, for every distribution.

    A Gaussian adds noise scaled by its standard deviation; of exponential variates divided by the probabilities the
    smallest shows a sample of a choice, here in logarithms; a uniform variate below its probability makes an action 1.
    """
    match policy.action_dist:
        case CategoricalDistribution() | MaskableCategoricalDistribution():
            return lambda logits, noise: (logits - noise).argmax(1)
        case (
            MultiCategoricalDistribution(action_dims=action_dims)
            | MaskableMultiCategoricalDistribution(action_dims=action_dims)
        ):
            ends = np.cumsum(action_dims)[:-1]
            return lambda logits, noise: _argmax_of_parts(logits - noise, ends)
        case BernoulliDistribution():
            # As numbers: environments may calculate with their actions, and Booleans cannot be subtracted.
            return lambda logits, noise: (noise < 0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
        case DiagGaussianDistribution():
            std = policy.log_std.detach().exp().numpy()
            if not is_finite(std):
                raise NonFiniteError(f"policy output: standard deviation {std.tolist()}")
            return lambda mean, noise: mean + noise * std
    raise TypeError(f"No sampler for {type(policy.action_dist).__name__}")


def _argmax_of_parts(perturbed: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.stack([part.argmax(1) for part in np.split(perturbed, ends, axis=1)], axis=1)
