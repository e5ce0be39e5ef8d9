"""SACV, soft actor-critic with a value network."""

from typing import Any, ClassVar, NamedTuple, SupportsFloat

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, ReplayBufferSamples, Schedule
from stable_baselines3.sac.policies import Actor

from sb3_pg_ext.algorithms.base.acting import ActionSampler
from sb3_pg_ext.algorithms.base.actor_losses import ActorLoss, soft_actor_losses
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase, summarize_q
from sb3_pg_ext.algorithms.base.targets import Target
from sb3_pg_ext.algorithms.sac_v.action_sampling import MLPActionSampler
from sb3_pg_ext.algorithms.sac_v.backends import SACVBackend, make_backend
from sb3_pg_ext.algorithms.sac_v.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SACVPolicy
from sb3_pg_ext.arguments import check_choice, check_count, check_positive, check_range
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.surrogates import td_loss
from sb3_pg_ext.gradients.networks import optimizer_of


class Update(NamedTuple):
    """What the log tells of the latest update.

    :param losses: by the keys of the log
    :param q_values: Q(s, a) of the actions in the buffer, before the update, [B, critics]
    :param targets: y, [B, 1]
    :param values: V(s), before the update, [B, 1]
    :param log_probs: log π(ã|s), [B]
    """

    losses: dict[str, float]
    q_values: np.ndarray
    targets: np.ndarray
    values: np.ndarray
    log_probs: np.ndarray


class SACV(OffPolicyBase):
    """Soft actor-critic with a value network (Haarnoja et al., 2018, https://arxiv.org/abs/1801.01290).

    SAC as it was first published. It maximises the return together with the entropy of the policy, E Σ γᵗ(r + α·H).
    With a batch (s, a, r, s') from the replay buffer and fresh actions ã = tanh(μ(s) + σ(s)·ε) of the policy, one step
    of an optimiser along the gradient of each of

        Q:  Σ_i ½(Q_i(s, a) − y)²,            y = reward_scale·r + γ·(1 − terminated)·V'(s')
        V:  ½(V(s) − [min_i Q_i(s, ã) − α·log π(ã|s)])²
        π:  α·log π(ã|s) − Q_1(s, ã)

    where V' is a target network that begins as a copy of V and follows it slowly, θ' ← θ' + tau·(θ − θ'). A time limit
    is no termination: there the target bootstraps. Later versions of SAC, SB3's among them, have no V; y has there
    the Q and the entropy of one action in s', here their mean, which V has learned.

    With ``actor_gradient="score"`` the gradient for π is ∇log π(ã|s)·(α·log π(ã|s) − Q_1(s, ã) + V(s)), which needs no
    gradient of Q in the action, and has a larger variance.

    :param env: the environment: its id, an environment or a VecEnv; its actions are a bounded Box
    :param learning_rate: learning rate of all optimisers; a number, or a function of the remaining progress (1 to 0)
    :param buffer_size: size of the replay buffer, in transitions
    :param learning_starts: number of steps with random actions and without updates at the beginning
    :param batch_size: number of transitions for one update
    :param tau: by which part of the way the target network follows, in (0, 1]
    :param train_freq: number of steps between updates, or such a pair as ``(2, "episode")``
    :param gradient_steps: number of updates in a row; −1 for as many as there were steps
    :param action_noise: what is added to the sampled actions in [−1, 1]; ``None`` for nothing
    :param replay_buffer_class: class of the replay buffer; ``None`` for SB3's choice
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: whether next observations are not stored apart, see SB3
    :param n_steps: number of steps whose rewards go into y, after which V' goes on
    :param ent_coef: α, what a nat of entropy is worth in the unit of the scaled reward; ``"auto"`` to learn it, so that
        the entropy becomes ``target_entropy``, from 1 on, or ``"auto_0.1"``, from 0.1 on
    :param target_update_interval: number of updates after which the target network follows
    :param target_entropy: in nats, with a learned α; ``"auto"`` for minus the number of action dimensions
    :param reward_scale: what rewards are multiplied with; with α = 1, as the algorithm was published, it decides how
        much the entropy counts
    :param actor_gradient: ``"reparametrized"``, through Q and the sampled action, or ``"score"``, through log π
    :param use_sde_at_warmup: whether the first steps, too, explore with gSDE instead of uniformly distributed actions
    :param policy_kwargs: arguments of the policy, see :class:`~sb3_pg_ext.algorithms.sac_v.SACVPolicy`; ``n_critics``
        for the number of Q-networks
    :raises ValueError: for arguments that lie outside of what is allowed
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: SACVPolicy
    ent_coef_optimizer: th.optim.Optimizer | None = None
    _latest: Update | None = None

    def __init__(
        self,
        policy: str | type[SACVPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
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
        ent_coef: float | str = "auto",
        target_update_interval: int = 1,
        target_entropy: float | str = "auto",
        reward_scale: float = 1.0,
        actor_gradient: str = "reparametrized",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
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
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.ent_coef = ent_coef
        self.target_update_interval = target_update_interval
        self.target_entropy = target_entropy
        self.reward_scale = reward_scale
        self.actor_gradient = actor_gradient
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("target_update_interval", self.target_update_interval)
        check_count("policy_kwargs' n_critics", self.policy_kwargs.get("n_critics", 2))
        check_positive("reward_scale", self.reward_scale)
        check_choice("actor_gradient", self.actor_gradient, ("reparametrized", "score"))
        if self.target_entropy != "auto":
            check_range("target_entropy", self.target_entropy, allowed="'auto' or a number")
        self._initial_ent_coef()

    def _initial_ent_coef(self) -> float:
        """α as it is at the beginning; 0 is allowed where it stays."""
        allowed = "a number ≥ 0, 'auto', or 'auto_' and a number > 0"
        if not isinstance(self.ent_coef, str):
            check_range("ent_coef", self.ent_coef, 0, allowed=allowed)
            return float(self.ent_coef)
        learned, _, initial = self.ent_coef.partition("_")
        try:
            value = float(initial or ("nan" if self.ent_coef.endswith("_") else 1.0))
        except ValueError:
            value = float("nan")
        if learned != "auto" or not 0 < value < float("inf"):
            raise ValueError(f"ent_coef={self.ent_coef!r}; allowed: {allowed}")
        return value

    def _setup_model(self) -> None:
        super()._setup_model()
        initial = th.full((1,), self._initial_ent_coef(), device=self.device)
        if isinstance(self.ent_coef, str):
            self.log_ent_coef = initial.log().requires_grad_()
            self.ent_coef_optimizer = th.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1))
        else:
            self.ent_coef_optimizer = None
            self.ent_coef_tensor = initial
        self._check_engine()

    @property
    def actor(self) -> Actor:  # type: ignore[override]
        """The actor, of which SB3 asks for new noise with gSDE."""
        return self.policy.actor

    def actor_losses(self) -> dict[str, ActorLoss]:
        """Both gradients, with V for the baseline of the score function."""
        critic, value = self.policy.critic, self.policy.value
        learned = self.ent_coef_optimizer is not None
        ent_coef = self.log_ent_coef.detach().exp() if learned else self.ent_coef_tensor
        return soft_actor_losses(self.actor, lambda *sa: critic(*sa)[0][:, 0], lambda obs: value(obs)[:, 0], ent_coef)

    def _make_fast_action_sampler(self) -> ActionSampler:
        return MLPActionSampler(self.policy)

    def _make_backend(self) -> tuple[SACVBackend, str]:
        return make_backend(self.policy, self.engine)

    def _optimizers(self) -> dict[str, th.optim.Optimizer]:
        networks = {"actor": self.policy.actor, "critic": self.policy.critic, "value": self.policy.value}
        optimizers = {f"policy.{name}.optimizer": optimizer_of(network) for name, network in networks.items()}
        of_ent_coef = {} if self.ent_coef_optimizer is None else {"ent_coef_optimizer": self.ent_coef_optimizer}
        return optimizers | of_ent_coef

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, _ = super()._get_torch_save_params()
        return state_dicts, ["ent_coef_tensor" if self.ent_coef_optimizer is None else "log_ent_coef"]

    def _targets(self) -> list[Target]:
        return [Target(self.policy.value, self.policy.value_target, self.tau, self.target_update_interval)]

    def _improve(self, batch: ReplayBufferSamples) -> None:
        rewards, discounts, taken = self._numbers_of(batch)
        networks: SACVBackend = self._current_backend()
        if self.use_sde:
            self.actor.reset_noise()

        sampled = networks.actor.predict(batch.observations)
        actions, log_probs = sampled["actions"], sampled["log_probs"]
        losses: dict[str, float] = {}
        ent_coef = self._step_ent_coef(log_probs, losses)

        targets = self.reward_scale * rewards + discounts * networks.target_values(batch.next_observations)
        q_values = networks.critic.predict(batch.observations, taken)["q_values"]
        loss = td_loss(q_values - targets)
        losses["critic_loss"] = 0.5 * loss.value
        losses["critic_grad_norm"] = networks.critic.descend({"q_values": 0.5 * loss.gradient}, None)

        of_sampled = networks.critic.predict(batch.observations, actions)["q_values"]
        values = networks.value.predict(batch.observations)["values"]
        loss = td_loss(values - (of_sampled.min(1) - ent_coef * log_probs)[:, None])
        losses["value_loss"] = 0.5 * loss.value
        losses["value_grad_norm"] = networks.value.descend({"values": 0.5 * loss.gradient}, None)

        costs = ent_coef * log_probs - of_sampled[:, 0]
        losses["actor_loss"] = float(costs.mean())
        weights = np.full_like(costs, 1 / len(costs))
        if self.actor_gradient == "score":
            derivatives = {"scores": weights * (costs + values[:, 0])}
        else:
            of_actions = networks.critic.action_gradient(-weights)
            derivatives = {"actions": of_actions, "log_probs": ent_coef * weights}
        losses["grad_norm"] = networks.actor.descend(derivatives, None)
        self._latest = Update(losses, q_values, targets, values, log_probs)

    def _step_ent_coef(self, log_probs: np.ndarray, losses: dict[str, float]) -> np.float32:
        """α; if it is learned, followed by a step along the gradient of −log α·mean(log π(ã|s) + target_entropy)."""
        if self.ent_coef_optimizer is None:
            return np.float32(self.ent_coef_tensor.item())
        log_ent_coef = check_number("logarithm of ent_coef", self.log_ent_coef.item())
        dimensions = self.policy.action_space.shape or ()
        target = -float(np.prod(dimensions)) if self.target_entropy == "auto" else float(self.target_entropy)
        gradient = -float(log_probs.mean() + target)
        losses["ent_coef_loss"] = log_ent_coef * gradient
        self.log_ent_coef.grad = th.full_like(self.log_ent_coef, gradient)
        self.ent_coef_optimizer.step()
        return np.float32(np.exp(log_ent_coef))

    def _summarize(self) -> dict[str, SupportsFloat]:
        assert self._latest is not None
        losses, *arrays = self._latest
        q_values, targets, values, log_probs = (array.astype(np.float64) for array in arrays)
        learned = self.ent_coef_optimizer is not None
        return {
            **losses,
            "ent_coef": self.log_ent_coef.exp().item() if learned else self.ent_coef_tensor.item(),
            **summarize_q(q_values, targets),
            "value_mean": values.mean(),
            "entropy": -log_probs.mean(),
        }
