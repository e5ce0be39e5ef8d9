"""From the transitions of a rollout to its episodes."""

import math
from dataclasses import replace

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_obs_shape
from torch.distributions import Categorical, Normal

from sb3_pg_ext.baselines import ActionFactors, Baseline, CorrectedBaseline, Episodes
from sb3_pg_ext.functional.returns import discounted_sum
from sb3_pg_ext.functional.tensors.distributions import parts as action_parts
from sb3_pg_ext.policies.evaluation import chunks, torch_distributions
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.rollouts.transitions import Transitions


def observation_size(space: spaces.Space) -> int:
    """How many numbers an observation consists of, as it is stored."""
    shapes = get_obs_shape(space)
    return sum(math.prod(shape) for shape in (shapes.values() if isinstance(shapes, dict) else [shapes]))


def sees_actions(baseline: Baseline) -> bool:
    """Whether a baseline is to be given actions, and what the policy says of them."""
    return getattr(baseline, "needs_actions", False) or isinstance(baseline, CorrectedBaseline)


@th.no_grad()
def with_actions(episodes: Episodes, policy: ActorCriticPolicy, inputs: PolicyInputs, actions: np.ndarray) -> Episodes:
    """Add the actions, and π(·|s_t) as a product of factors.

    :param episodes: the episodes
    :param policy: π
    :param inputs: what it saw, [B, …]
    :param actions: [B, action_dim]
    :raises ValueError: if π is no product of choices or Gaussians
    """
    parts = [
        action_parts(torch_distributions(policy.get_distribution(obs, **more)))
        for _, obs, more in chunks(inputs, policy.device)
    ]

    def joined(i: int, name: str) -> np.ndarray:
        return th.cat([getattr(chunk[i], name) for chunk in parts]).double().cpu().numpy()

    if all(type(part) is Categorical for part in parts[0]):
        factors = ActionFactors(tuple(joined(i, "probs") for i in range(len(parts[0]))))
    elif type(parts[0][0]) is Normal and not policy.squash_output:
        factors = ActionFactors((), joined(0, "loc"), joined(0, "scale"))
    else:
        kinds = {type(part).__name__ for part in parts[0]}
        raise ValueError(f"a baseline that sees actions with a policy of {kinds}; allowed: choices or Gaussians")
    return replace(episodes, actions=actions, policy=factors)


def check_baseline(
    chosen: str, baseline: Baseline, n_episodes: int, observation_space: spaces.Space, action_space: spaces.Space
) -> None:
    """Refuse a baseline that needs more episodes than there are, smaller observations, or other actions.

    :param chosen: the choice, for the message
    :param baseline: what was chosen
    :param n_episodes: the number of episodes that it will see
    :param observation_space: that of their observations
    :param action_space: that of their actions
    :raises ValueError: naming what is allowed
    """
    needed = getattr(baseline, "needs_episodes", 1)
    if n_episodes < needed:
        raise ValueError(
            f"{chosen} together with n_episodes={n_episodes!r}; allowed: n_episodes ≥ {needed}, since it takes other "
            "episodes"
        )
    size, largest = observation_size(observation_space), getattr(baseline, "max_observation_size", None)
    if largest is not None and size > largest:
        raise ValueError(f"{chosen} with observations of {size} numbers; allowed: at most {largest}")
    if sees_actions(baseline) and not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise ValueError(f"{chosen} with actions in {action_space}; allowed: Box, Discrete or MultiDiscrete")


def rewards_to_go(transitions: Transitions, next_values: np.ndarray | None, gamma: float) -> np.ndarray:
    """The return from every step on, G_t = Σ_{k≥t} γ^{k−t} r_k up to the end of the episode.

    :param transitions: the rollout
    :param next_values: what an episode is continued with after its last step, [T, N]: V(s_{t+1}) where it is to be
        continued, 0 elsewhere; ``None`` for 0 everywhere
    :param gamma: discount factor γ
    :return: [T, N], float32
    """
    rewards = transitions.rewards
    if next_values is not None:
        rewards = rewards + np.float32(gamma) * next_values
    return discounted_sum(rewards, np.where(transitions.ends, np.float32(0), np.float32(gamma)))


def to_episodes(
    transitions: Transitions,
    observations: Observations,
    to_go: np.ndarray,
    total_returns: bool,
    steps_before: np.ndarray,
    values: np.ndarray | None,
) -> Episodes:
    """Lay a rollout out as flat arrays, episode by episode.

    :param transitions: the rollout
    :param observations: its observations, laid out already, [B, …]
    :param to_go: the return from every step on, [T, N]
    :param total_returns: whether every step gets the return of its whole episode instead
    :param steps_before: [N], how many steps of its first episode each environment made before this rollout
    :param values: V(s_t) of the flat steps, [B]; ``None`` without a critic
    """
    starts, t = _episode_clock(transitions, steps_before)
    first_steps = transitions.flat(starts)
    episode_id = first_steps.cumsum() - 1
    returns = transitions.flat(to_go)
    if total_returns:
        returns = returns[first_steps][episode_id]
    return Episodes(
        rewards=transitions.flat(transitions.rewards),
        returns=returns,
        observations=observations,
        t=transitions.flat(t),
        episode_id=episode_id,
        total_returns=total_returns,
        values=values,
    )


def steps_of_episodes(transitions: Transitions, steps_before: np.ndarray) -> np.ndarray:
    """The number t of each step within its episode, counted from 0, [T, N].

    :param transitions: the rollout
    :param steps_before: as for :func:`to_episodes`
    """
    return _episode_clock(transitions, steps_before)[1]


def steps_into_episode(transitions: Transitions, steps_before: np.ndarray, row: int, ended: np.ndarray) -> np.ndarray:
    """How many steps of its running episode each environment has made after a step of the rollout, [N].

    :param transitions: the rollout, of which nothing after that step is read
    :param steps_before: as for :func:`to_episodes`
    :param row: the number of the step
    :param ended: [N], whether it ended an episode
    """
    _, t = _episode_clock(transitions, steps_before)
    return np.where(ended, 0, t[row] + 1)


def _episode_clock(transitions: Transitions, steps_before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a (piece of an) episode starts, and the number of each step within its episode; [T, N] each."""
    ends = transitions.ends
    starts = np.concatenate([np.ones_like(ends[:1]), ends[:-1]])
    rows = np.arange(len(ends))[:, None]
    start_rows = np.maximum.accumulate(np.where(starts, rows, 0), axis=0)
    return starts, rows - start_rows + np.where(start_rows == 0, steps_before, 0)
