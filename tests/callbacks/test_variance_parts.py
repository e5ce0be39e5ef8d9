"""GradientVarianceCallback: the parts of the variance, importance sampling, and actors that learn from Q."""

from collections import defaultdict

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.algorithms import record
from enumeration import EPISODES, HORIZON, POLICY, REWARDS, VALUES
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from matplotlib.figure import Figure
from stable_baselines3 import A2C, DDPG, DQN, SAC, TD3
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext import REINFORCE, SACV, GumbelDDPG, make_baseline
from sb3_pg_ext.callbacks import GradientVarianceCallback, plot_gradient_variance


class SmallMDP(gym.Env):
    """The Markov decision process of which everything can be enumerated."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.t = 0, 0
        return self.state, {}

    def step(self, action):
        reward, self.t = REWARDS[self.state][action], self.t + 1
        terminated = (self.state, action) == (1, 1) or self.t == HORIZON
        self.state = int(self.np_random.integers(2))
        return self.state, reward, terminated, False, {}


def small_model(algorithm=A2C, env=SmallMDP, **kwargs):
    """With the policy and the critic of the enumeration, as functions of a one-hot state."""
    model = algorithm(
        "MlpPolicy", env(), gamma=1.0, policy_kwargs={"net_arch": []}, seed=0, device="cpu", verbose=0, **kwargs
    )
    with th.no_grad():
        model.policy.action_net.weight.copy_(th.tensor(np.log(np.array(POLICY, float)).T))
        model.policy.action_net.bias.zero_()
        model.policy.value_net.weight.copy_(th.tensor(VALUES)[None])
        model.policy.value_net.bias.zero_()
    return model


def score(state, action):
    """∇log π(a|s) with respect to weights and biases, [6]."""
    of_logits = np.eye(2)[action] - np.array(POLICY[state], float)
    return np.concatenate([np.outer(of_logits, np.eye(2)[state]).ravel(), of_logits])


def exact_parts(weight_of):
    """By all episodes and steps, of x = ∇log π(a_t|s_t)·w_t, where w_t is a function of the episode and t."""
    x, p, before = [], [], []
    for episode in EPISODES:
        for t, (state, action) in enumerate(zip(episode.states, episode.actions, strict=True)):
            x.append(score(state, action) * weight_of(episode, t))
            p.append(float(episode.probability))
            before.append((episode.states[: t + 1], episode.actions[:t], action))
    x, p = np.array(x), np.array(p) / np.sum(p)

    def means(keys):
        sums = defaultdict(lambda: [0.0, 0.0])
        for key, probability, row in zip(keys, p, x, strict=True):
            sums[key][0] = sums[key][0] + probability * row
            sums[key][1] += probability
        return np.array([sums[key][0] / sums[key][1] for key in keys])

    of_actions, of_states, mean = means(before), means([key[:2] for key in before]), p @ x
    differences = (x - of_actions, of_actions - of_states, of_states - mean)
    return [float(p @ np.square(difference).sum(axis=1)) for difference in differences]


def test_parts_are_those_of_the_enumeration():
    weights = {
        "none": lambda episode, t: episode.rewards[t:].sum(),
        "value": lambda episode, t: episode.rewards[t:].sum() - VALUES[episode.states[t]],
        "total_none": lambda episode, t: episode.rewards.sum(),
    }
    env = DummyVecEnv([SmallMDP] * 50)
    callback = GradientVarianceCallback(
        env, ["none", "value"], ["none"], n_batches=2, n_episodes=50, n_states=2500, reference="none"
    )
    callback.init_callback(small_model())
    measured = callback.measure()
    for name, weight_of in weights.items():
        expected = exact_parts(weight_of)
        parts = measured[name].parts
        np.testing.assert_allclose(parts, expected, atol=0.05 * sum(expected), err_msg=name)
        assert parts.total == pytest.approx(sum(parts))
    assert measured["value"].parts.trajectory == pytest.approx(measured["none"].parts.trajectory)
    assert measured["value"].parts.action != pytest.approx(measured["none"].parts.action, rel=0.1)


class Lottery(SmallMDP):
    """One step, whose reward is a matter of state and action alone."""

    def step(self, action):
        *_, info = super().step(action)
        return self.state, float(action), True, False, info


def test_what_a_baseline_can_remove():
    """Nothing happens after the action here, so Σ_τ = 0; Q-Prop's fit takes Σ_a away, and gives back the mean."""
    model = small_model(REINFORCE, Lottery, baseline="value")
    env = DummyVecEnv([Lottery] * 50)
    callback = GradientVarianceCallback(
        env, ["none", "q_prop"], n_batches=10, n_episodes=50, n_states=2000, reference="none"
    )
    callback.init_callback(model)
    measured = callback.measure()
    assert measured["none"].parts.trajectory == pytest.approx(0, abs=1e-9)
    assert measured["none"].parts.removable == pytest.approx(1, abs=0.1)
    assert measured["q_prop"].parts.total < 0.1 * measured["none"].parts.total


def test_where_there_are_no_parts():
    baselines = {"components": make_baseline("optimal_per_component"), "none": make_baseline("none")}
    callback = GradientVarianceCallback(SmallMDP(), baselines, n_batches=2, n_episodes=4, n_states=4, reference="none")
    callback.init_callback(small_model())
    measured = callback.measure()
    assert measured["components"].parts is None
    assert list(measured["components"].numbers()) == ["variance", "snr", "cosine"]
    keys = ["variance", "snr", "cosine", "sigma_tau", "sigma_a", "sigma_s", "removable"]
    assert list(measured["none"].numbers()) == keys


class Forgetful(SmallMDP):
    """It has a chance of its own, which no seed governs."""

    def reset(self, *, seed=None, options=None):
        return (*super().reset(seed=seed, options=options)[:0], self._shown(), {})

    def step(self, action):
        _, *more = super().step(action)
        return (self._shown(), *more)

    def _shown(self):
        self.count = getattr(self, "count", 0) + 1
        return self.count // 3 % 2


def test_an_environment_that_does_not_repeat_itself_is_refused():
    callback = GradientVarianceCallback(Forgetful(), ["none"], n_batches=2, n_episodes=2, n_states=10, reference="none")
    callback.init_callback(small_model(env=Forgetful))
    with pytest.raises(ValueError, match=r"does not repeat itself.*allowed: n_states=0"):
        callback.measure()


class Recorded(SmallMDP):
    """It keeps its episodes: states, actions, rewards."""

    def __init__(self):
        self.episodes = []

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.episodes.append(([], [], []))
        return obs, info

    def step(self, action):
        state = self.state
        obs, reward, *more = super().step(action)
        for kept, value in zip(self.episodes[-1], (state, int(action), reward), strict=True):
            kept.append(value)
        return (obs, reward, *more)


@pytest.mark.parametrize("max_ratio", [float("inf"), 1.2])
def test_gradients_from_another_policy(max_ratio):
    env, model = Recorded(), small_model()
    callback = GradientVarianceCallback(
        env, (), n_batches=3, n_episodes=4, ratios=["per_step", "per_decision"], max_ratio=max_ratio
    )
    callback.init_callback(model)
    other = small_model().policy
    with th.no_grad():
        other.action_net.weight.zero_()  # μ(a|s) = ½
    measured = callback.measure(behaviour=other)
    episodes = [episode for episode in env.episodes if episode[0]]
    assert len(episodes) == 24
    gradients = {"importance_per_step": [], "importance_per_decision": []}
    for b in range(3, 6):
        for name, of_batches in gradients.items():
            total = 0
            for states, actions, rewards in episodes[4 * b : 4 * b + 4]:
                ratios = np.array([2 * float(POLICY[s][a]) for s, a in zip(states, actions, strict=True)])
                for t, (state, action) in enumerate(zip(states, actions, strict=True)):
                    if name == "importance_per_step":
                        weight, value = min(max_ratio, ratios[t]), sum(rewards[t:])
                    else:
                        weight, value = min(max_ratio, ratios[: t + 1].prod()), 0
                        for k in range(len(states) - 1, t - 1, -1):
                            following = min(max_ratio, ratios[k + 1]) if k + 1 < len(states) else 0
                            value = rewards[k] + following * value
                    total = total + weight * value * score(state, action)
            of_batches.append(total / 4)
    for name, of_batches in gradients.items():
        assert measured[name].variance == pytest.approx(np.cov(np.transpose(of_batches)).trace(), rel=1e-4)


# ---- actors that learn from Q ---------------------------------------------------------------------------------------

OFF_POLICY = {
    "SAC": (SAC, "Box", ["reparametrized", "score"], {}),
    "SAC, fixed α": (SAC, "Box", ["reparametrized", "score"], {"ent_coef": 0.2}),
    "SACV": (SACV, "Box", ["reparametrized", "score"], {}),
    "GumbelDDPG": (GumbelDDPG, "MultiDiscrete", ["reparametrized", "score"], {"train_freq": 1}),
    "TD3": (TD3, "Box", ["reparametrized"], {}),
    "DDPG": (DDPG, "Box", ["reparametrized"], {}),
}


def off_policy_model(algorithm, space, **kwargs):
    env = RandomEnv(ACTION_SPACES[space])
    arguments = {"learning_starts": 10, "batch_size": 64, "buffer_size": 100, "policy_kwargs": {"net_arch": [8]}}
    return algorithm("MlpPolicy", env, seed=0, device="cpu", **arguments, **kwargs)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_training_goes_on_with_an_actor_measured(name):
    algorithm, space, measured, kwargs = OFF_POLICY[name]
    plain = off_policy_model(algorithm, space, **kwargs).learn(30)
    model = off_policy_model(algorithm, space, **kwargs)
    log = record(model)
    model.learn(30, GradientVarianceCallback(None, update_freq=15, n_batches=3, n_states=4))
    assert all(map(th.equal, plain.policy.state_dict().values(), model.policy.state_dict().values()))
    logged = {key.split("/")[1] for key in log.latest if key.startswith("gradient/")}
    assert logged == set(measured)
    for each in measured:
        assert log.latest[f"gradient/{each}/variance"] > 0
        assert log.latest[f"gradient/{each}/sigma_tau"] == 0
    if algorithm in (TD3, DDPG):  # there is no noise
        assert log.latest["gradient/reparametrized/sigma_a"] == pytest.approx(0, abs=1e-12)
    else:
        assert log.latest["gradient/score/sigma_a"] > 0


@pytest.mark.parametrize("algorithm", [SAC, SACV])
def test_both_gradients_of_an_actor_are_the_same_on_average(algorithm):
    model = off_policy_model(algorithm, "Box", ent_coef=0.2).learn(60)
    model.batch_size = 4000
    callback = GradientVarianceCallback(None, n_batches=6)
    callback.init_callback(model)
    measured = callback.measure()
    assert measured["reparametrized"].cosine > 0.99
    assert measured["score"].cosine > 0.9


UNFIT = {
    "DQN": (DQN, "Discrete", {"env": None}, "env=None in DQN; allowed: an environment for on-policy algorithms, None"),
    "no score": (TD3, "Box", {"env": None, "actor_gradients": ["score"]}, "actor_gradients='score'; allowed: 'repar"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_algorithms_without_such_an_actor_are_refused(name):
    algorithm, space, arguments, message = UNFIT[name]
    with pytest.raises(ValueError, match=message):
        off_policy_model(algorithm, space).learn(1, GradientVarianceCallback(**arguments))


BAD_ARGUMENTS = {
    "states": ({"n_states": 1}, "n_states=1; allowed: 0, or an integer ≥ 2"),
    "fewer than none": ({"n_states": -1}, "n_states=-1; allowed: 0, or an integer ≥ 2"),
    "shares": ({"n_states": 3}, "n_states=3 cannot be shared equally by 2 environments"),
    "ratios": ({"ratios": ["per_steps"]}, "ratios='per_steps'.*allowed: 'per_step', 'per_decision'"),
    "limit": ({"max_ratio": 0.5}, "max_ratio=0.5; allowed: a number ≥ 1"),
    "gradients": ({"env": None, "actor_gradients": ["scores"]}, "actor_gradients='scores'"),
    "both": ({"actor_gradients": ["score"]}, "together with env; allowed: env=None"),
    "no env": ({"env": None, "baselines": ["mean"]}, "env=None together with .*; allowed: an environment"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_say_what_is_allowed(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        GradientVarianceCallback(**{"env": DummyVecEnv([SmallMDP] * 2), **arguments})


# ---- while it trains ------------------------------------------------------------------------------------------------


def test_training_goes_on_as_without_it_and_is_plotted(tmp_path):
    def normalized():
        return VecNormalize(DummyVecEnv([lambda: RandomEnv(ACTION_SPACES["Discrete"])]))

    def train(callback=None):
        model = A2C("MlpPolicy", normalized(), n_steps=5, seed=0, device="cpu")
        model.set_logger(configure(str(tmp_path), ["csv"]))
        model.learn(30, callback, log_interval=1)
        model.logger.close()
        return model

    plain, env = train(), normalized()
    with pytest.raises(ValueError, match=r"has no gradient/….*allowed: that of a training with"):
        plot_gradient_variance(tmp_path)
    callback = GradientVarianceCallback(env, update_freq=2, n_batches=2, n_episodes=3, n_states=4, ratios=["per_step"])
    model = train(callback)
    assert env.training
    assert all(map(th.equal, plain.policy.state_dict().values(), model.policy.state_dict().values()))
    figure = plot_gradient_variance(tmp_path / "progress.csv")
    assert isinstance(figure, Figure)
    labels = ["variance of the gradient", "signal-to-noise ratio", "cosine to the reference"]
    assert [axes.get_ylabel() for axes in figure.axes] == [*labels, "share that a baseline could remove"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["importance_per_step", "mean", "none"]
    assert [line.get_label() for line in figure.axes[3].lines] == ["mean", "none"]
    assert list(figure.axes[0].lines[0].get_xdata()) == [5, 15, 25]
