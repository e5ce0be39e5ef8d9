"""GumbelDDPG, deterministic policy gradients for discrete actions."""

from typing import Any, ClassVar, NamedTuple, SupportsFloat

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, ReplayBufferSamples, Schedule

from sb3_pg_ext.algorithms.base.acting import ActionSampler
from sb3_pg_ext.algorithms.base.actor_losses import ActorLoss
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase, summarize_q
from sb3_pg_ext.algorithms.base.targets import Target
from sb3_pg_ext.algorithms.gumbel_ddpg.action_sampling import MLPActionSampler
from sb3_pg_ext.algorithms.gumbel_ddpg.actor_losses import actor_losses
from sb3_pg_ext.algorithms.gumbel_ddpg.backends import GumbelBackend, make_backend
from sb3_pg_ext.algorithms.gumbel_ddpg.policies import CnnPolicy, GumbelPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_max_grad_norm,
    check_range,
    check_schedule,
)
from sb3_pg_ext.functional.gumbel_softmax import GumbelSoftmax, largest, one_hot
from sb3_pg_ext.functional.heads import Categorical
from sb3_pg_ext.functional.surrogates import td_loss
from sb3_pg_ext.gradients.networks import optimizer_of

LEAST_TEMPERATURE = 0.01


class Update(NamedTuple):
    """What the log tells of the latest update.

    :param losses: by the keys of the log
    :param q_values: Q(s, a) of the actions in the buffer, before the update, [B, critics]
    :param targets: y, [B, 1]
    :param logits: l(s), before the update, [B, Σ k]
    """

    losses: dict[str, float]
    q_values: np.ndarray
    targets: np.ndarray
    logits: np.ndarray


class GumbelDDPG(OffPolicyBase):
    """Deep deterministic policy gradients (Lillicrap et al., 2016, https://arxiv.org/abs/1509.02971) for discrete
    actions, by Gumbel-softmax (Jang et al., 2017, https://arxiv.org/abs/1611.01144), as MADDPG has it (Lowe et al.,
    2017, https://arxiv.org/abs/1706.02275).

    The actor gives logits l(s). With Gumbel noise g, the one-hot vector of the largest of l + g is a sample of
    softmax(l), and y = softmax((l + g)/τ) is its relaxation. With a batch (s, a, r, s') from the replay buffer, one
    step of an optimiser along the gradient of each of

        Q:  Σ_i (Q_i(s, a) − [r + γ·(1 − terminated)·min_i Q'_i(s', a')])²,  a' = one-hot(argmax(l'(s') + g))
        π:  −Q_1(s, ỹ) + logit_penalty·mean(l²)

    where l' and Q' are target networks that follow slowly, θ' ← θ' + tau·(θ − θ'). ỹ is one-hot with the derivatives of
    y (straight-through), or y itself (soft). The gradient is biased either way: Q is learned at one-hot actions, and
    what it says between them is left to the network (Tilbury et al., 2023, Revisiting the Gumbel-Softmax in MADDPG). A
    time limit is no termination: there the target bootstraps.

    Actions of several choices (MultiDiscrete) are blocks of logits, each with a softmax of its own. During training
    actions are samples of softmax(l), which is the exploration; ``predict(deterministic=True)`` takes the largest
    logit.

    :param env: the environment: its id, an environment or a VecEnv; its actions are Discrete or MultiDiscrete
    :param learning_rate: learning rate of both optimisers; a number, or a function of the remaining progress (1 to 0)
    :param buffer_size: size of the replay buffer, in transitions
    :param learning_starts: number of steps with random actions and without updates at the beginning
    :param batch_size: number of transitions for one update
    :param tau: by which part of the way the target networks follow, in (0, 1]
    :param train_freq: number of steps between updates, or such a pair as ``(2, "episode")``
    :param gradient_steps: number of updates in a row; −1 for as many as there were steps
    :param replay_buffer_class: class of the replay buffer; ``None`` for SB3's choice
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: whether next observations are not stored apart, see SB3
    :param n_steps: number of steps whose rewards go into a target, after which Q' goes on
    :param target_update_interval: number of updates after which the target networks follow
    :param max_grad_norm: gradients are scaled down to this norm, that of the actor and that of the critic each on its
        own; ``None`` for no clipping
    :param loss: of the temporal differences: ``"mse"``, or ``"huber"``, which is linear beyond ±1 and half the size
    :param temperature: τ; a number, or a function of the remaining progress (1 to 0). Below 0.01 it counts as 0.01
    :param straight_through: whether the critic sees one-hot actions in the actor's loss, too
    :param logit_penalty: weight of the mean of the squared logits, which keeps them from growing without bounds
    :param exploration_eps: probability of a uniformly random action (of all its choices) during training, beside the
        Gumbel noise; a number, or a function of the remaining progress (1 to 0)
    :param policy_kwargs: arguments of the policy, see :class:`~sb3_pg_ext.algorithms.gumbel_ddpg.GumbelPolicy`
    :raises ValueError: for arguments that lie outside of what is allowed
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: GumbelPolicy
    _latest: Update | None = None

    def __init__(
        self,
        policy: str | type[GumbelPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 64,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 1,
        max_grad_norm: float | None = 10.0,
        loss: str = "mse",
        temperature: float | Schedule = 1.0,
        straight_through: bool = True,
        logit_penalty: float = 0.02,
        exploration_eps: float | Schedule = 0.0,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            **arguments_of(OffPolicyAlgorithm, locals()),
            sde_support=False,
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
            support_multi_env=True,
        )
        self.target_update_interval = target_update_interval
        self.max_grad_norm = max_grad_norm
        self.loss = loss
        self.temperature = temperature
        self.straight_through = straight_through
        self.logit_penalty = logit_penalty
        self.exploration_eps = exploration_eps
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("target_update_interval", self.target_update_interval)
        check_count("policy_kwargs' n_critics", self.policy_kwargs.get("n_critics", 1))
        check_flag("policy_kwargs' linear_critic", self.policy_kwargs.get("linear_critic", False))
        check_max_grad_norm(self.max_grad_norm)
        check_choice("loss", self.loss, ("mse", "huber"))
        check_schedule("temperature", self.temperature)
        check_flag("straight_through", self.straight_through)
        check_range("logit_penalty", self.logit_penalty, 0)
        self._exploration_eps_at(1.0)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_engine()

    def actor_losses(self) -> dict[str, ActorLoss]:
        """Both gradients, without the penalty on logits."""
        return actor_losses(self.policy, self._temperature, self.straight_through)

    def _make_fast_action_sampler(self) -> ActionSampler:
        return MLPActionSampler(self.policy)

    def _make_backend(self) -> tuple[GumbelBackend, str]:
        return make_backend(self.policy, self.engine)

    def _optimizers(self) -> dict[str, th.optim.Optimizer]:
        networks = {"actor": self.policy.actor, "critic": self.policy.critic}
        return {f"policy.{name}.optimizer": optimizer_of(network) for name, network in networks.items()}

    def _targets(self) -> list[Target]:
        policy, rest = self.policy, (self.tau, self.target_update_interval)
        return [Target(policy.actor, policy.actor_target, *rest), Target(policy.critic, policy.critic_target, *rest)]

    @property
    def _temperature(self) -> float:
        """τ at this point of the training; schedules may fall to 0, where y has no derivative."""
        return max(self._now("temperature", self.temperature), LEAST_TEMPERATURE)

    def _exploration_eps_at(self, progress_remaining: float) -> float:
        """ε at a point of the training."""
        eps = self.exploration_eps
        eps = eps(progress_remaining) if callable(eps) else eps
        check_range("exploration_eps", eps, 0, 1)
        return eps

    def _sample_action(self, learning_starts: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        actions, _ = super()._sample_action(learning_starts, *args, **kwargs)
        eps = self._exploration_eps_at(self._current_progress_remaining)
        if eps > 0 and self.num_timesteps >= learning_starts:
            for index in np.flatnonzero(np.random.rand(len(actions)) < eps):
                actions[index] = self.action_space.sample()
        return actions, actions

    def _noise(self, logits: np.ndarray) -> np.ndarray:
        """Gumbel noise, from PyTorch's global generator: −log of exponential variates, of which none is 0."""
        return -np.log(th.empty(logits.shape).exponential_().numpy())

    def _improve(self, batch: ReplayBufferSamples) -> None:
        rewards, discounts, taken = self._numbers_of(batch)
        networks: GumbelBackend = self._current_backend()
        sizes = self.policy.sizes
        losses: dict[str, float] = {}

        next_logits = networks.target_logits(batch.next_observations)
        next_actions = one_hot(largest(next_logits + self._noise(next_logits), sizes), sizes)
        next_values = networks.target_q(batch.next_observations, next_actions).min(1, keepdims=True)
        targets = rewards + discounts * next_values
        q_values = networks.critic.predict(batch.observations, one_hot(taken, sizes))["q_values"]
        loss = td_loss(q_values - targets, self.loss)
        losses["critic_loss"] = loss.value
        losses["critic_grad_norm"] = networks.critic.descend({"q_values": loss.gradient}, self.max_grad_norm)

        logits = networks.actor.predict(batch.observations)["logits"]
        sampled = GumbelSoftmax(logits, self._noise(logits), sizes, self._temperature, self.straight_through)
        of_sampled = networks.critic.predict(batch.observations, sampled.samples)["q_values"][:, 0]
        penalty = self.logit_penalty * float(np.square(logits).mean())
        losses["actor_loss"] = -float(of_sampled.mean()) + penalty
        of_actions = networks.critic.action_gradient(np.full_like(of_sampled, -1 / len(of_sampled)))
        of_logits = sampled.vjp(of_actions) + (2 * self.logit_penalty / logits.size) * logits
        losses["grad_norm"] = networks.actor.descend({"logits": of_logits}, self.max_grad_norm)
        self._latest = Update(losses, q_values, targets, logits)

    def _summarize(self) -> dict[str, SupportsFloat]:
        assert self._latest is not None
        losses, *arrays = self._latest
        q_values, targets, logits = (array.astype(np.float64) for array in arrays)
        return {
            **losses,
            "temperature": self._temperature,
            **summarize_q(q_values, targets),
            "entropy": Categorical(logits, self.policy.sizes).entropy().mean(),
            "logit_max": np.abs(logits).max(),
        }
