"""GumbelDDPG's loss of the actor by autograd, and what the score function would make of the same Q."""

from collections.abc import Sequence
from typing import Any

import torch as th

from sb3_pg_ext.algorithms.base.actor_losses import ActorLoss
from sb3_pg_ext.algorithms.gumbel_ddpg.policies import GumbelPolicy


def actor_losses(policy: GumbelPolicy, temperature: float, straight_through: bool) -> dict[str, ActorLoss]:
    """Losses of single states, without a penalty on logits, by the name of the gradient.

    - ``"reparametrized"``: −Q(s, y) with a sample y of the Gumbel-softmax, as the algorithm trains
    - ``"score"``: log π(a|s)·(Q(s, argmax π) − Q(s, a)), in which the bracket is a number

    :param policy: actor and critic
    :param temperature: τ
    :param straight_through: whether y is a vertex, differentiated as the relaxed sample
    """

    def q_value(obs: Any, blocks: Sequence[th.Tensor]) -> th.Tensor:
        return policy.critic(obs, th.cat(list(blocks), 1))[0][:, 0]

    def vertices(choices: Sequence[th.Tensor]) -> list[th.Tensor]:
        pairs = zip(choices, policy.sizes, strict=True)
        return [th.nn.functional.one_hot(choice, size).float() for choice, size in pairs]

    def through_the_sample(obs: Any) -> th.Tensor:
        logits = policy.actor(obs)
        perturbed = (logits - th.empty_like(logits).exponential_().log()) / temperature
        soft = [block.softmax(1) for block in perturbed.split(policy.sizes, 1)]
        if straight_through:
            hard = vertices([block.argmax(1) for block in soft])
            soft = [vertex + block - block.detach() for vertex, block in zip(hard, soft, strict=True)]
        return -q_value(obs, soft)

    def through_the_score(obs: Any) -> th.Tensor:
        blocks = policy.actor(obs).split(policy.sizes, 1)
        distributions = [th.distributions.Categorical(logits=block) for block in blocks]
        choices = [distribution.sample() for distribution in distributions]
        log_probs = th.stack([d.log_prob(c) for d, c in zip(distributions, choices, strict=True)]).sum(0)
        with th.no_grad():
            of_the_mode = q_value(obs, vertices([block.argmax(1) for block in blocks]))
            cost = of_the_mode - q_value(obs, vertices(choices))
        return log_probs * cost

    return {"reparametrized": through_the_sample, "score": through_the_score}
