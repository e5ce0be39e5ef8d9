"""A Markov decision process so small that every expectation is a sum over all of its episodes.

Two states, two actions, at most three steps. From either state one goes to either with probability ½, but action 1 in
state 1 ends the episode. The policy is a softmax of one parameter for each state and action. All probabilities are
multiples of 1/256, so that a batch of 256 episodes has the frequencies of the truth.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
import torch as th

from sb3_pg_ext.baselines import ActionFactors, Episodes, corrections

HORIZON = 3
POLICY = [[Fraction(1, 4), Fraction(3, 4)], [Fraction(1, 2), Fraction(1, 2)]]
REWARDS = [[1.0, -0.5], [2.0, 4.0]]
VALUES = np.float32([0.7, -1.3])
"""A critic, however wrong."""


@dataclass
class Episode:
    """What happened, and how probable that is under the policy."""

    probability: Fraction
    states: tuple[int, ...]
    actions: tuple[int, ...]

    @property
    def rewards(self):
        return np.array([REWARDS[s][a] for s, a in zip(self.states, self.actions, strict=True)])

    @property
    def scores(self):
        """∇log π(a_t|s_t), [T, 4]."""
        rows = np.zeros((len(self.states), 2, 2))
        for row, s, a in zip(rows, self.states, self.actions, strict=True):
            row[s] = np.eye(2)[a] - np.array(POLICY[s], float)
        return rows.reshape(-1, 4)


def all_episodes(probability=Fraction(1), states=(0,), actions=()):
    s = states[-1]
    for a in range(2):
        taken = probability * POLICY[s][a]
        if (s, a) == (1, 1) or len(states) == HORIZON:
            yield Episode(taken, states, (*actions, a))
        else:
            for following in range(2):
                yield from all_episodes(taken / 2, (*states, following), (*actions, a))


EPISODES = list(all_episodes())
POPULATION = [episode for episode in EPISODES for _ in range(int(256 * episode.probability))]


def returns_of(rewards, gamma, total_returns):
    """G_t = Σ_{k≥t} γ^{k−t} r_k, or G_0 everywhere."""
    to_go = [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]
    return np.full(len(rewards), to_go[0]) if total_returns else np.array(to_go)


def make_batch(episodes, total_returns=False, gamma=1.0, weighted=False):
    """The episodes as REINFORCE gives them to a baseline."""
    lengths = [len(episode.states) for episode in episodes]
    t = np.concatenate([np.arange(length) for length in lengths])
    states = np.concatenate([episode.states for episode in episodes])
    return Episodes(
        rewards=np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
        returns=np.concatenate([returns_of(e.rewards, gamma, total_returns) for e in episodes]).astype(np.float32),
        observations=np.eye(2, dtype=np.float32)[states],
        t=t,
        episode_id=np.repeat(np.arange(len(lengths)), lengths),
        total_returns=total_returns,
        values=VALUES[states],
        scores=np.concatenate([episode.scores for episode in episodes]).astype(np.float32),
        weights=(gamma**t).astype(np.float32) if weighted else 1.0,
        gamma=gamma,
        actions=np.concatenate([episode.actions for episode in episodes])[:, None],
        policy=ActionFactors((np.array(POLICY, float)[states],)),
    )


def gradient_of_every_episode(batch, b):
    """Σ_t w_t ∇log π(a_t|s_t)(G_t − b), [m, 4], where b is a number for every step, or every episode and component."""
    gradients = np.zeros((len(batch.lengths), 4))
    scores = np.float64(np.broadcast_to(batch.weights, len(batch.t)))[:, None] * batch.scores
    for j, i in enumerate(batch.episode_id):
        gradients[i] += scores[j] * (batch.returns[j] - (b[j] if b.ndim == 1 else b[i]))
    return gradients


def correction_of_every_episode(batch, baseline):
    """Σ_t w_t Σ_k c_k ∇log π(a_k|s_t) by a baseline that sees the action, [m, 4]."""
    gradients, states = np.zeros((len(batch.lengths), 2, 2)), batch.observations.argmax(axis=1)
    for actions, terms in corrections(baseline, batch):
        rows = zip(
            batch.episode_id, states, actions[:, 0], np.broadcast_to(batch.weights, len(terms)) * terms, strict=True
        )
        for i, s, a, weight in rows:
            gradients[i, s] += weight * (np.eye(2)[a] - np.array(POLICY[s], float))
    return gradients.reshape(-1, 4)


def all_batches(m):
    """The probability of every batch of m episodes, and the numbers of its episodes."""
    for episodes in combinations_with_replacement(range(len(EPISODES)), m):
        orders = factorial(m) // prod(factorial(episodes.count(i)) for i in set(episodes))
        yield float(orders * prod(EPISODES[i].probability for i in episodes)), episodes


def estimates_of_all_batches(baseline, m, **kwargs):
    """REINFORCE's estimate from every batch of m episodes, and the probability of the batch."""
    for probability, episodes in all_batches(m):
        batch = make_batch([EPISODES[i] for i in episodes], **kwargs)
        gradients = gradient_of_every_episode(batch, baseline(batch)) + correction_of_every_episode(batch, baseline)
        yield probability, gradients.mean(axis=0)


def expected_estimate(baseline, m=2, **kwargs):
    """The expectation of REINFORCE's estimate from m episodes, [4]."""
    return sum(probability * estimate for probability, estimate in estimates_of_all_batches(baseline, m, **kwargs))


def mean_squared_error(baseline, m=2, **kwargs):
    """E‖ĝ − ∇J‖² of REINFORCE's estimate ĝ from m episodes: its variance and the square of its bias."""
    truth = true_gradient()
    estimates = estimates_of_all_batches(baseline, m, **kwargs)
    return sum(probability * ((estimate - truth) ** 2).sum() for probability, estimate in estimates)


def true_gradient(gamma=1.0, policy=POLICY):
    """∇ E[Σ_t γᵗ r_t] of a policy, by differentiating the sum over all episodes, [4]."""
    theta = th.tensor(np.log(np.array(policy, float)), requires_grad=True)
    log_policy = th.log_softmax(theta, dim=1)
    objective = th.zeros((), dtype=th.float64)
    for episode in EPISODES:
        policy_now = float(prod(POLICY[s][a] for s, a in zip(episode.states, episode.actions, strict=True)))
        dynamics = float(episode.probability) / policy_now
        policy = th.exp(log_policy[list(episode.states), list(episode.actions)].sum())
        objective = objective + dynamics * policy * returns_of(episode.rewards, gamma, True)[0]
    objective.backward()
    return theta.grad.numpy().flatten()
