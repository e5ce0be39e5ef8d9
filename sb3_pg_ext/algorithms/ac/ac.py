"""The actor-critics of the textbook, and the streaming one."""

import io
import pathlib
from typing import Any, TypeVar

import gymnasium as gym
import torch as th
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pg_ext.algorithms.ac.learner import Settings
from sb3_pg_ext.algorithms.ac.online import OnlineBase
from sb3_pg_ext.algorithms.ac.wrapping import Wrapping, is_raw, plan_wrapping, statistics_of, wrap
from sb3_pg_ext.algorithms.base.constructor import arguments_of, refuse_unused
from sb3_pg_ext.arguments import check_choice, check_flag, check_positive, check_range

SelfActorCritic = TypeVar("SelfActorCritic", bound="ActorCritic")

CRITICS = ("v", "q", "q_minus_v", "compatible")
TARGETS = {"v": (None,), "compatible": ("expected", "sarsa")}
OPTIMIZERS = ("sgd", "obgd", "adaptive_obgd", "rmsprop")
USED_BY = {
    **dict.fromkeys(("actor_learning_rate", "critic_learning_rate"), ("sgd", "obgd", "adaptive_obgd")),
    **dict.fromkeys(("actor_kappa", "critic_kappa"), ("obgd", "adaptive_obgd")),
    **dict.fromkeys(("beta2", "optimizer_eps"), ("adaptive_obgd", "rmsprop")),
}
"""Arguments that some optimisers look at, and which."""

EPS = {"adaptive_obgd": 1e-8, "rmsprop": 1e-4}


class ActorCritic(OnlineBase):
    """Actor-critics that learn at every step: one step, one update, no buffer, no batch.

    With the TD error δ, or another estimate of the action's worth, in every environment:

    - ``critic="v"``: δ = r + γV(s') − V(s) moves critic and actor, each along its eligibility trace,
      z_v ← γλz_v + ∇V(s) and z_θ ← γλz_θ + ∇[log π(a|s) + τ·sgn(δ)·H(π(·|s))] with τ = ``ent_coef`` (Sutton and Barto,
      2018, chapter 13; Elsayed, Vasan and Mahmood, 2024, https://arxiv.org/abs/2410.14606). λ = 0 is the TD
      actor-critic.
    - ``critic="q"``: δ = r + γQ(s', a') − Q(s, a) moves the critic along its trace; then the actor makes a step along
      ∇log π(a|s)·Q(s, a). With ``critic_target="sarsa"`` a' is the action that is taken next; with ``"expected"``
      Σ π(a'|s')Q(s', a') stands in its place; with ``"max"`` max Q(s', ·) does, and the actor moves first.
    - ``critic="q_minus_v"``: the actor's weight is Q(s, a) − V(s), with both critics learned, each from its own error.
    - ``critic="compatible"``: Q(s, a) = V(s) + ωᵀ∇log π(a|s) (Sutton et al., 2000).

    Where an episode is truncated, the last step bootstraps from the value of its last observation, as everywhere in
    this package, and then traces are cleared. The authors' script of the streaming actor-critic takes truncation for
    termination.

    Several environments have a trace each. ``env_updates="in_order"`` makes the updates one after the other, each with
    the parameters that the former one left; ``"averaged"`` makes one update, their mean.

    :param learning_rate: learning rate of actor and critic, unless they have their own; a number, or a function of the
        remaining progress (1 to 0)
    :param n_steps: number of steps in every environment between two entries of the log, after which schedules are
        looked at; updates come at every step
    :param critic: what is learned beside the policy: ``"v"``, ``"q"``, ``"q_minus_v"`` or ``"compatible"``
    :param critic_target: of what Q is learned: ``"sarsa"``, ``"expected"`` or ``"max"``, the last two for Discrete
        actions; with ``critic="compatible"`` ``"expected"``, which is V(s'), or ``"sarsa"``. ``None``: ``"sarsa"``, and
        ``"expected"`` with ``critic="compatible"``
    :param trace_lambda: λ of the traces; the actor has one with ``critic="v"`` alone
    :param ent_coef: τ, weight of the entropy
    :param actor_learning_rate: of the actor alone; ``None`` for ``learning_rate``
    :param critic_learning_rate: of the critic alone; ``None`` for ``learning_rate``
    :param optimizer: ``"sgd"``; ``"obgd"``, which bounds every step so that it does not overshoot;
        ``"adaptive_obgd"``, likewise with a step size for every parameter; ``"rmsprop"`` is that of MinAtar's AC(λ),
        with one trace of V + ½ log π for all parameters, and ``learning_rate`` for all
    :param actor_kappa: κ of ObGD for the actor: how far below the point of overshooting a step stays
    :param critic_kappa: κ for the critic
    :param beta2: decay of the mean squares of ``"adaptive_obgd"`` and ``"rmsprop"``
    :param optimizer_eps: what is added to them; ``None`` for 1e-8 and 1e-4
    :param discount_state_distribution: whether the actor's steps have the weight γᵗ at step t of an episode, as the
        gradient of the discounted return has; almost always left out
    :param env_updates: ``"in_order"`` or ``"averaged"``
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    wrapped_in: Wrapping | None = None

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 1000,
        gamma: float = 0.99,
        critic: str = "v",
        critic_target: str | None = None,
        trace_lambda: float = 0.8,
        ent_coef: float = 0.0,
        actor_learning_rate: float | Schedule | None = None,
        critic_learning_rate: float | Schedule | None = None,
        optimizer: str = "sgd",
        actor_kappa: float = 3.0,
        critic_kappa: float = 2.0,
        beta2: float = 0.999,
        optimizer_eps: float | None = None,
        discount_state_distribution: bool = False,
        env_updates: str = "in_order",
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
            **{
                **arguments_of(OnPolicyAlgorithm, locals()),
                "use_sde": False,
                "sde_sample_freq": -1,
            }
        )
        self.critic = critic
        self.critic_target = critic_target
        self.trace_lambda = trace_lambda
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.optimizer = optimizer
        self.actor_kappa = actor_kappa
        self.critic_kappa = critic_kappa
        self.beta2 = beta2
        self.optimizer_eps = optimizer_eps
        self.discount_state_distribution = discount_state_distribution
        self.env_updates = env_updates
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def streaming(
        cls: type[SelfActorCritic],
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        time_feature: bool | None = None,
        **overrides: Any,
    ) -> SelfActorCritic:
        """The streaming actor-critic, stream AC(λ), with all that makes it learn (Elsayed, Vasan and Mahmood, 2024).

        A raw environment is wrapped: sb3-contrib's ``TimeFeatureWrapper`` appends 1 − t/T to its observations,
        ``VecNormalize`` normalises observations by their running mean and variance, and divides rewards by the running
        standard deviation of their discounted sum, without clipping. ``get_env()`` returns what it is wrapped in.
        ``save`` saves that with the model, and ``load`` and ``set_env`` put it around the raw environment that they are
        given. A VecEnv that is normalised already is left as it is.

        The policy has two networks of 128-128 units, LayerNorm without parameters and LeakyReLU; 90 % of its initial
        weights are zero; a Gaussian's σ(s) = softplus(x(s)).

        Deviations from the paper: truncation bootstraps; the time feature, 1 − t/T in place of t/T − ½, is normalised
        as all observations are; σ has a bias.

        :param policy: the policy, by its name or its class
        :param env: the environment: its id, an environment or a VecEnv
        :param time_feature: whether there is one; ``None`` for where a single environment has a time limit and vectors
            for observations
        :param overrides: other arguments of the constructor than the recipe's; entries of ``policy_kwargs`` are taken
            one by one
        :return: the model
        :raises ValueError: if ``time_feature=True`` cannot be done
        """
        raw = gym.make(env) if isinstance(env, str) else env
        arguments = {**STREAMING, **overrides}
        wrapping = None
        if is_raw(raw):
            wrapping = plan_wrapping(raw, arguments["gamma"], time_feature)
            raw = wrap(raw, wrapping)
        kwargs: dict[str, Any] = {**STREAMING_POLICY}
        if isinstance(raw.action_space, spaces.Box):
            kwargs |= {"state_dependent_std": True, "std_function": "softplus"}
        arguments["policy_kwargs"] = {**kwargs, **(overrides.get("policy_kwargs") or {})}
        model = cls(policy, raw, **arguments)
        model.wrapped_in = wrapping
        return model

    # ---- saving what it is wrapped in -------------------------------------------------------------------------------

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the model, and what its environment is wrapped in."""
        if self.wrapped_in is not None and self.env is not None:
            self.wrapped_in = {**self.wrapped_in, "statistics": statistics_of(self.env)}
        super().save(*args, **kwargs)

    @classmethod
    def load(
        cls: type[SelfActorCritic],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> SelfActorCritic:
        """Load a model, as SB3's ``load`` and with its arguments; a raw environment is wrapped as the model's was."""
        if env is not None and is_raw(env):
            data, _, _ = load_from_zip_file(path, device="cpu", custom_objects=kwargs.get("custom_objects"))
            if not isinstance(path, str | pathlib.Path):
                path.seek(0)
            wrapping = (data or {}).get("wrapped_in")
            env = env if wrapping is None else wrap(env, wrapping)
        return super().load(path, env, *args, **kwargs)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in another environment; a raw one is wrapped as the former was."""
        if self.wrapped_in is not None and is_raw(env):
            env = self._wrap(env, self.wrapped_in)
        super().set_env(env, force_reset)

    def _wrap(self, env: GymEnv, wrapped_in: Wrapping) -> VecNormalize:
        """Put around a raw environment what is around the model's own, with the statistics of now."""
        return wrap(env, {**wrapped_in, "statistics": statistics_of(self.env) or wrapped_in["statistics"]})

    def evaluation_env(self, env: GymEnv) -> VecNormalize:
        """A raw environment within what the model's own is in, to evaluate the model in.

        It normalises by the statistics that the model has now and leaves them as they are, and gives the environment's
        own rewards. ``EvalCallback`` and ``evaluate_policy`` take it; the former keeps its statistics up to date.

        :param env: the environment, or a VecEnv
        :raises ValueError: if the model is not wrapped in anything of its own
        """
        if self.wrapped_in is None:
            raise ValueError("the model was not made by streaming() from a raw environment; allowed: one that was")
        made = self._wrap(env, self.wrapped_in)
        made.training = made.norm_reward = False
        return made

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("critic", self.critic, CRITICS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("env_updates", self.env_updates, ("in_order", "averaged"))
        check_range("trace_lambda", self.trace_lambda, 0, 1)
        check_flag("discount_state_distribution", self.discount_state_distribution)
        for name in ("actor_kappa", "critic_kappa"):
            check_positive(name, getattr(self, name))
        check_range("beta2", self.beta2, 0, 1)
        if self.beta2 == 1:
            raise ValueError(f"beta2={self.beta2!r}; allowed: [0, 1)")
        if self.optimizer_eps is not None:
            check_positive("optimizer_eps", self.optimizer_eps, "None, or a number > 0")
        self._check_target()
        if self.optimizer == "rmsprop" and self.critic != "v":
            raise ValueError(
                f"optimizer='rmsprop' with critic={self.critic!r}; allowed: critic='v', whose trace it shares"
            )
        names = [name for name, used_by in USED_BY.items() if self.optimizer not in used_by]
        refuse_unused(self, f"optimizer={self.optimizer!r}", *names)

    def _check_target(self) -> None:
        allowed = TARGETS.get(self.critic, ("sarsa", "expected", "max"))
        if self.critic_target not in (None, *allowed):
            names = ", ".join(map(repr, dict.fromkeys((None, *allowed))))
            raise ValueError(f"critic_target={self.critic_target!r} with critic={self.critic!r}; allowed: {names}")
        enumerates = self.critic in ("q", "q_minus_v") and self.critic_target in ("expected", "max")
        if enumerates and not isinstance(self.action_space, spaces.Discrete):
            raise ValueError(
                f"critic_target={self.critic_target!r} with the action space {self.action_space}; allowed: 'sarsa', or "
                "a Discrete action space, whose actions can be enumerated"
            )

    # ---- making -----------------------------------------------------------------------------------------------------

    @property
    def _settings(self) -> Settings:
        target = self.critic_target
        if target is None and self.critic != "v":
            target = "expected" if self.critic == "compatible" else "sarsa"
        return Settings(
            self.critic,
            target,
            self.optimizer,
            float(self.gamma),
            float(self.trace_lambda),
            float(self.ent_coef),
            float(self.actor_kappa),
            float(self.critic_kappa),
            float(self.beta2),
            float(EPS.get(self.optimizer, 0.0) if self.optimizer_eps is None else self.optimizer_eps),
            bool(self.discount_state_distribution),
            self.env_updates == "averaged",
        )


STREAMING: dict[str, Any] = {
    "learning_rate": 1.0,
    "gamma": 0.99,
    "trace_lambda": 0.8,
    "ent_coef": 0.01,
    "optimizer": "obgd",
    "actor_kappa": 3.0,
    "critic_kappa": 2.0,
}
"""The arguments of the streaming recipe."""

STREAMING_POLICY: dict[str, Any] = {
    "net_arch": [128, 128],
    "activation_fn": nn.LeakyReLU,
    "layer_norm": True,
    "sparse_init": 0.9,
}
"""Its ``policy_kwargs``; with Box actions σ(s) comes on top."""
