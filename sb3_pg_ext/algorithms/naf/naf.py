"""NAF, normalized advantage functions."""

from typing import Any, ClassVar, NamedTuple, SupportsFloat

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, ReplayBufferSamples, Schedule

from sb3_pg_ext.algorithms.base.acting import ActionSampler
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase, summarize_q
from sb3_pg_ext.algorithms.base.targets import Target
from sb3_pg_ext.algorithms.naf.action_sampling import MLPActionSampler
from sb3_pg_ext.algorithms.naf.backends import QuadraticBackend, make_backend
from sb3_pg_ext.algorithms.naf.paths import PathSamples, sample_paths
from sb3_pg_ext.algorithms.naf.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, NAFPolicy
from sb3_pg_ext.arguments import check_choice, check_count, check_flag, check_max_grad_norm, check_positive
from sb3_pg_ext.functional import quadratic
from sb3_pg_ext.functional.surrogates import td_loss

LOSSES = ("mse", "huber")


class Update(NamedTuple):
    """What the log tells of the latest update.

    :param loss: the loss
    :param grad_norm: norm of its gradient before clipping
    :param values: V(s) before the update, [B, heads]
    :param outputs: what μ(s) and L(s) are made of, [B, heads, …]
    :param q_values: Q(s, a), [B, heads]
    :param targets: y, [B, 1]
    """

    loss: float
    grad_norm: float
    values: np.ndarray
    outputs: np.ndarray
    q_values: np.ndarray
    targets: np.ndarray


class NAF(OffPolicyBase):
    """Continuous Q-learning with normalized advantage functions (Gu et al., 2016, https://arxiv.org/abs/1603.00748).

    One network with parameters θ gives V(s), μ(s) and P(s) = L(s) L(s)ᵀ, and by them

        Q(s, a) = V(s) − ½(a − μ(s))ᵀ P(s) (a − μ(s))

    whose maximum over actions is V(s), at a = μ(s). So Q-learning needs neither a search for the best action nor an
    actor. With a batch from the replay buffer, one step of the optimiser along the gradient of

        mean((Q(s, a) − y)²),  y = r + γ·(1 − terminated)·V'(s')

    where V' is a target network that follows V slowly, θ' ← θ' + tau·(θ − θ'). A time limit is no termination: there
    the target bootstraps.

    With ``n_step_correction`` a target over n steps is

        y = Σ_{k<n} γᵏ·(r_k − 1[k ≥ 1]·A(s_k, a_k)) + γⁿ·V'(s_n),  A = Q − V

    by the present network, with the A nearest to 0 of several heads. As V(s_k) = Q(s_k, a_k) − A(s_k, a_k), what an
    action lost against the best one is given back, and at the fixed point y is the Q of the greedy policy whatever
    acted. It is Q*(λ = 1) over n steps (Harutyunyan et al., 2016, https://arxiv.org/abs/1602.04951).

    Actions are scaled to [−1, 1], where μ is bounded by a tanh. How L is bounded says
    :func:`~sb3_pg_ext.functional.quadratic.best_action_and_factor`.

    Deviations from the paper: V, μ and L share a trunk, as in most later work; there is no batch normalisation, but
    ``policy_kwargs=dict(layer_norm=True)``; imagination rollouts are left out.

    :param env: the environment: its id, an environment or a VecEnv; its actions are a bounded Box
    :param buffer_size: size of the replay buffer, in transitions
    :param learning_starts: number of steps with random actions and without updates at the beginning
    :param batch_size: number of transitions for one update
    :param tau: by which part of the way the target network follows, in (0, 1]
    :param train_freq: number of steps between updates, or such a pair as ``(2, "episode")``
    :param gradient_steps: number of updates in a row; −1 for as many as there were steps
    :param action_noise: what is added to μ in [−1, 1]
    :param replay_buffer_class: class of the replay buffer; ``None`` for SB3's choice
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: whether next observations are not stored apart, see SB3
    :param n_steps: number of steps whose rewards go into a target, after which V' goes on
    :param n_step_correction: whether a target over several steps is corrected for actions that were not the best;
        not with a replay buffer of one's own
    :param target_update_interval: number of updates after which the target network follows
    :param max_grad_norm: gradients are scaled down to this norm; ``None`` for no clipping
    :param loss: of the temporal differences: ``"mse"``, or ``"huber"``, which is linear beyond ±1 and half the size
    :param double: whether to use two heads, each with its own V, μ and P, of which the smaller V' makes the target,
        against over-estimation; the losses of both are added, the first head acts
    :param exploration: ``"noise"``, to add ``action_noise`` to μ, or ``"covariance"``, to sample from
        N(μ, temperature·P⁻¹), clipped to [−1, 1]; ``"auto"`` for noise if there is an ``action_noise``, else covariance
    :param temperature: of exploration by covariance, in the unit of Q; ``None`` for 1
    :param policy_kwargs: arguments of the policy, see :class:`~sb3_pg_ext.algorithms.naf.NAFPolicy`
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: NAFPolicy
    _latest: Update | None = None

    def __init__(
        self,
        policy: str | type[NAFPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 1,
        max_grad_norm: float | None = None,
        loss: str = "mse",
        double: bool = False,
        n_step_correction: bool = False,
        exploration: str = "auto",
        temperature: float | None = None,
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
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.target_update_interval = target_update_interval
        self.max_grad_norm = max_grad_norm
        self.loss = loss
        self.double = double
        self.n_step_correction = n_step_correction
        self.exploration = exploration
        self.temperature = temperature
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("target_update_interval", self.target_update_interval)
        check_max_grad_norm(self.max_grad_norm)
        check_choice("loss", self.loss, LOSSES)
        check_choice("exploration", self.exploration, ("auto", "noise", "covariance"))
        self._check_exploration()
        check_flag("n_step_correction", self.n_step_correction)
        if self.n_step_correction and self.n_steps == 1:
            raise ValueError("n_step_correction=True together with n_steps=1; allowed: n_steps ≥ 2")

    @property
    def _explores_by(self) -> str:
        chosen = "covariance" if self.action_noise is None else "noise"
        return chosen if self.exploration == "auto" else self.exploration

    def _check_exploration(self) -> None:
        by_noise = self._explores_by == "noise"
        ignored = {"temperature": self.temperature} if by_noise else {"action_noise": self.action_noise}
        for name, value in ignored.items():
            if value is not None:
                other = "action_noise" if self.exploration == "auto" else f"exploration={self.exploration!r}"
                raise ValueError(f"{name}={value!r} together with {other}; allowed: None")
        if self.temperature is not None:
            check_positive("temperature", self.temperature)

    @property
    def _n_heads(self) -> int:
        return 2 if self.double else 1

    def _setup_model(self) -> None:
        check_flag("double", self.double)
        if "temperature" in self.policy_kwargs:
            raise ValueError(
                f"policy_kwargs={self.policy_kwargs}; allowed: no temperature, which is NAF's own argument"
            )
        if self.policy_kwargs.get("n_heads", self._n_heads) != self._n_heads:
            raise ValueError(
                f"policy_kwargs={self.policy_kwargs} together with double={self.double}; "
                f"allowed: no n_heads but {self._n_heads}"
            )
        given = self.policy_kwargs
        self.policy_kwargs = {**given, "n_heads": self._n_heads}
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = given  # load() compares them with what its caller gives
        sampled = 1.0 if self.temperature is None else self.temperature
        self.policy.temperature = sampled if self._explores_by == "covariance" else None
        self._check_engine()

    def _make_fast_action_sampler(self) -> ActionSampler:
        return MLPActionSampler(self.policy)

    def _make_backend(self) -> tuple[QuadraticBackend, str]:
        return make_backend(self.policy, self.engine)

    def _optimizers(self) -> dict[str, th.optim.Optimizer]:
        return {"policy.optimizer": self.policy.optimizer}

    def _targets(self) -> list[Target]:
        return [Target(self.policy.critic.value, self.policy.value_target, self.tau, self.target_update_interval)]

    def _sample(self, batch_size: int) -> ReplayBufferSamples:
        if not self.n_step_correction:
            return super()._sample(batch_size)
        if not isinstance(self.replay_buffer, NStepReplayBuffer):
            kind = type(self.replay_buffer).__name__
            raise ValueError(f"n_step_correction=True with a {kind}; allowed: an NStepReplayBuffer")
        return sample_paths(self.replay_buffer, batch_size, self.get_vec_normalize_env())  # type: ignore[return-value]

    def _improve(self, batch: ReplayBufferSamples) -> None:
        rewards, discounts, actions = self._numbers_of(batch)
        backend: QuadraticBackend = self._current_backend()
        next_values = backend.target_values(batch.next_observations).min(1, keepdims=True)
        targets = rewards + discounts * next_values
        path: Any = batch
        if isinstance(path, PathSamples):
            advantages = backend.advantages(path.path_observations, path.path_actions.cpu().numpy()).max(1)
            weights = path.path_discounts.cpu().numpy()
            targets = targets - (weights * advantages.reshape(weights.shape)).sum(1, keepdims=True)
        values, outputs, q_values = backend.predict_q(batch.observations, actions)
        loss = td_loss(q_values - targets, self.loss)
        grad_norm = backend.descend({"q_values": loss.gradient}, self.max_grad_norm)
        self._latest = Update(loss.value, grad_norm, values, outputs, q_values, targets)

    def _summarize(self) -> dict[str, SupportsFloat]:
        assert self._latest is not None
        return summarize(self._latest, self.policy.critic.action_dim)


def summarize(update: Update, action_dim: int) -> dict[str, SupportsFloat]:
    """What is logged of an update with actions [B, d]."""
    values, q_values, targets = (x.astype(np.float64) for x in (update.values, update.q_values, update.targets))
    advantages = q_values - values
    _, factor = quadratic.best_action_and_factor(update.outputs, action_dim)
    eigenvalues = quadratic.precision_eigenvalues(factor)
    size_of_advantage, size_of_value = np.abs(advantages).mean(), np.abs(values).mean()
    return {
        "critic_loss": update.loss,
        "grad_norm": update.grad_norm,
        **summarize_q(q_values, targets),
        "value_mean": values.mean(),
        "advantage_mean": advantages.mean(),
        "advantage_std": advantages.std(),
        "advantage_share": size_of_advantage / (size_of_advantage + size_of_value),
        "precision_min": eigenvalues.min(),
        "precision_max": eigenvalues.max(),
    }
