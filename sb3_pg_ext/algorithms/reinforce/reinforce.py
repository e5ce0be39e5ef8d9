"""REINFORCE, with and without baselines."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import NoneType
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import update_learning_rate
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.algorithms.base.constructor import arguments_of, refuse_unused
from sb3_pg_ext.algorithms.base.critic import fit_critic
from sb3_pg_ext.algorithms.base.on_policy import OnPolicyBase
from sb3_pg_ext.algorithms.reinforce.reuse import Played, inputs_of, numbers_of, played
from sb3_pg_ext.arguments import check_choice, check_count, check_flag, check_range, check_schedule
from sb3_pg_ext.baselines import Episodes, LearningBaseline, apply_baseline, build_baseline, corrections
from sb3_pg_ext.functional.finite import NonFiniteError, check_finite, check_number
from sb3_pg_ext.functional.importance import effective_sample_size, weighted_steps
from sb3_pg_ext.functional.surrogates import normalize, policy_gradient_loss, value_loss
from sb3_pg_ext.functional.tensors.vectors import split_like
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.gradients.scores import ScoreFunctions
from sb3_pg_ext.plugins import BaselineSpec, registry
from sb3_pg_ext.policies.evaluation import action_array, evaluate, parts, predict_values
from sb3_pg_ext.policies.images import lay_out_images
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import map_arrays
from sb3_pg_ext.rollouts.assessment import check_transitions, put_final_values
from sb3_pg_ext.rollouts.episodes import (
    check_baseline,
    rewards_to_go,
    sees_actions,
    steps_into_episode,
    to_episodes,
    with_actions,
)
from sb3_pg_ext.rollouts.filling import put_action_masks
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions, Transitions

DEFAULT_EPISODES = 10


class REINFORCE(OnPolicyBase):
    """The Monte-Carlo policy gradient (Williams, 1992, https://doi.org/10.1007/BF00992696).

    With m episodes, one step of the optimiser along the gradient of

        −(1/m) Σ_i Σ_t [log π(a_t|s_t)·(G_t − b_t) + ent_coef·H(π(·|s_t))]

    where G_t = Σ_{k≥t} γ^{k−t} r_k is the return from step t on (G(PO)MDP, Baxter & Bartlett 2001), or that of the
    whole episode, and b_t a baseline. The sum over steps is not divided by their number, so that a long episode weighs
    as much as it does in the expected return. As everybody does, step t is not weighted with γᵗ; with
    ``discount_state_distribution`` its whole bracket is.

    The unit of work is the complete episode: all environments are reset at the start of a rollout, and each gives the
    same number of episodes. What an environment does after its share is discarded, but counts in ``num_timesteps``.
    With ``n_steps`` the unit is the step instead: rollouts have a fixed length and go on where the last one ended,
    incomplete episodes are continued with V, and the sums above become means over steps.

    A critic is trained if and only if something needs it: ``baseline="value"`` or another that sees V, ``n_steps`` or
    ``bootstrap_truncated``. Without one its arguments mean nothing, so that the baseline alone can be exchanged.

    After the policy's step it is fitted by ``n_critic_updates`` passes of minibatch steps on mean((V(s_t) − G_t)²), at
    a learning rate of its own: the policy's optimiser keeps what it remembers of every parameter apart. So V(s_t) never
    depends on the returns that it is subtracted from. Parameters that the action distribution depends on, such as a
    shared features extractor, are left as they are. With ``n_critic_updates=0`` the critic's loss, weighted by
    ``vf_coef``, goes into the policy's own step instead, with its gradient clipped apart, and trains all that V depends
    on.

    :param n_steps: number of steps in every environment for one update, instead of ``n_episodes``
    :param vf_coef: weight of the critic's loss with ``n_critic_updates=0``; otherwise unused
    :param max_grad_norm: the gradients of actor and critic are scaled down to this norm each; ``None`` for no clipping
    :param batch_size: the largest size of the critic's minibatches; the policy's step takes the whole rollout
    :param n_critic_updates: number of the critic's passes over a rollout; 0 for a part in the policy's step
    :param critic_learning_rate: learning rate of the critic's steps; a number, or a function of the remaining progress
        (1 to 0)
    :param normalize_advantage: whether to scale the differences G_t − b_t of an update to mean 0 and standard
        deviation 1
    :param n_episodes: number of episodes for one update, rounded up to a multiple of the number of environments;
        ``None`` (without ``n_steps``) means 10
    :param returns: ``"reward_to_go"`` for G_t; ``"total"`` for the return of the whole episode at each of its steps
        (Williams' original, not with ``n_steps``)
    :param bootstrap_truncated: whether an episode that was cut, by a time limit for example, is continued with V of its
        last observation; otherwise it counts the rewards that it collected
    :param discount_state_distribution: whether step t is weighted with γᵗ, which gives the true gradient of the
        discounted return; not with ``returns="total"``, whose discounts do so already
    :param reuse_batches: k, to learn from the episodes of the latest k rollouts; what earlier policies played is
        weighted by importance ratios, and averaged with the rest. 1 for the present rollout alone
    :param reuse_ratio: ``"per_step"``: an earlier step has the weight min(max_ratio, π(a_t|s_t) / μ(a_t|s_t)), and its
        return as it was; ``"per_decision"``: the product of the ratios up to that step, and a return that takes later
        ones into account, see :func:`sb3_pg_ext.functional.importance.weighted_steps`
    :param max_ratio: what ratios and their products are cut at; infinity for no limit
    :param baseline: the name of a baseline: ``"none"``, ``"mean"``, ``"moving_average"``, ``"time"``, ``"linear"``,
        ``"value"``, ``"value_time"``, ``"q_prop"``, ``"action_factorized"``, ``"leave_one_out"``, ``"optimal"``,
        ``"optimal_per_component"``, or one that a plug-in provides
    :param baseline_kwargs: the baseline's own parameters
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    n_steps: int | None  # type: ignore[assignment]
    max_grad_norm: float | None  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int | None = None,
        gamma: float = 0.99,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = None,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        normalize_advantage: bool = False,
        n_episodes: int | None = None,
        returns: str = "reward_to_go",
        bootstrap_truncated: bool = False,
        discount_state_distribution: bool = False,
        batch_size: int = 64,
        n_critic_updates: int = 10,
        critic_learning_rate: float | Schedule = 5e-4,
        reuse_batches: int = 1,
        reuse_ratio: str = "per_step",
        max_ratio: float = 2.0,
        baseline: str = "none",
        baseline_kwargs: dict[str, Any] | None = None,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(**arguments_of(OnPolicyAlgorithm, locals()))
        self.normalize_advantage = normalize_advantage
        self.n_episodes = n_episodes
        self.returns = returns
        self.bootstrap_truncated = bootstrap_truncated
        self.discount_state_distribution = discount_state_distribution
        self.batch_size = batch_size
        self.n_critic_updates = n_critic_updates
        self.critic_learning_rate = critic_learning_rate
        self.reuse_batches = reuse_batches
        self.reuse_ratio = reuse_ratio
        self.max_ratio = max_ratio
        self.baseline = baseline
        self.baseline_kwargs = baseline_kwargs
        self.engine = engine
        self._baseline_state: dict[str, Any] = {}
        self._earlier: list[Played] = []
        if _init_setup_model:
            self._setup_model()

    @property
    def trains_critic(self) -> bool:
        """Whether anything needs V."""
        return getattr(self._baseline, "needs_values", False) or self.n_steps is not None or self.bootstrap_truncated

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("returns", self.returns, ("reward_to_go", "total"))
        for name in ("normalize_advantage", "bootstrap_truncated", "discount_state_distribution"):
            check_flag(name, getattr(self, name))
        if self.n_steps is not None and self.n_episodes is not None:
            raise ValueError(
                f"n_steps={self.n_steps!r} together with n_episodes={self.n_episodes!r}; allowed: one of them, or none"
            )
        if self.n_steps is not None:
            check_count("n_steps", self.n_steps)
            if self.returns == "total":
                raise ValueError(
                    f"returns='total' together with n_steps={self.n_steps!r}; allowed: n_episodes, since the total "
                    "return of an incomplete episode is not known"
                )
            self._check_normalization(self.n_steps * self.n_envs, "n_steps", "n_envs")
        if self.n_episodes is not None:
            check_count("n_episodes", self.n_episodes)
            if self.n_episodes % self.n_envs:
                warnings.warn(
                    f"n_episodes={self.n_episodes} cannot be shared equally by {self.n_envs} environments: every "
                    f"update takes {self._episodes_per_env * self.n_envs}",
                    UserWarning,
                    stacklevel=2,
                )
        if self.discount_state_distribution and self.returns == "total":
            raise ValueError(
                "discount_state_distribution=True together with returns='total'; allowed: returns='reward_to_go', "
                "since total returns are discounted from the start of the episode already"
            )
        self._refuse_monitors_without_early_resets()
        self._set_up_baseline()
        self._check_critic()
        self._check_reuse()

    def _check_critic(self) -> None:
        check_count("batch_size", self.batch_size)
        check_count("n_critic_updates", self.n_critic_updates, 0)
        check_schedule("critic_learning_rate", self.critic_learning_rate)
        if self.n_critic_updates:
            refuse_unused(self, f"n_critic_updates={self.n_critic_updates}", "vf_coef")
        else:
            refuse_unused(self, "n_critic_updates=0", "batch_size", "critic_learning_rate")

    def _check_reuse(self) -> None:
        check_count("reuse_batches", self.reuse_batches)
        check_choice("reuse_ratio", self.reuse_ratio, ("per_step", "per_decision"))
        if self.max_ratio != float("inf"):
            check_range("max_ratio", self.max_ratio, 1, allowed="a number ≥ 1, or infinity for no limit")
        if self.reuse_batches == 1:
            return refuse_unused(self, "reuse_batches=1", "reuse_ratio", "max_ratio")
        excluded = {
            "n_steps": (None, "complete episodes"),
            "bootstrap_truncated": (False, "returns that end with the episode"),
            "returns": ("reward_to_go", "rewards-to-go"),
        }
        for name, (allowed, why) in excluded.items():
            if getattr(self, name) != allowed:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} together with reuse_batches={self.reuse_batches}, which takes "
                    f"{why}; allowed: {allowed!r}"
                )

    def _refuse_monitors_without_early_resets(self) -> None:
        """Environments that have given their episodes are reset in the middle of another one."""
        env = self.env
        if env is None or self.n_steps is not None or self.n_envs == 1:
            return
        monitored = np.flatnonzero(env.env_is_wrapped(Monitor)).tolist()
        strict = [n for n in monitored if not env.get_attr("allow_early_resets", [n])[0]]
        if strict:
            raise ValueError(
                f"allow_early_resets=False of the Monitor of environment {strict[0]}, together with n_episodes in "
                f"{self.n_envs} environments, which go on until the last has given its episodes, and are then reset; "
                "allowed: allow_early_resets=True, n_steps, or a single environment"
            )

    def _set_up_baseline(self) -> None:
        if not isinstance(self.baseline_kwargs, (Mapping, NoneType)):
            raise ValueError(f"baseline_kwargs={self.baseline_kwargs!r}; allowed: a dictionary or None")
        spec = registry().find(BaselineSpec, self.baseline)
        self._baseline, self._per_component = build_baseline(spec, self.baseline_kwargs or {}), spec.per_component
        self._check_baseline(f"baseline={self.baseline!r} with baseline_kwargs={self.baseline_kwargs!r}")
        if self._baseline_state and isinstance(self._baseline, LearningBaseline):
            self._baseline.load_state_dict(self._baseline_state)

    def _check_baseline(self, chosen: str) -> None:
        if self.n_steps is not None and getattr(self._baseline, "needs_episodes", 1) > 1:
            raise ValueError(
                f"{chosen} together with n_steps={self.n_steps!r}; allowed: n_episodes, since it takes other "
                "complete episodes"
            )
        n_episodes = self._episodes_per_env * self.n_envs
        check_baseline(chosen, self._baseline, n_episodes, self.observation_space, self.action_space)
        if self._per_component and self.normalize_advantage:
            raise ValueError(
                f"{chosen} together with normalize_advantage=True; allowed: normalize_advantage=False, since "
                "steps have no advantages where every component of the gradient has its own baseline"
            )

    def _start_rollout(self, env: VecEnv) -> Transitions:
        self.rollout_buffer.reset()
        if self.n_steps is not None:
            return Transitions(self.observation_space, self.action_space, env.num_envs, self.n_steps)
        assert self._last_episode_starts is not None
        if not self._last_episode_starts.all():
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
        return EpisodeTransitions(
            self.observation_space,
            self.action_space,
            env.num_envs,
            self._episodes_per_env,
            expect_an_end_within=self._total_timesteps,
        )

    @property
    def _episodes_per_env(self) -> int:
        return math.ceil((self.n_episodes or DEFAULT_EPISODES) / self.n_envs)

    def _leave_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        if self.n_steps is not None:  # otherwise the next rollout begins with new episodes
            super()._leave_rollout(transitions, first_starts)

    def _finish_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        check_transitions(transitions, self._last_inputs())
        self._inputs = inputs = lay_out_images(self.policy, transitions.inputs.map(transitions.flat))
        values = self._predict_values(inputs) if self.trains_critic else None
        continuations = self._continuations(transitions)
        to_go = rewards_to_go(transitions, continuations, self.gamma)
        check_finite("return", to_go)
        steps_before = self._steps_before(first_starts)
        self._steps_into_episode = steps_into_episode(transitions, steps_before, -1, transitions.ends[-1])
        episodes = to_episodes(transitions, inputs.observations, to_go, self.returns == "total", steps_before, values)
        self.logger.record("rollout/reward_mean", float(episodes.rewards.mean()))
        self.logger.record("rollout/n_episodes", len(episodes.lengths))
        if continuations is not None:
            self._log_td_errors(episodes, transitions.flat(transitions.truncated), transitions.flat(continuations))
        actions = transitions.flat(transitions.actions)
        self._fresh = self._complete(episodes, inputs, actions)
        if self.reuse_batches > 1:
            batches = [played(transitions, episodes.t), *self._earlier]
            self._inputs, actions = inputs_of(batches), numbers_of(batches, "actions")
            self._episodes = self._complete(self._with_earlier(batches, actions), self._inputs, actions)
        else:
            self._episodes = self._fresh
        self._fill_rollout_buffer(actions, transitions.flat(to_go), self._subtract_baseline())

    def _complete(self, episodes: Episodes, inputs: PolicyInputs, actions: np.ndarray) -> Episodes:
        """With all that a baseline may read, and the weights γᵗ beside those that there are."""
        self._scores = ScoreFunctions(self.policy, inputs, actions)
        if sees_actions(self._baseline):
            episodes = with_actions(episodes, self.policy, inputs, actions)
        weights = episodes.weights
        if self.discount_state_distribution:
            weights = (weights * self.gamma**episodes.t).astype(np.float32)
        return replace(episodes, scores=self._scores, weights=weights, gamma=self.gamma)

    def _with_earlier(self, batches: list[Played], actions: np.ndarray) -> Episodes:
        """The episodes of all batches, of which the first is new, as the present policy is to learn from them."""
        values, log_probs = evaluate(self.policy, self._inputs, actions)
        batches[0]["log_probs"] = log_probs[: len(batches[0]["t"])]
        log_ratios = log_probs - numbers_of(batches, "log_probs")
        rewards, t = (numbers_of(batches, name) for name in ("rewards", "t"))
        per_decision = self.reuse_ratio == "per_decision"
        returns, weights = weighted_steps(rewards, log_ratios, t, self.gamma, per_decision, self.max_ratio)
        check_finite("return", returns[:, None])
        self.logger.record("train/effective_sample_size", effective_sample_size(weights))
        self._earlier = batches[: self.reuse_batches - 1]
        return Episodes(
            rewards=rewards,
            returns=returns.astype(np.float32),
            observations=self._inputs.observations,
            t=t,
            episode_id=(t == 0).cumsum() - 1,
            values=values if self.trains_critic else None,
            weights=weights.astype(np.float32),
        )

    def _log_td_errors(self, episodes: Episodes, truncated: np.ndarray, continuations: np.ndarray) -> None:
        """Log δ_t = r_t + γ·V(s_{t+1}) − V(s_t), but not at a time limit beyond which the critic is not asked.

        :param episodes: those of the rollout
        :param truncated: [B], episode by episode
        :param continuations: V(s_{t+1}) of the last steps of episodes, 0 elsewhere, [B]
        """
        assert episodes.values is not None
        last = np.diff(episodes.episode_id, append=-1) != 0
        next_values = np.where(last, continuations, np.append(episodes.values[1:], np.float32(0)))
        errors = (episodes.rewards + self.gamma * next_values.astype(np.float64) - episodes.values)[
            ~(truncated & (not self.bootstrap_truncated))
        ]
        if len(errors):
            self.logger.record("train/td_error_mean", float(errors.mean()))
            self.logger.record("train/td_error_std", float(errors.std()))

    def _subtract_baseline(self) -> np.ndarray:
        """G_t − b_t, [B]; where components have their own baselines, G_t, and Σ_i b_i∘g_i is kept for the update."""
        baseline = apply_baseline(self._baseline, self._episodes, self._per_component)
        advantages = self._episodes.returns
        if self._per_component:
            self._subtrahend = result = (baseline * self._episodes.gradients[0]).sum(axis=0)
        else:
            advantages = result = advantages - baseline
        if not np.isfinite(result).all():
            raise NonFiniteError(f"baseline {self.baseline!r} gives NaN or infinity")
        return advantages

    def _continuations(self, transitions: Transitions) -> np.ndarray | None:
        """V of the observation that a cut episode stopped at, 0 elsewhere, [T, N]; ``None`` if nothing is continued."""
        if not self.trains_critic:
            return None
        next_values = np.zeros_like(transitions.rewards)
        if self.n_steps is not None:
            next_values[-1] = np.where(transitions.ends[-1], 0, self._predict_values(self._last_inputs()))
        if self.bootstrap_truncated:
            put_final_values(self._predict_values, transitions, next_values)
        return next_values

    def _predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        return predict_values(self.policy, inputs)

    def _fill_rollout_buffer(self, actions: np.ndarray, to_go: np.ndarray, advantages: np.ndarray) -> None:
        """Lay all episodes into SB3's buffer as those of one environment, one after the other, without log-probs.

        :param to_go: the returns from every step of the rollout on; those of earlier batches are in the episodes
        """
        buffer, episodes = self.rollout_buffer, self._episodes
        to_go = np.concatenate([to_go, episodes.returns[len(to_go) :]])

        def column(array: np.ndarray) -> np.ndarray:
            return array[:, None]

        buffer.buffer_size, buffer.n_envs = len(advantages), 1
        buffer.reset()
        buffer.observations = map_arrays(column, episodes.observations)  # type: ignore[assignment]
        buffer.actions = column(actions)
        buffer.rewards = column(episodes.rewards)
        buffer.episode_starts = column(np.diff(episodes.episode_id, prepend=-1).astype(np.float32))
        if episodes.values is not None:
            buffer.values = column(episodes.values)
        buffer.returns, buffer.advantages = column(to_go), column(advantages)
        masks = self._inputs.action_masks
        put_action_masks(buffer, None if masks is None else column(masks))
        buffer.pos, buffer.full = len(advantages), True

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_baseline",
            "_episodes",
            "_fresh",
            "_inputs",
            "_scores",
            "_subtrahend",
        ]

    def _improve(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        engine, sums = self._make_backend(), dict.fromkeys(("policy_loss", "entropy", "value_loss"), 0.0)
        old = engine.snapshot(self._inputs)
        engine.zero_gradient()
        self._differentiate_policy(engine, sums)
        self.logger.record("train/grad_norm", engine.clip_gradient(self.max_grad_norm))
        if self.trains_critic and not self.n_critic_updates:
            self._add_gradient_of_critic(engine, sums)
        engine.step()
        kl = engine.mean_kl(old, self._inputs)
        self.logger.record("train/kl", check_number("KL(old‖new)", kl))
        if self.trains_critic and self.n_critic_updates:
            sums["value_loss"] = self._fit_critic(engine)
        self._log(sums)
        if isinstance(self._baseline, LearningBaseline):
            self._baseline.fit(self._fresh)
            self._baseline_state = self._baseline.state_dict()

    def _differentiate_policy(self, engine: PolicyBackend, sums: dict[str, float]) -> None:
        """Add the gradient of the policy's loss, chunk by chunk, and to ``sums`` what is to be logged."""
        denominator = len(self._episodes.t) if self.n_steps is not None else len(self._episodes.lengths)
        advantages = self.rollout_buffer.advantages[:, 0]
        scale = 1.0
        if self.normalize_advantage:
            scale, advantages = 1 / (float(advantages.std(ddof=1, dtype=np.float64)) + 1e-8), normalize(advantages)
        weights = np.full_like(advantages, self._episodes.weights)
        actions = action_array(self.rollout_buffer.actions[:, 0], self.action_space)
        for part in parts(self._inputs.observations):
            log_probs, entropies = engine.evaluate_policy(self._inputs.rows(part), actions[part])
            loss = policy_gradient_loss(log_probs, (weights * advantages)[part], denominator)
            sums["policy_loss"] += loss.value
            sums["entropy"] += float(entropies.sum())
            derivatives = {"log_probs": loss.gradient}
            if self.ent_coef:
                derivatives["entropies"] = weights[part] * (-self.ent_coef / denominator)
            engine.backward(derivatives)
        for others, terms in corrections(self._baseline, self._episodes):
            others, terms = action_array(others, self.action_space), (scale * weights * terms).astype(np.float32)
            for part in parts(self._inputs.observations):
                log_probs, _ = engine.evaluate_policy(self._inputs.rows(part), others[part])
                engine.backward({"log_probs": policy_gradient_loss(log_probs, terms[part], denominator).gradient})
        if self._per_component:
            subtrahend = th.as_tensor(self._subtrahend / denominator, dtype=th.float32, device=self.device)
            pieces = split_like(subtrahend, self._scores.parameters)
            for parameter, piece in zip(self._scores.parameters, pieces, strict=True):
                assert parameter.grad is not None
                parameter.grad += piece

    def _add_gradient_of_critic(self, engine: PolicyBackend, sums: dict[str, float]) -> None:
        """Clip the gradient of the critic's loss apart, and add it to the policy's."""
        parameters = list(self.policy.parameters())
        of_policy = [None if p.grad is None else p.grad.clone() for p in parameters]
        engine.zero_gradient()
        self._differentiate_critic(engine, sums)
        self.logger.record("train/value_grad_norm", engine.clip_gradient(self.max_grad_norm))
        for parameter, gradient in zip(parameters, of_policy, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def _fit_critic(self, engine: PolicyBackend) -> float:
        """Passes of the critic alone, which leave what the policy's gradient has reached; gives its mean loss."""
        optimizer = self.policy.optimizer
        engine.freeze([parameter for parameter in self.policy.parameters() if parameter.grad is not None])
        update_learning_rate(optimizer, self._now("critic_learning_rate", self.critic_learning_rate))
        steps = Steps.of(self.rollout_buffer, self.action_space)[: len(self._fresh.t)]
        fit = fit_critic(engine, steps, self.n_critic_updates, self.batch_size, self.max_grad_norm)
        update_learning_rate(optimizer, self.lr_schedule(self._current_progress_remaining))
        self.logger.record("train/value_grad_norm", fit.grad_norm)
        return check_number("loss of the critic", fit.loss)

    def _differentiate_critic(self, engine: PolicyBackend, sums: dict[str, float]) -> None:
        """Add the gradient of the critic's loss, likewise."""
        n_steps = len(self._fresh.t)
        inputs, returns = self._inputs.rows(slice(n_steps)), self.rollout_buffer.returns[:n_steps, 0]
        for part in parts(inputs.observations):
            values = engine.predict_values(inputs.rows(part))
            loss = value_loss(values, returns[part])
            share = len(values) / n_steps
            sums["value_loss"] += share * loss.value
            engine.backward({"values": self.vf_coef * share * loss.gradient})

    def _log(self, sums: dict[str, float]) -> None:
        buffer, n_steps = self.rollout_buffer, len(self._episodes.t)
        self.logger.record("train/n_updates", self._n_updates + 1, exclude="tensorboard")
        self.logger.record("train/policy_loss", sums["policy_loss"])
        self.logger.record("train/entropy_loss", -sums["entropy"] / n_steps)
        self.logger.record("train/advantage_mean", float(buffer.advantages.mean()))
        self.logger.record("train/advantage_std", float(buffer.advantages.std()))
        if self.trains_critic:
            self.logger.record("train/value_loss", sums["value_loss"])
            self._log_critic()
        self._log_exploration()
