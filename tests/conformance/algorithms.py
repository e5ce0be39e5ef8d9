"""What the battery knows of the registered algorithms, and how it builds, trains and compares them."""

import inspect
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch as th
from envs import ACTION_SPACES, RandomEnv
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_pg_ext.fast.mixin import FastUpdate
from sb3_pg_ext.plugins import AlgorithmSpec, registry

STEPS = 64
DEVICES = ["cpu", *(["cuda"] if th.cuda.is_available() else [])]

# Constructor arguments that keep a run tiny: every algorithm gets those of its kind that it takes.
TINY_ON_POLICY = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "cg_max_steps": 3, "n_critic_updates": 2}
TINY_OFF_POLICY = {
    "buffer_size": 200,
    "learning_starts": 16,
    "batch_size": 16,
    "train_freq": 16,
    "gradient_steps": 2,
}


@dataclass(frozen=True)
class Traits:
    """What is particular to an algorithm; the defaults hold for the usual one.

    :param arguments: constructor arguments for a tiny run, beside those of its kind
    :param variants: by what they do, further arguments with which its update takes another way
    :param action_spaces: names of the action spaces that it supports
    :param usual_action_space: the name of the one to take where a test does not choose
    :param env_id: id of an environment that it supports
    :param policies: names of its policies
    :param policy_class: the class of SB3 or sb3-contrib that policies of one's own are derived from
    :param supports_sde: whether it explores with gSDE if asked to
    :param supports_infinite_logits: whether policies may forbid actions by logits of −∞; stock TRPO differentiates a KL
        that holds their difference
    :param supports_freezing: whether parameters may be frozen; stock TRPO demands a gradient of every one
    :param bounds_steps: whether a step is never longer than its trust region, whatever the learning rate
    :param asynchronous: whether workers go on while callbacks are called: then stopping takes a moment, observations do
        not reach callbacks, training with several environments depends on timing, and an id stands for two
    :param online: whether it learns at every step, and has no buffer
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    action_spaces: frozenset[str] = frozenset(ACTION_SPACES)
    usual_action_space: str = "Box"
    env_id: str = "Pendulum-v1"
    policies: frozenset[str] = frozenset({"MlpPolicy", "CnnPolicy", "MultiInputPolicy"})
    policy_class: type[BasePolicy] = ActorCriticPolicy
    supports_sde: bool = True
    supports_infinite_logits: bool = True
    supports_freezing: bool = True
    bounds_steps: bool = False
    asynchronous: bool = False
    online: bool = False


PPO_VARIANTS: dict[str, dict[str, Any]] = {
    "everything in the loss": {"ent_coef": 0.1, "clip_range": 1e-3, "clip_range_vf": 1e-3},
    "early stopping": {"target_kl": 1e-4, "batch_size": 8},
    "an incomplete minibatch": {"batch_size": 7, "normalize_advantage": False},
}

TRAITS = {
    "a3c": Traits(
        {},
        {
            "Adam": {"use_rms_prop": False},
            "everything in the loss": {"ent_coef": 0.1, "normalize_advantage": True, "max_grad_norm": 0.1},
        },
        asynchronous=True,
    ),
    "acktr": Traits(
        {"kfac_damping": 1.0},
        variants={
            "everything": {"ent_coef": 0.1, "n_critic_updates": 3, "fisher": "sampled", "adaptive_kl": 0.01},
            "a cold start": {"cold_start_steps": 2, "eigen_interval": 1, "momentum": 0.0, "max_grad_norm": 0.1},
        },
        supports_sde=False,
        bounds_steps=True,
    ),
    "ac": Traits(
        {},
        {
            "ObGD": {"optimizer": "obgd", "ent_coef": 0.1, "learning_rate": 1.0},
            "adaptive ObGD": {"optimizer": "adaptive_obgd", "learning_rate": 1.0, "trace_lambda": 0.9},
            "one trace for all": {"optimizer": "rmsprop", "ent_coef": 0.01, "learning_rate": 1e-3},
            "Q": {"critic": "q", "discount_state_distribution": True},
            "two critics": {"critic": "q_minus_v", "env_updates": "averaged", "trace_lambda": 0.0},
            "a compatible critic": {"critic": "compatible", "learning_rate": 1e-3},
            "its own next action": {"critic": "compatible", "critic_target": "sarsa", "learning_rate": 1e-3},
        },
        supports_sde=False,
        online=True,
    ),
    "dac": Traits(
        {},
        {
            "a compatible critic": {"critic": "compatible", "trace_lambda": 0.5},
            "more exploration": {"exploration_std": 1.0, "actor_learning_rate": 1e-2},
        },
        action_spaces=frozenset({"Box", "Box of two dimensions"}),
        supports_sde=False,
        online=True,
    ),
    "fast_a2c": Traits(
        variants={
            "Adam": {"use_rms_prop": False},
            "everything in the loss": {"ent_coef": 0.1, "normalize_advantage": True, "max_grad_norm": 0.1},
        }
    ),
    "fast_maskable_ppo": Traits(
        variants=PPO_VARIANTS,
        action_spaces=frozenset({"Discrete", "MultiDiscrete", "MultiBinary"}),
        usual_action_space="Discrete",
        env_id="CartPole-v1",
        policy_class=MaskableActorCriticPolicy,
        supports_sde=False,
    ),
    "fast_ppo": Traits(variants=PPO_VARIANTS),
    "fast_trpo": Traits(
        variants={
            "sub-sampling": {"sub_sampling_factor": 2, "normalize_advantage": False},
            "longer steps": {"target_kl": 0.05},
        },
        supports_freezing=False,
        supports_infinite_logits=False,
    ),
    "impala": Traits(
        {"batch_size": 1, "n_epochs": 1},
        {
            "Adam": {"use_rms_prop": False, "max_lag": 0},
            "everything in the loss": {"ent_coef": 0.1, "normalize_advantage": True, "max_grad_norm": 0.1},
            "clipping and replay": {"surrogate": "clipped", "clip_range": 1e-2, "n_epochs": 2, "replay_size": 3},
            "gae": {"advantage_estimator": "gae", "gae_lambda": 0.9},
        },
        asynchronous=True,
    ),
    "gumbel_ddpg": Traits(
        variants={
            "soft actions": {"straight_through": False, "temperature": 0.5, "loss": "huber", "max_grad_norm": None},
            "two linear critics": {
                "policy_kwargs": {"n_critics": 2, "linear_critic": True},
                "n_steps": 3,
                "exploration_eps": 0.2,
            },
        },
        action_spaces=frozenset({"Discrete", "MultiDiscrete"}),
        usual_action_space="Discrete",
        env_id="CartPole-v1",
        supports_sde=False,
    ),
    "naf": Traits(action_spaces=frozenset({"Box", "Box of two dimensions"}), supports_sde=False),
    "npg": Traits(
        variants={
            "a fixed step": {"step": "fixed", "step_size": 0.05},
            "a line search": {"line_search": True, "target_kl": 0.05},
            "a compatible critic": {"direction": "compatible", "cg_max_steps": 15},
            "episodes": {"direction": "episodic", "cg_max_steps": 15, "gae_lambda": 1.0, "cg_damping": 0.3},
            "sub-sampling": {"sub_sampling_factor": 2, "normalize_advantage": False, "batch_size": 7},
        }
    ),
    "ppo_kl": Traits(
        variants={
            "a fixed penalty": {"adaptive_kl": False, "kl_coef": 3.0, "ent_coef": 0.1},
            "clipping alone": {"adaptive_kl": False, "kl_coef": 0.0, "clip_range": 1e-3, "clip_range_vf": 1e-3},
            "new advantages": {"recompute_advantages": True, "batch_size": 7, "clip_range": 0.2},
            "early stopping": {"early_stop_kl": 1e-4, "max_grad_norm": None},
        }
    ),
    "reinforce": Traits(
        {"n_steps": None, "n_episodes": 6, "baseline": "value"},
        {
            "no critic": {"baseline": "none", "policy_kwargs": {"optimizer_class": th.optim.AdamW}},
            "a baseline for every component": {"baseline": "optimal_per_component"},
            "incomplete episodes": {"n_steps": 16, "n_episodes": None, "ent_coef": 0.1, "max_grad_norm": 0.1},
        },
    ),
    "sac_v": Traits(
        variants={
            "one critic": {"policy_kwargs": {"n_critics": 1}, "ent_coef": 0.1, "reward_scale": 5},
            "the score function": {"actor_gradient": "score", "n_steps": 3, "target_update_interval": 2},
        },
        action_spaces=frozenset({"Box", "Box of two dimensions"}),
    ),
}


@dataclass(frozen=True)
class Algorithm:
    """A registered algorithm, for tests.

    :param spec: its record
    :param traits: what is particular to it
    :param device: where it computes
    """

    spec: AlgorithmSpec
    traits: Traits
    device: str = "cpu"

    @property
    def cls(self) -> type[BaseAlgorithm]:
        return self.spec.cls

    def __call__(self, env: Any = None, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
        """Build the algorithm for a tiny run, by default on a :class:`RandomEnv`."""
        of_its_kind = TINY_OFF_POLICY if self.spec.off_policy else TINY_ON_POLICY
        tiny = {name: value for name, value in of_its_kind.items() if name in self.parameters}
        policy_kwargs = {"net_arch": [8], **kwargs.pop("policy_kwargs", {})}
        arguments = {"seed": 0, "device": self.device, **tiny, **self.traits.arguments, **kwargs}
        return self.cls(policy, RandomEnv() if env is None else env, policy_kwargs=policy_kwargs, **arguments)

    @property
    def parameters(self) -> set[str]:
        """The names of its constructor arguments."""
        return set(inspect.signature(self.cls).parameters)

    @property
    def has_rollouts(self) -> bool:
        """Whether it collects a rollout, and then learns from it."""
        return not (self.spec.off_policy or self.traits.asynchronous or self.traits.online)

    @property
    def has_own_constructor(self) -> bool:
        """Whether its arguments are its own; the stock twins take those of SB3 as SB3 does."""
        return not issubclass(self.cls, FastUpdate)


@cache
def find(name: str) -> Algorithm:
    return Algorithm(registry().find(AlgorithmSpec, name), TRAITS.get(name, Traits()))


NAMES = registry().names(AlgorithmSpec)


def vector(model: BaseAlgorithm) -> th.Tensor:
    """All parameters of the policy."""
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def assert_identical(one: BaseAlgorithm, other: BaseAlgorithm) -> None:
    """Same parameters and optimiser state, bit by bit, and same counters.

    On a GPU, SB3's ``load`` leaves an optimiser's step counts there, where PyTorch itself has them on the CPU.
    """
    th.testing.assert_close(one.get_parameters(), other.get_parameters(), rtol=0, atol=0, check_device=False)
    assert one.num_timesteps == other.num_timesteps
    assert one._n_updates == other._n_updates


class Records(KVWriter):
    """A logger's output, kept in memory: one dictionary for every time that something was logged."""

    def __init__(self) -> None:
        self.dumps: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.dumps.append(dict(key_values))

    def close(self) -> None:
        """Nothing is open."""

    @property
    def latest(self) -> dict[str, Any]:
        """The latest value of everything that was logged."""
        return {key: value for dump in self.dumps for key, value in dump.items()}


def record(model: BaseAlgorithm) -> Records:
    """Let a model log into memory."""
    records = Records()
    model.set_logger(Logger(None, [records]))
    return records
