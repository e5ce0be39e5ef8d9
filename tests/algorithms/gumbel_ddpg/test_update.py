"""One update of GumbelDDPG against float64 autograd, its bandits, and its logits."""

from copy import deepcopy

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from torch.nn import functional

from sb3_pg_ext import GumbelDDPG
from sb3_pg_ext.algorithms.gumbel_ddpg.policies import LinearCritic

each_engine = pytest.mark.parametrize("engine", ["array", "autograd"])


def make_model(env, **kwargs):
    """A model with steps of plain gradient descent, and a replay buffer that has been filled without updates."""
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD, **kwargs.pop("policy_kwargs", {})}
    arguments = {"buffer_size": 200, "learning_starts": 10**9, "gamma": 0.9, "learning_rate": 0.1, **kwargs}
    model = GumbelDDPG("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=policy_kwargs, **arguments)
    return model.learn(40)


def everything(model):
    """A batch that holds every transition once, which is what the next update sees."""
    batch = model.replay_buffer._get_samples(np.arange(model.replay_buffer.pos))
    model.replay_buffer.sample = lambda *args, **kwargs: batch
    return batch


def blocks_of(actions, sizes):
    """One-hot vectors side by side."""
    return th.cat([functional.one_hot(actions[:, i].long(), k) for i, k in enumerate(sizes)], 1).double()


def q_of(critic, observations, actions):
    """Q in double precision; SB3's own forward passes turn observations into single precision."""
    if isinstance(critic, LinearCritic):
        return th.stack([(net(observations) * actions).sum(1) for net in critic.q_networks], 1)
    return th.cat([net(th.cat([observations, actions], 1)) for net in critic.q_networks], 1)


def logits_of(actor, observations):
    return actor.head(actor.trunk(observations))


def gumbel(shape):
    return -th.empty(shape).exponential_().log().double()


@each_engine
@pytest.mark.parametrize("n_critics", [1, 2])
@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("linear_critic", [False, True])
@pytest.mark.parametrize(("space", "sizes"), [("Discrete", [3]), ("MultiDiscrete", [3, 2])])
def test_every_loss_and_every_step(engine, n_critics, straight_through, linear_critic, space, sizes):
    model = make_model(
        RandomEnv(ACTION_SPACES[space]),
        engine=engine,
        straight_through=straight_through,
        temperature=0.7,
        logit_penalty=0.2,
        max_grad_norm=None,
        policy_kwargs={"n_critics": n_critics, "linear_critic": linear_critic},
    )
    with th.no_grad():
        for target in (model.policy.actor_target, model.policy.critic_target):
            for parameter in target.parameters():
                parameter.normal_()
    batch, policy = everything(model), deepcopy(model.policy).double()
    observations, n = batch.observations.double(), len(batch.rewards)

    th.manual_seed(3)
    next_logits = logits_of(policy.actor_target, batch.next_observations.double()) + gumbel((n, sum(sizes)))
    choices = th.stack([block.argmax(1) for block in next_logits.split(sizes, 1)], 1)
    next_q = q_of(policy.critic_target, batch.next_observations.double(), blocks_of(choices, sizes))
    y = (batch.rewards + 0.9 * (1 - batch.dones) * next_q.min(1, keepdim=True).values).detach()
    q = q_of(policy.critic, observations, blocks_of(batch.actions, sizes))
    critic_loss = ((q - y) ** 2).mean(0).sum()
    gradients = {"critic": th.autograd.grad(critic_loss, list(policy.critic.parameters()))}
    with th.no_grad():
        for parameter, gradient in zip(policy.critic.parameters(), gradients["critic"], strict=True):
            parameter -= 0.1 * gradient

    logits = logits_of(policy.actor, observations)
    perturbed = ((logits + gumbel((n, sum(sizes)))) / 0.7).split(sizes, 1)
    soft = th.cat([block.softmax(1) for block in perturbed], 1)
    hard = blocks_of(th.stack([block.argmax(1) for block in perturbed], 1), sizes)
    actions = hard + soft - soft.detach() if straight_through else soft
    actor_loss = -q_of(policy.critic, observations, actions)[:, 0].mean() + 0.2 * (logits**2).mean()
    gradients["actor"] = th.autograd.grad(actor_loss, list(policy.actor.parameters()))

    before = {name: deepcopy(list(getattr(model.policy, name).parameters())) for name in gradients}
    th.manual_seed(3)
    model.train(1)
    np.testing.assert_allclose(model._latest.targets, y, rtol=1e-5, atol=1e-5)
    assert model._latest.losses["critic_loss"] == pytest.approx(critic_loss.item(), rel=1e-4)
    assert model._latest.losses["actor_loss"] == pytest.approx(actor_loss.item(), rel=1e-4)
    for name, of_network in gradients.items():
        network = getattr(model.policy, name)
        for now, then, gradient in zip(network.parameters(), before[name], of_network, strict=True):
            np.testing.assert_allclose(now.detach(), (then - 0.1 * gradient).detach(), rtol=1e-4, atol=2e-6)


def test_target_networks_begin_as_copies_and_follow():
    model = make_model(RandomEnv(ACTION_SPACES["Discrete"]), tau=0.25)
    policy = model.policy
    for source, target in ((policy.actor, policy.actor_target), (policy.critic, policy.critic_target)):
        assert all(th.equal(*pair) for pair in zip(source.parameters(), target.parameters(), strict=True))
    before = [p.detach().clone() for p in policy.actor_target.parameters()]
    everything(model)
    model.train(1)
    trios = zip(before, policy.actor_target.parameters(), policy.actor.parameters(), strict=True)
    for old, now, source in trios:
        np.testing.assert_allclose(now.detach(), (0.75 * old + 0.25 * source).detach(), rtol=1e-5, atol=1e-7)


class Bandit(RandomEnv):
    """Episodes of one step; each component of the action earns what its arm does."""

    def __init__(self, space, *rewards):
        super().__init__(space, spaces.Box(0, 1, (1,), np.float32))
        self.rewards = rewards

    def reset(self, *, seed=None, options=None):
        return np.ones(1, np.float32), {}

    def step(self, action):
        reward = sum(arms[int(a)] for arms, a in zip(self.rewards, np.atleast_1d(action), strict=True))
        return np.ones(1, np.float32), reward, True, False, {}


@pytest.mark.parametrize(
    ("space", "rewards", "best"),
    [
        (spaces.Discrete(4), [(0.0, 1.0, 0.3, 0.8)], 1),
        (spaces.MultiDiscrete([3, 2]), [(0.0, 0.2, 1.0), (1.0, 0.0)], [2, 0]),
    ],
)
def test_the_best_arm_is_found(space, rewards, best):
    model = GumbelDDPG(
        "MlpPolicy",
        Bandit(space, *rewards),
        learning_rate=1e-2,
        learning_starts=50,
        train_freq=1,
        logit_penalty=0.01,
        policy_kwargs={"net_arch": [16]},
        buffer_size=1000,
        seed=0,
        device="cpu",
    ).learn(400)
    np.testing.assert_array_equal(model.predict(np.ones(1, np.float32), deterministic=True)[0], best)


@pytest.mark.thorough
def test_logits_stay_bounded_over_50_000_steps():
    """One arm is always better: without the penalty its logit would grow for ever."""
    model = GumbelDDPG(
        "MlpPolicy",
        Bandit(spaces.Discrete(3), (0.0, 1.0, 0.0)),
        learning_rate=1e-2,
        learning_starts=100,
        train_freq=50,
        gradient_steps=5,
        batch_size=16,
        logit_penalty=0.1,
        policy_kwargs={"net_arch": [8]},
        buffer_size=1000,
        seed=0,
        device="cpu",
    ).learn(50_000)
    assert model._n_updates > 4900
    with th.no_grad():
        logits = model.policy.actor(th.ones(1, 1))
    assert 0.5 < logits.abs().max() < 10
    assert logits.argmax() == 1
