"""Building the policy of a model, here or in another process."""

from collections.abc import Callable
from functools import partial

from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy


def policy_factory(model: OnPolicyAlgorithm) -> Callable[[], ActorCriticPolicy]:
    """How a model builds its policy: a function that does so anew at every call, and can be sent to other processes.

    :param model: the model
    """
    # sb3-contrib's maskable policies have no such argument.
    exploration = {} if issubclass(model.policy_class, MaskableActorCriticPolicy) else {"use_sde": model.use_sde}
    return partial(  # type: ignore[return-value]
        model.policy_class,
        model.observation_space,
        model.action_space,
        model.lr_schedule,
        **exploration,
        **model.policy_kwargs,
    )
