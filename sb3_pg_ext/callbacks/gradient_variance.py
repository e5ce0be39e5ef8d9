"""Diagnostics of policy gradients, for this package's on-policy algorithms and for stock ones."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch as th
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecTransposeImage,
    is_vecenv_wrapped,
    sync_envs_normalization,
    unwrap_vec_normalize,
)
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from sb3_pg_ext.algorithms.base.actor_critic import PROVIDES
from sb3_pg_ext.arguments import check_choice, check_count
from sb3_pg_ext.baselines import Baseline, Episodes, LearningBaseline, apply_baseline, corrections, make_baseline
from sb3_pg_ext.checkpoints.random_states import seeded
from sb3_pg_ext.estimators import AdvantageEstimator, resolve_estimator
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.tensors.gradients import influential
from sb3_pg_ext.gradients.scores import ScoreFunctions
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.policies.evaluation import action_tensor, chunks
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.action_masks import make_mask_reader
from sb3_pg_ext.rollouts.action_sampling import make_action_sampler, make_bounds
from sb3_pg_ext.rollouts.assessment import Evaluation, StepOutcomes, check_transitions, estimate, evaluate_transitions
from sb3_pg_ext.rollouts.episodes import check_baseline, rewards_to_go, sees_actions, to_episodes, with_actions
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions


@dataclass(frozen=True)
class GradientStatistics:
    """How a gradient estimator ĝ, an average over a batch of episodes, varies from batch to batch.

    :param variance: tr Cov(ĝ), the sum of the variances of its components
    :param snr: signal-to-noise ratio, ‖E ĝ‖² / tr Cov(ĝ). ‖E ĝ‖² is estimated without bias, so where the signal drowns
        in the noise it comes out around 0, on either side
    :param cosine: mean cosine of the angle between ĝ and the reference gradient
    """

    variance: float
    snr: float
    cosine: float


def gradient_statistics(gradients: th.Tensor, references: th.Tensor) -> GradientStatistics:
    """Statistics of an estimator from its values on n independent batches.

    With the mean ḡ, the variance is tr C = Σ_i ‖g_i − ḡ‖² / (n − 1), and ‖ḡ‖² − tr C / n estimates ‖E g‖² without bias.
    The reference for batch i is the mean of the other batches' references, in which batch i has no part.

    :param gradients: g_i, [n, parameters], n ≥ 2
    :param references: the same batches' gradients by the reference estimator, [n, parameters]
    """
    n, mean = len(gradients), gradients.mean(0)
    variance = (gradients - mean).square().sum() / (n - 1)
    signal = mean.square().sum() - variance / n
    others = (references.sum(0) - references) / (n - 1)
    cosine = F.cosine_similarity(gradients, others, dim=1).mean()
    return GradientStatistics(variance.item(), (signal / variance).item(), cosine.item())


@dataclass(frozen=True)
class Batch:
    """Complete episodes, and what the policy says of them.

    :param policy: the policy that played them
    :param transitions: what happened
    :param evaluation: values and log-probabilities, [T, N]
    :param gamma: discount factor γ
    :param discounts_states: whether the algorithm weights step t with γᵗ
    """

    policy: ActorCriticPolicy
    transitions: EpisodeTransitions
    evaluation: Evaluation
    gamma: float
    discounts_states: bool

    @cached_property
    def inputs(self) -> PolicyInputs:
        """What the policy saw, episode by episode, [B, …]."""
        return self.transitions.inputs.map(self.transitions.flat)

    @cached_property
    def actions(self) -> np.ndarray:
        """The actions, episode by episode, [B, action_dim]."""
        return self.transitions.flat(self.transitions.actions)

    @cached_property
    def to_go(self) -> Episodes:
        """What a baseline of rewards-to-go sees; episodes that were cut count the rewards that they collected."""
        episodes = self._episodes(total_returns=False)
        return replace(episodes, weights=(self.gamma**episodes.t).astype(np.float32) if self.discounts_states else 1.0)

    @cached_property
    def total(self) -> Episodes:
        """What a baseline of total returns sees. They are discounted from the start of the episode already."""
        return self._episodes(total_returns=True)

    def _episodes(self, total_returns: bool) -> Episodes:
        to_go = rewards_to_go(self.transitions, None, self.gamma)
        from_the_start = np.zeros(to_go.shape[1], int)
        values = self.transitions.flat(self.evaluation.values)
        episodes = to_episodes(self.transitions, self.inputs.observations, to_go, total_returns, from_the_start, values)
        return replace(episodes, scores=ScoreFunctions(self.policy, self.inputs, self.actions), gamma=self.gamma)

    def advantages(self, estimator: AdvantageEstimator) -> np.ndarray:
        """What an estimator makes of all episodes in one column, [B]."""

        def column(array: np.ndarray) -> np.ndarray:
            return self.transitions.flat(array)[:, None]

        outcomes = StepOutcomes(
            *(column(getattr(self.transitions, name)) for name in ("rewards", "terminated", "truncated"))
        )
        values, next_values, log_probs = (
            column(array) for array in (self.evaluation.values, self.evaluation.next_values, self.evaluation.log_probs)
        )
        return estimate(estimator, outcomes, values, next_values, self.gamma, log_probs, log_probs).advantages[:, 0]

    def gradient(self, weights: np.ndarray, actions: np.ndarray | None = None) -> th.Tensor:
        """Σ_t ∇log π(a_t|s_t)·w_t with respect to the parameters that log π depends on, [parameters], float64.

        :param weights: w_t, [B], float32
        :param actions: other actions than those that were taken, [B, action_dim]
        """
        actions = self.actions if actions is None else actions
        policy, total = self.policy, th.zeros((), dtype=th.float64)
        for part, obs, more in chunks(self.inputs, policy.device):
            chosen = action_tensor(actions[part], policy.action_space, policy.device)
            log_probs = policy.get_distribution(obs, **more).log_prob(chosen)
            parameters = influential(log_probs, list(policy.parameters()))
            objective = log_probs @ th.tensor(weights[part], device=policy.device)
            total = total + parameters_to_vector(th.autograd.grad(objective, parameters)).double().cpu()
        return total


GradientEstimator = Callable[[Batch], th.Tensor]
"""The sum of its gradient estimates over the episodes of a batch, [parameters], float64."""

Baselines = Sequence[str] | Mapping[str, Baseline]
"""Names of baselines; or baselines made by hand, each under the name by which it is to be logged."""


def with_baseline(baseline: Baseline, total_returns: bool) -> GradientEstimator:
    """Returns minus a baseline. One that learns does so from batch to batch."""

    def estimate(batch: Batch) -> th.Tensor:
        episodes = batch.total if total_returns else batch.to_go
        if sees_actions(baseline):
            episodes = with_actions(episodes, batch.policy, batch.inputs, batch.actions)
        b = apply_baseline(baseline, episodes, per_component=None)
        if b.ndim == 1:
            gradient = batch.gradient((episodes.weights * (episodes.returns - b)).astype(np.float32))
        else:  # every component has its own, [m, parameters]
            g, x = episodes.gradients
            gradient = th.as_tensor((x - b * g).sum(axis=0))
        for actions, terms in corrections(baseline, episodes):
            gradient = gradient + batch.gradient((episodes.weights * terms).astype(np.float32), actions)
        if isinstance(baseline, LearningBaseline):
            baseline.fit(episodes)
        return gradient

    return estimate


def with_advantages(estimator: AdvantageEstimator) -> GradientEstimator:
    """Advantages by an estimator, from the values of the model's critic."""
    return lambda batch: batch.gradient((batch.to_go.weights * batch.advantages(estimator)).astype(np.float32))


def _by_name(baselines: Baselines) -> Iterable[tuple[str, Baseline]]:
    if isinstance(baselines, Mapping):
        return baselines.items()
    return [(name, make_baseline(name)) for name in baselines]


class GradientVarianceCallback(BaseCallback):
    """Measures how noisy policy gradients are, on the current policy, while an on-policy algorithm trains.

    Before every ``update_freq``-th rollout it plays ``n_batches`` batches of ``n_episodes`` complete episodes, and
    computes from each batch, for every chosen baseline and advantage estimator,

        ĝ = (1/n_episodes) Σ_i Σ_t ∇log π(a_t|s_t)·w_t

    with w_t = G_t − b_t or A_t: the same episodes for all. With ``discount_state_distribution`` of the model w_t is
    weighted with γᵗ, but not of total returns; a baseline that sees the action has its correction added; where a
    baseline has a number for every component of the gradient, each is subtracted from its own. It logs
    :class:`GradientStatistics` of ĝ as
    ``gradient/<name>/variance``, ``…/snr`` and ``…/cosine``. The reference of the cosine is the mean gradient of all
    other batches by the estimator ``reference``. γ and λ are the model's; entropy bonus, clipping and normalisation of
    advantages are left out.

    A baseline that learns starts anew with every measurement: it is fitted to one batch more, played before the others,
    and then learns from batch to batch.

    Training goes on as without it, bit by bit: it has its own environment and its own copy of the policy, and puts the
    states of all random generators back. The same policy after the same number of steps gives the same numbers.

    :param env: an environment of its own, wrapped like the training environment
    :param baselines: names of baselines, subtracted from rewards-to-go; or a dictionary of baselines by names of one's
        own choice, ``{"optimal, cross-fitted": make_baseline("optimal", cross_fit=True)}``
    :param total_return_baselines: likewise, subtracted from the total returns of the episodes; logged as
        ``total_<name>``
    :param advantage_estimators: names of advantage estimators, which use the model's critic
    :param update_freq: measure before every so many-th rollout, beginning with the first
    :param n_batches: number of batches, at least 2
    :param n_episodes: number of episodes of a batch, a multiple of the number of environments in ``env``
    :param reference: name of the estimator, one of those measured, that the reference gradient comes from; ``None`` for
        ``"mean"``, or, where that is not measured, the first one
    :param seed: seed of what is drawn for the measurements
    :param verbose: as in SB3
    :raises ValueError: for a bad argument; at the beginning of training, if the model or ``env`` do not fit
    """

    def __init__(
        self,
        env: GymEnv,
        baselines: Baselines = ("none", "mean"),
        total_return_baselines: Baselines = (),
        advantage_estimators: Sequence[str] = (),
        update_freq: int = 10,
        n_batches: int = 20,
        n_episodes: int = 10,
        reference: str | None = None,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
        for name, count, low in (("update_freq", update_freq, 1), ("n_batches", n_batches, 2), ("seed", seed, 0)):
            check_count(name, count, low)
        check_count("n_episodes", n_episodes)
        if n_episodes % self.env.num_envs:
            raise ValueError(
                f"n_episodes={n_episodes!r} cannot be shared equally by {self.env.num_envs} environments; "
                f"allowed: a multiple of {self.env.num_envs}"
            )
        self.baselines = {name: (baseline, False) for name, baseline in _by_name(baselines)}
        self.baselines |= {f"total_{name}": (baseline, True) for name, baseline in _by_name(total_return_baselines)}
        self.advantage_estimators = advantage_estimators
        measured = [*self.baselines, *advantage_estimators]
        if not measured:
            raise ValueError("baselines=() and nothing else to measure; allowed: at least one baseline or estimator")
        reference = reference or ("mean" if "mean" in measured else measured[0])
        check_choice("reference", reference, measured)
        self.update_freq = update_freq
        self.n_batches = n_batches
        self.n_episodes = n_episodes
        self.reference = reference
        self.seed = seed
        self._n_rollouts = 0

    def _init_callback(self) -> None:
        model = self.model
        policies = ActorCriticPolicy, MaskableActorCriticPolicy
        if not isinstance(model, OnPolicyAlgorithm) or not isinstance(model.policy, policies):
            raise ValueError(f"GradientVarianceCallback in {type(model).__name__}; allowed: on-policy algorithms")
        if isinstance(model.policy, RecurrentActorCriticPolicy):
            raise ValueError(f"GradientVarianceCallback with {type(model.policy).__name__}; allowed: no recurrence")
        self._fit_env(model)
        self._check_estimators(model)
        with self._own_random_numbers():
            self._policy = policy_factory(model)().to(model.device)
        self._policy.set_training_mode(False)

    def _fit_env(self, model: OnPolicyAlgorithm) -> None:
        if is_vecenv_wrapped(self.training_env, VecTransposeImage) and not is_vecenv_wrapped(
            self.env, VecTransposeImage
        ):
            self.env = VecTransposeImage(self.env)
        check_for_correct_spaces(self.env, model.observation_space, model.action_space)
        if (unwrap_vec_normalize(self.env) is None) != (unwrap_vec_normalize(self.training_env) is None):
            raise ValueError(f"env={self.env!r} differs from the training environment in VecNormalize; allowed: alike")

    def _check_estimators(self, model: OnPolicyAlgorithm) -> None:
        has_critic = getattr(model, "trains_critic", True)
        for name, (baseline, _) in self.baselines.items():
            if getattr(baseline, "needs_values", False) and not has_critic:
                raise ValueError(f"baselines has {name!r}; allowed where the model trains a critic, which it does not")
            chosen, spaces = f"baseline {name!r}", (model.observation_space, model.action_space)
            check_baseline(chosen, baseline, self.n_episodes, *spaces)
        for name in self.advantage_estimators:
            if not has_critic:
                raise ValueError(f"advantage_estimators has {name!r}; allowed where the model trains a critic")
            resolve_estimator(name, None, gae_lambda=model.gae_lambda, provides=PROVIDES)

    def _make_estimators(self) -> dict[str, GradientEstimator]:
        assert isinstance(self.model, OnPolicyAlgorithm)
        estimators = {
            name: with_baseline(deepcopy(baseline), total_returns)
            for name, (baseline, total_returns) in self.baselines.items()
        }
        for name in self.advantage_estimators:
            estimator = resolve_estimator(name, None, gae_lambda=self.model.gae_lambda, provides=PROVIDES)
            estimators[name] = with_advantages(estimator)
        return estimators

    def _estimate_all(self, estimators: dict[str, GradientEstimator]) -> dict[str, th.Tensor]:
        """Play a batch, and compute what every estimator makes of it."""
        batch = self._collect()
        gradients = {name: estimate(batch) / self.n_episodes for name, estimate in estimators.items()}
        for name, gradient in gradients.items():
            if not gradient.isfinite().all():
                raise NonFiniteError(f"gradient by {name!r} with NaN or infinity")
        return gradients

    def _on_rollout_start(self) -> None:
        if self._n_rollouts % self.update_freq == 0:
            try:
                for name, statistics in self.measure().items():
                    for key, value in asdict(statistics).items():
                        self.logger.record(f"gradient/{name}/{key}", value)
            except NonFiniteError as problem:
                warnings.warn(f"The variance of the gradient was not measured: {problem}", RuntimeWarning, stacklevel=2)
        self._n_rollouts += 1

    def _on_step(self) -> bool:
        return True

    def measure(self) -> dict[str, GradientStatistics]:
        """The statistics of every estimator for the model's present policy.

        Outside of training call ``init_callback(model)`` before.

        :raises NonFiniteError: if there is a non-finite value in a batch
        """
        self._policy.load_state_dict(self.model.policy.state_dict())
        if unwrap_vec_normalize(self.env) is not None:
            sync_envs_normalization(self.training_env, self.env)
        with self._own_random_numbers():
            self.env.seed(self.seed + self.model.num_timesteps)
            estimators = self._make_estimators()
            if any(isinstance(baseline, LearningBaseline) for baseline, _ in self.baselines.values()):
                self._estimate_all(estimators)
            batches = [self._estimate_all(estimators) for _ in range(self.n_batches)]
        by_name = {name: th.stack([gradients[name] for gradients in batches]) for name in estimators}
        return {name: gradient_statistics(values, by_name[self.reference]) for name, values in by_name.items()}

    def _own_random_numbers(self) -> AbstractContextManager[None]:
        """Within the scope all random generators run from this callback's seed; then they are put back."""
        return seeded(self.seed + self.model.num_timesteps, self.model.device)

    @property
    def _use_masking(self) -> bool | None:
        """As in the training: what its ``learn()`` was told, or has found."""
        policy: object = self._policy
        if isinstance(policy, MaskableActorCriticPolicy):
            return self.locals.get("use_masking")
        return getattr(self.model, "_use_masking", False)

    def _collect(self) -> Batch:
        policy, n_envs = self._policy, self.env.num_envs
        assert isinstance(self.model, OnPolicyAlgorithm)
        transitions = EpisodeTransitions(
            policy.observation_space,
            policy.action_space,
            n_envs,
            self.n_episodes // n_envs,
            expect_an_end_within=self.model._total_timesteps,
        )
        noise_freq = self.model.sde_sample_freq
        obs = self.env.reset()
        act, _ = make_action_sampler(policy, n_envs, None)
        within_bounds = make_bounds(policy, n_envs)
        see_masks = make_mask_reader(self.env, policy, self._use_masking)
        while not transitions.complete:
            t = transitions.size
            if self.model.use_sde and (t == 0 or (noise_freq > 0 and t % noise_freq == 0)):
                policy.reset_noise(n_envs)
            inputs = PolicyInputs(obs, see_masks(t))  # type: ignore[arg-type]
            actions = act(inputs)
            new_obs, rewards, dones, infos = self.env.step(within_bounds(actions))
            transitions.add(inputs, actions, rewards, dones, infos)
            obs = new_obs
        transitions.evaluated, last_inputs = act.evaluated, PolicyInputs(obs)  # type: ignore[arg-type]
        check_transitions(transitions, last_inputs)
        evaluation = evaluate_transitions(policy, transitions, last_inputs)
        discounts_states = getattr(self.model, "discount_state_distribution", False)
        return Batch(policy, transitions, evaluation, self.model.gamma, discounts_states)
