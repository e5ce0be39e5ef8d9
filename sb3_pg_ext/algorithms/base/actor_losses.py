"""What an actor that learns from Q minimises, state by state, for who wants to look at its gradient."""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.sac.policies import Actor

ActorLoss = Callable[[Any], th.Tensor]
"""From observations as policies take them, [B, …], to the actor's loss for each, with fresh noise, [B]."""


def soft_actor_losses(
    actor: Actor, q_value: Callable[[Any, th.Tensor], th.Tensor], baseline: ActorLoss, ent_coef: th.Tensor
) -> dict[str, ActorLoss]:
    """Of an actor that maximises Q(s, ã) − α·log π(ã|s), by name.

    - ``"reparametrized"``: α·log π(ã|s) − Q(s, ã), differentiated through ã
    - ``"score"``: log π(ã|s)·(α·log π(ã|s) − Q(s, ã) + b(s)), in which the bracket is a number

    :param actor: π
    :param q_value: from observations and actions to Q, [B]
    :param baseline: b, which takes variance out of the second
    :param ent_coef: α
    """

    def through_the_action(obs: Any) -> th.Tensor:
        actions, log_probs = actor.action_log_prob(obs)
        return ent_coef * log_probs.flatten() - q_value(obs, actions)

    def through_the_score(obs: Any) -> th.Tensor:
        mean, log_std, more = actor.get_action_dist_params(obs)
        distribution = actor.action_dist.proba_distribution(mean, log_std, **more)
        with th.no_grad():
            actions = distribution.sample()
            unsquashed = getattr(distribution, "gaussian_actions", None)
        known = {} if unsquashed is None else {"gaussian_actions": unsquashed.detach()}
        log_probs = distribution.log_prob(actions, **known)
        with th.no_grad():
            cost = ent_coef * log_probs - q_value(obs, actions) + baseline(obs)
        return log_probs * cost

    return {"reparametrized": through_the_action, "score": through_the_score}
