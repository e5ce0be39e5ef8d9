"""Updates with baselines that see the action, against autograd on the expectation, on both backends."""

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.policies import MlpPolicy

SCRIPTS = Script((5.0, 1.0, 2.0, -1.5)), Script((0.5, 3.0)), Script((-2.0,))
SPACES = {
    "choice": spaces.Discrete(3),
    "choices": spaces.MultiDiscrete([2, 3]),
    "Gaussian": spaces.Box(-100, 100, (2,), np.float32),
}
BASELINES = {"q_prop": {"conservative": False}, "action_factorized": {}}


def make_model(space, baseline, **arguments):
    return REINFORCE(
        "MlpPolicy",
        ScriptedEnv(SPACES[space], *SCRIPTS),
        learning_rate=0.25,
        n_episodes=3,
        gamma=0.5,
        seed=1,
        device="cpu",
        policy_kwargs={"net_arch": [], "optimizer_class": th.optim.SGD},
        baseline=baseline,
        baseline_kwargs=BASELINES[baseline],
        **arguments,
    )


def factors(policy, obs):
    distribution = policy.get_distribution(obs).distribution
    return distribution if isinstance(distribution, list) else [distribution]


def surrogate(policy, obs, actions, returns, values, slopes, baseline):
    """Of every step: log π(a|s)(G − b) and E_{a~π} b, or Σ_i log π_i(a_i|s)(G − b_i), by autograd."""
    parts = factors(policy, obs)
    if isinstance(parts[0], th.distributions.Normal):
        log_probs = list(parts[0].log_prob(actions).T)
        x = [((actions - parts[0].loc) / parts[0].scale)[:, i : i + 1].detach() for i in range(2)]
        mean, std = parts[0].loc.detach(), parts[0].scale.detach()
        expected = [((parts[0].loc - mean) / std)[:, i : i + 1] for i in range(2)]
    else:
        columns = actions.reshape(len(obs), -1).long().T
        log_probs = [part.log_prob(column) for part, column in zip(parts, columns, strict=True)]
        hot = [th.nn.functional.one_hot(c, p.probs.shape[1]) for c, p in zip(columns, parts, strict=True)]
        x = [h - part.probs.detach() for h, part in zip(hot, parts, strict=True)]
        expected = [part.probs - part.probs.detach() for part in parts]
    advantages = [(deviation * c).sum(1) for deviation, c in zip(x, slopes, strict=True)]
    if baseline == "q_prop":
        total = sum(log_probs) * (returns - values - sum(advantages))
        return total + sum((e * c).sum(1) for e, c in zip(expected, slopes, strict=True))
    return sum(
        log_prob * (returns - values - sum(advantages) + own)
        for log_prob, own in zip(log_probs, advantages, strict=True)
    )


@pytest.mark.parametrize("scaling", [{}, {"normalize_advantage": True}, {"discount_state_distribution": True}], ids=str)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_an_update_against_autograd(engine, space, baseline, scaling):
    model = make_model(space, baseline, engine=engine, **scaling).learn(14)
    used, fitted = model._baseline, model._baseline_state
    before = {name: p.detach().clone() for name, p in model.policy.named_parameters()}
    model.learn(1, reset_num_timesteps=False)
    episodes, after = model._episodes, dict(model.policy.named_parameters())
    moved = {name: after[name].detach() - before[name] for name in before if name not in CRITIC}
    model.policy.load_state_dict({**model.policy.state_dict(), **before})
    used.load_state_dict(fitted)
    slopes = [th.as_tensor(c) for c in used._slopes(episodes, episodes.policy.deviations(episodes.actions))]
    obs, actions = th.as_tensor(episodes.observations), th.as_tensor(episodes.actions)
    returns, values = th.as_tensor(episodes.returns), th.as_tensor(episodes.values)
    per_step = surrogate(model.policy, obs, actions, returns, values, slopes, baseline)
    weights = th.as_tensor(np.broadcast_to(episodes.weights, len(obs)).copy())
    if "normalize_advantage" in scaling:
        advantages = (returns - th.as_tensor(used(episodes))).double()
        scores = model.policy.get_distribution(obs).log_prob(actions.reshape(-1) if space == "choice" else actions)
        per_step = (per_step - advantages.mean() * scores) / (advantages.std() + 1e-8)
    objective = (weights * per_step).sum() / len(episodes.lengths)
    names, parameters = zip(*((n, p) for n, p in model.policy.named_parameters() if n in moved), strict=True)
    for name, g in zip(names, th.autograd.grad(objective, parameters), strict=True):
        np.testing.assert_allclose(moved[name].numpy(), 0.25 * g.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


CRITIC = {"value_net.weight", "value_net.bias"}


def test_what_was_learned_is_saved(tmp_path):
    model = make_model("Gaussian", "q_prop").learn(14)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", device="cpu")
    for each in (model, loaded):
        each.set_env(each._wrap_env(ScriptedEnv(SPACES["Gaussian"], *SCRIPTS)))
        each.set_random_seed(1)
        each.learn(14, reset_num_timesteps=False)
    for a, b in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert th.equal(a, b)


@pytest.mark.parametrize("baseline", BASELINES)
def test_policies_without_such_factors_are_refused(baseline):
    with pytest.raises(
        ValueError, match=rf"'{baseline}' .* actions in MultiBinary\(2\); allowed: Box, Discrete or Mul"
    ):
        REINFORCE("MlpPolicy", RandomEnv(action_space=spaces.MultiBinary(2)), baseline=baseline, device="cpu")
    env = RandomEnv(action_space=spaces.Box(-1, 1, (2,), np.float32))
    squashed = REINFORCE(
        MlpPolicy, env, baseline=baseline, use_sde=True, policy_kwargs={"squash_output": True}, device="cpu"
    )
    with pytest.raises(ValueError, match="allowed: choices or Gaussians"):
        squashed.learn(1)
