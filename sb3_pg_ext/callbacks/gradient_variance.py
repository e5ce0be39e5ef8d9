"""Diagnostics of policy gradients, for this package's algorithms and for stock ones."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
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

from sb3_pg_ext.algorithms.base.actor_critic import PROVIDES
from sb3_pg_ext.arguments import check_choice, check_count, check_range
from sb3_pg_ext.baselines import Baseline, LearningBaseline, make_baseline
from sb3_pg_ext.callbacks.actor_gradients import actor_parts, batch_gradient, losses_of
from sb3_pg_ext.callbacks.branches import Intervene, play_branches
from sb3_pg_ext.callbacks.gradient_estimators import (
    AdvantageGradient,
    BaselineGradient,
    Batch,
    GradientEstimator,
    ImportanceGradient,
    parts_of,
)
from sb3_pg_ext.checkpoints.random_states import seeded
from sb3_pg_ext.estimators import resolve_estimator
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.variance import VarianceParts
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.policies.evaluation import evaluate
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.action_masks import make_mask_reader
from sb3_pg_ext.rollouts.action_sampling import make_action_sampler, make_bounds
from sb3_pg_ext.rollouts.assessment import check_transitions, evaluate_transitions
from sb3_pg_ext.rollouts.episodes import check_baseline
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions

Gradients = dict[str, th.Tensor]
"""The estimates from a batch, by the names of the estimators, [parameters], float64."""

Parts = dict[str, VarianceParts | None]
"""The parts of the variance by the names of the estimators, where there are parts."""


@dataclass(frozen=True)
class GradientStatistics:
    """How a gradient estimator ĝ, an average over a batch of episodes, varies from batch to batch.

    :param variance: tr Cov(ĝ), the sum of the variances of its components
    :param snr: signal-to-noise ratio, ‖E ĝ‖² / tr Cov(ĝ). ‖E ĝ‖² is estimated without bias, so where the signal drowns
        in the noise it comes out around 0, on either side
    :param cosine: mean cosine of the angle between ĝ and the reference gradient
    :param parts: of the variance of what a single step adds to ĝ; ``None`` where they were not measured
    """

    variance: float
    snr: float
    cosine: float
    parts: VarianceParts | None = None

    def numbers(self) -> dict[str, float]:
        """All of it, by the keys of the log."""
        numbers = {"variance": self.variance, "snr": self.snr, "cosine": self.cosine}
        if self.parts is not None:
            numbers |= dict(zip(("sigma_tau", "sigma_a", "sigma_s"), self.parts, strict=True))
            numbers["removable"] = self.parts.removable
        return numbers


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


Baselines = Sequence[str] | Mapping[str, Baseline]
"""Names of baselines; or baselines made by hand, each under the name by which it is to be logged."""


def _by_name(baselines: Baselines) -> Iterable[tuple[str, Baseline]]:
    if isinstance(baselines, Mapping):
        return baselines.items()
    return [(name, make_baseline(name)) for name in baselines]


class GradientVarianceCallback(BaseCallback):
    """Measures how noisy policy gradients are, on the current policy, while an algorithm trains.

    **On-policy algorithms**, this package's and SB3's. Before every ``update_freq``-th rollout it plays ``n_batches``
    batches of ``n_episodes`` complete episodes, and computes from each batch, for every chosen estimator,

        ĝ = (1/n_episodes) Σ_i Σ_t ∇log π(a_t|s_t)·w_t

    with w_t = G_t − b_t or A_t: the same episodes for all. With ``discount_state_distribution`` of the model w_t is
    weighted with γᵗ, but not of total returns; a baseline that sees the action has its correction added; where a
    baseline has a number for every component of the gradient, each is subtracted from its own. For ``ratios`` another
    policy μ plays, that of the rollout before, and w_t is weighted by π/μ. γ and λ are the model's; entropy bonus,
    clipping and normalisation of advantages are left out.

    **Off-policy algorithms whose actor learns from Q**: SAC, TD3, DDPG, SACV and GumbelDDPG. Batches come from the
    replay buffer, ``env`` is ``None``, and ĝ is minus the gradient of the actor's loss, through the sampled action
    (``"reparametrized"``, as these algorithms train, but for GumbelDDPG's penalty), or by the score function
    (``"score"``). The critic is the present one.

    It logs :class:`GradientStatistics` of ĝ as ``gradient/<name>/variance``, ``…/snr`` and ``…/cosine``. The reference
    of the cosine is the mean gradient of all other batches by the estimator ``reference``.

    With ``n_states`` it also logs the parts of the variance of what a single step adds to the gradient
    (:class:`~sb3_pg_ext.functional.variance.VarianceParts`): ``…/sigma_tau``, ``…/sigma_a``, ``…/sigma_s`` and
    ``…/removable``, the share that some baseline could still take away. It plays so many episodes more, chooses a step
    of each at random, returns to it by repeating the episode from its seed, and plays on three times from there: once
    after the same action, twice after another. From that step on environments have a new ``np_random``, so that their
    chance is new, if that is where it comes from; an environment that does not repeat itself is told of. Estimators
    with a number for every component, and ``ratios``, have no parts.

    A baseline that learns starts anew with every measurement: it is fitted to one batch more, played before the others,
    and then learns from batch to batch.

    Training goes on as without it, bit by bit: it has its own environment and its own copy of the policy, and puts the
    states of all random generators back. The same policy after the same number of steps gives the same numbers.

    :param env: an environment of its own, wrapped like the training environment; ``None`` for off-policy algorithms
    :param baselines: names of baselines, subtracted from rewards-to-go; or a dictionary of baselines by names of one's
        own choice, ``{"optimal, cross-fitted": make_baseline("optimal", cross_fit=True)}``; ``None`` for ``"none"`` and
        ``"mean"``, or nothing without ``env``
    :param total_return_baselines: likewise, subtracted from the total returns of the episodes; logged as
        ``total_<name>``
    :param advantage_estimators: names of advantage estimators, which use the model's critic
    :param update_freq: measure before every so many-th rollout, beginning with the first; a rollout of an off-policy
        algorithm is what it collects between two updates
    :param n_batches: number of batches, at least 2
    :param n_episodes: number of episodes of a batch, a multiple of the number of environments in ``env``
    :param reference: name of the estimator, one of those measured, that the reference gradient comes from; ``None`` for
        ``"mean"``, or, where that is not measured, the first one
    :param seed: seed of what is drawn for the measurements
    :param ratios: ``"per_step"``, ``"per_decision"``: gradients from the episodes of the policy of the rollout before,
        see :func:`sb3_pg_ext.functional.importance.weighted_steps`; logged as ``importance_<name>``
    :param max_ratio: what the ratios and their products are cut at
    :param actor_gradients: ``"reparametrized"``, ``"score"``; ``None`` for all that the algorithm has, without ``env``
    :param n_states: number of states for the parts of the variance, a multiple of the number of environments, at least
        2; 0 for no parts
    :param verbose: as in SB3
    :raises ValueError: for a bad argument; at the beginning of training, if the model or ``env`` do not fit
    """

    def __init__(
        self,
        env: GymEnv | None,
        baselines: Baselines | None = None,
        total_return_baselines: Baselines = (),
        advantage_estimators: Sequence[str] = (),
        update_freq: int = 10,
        n_batches: int = 20,
        n_episodes: int = 10,
        reference: str | None = None,
        seed: int = 0,
        ratios: Sequence[str] = (),
        max_ratio: float = float("inf"),
        actor_gradients: Sequence[str] | None = None,
        n_states: int = 0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.env = env if isinstance(env, VecEnv) or env is None else DummyVecEnv([lambda: env])
        for name, count, low in (("update_freq", update_freq, 1), ("n_batches", n_batches, 2), ("seed", seed, 0)):
            check_count(name, count, low)
        check_count("n_episodes", n_episodes)
        check_count("n_states", n_states, 2 if n_states else 0, allowed="0, or an integer ≥ 2")
        for name, count in (("n_episodes", n_episodes), ("n_states", n_states)):
            if self.env is not None and count % self.env.num_envs:
                raise ValueError(
                    f"{name}={count!r} cannot be shared equally by {self.env.num_envs} environments; "
                    f"allowed: a multiple of {self.env.num_envs}"
                )
        for ratio in ratios:
            check_choice("ratios", ratio, ("per_step", "per_decision"))
        if max_ratio != float("inf"):
            check_range("max_ratio", max_ratio, 1, allowed="a number ≥ 1, or infinity for no limit")
        for gradient in actor_gradients or ():
            check_choice("actor_gradients", gradient, ("reparametrized", "score"))
        if baselines is None:
            baselines = () if env is None else ("none", "mean")
        self.baselines = {name: (baseline, False) for name, baseline in _by_name(baselines)}
        self.baselines |= {f"total_{name}": (baseline, True) for name, baseline in _by_name(total_return_baselines)}
        self.advantage_estimators = advantage_estimators
        self.ratios = ratios
        self.max_ratio = max_ratio
        of_episodes = [*self.baselines, *advantage_estimators, *(f"importance_{name}" for name in ratios)]
        if env is None and of_episodes:
            raise ValueError(f"env=None together with {of_episodes}; allowed: an environment")
        if env is not None and actor_gradients:
            raise ValueError(f"actor_gradients={actor_gradients!r} together with env; allowed: env=None")
        self.actor_gradients = actor_gradients
        if env is not None and not of_episodes:
            raise ValueError("baselines=() and nothing else to measure; allowed: at least one baseline or estimator")
        self._measured = of_episodes
        self.reference = self._choose_reference(reference, of_episodes) if env is not None else reference
        self.update_freq = update_freq
        self.n_batches = n_batches
        self.n_episodes = n_episodes
        self.n_states = n_states
        self.seed = seed
        self._n_rollouts = 0

    @staticmethod
    def _choose_reference(reference: str | None, measured: Sequence[str]) -> str:
        reference = reference or ("mean" if "mean" in measured else measured[0])
        check_choice("reference", reference, measured)
        return reference

    def _init_callback(self) -> None:
        model = self.model
        if self.env is None:
            self._check_actor()
            return
        policies = ActorCriticPolicy, MaskableActorCriticPolicy
        if not isinstance(model, OnPolicyAlgorithm) or not isinstance(model.policy, policies):
            raise ValueError(
                f"GradientVarianceCallback in {type(model).__name__}; allowed: on-policy algorithms, or without env "
                "SAC, TD3, DDPG, SACV and GumbelDDPG"
            )
        if isinstance(model.policy, RecurrentActorCriticPolicy):
            raise ValueError(f"GradientVarianceCallback with {type(model.policy).__name__}; allowed: no recurrence")
        if self.n_states and model.use_sde:
            raise ValueError(f"n_states={self.n_states} with use_sde=True, whose noise lasts; allowed: 0")
        self._fit_env(model)
        self._check_estimators(model)
        with self._own_random_numbers():
            self._policy, self._behaviour = (policy_factory(model)().to(model.device) for _ in range(2))
        for policy in (self._policy, self._behaviour):
            policy.set_training_mode(False)
        self._behaviour.load_state_dict(model.policy.state_dict())

    def _check_actor(self) -> None:
        model: Any = self.model
        losses = losses_of(model) if isinstance(model, OffPolicyAlgorithm) else {}
        if not losses:
            raise ValueError(
                f"env=None in {type(model).__name__}; allowed: an environment for on-policy algorithms, None for SAC, "
                "TD3, DDPG, SACV and GumbelDDPG"
            )
        names = list(losses) if self.actor_gradients is None else self.actor_gradients
        for name in names:
            check_choice("actor_gradients", name, losses)
        self._of_actor = names
        self.reference = self._choose_reference(self.reference, names)

    def _fit_env(self, model: OnPolicyAlgorithm) -> None:
        assert self.env is not None
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
        estimators: dict[str, GradientEstimator] = {
            name: BaselineGradient(deepcopy(baseline), total_returns)
            for name, (baseline, total_returns) in self.baselines.items()
        }
        for name in self.advantage_estimators:
            estimator = resolve_estimator(name, None, gae_lambda=self.model.gae_lambda, provides=PROVIDES)
            estimators[name] = AdvantageGradient(estimator)
        return estimators

    def _estimate_all(self, estimators: Mapping[str, GradientEstimator], policy: ActorCriticPolicy) -> Gradients:
        """Play a batch, and compute what every estimator makes of it."""
        batch = self._collect(policy)
        gradients = {}
        for name, estimator in estimators.items():
            gradients[name] = estimator.gradient(batch) / self.n_episodes
            estimator.fit(batch)
            if not gradients[name].isfinite().all():
                raise NonFiniteError(f"gradient by {name!r} with NaN or infinity")
        return gradients

    def _on_rollout_start(self) -> None:
        if self._n_rollouts % self.update_freq == 0 and self._is_ready:
            try:
                for name, statistics in self.measure().items():
                    for key, value in statistics.numbers().items():
                        self.logger.record(f"gradient/{name}/{key}", value)
            except NonFiniteError as problem:
                warnings.warn(f"The variance of the gradient was not measured: {problem}", RuntimeWarning, stacklevel=2)
        if self.ratios:
            self._behaviour.load_state_dict(self.model.policy.state_dict())
        self._n_rollouts += 1

    @property
    def _is_ready(self) -> bool:
        """Whether an off-policy algorithm has begun to learn."""
        model = self.model
        if not isinstance(model, OffPolicyAlgorithm):
            return True
        return self.num_timesteps > model.learning_starts and getattr(model.replay_buffer, "size", int)() > 0

    def _on_step(self) -> bool:
        return True

    def measure(self, behaviour: ActorCriticPolicy | None = None) -> dict[str, GradientStatistics]:
        """The statistics of every estimator for the model's present policy.

        Outside of training call ``init_callback(model)`` before.

        :param behaviour: μ, the policy that plays for ``ratios``; ``None`` for that of the rollout before, which is
            the present one before the first
        :raises NonFiniteError: if there is a non-finite value in a batch
        """
        if behaviour is not None:
            self._behaviour.load_state_dict(behaviour.state_dict())
        with self._own_random_numbers():
            batches, parts = self._measure_episodes() if self.env is not None else self._measure_actor()
        assert self.reference is not None
        by_name = {name: th.stack([gradients[name] for gradients in batches]) for name in batches[0]}
        return {
            name: replace(gradient_statistics(values, by_name[self.reference]), parts=parts.get(name))
            for name, values in by_name.items()
        }

    def _measure_episodes(self) -> tuple[list[Gradients], Parts]:
        assert self.env is not None
        self._policy.load_state_dict(self.model.policy.state_dict())
        if unwrap_vec_normalize(self.env) is not None:
            sync_envs_normalization(self.training_env, self.env)
        self.env.seed(self.seed + self.model.num_timesteps)
        estimators = self._make_estimators()
        if any(isinstance(baseline, LearningBaseline) for baseline, _ in self.baselines.values()):
            self._estimate_all(estimators, self._policy)
        batches = [self._estimate_all(estimators, self._policy) for _ in range(self.n_batches)]
        if self.ratios:
            weighted = {
                f"importance_{name}": ImportanceGradient(name == "per_decision", self.max_ratio) for name in self.ratios
            }
            for gradients in batches:
                gradients |= self._estimate_all(weighted, self._behaviour)
        return batches, self._measure_parts(estimators) if self.n_states else {}

    def _measure_parts(self, estimators: Mapping[str, GradientEstimator]) -> Parts:
        assert self.env is not None
        normalizer, seed = unwrap_vec_normalize(self.env), self.seed + self.model.num_timesteps
        if normalizer is not None:  # episodes are to repeat themselves
            learns, normalizer.training = normalizer.training, False
        branches, steps = play_branches(self._play, self.env, self.n_states, seed)
        if normalizer is not None:
            normalizer.training = learns
        batches: Any = tuple(tuple(self._batch(episodes) for episodes in row) for row in branches)
        return {name: parts_of(estimator, batches, steps) for name, estimator in estimators.items()}

    def _measure_actor(self) -> tuple[list[Gradients], Parts]:
        model: Any = self.model
        model.policy.set_training_mode(False)
        all_losses, env = losses_of(model), model.get_vec_normalize_env()
        losses, batches = {name: all_losses[name] for name in self._of_actor}, []
        for _ in range(self.n_batches):
            batch = model.replay_buffer.sample(model.batch_size, env=env)
            batches.append({name: batch_gradient(model, loss, batch) for name, loss in losses.items()})
        if not all(gradient.isfinite().all() for gradients in batches for gradient in gradients.values()):
            raise NonFiniteError("gradient of the actor with NaN or infinity")
        if not self.n_states:
            return batches, {}
        states = model.replay_buffer.sample(self.n_states, env=env)
        return batches, {name: actor_parts(model, loss, states) for name, loss in losses.items()}

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

    def _collect(self, policy: ActorCriticPolicy) -> Batch:
        assert self.env is not None
        obs = self.env.reset()
        transitions, last_inputs = self._play(obs, self.n_episodes // self.env.num_envs, policy=policy)
        return self._batch(transitions, last_inputs, policy)

    def _play(
        self,
        obs: Any,
        episodes_per_env: int,
        intervene: Intervene | None = None,
        policy: ActorCriticPolicy | None = None,
    ) -> tuple[EpisodeTransitions, PolicyInputs]:
        """Complete episodes from the first observations on, and what is seen after the last step.

        :param obs: the first observations
        :param episodes_per_env: how many of every environment
        :param intervene: given the number of a step, observations and the actions chosen, gives the actions to take
        :param policy: who plays; ``None`` for π
        """
        assert isinstance(self.model, OnPolicyAlgorithm)
        assert self.env is not None
        policy, n_envs = policy or self._policy, self.env.num_envs
        transitions = EpisodeTransitions(
            policy.observation_space,
            policy.action_space,
            n_envs,
            episodes_per_env,
            expect_an_end_within=self.model._total_timesteps,
        )
        noise_freq = self.model.sde_sample_freq
        act, _ = make_action_sampler(policy, n_envs, None)
        within_bounds = make_bounds(policy, n_envs)
        see_masks = make_mask_reader(self.env, policy, self._use_masking)
        while not transitions.complete:
            t = transitions.size
            if self.model.use_sde and (t == 0 or (noise_freq > 0 and t % noise_freq == 0)):
                policy.reset_noise(n_envs)
            inputs = PolicyInputs(obs, see_masks(t))
            actions = act(inputs)
            if intervene is not None:
                actions = intervene(t, obs, actions)
            new_obs, rewards, dones, infos = self.env.step(within_bounds(actions))
            transitions.add(inputs, actions, rewards, dones, infos)
            obs = new_obs
        if policy is self._policy and intervene is None:
            transitions.evaluated = act.evaluated
        return transitions, PolicyInputs(obs)

    def _batch(
        self,
        transitions: EpisodeTransitions,
        last_inputs: PolicyInputs | None = None,
        behaviour: ActorCriticPolicy | None = None,
    ) -> Batch:
        """What π says of episodes.

        :param transitions: the episodes
        :param last_inputs: what was seen after their last step; ``None`` where all have ended there
        :param behaviour: who played; ``None`` for π
        """
        assert isinstance(self.model, OnPolicyAlgorithm)
        last_inputs = last_inputs or PolicyInputs(transitions.inputs.rows(-1).observations)
        check_transitions(transitions, last_inputs)
        evaluation = evaluate_transitions(self._policy, transitions, last_inputs)
        discounts_states = getattr(self.model, "discount_state_distribution", False)
        batch = Batch(self._policy, transitions, evaluation, self.model.gamma, discounts_states)
        if behaviour is None or behaviour is self._policy:
            return batch
        _, of_behaviour = evaluate(behaviour, batch.inputs, batch.actions)
        log_ratios = transitions.flat(evaluation.log_probs).astype(np.float64) - of_behaviour
        return replace(batch, log_ratios=log_ratios)
