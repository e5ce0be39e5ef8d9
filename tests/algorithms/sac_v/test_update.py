"""One update of SACV against float64 autograd, and what its target network is."""

from copy import deepcopy

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import SACV
from sb3_pg_ext.functional.squashed_gaussian import SquashedGaussian

ACTIONS = spaces.Box(-2, 2, (2,), np.float32)
SCRIPTS = [Script((1.0, -2.0, 3.0)), Script((0.5, 0.25), truncated=True), Script((4.0,))]

each_engine = pytest.mark.parametrize("engine", ["array", "autograd"])


def make_model(env=None, **kwargs):
    """A model with steps of plain gradient descent, and a replay buffer that has been filled without updates."""
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD, **kwargs.pop("policy_kwargs", {})}
    arguments = {"buffer_size": 200, "learning_starts": 10**9, "gamma": 0.9, "learning_rate": 0.1, **kwargs}
    env = RandomEnv(ACTIONS) if env is None else env
    model = SACV("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=policy_kwargs, **arguments)
    return model.learn(30)


def everything(model):
    """A batch that holds every transition once, which is what the next update sees."""
    batch = model.replay_buffer._get_samples(np.arange(model.replay_buffer.pos))
    model.replay_buffer.sample = lambda *args, **kwargs: batch
    return batch


def q_of(critic, observations, actions):
    """Q in double precision; SB3's own forward passes turn observations into single precision."""
    return th.cat([net(th.cat([observations, actions], 1)) for net in critic.q_networks], 1)


def output_of(network, observations):
    return network.head(network.trunk(observations))


def log_prob(mean, log_std, noise):
    """Actions and log-probabilities, the slow way."""
    u = mean + log_std.clamp(-20, 2).exp() * noise
    normal = th.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
    return u.tanh(), (normal.log_prob(u) - (1 - u.tanh() ** 2).log()).sum(1)


@each_engine
@pytest.mark.parametrize("n_critics", [1, 2])
@pytest.mark.parametrize("actor_gradient", ["reparametrized", "score"])
@pytest.mark.parametrize(("ent_coef", "reward_scale"), [(0.3, 5.0), ("auto_0.5", 1.0)])
def test_every_loss_and_every_step(engine, n_critics, actor_gradient, ent_coef, reward_scale):
    model = make_model(
        engine=engine,
        policy_kwargs={"n_critics": n_critics},
        actor_gradient=actor_gradient,
        ent_coef=ent_coef,
        reward_scale=reward_scale,
    )
    with th.no_grad():
        for parameter in model.policy.value_target.parameters():
            parameter.normal_()
    batch = everything(model)
    policy = deepcopy(model.policy).double()
    th.manual_seed(3)
    noise = th.randn(30, 2).double()
    observations = batch.observations.double()

    alpha = 0.3 if ent_coef == 0.3 else 0.5
    next_values = output_of(policy.value_target, batch.next_observations.double())
    y = reward_scale * batch.rewards + 0.9 * (1 - batch.dones) * next_values
    q = q_of(policy.critic, observations, batch.actions.double())
    critic_loss = (0.5 * (q - y.detach()) ** 2).mean(0).sum()
    gradients = {"critic": th.autograd.grad(critic_loss, list(policy.critic.parameters()))}
    with th.no_grad():
        for parameter, gradient in zip(policy.critic.parameters(), gradients["critic"], strict=True):
            parameter -= 0.1 * gradient

    latent = policy.actor.latent_pi(observations)
    mean, log_std = policy.actor.mu(latent), policy.actor.log_std(latent)
    actions, log_probs = log_prob(mean, log_std, noise)
    q_sampled = q_of(policy.critic, observations, actions)
    values = output_of(policy.value, observations)[:, 0]
    value_loss = (0.5 * (values - (q_sampled.min(1).values - alpha * log_probs).detach()) ** 2).mean()
    gradients["value"] = th.autograd.grad(value_loss, list(policy.value.parameters()))
    costs = alpha * log_probs - q_sampled[:, 0]
    if actor_gradient == "reparametrized":
        surrogate = costs.mean()
    else:
        u = (mean + log_std.exp() * noise).detach()
        scores = th.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(1)
        surrogate = (scores * (costs + values).detach()).mean()
    gradients["actor"] = th.autograd.grad(surrogate, list(policy.actor.parameters()))

    th.manual_seed(3)
    before = {name: deepcopy(list(getattr(model.policy, name).parameters())) for name in gradients}
    model.train(1)
    losses = model._latest.losses
    assert losses["critic_loss"] == pytest.approx(critic_loss.item(), rel=1e-4)
    assert losses["value_loss"] == pytest.approx(value_loss.item(), rel=1e-4)
    assert losses["actor_loss"] == pytest.approx(costs.mean().item(), rel=1e-4)
    for name, of_network in gradients.items():
        for now, then, gradient in zip(getattr(model.policy, name).parameters(), before[name], of_network, strict=True):
            np.testing.assert_allclose(now.detach(), (then - 0.1 * gradient).detach(), rtol=1e-4, atol=2e-6)
    if ent_coef != 0.3:
        expected = -(np.log(0.5) * (log_probs.detach().numpy() - 2)).mean()
        assert losses["ent_coef_loss"] == pytest.approx(expected, rel=1e-4)
        assert model.log_ent_coef.item() == pytest.approx(
            np.log(0.5) + 0.1 * np.sign((log_probs.mean() - 2).item()), rel=1e-3
        )


@each_engine
def test_both_gradients_of_the_actor_have_the_same_mean(engine):
    """With α = 0 and a critic that is linear in the action both are known: ∇_μ E Q, up to noise."""
    rng = np.random.default_rng(0)
    n, slope = 200_000, 0.7
    noise = rng.normal(size=(n, 1))
    samples = SquashedGaussian(np.full((n, 1), 0.2), np.full((n, 1), -0.5), noise)
    along_path = samples.pathwise(np.full((n, 1), slope), np.zeros(n))[0]
    by_score = samples.score(slope * (samples.actions[:, 0] - samples.actions.mean()))[0]
    error = np.hypot(along_path.std(), by_score.std()) / np.sqrt(n)
    assert abs(along_path.mean() - by_score.mean()) < 4 * error
    assert by_score.std() > 2 * along_path.std()


@pytest.mark.parametrize("reward_scale", [1.0, 3.0])
def test_the_target_with_every_kind_of_end(reward_scale):
    env = ScriptedEnv(ACTIONS, *SCRIPTS)
    model = make_model(env, reward_scale=reward_scale)
    batch = everything(model)
    with th.no_grad():
        next_values = model.policy.value_target(batch.next_observations)
    model.train(1)
    steps = [
        (reward, t + 1 == len(episode.script.rewards) and not episode.script.truncated)
        for episode in env.played
        for t, reward in enumerate(episode.rewards)
    ]
    assert len(steps) == len(batch.rewards)
    for n, (reward, terminated) in enumerate(steps):
        expected = reward_scale * reward + (0 if terminated else 0.9 * next_values[n].item())
        assert model._latest.targets[n].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_target_network_begins_as_a_copy_and_follows():
    model = make_model(tau=0.25)
    pairs = [*zip(model.policy.value.parameters(), model.policy.value_target.parameters(), strict=True)]
    assert all(th.equal(*pair) for pair in pairs)
    before = [target.detach().clone() for _, target in pairs]
    everything(model)
    model.train(1)
    for (source, target), old in zip(pairs, before, strict=True):
        assert not th.equal(source, old)
        np.testing.assert_allclose(target.detach(), (0.75 * old + 0.25 * source).detach(), rtol=1e-5, atol=1e-7)


def test_v_learns_the_soft_value_of_two_states():
    """Two states that follow each other for ever, whose reward does not depend on the action: V = Σγᵗ(r + αH), with H
    the entropy of the policy, which a large α drives to its maximum, log 2 for actions in [−1, 1].
    """
    model = SACV(
        "MlpPolicy",
        TwoStates(),
        learning_rate=3e-3,
        gamma=0.5,
        ent_coef=1.0,
        tau=0.05,
        batch_size=64,
        buffer_size=1000,
        learning_starts=100,
        policy_kwargs={"net_arch": [32]},
        seed=0,
        device="cpu",
    ).learn(800)
    entropy = np.log(2)
    expected = {s: (r + entropy) + 0.5 * (other + entropy) for s, r, other in ((0, 1.0, -1.0), (1, -1.0, 1.0))}
    # The sum of Σ 0.5ᵗ over even steps is 4/3.
    states = th.eye(2)
    with th.no_grad():
        values = model.policy.value(states)[:, 0].numpy()
    np.testing.assert_allclose(values, [4 / 3 * expected[0], 4 / 3 * expected[1]], atol=0.15)


class TwoStates(RandomEnv):
    """State 0 earns 1 and leads to state 1, which earns −1 and leads back."""

    def __init__(self):
        super().__init__(spaces.Box(-1, 1, (1,), np.float32), spaces.Box(0, 1, (2,), np.float32))

    def reset(self, *, seed=None, options=None):
        self.state = 0
        return self.observation(), {}

    def observation(self):
        return np.eye(2, dtype=np.float32)[self.state]

    def step(self, action):
        reward, self.state = (1.0, -1.0)[self.state], 1 - self.state
        return self.observation(), reward, False, False, {}
